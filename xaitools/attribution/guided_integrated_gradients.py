"""Guided integrated gradients (Kapishnikov et al. 2021): a path that first moves the pixels that matter least."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from xaitools.attribution._stream import AT_THE_IMAGE, Batch, Gap, Passes, Plan
from xaitools.attribution.integrated_gradients import (
    Baseline,
    chosen_baselines,
    completeness_gap,
    start_of,
)
from xaitools.attribution.registry import Option, Setting, method
from xaitools.checks import check_counts
from xaitools.errors import MethodError

CLOSE = 1e-9
"""Distances, as a fraction of their size and in units of the image, that count as the same."""


@method(
    "path",
    label=lambda option: "GIG" + "".join(part[0].upper() for part in option.split("+") if part),
    idea="how did the answer change on a way from a baseline image that keeps off steep gradients, by which pixels?",
    equation=r"R_i = \int_0^1 \frac{\partial f(\gamma(a))}{\partial \gamma_i} \, \frac{d\gamma_i(a)}{da} \, da",
    use=(
        "Where integrated gradients are noisy because their straight path crosses steep places; γ "
        "moves pixels of small gradients first."
    ),
    failures=(
        "The path depends on the network, so that maps of two networks are not made alike.",
        "Even with many steps the sum misses some of the output's change.",
        "Steps follow each other, so that one image takes long; it has a baseline, with the doubts about it.",
    ),
    reference="Kapishnikov et al. 2021, arXiv:2106.09788, algorithm 1; anchored: section 3.3.",
    option=Option("black", "names of baselines joined by +, as black+white", lambda text: {"baseline": text}),
)
def guided_integrated_gradients(
    setting: Setting,
    *,
    baseline: str | Baseline = "black",
    steps: int = 50,
    baselines: Mapping[str, Baseline] | None = None,
    fraction: float = 0.25,
    max_dist: float = 0.02,
) -> Plan:
    """Share of each pixel in the output's change on a path that moves pixels of small gradients first.

    In each step the pixels with the smallest gradients, a `fraction` of all channels and pixels, go towards the image,
    and further ones if that is not enough, till the distance left (the sum of absolute differences) is that of the
    straight line. The path stays near that line. As the authors' own code (PAIR's ``saliency``), which takes one image
    at a time; here a step of all images of a batch is one pass.

    Parameters
    ----------
    baseline
        Where the path starts, as for `integrated_gradients`.
    steps
        Steps of equal length, one gradient each; the authors take 200.
    baselines
        More baselines by name.
    fraction
        Share of the pixels that are moved at a time, above 0 and at most 1.
    max_dist
        How far a pixel may be ahead of the straight line or behind it, as a share of its way, from 0, which gives
        integrated gradients, to 1, where it may do as it likes.

    Returns
    -------
    Tensor
        In units of the output; sums over an image to output(image) - output(baseline) but for the steps' error, which
        `attribute` tells as the completeness gap. Each step takes the gradient at its beginning, and single pixels
        jump by up to twice `max_dist` in it, so that more steps alone do not make the gap vanish. Positive where the
        pixel, as it differs from the baseline, raises the output.

    Raises
    ------
    MethodError
        If a baseline is not known, or an option is out of its range.
    ShapeError
        If the baseline does not fit the images.
    TargetError
        If the network has no such output.
    UnsupportedModelError
        If the network is not differentiable.
    """
    check_counts(error=MethodError, steps=steps)
    _check_share("fraction", fraction, above=0)
    _check_share("max_dist", max_dist)
    chosen = list(chosen_baselines(baseline, baselines or {}, setting).values())

    def run(batch: Batch) -> Tensor:
        maps = torch.zeros_like(batch.points, dtype=torch.float64)
        for start in chosen:
            starts = [start_of(start, row, k) for row, k in zip(batch.points, batch.owners, strict=True)]
            maps += _maps(setting, batch, torch.stack(starts), steps, fraction, max_dist) / len(chosen)
        return maps.to(batch.points)

    passes = Passes(setting.name, run, units=len(chosen) * steps)
    gap = Gap("completeness_gap", lambda maps: completeness_gap(setting, maps, *chosen))
    return Plan(passes, {"image": AT_THE_IMAGE}, gap=gap)


def _check_share(name: str, value: float, above: float | None = None) -> None:
    if not (0 <= value <= 1) or value == above:
        least = "0" if above is None else "above 0"
        raise MethodError(f"{name}={value!r}; expected a share, from {least} to 1.")


def _maps(
    setting: Setting, batch: Batch, starts: Tensor, steps: int, fraction: float, max_dist: float
) -> Tensor:
    """Maps (n, channel, *spatial) of a batch from one start each, float64."""
    images = batch.points
    walks = [
        _Walk(image.double().flatten(), start.double().flatten(), steps, fraction, max_dist)
        for image, start in zip(images, starts, strict=True)
    ]
    for step in range(steps):
        points = torch.stack([walk.point for walk in walks]).view(images.shape).to(images)
        gradients = setting.network.gradients(points, batch.target)
        for walk, gradient in zip(walks, gradients.double(), strict=True):
            walk.go(step, gradient.flatten())
        batch.tell(len(images))
    return torch.stack([walk.shares for walk in walks]).view(images.shape)


@dataclass
class _Walk:
    """The way of one image, its numbers in a row (features,), float64.

    Attributes
    ----------
    image, start
        The two ends.
    steps, fraction, max_dist
        As in `guided_integrated_gradients`.
    point
        Where it is.
    shares
        What each number has contributed so far.
    """

    image: Tensor
    start: Tensor
    steps: int
    fraction: float
    max_dist: float

    def __post_init__(self) -> None:
        self.point = self.start.clone()
        self.shares = torch.zeros_like(self.start)
        self.way = self.image - self.start
        self.length = float(self.way.abs().sum())

    def go(self, step: int, gradient: Tensor) -> None:
        """Move on to the distance left after that step, and count what it changes by the gradient at its beginning."""
        before = self.point
        along = (step + 1) / self.steps
        least, most = max(along - self.max_dist, 0.0), min(along + self.max_dist, 1.0)
        last = self.start + self.way * most
        behind = (self.point - self.start) / self.way < least  # never where there is no way, as NaN is not
        self.point = torch.where(behind, self.start + self.way * least, self.point)
        self._approach(self.length * (1 - along), last, gradient.abs())
        self.shares += (self.point - before) * gradient

    def _approach(self, wanted: float, last: Tensor, steepness: Tensor) -> None:
        """Move the numbers of least steepness towards `last`, group by group, till that distance is left."""
        while not self._is_close(left := float((self.point - self.image).abs().sum()), wanted):
            steepness = steepness.masked_fill(self.point == last, torch.inf)
            chosen = (steepness <= self._quantile(steepness)) & (steepness != torch.inf)
            reach = float((self.point - last).abs()[chosen].sum())
            if reach == 0 or left < wanted:
                break
            share = min((left - wanted) / reach, 1.0)
            moved = last if share == 1 else self.point + (last - self.point) * share
            self.point = torch.where(chosen, moved, self.point)
            if share < 1:
                break

    def _is_close(self, left: float, wanted: float) -> bool:
        return abs(left - wanted) <= CLOSE * max(left, wanted, 1.0)

    def _quantile(self, steepness: Tensor) -> float:
        """The steepness below which a fraction of the numbers lie."""
        return float(steepness.kthvalue(int(self.fraction * (len(steepness) - 1)) + 1).values)
