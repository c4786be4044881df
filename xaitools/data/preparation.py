"""From a NIfTI file to a volume that a network takes: orientation, intensity, mask, grid."""

import logging
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from scipy import ndimage

from xaitools.data.grids import Grid, centered_grid, mni_grid
from xaitools.data.lazy import STEPS, file_key
from xaitools.data.mni import check_signal, outside_of_mni
from xaitools.data.resampling import resample
from xaitools.data.scans import Scan
from xaitools.data.volumes import Volume, check_one_grid, read_grid, read_label_map, read_volume
from xaitools.errors import DataError, ShapeError

logger = logging.getLogger(__name__)

VERSION = 3
MOST_VOXELS = 2**28
FAR = 10.0  # heads with the brightest vessels reach 1 to 3


@dataclass(frozen=True)
class Settings:
    """What happens to each volume.

    Parameters
    ----------
    grid : Grid
        The grid of the result.
    space : str
        ``"file"``, ``"mni"``, or ``"centered"``: each head is moved so that its middle is the grid's 0 mm.
    intensity : (low, high), optional
        What becomes 0 and 1; by default percentiles of each volume.
    brain_mask : str
        ``"none"``, ``"dseg"`` (the label map), ``"mni"`` or ``"files"``.
    orientation : str
        For files whose header does not say where its voxels lie.
    """

    grid: Grid
    space: str
    intensity: tuple[float, float] | None
    brain_mask: str
    orientation: str = ""

    @property
    def in_mni(self) -> bool:
        """Whether the volumes should be in MNI space."""
        return "mni" in (self.space, self.brain_mask)

    def words(self) -> dict[str, Any]:
        """What was done to the volumes, as JSON can hold it."""
        return {
            "orientation": "RAS",
            "intensity": list(self.intensity)
            if self.intensity
            else "1st and 99.5th percentile of each volume",
            "brain_mask": self.brain_mask,
        }

    def key(self, scan: Scan, what: str) -> dict[str, Any]:
        """All that the result depends on."""
        return {
            "version": VERSION,
            "what": what,
            "shape": self.grid.shape,
            "affine": np.round(self.grid.affine, 5).tolist(),
            "space": self.space,
            "intensity": self.intensity,
            "brain_mask": self.brain_mask,
            "orientation": self.orientation,
            "files": [file_key(path) for path in (scan.path, scan.label_map, scan.mask)],
        }


def common_grid(
    paths: Sequence[Path],
    space: str,
    spacing: float | None = None,
    shape: Sequence[int] | None = None,
    orientation: str = "",
) -> Grid:
    """The one grid onto which volumes are brought, see :func:`~xaitools.data.brain.load_brains`."""
    if space == "mni":
        common = mni_grid(spacing or 2)
    elif space == "file":
        common = check_one_grid(paths, orientation)
        common = common if spacing is None else common.respaced(spacing)
    else:
        first = read_grid(paths[0], orientation).turned()
        step = spacing or float(first.spacing.min())
        lengths = np.rint(np.array(first.shape) * first.spacing / step)
        common = centered_grid(lengths.astype(int).tolist(), step)
    common = common if shape is None else common.resized(shape)
    if math.prod(common.shape) > MOST_VOXELS:
        raise DataError(
            f"{paths[0]}: brought onto the common grid, {common}, it has more than {MOST_VOXELS} voxels; correct the "
            "lengths of voxels in its header, or give a larger spacing or a smaller shape"
        )
    return common


def prepare_image(scan: Scan, settings: Settings) -> np.ndarray:
    """The volume of a scan on the grid of the settings, float32 in [0, 1].

    Raises
    ------
    DataFileError
        A file is missing, truncated or damaged, or a volume that should be in MNI space is not.
    DataError
        NaN, a volume that is constant, before or after the preparation, an empty mask.
    ShapeError
        A mask or label map on another grid than the scan.
    """
    volume = _read(scan.path, settings)
    voxels, grid = volume.voxels, volume.grid
    if not np.isfinite(voxels).all():
        count = int((~np.isfinite(voxels)).sum())
        raise DataError(
            f"{scan.path}: {count} voxels are NaN or infinite; set them to 0, or leave the volume out"
        )
    mask = _brain(scan, settings, grid)
    voxels = _without_outliers(voxels, scan)
    scaled = _scale(voxels, mask, settings.intensity, scan.path)
    if mask is not None:
        scaled *= mask
    placed = _placed(scan, settings, grid, voxels, mask) if settings.space == "centered" else grid
    prepared = np.clip(resample(scaled, placed, settings.grid), 0, 1)
    if settings.in_mni:
        check_signal(prepared, settings.grid, scan.path)
    if np.ptp(prepared) < 1 / STEPS:
        raise DataError(
            f"{scan.path}: all its voxels are {prepared.max():.4g} after its preparation; leave it out, or check the "
            f"intensity ({settings.words()['intensity']}), the brain mask ({settings.brain_mask}) and the grid"
        )
    return prepared


def prepare_labels(scan: Scan, settings: Settings) -> np.ndarray:
    """The label map of a scan on the grid of its image, int64."""
    grid = read_grid(scan.path, settings.orientation).turned()
    labels = _labels(scan, settings, grid)
    placed = _placed(scan, settings, grid, labels, labels > 0) if settings.space == "centered" else grid
    return resample(labels, placed, settings.grid, labels=True)


