"""Deep Taylor decomposition (Montavon et al. 2017)."""

from jaxtyping import Shaped
from torch import Tensor

from xaitools.attribution._lrp_rules import check_bounds, deep_taylor_composite
from xaitools.attribution._relevance import relevance_plan
from xaitools.attribution._stream import Plan
from xaitools.attribution.registry import Setting, method


@method(
    "rule",
    label="DT",
    idea="how much of the answer came from this pixel, if every neuron is explained by what turns it on?",
    equation=r"R_i = \sum_j \frac{a_i w_{ij}^+}{\sum_k a_k w_{kj}^+} \, R_j",
    use="Where a smooth map of one sign is wanted, and pixel values have a known least and greatest value.",
    failures=(
        "It is independent of the weights of later layers: two classes get nearly the same map (Sixt "
        "et al. 2020, arXiv:1912.09818).",
        "It has one sign, so that evidence against the answer is never seen.",
    ),
    reference="Montavon et al. 2017, Pattern Recognition 65, 211-222, arXiv:1512.02479, sections 4.1 and 4.2.",
    needs="what lrp needs, without attention, products and normalisation by statistics of the image",
)
def deep_taylor(
    setting: Setting,
    *,
    low: Shaped[Tensor, "*image"] | float = 0.0,
    high: Shaped[Tensor, "*image"] | float = 1.0,
) -> Plan:
    """Relevance of each pixel by Taylor expansions of every neuron: the rule z+, in the first layer z^B.

    Biases get no relevance. Beyond the paper, residual sums and average pools also share relevance out among positive
    contributions, so that maps keep one sign on residual networks; and an output below 0 is explained as minus its
    opposite, by negative contributions. For which networks, see `lrp`; but attention, products of two values, and
    normalisation by statistics of the image have no such rule.

    Parameters
    ----------
    low, high
        Least and greatest value that a pixel can take: numbers, or images (channel, *spatial).

    Returns
    -------
    Tensor
        In units of the output and of its sign: positive everywhere for an output above 0, where larger means more
        relevant. Sums to the output but for what neurons keep that are on by their bias alone, which `attribute` tells
        as the relevance gap.

    Raises
    ------
    MethodError
        If images leave the bounds.
    TargetError
        If the network has no such output.
    UnsupportedModelError
        If a layer has no rule: it is named.
    """
    check_bounds(setting.images, low, high)
    return relevance_plan(setting, deep_taylor_composite(low, high))
