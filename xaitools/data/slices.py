"""One axial CT slice, and its way to an image that a network takes."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from xaitools.data.grids import Grid
from xaitools.data.intensity import apply_window, hu_doubt
from xaitools.data.volumes import Volume
from xaitools.errors import DataError

AIR_HU = -1000.0


@dataclass(frozen=True)
class CtSlice:
    """An axial slice as a radiologist sees it: the patient's right on the viewer's left, the front up.

    Parameters
    ----------
    hu : array of float32, (row, column), Hounsfield units
    spacing : (row, column), mm
    display : callable
        Carries an array on the grid stored in the file to the grid of `hu`.
    doubt : str
        What speaks against the values being Hounsfield units, see :func:`xaitools.data.intensity.hu_doubt`.
    place : Grid, optional
        Where the pixels of a DICOM slice lie, (x, y, 1): towards left and back as displayed. None where it is unknown.
    """

    hu: np.ndarray
    spacing: tuple[float, float]
    display: Callable[[np.ndarray], np.ndarray]
    doubt: str = ""
    place: Grid | None = None


def slice_of_volume(volume: Volume, fraction: float, path: Path) -> CtSlice:
    """The axial slice at a fraction of the height: 0 the lowest, 1 nearest to the head.

    Raises
    ------
    DataError
        The volume, read from `path`, is a single slice that is not axial.
    """
    turned = volume.turned("LPS")
    if turned.voxels.shape[2] > 1 and 1 in turned.voxels.shape[:2]:
        raise DataError(
            f"{path}: a single slice that is not axial; expected one across the patient's long axis"
        )
    k = round(fraction * (turned.voxels.shape[2] - 1))
    x, y, _ = turned.grid.spacing.tolist()
    return CtSlice(turned.voxels[:, :, k].T, (y, x), lambda array: array, hu_doubt(volume.voxels))


def slice_at(volume: Volume, place: Grid) -> np.ndarray | None:
    """The pixels of a volume, (row, column), that lie where those of a slice do; None where it holds no such slice."""
    turned = volume.turned("LPS")
    affine = turned.grid.affine.copy()
    k = round(np.linalg.solve(affine, place.affine[:, 3])[2])
    affine[:, 3] = affine @ [0, 0, k, 1]
    affine[:, 2] = place.affine[:, 2]
    shape = turned.voxels.shape
    if not 0 <= k < shape[2] or not Grid((*shape[:2], 1), affine).same_as(place):
        return None
    return turned.voxels[:, :, k].T


def stored_slice(pixels: np.ndarray, grid: Grid, doubt: str, place: Grid | None) -> CtSlice:
    """An axial slice from pixels (row, column) as a file has them, on a grid (column, row, 1)."""
    x, y, _ = grid.turned("LPS").spacing.tolist()
    display = partial(_radiological, grid=grid)
    return CtSlice(display(pixels.astype(np.float32)), (y, x), display, doubt, place)


def _radiological(pixels: np.ndarray, grid: Grid) -> np.ndarray:
    turned = Volume(pixels.T[..., None], grid).turned("LPS")
    return np.ascontiguousarray(turned.voxels[:, :, 0].T)


def to_image(ct_slice: CtSlice, path: Path, window: tuple[float, float], size: int) -> Tensor:
    """Window a slice and resize it to (1, size, size), values in [0, 1].

    Raises
    ------
    DataError
        The slice, read from `path`, has values that are not finite or is constant in the window.
    """
    if not np.isfinite(ct_slice.hu).all():
        raise DataError(
            f"{path}: NaN or infinite values in the slice; expected Hounsfield units. Repair the file"
        )
    image = apply_window(ct_slice.hu, window)
    if image.min() == image.max():
        raise DataError(
            f"{path}: the slice is constant in the window (center, width) {tuple(window)}; values are "
            f"{ct_slice.hu.min():g} to {ct_slice.hu.max():g} HU. Choose another slice or window"
        )
    return resize(image, ct_slice.spacing, size)


def resize(image: np.ndarray, spacing: tuple[float, float], size: int) -> Tensor:
    """Resize (row, column) to (1, size, size) without aliasing: true proportions, black beside the shorter side."""
    lengths = np.multiply(image.shape, spacing)
    height, width = np.maximum(np.rint(lengths * size / lengths.max()), 1).astype(int).tolist()
    pixels = torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32))[None, None]
    small = functional.interpolate(
        pixels, (height, width), mode="bilinear", antialias=True, align_corners=False
    )
    top, left = (size - height) // 2, (size - width) // 2
    padded = functional.pad(small, (left, size - width - left, top, size - height - top))
    return padded[0].clamp(0, 1)
