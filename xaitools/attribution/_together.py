"""Several calls of `attribute` that are one to whoever asks: one count of passes, one table of maps."""

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from xaitools.attribution.attribute import Maps
from xaitools.progress import Progress, Teller


class Together:
    """Tells of several calls as of one. What is to come is taken to be as long as what has begun.

    Parameters
    ----------
    calls
        How many there will be.
    progress
        As `attribute` takes it.
    """

    def __init__(self, calls: int, progress: bool | Progress) -> None:
        self.calls, self.totals = calls, list[int]()
        self.teller = Teller(0, progress)

    def next(self) -> Progress:
        """The `progress` of the next call."""
        before, number = self.teller.done, len(self.totals)

        def tell(done: int, total: int) -> None:
            if len(self.totals) == number:
                self.totals.append(total)
                self.teller.expect(round(sum(self.totals) * self.calls / len(self.totals)))
            self.teller(before + done - self.teller.done)

        return tell

    def __enter__(self) -> "Together":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.teller.__exit__(kind, error, trace)


def of_all_images(parts: Sequence[Maps]) -> Maps:
    """The maps of several calls, each of other images, as one; a method that failed on one of them has no map."""
    whole = Maps()
    whole.passes = sum(part.passes for part in parts)
    for part in reversed(parts):
        whole.errors |= part.errors
    for target, sources in (
        (whole, parts),
        (whole.completeness_gap, [part.completeness_gap for part in parts]),
        (whole.relevance_gap, [part.relevance_gap for part in parts]),
    ):
        for name in sources[0]:
            if all(name in source for source in sources):
                target[name] = torch.cat([source[name] for source in sources])
    return whole


def own_options(
    options: Mapping[str, Mapping[str, Any]], shape: tuple[int, ...], i: int
) -> dict[str, dict[str, Any]]:
    """Options of methods, those given one an image cut down to image number `i` of images of that shape."""
    labels = ((shape[0], *shape[2:]), (shape[0], 1, *shape[2:]))

    def own(key: str, value: Any) -> Any:
        each = isinstance(value, Tensor) and tuple(value.shape) in (
            labels if key == "label_map" else (shape,)
        )
        return value[i : i + 1] if each else value

    return {
        method: {key: own(key, value) for key, value in given.items()} for method, given in options.items()
    }
