"""Volumes of which nothing is known, for a network that one has."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch

from xaitools.checks import check_choice, check_positive
from xaitools.data.folders import check_folder, find_files, stem
from xaitools.data.lazy import LazyTensor, cached, prepare
from xaitools.data.mni import likeness, warn_if_unregistered
from xaitools.data.naming import called
from xaitools.data.orientation import check_orientation
from xaitools.data.preparation import Settings, common_grid, placement, prepare_image
from xaitools.data.scans import NO_IMAGES, PARTICIPANT, Scan, names_of, of_scan
from xaitools.data.subjects import study_names
from xaitools.data.volume_set import Volumes
from xaitools.data.volumes import assumed_orientation, is_nifti
from xaitools.errors import DataFileError, ParameterError


def load_volumes(
    data_dir: str | Path,
    *,
    image: str = "**/*",
    space: str = "file",
    spacing: float | None = None,
    shape: Sequence[int] | None = None,
    intensity: tuple[float, float] | None = None,
    brain_mask: str = "none",
    orientation: str = "",
    cache_dir: str | Path | None = None,
    n_jobs: int = 1,
    progress: bool = True,
) -> Volumes:
    """Load all NIfTI volumes below a folder, without labels, to explain what a network says of them.

    Files whose name or folder ends in dseg, seg, mask or label are no images and are left out. Each volume is prepared
    as :func:`~xaitools.load_brains` prepares it.

    Parameters
    ----------
    data_dir : path
        The folder.
    image : str
        Pattern of the paths to take, below the folder, such as ``"**/*_T1w.nii.gz"``.
    space, spacing, shape, intensity, orientation, cache_dir, n_jobs, progress
        As for :func:`~xaitools.load_brains`.
    brain_mask : {"none", "mni"}
        Whether to set to 0 what is outside of nilearn's MNI brain mask.

    Returns
    -------
    Volumes
        Their `labels` are None, and `sources` tells which file each is; `names` are study ids. Files with one
        participant in their name (sub-...) share a subject.

    Raises
    ------
    DataFileError
        No folder, no NIfTI file in it, or a file that is truncated or damaged.
    DataError
        A volume in four dimensions, with NaN, constant, or with a header that does not say where its voxels lie.
    ShapeError
        Volumes on different grids, for ``space="file"``.
    ParameterError
        A parameter out of its range.
    """
    check_choice(space=(space, ("file", "mni", "centered")), brain_mask=(brain_mask, ("none", "mni")))
    check_orientation(orientation, in_mni="mni" in (space, brain_mask))
    if spacing is not None:
        check_positive(spacing=spacing)
    if brain_mask == "mni" and space == "centered":
        raise ParameterError("brain_mask='mni' with space='centered'; expected volumes in MNI space.")
    folder = Path(data_dir)
    check_folder(folder, "give the folder of the volumes")
    paths = [path for path in find_files(folder, is_nifti, image) if not _is_map(path, folder)]
    if not paths:
        raise DataFileError(
            f"{folder}: no NIfTI file (.nii, .nii.gz) that fits {image!r}; give the folder of some"
        )
    owners = [_owner(path) for path in paths]
    subjects, names = study_names(owners)
    scans = [Scan(path, owner, name=name) for path, owner, name in zip(paths, owners, names, strict=True)]
    with called(names_of(scans)):
        grid = common_grid(paths, space, spacing, shape, orientation)
    settings = Settings(grid, space, intensity, brain_mask, orientation)
    items = cached(
        cache_dir,
        "volumes",
        [settings.key(scan, "image") for scan in scans],
        [partial(of_scan, prepare_image, scan, settings) for scan in scans],
        partial(likeness, grid=settings.grid) if settings.in_mni else None,
    )
    prepare(items, n_jobs=n_jobs, progress=progress)
    if settings.in_mni:
        warn_if_unregistered([item.measured() for item in items], names)
    return Volumes(
        images=LazyTensor(items, settings.grid.shape, torch.float32),
        labels=None,
        subjects=subjects,
        names=names,
        affine=settings.grid.affine,
        sources=tuple(paths),
        placements=tuple(partial(of_scan, placement, scan, settings) for scan in scans),
        info={
            "source": "volumes without labels",
            "grid": f"{space}: {settings.grid}",
            **settings.words(),
            **assumed_orientation(paths, orientation),
        },
    )


def _owner(path: Path) -> str:
    named = PARTICIPANT.search(path.name)
    return named[1] if named else str(path)


def _is_map(path: Path, folder: Path) -> bool:
    return any(map(NO_IMAGES.search, [stem(path), *path.relative_to(folder).parts[:-1]]))
