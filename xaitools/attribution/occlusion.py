"""Occlusion (Zeiler and Fergus 2014): how far the output falls when a part of the image is hidden."""

import logging
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Float64, Shaped
from torch import Tensor, nn

from xaitools.attribution._stream import AT_THE_IMAGE, Batch, Passes, Plan, Tell
from xaitools.attribution._window_falls import ALGORITHMS, WindowFalls
from xaitools.attribution._windows import Patches, Regions, checked_labels
from xaitools.attribution.registry import Option, Setting, method
from xaitools.checks import check_choice, check_counts, checked_images
from xaitools.errors import DataError, MethodError, ShapeError
from xaitools.models.network import Network

logger = logging.getLogger(__name__)

MOSTLY_NOISE = 0.5
"""Share of falls below rounding from which on a warning is logged."""


def _read(option: str) -> dict[str, int]:
    """Patch and stride of a name's brackets."""
    sizes = option.split(":")
    if len(sizes) > 2 or not all(size.isdecimal() and int(size) for size in sizes):
        raise MethodError(
            f"occlusion[{option}]: expected the voxels of a patch in the brackets, and of its stride, as in "
            "occlusion[8] or occlusion[8:4]"
        )
    return {"patch": int(sizes[0]), "stride": int(sizes[-1])}


@method(
    "perturbation",
    label="OCC",
    idea="how far does the answer fall when this part of the image is hidden?",
    equation=r"R_i = \operatorname{mean}_{W \ni i} \left[ f(x) - f(x \text{ with } W \text{ hidden}) \right]",
    use=(
        "On any network, differentiable or not, when a question is wanted that one can explain to a doctor."
    ),
    failures=(
        "The patch decides what is seen: evidence wider than it, or twice in the image, survives the "
        "hiding of one part.",
        "An image with a grey square is like none that the network was trained on; the fall can come "
        "from the square itself.",
        "Of a sure network probabilities do not fall: explain the logit.",
    ),
    reference="Zeiler and Fergus, Visualizing and understanding convolutional networks, ECCV 2014, section 4.2;\n"
    "overlapping windows as in captum's ``Occlusion``; regions: Rieke et al., Visualizing convolutional networks for\n"
    "MRI-based diagnosis of Alzheimer's disease, 2018, section 2.4.",
    option=Option("5", "voxels of a patch, and of its stride: 8 or 8:4", _read),
    check=lambda network: network.scores(network.example, network.first_class),
)
def occlusion(
    setting: Setting,
    *,
    patch: int | Sequence[int] = 5,
    stride: int | Sequence[int] | None = None,
    baseline: float | Shaped[Tensor, "*images"] = 0.0,
    label_map: Shaped[Tensor, "*labels"] | None = None,
    algorithm: str = "auto",
) -> Plan:
    """Fall of the target's output when a patch, or a region of an atlas, is hidden.

    Each voxel gets the mean of ``output(image) - output(image with the window hidden)`` over the windows that cover
    it. Windows begin at multiples of `stride`; the last ones may stick out over the border, where they are cut. All
    channels are hidden together.

    The incremental algorithm keeps the clean pass and computes, in each layer, only the box of cells that a window
    can change. This is exact but for rounding. It follows convolutions, pooling, batch norm, activations, sums and
    concatenations, and the first linear layer or the global mean after them; from any other layer on, whole
    activations are computed. A few windows of each image are checked against full passes.

    The output explained is what the network returns, usually a logit; for probabilities give
    ``nn.Sequential(model, nn.Softmax(1))``.

    Parameters
    ----------
    patch
        Voxels of a window, for all axes or for each.
    stride
        Voxels from one window to the next, `patch` at most; None for windows side by side.
    baseline
        What hides: a number, or an image ``(channel, *spatial)`` or ``(batch, channel, *spatial)``.
    label_map
        Region of each voxel, ``(*spatial)`` or one map an image ``(batch, *spatial)``: hide one region after the other
        in place of patches. Voxels with label 0 are in no region and get 0.
    algorithm
        "incremental", "full" (each window passes the whole network), or "auto": incremental if the network allows
        and the work is less. The choice and its reason are logged at level INFO.

    Returns
    -------
    Tensor
        In units of the output; positive where hiding lowers it. The same in each channel.

    Raises
    ------
    ParameterError
        If an option is unknown or out of its range, or the patch larger than the image.
    ShapeError
        If baseline, label map or targets do not fit the images.
    DataError
        If an image or the baseline is not finite, or a label map holds no region.
    TargetError
        If the network has no such output.
    UnsupportedModelError
        If the network is asked to be incremental and cannot be followed, or outputs differ from full passes.
    """
    occluder = _Occluder(setting, patch, stride, baseline, label_map, algorithm)

    def run(batch: Batch) -> Tensor:
        maps = []
        for i, owner in enumerate(batch.owners):
            target = None if batch.target is None else batch.target[i : i + 1]
            maps.append(occluder.explained(batch.points[i : i + 1], owner, target, batch.tell)[0])
        result = torch.stack(maps).to(batch.points)
        return result[:, None].expand(batch.points.shape).clone()

    return Plan(Passes(setting.name, run, occluder.most), {"image": AT_THE_IMAGE})


