"""Parts of an image to hide: patches on a grid, or regions of a label map."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float64, Int
from torch import Tensor

from xaitools.attribution._boxes import Change, clamp, read
from xaitools.errors import DataError, ParameterError, ShapeError


@dataclass(frozen=True, eq=False)
class Windows:
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

    def __getitem__(self, part: Tensor | slice) -> "Windows":
        hidden = None if self.hidden is None else self.hidden[part]
        return Windows(self.start[part], self.size, self.number[part], hidden)


@dataclass(frozen=True)
class Patches:
    """Patches of one size on a regular grid.

    Attributes
    ----------
    n_results
        Windows of an image.
    """

    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    shape: tuple[int, ...]

    @classmethod
    def of(
        cls, patch: int | Sequence[int], stride: int | Sequence[int] | None, shape: tuple[int, ...]
    ) -> "Patches":
        """Patches for images of that spatial shape.

        Raises
        ------
        ParameterError
            If they do not fit into it, or do not cover it.
        """
        sizes = _voxels("patch", patch, shape)
        strides = sizes if stride is None else _voxels("stride", stride, shape)
        _check_coverage(sizes, strides, shape)
        return cls(sizes, strides, shape)

    @property
    def grid(self) -> tuple[int, ...]:
        """Windows along each axis: as many as are needed to cover it."""
        axes = zip(self.shape, self.sizes, self.strides, strict=True)
        return tuple(-(-(n - p) // s) + 1 for n, p, s in axes)

    @property
    def n_results(self) -> int:
        return prod(self.grid)

    most = n_results

    def windows(self, missing: Tensor) -> list[Windows]:
        """All windows that hide something: where the image equals the baseline, the output stays."""
        differs = (missing != 0).any(1, keepdim=True).to(torch.float32)
        axes = zip(self.grid, self.strides, self.sizes, missing.shape[2:], strict=True)
        pads = [pad for g, s, p, n in reversed(list(axes)) for pad in (0, (g - 1) * s + p - n)]
        pool: Any = F.max_pool3d if len(self.sizes) == 3 else F.max_pool2d
        active = pool(F.pad(differs, pads), self.sizes, self.strides)[0, 0]
        steps, number = active.nonzero(), active.flatten().nonzero()[:, 0]
        return [Windows(steps * steps.new_tensor(self.strides), self.sizes, number)] if len(steps) else []

    def map(self, falls: Float64[Tensor, " result"]) -> Float64[Tensor, "*spatial"]:
        """Mean fall at each voxel over the windows that cover it."""
        return _mean_over_windows(falls.view(self.grid), self.sizes, self.strides, self.shape)


@dataclass(frozen=True, eq=False)
class Regions:
    """The regions of one image's label map."""

    labels: Int[Tensor, "*spatial"]

    @property
    def n_results(self) -> int:
        return int(self.labels.max()) + 1

    @property
    def most(self) -> int:
        return len(self.labels.unique())

    def windows(self, missing: Tensor) -> list[Windows]:
        """Each region that hides something, in its bounding box."""
        windows = []
        hides = (missing[0] != 0).any(0)
        for label in self.labels.unique().tolist():
            own = self.labels == label
            if label == 0 or not bool(hides[own].any()):
                continue
            cells = own.nonzero()
            low, high = cells.amin(0), cells.amax(0) + 1
            box = tuple(slice(a, b) for a, b in zip(low.tolist(), high.tolist(), strict=True))
            number = torch.tensor([label], device=own.device)
            windows.append(Windows(low[None], tuple((high - low).tolist()), number, own[box][None]))
        return windows

    def map(self, falls: Float64[Tensor, " result"]) -> Float64[Tensor, "*spatial"]:
        """Fall of each voxel's region; 0 in none."""
        return falls[self.labels]


def picked(groups: Sequence[Windows], chosen: Int[Tensor, " chosen"]) -> list[Windows]:
    """The windows of these numbers, counted through all groups; `chosen` is sorted."""
    parts, first = [], 0
    for windows in groups:
        own = chosen[(chosen >= first) & (chosen < first + len(windows))] - first
        if len(own):
            parts.append(windows[own.to(windows.start.device)])
        first += len(windows)
    return parts


def change_of(table: Tensor, windows: Windows) -> Change:
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


def checked_labels(label_map: Tensor, images: Tensor) -> Tensor:
    """Labels for each image, (batch, *spatial).

    Raises
    ------
    ShapeError, DataError
        If they do not fit the images, or are not whole numbers from 0 on, one of them positive.
    """
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
