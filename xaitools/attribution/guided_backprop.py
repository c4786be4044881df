"""Guided backprop (Springenberg et al. 2015): a ReLU passes back what is positive, where it was on."""

from torch import Tensor

from xaitools.attribution._rectifiers import rectified
from xaitools.attribution._stream import AT_THE_IMAGE, Plan
from xaitools.attribution.registry import Setting, method


def keep_positive_where_on(plain: Tensor, incoming: Tensor) -> Tensor:
    """What a ReLU passes back, of its plain gradient."""
    return plain.clamp(min=0)


@method(
    "rule",
    label="GB",
    idea="what would the answer say back, if only signals for it passed each ReLU that was on?",
    equation=r"R^{l} = [a^{l} > 0] \, \max\left(0, R^{l+1}\right) \quad \text{at each ReLU}",
    use="To repeat published comparisons; as a sharp picture of the features that are on.",
    failures=(
        "It fails the sanity check: with upper layers drawn anew the map stays (Adebayo et al. 2018, "
        "arXiv:1810.03292).",
        "It restores the image more than it explains the answer (Nie et al. 2018, arXiv:1805.07039).",
    ),
    reference="Springenberg et al. 2015, arXiv:1412.6806, section 3.4 and figure 1.",
    needs="ReLUs, and besides them only max pooling and what is linear in the image",
)
def guided_backprop(setting: Setting) -> Plan:
    """Signal that reaches each pixel when a ReLU passes back only positive values, and only where it was on.

    The gradient is thus cut twice: by the ReLU's state in the forward pass, as plain gradients are, and by the sign of
    what comes back, as in `deconvolution`, which also says how other layers are passed and which are refused.

    Returns
    -------
    Tensor
        No unit; positive where a brighter pixel adds to the features that speak for the target.

    Raises
    ------
    TargetError
        If the network has no such output.
    UnsupportedModelError
        If the network has no ReLU, or does anything besides ReLUs, max pooling and what is linear in the image: other
        activations, products of features, attention, gates, normalisation by the image's own statistics.
    """
    passes = rectified("guided_backprop", setting.network, keep_positive_where_on)
    return Plan(passes, {"image": AT_THE_IMAGE})
