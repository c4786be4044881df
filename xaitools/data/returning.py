"""Maps brought back to the grid of the file that their image came from."""

from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import torch
from torch.nn import functional

from xaitools.data.dicom import anonymous_errors, is_dicom, open_dicom, read_dicom
from xaitools.data.grids import Grid
from xaitools.data.pictures import read_picture
from xaitools.data.resampling import resample
from xaitools.data.samples import Samples
from xaitools.data.slices import slice_of_volume
from xaitools.data.unlabelled_pictures import read_values
from xaitools.data.volume_set import Volumes
from xaitools.data.volumes import LPS_TO_RAS, Volume, is_nifti, is_volume, load_nifti, read_volume
from xaitools.errors import DataError


@dataclass(frozen=True)
class Returned:
    """A map on the pixels of its source.

    Parameters
    ----------
    values : array of float32, (x, y, z), or (row, column) of a picture or DICOM slice
    grid : Grid, optional
        As the source stores it, (column, row, 1) for a DICOM slice; None for a picture, which lies nowhere.
    code : int
        NIfTI's code for the space of that grid.
    """

    values: np.ndarray
    grid: Grid | None
    code: int = 2


def to_source(values: np.ndarray, samples: Samples, position: int) -> Returned:
    """Bring the map of one sample, (*spatial), back: linearly resampled, 0 where its image showed none of it.

    Raises
    ------
    DataError
        The samples do not know their files, as synthetic ones.
    DataFileError
        The file is not there any more.
    """
    if not samples.sources or (isinstance(samples, Volumes) and not samples.placements):
        raise DataError(
            "these samples do not know the files that they came from; expected samples of a loader. Save maps with "
            "save_map and an affine of your own"
        )
    path = samples.sources[position]
    if isinstance(samples, Volumes):
        stored, placed = samples.placements[position]()
        back = resample(values, samples.grid, placed)
        return Returned(_as_stored(back, stored.turned(), stored), stored, _code(path))
    if "slice_fraction" not in samples.info:
        shape, spacing = _picture(path)
        return Returned(_resized(values, shape, spacing if "channels" in samples.info else None), None)
    if is_volume(path):
        orientation = str(samples.info.get("stated_orientation", ""))
        return _on_volume(values, path, float(samples.info["slice_fraction"]), orientation)
    ct_slice = read_dicom(path)
    shown = _resized(values, ct_slice.hu.shape, ct_slice.spacing)
    with anonymous_errors(path):
        header = open_dicom(path, stop_before_pixels=True)
        shape = (int(header.Rows), int(header.Columns))
        grid = _dicom_grid(header, shape)
    places = ct_slice.display(np.arange(shape[0] * shape[1]).reshape(shape))
    stored_values = np.zeros(shape, dtype=np.float32)
    stored_values.flat[places.ravel()] = shown.ravel()
    return Returned(stored_values, grid, 1)


def _on_volume(values: np.ndarray, path: Path, fraction: float, orientation: str) -> Returned:
    """The map of one slice within the volume that it was taken of."""
    volume = read_volume(path, orientation)
    grid = volume.grid.turned("LPS")
    ct_slice = slice_of_volume(volume, fraction, path)
    whole = np.zeros(grid.shape, dtype=np.float32)
    k = round(fraction * (grid.shape[2] - 1))
    whole[:, :, k] = _resized(values, ct_slice.hu.shape, ct_slice.spacing).T
    return Returned(_as_stored(whole, grid, volume.grid), volume.grid, _code(path))


def _as_stored(values: np.ndarray, grid: Grid, stored: Grid) -> np.ndarray:
    axes = "".join(nibabel.aff2axcodes(stored.affine))
    return Volume(values, grid).turned(axes).voxels.astype(np.float32)


def _resized(values: np.ndarray, shape: tuple[int, ...], spacing: tuple[float, float] | None) -> np.ndarray:
    """Undo :func:`xaitools.data.slices.resize`, or without `spacing` a resizing to a square without proportions."""
    size = values.shape[0]
    pixels = torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))[None, None]
    if spacing is not None:
        lengths = np.multiply(shape, spacing)
        height, width = np.maximum(np.rint(lengths * size / lengths.max()), 1).astype(int).tolist()
        top, left = (size - height) // 2, (size - width) // 2
        pixels = pixels[:, :, top : top + height, left : left + width]
    return functional.interpolate(pixels, tuple(shape), mode="bilinear", antialias=True, align_corners=False)[
        0, 0
    ].numpy()


def _picture(path: Path) -> tuple[tuple[int, int], tuple[float, float]]:
    if is_dicom(path):
        values, spacing = read_values(path)
        return (values.shape[0], values.shape[1]), spacing
    width, height = read_picture(path).size
    return (height, width), (1.0, 1.0)


def _dicom_grid(header: pydicom.Dataset, shape: tuple[int, int]) -> Grid:
    axes = np.array(header.ImageOrientationPatient, dtype=float).reshape(2, 3)
    row_spacing, column_spacing = (float(value) for value in header.PixelSpacing)
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = axes[0] * column_spacing, axes[1] * row_spacing
    affine[:3, 2] = np.cross(*axes) * float(header.get("SliceThickness") or 1)
    affine[:3, 3] = np.array(header.get("ImagePositionPatient") or (0, 0, 0), dtype=float)
    return Grid((shape[1], shape[0], 1), LPS_TO_RAS @ affine)


def _code(path: Path) -> int:
    if not is_nifti(path):
        return 1
    header = load_nifti(path).header
    return int(header["sform_code"]) or int(header["qform_code"]) or 2


def is_dicom_slice(samples: Samples, position: int) -> bool:
    """Whether a sample is a slice of a DICOM file."""
    return "slice_fraction" in samples.info and is_dicom(samples.sources[position])
