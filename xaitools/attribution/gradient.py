"""Plain gradient (Simonyan, Vedaldi and Zisserman 2014), "backpropagation" in the CT paper."""

from xaitools.attribution._stream import AT_THE_IMAGE, Plan
from xaitools.attribution.registry import Setting, method


@method(
    "path",
    label="BP",
    idea="how would the answer change if this pixel became brighter?",
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