def share_below_rounding(
    model: nn.Module | Network,
    images: Float[Tensor, "batch channel *spatial"],
    target: Any = None,
    *,
    batch_size: int = 16,
    **options: Any,
) -> Float64[Tensor, " batch"]:
    """How much of an occlusion map is rounding: the share of windows whose fall is no larger than that.

    Windows whose fall is exactly 0 do not count. The rounding of full passes is how far the output moves when the image
    does by one unit in the last place. Where changes are followed to the end, which loses fewer digits, it is what does
    not move in proportion when a window hides a little more or less, on a sample of windows.

    Parameters
    ----------
    model, images, target, batch_size
        As in `occlusion`.
    options
        Further keyword arguments of `occlusion`.

    Returns
    -------
    Tensor
        From 0 to 1 for each image. Near 1 the map is noise: use larger patches, or model and images in float64.

    Raises
    ------
    XaitoolsError
        As in `occlusion`.
    """
    check_counts(error=MethodError, batch_size=batch_size)
    images = checked_images(images)
    network = Network.of(model, images[:1])
    points = network.place(images)
    targets = network.targets(target, len(points))
    occluder = _Occluder(Setting(network, points, targets, "occlusion", batch_size), **options)
    shares = []
    for i in range(len(points)):
        own = None if targets is None else targets[i : i + 1]
        shares.append(occluder.explained(points[i : i + 1], i, own, lambda done: None)[1])
    return torch.tensor(shares, dtype=torch.float64)


class _Occluder:
    """Hides parts of images.

    Attributes
    ----------
    most
        Most windows of an image.
    """

    def __init__(
        self,
        setting: Setting,
        patch: int | Sequence[int] = 5,
        stride: int | Sequence[int] | None = None,
        baseline: float | Tensor = 0.0,
        label_map: Tensor | None = None,
        algorithm: str = "auto",
    ) -> None:
        check_choice(algorithm=(algorithm, ALGORITHMS))
        self._setting, self._algorithm = setting, algorithm
        self._filler = _filler(baseline, setting.images)
        self._hiding: list[Patches] | list[Regions]
        if label_map is None:
            self._hiding = [Patches.of(patch, stride, tuple(setting.images.shape[2:]))] * len(setting.images)
        else:
            self._hiding = [Regions(labels) for labels in checked_labels(label_map, setting.images)]
        self.most = max(hiding.most for hiding in self._hiding)
        self._warned = False

    @torch.no_grad()
    def explained(
        self, image: Tensor, owner: int, target: Tensor | None, tell: Tell
    ) -> tuple[Float64[Tensor, "*spatial"], float]:
        """Map of an image or a noisy copy, and the share of its falls below rounding; `owner` is the image's number."""
        missing = self._filler[owner : owner + 1] - image
        hiding = self._hiding[owner]
        network, batch_size = self._setting.network.folded, self._setting.batch_size
        found = WindowFalls(network, image, missing, target, batch_size, self._algorithm, tell, self.most)
        falls = found.of(hiding.windows(missing), hiding.n_results)
        if found.below_rounding > MOSTLY_NOISE and not self._warned:
            self._warned = True
            logger.warning(
                "Image number %d: hiding changes the output of %s by less than rounding in %.0f %% of the windows, so "
                "its map is mostly noise. Use larger patches, or the model and the images in float64.",
                *(owner, self._setting.network.name, 100 * found.below_rounding),
            )
        return hiding.map(falls), found.below_rounding


def _filler(baseline: float | Tensor, images: Tensor) -> Tensor:
    """The baseline for each image, shaped like `images`."""
    value = torch.as_tensor(baseline).to(images)
    if value.ndim and tuple(value.shape) not in (
        tuple(images.shape),
        (1, *images.shape[1:]),
        tuple(images.shape[1:]),
    ):
        raise ShapeError(
            f"Baseline of shape {tuple(value.shape)} for images {tuple(images.shape)}; expected a number, one image "
            f"{tuple(images.shape[1:])}, or one for each."
        )
    if not bool(torch.isfinite(value).all()):
        raise DataError("The baseline contains NaN or infinity; replace them first.")
    return value.expand(images.shape)
