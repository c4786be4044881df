"""Whether the process that began something still lives, told by a word that names neither user nor machine."""

import hashlib
import os
from functools import lru_cache
from pathlib import Path

import psutil

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


def is_of_another_machine(word: str) -> bool:
    """Whether a :func:`token` was made on another machine or container, or before this one was started last."""
    return not word.endswith(f".{_place()}")


@lru_cache
def _place() -> str:
    """Where numbers of processes mean the same: one start of one machine, and there one container."""
    try:
        began = Path("/proc/sys/kernel/random/boot_id").read_text()
        container = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        began, container = str(round(psutil.boot_time() / 60)), ""
    return hashlib.sha256(f"{began}{container}".encode()).hexdigest()[:6]
