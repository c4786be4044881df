"""Integrated gradients (Sundararajan, Taly and Yan 2017) from any baseline."""

from collections.abc import Mapping
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Shaped
from torch import Tensor

from xaitools.attribution._stream import Gap, Path, Plan
from xaitools.attribution.registry import Option, Setting, method
from xaitools.checks import check_counts
from xaitools.errors import MethodError, ShapeError

Baseline = Shaped[Tensor, "*image"] | float

BASELINES: dict[str, float] = {"black": 0.0, "white": 1.0}


def _label(option: str) -> str:
    return "IG" + "".join(part[0].upper() for part in option.split("+") if part)


@method(
    "path",
    label=_label,
    idea="how did the answer change on the way from a baseline image to this one, and by which pixels?",
    reference="Sundararajan et al. 2017, arXiv:1703.01365, equation 1; completeness: proposition 1.",
    option=Option("black", "names of baselines joined by +, as black+white", lambda text: {"baseline": text}),
)
def integrated_gradients(
    setting: Setting,
    *,
    baseline: str | Baseline = "black",
    steps: int = 50,
    baselines: Mapping[str, Baseline] | None = None,
) -> Plan:
    """Share of each pixel in the output's change from a baseline image to the image.

    Parameters
    ----------
    baseline
        Where the path starts: a number, one image (channel, *spatial), or names of `baselines`, "black" (0) and
        "white" (1), joined by "+" for the mean of their maps.
    steps
        Nodes of the Gauss-Legendre quadrature.
    baselines
        More baselines by name.

    Returns
    -------
    Tensor
        In units of the output; sums over an image to output(image) - output(baseline) but for the quadrature's
        error, which `attribute` tells as the completeness gap. Positive where the pixel, as it differs from the
        baseline, raises the output.

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
    chosen = chosen_baselines(baseline, baselines or {}, setting)
    paths = {f"from {key} in {steps} steps": straight_path(value, steps) for key, value in chosen.items()}
    return Plan(
        setting.gradients,
        paths,
        gap=Gap("completeness_gap", lambda maps: completeness_gap(setting, maps, *chosen.values())),
    )


def straight_path(baseline: Baseline, steps: int) -> Path:
    """Gradients on the straight line from `baseline` to the image, by Gauss-Legendre quadrature."""
    nodes, weights = _gauss_legendre(steps)

    def points(row: Tensor, part: slice, key: int) -> tuple[Tensor, Tensor]:
        line = (-1, *[1] * row.ndim)
        start = torch.as_tensor(baseline, dtype=row.dtype, device=row.device).expand_as(row)
        difference = row - start
        along = nodes[part].to(row).view(line) * difference
        return start + along, weights[part].to(row).view(line) * difference

    return Path(steps, points)


def completeness_gap(setting: Setting, maps: Tensor, *baselines: Baseline) -> Tensor:
    """Sum of each map minus (output(image) - mean output(baselines)), (n,): zero for an exact integral."""
    score = setting.network.scores(setting.images, setting.target)
    for baseline in baselines:
        start = torch.as_tensor(baseline, dtype=score.dtype, device=score.device).expand_as(setting.images)
        score = score - setting.network.scores(start, setting.target) / len(baselines)
    return maps.flatten(1).sum(1) - score


@lru_cache
def _gauss_legendre(steps: int) -> tuple[Tensor, Tensor]:
    """Nodes in (0, 1) and weights that sum to one."""
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    return torch.from_numpy((nodes + 1) / 2), torch.from_numpy(weights / 2)


def chosen_baselines(
    baseline: str | Baseline, more: Mapping[str, Baseline], setting: Setting
) -> dict[str, Baseline]:
    """The baselines asked for by their names, checked to fit the images."""
    known = {**BASELINES, **more}
    if not isinstance(baseline, str):
        known, baseline = {"the given baseline": baseline}, "the given baseline"
    chosen = {}
    for key in baseline.split("+"):
        if key not in known:
            raise MethodError(
                f"Unknown baseline {key!r} in {setting.name!r}; known: {', '.join(known)}. "
                "Pass others as baselines={name: number or tensor}."
            )
        check_baseline(known[key], setting.images[0])
        chosen[key] = known[key]
    return chosen


def check_baseline(baseline: Baseline, image: Tensor) -> None:
    """Raise ShapeError unless `baseline` is a number or broadcasts to one image (channel, *spatial)."""
    try:
        torch.as_tensor(baseline).expand_as(image)
    except RuntimeError as error:
        raise ShapeError(
            f"Baseline of shape {tuple(torch.as_tensor(baseline).shape)} does not fit images of shape "
            f"{tuple(image.shape)} (channel, *spatial); give a number or a tensor of that shape."
        ) from error
