"""Plain gradient (Simonyan, Vedaldi and Zisserman 2014), "backpropagation" in the CT paper."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from xaitools.attribution.names import MethodName
from xaitools.attribution.passes import Path, gradients, single
from xaitools.attribution.sharing import Request, Source


def path() -> Path:
    """One gradient, at the image itself."""
    return Path(1, lambda row, part, key: (row[None], torch.ones((), device=row.device)))


def source(name: MethodName, request: Request) -> Source:
    """What `attribute` computes for this method."""
    return Source(gradients, {name.source: path()})


def gradient(
    model: nn.Module,
    inputs: Float[Tensor, "batch channel *spatial"],
    target: Int[Tensor, " batch"] | None = None,
    *,
    batch_size: int = 16,
) -> Float[Tensor, "batch channel *spatial"]:
    """Gradient of the target output with respect to each pixel.

    Parameters
    ----------
    model
        Network in evaluation mode, returning (batch, classes) or (batch,).
    inputs
        Images.
    target
        Class to explain for each image; None for the single output of a regression.
    batch_size
        Images in one pass through the network.

    Returns
    -------
    Tensor
        Output change per unit of pixel value; positive where a brighter pixel raises the output.

    Raises
    ------
    TargetError
        If the network has no such output.
    UnsupportedModelError
        If the network is not differentiable.

    References
    ----------
    Simonyan et al. 2014, arXiv:1312.6034, section 3.1.
    """
    return single(model, inputs, target, path(), batch_size=batch_size)