def placement(scan: Scan, settings: Settings) -> tuple[Grid, Grid]:
    """The grid of a scan as it is stored, and turned where it lies in the space of the prepared volumes."""
    stored = read_grid(scan.path, settings.orientation)
    grid = stored.turned()
    if settings.space != "centered":
        return stored, grid
    voxels = _without_outliers(_read(scan.path, settings).voxels, scan)
    return stored, _placed(scan, settings, grid, voxels, _brain(scan, settings, grid))


def _read(path: Path, settings: Settings) -> Volume:
    read_grid(path, settings.orientation)
    return read_volume(path, settings.orientation).turned()


def _labels(scan: Scan, settings: Settings, grid: Grid) -> np.ndarray:
    """The label map of a scan whose image lies on `grid`."""
    assert scan.label_map is not None
    labels = read_label_map(scan.label_map, settings.orientation).turned()
    _check_same_grid(labels.grid, grid, scan, scan.label_map)
    if labels.voxels.min() < 0:
        raise DataError(f"{scan.label_map}: values below 0; expected a map of labels")
    return labels.voxels


def _drawn(scan: Scan, settings: Settings, grid: Grid) -> np.ndarray:
    """The mask from a file of a scan whose image lies on `grid`."""
    assert scan.mask is not None
    drawn = _read(scan.mask, settings)
    _check_same_grid(drawn.grid, grid, scan, scan.mask)
    return drawn.voxels > 0.5


def _check_same_grid(grid: Grid, expected: Grid, scan: Scan, path: Path) -> None:
    if not grid.same_as(expected):
        raise ShapeError(
            f"{path} has {grid} and its volume {scan.path} has {expected}; expected one grid. Resample the map"
        )


def _brain(scan: Scan, settings: Settings, grid: Grid) -> np.ndarray | None:
    if settings.brain_mask == "none":
        return None
    if settings.brain_mask == "dseg":
        mask = _labels(scan, settings, grid) > 0
    elif settings.brain_mask == "files":
        mask = _drawn(scan, settings, grid)
    else:
        mask = _mni_brain(grid)
    if not mask.any() and settings.brain_mask == "mni":
        raise outside_of_mni(scan.path, "none of its voxels is in the brain of MNI space")
    if not mask.any():
        raise DataError(f"{scan.path}: its brain mask is empty; expected some voxels inside")
    return mask


def _mni_brain(grid: Grid) -> np.ndarray:
    """nilearn's mask of MNI space's brain; its opening, of 2 voxels, would remove half of the brain at 6 mm."""
    from nilearn.image.resampling import BoundingBoxError
    from nilearn.masking import compute_brain_mask

    anything = nibabel.Nifti1Image(np.ones(grid.shape, dtype=np.float32), grid.affine)
    opening = min(2, int(4 / grid.spacing.max()))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*mask is empty")
        try:
            image: Any = compute_brain_mask(anything, opening=opening)
        except BoundingBoxError:  # the two do not overlap
            return np.zeros(grid.shape, dtype=bool)
    return np.asarray(image.dataobj) > 0


def _without_outliers(voxels: np.ndarray, scan: Scan) -> np.ndarray:
    """Voxels brought back to where the others end, if at most 1 in 1000 lies far from them, as a broken one does.

    Far is more than `FAR` times the range from the 0.1st to the 99.9th percentile beyond it: such a voxel would rule
    the mean, which tells tissue, and so black out the rest.
    """
    low = np.percentile(voxels, 0.1, method="higher")
    high = np.percentile(voxels, 99.9, method="lower")
    reach = FAR * (high - low)
    far = (voxels < low - reach) | (voxels > high + reach)
    if not (reach > 0 and far.any()):
        return voxels
    logger.warning(
        "%s: %d of %d voxels, up to %g, lie far beyond the others, which run from %g to %g, and become these ends",
        scan.name or scan.path,
        int(far.sum()),
        voxels.size,
        np.abs(voxels).max(),
        low,
        high,
    )
    return np.where(far, np.clip(voxels, low, high), voxels)


def _scale(
    voxels: np.ndarray, mask: np.ndarray | None, intensity: tuple[float, float] | None, path: Path
) -> np.ndarray:
    if intensity is None:
        tissue = voxels[voxels > voxels.mean() if mask is None else mask]
        low = np.percentile(voxels, 1)
        high = np.percentile(tissue, 99.5) if tissue.size else low
    else:
        low, high = intensity
    if not high > low or voxels.min() == voxels.max():
        raise DataError(
            f"{path}: values from {voxels.min():g} to {voxels.max():g} cannot be told apart; leave the volume out"
        )
    return np.clip((voxels - low) / (high - low), 0, 1).astype(np.float32)


def _placed(scan: Scan, settings: Settings, grid: Grid, voxels: np.ndarray, mask: np.ndarray | None) -> Grid:
    """The grid moved so that the brain, or without label map and mask the head, has its middle at 0 mm."""
    if scan.label_map is not None:
        inside = _labels(scan, settings, grid) > 0
    elif scan.mask is not None:
        inside = _drawn(scan, settings, grid)
    else:
        inside = voxels > voxels.mean() if mask is None else mask
    return grid.moved(np.array(ndimage.center_of_mass(inside)))
