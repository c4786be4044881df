"""Input times gradient (Shrikumar et al. 2016)."""

import torch

from xaitools.attribution._stream import AT_THE_IMAGE, Plan
from xaitools.attribution.registry import Setting, method


@method(
    "path",
    label="I*G",
    idea="how would the answer change if this pixel became brighter, times how bright it is?",
    equation=r"R_i = x_i \, \frac{\partial f(x)}{\partial x_i}",
    use="Where 0 means that there is nothing, and a share of the output is wanted in one backward pass.",
    failures=(
        "Black pixels get 0, whatever they tell the network.",
        "Mostly the image shines through: such a map can look right for any network (Adebayo et al. "
        "2018, arXiv:1810.03292, section 5).",
        "Its sum misses the output by what biases do.",
    ),
    reference="Shrikumar et al. 2016, arXiv:1605.01713, section 2.",
)
def input_x_gradient(setting: Setting) -> Plan:
    """Value of each pixel times the gradient of the target output with respect to it.

    Returns
    -------
    Tensor
        In units of the output; positive where the pixel, as it differs from 0, raises the output. Sums to the output
        for a network of ReLUs, poolings and linear layers without biases.

    Raises
    ------
    TargetError
        If the network has no such output.
    UnsupportedModelError
        If the network is not differentiable.
    """
    return Plan(setting.gradients, {"gradient": AT_THE_IMAGE}, finish=torch.mul)
