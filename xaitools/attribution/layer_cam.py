"""LayerCAM (Jiang et al. 2021): each cell of a layer by its own gradient, which also suits early layers."""

from torch import Tensor

from xaitools.attribution._cam import LAYER, cam_plan
from xaitools.attribution._stream import Plan
from xaitools.attribution.registry import Setting, method


def positive_gradients(activations: Tensor, gradients: Tensor) -> Tensor:
    """The gradients where they are positive, else 0."""
    return gradients.clamp(min=0)


@method(
    "layer",
    label=lambda option: f"LC {option}".strip(),
    idea="which cells of a layer, early or late, speak for the answer?",
    equation=r"R = \max\left(0, \sum_c A^c \max\left(0, \frac{\partial f}{\partial A^c}\right)\right)",
    use="Where a map of an early layer, with its finer grid, is wanted.",
    failures=(
        "Maps of early layers show edges, whatever the answer.",
        "Values of different layers cannot be compared.",
        "Only positive gradients count.",
    ),
    reference="Jiang et al. 2021, doi:10.1109/TIP.2021.3089943, equations 5 to 7.",
    option=LAYER,
)
def layer_cam(setting: Setting, *, layer: str | None = None, relu: bool = True) -> Plan:
    """Activations of a layer, each cell weighed by its own gradient where that is positive, added up over channels.

    The authors add maps of several layers after scaling each; here each layer is a map of its own.

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
    return cam_plan(setting, layer, positive_gradients, relu)
