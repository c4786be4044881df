"""Maps of segmentation networks: why is this region taken for that class?"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor, fx, nn

from xaitools.attribution._rebinding import named_after, rebind
from xaitools.attribution._sliding import StitchedNetwork, Windows, checked_windows
from xaitools.attribution._together import Together, of_all_images, own_options
from xaitools.attribution.attribute import Maps, attribute
from xaitools.checks import Target, check_choice, check_within, checked_images
from xaitools.errors import DataError, ParameterError, ShapeError, UnsupportedModelError
from xaitools.models.network import Network
from xaitools.models.outputs import Output, pick, picked
from xaitools.models.surgery import unwrapped
from xaitools.progress import Progress

REGIONS = ("prediction", "positive")
BUFFER = "xaitools_region"

Region = str | Shaped[Tensor, "*mask"] | Shaped[np.ndarray, "*mask"] | Sequence[slice | tuple[int, int]]


class SegmentationMaps(Maps):
    """Maps of a segmentation network by method name, each shaped like the images.

    Attributes
    ----------
    regions
        Weights of the voxels whose outputs were summed, (batch, \\*output_spatial); 1 and 0 but for a mask of weights.
    scores
        The sums that are explained, one an image, in the unit of the network's output.
    """

    def __init__(self) -> None:
        super().__init__()
        self.regions = torch.zeros(0)
        self.scores = torch.zeros(0)


def attribute_segmentation(
    model: nn.Module,
    images: Float[Tensor, "batch channel *spatial"] | np.ndarray | list[Any],
    target: Target = None,
    methods: str | Sequence[str] = ("gradient",),
    *,
    region: Region = "prediction",
    window: int | Sequence[int] | None = None,
    overlap: float | Sequence[float] = 0.25,
    mode: str = "constant",
    sigma_scale: float = 0.125,
    output: Output = None,
    precision: str = "float32",
    segments: Sequence[Any] | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    batch_size: int = 16,
    on_error: str = "raise",
    progress: bool | Progress = True,
    **settings: Any,
) -> SegmentationMaps:
    """Attribution maps for what a segmentation network says of a region.

    The output explained is the target class's output, as the network returns it and usually a logit, summed over the
    voxels of a region. The region is made from the clean image and stays the same for its noisy copies, for paths to
    it and where parts of it are hidden. So every method of `attribute` works as it does for a classifier, or refuses.

    A volume larger than the network's patch is passed through in windows whose predictions are averaged, as
    MONAI's ``sliding_window_inference`` does. The maps are those of this stitched prediction as a whole; smoothing,
    absolute values and regions of XRAI are taken of the stitched map. One window at a time is in memory, and windows
    that do not touch the region are left out.

    Parameters
    ----------
    model
        Network that returns (batch, classes, \\*spatial); it is not changed. The output may be on a coarser grid than
        the image; the region is then one of that grid.
    images
        Images or volumes, batch and channel first.
    target
        Class to explain: one for all images, or one for each. None for the single channel of a binary segmentation.
    methods
        Names, as `attribute` takes them.
    region
        "prediction": where the target has the largest output of all classes, or, if it is the only one, one above 0.
        "positive": where the target's own output is above 0, for classes that may overlap (one sigmoid each).
        A mask: (\\*spatial) for all images, or (batch, \\*spatial); booleans, or weights as real numbers.
        A box: one slice, or pair (start, stop), for each spatial axis, in voxels.
    window
        Size of the patches that the network takes, in voxels, for all axes or for each; None to pass whole images.
    overlap
        Share of a window that the next one covers again, for all axes or for each.
    mode
        "constant", or "gaussian" for windows that count less towards their edges.
    sigma_scale
        Standard deviation of that Gaussian as a share of the window.
    output
        Which tensor of what the model returns, as in `attribute`: 0 for nnU-Net's deep supervision.
    precision, segments, options, batch_size, on_error, progress, \\**settings
        As `attribute` takes them. `batch_size` counts images, or windows of noisy copies and points of one image.

    Returns
    -------
    SegmentationMaps
        A dict from the names in `methods` to maps, with the regions and the scores explained. Signed maps are positive
        where the pixel speaks for the target in that region.

    Raises
    ------
    MethodError, TargetError
        As `attribute` does.
    DataError
        If a region is empty, or a mask holds other than booleans or finite numbers.
    ShapeError
        If a mask does not fit the network's output.
    ParameterError
        If the region or a setting of the windows cannot be read.
    UnsupportedModelError
        If the network returns something else, or a method would be wrong on it.

    Notes
    -----
    Occlusion through windows passes all windows for each patch that it hides; captum's methods of gradients keep all
    windows in memory. Methods of images smaller than a window are as if they were padded with zeros, as in MONAI.
    """
    images = checked_images(images)
    shape = tuple(images.shape[2:])
    windows = None if window is None else checked_windows(shape, window, overlap, mode, sigma_scale)
    network, dense = _prepared(model, images, windows, output, precision)
    inputs = network.place(images)
    classes = network.targets(target, len(inputs))
    parts, regions, scores = [], [], []
    made = _Regions(region, dense, inputs, classes)
    whole = [made.of(i) for i in range(len(inputs))]
    _check_filled(whole)
    with Together(len(inputs), progress) as together:
        for i, weights in enumerate(whole):
            target_i = None if classes is None else classes[i : i + 1]
            if isinstance(network, StitchedNetwork):
                network.explain(weights)
                network.pulse = together.teller
            else:
                rebind(network, **{BUFFER: weights.flatten()})
            parts.append(
                attribute(
                    network,
                    inputs[i : i + 1],
                    target_i,
                    methods,
                    precision=precision,
                    segments=None if segments is None else segments[i : i + 1],
                    options=own_options(options or {}, tuple(inputs.shape), i),
                    batch_size=batch_size,
                    on_error=on_error,
                    progress=together.next(),
                    **settings,
                )
            )
            regions.append(weights)
            scores.append(network.scores(inputs[i : i + 1], target_i, batch_size))
    maps = SegmentationMaps()
    vars(maps).update(vars(found := of_all_images(parts)))
    maps.update({name: value.to(images.device) for name, value in found.items()})
    maps.regions = torch.stack(regions).to(images.device)
    maps.scores = torch.cat(scores).to(images.device)
    return maps


class RegionScore(nn.Module):
    """A segmentation network that returns one number a class: its output, summed under the weights of a buffer."""

    def __init__(self, model: nn.Module, output: Output):
        super().__init__()
        self.model = model
        self.output = output
        self.register_buffer(BUFFER, torch.ones(1).to(next(model.parameters(), torch.zeros(0))))

    def dense(self, images: Any) -> Any:
        """What the network says of each voxel, (batch, classes, *spatial)."""
        found = self.model(images)
        return found if self.output is None else pick(found, self.output)

    def forward(self, images: Any) -> Any:
        return region_sum(self.dense(images), self.get_buffer(BUFFER))


def region_sum(outputs: Any, weights: Any) -> Any:
    """Weighted sum over the voxels of (batch, classes, *spatial): (batch, classes).

    A step of its own to whoever takes the network apart: no layer, so relevance is the value times the gradient here.
    """
    outputs, _ = picked(outputs, None, "to explain")
    if outputs.ndim not in (4, 5):
        raise UnsupportedModelError(
            f"The network returns outputs of shape {tuple(outputs.shape)}; expected those of a segmentation, (batch, "
            "classes, *spatial): use attribute for a classifier or a regression."
        )
    return (outputs.flatten(2) * weights).sum(2)


fx.wrap("region_sum")


def _prepared(
    model: nn.Module,
    images: Tensor,
    windows: Windows | None,
    output: Output,
    precision: str,
) -> tuple[Network, Callable[[Tensor], Tensor]]:
    """The network whose output is the sum over a region, and the function that gives its prediction of images."""
    example = images[:1] if windows is None else windows.first(images[:1])
    model = unwrapped(model)
    network = Network(named_after(model, RegionScore)(model, output), example, precision)
    score = network.model
    assert isinstance(score, RegionScore)

    def dense(inputs: Tensor) -> Tensor:
        with torch.no_grad():
            return picked(score.dense(inputs.clone()), None, network.name)[0]

    if windows is None:
        return network, dense
    grid = tuple(dense(network.example).shape[2:])
    if grid != windows.size:
        raise UnsupportedModelError(
            f"The network answers a window of {windows.size} voxels with {grid}; expected the same number, since "
            "predictions are stitched voxel by voxel: choose an output of full resolution, or upsample it in the model."
        )
    return StitchedNetwork(network, windows, BUFFER), lambda inputs: windows.stitched(dense, inputs)


class _Regions:
    """The weights of the voxels that are summed, image by image."""

    def __init__(
        self, region: Region, dense: Callable[[Tensor], Tensor], images: Tensor, target: Tensor | None
    ):
        self.dense, self.images, self.target = dense, images, target
        self.region: Any = region
        if isinstance(region, str):
            check_choice(region=(region, REGIONS))
            return
        grid = tuple(dense(images[:1]).shape[2:])
        if isinstance(region, Tensor | np.ndarray):
            self.region = _checked_mask(torch.as_tensor(region), len(images), grid).to(images)
        else:
            self.region = torch.zeros(grid).to(images)
            self.region[_checked_box(region, grid)] = 1
            self.region = self.region.expand(len(images), *grid)

    def of(self, i: int) -> Tensor:
        """Weights (*spatial) for image number i."""
        if not isinstance(self.region, str):
            return self.region[i]
        logits = self.dense(self.images[i : i + 1])[0]
        target = 0 if self.target is None else int(self.target[i])
        check_within(torch.tensor([target]), len(logits))
        if self.region == "positive" or len(logits) == 1:
            return (logits[target] > 0).to(self.images)
        return (logits.argmax(0) == target).to(self.images)


def _checked_mask(mask: Tensor, n_images: int, grid: tuple[int, ...]) -> Tensor:
    """A mask (batch, *grid) of one for all images, or one for each."""
    one_each = mask[:, 0] if tuple(mask.shape) == (n_images, 1, *grid) else mask
    if tuple(one_each.shape) not in (grid, (n_images, *grid)):
        raise ShapeError(
            f"region of shape {tuple(mask.shape)} for {n_images} images and outputs on a grid of {grid}; expected "
            f"{grid} or {(n_images, *grid)}: resample the mask to the grid of the network's output."
        )
    if mask.is_complex() or not (mask.is_floating_point() or bool(((mask == 0) | (mask == 1)).all())):
        raise DataError(
            f"region is {mask.dtype} with values other than 0 and 1; expected booleans, or weights as real numbers: "
            "choose a label of a label map with labels == number."
        )
    if not bool(torch.isfinite(mask).all()):
        raise DataError("region contains NaN or infinity; expected finite weights: replace them first.")
    return one_each.expand(n_images, *grid)


def _checked_box(box: Sequence[slice | tuple[int, int]], grid: tuple[int, ...]) -> tuple[slice, ...]:
    """The box as slices that lie within the grid."""
    sides = [side if isinstance(side, slice) else slice(*side) for side in box]
    fits = len(sides) == len(grid) and all(
        side.step in (None, 1) and 0 <= (side.start or 0) < (n if side.stop is None else side.stop) <= n
        for side, n in zip(sides, grid, strict=True)
    )
    if not fits:
        raise ParameterError(
            f"region={box!r} for outputs on a grid of {grid}; expected a slice or a pair (start, stop) for each of its "
            "axes, start below stop and within the grid."
        )
    return tuple(sides)


def _check_filled(regions: Sequence[Tensor]) -> None:
    empty = [i for i, weights in enumerate(regions) if not bool((weights != 0).any())]
    if empty:
        raise DataError(
            f"region is empty for images {', '.join(map(str, empty))}: the network does not predict the target "
            "there, or the mask is 0; expected a voxel or more: leave them out, or give a mask or a box."
        )
