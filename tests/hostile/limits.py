"""What a loader may spend on a file: it must end in time, and must not fill the memory."""

import faulthandler
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SECONDS, PATIENCE = 20, 3  # of the processor; the clock may show more, where others work too
MOST_BYTES = 2**30
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class HangError(BaseException):
    """No loader can catch it."""


def _stop(*_: object) -> None:
    raise HangError(f"no answer after {SECONDS} s of work, or {PATIENCE * SECONDS} s of waiting")


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
    """Raise HangError in what works longer than 20 s, and fail on what takes more than 1 GiB of memory.

    What neither returns nor listens to a signal, as a library in C may, ends the process in the end.
    """
    before = peak()
    handlers = {number: signal.signal(number, _stop) for number in (signal.SIGALRM, signal.SIGPROF)}
    faulthandler.dump_traceback_later(2 * PATIENCE * SECONDS, exit=True)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    signal.alarm(PATIENCE * SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.setitimer(signal.ITIMER_PROF, 0)
        faulthandler.cancel_dump_traceback_later()
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert peak() - before < MOST_BYTES, f"took {(peak() - before) / 2**20:.0f} MiB"
