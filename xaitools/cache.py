"""Where xaitools keeps what it can make again: trained weights, prepared volumes."""

import os
from pathlib import Path


def cache_dir(folder: str | Path | None = None) -> Path:
    """The folder given, else that of the variable XAITOOLS_CACHE, else ``~/.cache/xaitools``; it may not exist."""
    return Path(folder or os.environ.get("XAITOOLS_CACHE") or "~/.cache/xaitools").expanduser()


_study = ""


def set_study(name: str) -> None:
    """Tell for which study this process makes what it puts into the cache from now on."""
    global _study
    _study = name


def current_study() -> str:
    """The study that was told last; "" if none was."""
    return _study
