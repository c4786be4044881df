"""Deep Taylor decomposition (Montavon et al. 2017)."""

from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from xaitools.attribution.gradient import path
from xaitools.attribution.lrp_rules import check_bounds, deep_taylor_composite
from xaitools.attribution.names import MethodName
from xaitools.attribution.passes import Rule, single
from xaitools.attribution.relevance import relevance_rule
from xaitools.attribution.sharing import Request, Source, checked_options


def _rule(model: nn.Module, images: Tensor, low: Tensor | float = 0.0, high: Tensor | float = 1.0) -> Rule:
    check_bounds(images, low, high)
    return relevance_rule(model, images[:1], deep_taylor_composite(low, high))


def source(name: MethodName, request: Request) -> Source:
    """What `attribute` computes for this method."""
    options = checked_options(name, request, ("low", "high"))
    return Source(_rule(request.model, request.images, **options), {name.source: path()})


def deep_taylor(
    model: nn.Module,
    inputs: Float[Tensor, "batch channel *spatial"],
    target: Int[Tensor, " batch"] | None = None,
    *,
    low: Shaped[Tensor, "..."] | float = 0.0,
    high: Shaped[Tensor, "..."] | float = 1.0,
    batch_size: int = 16,
) -> Float[Tensor, "batch channel *spatial"]:
    """Relevance of each pixel by Taylor expansions of every neuron: the rule z+, in the first layer z^B.

    Biases get no relevance. Beyond the paper, residual sums and average pools also share relevance out among positive
    contributions, so that maps keep one sign on residual networks; and an output below 0 is explained as minus its
    opposite, by negative contributions. For which networks, see `lrp`.

    Parameters
    ----------
    model
        Network in evaluation mode, returning (batch, classes) or (batch,).
    inputs
        Images, with values from `low` to `high`.
    target
        Class to explain for each image; None for the single output of a regression.
    low, high
        Least and greatest value that a pixel can take: numbers, or images (channel, *spatial).

    Returns
    -------
    Tensor
        In units of the output and of its sign: positive everywhere for an output above 0, where larger means more
        relevant. Sums to the output but for what neurons keep that are on by their bias alone, see
        `xaitools.attribution.lrp.relevance_gap`.

    Raises
    ------
    MethodError
        If images leave the bounds.
    UnsupportedModelError
        If torch.fx cannot trace the network, or a layer has no rule: it is named.

    References
    ----------
    Montavon et al. 2017, Pattern Recognition 65, 211-222, arXiv:1512.02479, sections 4.1 (z+) and 4.2 (z^B).
    """
    return single(model, inputs, target, path(), batch_size=batch_size, rule=_rule(model, inputs, low, high))
