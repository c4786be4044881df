"""Occlusion (Zeiler and Fergus 2014): how far the output falls when a part of the image is hidden."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Shaped
from torch import Tensor, nn

from xaitools.attribution._boxes import Change, clamp, read, table_of
from xaitools.attribution._incremental import IncrementalNetwork
from xaitools.attribution._stream import AT_THE_IMAGE, Batch, Passes, Plan, Tell
from xaitools.attribution.registry import Option, Setting, method
from xaitools.checks import check_choice
from xaitools.errors import DataError, MethodError, ParameterError, ShapeError, UnsupportedModelError
from xaitools.models.network import select

logger = logging.getLogger(__name__)

ALGORITHMS = ("auto", "incremental", "full")
CHECKED_WINDOWS = 3
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-9}
"""Largest difference between incremental and full outputs, as a fraction of the largest output."""

_ELEMENTS = 2**22
_MOST_WINDOWS = 4096


@dataclass(frozen=True, eq=False)
class _Windows:
    """Parts of the image to hide, in boxes of one size that may reach over the far border.

    Attributes
    ----------
    start
        First voxel of each box, ``(window, axis)``.
    number
        Place of each window in the result.
    hidden
        Voxels of each box that are hidden, ``(window, *size)``; None for all.
    """

    start: Tensor
    size: tuple[int, ...]
    number: Tensor
    hidden: Tensor | None = None

    def __len__(self) -> int:
        return len(self.start)

    def __getitem__(self, part: Tensor | slice) -> "_Windows":
        hidden = None if self.hidden is None else self.hidden[part]
        return _Windows(self.start[part], self.size, self.number[part], hidden)


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
    check_choice(algorithm=(algorithm, ALGORITHMS))
    images = setting.images
    shape = tuple(images.shape[2:])
    filler = _filler(baseline, images)
    hiding: _Patches | _Regions
    if label_map is None:
        sizes = _voxels("patch", patch, shape)
        strides = sizes if stride is None else _voxels("stride", stride, shape)
        _check_coverage(sizes, strides, shape)
        hiding = _Patches(sizes, strides, shape)
    else:
        hiding = _Regions(_labels(label_map, images))
    quick = setting.network.folded

    def run(batch: Batch) -> Tensor:
        maps = []
        for i, owner in enumerate(batch.owners):
            image = batch.points[i : i + 1]
            missing = filler[owner : owner + 1] - image
            target = None if batch.target is None else batch.target[i : i + 1]
            scorer = _Scorer(quick, image, missing, target, setting.batch_size, algorithm, batch.tell)
            maps.append(hiding.map(owner, missing, scorer))
        result = torch.stack(maps).to(batch.points)
        return result[:, None].expand(batch.points.shape).clone()

    return Plan(Passes(setting.name, run, hiding.most), {"image": AT_THE_IMAGE})


@dataclass(frozen=True)
class _Patches:
    """Patches of one size on a regular grid.

    Attributes
    ----------
    most
        Windows of an image.
    """

    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    shape: tuple[int, ...]

    @property
    def grid(self) -> tuple[int, ...]:
        """Windows along each axis: as many as are needed to cover it."""
        axes = zip(self.shape, self.sizes, self.strides, strict=True)
        return tuple(-(-(n - p) // s) + 1 for n, p, s in axes)

    @property
    def most(self) -> int:
        return prod(self.grid)

    def map(self, _: int, missing: Tensor, scorer: "_Scorer") -> Tensor:
        """Mean fall at each voxel (*spatial), float64."""
        falls = scorer.falls([_patches(self.sizes, self.strides, self.grid, missing)], self.most, self.most)
        return _mean_over_windows(falls.view(self.grid), self.sizes, self.strides, self.shape)


@dataclass(frozen=True, eq=False)
class _Regions:
    """Regions of a label map of each image, (batch, *spatial)."""

    labels: Tensor

    @cached_property
    def most(self) -> int:
        return max(len(own.unique()) for own in self.labels.unique(dim=0))

    def map(self, owner: int, missing: Tensor, scorer: "_Scorer") -> Tensor:
        """Fall of each voxel's region (*spatial), float64; 0 in none."""
        labels = self.labels[owner]
        return scorer.falls(_regions(labels, missing), int(labels.max()) + 1, self.most)[labels]


