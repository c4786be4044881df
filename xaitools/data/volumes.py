"""The one reader of volumes, NIfTI and MetaImage files, as they are stored or turned."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from nibabel import orientations
from nibabel.openers import ImageOpener

from xaitools.data.grids import Grid
from xaitools.data.meta_image import read_meta_image
from xaitools.data.orientation import MATRICES, REMEDY, centered_affine, is_stated, nifti_affine
from xaitools.data.sizes import check_size
from xaitools.errors import DataError, DataFileError, ShapeError, XaitoolsError

NIFTI, META_IMAGE = (".nii", ".nii.gz"), (".mhd", ".mha")
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
KINDS = (nibabel.Nifti1Image, nibabel.Nifti2Image)
LONGEST_HEADER = 544
FARTHEST = 2**26  # bytes before the voxels; extensions hold some MB at most


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


def read_volume(path: Path, orientation: str = "") -> Volume:
    """Read a NIfTI or MetaImage file as it is stored, float32, its scale factors applied; a single slice has z = 1.

    Parameters
    ----------
    path : Path
    orientation : str
        For a file whose header does not say where its voxels lie, see :func:`~xaitools.data.orientation.nifti_affine`.

    Raises
    ------
    DataFileError
        Missing, truncated or damaged: for ``.mhd`` also a ``.raw`` file that is missing or too short.
    DataError
        More than three dimensions, several values a voxel, or a header that does not say where its voxels lie.
    """
    with _readable(path):
        if not is_nifti(path):
            return _read_meta_image(path, orientation)
        image = load_nifti(path)
        grid = _grid(image, path, orientation)
        return Volume(image.get_fdata(dtype=np.float32).reshape(grid.shape), grid)


def read_label_map(source: Path | nibabel.Nifti1Image, orientation: str = "") -> Volume:
    """Read whole numbers from a NIfTI file, or an image in memory, as they are stored, int64.

    Raises
    ------
    DataFileError
        Missing, truncated or damaged.
    DataError
        More than three dimensions, numbers that are not whole or that the file cannot hold exactly, scale factors that
        are not whole, or a header that does not say where its voxels lie.
    """
    place = source if isinstance(source, Path) else "the label volume"
    with _readable(place):
        image: Any = load_nifti(source) if isinstance(source, Path) else source
        grid = _grid(image, place, orientation)
        return Volume(_whole_numbers(image.dataobj, place).reshape(grid.shape), grid)


def read_grid(path: Path, orientation: str = "") -> Grid:
    """The grid of a NIfTI file as it is stored; reads the header alone.

    Raises
    ------
    DataFileError
        Missing, or not a NIfTI file.
    DataError
        Not one volume of two voxels or more along each of three axes, or a header that does not say where they lie.
    """
    with _readable(path):
        grid = _grid(load_nifti(path), path, orientation)
    if min(grid.shape) < 2:
        raise DataError(f"{path}: {_times(grid.shape)} voxels; expected one volume in three dimensions")
    return grid


def check_one_grid(paths: Sequence[Path], orientation: str = "") -> Grid:
    """The grid that all NIfTI files share, turned towards right, front and head.

    Raises
    ------
    ShapeError
        Names the first file, one on another grid, and both grids.
    """
    first = read_grid(paths[0], orientation).turned()
    for path in paths[1:]:
        if not (grid := read_grid(path, orientation).turned()).same_as(first):
            raise ShapeError(
                f"{paths[0]} has {first} and {path} has {grid}; expected one grid. Give space='mni' for volumes that "
                "are in MNI space already, or space='centered' for heads as they came from the scanner"
            )
    return first


def space_code(path: Path) -> int:
    """In whose coordinates a NIfTI file says it is.

    0: unknown, 1: a scanner, 2: another file, 3: Talairach, 4: MNI152, 5: another template.
    """
    header = load_nifti(path).header
    return int(header["sform_code"]) or int(header["qform_code"])


def assumed_orientation(paths: Sequence[Path], orientation: str) -> dict[str, Any]:
    """What a stated orientation decided, for `info`: for how many NIfTI files, whose headers do not say it."""
    if not orientation:
        return {}
    headers: list[Any] = [load_nifti(path).header for path in paths if is_nifti(path)]
    unknown = sum(not is_stated(header, (*header.get_data_shape(), 1, 1)[:3]) for header in headers)
    return {"stated_orientation": orientation, "volumes_with_stated_orientation": unknown}


def load_nifti(path: Path) -> Any:
    """A NIfTI image, its voxels not yet read, whose header asks for no more memory than its file may need.

    Raises
    ------
    DataFileError
        More voxels than the file can hold, or than are read.
    ValueError, OSError
        No NIfTI file, or a damaged header.
    """
    packed = path.name.lower().endswith(".gz")
    with ImageOpener(str(path)) as file:
        block = file.read(LONGEST_HEADER)
        kind = next(kind for kind in KINDS if kind.header_class.may_contain_header(block))
        header = kind.header_class(block[: kind.header_class.sizeof_hdr], check=False)
        first = int(header["vox_offset"])
        if not 0 <= first <= FARTHEST:
            raise ValueError("voxels at an impossible place")
        place = header.sizeof_hdr + 4
        if any(block[place - 4 : place]):
            _check_extensions(file, place, first, header.endianness)
    check_size(
        path,
        header.get_data_shape() or (1,),
        header.get_data_dtype().itemsize,
        path.stat().st_size,
        packed=packed,
    )
    return kind.from_filename(path)


def _check_extensions(file: Any, place: int, end: int, order: str) -> None:
    """Raise ValueError unless what follows a header ends where the voxels begin; nibabel reads on until it does."""
    while end - place >= 16 or end < place:
        file.seek(place)
        length = int(np.frombuffer(file.read(4), f"{order}i4")[0])
        place += length
        if length < 16 or place > end:
            raise ValueError("an extension of the header of an impossible length")


@contextmanager
def _readable(path: Path | str) -> Iterator[None]:
    if isinstance(path, Path) and not path.is_file():
        raise DataFileError(f"{path}: no such file; check the folder and the table")
    try:
        yield
    except ShapeError as error:
        raise DataFileError(f"{path}: {error} Correct its header") from None
    except XaitoolsError:
        raise
    except Exception as error:
        raise DataFileError(
            f"{path}: the file, or the .raw file it names, is missing, truncated, damaged or of another form "
            f"({type(error).__name__}); fetch it again"
        ) from None


def _grid(image: Any, path: Path | str, orientation: str) -> Grid:
    """The grid of a NIfTI image without the axes of one voxel after the third, a slice as one of three axes."""
    shape = (*image.shape, 1, 1)[:3]
    if np.prod(shape) != np.prod(image.shape):
        raise DataError(
            f"{path}: {_times(image.shape)} voxels, {len(image.shape)} dimensions; expected one volume. Choose one of "
            "the series, or of a probabilistic atlas the maximum-probability version"
        )
    return Grid(shape, nifti_affine(image.header, shape, path, orientation))


def _whole_numbers(data: Any, place: Path | str) -> np.ndarray:
    """Labels, int64, from the data of a NIfTI image: no float lies between, in which large labels would merge."""
    slope, inter = getattr(data, "slope", 1.0), getattr(data, "inter", 0.0)
    stored = data.get_unscaled() if hasattr(data, "get_unscaled") else np.asarray(data)
    if not (float(slope).is_integer() and float(inter).is_integer()):
        raise DataError(
            f"{place}: scale factors {slope:g} and {inter:g}; expected labels, which are not scaled. Save them as "
            "whole numbers"
        )
    if stored.dtype.kind == "f":
        stored = np.nan_to_num(stored, nan=0.5)
        exact = 2.0 ** min(np.finfo(stored.dtype).nmant + 1, 62)
    else:
        exact = 2.0**62
    if stored.dtype.kind not in "biuf" or not np.array_equal(stored, np.round(stored)):
        raise DataError(f"{place}: values that are not whole numbers; expected labels, not intensities")
    if stored.size and max(abs(float(stored.min())), abs(float(stored.max()))) >= exact:
        raise DataError(
            f"{place}: labels of {exact:.0f} or more as {stored.dtype}, which cannot tell neighbours apart; expected "
            "whole numbers. Save the labels as int32 or int64"
        )
    return stored.astype(np.int64) * int(slope) + int(inter)


def _read_meta_image(path: Path, orientation: str) -> Volume:
    image = read_meta_image(path)
    voxels = image.voxels.astype(np.float32)
    if image.direction is not None:
        affine = np.eye(4)
        affine[:3, :3] = image.direction * image.spacing
        affine[:3, 3] = image.origin
        return Volume(voxels, Grid(voxels.shape, LPS_TO_RAS @ affine))
    if orientation in ("", *MATRICES):
        raise DataError(
            f"{path}: no TransformMatrix, so that left and right are unknown; expected one in its header. {REMEDY}"
        )
    return Volume(voxels, Grid(voxels.shape, centered_affine(image.spacing, voxels.shape, orientation)))


def _times(lengths: Sequence[int]) -> str:
    return " x ".join(map(str, lengths))
