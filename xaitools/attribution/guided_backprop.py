"""Guided backprop (Springenberg et al. 2015): a ReLU passes back what is positive, where it was on."""

from jaxtyping import Float, Int
from torch import Tensor, nn

from xaitools.attribution.gradient import path
from xaitools.attribution.names import MethodName
from xaitools.attribution.passes import single
from xaitools.attribution.rectifiers import rectified_gradients
from xaitools.attribution.sharing import Request, Source


def _keep_positive_where_on(plain: Tensor, incoming: Tensor) -> Tensor:
    return plain.clamp(min=0)


def rule(model: nn.Module, inputs: Tensor, target: Tensor | None = None) -> Tensor:
    """One pass back through the network with the rule of guided backprop."""
    return rectified_gradients(model, inputs, target, _keep_positive_where_on)


def source(name: MethodName, request: Request) -> Source:
    """What `attribute` computes for this method."""
    return Source(rule, {name.source: path()})


def guided_backprop(
    model: nn.Module,
    inputs: Float[Tensor, "batch channel *spatial"],
    target: Int[Tensor, " batch"] | None = None,
    *,
    batch_size: int = 16,
) -> Float[Tensor, "batch channel *spatial"]:
    """Signal that reaches each pixel when a ReLU passes back only positive values, and only where it was on.

    The gradient is thus cut twice: by the ReLU's state in the forward pass, as plain gradients are, and by the sign of
    what comes back, as in `deconvolution`. Computed on the autograd graph, since libraries that replace modules miss
    functional and shared ReLUs.

    Parameters
    ----------
    model, inputs, target, batch_size
        As for :func:`~xaitools.attribution.deconvolution.deconvolution`.

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
    Springenberg et al. 2015, arXiv:1412.6806, section 3.4 and figure 1.
    """
    return single(model, inputs, target, path(), batch_size=batch_size, rule=rule)
