"""Grids of voxels in space, and which way their axes run; loads no torch, as the viewer must not."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from nibabel import orientations

from xaitools.errors import ParameterError, ShapeError

# The box of the grids that SPM and FSL use for MNI space: 181 x 217 x 181 voxels at 1 mm, 91 x 109 x 91 at 2 mm.
MNI_LENGTHS, MNI_CORNER = np.array([180.0, 216.0, 180.0]), np.array([-90.0, -126.0, -72.0])
TOLERANCE = 0.01


@dataclass(frozen=True)
class Grid:
    """Where the voxels of a volume lie.

    Parameters
    ----------
    shape : tuple of int
        Voxels along x, y and z.
    affine : array of float64, (4, 4)
        From voxel indices to mm towards right, front and head, as in NIfTI.

    Raises
    ------
    ShapeError
        Not three axes, or an affine that is not an invertible 4 x 4 matrix.
    """

    shape: tuple[int, ...]
    affine: np.ndarray

    def __post_init__(self) -> None:
        affine = np.asarray(self.affine, dtype=np.float64)
        if len(self.shape) != 3:
            raise ShapeError(f"grid of shape {tuple(self.shape)}; expected three axes, (x, y, z).")
        if affine.shape != (4, 4) or not np.isfinite(affine).all() or np.linalg.det(affine) == 0:
            raise ShapeError(f"affine {affine.tolist()}; expected an invertible 4 x 4 matrix, in mm.")
        if np.isnan(orientations.io_orientation(affine)).any():
            raise ShapeError(f"affine {affine.tolist()}; expected axes that run apart, in mm.")
        object.__setattr__(self, "shape", tuple(self.shape))
        object.__setattr__(self, "affine", affine)

    @property
    def spacing(self) -> np.ndarray:
        """Length of a voxel along each axis in mm."""
        return np.linalg.norm(self.affine[:3, :3], axis=0)

    def same_as(self, other: "Grid") -> bool:
        """Whether both have the same shape, and all corners within `TOLERANCE`, 1/100 mm, of each other.

        Distances of corners say what differences of affines do not: how far apart voxels are. The float32 of a NIfTI
        header moves the far corner of a head by less than 1/1000 mm, and voxels are larger than 1/10 mm.
        """
        if self.shape != other.shape:
            return False
        corners = np.stack(np.meshgrid(*([0, n - 1] for n in self.shape), [1], indexing="ij")).reshape(4, -1)
        return bool(np.abs((self.affine - other.affine) @ corners).max() < TOLERANCE)

    def turn_to(self, axes: str) -> np.ndarray:
        """How to turn an array on this grid so that its axes run as `axes` say, as nibabel describes it, (3, 2).

        Parameters
        ----------
        axes : str
            ``"RAS"``: towards right, front (anterior) and head (superior); ``"LPS"``: left, back (posterior) and head.
        """
        return orientations.ornt_transform(
            orientations.io_orientation(self.affine), orientations.axcodes2ornt(axes)
        )

    def turned(self, axes: str = "RAS") -> "Grid":
        """The same voxels with axes that run as `axes` say, see :meth:`turn_to`."""
        turn = self.turn_to(axes)
        order = np.argsort(turn[:, 0])
        affine = self.affine @ orientations.inv_ornt_aff(turn, self.shape)
        return Grid(tuple(int(self.shape[axis]) for axis in order), affine)

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

    def moved(self, place: np.ndarray) -> "Grid":
        """The grid moved so that a place among its voxels, (3,), lies at 0 mm."""
        affine = self.affine.copy()
        affine[:3, 3] = -affine[:3, :3] @ place
        return Grid(self.shape, affine)

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
        raise ParameterError(f"spacing={spacing!r}; expected a number above 0.")
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
