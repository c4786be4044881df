"""Grids of voxels in space, and volumes brought onto them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from nibabel import orientations

from xaitools.errors import DataError, DataFileError, ParameterError, ShapeError

# The box of the grids that SPM and FSL use for MNI space: 181 x 217 x 181 voxels at 1 mm, 91 x 109 x 91 at 2 mm.
MNI_LENGTHS, MNI_CORNER = np.array([180.0, 216.0, 180.0]), np.array([-90.0, -126.0, -72.0])


@dataclass(frozen=True)
class Grid:
    """Where the voxels of a volume lie.

    Parameters
    ----------
    shape : tuple of int
        Voxels along x, y and z.
    affine : array of float64, (4, 4)
        From voxel indices to mm towards right, front and head.
    """

    shape: tuple[int, ...]
    affine: np.ndarray

    @property
    def spacing(self) -> np.ndarray:
        """Length of a voxel along each axis in mm."""
        return np.linalg.norm(self.affine[:3, :3], axis=0)

    def same_as(self, other: "Grid") -> bool:
        """Whether both have the same shape and lie within 1/100 mm of each other."""
        corners = np.array([[0, 0, 0, 1], [*(np.array(self.shape) - 1), 1]])
        distance = np.abs((self.affine - other.affine) @ corners.T).max()
        return self.shape == other.shape and bool(distance < 0.01)

    def respaced(self, spacing: float) -> "Grid":
        """The grid with cubic voxels that fills the same box, to the nearest voxel."""
        shape = np.maximum(np.rint(np.array(self.shape) * self.spacing / spacing), 1)
        zoom = np.diag([*(spacing / self.spacing), 1])
        zoom[:3, 3] = (np.array(self.shape) - 1) / 2 - np.diag(zoom)[:3] * (shape - 1) / 2
        return Grid(tuple(shape.astype(int).tolist()), self.affine @ zoom)

    def resized(self, shape: Sequence[int]) -> "Grid":
        """The grid cropped or extended on both sides to `shape`."""
        shift = np.eye(4)
        shift[:3, 3] = (np.array(self.shape) - shape) // 2
        return Grid(tuple(shape), self.affine @ shift)

    def __str__(self) -> str:
        shape, spacing = (
            " x ".join(f"{value:.4g}" for value in values) for values in (self.shape, self.spacing)
        )
        corner = ", ".join(f"{value:.4g}" for value in self.affine[:3, 3])
        return f"{shape} voxels of {spacing} mm from ({corner}) mm"


def mni_grid(spacing: float) -> Grid:
    """The usual grid of MNI space, symmetric about the plane between the hemispheres.

    181 x 217 x 181 voxels at 1 mm, 91 x 109 x 91 at 2 mm, 61 x 73 x 61 at 3 mm, 46 x 55 x 46 at 4 mm.
    """
    if not spacing > 0:
        raise ParameterError(f"spacing={spacing}: expected a positive number of mm")
    shape = (MNI_LENGTHS / spacing + 1e-6).astype(int) + 1
    affine = np.diag([spacing, spacing, spacing, 1.0])
    affine[:3, 3] = MNI_CORNER
    affine[0, 3] = -(shape[0] - 1) / 2 * spacing
    return Grid(tuple(shape.tolist()), affine)


def centered_grid(shape: Sequence[int], spacing: float) -> Grid:
    """A grid whose middle is 0 mm."""
    affine = np.diag([spacing, spacing, spacing, 1.0])
    affine[:3, 3] = -(np.array(shape) - 1) / 2 * spacing
    return Grid(tuple(shape), affine)


def read_grid(path: Path) -> Grid:
    """The grid of a NIfTI file with its axes turned towards right, front and head; reads the header alone.

    Raises
    ------
    DataFileError
        The file cannot be read.
    DataError
        Not one volume in three dimensions.
    """
    try:
        image: Any = nibabel.load(path)
        shape, affine = image.shape, np.asarray(image.affine, dtype=np.float64)
    except Exception as error:
        raise DataFileError(
            f"{path}: not a readable NIfTI file ({type(error).__name__}); fetch it again"
        ) from None
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) != 3 or min(shape) < 2:
        raise DataError(
            f"{path}: {' x '.join(map(str, shape))} voxels; expected one volume. Choose one of a series"
        )
    turn = orientations.io_orientation(affine)
    order = np.argsort(turn[:, 0])
    turned = tuple(int(shape[axis]) for axis in order)
    return Grid(turned, affine @ orientations.inv_ornt_aff(turn, shape))


def check_one_grid(paths: Sequence[Path]) -> Grid:
    """The grid that all files share.

    Raises
    ------
    ShapeError
        Names the first file, one on another grid, and both grids.
    """
    first = read_grid(paths[0])
    for path in paths[1:]:
        if not (grid := read_grid(path)).same_as(first):
            raise ShapeError(
                f"{paths[0]} has {first} and {path} has {grid}: expected one grid. Choose 'mni' for volumes that "
                "are in MNI space already, or 'centered' for heads as they came from the scanner (as grid= of "
                "load_brains, as space of the notebook)"
            )
    return first


def resample(voxels: np.ndarray, source: Grid, target: Grid, *, labels: bool = False) -> np.ndarray:
    """Bring a volume onto another grid; beyond the centres of the source's outermost voxels lies 0.

    Grey values are interpolated linearly, and smoothed before where the target is coarser: by a Gaussian of
    FWHM sqrt(target^2 - source^2) along each axis, so that the target's voxels average over what they cover.
    Labels take the nearest voxel's.

    Parameters
    ----------
    voxels : array, (x, y, z)
    source, target : Grid
    labels : bool
        Whether the values are labels.

    Returns
    -------
    array, shaped like the target
    """
    from nilearn.image import resample_img, smooth_img
    from nilearn.image.resampling import BoundingBoxError

    if source.same_as(target):
        return voxels
    image = nibabel.Nifti1Image(voxels.astype(np.int32 if labels else np.float32), source.affine)
    fwhm = np.sqrt(np.maximum(target.spacing**2 - source.spacing**2, 0))
    if not labels and (fwhm > 0.01).any():
        image = smooth_img(image, fwhm.tolist())
    try:
        moved: Any = resample_img(
            image,
            target_affine=target.affine,
            target_shape=target.shape,
            interpolation="nearest" if labels else "linear",
            force_resample=True,
            copy_header=True,
        )
    except BoundingBoxError:  # the two do not overlap
        return np.zeros(target.shape, dtype=image.get_data_dtype())
    return np.asarray(moved.dataobj)
