"""What a loader may spend on a file: it must end in time, and must not fill the memory."""

import faulthandler
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SECONDS = 20
MOST_BYTES = 2**30
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class HangError(BaseException):
    """No loader can catch it."""


def _stop(*_: object) -> None:
    raise HangError(f"no answer in {SECONDS} s")


def peak() -> int:
    """The most memory that this process has held, bytes; 0 where the system does not say it."""
    lines = STATUS.read_text().splitlines() if STATUS.exists() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), 0)


def forget_peak() -> None:
    """Let :func:`peak` count from what is held now, where the system allows that."""
    if CLEAR.exists():
        CLEAR.write_text("5")


@contextmanager
def limits() -> Iterator[None]:
    """Raise HangError in what takes longer than 20 s, and fail on what takes more than 1 GiB of memory.

    What neither returns nor listens to a signal, as a library in C may, ends the process after three times as long.
    """
    before = peak()
    handler = signal.signal(signal.SIGALRM, _stop)
    faulthandler.dump_traceback_later(3 * SECONDS, exit=True)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        faulthandler.cancel_dump_traceback_later()
        signal.signal(signal.SIGALRM, handler)
    assert peak() - before < MOST_BYTES, f"took {(peak() - before) / 2**20:.0f} MiB"