class _Scorer:
    """Falls of one image's output, by the algorithm asked for."""

    def __init__(
        self,
        network: nn.Module,
        image: Tensor,
        missing: Tensor,
        target: Tensor | None,
        batch_size: int,
        algorithm: str,
        tell: Tell,
    ) -> None:
        self.network, self.image, self.target = network, image, target
        self.batch_size, self.algorithm = batch_size, algorithm
        self.tell = tell
        self.table = table_of(missing)
        with torch.no_grad():
            self.clean = network(image)
        self._select(self.clean)
        self.engine: IncrementalNetwork | None = None
        if algorithm != "full":
            self.engine = self._engine()

    def falls(self, groups: Sequence[_Windows], n_results: int, n_told: int) -> Tensor:
        """How far hiding each window lowers the output, (n_results,), float64; tells of `n_told` windows in all."""
        falls = self.image.new_zeros(n_results, dtype=torch.float64)
        for windows in groups:
            if len(windows) == 0:
                continue
            checked = self._sample(windows)
            expected = self._full(checked) if self.engine is not None else None
            engine = self._choose(checked, expected, len(windows))
            size = self.batch_size
            if engine is not None:
                size = max(self.batch_size, min(_ELEMENTS // engine.widest, _MOST_WINDOWS))
            for first in range(0, len(windows), size):
                part = windows[first : first + size]
                values = self._full(part) if engine is None else self._incremental(engine, part)
                falls[part.number] = values.double()
                self.tell(len(part))
        self.tell(n_told - sum(map(len, groups)))
        return falls

    def _engine(self) -> IncrementalNetwork | None:
        try:
            engine = IncrementalNetwork(
                self.network, self.image, self.clean, batch_size=self.batch_size, pulse=partial(self.tell, 0)
            )
            engine.require_local()
            return engine
        except UnsupportedModelError as error:
            if self.algorithm == "incremental":
                raise
            logger.info("Occlusion by full passes: %s", error)
            return None

    def _choose(self, checked: _Windows, expected: Tensor | None, n: int) -> IncrementalNetwork | None:
        """The engine if it is right on the windows `checked`, and cheaper or demanded."""
        engine = self.engine
        if engine is None or expected is None:
            return None
        engine.work = 0.0
        found = self._incremental(engine, checked)
        share = engine.work / (len(checked) * engine.full_work)
        tolerance = TOLERANCE.get(found.dtype, 1e-2) * float(self.clean.abs().max().clamp(min=1e-30))
        gap = float((found - expected).abs().max())
        if not gap <= tolerance:
            message = (
                f"The incremental outputs of {type(self.network).__name__} differ from full passes by {gap:.2g}, where "
                f"{tolerance:.2g} is allowed"
            )
            if self.algorithm == "incremental":
                raise UnsupportedModelError(f"{message}; use algorithm='full'.")
            logger.warning("%s: occlusion goes on by full passes.", message)
            self.engine = None
            return None
        use = self.algorithm == "incremental" or share < 1
        logger.info(
            "Occlusion of %d windows of %s by %s: a window's changes take %.2g of the work of a full pass.",
            *(n, "x".join(map(str, checked.size)), "incremental passes" if use else "full passes", share),
        )
        return engine if use else None

    def _sample(self, windows: _Windows) -> _Windows:
        generator = torch.Generator().manual_seed(0)
        chosen = torch.randperm(len(windows), generator=generator)[:CHECKED_WINDOWS]
        return windows[chosen.to(windows.start.device)]

    def _incremental(self, engine: IncrementalNetwork, windows: _Windows) -> Tensor:
        return -self._select(engine.outputs(_change(self.table, windows)))

    def _full(self, windows: _Windows) -> Tensor:
        change = _change(self.table, windows)
        outputs = []
        for first in range(0, len(windows), self.batch_size):
            part = change[slice(first, first + self.batch_size)]
            occluded = self.image.repeat(len(part), *(1 for _ in self.image.shape[1:]))
            for image, start, values in zip(occluded, part.start.tolist(), part.values, strict=True):
                box = tuple(slice(a, a + n) for a, n in zip(start, part.size, strict=True))
                image[(slice(None), *box)] += values.movedim(-1, 0)
            layout = torch.channels_last_3d if occluded.ndim == 5 else torch.channels_last
            with torch.no_grad():
                outputs.append(self.network(occluded.contiguous(memory_format=layout)))
        return self._select(self.clean) - self._select(torch.cat(outputs))

    def _select(self, outputs: Tensor) -> Tensor:
        return select(outputs, None if self.target is None else self.target.expand(len(outputs)))


def _change(table: Tensor, windows: _Windows) -> Change:
    """What hiding does to the image; boxes over the border move inwards, and leave the voxels before them alone."""
    start = clamp(windows.start, windows.size, table.shape[:-1])
    values = read(table, start, windows.size)
    if not torch.equal(start, windows.start):
        for axis, n in enumerate(windows.size):
            steps = torch.arange(n, device=start.device)
            kept = steps >= (windows.start - start)[:, axis, None]
            values *= kept.view(
                len(kept), *(n if other == axis else 1 for other in range(len(windows.size))), 1
            )
    if windows.hidden is not None:
        values *= windows.hidden[..., None]
    return Change(values, start)


def _patches(patch: tuple[int, ...], stride: Sequence[int], grid: Sequence[int], missing: Tensor) -> _Windows:
    """All windows that hide something: where the image equals the baseline, the output stays."""
    differs = (missing != 0).any(1, keepdim=True).to(torch.float32)
    reach = [(g - 1) * s + p for g, s, p in zip(grid, stride, patch, strict=True)]
    pads = [0, 0]
    for end, n in reversed(list(zip(reach, missing.shape[2:], strict=True))):
        pads += [0, end - n]
    pool: Any = F.max_pool3d if len(patch) == 3 else F.max_pool2d
    active = pool(F.pad(differs, pads[2:]), patch, stride)[0, 0]
    steps = active.nonzero()
    number = active.flatten().nonzero()[:, 0]
    return _Windows(steps * steps.new_tensor(stride), patch, number)


def _regions(labels: Tensor, missing: Tensor) -> list[_Windows]:
    """Each region in its bounding box."""
    windows = []
    for label in labels.unique().tolist():
        own = labels == label
        if label == 0 or not bool((missing[0] != 0).any(0)[own].any()):
            continue
        cells = own.nonzero()
        low, high = cells.amin(0), cells.amax(0) + 1
        box = tuple(slice(a, b) for a, b in zip(low.tolist(), high.tolist(), strict=True))
        number = torch.tensor([label], device=labels.device)
        windows.append(_Windows(low[None], tuple((high - low).tolist()), number, own[box][None]))
    return windows


def _mean_over_windows(
    falls: Tensor, patch: Sequence[int], stride: Sequence[int], shape: Sequence[int]
) -> Tensor:
    """Mean over the windows that cover each voxel."""
    total, count = falls, torch.ones_like(falls)
    for axis, (p, s, n) in enumerate(zip(patch, stride, shape, strict=True)):
        total, count = (_spread(values, axis, p, s).narrow(axis, 0, n) for values in (total, count))
    return total / count


def _spread(values: Tensor, axis: int, patch: int, stride: int) -> Tensor:
    """Sum over the windows that cover each voxel along one axis."""
    length = (values.shape[axis] - 1) * stride + 1
    out = values.new_zeros([length + patch - 1 if a == axis else n for a, n in enumerate(values.shape)])
    for step in range(patch):
        out[(slice(None),) * axis + (slice(step, step + length, stride),)] += values
    return out


def _voxels(name: str, value: int | Sequence[int], shape: Sequence[int]) -> tuple[int, ...]:
    numbers = (value,) * len(shape) if isinstance(value, int) else tuple(value)
    if len(numbers) != len(shape) or any(not isinstance(n, int) or n < 1 for n in numbers):
        raise ParameterError(
            f"{name}={value}; expected a whole number of 1 or more, or one for each of {len(shape)} spatial axes."
        )
    return numbers


def _check_coverage(patch: Sequence[int], stride: Sequence[int], shape: Sequence[int]) -> None:
    if any(p > n for p, n in zip(patch, shape, strict=True)):
        raise ParameterError(
            f"patch={tuple(patch)} is larger than the image {tuple(shape)}; choose a smaller patch."
        )
    if any(s > p < n for s, p, n in zip(stride, patch, shape, strict=True)):
        raise ParameterError(
            f"stride={tuple(stride)} is larger than patch={tuple(patch)}, which leaves voxels that no window covers; "
            "choose a stride up to the patch."
        )


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


def _labels(label_map: Tensor, images: Tensor) -> Tensor:
    """Labels for each image, (batch, *spatial)."""
    batch, shape = len(images), tuple(images.shape[2:])
    labels = label_map[:, 0] if tuple(label_map.shape) == (batch, 1, *shape) else label_map
    if tuple(labels.shape) not in (shape, (batch, *shape), (1, *shape)):
        raise ShapeError(
            f"label_map of shape {tuple(label_map.shape)} for images {tuple(images.shape)}; expected {shape} or "
            f"{(batch, *shape)}. Resample the atlas to the images' grid first."
        )
    if labels.is_floating_point() or labels.is_complex():
        raise DataError(f"label_map is {labels.dtype}; expected whole numbers: convert it with .long().")
    labels = labels.to(images.device).long().expand(batch, *shape)
    if int(labels.min()) < 0:
        raise DataError(
            f"label_map contains the label {int(labels.min())}; expected 0 for none, and positive ones."
        )
    if int(labels.max()) == 0:
        raise DataError(
            "label_map contains no label other than 0; expected regions, since else nothing can be hidden."
        )
    return labels
