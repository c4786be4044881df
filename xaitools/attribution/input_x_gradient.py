"""Input times gradient (Shrikumar et al. 2016)."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from xaitools.attribution.gradient import path as gradient_path
from xaitools.attribution.names import MethodName
from xaitools.attribution.passes import Path, gradients, single
from xaitools.attribution.sharing import Request, Source


def path() -> Path:
    """One gradient at the image, weighted by the image."""
    return Path(1, lambda row, part, key: (row[None], row[None]))


def source(name: MethodName, request: Request) -> Source:
    """What `attribute` computes for this method: the path of `gradient`, so that both need one pass."""
    return Source(gradients, {"gradient": gradient_path()}, finish=torch.mul)


def input_x_gradient(
    model: nn.Module,
    inputs: Float[Tensor, "batch channel *spatial"],
    target: Int[Tensor, " batch"] | None = None,
    *,
    batch_size: int = 16,
) -> Float[Tensor, "batch channel *spatial"]:
    """Value of each pixel times the gradient of the target output with respect to it.

    Parameters
    ----------
    model, inputs, target, batch_size
        As for :func:`~xaitools.attribution.gradient.gradient`.

    Returns
    -------
    Tensor
        In units of the output; positive where the pixel, as it differs from 0, raises the output. Sums to the output
        for a network of ReLUs, poolings and linear layers without biases.

    Raises
    ------
    TargetError, UnsupportedModelError
        As for :func:`~xaitools.attribution.gradient.gradient`.

    References
    ----------
    Shrikumar et al. 2016, arXiv:1605.01713, section 2.
    """
    return single(model, inputs, target, path(), batch_size=batch_size)
