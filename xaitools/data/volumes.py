"""NIfTI and MetaImage files in one orientation, and axial slices of them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import SimpleITK

from xaitools.data.slices import CtSlice
from xaitools.errors import DataError, DataFileError

NIFTI, META_IMAGE = (".nii", ".nii.gz"), (".mhd", ".mha")


@dataclass(frozen=True)
class Volume:
    """Voxels on a grid whose axes run towards the patient's left, back and head.

    Parameters
    ----------
    voxels : array of float32, (x, y, z)
    affine : array, (4, 4)
        From voxel indices to mm towards left, back and head.
    """

    voxels: np.ndarray
    affine: np.ndarray


def is_volume(path: Path) -> bool:
    """Whether the name is one of a NIfTI or MetaImage file."""
    return path.name.lower().endswith(NIFTI + META_IMAGE)


def stem(path: Path) -> str:
    """The file name without its suffix, ``.nii.gz`` being one suffix."""
    return path.name[:-7] if path.name.lower().endswith(".nii.gz") else path.stem


def read_volume(path: Path) -> Volume:
    """Read a NIfTI or MetaImage file, 2D or 3D, with its scale factors applied.

    Raises
    ------
    DataFileError
        Missing, truncated or damaged: for ``.mhd`` also a ``.raw`` file that is missing or too short.
    DataError
        More than three dimensions, or a single slice that is not axial.
    """
    if not path.is_file():
        raise DataFileError(f"{path}: no such file; check the folder and the label table")
    try:
        volume = _read_nifti(path) if path.name.lower().endswith(NIFTI) else _read_meta_image(path)
    except DataError:
        raise
    except Exception as error:
        raise DataFileError(
            f"{path}: the file, or the .raw file it names, is missing, truncated or damaged "
            f"({type(error).__name__}); fetch it again"
        ) from None
    if volume.voxels.shape[2] > 1 and 1 in volume.voxels.shape[:2]:
        raise DataError(
            f"{path}: a single slice that is not axial; expected one across the patient's long axis"
        )
    return volume


def axial_slice(volume: Volume, fraction: float) -> CtSlice:
    """The axial slice at a fraction of the height: 0 the lowest, 1 nearest to the head."""
    k = round(fraction * (volume.voxels.shape[2] - 1))
    spacing = np.linalg.norm(volume.affine[:3, :3], axis=0)
    return CtSlice(volume.voxels[:, :, k].T, (float(spacing[1]), float(spacing[0])), lambda array: array)


def _read_nifti(path: Path) -> Volume:
    image: Any = nibabel.load(path)
    voxels = image.get_fdata(dtype=np.float32)
    voxels = voxels.reshape(voxels.shape + (1,) * (3 - voxels.ndim))
    if voxels.ndim > 3 and set(voxels.shape[3:]) != {1}:
        raise DataError(f"{path}: {voxels.ndim} dimensions; expected two or three. Choose one volume of it")
    single = nibabel.Nifti1Image(voxels.reshape(voxels.shape[:3]), image.affine)
    canonical = nibabel.as_closest_canonical(single)
    to_left_and_back = np.diag([-1.0, -1.0, 1.0, 1.0])
    to_left_and_back[:2, 3] = np.array(canonical.shape[:2]) - 1
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ canonical.affine @ to_left_and_back
    return Volume(canonical.get_fdata(dtype=np.float32)[::-1, ::-1], affine)


def _read_meta_image(path: Path) -> Volume:
    image = SimpleITK.ReadImage(str(path))
    if image.GetDimension() == 2:
        image = SimpleITK.JoinSeries(image)
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        raise DataError(f"{path}: expected one value a voxel in two or three dimensions")
    image = SimpleITK.DICOMOrient(image, "LPS")
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return Volume(SimpleITK.GetArrayFromImage(image).T.astype(np.float32), affine)
