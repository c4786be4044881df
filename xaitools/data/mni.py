"""Whether volumes are in MNI space: do they have signal where its brain is, and do they look like its tissues?"""

import logging
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from xaitools.data.grids import Grid
from xaitools.data.resampling import resample
from xaitools.errors import DataFileError

logger = logging.getLogger(__name__)

BLOCK = 6.0
SIGNAL, LEAST_SHARE = 0.1, 0.5
# Real T1-weighted heads (IXI) have 0.59 to 0.71 after an affine registration and at most 0.42 as they came from the
# scanner; synthetic brains 0.88, one moved by 20 mm less than 0.4.
LEAST_LIKENESS, FEWEST_BLOCKS = 0.45, 100


def check_signal(voxels: np.ndarray, grid: Grid, path: Path | str) -> None:
    """Raise unless a volume has signal in at least half of MNI space's brain, or of what the grid shows of it.

    The volume is averaged over cubes of up to 6 mm; signal is what is brighter than a tenth of the 99th percentile of
    those above 0. Brain is nilearn's MNI152 brain mask.

    Parameters
    ----------
    voxels : array, (x, y, z)
    grid : Grid
    path : Path or str
        The volume's file, for the message.

    Raises
    ------
    DataFileError
        Less than half.
    """
    blocks, brain, _ = _beside_the_template(voxels, grid)
    if not brain.any():
        return
    above = blocks[blocks > 0]
    share = (blocks > SIGNAL * np.percentile(above, 99))[brain].mean() if above.size else 0.0
    if share < LEAST_SHARE:
        raise outside_of_mni(path, f"signal in {share:.0%} of the brain of MNI space; expected at least half")


def outside_of_mni(path: Path | str, found: str) -> DataFileError:
    """The error for a volume that is not where MNI space has its brain."""
    return DataFileError(
        f"{path}: {found}. The volume is not in MNI space, or displaced: register it, or use space='centered' "
        "for heads as they came from the scanner"
    )


def likeness(voxels: np.ndarray, grid: Grid) -> float:
    """How well a volume is a mixture of the MNI152 template's grey and white matter, within its brain, 0 to 1.

    The multiple correlation of the volume, averaged over cubes of up to 6 mm, with the two tissue maps of nilearn's
    template, so that any contrast will do. NaN where the grid shows fewer than 100 cubes of the brain.
    """
    blocks, brain, tissues = _beside_the_template(voxels, grid)
    if brain.sum() < FEWEST_BLOCKS:
        return float("nan")
    values, tissues = (
        array - array.mean(axis=0) for array in (blocks[brain].astype(np.float64), tissues[brain])
    )
    fitted = tissues @ np.linalg.lstsq(tissues, values, rcond=None)[0]
    total = values @ values
    return float(np.sqrt(np.clip(fitted @ fitted / total, 0, 1))) if total > 0 else 0.0


def warn_if_unregistered(likenesses: Sequence[float], names: Sequence[str]) -> None:
    """Log one warning if more than a tenth of the volumes do not look like brains in MNI space.

    Parameters
    ----------
    likenesses : sequence of float, n
        That of each volume, see :func:`likeness`.
    names : sequence of str, n
        Their study ids.
    """
    strange = [name for name, value in zip(names, likenesses, strict=True) if value < LEAST_LIKENESS]
    if len(strange) <= len(names) // 10:
        return
    shown = ", ".join(strange[:3]) + (", ..." if len(strange) > 3 else "")
    logger.warning(
        "%d of %d volumes (%s) do not look like brains in MNI space: their likeness to its template is below %g. Are "
        "they registered? Voxels and regions of such volumes do not correspond; register them, or use space='centered' "
        "for heads as they came from the scanner",
        len(strange),
        len(names),
        shown,
        LEAST_LIKENESS,
    )


def _beside_the_template(voxels: np.ndarray, grid: Grid) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Means over cubes of a volume, and for each cube whether it is brain and its grey and white matter."""
    step = max(1, min(int(BLOCK / grid.spacing.max()), *grid.shape))
    shape = tuple(length // step for length in grid.shape)
    x, y, z = (length * step for length in shape)
    cubes = voxels[:x, :y, :z].reshape([size for length in shape for size in (length, step)])
    corner = np.diag([step, step, step, 1.0])
    corner[:3, 3] = (step - 1) / 2
    brain, tissues = _template(shape, tuple((grid.affine @ corner).flatten().tolist()))
    return cubes.mean(axis=(1, 3, 5)), brain, tissues


@lru_cache(maxsize=4)
def _template(shape: tuple[int, ...], affine: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Brain, bool (x, y, z), and grey and white matter, (x, y, z, 2), of the MNI152 template on a grid."""
    from nilearn.datasets import load_mni152_brain_mask, load_mni152_gm_template, load_mni152_wm_template

    grid = Grid(shape, np.reshape(affine, (4, 4)))
    brain, grey, white = (
        resample(np.asarray(image.dataobj, dtype=np.float32), Grid(image.shape, image.affine), grid)
        for image in (
            load(resolution=1)
            for load in (load_mni152_brain_mask, load_mni152_gm_template, load_mni152_wm_template)
        )
    )
    return brain > 0.5, np.stack([grey, white], axis=-1).astype(np.float64)
