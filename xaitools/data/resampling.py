"""The one resampler: volumes brought onto other grids."""

import warnings
from typing import Any

import nibabel
import numpy as np

from xaitools.data.grids import Grid


def resample(voxels: np.ndarray, source: Grid, target: Grid, *, labels: bool = False) -> np.ndarray:
    """Bring a volume onto another grid; beyond the centres of the source's outermost voxels lies 0.

    Grey values are interpolated linearly, and smoothed before where the target is coarser: by a Gaussian of
    FWHM sqrt(target^2 - source^2) along each axis, so that the target's voxels average over what they cover.
    Labels, whole numbers of any size, take the nearest voxel's.

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
    known = np.unique(voxels[voxels != 0]) if labels else np.empty(0)
    if labels:  # their ranks, that of 0 being 0, are resampled: small numbers, which no float merges
        voxels = np.where(voxels == 0, 0, np.searchsorted(known, voxels) + 1)
    image = nibabel.Nifti1Image(voxels.astype(np.int32 if labels else np.float32), source.affine)
    fwhm = np.sqrt(np.maximum(target.spacing**2 - source.spacing**2, 0))
    if not labels and (fwhm > 0.01).any():
        image = smooth_img(image, fwhm.tolist())
    try:
        with warnings.catch_warnings():  # grey values that are 0 and 1 alone are grey values all the same
            warnings.filterwarnings("ignore", "Resampling binary images", UserWarning)
            moved: Any = resample_img(
                image,
                target_affine=target.affine,
                target_shape=target.shape,
                interpolation="nearest" if labels else "linear",
                force_resample=True,
                copy_header=True,
            )
    except BoundingBoxError:  # the two do not overlap
        return np.zeros(target.shape, dtype=known.dtype if labels else np.float32)
    values = np.asarray(moved.dataobj)
    return np.append(known.dtype.type(0), known)[values] if labels else values
