"""Plain gradient (Simonyan, Vedaldi and Zisserman 2014), "backpropagation" in the CT paper."""

from xaitools.attribution._stream import AT_THE_IMAGE, Plan
from xaitools.attribution.registry import Setting, method


@method(
    "path",
    label="BP",
    idea="how would the answer change if this pixel became brighter?",
    equation=r"R_i = \frac{\partial f(x)}{\partial x_i}",
    use=(
        "As a first look at any differentiable network: one backward pass, no choice to make, and "
        "all other gradients are made of it."
    ),
    failures=(
        "Maps of deep networks are noisy; means over noisy copies (`+smoothgrad`) help.",
        "It tells what a small change would do, not what the answer came from: where the network is "
        "saturated it is near 0, however much the pixel matters (Sundararajan et al. 2017, "
        "arXiv:1703.01365, section 2).",
    ),
    reference="Simonyan et al. 2014, arXiv:1312.6034, section 3.1.",
)
def gradient(setting: Setting) -> Plan:
    """Gradient of the target output with respect to each pixel.

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
    """
    return Plan(setting.gradients, {"gradient": AT_THE_IMAGE})
