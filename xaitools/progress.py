"""How far a call is, told to a bar or to a function, which may stop it."""

import time
from collections.abc import Callable
from typing import Any

from tqdm.auto import tqdm

Progress = Callable[[int, int], object]
"""``progress(done, total)``; what it raises ends the work."""

_PAUSE = 0.05
"""Seconds between questions whether to go on."""


class Teller:
    """Counts passes, windows or iterations, and tells.

    Parameters
    ----------
    total
        How many there will be.
    show
        A `Progress`, or whether to show a bar, which appears only if the work takes more than two seconds.
    what, unit
        Written on the bar.

    Attributes
    ----------
    stopped_by
        What the function raised, if it did.
    """

    def __init__(
        self, total: int, show: bool | Progress, what: str = "explaining", unit: str = "pass"
    ) -> None:
        self.done, self.total = 0, total
        self.stopped_by: BaseException | None = None
        self._ask_after = 0.0
        self._tell = show if callable(show) else None
        hidden = callable(show) or not show
        self._bar: Any = tqdm(total=total, desc=what, unit=unit, disable=hidden, delay=2, leave=False)

    def __call__(self, passes: int = 0) -> None:
        """Tell that so many more are done; 0 only asks whether to go on."""
        self.done += passes
        self._bar.update(passes)
        if self._tell is not None and (passes or time.monotonic() > self._ask_after):
            self._ask_after = time.monotonic() + _PAUSE
            try:
                self._tell(self.done, self.total)
            except BaseException as error:
                self.stopped_by = error
                raise

    def expect(self, total: int) -> None:
        """Tell of another total from now on."""
        self.total = self._bar.total = total

    def __enter__(self) -> "Teller":
        self(0)
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()
