"""How a mask is optimised."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from hashlib import blake2b
from typing import Any

import torch
from torch import Tensor

from xaitools.checks import check_choice, check_counts, check_positive
from xaitools.errors import ParameterError

REDUCTIONS = ("mean", "sum")
STARTS = ("ones", "zeros", "circle")


@dataclass(frozen=True, eq=False)
class MaskSettings:
    """One setting of the optimisation of a mask m, which keeps a voxel where it is 1 and deletes it where it is 0.

    Minimised is ``score(m X + (1 - m) B) + l1 R(|1 - m|**beta1) + l2 R(sum over axes of |difference of m|**beta2)``,
    with forward differences between neighbours. The penalties are of the mask's cells, which are voxels unless it is
    `coarse`.

    Attributes
    ----------
    l1
        Weight of what is hidden.
    l2
        Weight of roughness.
    beta1, beta2
        Their exponents, 1 or more.
    reduction
        R, of both penalties: "mean" or "sum" over cells. A weight for means is that for sums times their number.
        Public codes differ: Fong and Vedaldi have sums over a mask of 28 x 28 cells (l1 1e-4, l2 1e-2, beta2 3),
        others means (0.01, 0.2, 3).
    coarse
        A cell of the mask for so many voxels along each axis, with straight lines between the middles of cells.
    steps
        Steps of Adam.
    learning_rate
        Of Adam, the same in all steps; after each, the mask is clamped to 0 and 1.
    jitter
        Voxels by which the masked images are shifted at most along each axis, anew in each step; what comes in at the
        border repeats it. The mask that is returned is judged without.
    start
        "ones" (nothing hidden; a network that is very sure of itself gives no slope there, and the mask may stay 1),
        "zeros" (everything hidden), "circle" (an ellipsoid of half the image's size in its middle hidden), or a mask
        (*spatial).
    area
        Share of cells to hide, which takes the place of `l1`: Fong, Patrick and Vedaldi's constraint. Its penalty is
        the mean square of what the cells, ranked by their values, miss of a mask of that share of zeros and else ones,
        with a weight that grows from 1 to 100,000. Cells of one value rank by how fast the score falls with them.

    Raises
    ------
    ParameterError
        If a value is out of its range.
    """

    l1: float = 0.1
    l2: float = 0.1
    beta1: float = 1.0
    beta2: float = 2.0
    reduction: str = "mean"
    coarse: int = 1
    steps: int = 300
    learning_rate: float = 0.1
    jitter: int = 0
    start: str | Tensor = "ones"
    area: float | None = None

    def __post_init__(self) -> None:
        check_choice(reduction=(self.reduction, REDUCTIONS))
        check_counts(coarse=self.coarse, steps=self.steps)
        check_positive(learning_rate=self.learning_rate)
        if isinstance(self.jitter, bool) or not isinstance(self.jitter, int) or self.jitter < 0:
            raise ParameterError(f"jitter={self.jitter!r}; expected a whole number of voxels, 0 or more.")
        for name, least in {"l1": 0, "l2": 0, "beta1": 1, "beta2": 1}.items():
            value = getattr(self, name)
            if not (isinstance(value, int | float) and least <= value < math.inf):
                raise ParameterError(f"{name}={value!r}; expected a number of {least} or more.")
        if self.area is not None and not 0 < self.area < 1:
            raise ParameterError(f"area={self.area!r}; expected a share between 0 and 1.")
        if not isinstance(self.start, Tensor):
            check_choice(start=(self.start, STARTS))

    def plain(self) -> dict[str, Any]:
        """All values as JSON takes them; of a starting mask, a short code of its content."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        if isinstance(self.start, Tensor):
            content = self.start.detach().cpu().double().contiguous().numpy().tobytes()
            values["start"] = f"mask {blake2b(content, digest_size=6).hexdigest()}"
        return values

    def __eq__(self, other: object) -> bool:
        return isinstance(other, MaskSettings) and self.plain() == other.plain()

    def __hash__(self) -> int:
        return hash(tuple(self.plain().values()))

    @property
    def stack(self) -> tuple[Any, ...]:
        """What masks that are optimised as one stack have in common."""
        return self.coarse, self.steps, self.jitter, self.beta1, self.beta2, self.area is None


def checked_settings(settings: MaskSettings | Sequence[MaskSettings]) -> list[MaskSettings]:
    """The settings as a list, one or more of them and all different."""
    listed = [settings] if isinstance(settings, MaskSettings) else list(settings)
    if not listed or not all(isinstance(one, MaskSettings) for one in listed):
        raise ParameterError(f"settings={settings!r}; expected a MaskSettings, or one or more in a list.")
    for i, one in enumerate(listed):
        if one in listed[:i]:
            raise ParameterError(
                f"settings: numbers {listed.index(one)} and {i} are the same; expected different ones: take one out."
            )
    return listed


def starting_mask(start: str | Tensor, images: Tensor) -> Tensor:
    """The mask (*spatial) from which an optimisation starts."""
    shape = images.shape[2:]
    if isinstance(start, Tensor):
        return start.to(images)
    if start in ("ones", "zeros"):
        return images.new_full(shape, float(start == "ones"))
    sides = [(torch.arange(n) - (n - 1) / 2) / (n / 4) for n in shape]
    distance = torch.stack(torch.meshgrid(*sides, indexing="ij")).square().sum(0)
    return (distance > 1).to(images)
