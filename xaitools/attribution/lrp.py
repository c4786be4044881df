"""Layer-wise relevance propagation (Bach et al. 2015)."""

from jaxtyping import Shaped
from torch import Tensor

from xaitools.attribution._lrp_rules import STABILIZER, check_bounds, composite
from xaitools.attribution._relevance import relevance_plan
from xaitools.attribution._stream import Plan
from xaitools.attribution.registry import Option, Setting, method

_SIGNS = {"epsilon": "ε", "gamma": "γ", "alpha1": "α1", "alpha2": "α2", "beta0": "β0", "beta1": "β1"}


def _label(option: str) -> str:
    return "LRP-" + "".join(_SIGNS.get(part, f" {part} ") for part in option.split("_")).strip()


@method(
    "rule",
    label=_label,
    idea="how much of the answer came from this pixel, if every layer shares it out among its inputs?",
    reference="Bach et al. 2015, PLoS ONE 10(7) e0130140, equations 58 and 60; Montavon et al. 2019, LNCS 11700,\n"
    "193-209. The composites: Anders et al. 2021, arXiv:2106.13200.",
    option=Option("epsilon", "a rule, or a composite of rules", lambda text: {"rule": text}),
)
def lrp(
    setting: Setting,
    *,
    rule: str = "epsilon",
    epsilon: float = STABILIZER,
    gamma: float = 0.25,
    low: Shaped[Tensor, "*image"] | float = 0.0,
    high: Shaped[Tensor, "*image"] | float = 1.0,
) -> Plan:
    """Relevance of each pixel: the output, shared out layer by layer in proportion to contributions.

    For any network of convolutions, dense layers, ReLUs (also leaky ones), pools, sums, concatenations and
    batch normalisation that torch.fx can trace; normalisation is merged into the layer before it. Sums and average
    pools share relevance out in proportion to contributions, max pools give it to the maximum. Rules and
    composites are zennit's, and maps equal zennit's on networks of modules without batch normalisation; propagation is
    our own, since zennit doubles relevance at sums that are no modules and changes the outputs where it merges
    normalisation.

    Parameters
    ----------
    rule
        "epsilon", "gamma", "alpha1_beta0" and "alpha2_beta1" hold in every layer. The others, such as
        "epsilon_plus_flat", are composites: "epsilon" in dense layers, the second named in convolutions ("plus" is
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
        and the stabiliser absorb, which `attribute` tells as the relevance gap.

    Raises
    ------
    MethodError
        If the rule is unknown, or images leave the bounds of the first layer's rule.
    TargetError
        If the network has no such output.
    UnsupportedModelError
        If torch.fx cannot trace the network, or a layer has no rule: it is named.

    Notes
    -----
    With "epsilon" near 0 and the activations above this is `input_x_gradient`, biases or not (Ancona et al. 2018,
    arXiv:1711.06104, proposition 1).
    """
    chosen = composite(rule, epsilon=epsilon, gamma=gamma, low=low, high=high)
    if rule.endswith("_box"):
        check_bounds(setting.images, low, high)
    return relevance_plan(setting, chosen)
