"""Layer-wise relevance propagation (Bach et al. 2015)."""

from jaxtyping import Shaped
from torch import Tensor

from xaitools.attribution._lrp_rules import RULES, STABILIZER, check_bounds, composite
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
    equation=r"R_i = \sum_j \frac{a_i w_{ij}}{z_j \pm \epsilon} R_j, \quad z_j = \sum_i a_i w_{ij} + b_j",
    use=(
        "Where the output is to be shared out among pixels, layer by layer, in one backward pass; "
        "also for transformers."
    ),
    failures=(
        "Each rule is another map. `epsilon` is input times gradient on networks of ReLUs; "
        "`alpha1_beta0` hardly depends on later layers (Sixt et al. 2020, arXiv:1912.09818).",
        "Biases and the stabiliser keep a part of the output: look at the relevance gap.",
    ),
    reference="Bach et al. 2015, PLoS ONE 10(7) e0130140, equations 58 and 60; Montavon et al. 2019, LNCS 11700,\n"
    "193-209. The composites: Anders et al. 2021, arXiv:2106.13200. Attention: Achtibat et al. 2024, arXiv:2402.05602.",
    option=Option(
        "epsilon", f"a rule, or a composite of rules: {', '.join(RULES)}", lambda text: {"rule": text}
    ),
    needs="layers that have a rule: convolutions, dense layers, activations, pools, sums, normalisation, attention",
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

    For any network of convolutions, dense layers (also written as matrix products), activations, pools, sums,
    concatenations, normalisation and attention, however they are spelled. Batch normalisation is merged into the
    convolution before it. Sums and average pools share relevance out in proportion to contributions, max pools give it
    to the maximum. Rules and composites are zennit's, and maps equal zennit's on networks of modules without batch
    normalisation; propagation is our own, since zennit doubles relevance at sums that are no modules and changes the
    outputs where it merges normalisation.

    What has no weights has the same rule under every name, for transformers that of AttnLRP (Achtibat et al. 2024),
    a choice that conserves relevance rather than one that follows from the rule's name: softmax is expanded at its
    input, and keeps the constant term; a product of two values that depend on the image gives each half; layer, group,
    instance and root mean square normalisation, and what else is divided by, are linear with the statistics of the
    image as constants; activations such as GELU pass all. Of a product with a sigmoid, a gate, what is gated takes all
    (Arras et al. 2017, arXiv:1706.07206), as half of it through a sigmoid near 0 would blow up.

    Networks in half precision are propagated through in float32.

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
        If a layer has no rule: it is named. A softmax or sigmoid at the end has none.

    Notes
    -----
    With "epsilon" near 0 and the activations above this is `input_x_gradient`, biases or not (Ancona et al. 2018,
    arXiv:1711.06104, proposition 1).
    """
    chosen = composite(rule, epsilon=epsilon, gamma=gamma, low=low, high=high)
    if rule.endswith("_box"):
        check_bounds(setting.images, low, high)
    return relevance_plan(setting, chosen)
