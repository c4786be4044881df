"""Integrated gradients without the noise of their path: IDGI (Yang, Wang and Bilgic 2023)."""

from collections.abc import Mapping

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
from xaitools.models.network import gradients_of


@method(
    "path",
    label=lambda option: "IDGI-" + "".join(part[0].upper() for part in option.split("+") if part),
    idea="how did the answer change on the way from a baseline image, counted along the gradient only?",
    equation=r"R_i = \sum_j \left( f(x_{j+1}) - f(x_j) \right) \frac{g_i(x_j)^2}{\sum_k g_k(x_j)^2}",
    use=(
        "Where integrated gradients are noisy, and few steps are to add up to the output's change. g"
        " is the gradient."
    ),
    failures=(
        "Squares have no sign: where the output rises all along the path, evidence against it cannot "
        "be seen.",
        "It has a baseline, and the same doubts about it as integrated gradients.",
    ),
    reference="Yang et al. 2023, arXiv:2303.14242, theorem 1 and algorithm 1.",
    option=Option("black", "names of baselines joined by +, as black+white", lambda text: {"baseline": text}),
)
def idgi(
    setting: Setting,
    *,
    baseline: str | Baseline = "black",
    steps: int = 50,
    baselines: Mapping[str, Baseline] | None = None,
) -> Plan:
    """Share of each pixel in the output's change along a path, each step shared out by the squared gradient.

    Integrated gradients multiply the gradient with the step, whose part across the gradient changes nothing and is
    noise. Here the output's change over a step, ``d = f(x_{j+1}) - f(x_j)``, is shared out in the direction of the
    gradient g at its beginning: ``d g**2 / sum(g**2)``.

    Parameters
    ----------
    baseline
        Where the path starts, as for `integrated_gradients`.
    steps
        Steps of equal length on the straight line from the baseline to the image.
    baselines
        More baselines by name.

    Returns
    -------
    Tensor
        In units of the output; sums over an image to output(image) - output(baseline) exactly, but for steps on which
        the gradient is 0. Where the output rises on all steps, no pixel is negative.

    Raises
    ------
    MethodError
        If a baseline is not known.
    ShapeError
        If the baseline does not fit the images.
    TargetError
        If the network has no such output.
    UnsupportedModelError
        If the network is not differentiable.
    """
    check_counts(error=MethodError, steps=steps)
    chosen = list(chosen_baselines(baseline, baselines or {}, setting).values())

    def run(batch: Batch) -> Tensor:
        maps = torch.zeros_like(batch.points)
        for i, (image, owner) in enumerate(zip(batch.points, batch.owners, strict=True)):
            target = None if batch.target is None else batch.target[i : i + 1]
            for baseline in chosen:
                start = start_of(baseline, image, owner)
                maps[i] += _map(setting, image, target, start, steps, batch) / len(chosen)
        return maps

    passes = Passes(setting.name, run, units=len(chosen) * (steps + 1))
    gap = Gap("completeness_gap", lambda maps: completeness_gap(setting, maps, *chosen))
    return Plan(passes, {"image": AT_THE_IMAGE}, gap=gap)


def _map(
    setting: Setting, image: Tensor, target: Tensor | None, start: Tensor, steps: int, batch: Batch
) -> Tensor:
    """Map of one image (channel, *spatial) from one start, a batch of points at a time."""
    total = torch.zeros_like(image)
    positions = torch.linspace(0, 1, steps + 1, dtype=torch.float64).to(image)
    before: tuple[Tensor, Tensor] | None = None
    for part in positions.split(setting.batch_size):
        points = start + part.view(-1, *[1] * image.ndim) * (image - start)
        gradients, outputs = _gradients_and_outputs(setting, points, target)
        if before is not None:
            gradients, outputs = torch.cat([before[0], gradients]), torch.cat([before[1], outputs])
        total += _shared_out(gradients[:-1], outputs.diff()).sum(0)
        before = gradients[-1:], outputs[-1:]
        batch.tell(len(part))
    return total


def _gradients_and_outputs(setting: Setting, points: Tensor, target: Tensor | None) -> tuple[Tensor, Tensor]:
    classes = None if target is None else target.expand(len(points))
    leaf, scores = setting.network.forward(points, classes)
    return gradients_of(leaf, scores), scores.detach()


def _shared_out(gradients: Tensor, changes: Tensor) -> Tensor:
    """The change of each step, in proportion to the squared gradient; nothing where it is 0."""
    squares = gradients**2
    sums = squares.flatten(1).sum(1)
    return squares * torch.where(sums > 0, changes / sums, 0.0).view(-1, *[1] * (gradients.ndim - 1))
