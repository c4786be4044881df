"""Grad-CAM (Selvaraju et al. 2017): where the features of a layer are that speak for the answer."""

from torch import Tensor

from xaitools.attribution._cam import LAYER, cam_plan
from xaitools.attribution._stream import Plan
from xaitools.attribution.registry import Setting, method


def mean_gradients(activations: Tensor, gradients: Tensor) -> Tensor:
    """The mean of each channel's gradients over all of its cells, (batch, channel, *1)."""
    return gradients.mean(tuple(range(2, gradients.ndim)), keepdim=True)


@method(
    "layer",
    label=lambda option: f"GC {option}".strip(),
    idea="where are the features of a late layer that speak for the answer?",
    equation=r"R = \max(0, \sum_c g_c A^c), \quad g_c = \frac{1}{n} \sum_k \frac{\partial f}{\partial A^c_k}",
    use=(
        "For a first coarse answer to where, on convolutional networks; it passes the sanity checks "
        "in most settings."
    ),
    failures=(
        "It is no sharper than the layer's grid, and in 3D that grid is often a few cells wide.",
        "The mean of the gradient can mark cells that the network does not use, if what follows the "
        "layer is not a mean (Draelos and Carin 2020, arXiv:2011.08891).",
        "Cells that speak against the answer are 0; for a regression give `relu=False`.",
    ),
    reference="Selvaraju et al. 2017, arXiv:1610.02391, equations 1 and 2.",
    option=LAYER,
)
def grad_cam(setting: Setting, *, layer: str | None = None, relu: bool = True) -> Plan:
    """Activations of a layer, each channel weighed by the mean of its gradient, added up.

    The mean goes over all spatial axes, two or three. The map of the layer's cells is interpolated linearly onto the
    image's grid, cells lying side by side over the whole of it, so that it is no sharper than the layer's grid. All
    layers and all methods of its kind in one call share one forward and one backward pass.

    Parameters
    ----------
    layer
        Name of a module of the model, such as "layer4" or "features.28", whose output is (batch, channel, *spatial).
        None for the last one with more than one cell: `xaitools.attribution.default_layer` tells which.
    relu
        Whether cells that speak against the target are 0, as the authors have it, or keep their negative values.

    Returns
    -------
    Tensor
        In units of the output for each cell of the layer, the same in all channels; positive where features speak for
        the target. Without `relu` and before interpolation, the cells of a network that ends with a mean over them and
        a linear layer add up to the output without its bias, and the map is the CAM of Zhou et al. 2016.

    Raises
    ------
    MethodError
        If there is no such layer, it runs more than once in a pass, or its output has no spatial extent.
    TargetError
        If the network has no such output.
    UnsupportedModelError
        If the network has no layer with spatial extent, goes on with tokens after the last, as transformers do, or is
        not differentiable.
    """
    return cam_plan(setting, layer, mean_gradients, relu)
