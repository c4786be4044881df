"""The signals by which a process is asked to end: Ctrl-C, and what queues and terminals that close send."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

POLITE = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGXCPU") if hasattr(signal, name)
)
"""Those that can be heard and ask to end; a process that does not listen to them dies without a word."""


class Stopped(KeyboardInterrupt):
    """Somebody asked this process to end.

    Attributes
    ----------
    number
        Of the signal.
    """

    def __init__(self, number: int) -> None:
        self.number = signal.Signals(number)
        super().__init__("Ctrl-C" if self.number == signal.SIGINT else self.number.name)

    def __reduce__(self) -> tuple[type["Stopped"], tuple[int]]:
        return type(self), (int(self.number),)  # it travels from the workers of a sweep


class Heard:
    """The signals that came while a `deferred` block ran."""

    def __init__(self) -> None:
        self.numbers: list[int] = []

    def check(self) -> None:
        """Raise `Stopped` if a signal came."""
        if self.numbers:
            raise Stopped(self.numbers[0])


_raised: list[int] = []
"""What `raising` has raised, which some library may have swallowed since."""


@contextmanager
def raising() -> Iterator[None]:
    """Let every polite signal raise `Stopped` in the block, as Ctrl-C alone raises KeyboardInterrupt by default."""
    try:
        with _handled(_raise):
            yield
    finally:
        _raised.clear()


@contextmanager
def deferred() -> Iterator[Heard]:
    """Only note polite signals in the block, so that none strikes where it would leave something half done.

    Whoever uses it asks `Heard.check` wherever the block may end; its own end asks, too. Outside of Python's main
    thread no signal is heard. Handlers of the user's own stay.
    """
    heard = Heard()
    heard.numbers += _raised
    with _handled(lambda number, frame: heard.numbers.append(number)):
        yield heard
    heard.check()


def _raise(number: int, frame: Any) -> None:
    _raised.append(number)
    raise Stopped(number)


@contextmanager
def _handled(handler: Callable[[int, Any], object]) -> Iterator[None]:
    """Handle polite signals so, but for those that somebody handles otherwise."""
    usual = (signal.SIG_DFL, signal.default_int_handler, _raise)
    in_main = threading.current_thread() is threading.main_thread()
    before = {number: signal.getsignal(number) for number in POLITE} if in_main else {}
    ours = {number: previous for number, previous in before.items() if previous in usual}
    for number in ours:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number, previous in ours.items():
            signal.signal(number, previous)
