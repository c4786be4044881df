"""Guided Grad-CAM (Selvaraju et al. 2017): guided backprop where Grad-CAM looks."""

from torch import Tensor

from xaitools.attribution._cam import LAYER, Asked, cam_of
from xaitools.attribution._rectifiers import rectified
from xaitools.attribution._stream import AT_THE_IMAGE, Batch, Passes, Plan
from xaitools.attribution.grad_cam import mean_gradients
from xaitools.attribution.guided_backprop import keep_positive_where_on
from xaitools.attribution.registry import Setting, method


@method(
    "rule",
    label=lambda option: f"GGC {option}".strip(),
    idea="which details belong to the features of a late layer that speak for the answer?",
    equation=r"R = R^{\text{guided backprop}} \odot R^{\text{Grad-CAM}}",
    use="To repeat published comparisons.",
    failures=(
        "Its details are those of guided backpropagation, which fails the sanity check, and so does "
        "this map (Adebayo et al. 2018, arXiv:1810.03292).",
    ),
    reference="Selvaraju et al. 2017, arXiv:1610.02391, section 3.2.",
    option=LAYER,
    needs="what guided_backprop and grad_cam need",
)
def guided_grad_cam(setting: Setting, *, layer: str | None = None) -> Plan:
    """The map of `guided_backprop` times that of `grad_cam`, voxel by voxel.

    It has the first's detail, which says little of the class, and the second's place, which is coarse.

    Parameters
    ----------
    layer
        As in `grad_cam`.

    Returns
    -------
    Tensor
        No unit; positive where a brighter pixel adds to features that speak for the target.

    Raises
    ------
    MethodError
        If there is no such layer, it runs more than once in a pass, or its output has no spatial extent.
    TargetError
        If the network has no such output.
    UnsupportedModelError
        As `grad_cam` and `guided_backprop`.
    """
    guided = rectified("guided_backprop", setting.network, keep_positive_where_on)
    asked = Asked(setting.network, [cam_of(setting, layer, mean_gradients, relu=True)])

    def run(batch: Batch) -> Tensor:
        details = guided.run(batch)
        batch.tell(len(details))
        places = asked.maps(batch.points, batch.target)
        batch.tell(len(details))
        return details * places

    return Plan(Passes(setting.name, run, units=2), {"image": AT_THE_IMAGE})
