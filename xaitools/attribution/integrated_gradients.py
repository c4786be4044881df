"""Integrated gradients (Sundararajan, Taly and Yan 2017) from any baseline."""

from collections.abc import Iterable, Mapping, Sequence
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
    equation=r"R_i = (x_i - x'_i) \int_0^1 \frac{\partial f(x' + a (x - x'))}{\partial x_i} \, da",
    use=(
        "Where some image x' means that nothing is there, and values are to add up to the output's "
        "change from it."
    ),
    failures=(
        "A pixel that equals the baseline gets 0: with black, dark evidence is not seen. "
        "`black+white` is the usual way out.",
        "Another baseline asks another question and gives another map.",
        "The images on the way are like none that the network was trained on, and their gradients are"
        " as noisy as any.",
    ),
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
        Where the path starts: a number, one image (channel, *spatial), one for each image (batch, channel, *spatial),
        or names of `baselines`, "black" (0) and "white" (1), joined by "+" for the mean of their maps.
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
    paths = {
        f"from {key} {_identity(value)} in {steps} steps": straight_path(value, steps)
        for key, value in chosen.items()
    }
    return Plan(
        setting.gradients,
        paths,
        gap=Gap("completeness_gap", lambda maps: completeness_gap(setting, maps, *chosen.values())),
    )


def _identity(baseline: Baseline) -> str:
    """What tells apart baselines that two methods were given by one name."""
    return f"at {id(baseline)}" if isinstance(baseline, Tensor | np.ndarray) else str(baseline)


def straight_path(baseline: Baseline, steps: int) -> Path:
    """Gradients on the straight line from `baseline` to the image, by Gauss-Legendre quadrature."""
    nodes, weights = _gauss_legendre(steps)

    def points(row: Tensor, part: slice, key: int, owner: int) -> tuple[Tensor, Tensor]:
        line = (-1, *[1] * row.ndim)
        start = start_of(baseline, row, owner)
        difference = row - start
        along = nodes[part].to(row).view(line) * difference
        return start + along, weights[part].to(row).view(line) * difference

    return Path(steps, points)


def start_of(baseline: Baseline, row: Tensor, owner: int) -> Tensor:
    """The baseline of image number `owner`, like `row` (channel, *spatial), which is the image or a noisy copy."""
    start = torch.as_tensor(baseline, dtype=row.dtype, device=row.device)
    if start.ndim > row.ndim:
        start = start[owner if len(start) > 1 else 0]
    return start.expand_as(row)


def completeness_gap(setting: Setting, maps: Tensor, *baselines: Baseline) -> Tensor:
    """Sum of each map minus (output(image) - mean output(baselines)), (n,): zero for an exact integral."""

    def scores(images: Tensor) -> Tensor:
        return setting.network.scores(images, setting.target, setting.batch_size)

    change = scores(setting.images)
    for baseline in baselines:
        start = torch.as_tensor(baseline, dtype=setting.images.dtype, device=setting.images.device)
        change = change - scores(start.expand_as(setting.images)) / len(baselines)
    return maps.flatten(1).sum(1) - change


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
        check_baseline(known[key], setting.images)
        chosen[key] = known[key]
    return chosen


def check_baseline(baseline: Baseline, images: Tensor) -> None:
    """Raise ShapeError unless `baseline` is a number, or broadcasts to one image or holds one for each."""
    given = torch.as_tensor(baseline)
    if given.ndim < images.ndim:
        fits = given.ndim == 0 or _broadcasts(given.shape, images.shape[1:])
    else:
        fits = given.ndim == images.ndim and _broadcasts(given.shape, images.shape)
    if not fits:
        raise ShapeError(
            f"Baseline of shape {tuple(given.shape)} does not fit images of shape {tuple(images.shape[1:])} (channel, "
            f"*spatial); give a number, a tensor of that shape, or one for each of the {len(images)} images."
        )


def _broadcasts(shape: Iterable[int], whole: Sequence[int]) -> bool:
    given = tuple(shape)
    return all(n in (1, m) for n, m in zip(given, whole[len(whole) - len(given) :], strict=True))
