"""Integrated gradients (Sundararajan, Taly and Yan 2017) from any baseline."""

from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from xaitools.attribution.names import MethodName
from xaitools.attribution.passes import Path, gradients, select, single
from xaitools.attribution.sharing import Request, Source
from xaitools.errors import MethodError, ShapeError

BASELINES: dict[str, float] = {"black": 0.0, "white": 1.0}


@lru_cache
def _gauss_legendre(steps: int) -> tuple[Tensor, Tensor]:
    """Nodes in (0, 1) and weights that sum to one."""
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    return torch.from_numpy((nodes + 1) / 2), torch.from_numpy(weights / 2)


def path(baseline: Tensor | float, steps: int) -> Path:
    """Gradients on the straight line from `baseline` to the image, by Gauss-Legendre quadrature."""
    nodes, weights = _gauss_legendre(steps)

    def points(row: Tensor, part: slice, key: int) -> tuple[Tensor, Tensor]:
        line = (-1, *[1] * row.ndim)
        start = torch.as_tensor(baseline, dtype=row.dtype, device=row.device).expand_as(row)
        difference = row - start
        along = nodes[part].to(row).view(line) * difference
        return start + along, weights[part].to(row).view(line) * difference

    return Path(steps, points)


def check_baseline(baseline: Tensor | float, image: Tensor) -> None:
    """Raise ShapeError unless `baseline` is a number or broadcasts to one image (channel, *spatial)."""
    try:
        torch.as_tensor(baseline).expand_as(image)
    except RuntimeError as error:
        raise ShapeError(
            f"Baseline of shape {tuple(torch.as_tensor(baseline).shape)} does not fit images of shape "
            f"{tuple(image.shape)} (channel, *spatial); give a number or a tensor of that shape."
        ) from error


def source(name: MethodName, request: Request) -> Source:
    """What `attribute` computes for this method: one path for each baseline, which other names may share."""
    chosen = chosen_baselines(name, request.baselines, request.images[0])
    return Source(
        gradients, {f"{name.base}[{key}]": path(value, request.steps) for key, value in chosen.items()}
    )


def chosen_baselines(
    name: MethodName, more: Mapping[str, Tensor | float], image: Tensor
) -> dict[str, Tensor | float]:
    """The baselines that a name asks for, out of `BASELINES` and `more`, by their own names.

    Raises
    ------
    MethodError
        If one is not known.
    ShapeError
        If one does not fit the image.
    """
    known = {**BASELINES, **more}
    chosen = {}
    for key in name.option.split("+"):
        if key not in known:
            raise MethodError(
                f"Unknown baseline {key!r} in {str(name)!r}; known: {', '.join(known)}. "
                "Pass others as baselines={name: number or tensor}."
            )
        check_baseline(known[key], image)
        chosen[key] = known[key]
    return chosen


def integrated_gradients(
    model: nn.Module,
    inputs: Float[Tensor, "batch channel *spatial"],
    target: Int[Tensor, " batch"] | None = None,
    *,
    baseline: Tensor | float = 0.0,
    steps: int = 50,
    batch_size: int = 16,
) -> Float[Tensor, "batch channel *spatial"]:
    """Share of each pixel in the output's change from a baseline image to the image.

    Parameters
    ----------
    model, inputs, target, batch_size
        As for :func:`~xaitools.attribution.gradient.gradient`.
    baseline
        Where the path starts: a number (0 black, 1 white) or one image (channel, *spatial).
    steps
        Nodes of the Gauss-Legendre quadrature.

    Returns
    -------
    Tensor
        In units of the output; sums over an image to output(image) - output(baseline) but for the quadrature's
        error, see `completeness_gap`. Positive where the pixel, as it differs from the baseline, raises the output.

    Raises
    ------
    ShapeError
        If the baseline does not fit the images.
    TargetError, UnsupportedModelError
        As for :func:`~xaitools.attribution.gradient.gradient`.

    References
    ----------
    Sundararajan et al. 2017, arXiv:1703.01365, equation 1; completeness: proposition 1.
    """
    check_baseline(baseline, inputs[0])
    return single(model, inputs, target, path(baseline, steps), batch_size=batch_size)


def completeness_gap(
    model: nn.Module,
    inputs: Float[Tensor, "batch channel *spatial"],
    target: Int[Tensor, " batch"] | None,
    maps: Float[Tensor, "batch channel *spatial"],
    baselines: Sequence[Tensor | float] = (0.0,),
) -> Float[Tensor, " batch"]:
    """Sum of each map minus (output(image) - mean output(baselines)): zero for an exact integral."""
    with torch.no_grad():
        score = select(model(inputs), target)
        for baseline in baselines:
            start = torch.as_tensor(baseline, dtype=inputs.dtype, device=inputs.device).expand_as(inputs)
            score = score - select(model(start), target) / len(baselines)
    return maps.flatten(1).sum(1) - score
