"""Blur integrated gradients (Xu, Venugopalan and Sundararajan 2020): from a blurred image to the sharp one."""

import torch
from torch import Tensor

from xaitools.attribution._stream import Gap, Path, Plan
from xaitools.attribution.registry import Setting, method
from xaitools.checks import check_counts, check_positive
from xaitools.errors import MethodError

SHARE = 50 / 224
"""The paper's largest blur, 50 pixels, as a share of the longest axis of its images."""
TRUNCATE = 4.0
"""Standard deviations at which a Gaussian ends."""


@method(
    "path",
    label="BlurIG",
    idea="which pixels moved the answer while the image came into focus?",
    equation=r"R_i = \int_{s}^{0} \frac{\partial f(L)}{\partial L_i} \frac{\partial L_i}{\partial \sigma} \, d\sigma",
    use=(
        "Where edges and texture matter, and no baseline should bring in what the image does not "
        "show. L is the image under a blur of σ pixels."
    ),
    failures=(
        "The brightness of a wide even area hardly changes under blur, so it gets little, and its "
        "border gets much.",
        "Outside of its border the image is taken as 0, which draws a rim where it does not fade to black.",
    ),
    reference="Xu et al. 2020, arXiv:2004.03383, equations 4 and 5.",
)
def blur_integrated_gradients(setting: Setting, *, steps: int = 50, max_sigma: float | None = None) -> Plan:
    """Share of each pixel in the output's change while the image is brought into focus.

    The path is the scale space of the image: it begins with the image blurred by a Gaussian of `max_sigma` and ends
    with the image itself, so it needs no baseline, and no point of it shows what the image does not. Beyond its border
    the image is taken as 0, as the authors do. Gradients are taken in the middle of each step, with the step's own
    change of the image as weight, so that the sum's error falls with the square of the number of steps.

    Parameters
    ----------
    steps
        Steps of equal length in the standard deviation of the blur.
    max_sigma
        Largest standard deviation in pixels; None for the paper's share of the longest axis, 50 of 224.

    Returns
    -------
    Tensor
        In units of the output; sums to output(image) - output(blurred image) but for the steps' error, which
        `attribute` tells as the completeness gap. Positive where what came into focus raises the output.

    Raises
    ------
    MethodError
        If `steps` or `max_sigma` is not above 0.
    TargetError
        If the network has no such output.
    UnsupportedModelError
        If the network is not differentiable.
    """
    largest = SHARE * max(setting.images.shape[2:]) if max_sigma is None else max_sigma
    check_counts(error=MethodError, steps=steps)
    check_positive(error=MethodError, max_sigma=largest)

    def scores(images: Tensor) -> Tensor:
        return setting.network.scores(images, setting.target, setting.batch_size)

    def gap(maps: Tensor) -> Tensor:
        blurred = torch.cat([blurred_copies(image, torch.tensor([largest])) for image in setting.images])
        return maps.flatten(1).sum(1) - (scores(setting.images) - scores(blurred))

    path = Path(steps, lambda row, part, key, owner: _points(row, part, largest, steps))
    return Plan(
        setting.gradients,
        {f"from a blur of {largest} in {steps} steps": path},
        gap=Gap("completeness_gap", gap),
    )


def _points(row: Tensor, part: slice, largest: float, steps: int) -> tuple[Tensor, Tensor]:
    edges = torch.linspace(largest, 0, steps + 1, dtype=torch.float64)
    middles = blurred_copies(row, ((edges[1:] + edges[:-1]) / 2)[part])
    seen = blurred_copies(row, edges[part.start : part.stop + 1])
    return middles, seen[1:] - seen[:-1]


def blurred_copies(image: Tensor, sigmas: Tensor) -> Tensor:
    """The image (channel, *spatial) under Gaussian blurs, (len(sigmas), channel, *spatial); 0 beyond its border."""
    copies = image.expand(len(sigmas), *image.shape)
    for axis in range(2, copies.ndim):
        kernels = torch.stack([_kernel(float(sigma), copies.shape[axis]) for sigma in sigmas]).to(image)
        lines = copies.movedim(axis, -1)
        copies = (lines.flatten(1, -2) @ kernels).view(lines.shape).movedim(-1, axis)
    return copies


def _kernel(sigma: float, n: int) -> Tensor:
    """Matrix (n, n) that blurs a line, float64."""
    if sigma == 0:
        return torch.eye(n, dtype=torch.float64)
    radius = int(TRUNCATE * sigma + 0.5)
    weights = torch.exp(-(torch.arange(-radius, radius + 1, dtype=torch.float64) ** 2) / (2 * sigma**2))
    distance = torch.arange(n)[:, None] - torch.arange(n)
    inside = distance.abs() <= radius
    return torch.where(inside, (weights / weights.sum())[distance.clamp(-radius, radius) + radius], 0.0)
