"""Deconvolution (Zeiler and Fergus 2014): negative gradients are cut at every ReLU."""

from jaxtyping import Float, Int
from torch import Tensor, nn

from xaitools.attribution.gradient import path
from xaitools.attribution.names import MethodName
from xaitools.attribution.passes import single
from xaitools.attribution.rectifiers import rectified_gradients
from xaitools.attribution.sharing import Request, Source


def _keep_positive(plain: Tensor, incoming: Tensor) -> Tensor:
    return incoming.clamp(min=0)


def rule(model: nn.Module, inputs: Tensor, target: Tensor | None = None) -> Tensor:
    """One pass back through the network with the deconvolution rule."""
    return rectified_gradients(model, inputs, target, _keep_positive)


def source(name: MethodName, request: Request) -> Source:
    """What `attribute` computes for this method."""
    return Source(rule, {name.source: path()})


def deconvolution(
    model: nn.Module,
    inputs: Float[Tensor, "batch channel *spatial"],
    target: Int[Tensor, " batch"] | None = None,
    *,
    batch_size: int = 16,
) -> Float[Tensor, "batch channel *spatial"]:
    """Signal that reaches each pixel when every ReLU passes back the positive part of what it gets.

    The ReLU's own state in the forward pass is ignored, as in the deconvnet; other layers pass plain gradients.
    Computed on the autograd graph, since libraries that replace modules miss functional and shared ReLUs.

    Parameters
    ----------
    model
        Network in evaluation mode, whose only activations are ReLUs.
    inputs, target, batch_size
        As for :func:`~xaitools.attribution.gradient.gradient`.

    Returns
    -------
    Tensor
        No unit; positive where a brighter pixel adds to the features that speak for the target.

    Raises
    ------
    UnsupportedModelError
        If the network has no ReLU, or another kind of activation.

    References
    ----------
    Zeiler and Fergus 2014, arXiv:1311.2901, section 2.1; as a gradient rule: Springenberg et al. 2015,
    arXiv:1412.6806, section 3.4.
    """
    return single(model, inputs, target, path(), batch_size=batch_size, rule=rule)
