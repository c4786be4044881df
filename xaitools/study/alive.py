"""Whether the process that began something still lives, told by a word that names neither user nor machine."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

from xaitools.files import digest

_CLOCK = 5  # seconds by which the start of a process may seem to move when the clock is set


def token() -> str:
    """This process: its number, when it began, and a digest that is another after every start of the machine.

    Examples
    --------
    >>> is_gone(token())
    False
    """
    return f"{os.getpid():x}.{int(psutil.Process().create_time()):x}.{_place()}"


def is_gone(word: str) -> bool:
    """Whether the process of a :func:`token` has ended; False where that cannot be known, as on another machine."""
    try:
        number, began, place = word.split(".")
        if place != _place():
            return False
        return abs(psutil.Process(int(number, 16)).create_time() - int(began, 16)) > _CLOCK
    except psutil.NoSuchProcess:
        return True
    except (ValueError, psutil.Error):
        return False


def was_killed(manifest: Mapping[str, Any]) -> bool:
    """Whether a manifest says "running" of a run whose process has ended, so that it could not say how.

    That is known of a run through `run_study` on this machine since it was last started.
    """
    return manifest.get("status") == "running" and is_gone(str(manifest.get("process", "")))


def _place() -> str:
    """Where numbers of processes mean the same: one start of one machine, and there one container."""
    try:
        began = Path("/proc/sys/kernel/random/boot_id").read_text()
        container = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        began, container = str(round(psutil.boot_time() / 60)), ""
    return digest([began, container])[:6]
