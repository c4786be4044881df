"""Where xaitools keeps what it can make again: trained weights, prepared volumes."""

import os
from pathlib import Path


def cache_dir(folder: str | Path | None = None) -> Path:
    """The folder given, else that of the variable XAITOOLS_CACHE, else ``~/.cache/xaitools``; it may not exist."""
    return Path(folder or os.environ.get("XAITOOLS_CACHE") or "~/.cache/xaitools").expanduser()
