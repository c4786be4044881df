"""Layer-wise relevance propagation (Bach et al. 2015)."""

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from xaitools.attribution.gradient import path
from xaitools.attribution.lrp_rules import STABILIZER, check_bounds, composite
from xaitools.attribution.names import MethodName
from xaitools.attribution.passes import Rule, select, single
from xaitools.attribution.relevance import relevance_rule
from xaitools.attribution.sharing import Request, Source, checked_options


def _rule(
    model: nn.Module,
    images: Tensor,
    *,
    rule: str,
    epsilon: float = STABILIZER,
    gamma: float = 0.25,
    low: Tensor | float = 0.0,
    high: Tensor | float = 1.0,
) -> Rule:
    chosen = composite(rule, epsilon=epsilon, gamma=gamma, low=low, high=high)
    if rule.endswith("_box"):
        check_bounds(images, low, high)
    return relevance_rule(model, images[:1], chosen)


def source(name: MethodName, request: Request) -> Source:
    """What `attribute` computes for this method."""
    options = checked_options(name, request, ("epsilon", "gamma", "low", "high"))
    return Source(_rule(request.model, request.images, rule=name.option, **options), {name.source: path()})


def lrp(
    model: nn.Module,
    inputs: Float[Tensor, "batch channel *spatial"],
    target: Int[Tensor, " batch"] | None = None,
    *,
    rule: str = "epsilon",
    epsilon: float = STABILIZER,
    gamma: float = 0.25,
    low: Shaped[Tensor, "..."] | float = 0.0,
    high: Shaped[Tensor, "..."] | float = 1.0,
    batch_size: int = 16,
) -> Float[Tensor, "batch channel *spatial"]:
    """Relevance of each pixel: the output, shared out layer by layer in proportion to contributions.

    For any network of convolutions, dense layers, ReLUs (also leaky ones), pools, sums, concatenations and
    batch normalisation that torch.fx can trace; normalisation is merged into the layer before it. Sums and average
    pools share relevance out in proportion to contributions, max pools give it to the maximum. Rules and
    composites are zennit's, and maps equal zennit's on networks of modules without batch normalisation; propagation is
    our own, since zennit doubles relevance at sums that are no modules and changes the outputs where it merges
    normalisation.

    Parameters
    ----------
    model
        Network in evaluation mode, returning (batch, classes) or (batch,).
    inputs
        Images.
    target
        Class to explain for each image; None for the single output of a regression.
    rule
        A name of `xaitools.attribution.lrp_rules.RULES`. "epsilon", "gamma", "alpha1_beta0" and "alpha2_beta1" hold in
        every layer. The others are composites: "epsilon" in dense layers, the second named in convolutions ("plus" is
        alpha1_beta0), and the last, if any, in the first layer ("box" is z^B).
    epsilon
        Of the epsilon rule, in units of the activations; larger values leave out weak contributions.
    gamma
        Of the gamma rule, by how much contributions of the output's own sign are raised.
    low, high
        Least and greatest value that a pixel can take: numbers, or images (channel, *spatial). For "box" only.

    Returns
    -------
    Tensor
        In units of the output; positive where the pixel speaks for the target. Sums to the output but for what biases
        and the stabiliser absorb, see `relevance_gap`.

    Raises
    ------
    MethodError
        If the rule is unknown, or images leave the bounds of the first layer's rule.
    UnsupportedModelError
        If torch.fx cannot trace the network, or a layer has no rule: it is named.

    Notes
    -----
    With "epsilon" near 0 and the activations above this is `input_x_gradient`, biases or not (Ancona et al. 2018,
    arXiv:1711.06104, proposition 1).

    References
    ----------
    Bach et al. 2015, PLoS ONE 10(7) e0130140, equations 58 and 60; Montavon et al. 2019, LNCS 11700, 193-209. The
    composites: Anders et al. 2021, arXiv:2106.13200.
    """
    chosen = _rule(model, inputs, rule=rule, epsilon=epsilon, gamma=gamma, low=low, high=high)
    return single(model, inputs, target, path(), batch_size=batch_size, rule=chosen)


def relevance_gap(
    model: nn.Module,
    inputs: Float[Tensor, "batch channel *spatial"],
    target: Int[Tensor, " batch"] | None,
    maps: Float[Tensor, "batch channel *spatial"],
    *,
    batch_size: int = 16,
) -> Float[Tensor, " batch"]:
    """Output minus the sum of each map: the relevance that reached no pixel.

    It is what the rules give to biases, those of merged batch normalisation among them, and to the stabiliser or
    epsilon in their denominators; and what comes to neurons that lack contributions of the sign that a rule asks for:
    with alpha-beta rules those all of whose contributions have one sign, with Deep Taylor those on by their bias alone.
    In units of the output.
    """
    with torch.no_grad():
        parts = [model(part) for part in inputs.split(batch_size)]
    return select(torch.cat(parts), target) - maps.flatten(1).sum(1)
