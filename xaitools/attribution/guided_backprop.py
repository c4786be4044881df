"""Guided backprop (Springenberg et al. 2015): a ReLU passes back what is positive, where it was on."""

from torch import Tensor

from xaitools.attribution._rectifiers import rectified
from xaitools.attribution._stream import AT_THE_IMAGE, Plan
from xaitools.attribution.registry import Setting, method


def _keep_positive_where_on(incoming: Tensor, output: Tensor) -> Tensor:
    return incoming.clamp(min=0).masked_fill_(output <= 0, 0)


@method(
    "rule",
    label="GB",
    idea="what would the answer say back, if only signals for it passed each ReLU that was on?",
    reference="Springenberg et al. 2015, arXiv:1412.6806, section 3.4 and figure 1.",
)
def guided_backprop(setting: Setting) -> Plan:
    """Signal that reaches each pixel when a ReLU passes back only positive values, and only where it was on.

    The gradient is thus cut twice: by the ReLU's state in the forward pass, as plain gradients are, and by the sign of
    what comes back, as in `deconvolution`. Computed on the autograd graph, since libraries that replace modules miss
    functional and shared ReLUs.

    Returns
    -------
    Tensor
        No unit; positive where a brighter pixel adds to the features that speak for the target.

    Raises
    ------
    TargetError
        If the network has no such output.
    UnsupportedModelError
        If the network has no ReLU, or another kind of activation.
    """
    passes = rectified("guided_backprop", setting.network, _keep_positive_where_on)
    return Plan(passes, {"image": AT_THE_IMAGE})
