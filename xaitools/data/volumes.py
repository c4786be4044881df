"""The one reader of volumes, NIfTI and MetaImage files, as they are stored or turned."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import SimpleITK
from nibabel import orientations

from xaitools.data.grids import Grid
from xaitools.errors import DataError, DataFileError, ShapeError

NIFTI, META_IMAGE = (".nii", ".nii.gz"), (".mhd", ".mha")
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True)
class Volume:
    """Voxels, and the grid that tells which way their axes run.

    Parameters
    ----------
    voxels : array, (x, y, z)
    grid : Grid
    """

    voxels: np.ndarray
    grid: Grid

    def turned(self, axes: str = "RAS") -> "Volume":
        """The same voxels in space with axes that run as `axes` say, see :meth:`Grid.turn_to`."""
        voxels = orientations.apply_orientation(self.voxels, self.grid.turn_to(axes))
        return Volume(np.ascontiguousarray(voxels), self.grid.turned(axes))


def is_nifti(path: Path) -> bool:
    """Whether the name is one of a NIfTI file."""
    return path.name.lower().endswith(NIFTI)


def is_volume(path: Path) -> bool:
    """Whether the name is one of a NIfTI or MetaImage file."""
    return path.name.lower().endswith(NIFTI + META_IMAGE)


def read_volume(path: Path) -> Volume:
    """Read a NIfTI or MetaImage file as it is stored, float32, its scale factors applied; a single slice has z = 1.

    Raises
    ------
    DataFileError
        Missing, truncated or damaged: for ``.mhd`` also a ``.raw`` file that is missing or too short.
    DataError
        More than three dimensions, or several values a voxel.
    """
    with _readable(path):
        if not is_nifti(path):
            return _read_meta_image(path)
        image: Any = nibabel.load(path)
        grid = _grid(image, path)
        return Volume(image.get_fdata(dtype=np.float32).reshape(grid.shape), grid)


def read_label_map(source: Path | nibabel.Nifti1Image) -> Volume:
    """Read whole numbers from a NIfTI file, or an image in memory, as they are stored, int32.

    Raises
    ------
    DataFileError
        Missing, truncated or damaged.
    DataError
        More than three dimensions, or numbers that are not whole.
    """
    place = source if isinstance(source, Path) else "the label volume"
    with _readable(place):
        image: Any = nibabel.load(source) if isinstance(source, Path) else source
        grid = _grid(image, place)
        values = np.asarray(image.dataobj).reshape(grid.shape)
    labels = np.nan_to_num(values, nan=0.5).round().astype(np.int32)
    if not np.array_equal(labels, values):
        raise DataError(f"{place}: values that are not whole numbers; expected labels, not intensities")
    return Volume(labels, grid)


def read_grid(path: Path) -> Grid:
    """The grid of a NIfTI file as it is stored; reads the header alone.

    Raises
    ------
    DataFileError
        Missing, or not a NIfTI file.
    DataError
        Not one volume of two voxels or more along each of three axes.
    """
    with _readable(path):
        grid = _grid(nibabel.load(path), path)
    if min(grid.shape) < 2:
        raise DataError(f"{path}: {_times(grid.shape)} voxels; expected one volume in three dimensions")
    return grid


def check_one_grid(paths: Sequence[Path]) -> Grid:
    """The grid that all NIfTI files share, turned towards right, front and head.

    Raises
    ------
    ShapeError
        Names the first file, one on another grid, and both grids.
    """
    first = read_grid(paths[0]).turned()
    for path in paths[1:]:
        if not (grid := read_grid(path).turned()).same_as(first):
            raise ShapeError(
                f"{paths[0]} has {first} and {path} has {grid}; expected one grid. Give space='mni' for volumes that "
                "are in MNI space already, or space='centered' for heads as they came from the scanner"
            )
    return first


@contextmanager
def _readable(path: Path | str) -> Iterator[None]:
    if isinstance(path, Path) and not path.is_file():
        raise DataFileError(f"{path}: no such file; check the folder and the table")
    try:
        yield
    except DataError:
        raise
    except ShapeError as error:
        raise DataFileError(f"{path}: {error} Correct its header") from None
    except Exception as error:
        raise DataFileError(
            f"{path}: the file, or the .raw file it names, is missing, truncated, damaged or of another form "
            f"({type(error).__name__}); fetch it again"
        ) from None


def _grid(image: Any, path: Path | str) -> Grid:
    """The grid of a NIfTI image without the axes of one voxel after the third, a slice as one of three axes."""
    shape = (*image.shape, 1, 1)[:3]
    if np.prod(shape) != np.prod(image.shape):
        raise DataError(
            f"{path}: {_times(image.shape)} voxels, {len(image.shape)} dimensions; expected one volume. Choose one of "
            "the series, or of a probabilistic atlas the maximum-probability version"
        )
    return Grid(shape, image.affine)


def _read_meta_image(path: Path) -> Volume:
    image = SimpleITK.ReadImage(str(path))
    if image.GetDimension() == 2:
        image = SimpleITK.JoinSeries(image)
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        raise DataError(f"{path}: expected one value a voxel in two or three dimensions")
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    voxels = SimpleITK.GetArrayFromImage(image).T.astype(np.float32)
    return Volume(voxels, Grid(voxels.shape, LPS_TO_RAS @ affine))


def _times(lengths: Sequence[int]) -> str:
    return " x ".join(map(str, lengths))
