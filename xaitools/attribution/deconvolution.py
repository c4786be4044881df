"""Deconvolution (Zeiler and Fergus 2014): negative gradients are cut at every ReLU."""

from torch import Tensor

from xaitools.attribution._rectifiers import rectified
from xaitools.attribution._stream import AT_THE_IMAGE, Plan
from xaitools.attribution.registry import Setting, method


def _keep_positive(plain: Tensor, incoming: Tensor) -> Tensor:
    return incoming.clamp(min=0)


@method(
    "rule",
    label="D",
    idea="what would the answer say back, if only signals for it passed each ReLU?",
    equation=r"R^{l} = \max\left(0, R^{l+1}\right) \quad \text{at each ReLU}",
    use="To repeat published comparisons; as a picture of what a network's filters can see.",
    failures=(
        "It restores the image more than it explains the answer, and hardly depends on the class (Nie"
        " et al. 2018, arXiv:1805.07039).",
        "It is independent of the weights of later layers (Sixt et al. 2020, arXiv:1912.09818).",
    ),
    reference="Zeiler and Fergus 2014, arXiv:1311.2901, section 2.1; as a gradient rule: Springenberg et al. 2015,\n"
    "arXiv:1412.6806, section 3.4.",
    needs="ReLUs, and besides them only max pooling and what is linear in the image",
)
def deconvolution(setting: Setting) -> Plan:
    """Signal that reaches each pixel when every ReLU passes back the positive part of what it gets.

    The ReLU's own state in the forward pass is ignored, as in the deconvnet; linear layers pass plain gradients, which
    are the deconvnet's transposed filters, and so does max pooling, whose gradient goes where the maximum was, as the
    deconvnet's switches have it. Computed on the autograd graph, since libraries that replace modules miss functional
    and shared ReLUs. The deconvnet has no counterpart for anything else, so anything else is refused.

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
    return Plan(rectified("deconvolution", setting.network, _keep_positive), {"image": AT_THE_IMAGE})
