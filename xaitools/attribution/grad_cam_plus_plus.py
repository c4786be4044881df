"""Grad-CAM++ (Chattopadhay et al. 2018): Grad-CAM that does not forget small and repeated objects."""

import torch
from torch import Tensor

from xaitools.attribution._cam import LAYER, cam_plan
from xaitools.attribution._stream import Plan
from xaitools.attribution.registry import Setting, method


def weighted_positive_gradients(activations: Tensor, gradients: Tensor) -> Tensor:
    """The sum of each channel's positive gradients, weighed by equation 19, (batch, channel, *1).

    g^2 / (2 g^2 + sum(A) g^3) without what is in numerator and denominator, and 0 where that is 0, as g is.
    """
    cells = tuple(range(2, gradients.ndim))
    below = 2 + activations.sum(cells, keepdim=True) * gradients
    shares = torch.where(below == 0, 0, 1 / below)
    return (shares * gradients.clamp(min=0)).sum(cells, keepdim=True)


@method(
    "layer",
    label=lambda option: f"GC++ {option}".strip(),
    idea="where are all the features of a late layer that speak for the answer, however small?",
    equation=r"R = \max(0, \sum_c g_c A^c), \quad g_c = \sum_k \alpha^c_k \max(0, \frac{\partial f}{\partial A^c_k})",
    use="Where an image shows the same thing several times, and Grad-CAM shows one of them.",
    failures=(
        "In practice it is Grad-CAM with positive gradients only (Lerma and Lucas 2022, "
        "arXiv:2205.10838): channels that speak against the answer do not count.",
        "It is no sharper than the layer's grid.",
    ),
    reference="Chattopadhay et al. 2018, arXiv:1710.11063, equations 5 and 19.",
    option=LAYER,
)
def grad_cam_plus_plus(setting: Setting, *, layer: str | None = None, relu: bool = True) -> Plan:
    """Activations of a layer, each channel weighed by a weighted sum of its positive gradients, added up.

    The authors explain exp(output), which makes higher derivatives powers of the gradient. Here the map is divided by
    exp(output), one number an image, which changes no map's pattern, and without which a measured quantity or a large
    logit would give infinity. Their weights are meant for activations that are not negative, as those of a ReLU: of
    other layers the denominators can come near 0.

    Parameters
    ----------
    layer, relu
        As in `grad_cam`, and so is the way to the image's grid.

    Returns
    -------
    Tensor
        In units of the output, the same in all channels; positive where features speak for the target.

    Raises
    ------
    MethodError
        If there is no such layer, it runs more than once in a pass, or its output has no spatial extent.
    TargetError
        If the network has no such output.
    UnsupportedModelError
        As `grad_cam`.
    """
    return cam_plan(setting, layer, weighted_positive_gradients, relu)
