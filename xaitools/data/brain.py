"""Brain volumes with what a table says of their participants, from the folders in which they are published."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from xaitools.data.grids import Grid, centered_grid, check_one_grid, mni_grid, read_grid
from xaitools.data.lazy import CachedArray, LazyTensor, cache_path, prepare
from xaitools.data.mni import likeness, warn_if_unregistered
from xaitools.data.participants import MISSING, Classes, find_column, read_target
from xaitools.data.preparation import Scan, Settings, prepare_image, prepare_labels
from xaitools.data.samples import study_names
from xaitools.data.scans import add_maps, find_scans, pair, read_rows, recognise_layout
from xaitools.data.volume_set import Volumes
from xaitools.errors import DataError, DataFileError, ParameterError

GRIDS = ("file", "mni", "centered")
MASKS = ("none", "dseg", "mni")
OASIS_ID = re.compile(r"(OAS1_\d{4})_(MR\d)")
OWN_COLUMNS = ["participant", "session", "file", "required"]
PROBABILITY = re.compile(r"_probability\.nii|_probseg\.nii|^mwr?c[123]", re.IGNORECASE)
CONTROL_AND_DEMENTIA = {"control": "= 0", "dementia": "> 0"}


def load_brains(
    folder: str | Path,
    *,
    target: str,
    classes: Classes | None = None,
    unit: str = "",
    numbers: Sequence[str] = (),
    table: str | Path | None = None,
    id_column: str = "",
    session_column: str = "",
    image: str = "",
    label_maps: str | Path = "auto",
    grid: str = "file",
    spacing: float | None = None,
    shape: Sequence[int] | None = None,
    intensity: tuple[float, float] | None = None,
    brain_mask: str | Path = "none",
    skip_missing: bool = False,
    n_subjects: int | None = None,
    cache_dir: str | Path | None = None,
    n_jobs: int = 1,
    progress: bool = True,
) -> Volumes:
    """Load brain volumes with a target from their table of participants; the layout of the folder is recognised.

    - **CAPS**, as Clinica writes it: ``subjects/sub-X/ses-Y/t1_linear/*_T1w.nii.gz`` (cropped ones before whole
      ones) or modulated grey-matter maps of t1-volume, ``.../t1/spm/dartel/group-*/*_segm-graymatter_space-
      Ixi549Space_modulated-on_probability.nii.gz``.
    - **BIDS**: ``sub-X/[ses-Y/]anat/*_T1w.nii.gz``. In both, the table is ``participants.tsv``, to which
      ``sub-X/sub-X_sessions.tsv`` add what they know of a session, or `table`. Of a participant whose table
      has a row a session, the sessions without one are left out and counted in ``info``.
    - **A flat folder**, such as IXI: NIfTI files whose names (or folders) begin with a participant's id, below
      ``t1`` where there is such a folder, and a CSV or TSV file; its column of files, if any, decides.

    Each volume is prepared once and kept in the cache: its axes are turned towards right, front and head, its
    intensities scaled, its brain cut out, and it is resampled (see :func:`xaitools.data.grids.resample`). It is
    read again when it is indexed, so that memory does not grow with the number of subjects.

    Parameters
    ----------
    folder : path
    target : str
        Column of the table with what to predict.
    classes : mapping or sequence of str, optional
        Which values make which class: ``["CN", "AD"]``, ``{"control": "CN", "patient": ["AD", "MCI"]}`` or ranges,
        ``{"young": "< 40", "old": ">= 60"}``; other rows are left out. The last class is the positive one. By
        default a column of two different values is a classification, a usual name of controls (CN, healthy, 0)
        before that of patients (see :func:`xaitools.data.participants.ordered`), one of more numbers a regression.
    unit : str
        Unit of a regression's target.
    numbers : sequence of str
        More columns of numbers to keep, as ``Volumes.numbers``; NaN where one is missing.
    table : path, optional
        CSV or TSV file, or a BIDS folder whose tables to take.
    id_column, session_column : str, optional
        Columns of the table; where empty, usual names are tried (``participant_id``, ``session_id``, ...).
    image : str, optional
        Which volumes to take: ``"t1-linear"`` or ``"t1-volume"`` of a CAPS folder, or a pattern of paths below
        ``folder`` (below the session in a CAPS folder), such as ``"**/*_run-1_T1w.nii.gz"``.
    label_maps : path, "auto" or "none"
        Folder of label maps of brain structures, one a volume on its grid. By default the folder ``dseg`` of a
        flat folder, if there is one.
    grid : {"file", "mni", "centered"}
        The common grid. ``"file"``: all volumes are on one already. ``"mni"``: volumes in MNI space, which are
        resampled onto :func:`xaitools.data.grids.mni_grid`; whether they are in it is checked, see below.
        ``"centered"``: heads as they came from the scanner,
        each moved (not turned nor scaled) so that the centre of its brain, or without label map and mask that of
        the head, is the middle of the grid.
    spacing : float, optional
        Length of a voxel in mm. By default that of the files, or 2 for ``"mni"``.
    shape : three ints, optional
        Crop or extend the grid on both sides to so many voxels.
    intensity : (low, high), optional
        Values that become 0 and 1; what lies beyond is clipped. By default (0, 1) for tissue probabilities (by
        file name), else of each volume its 1st percentile and the 99.5th of the brain, or without mask of the
        voxels brighter than the mean.
    brain_mask : {"none", "dseg", "mni"} or path
        Set to 0 what is outside of the label map, of nilearn's MNI brain mask (only for volumes in MNI space), or
        of the masks in a folder, named as label maps are.
    skip_missing : bool
        Leave out participants without a volume and volumes without a row instead of raising.
    n_subjects : int, optional
        Take at most so many subjects, alternating between the classes, in the order of their ids.
    cache_dir : path, optional
        Where prepared volumes are kept, by default the variable XAITOOLS_CACHE or ``~/.cache/xaitools``.
    n_jobs : int
        Processes that prepare volumes.
    progress : bool
        Show a progress bar.

    Returns
    -------
    Volumes
        Sessions of one participant share their subject id. Participants are numbered in the sorted order of all
        that have the target and a volume, so that an id does not depend on `n_subjects`.

    Raises
    ------
    DataFileError
        A folder, table or file is missing, empty, truncated or damaged, a participant has no volume, or a volume
        that should be in MNI space (for its grid or brain mask) has signal in less than half of its brain.
    DataError
        A column is missing, one class only, a participant in two rows, a volume without a row, in four
        dimensions, with NaN or constant.
    ShapeError
        Volumes on different grids, for ``grid="file"``, or a map on another grid than its volume.
    ParameterError
        A parameter out of its range.

    Notes
    -----
    If more than a tenth of the volumes that should be in MNI space do not look like its template (see
    :func:`xaitools.data.mni.likeness`), a warning is logged: they are probably not registered.
    """
    _check_parameters(grid, spacing, shape, intensity, str(brain_mask), n_subjects)
    folder = Path(folder)
    layout = recognise_layout(folder)
    rows = read_rows(folder, layout, None if table is None else Path(table), id_column, session_column)
    scans = find_scans(folder, layout, image, rows)
    selection = _select(
        rows, scans, folder, target=target, classes=classes, skip_missing=skip_missing, n_subjects=n_subjects
    )
    scans = selection.scans
    if label_maps == "auto":
        label_maps = folder / "dseg" if layout == "flat" and (folder / "dseg").is_dir() else "none"
    if str(label_maps) != "none":
        scans = add_maps(scans, Path(label_maps), layout, rows, "label_map")
    elif brain_mask == "dseg":
        raise ParameterError(
            "brain_mask='dseg' without label maps; expected them in a flat folder's own folder 'dseg', or in the one "
            "that label_maps names"
        )
    if str(brain_mask) not in MASKS:
        scans = add_maps(scans, Path(brain_mask), layout, rows, "mask")
    settings = Settings(
        grid=_common_grid([scan.path for scan in scans], grid, spacing, shape),
        space=grid,
        intensity=_usual_intensity(scans) if intensity is None else intensity,
        brain_mask=str(brain_mask) if str(brain_mask) in MASKS else "files",
    )
    images, maps = _lazy(scans, settings, cache_dir, n_jobs, progress=progress)
    if settings.in_mni:
        warn_if_unregistered([item.measured() for item in images.items], selection.names)
    kept = {name: selection.numbers(name, table or folder) for name in numbers}
    info = {"source": f"brain volumes, {layout} folder", "target": target, "grid": f"{grid}: {settings.grid}"}
    return selection.volumes(images, maps, settings, unit=unit, numbers=kept, info=info)


def load_oasis(
    *,
    target: str = "cdr",
    classes: Classes | None = None,
    unit: str = "",
    data_dir: str | Path | None = None,
    dartel_version: bool = True,
    spacing: float | None = None,
    shape: Sequence[int] | None = None,
    intensity: tuple[float, float] = (0.0, 1.0),
    n_subjects: int | None = None,
    numbers: Sequence[str] = ("age",),
    cache_dir: str | Path | None = None,
    n_jobs: int = 1,
    progress: bool = True,
) -> Volumes:
    """Load the modulated grey-matter maps of OASIS-1, fetched by ``nilearn.datasets.fetch_oasis_vbm``.

    The first call downloads about 1 GB and means that you accept the data usage agreement of OASIS.

    Parameters
    ----------
    target : str
        Column of OASIS' table: ``"cdr"`` (clinical dementia rating), ``"age"``, ``"mf"``, ``"mmse"``, ...
    classes, unit : optional
        As for :func:`load_brains`. For ``"cdr"`` the default is ``{"control": "= 0", "dementia": "> 0"}``;
        participants without a rating, who are the younger ones, are left out.
    data_dir : path, optional
        Where nilearn keeps the data.
    dartel_version : bool
        Maps normalised with DARTEL instead of SPM8's standard.
    spacing, shape, intensity, n_subjects, numbers, cache_dir, n_jobs, progress
        As for :func:`load_brains`.

    Returns
    -------
    Volumes
        Scans of one participant share their subject id.

    Raises
    ------
    DataFileError
        The data could not be fetched, or a map is damaged.
    DataError, ParameterError
        As for :func:`load_brains`.
    """
    _check_parameters("file", spacing, shape, intensity, "none", n_subjects)
    rows, scans = _fetch_oasis(data_dir, dartel_version, progress=progress)
    if classes is None and target.lower() == "cdr":
        classes = CONTROL_AND_DEMENTIA
    where = Path("OASIS")
    selection = _select(
        rows, scans, where, target=target, classes=classes, skip_missing=False, n_subjects=n_subjects
    )
    grid = _common_grid([scan.path for scan in selection.scans], "file", spacing, shape)
    settings = Settings(grid, space="file", intensity=intensity, brain_mask="none")
    images, _ = _lazy(selection.scans, settings, cache_dir, n_jobs, progress=progress)
    kept = {name: selection.numbers(name, where) for name in numbers}
    info = {"source": "OASIS-1 grey-matter maps", "target": target, "grid": f"file: {grid}"}
    return selection.volumes(images, None, settings, unit=unit, numbers=kept, info=info)


@dataclass(frozen=True)
class _Selection:
    """Volumes to load and their rows, aligned."""

    scans: list[Scan]
    rows: pd.DataFrame
    subjects: tuple[str, ...]
    names: tuple[str, ...]
    class_names: tuple[str, ...]
    info: dict[str, Any]

    def numbers(self, name: str, where: str | Path) -> Tensor:
        """A column of numbers, (n,), NaN where a cell is empty."""
        column = find_column(self.rows.drop(columns=OWN_COLUMNS), name, (), where)
        cells = ["nan" if cell.lower() in MISSING else cell for cell in self.rows[column]]
        try:
            return torch.tensor([float(cell) for cell in cells])
        except ValueError:
            raise DataError(
                f"{where}, column {column!r}: cells that are not numbers; leave it out of numbers"
            ) from None

    def volumes(
        self,
        images: LazyTensor,
        label_maps: LazyTensor | None,
        settings: Settings,
        *,
        unit: str,
        numbers: Mapping[str, Tensor],
        info: Mapping[str, Any],
    ) -> Volumes:
        """The volumes with all that is known of them."""
        labels = self.rows["label"].tolist()
        return Volumes(
            images=images,
            labels=torch.tensor(labels, dtype=torch.int64 if self.class_names else torch.float32),
            subjects=self.subjects,
            names=self.names,
            class_names=self.class_names,
            affine=settings.grid.affine,
            label_maps=label_maps,
            sources=tuple(scan.path for scan in self.scans),
            unit=unit,
            numbers=numbers,
            info={**info, **self.info, **settings.words()},
        )


def _select(
    rows: pd.DataFrame,
    scans: Sequence[Scan],
    folder: Path,
    *,
    target: str,
    classes: Classes | None,
    skip_missing: bool,
    n_subjects: int | None,
) -> _Selection:
    """Volumes whose row has the target, of the first subjects."""
    rows, class_names = _with_target(rows, target, classes, folder)
    scans, positions, counts = pair(rows, scans, folder, skip_missing=skip_missing)
    labels = rows["label"].iloc[positions].tolist()
    subjects, names = study_names([scan.participant for scan in scans])
    chosen = _choose_subjects(subjects, labels, class_names, n_subjects, folder)
    return _Selection(
        scans=[scans[position] for position in chosen],
        rows=rows.iloc[[positions[position] for position in chosen]],
        subjects=tuple(subjects[position] for position in chosen),
        names=tuple(names[position] for position in chosen),
        class_names=class_names,
        info={"classes": _plain(classes) if classes else list(class_names), **counts},
    )


def _fetch_oasis(
    data_dir: str | Path | None, dartel_version: bool, *, progress: bool
) -> tuple[pd.DataFrame, list[Scan]]:
    try:
        import nilearn.datasets

        fetched = nilearn.datasets.fetch_oasis_vbm(
            data_dir=None if data_dir is None else str(data_dir),
            dartel_version=dartel_version,
            verbose=int(progress),
        )
    except OSError as error:
        raise DataFileError(
            f"the OASIS maps could not be fetched ({type(error).__name__}); fetch them where there is a network, and "
            "name their folder in the variable NILEARN_DATA (in a call of load_oasis, as data_dir)"
        ) from None
    table = fetched["ext_vars"].astype(object)
    rows = table.where(table.notna(), "").astype(str)
    ids = rows["id"].str.split("_MR", n=1, expand=True)
    rows = rows.assign(participant=ids[0], session="MR" + ids[1], file="", required=False)
    scans = []
    for path in map(Path, fetched["gray_matter_maps"]):
        found = OASIS_ID.search(path.name)
        if found is None:
            raise DataFileError(f"{path}: expected a name with the scan's id, such as OAS1_0001_MR1")
        scans.append(Scan(path, found[1], found[2]))
    return rows.reset_index(drop=True), scans


def _check_parameters(
    grid: str,
    spacing: float | None,
    shape: Sequence[int] | None,
    intensity: tuple[float, float] | None,
    brain_mask: str,
    n_subjects: int | None,
) -> None:
    if grid not in GRIDS:
        raise ParameterError(f"grid={grid!r} (space in a notebook): expected one of {GRIDS}")
    if spacing is not None and not spacing > 0:
        raise ParameterError(f"spacing={spacing}: expected a positive number of mm")
    if shape is not None and (len(shape) != 3 or min(shape) < 2):
        raise ParameterError(f"shape={tuple(shape)}: expected three numbers of voxels, 2 or more each")
    if intensity is not None and not (len(intensity) == 2 and intensity[0] < intensity[1]):
        raise ParameterError(f"intensity={tuple(intensity)}: expected (low, high), low below high")
    if brain_mask not in MASKS and not Path(brain_mask).is_dir():
        raise ParameterError(f"brain_mask={brain_mask!r}: expected one of {MASKS} or a folder of masks")
    if brain_mask == "mni" and grid == "centered":
        raise ParameterError(
            "brain_mask='mni' with grid='centered' (space in a notebook): that mask fits only volumes in MNI space; "
            "choose another of the two"
        )
    if n_subjects is not None and n_subjects < 2:
        raise ParameterError(f"n_subjects={n_subjects}: expected at least 2")


def _with_target(
    rows: pd.DataFrame, target: str, classes: Classes | None, where: str | Path
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Rows with the columns ``wanted`` and ``label``, and the names of the classes."""
    column = find_column(rows.drop(columns=OWN_COLUMNS), target, (), where)
    if column is None:
        raise ParameterError("target='': name the column with what to predict")
    found = read_target(rows[column].tolist(), classes, f"{where}, column {column!r}")
    wanted = np.zeros(len(rows), dtype=bool)
    wanted[found.rows] = True
    labels = np.zeros(len(rows), dtype=np.int64 if found.class_names else np.float64)
    labels[found.rows] = found.labels.numpy()
    return rows.assign(wanted=wanted, label=labels), found.class_names


def _choose_subjects(
    subjects: Sequence[str],
    labels: Sequence[float],
    class_names: tuple[str, ...],
    n_subjects: int | None,
    folder: Path,
) -> list[int]:
    """Positions of the volumes of the first subjects, taken in turn from each class (that of their first volume)."""
    empty = [name for number, name in enumerate(class_names) if number not in labels]
    if empty or not subjects:
        what = f"of the class {empty[0]!r}" if empty else "with the target"
        raise DataError(
            f"{folder}: no volume {what}; expected some. Check the column and which volumes are there"
        )
    first_label: dict[str, float] = {}
    for subject, label in zip(subjects, labels, strict=True):
        first_label.setdefault(subject, label if class_names else 0)
    queues = [
        [subject for subject in sorted(first_label) if first_label[subject] == label]
        for label in sorted(set(first_label.values()))
    ]
    in_turn = [subject for turn in zip_longest(*queues) for subject in turn if subject is not None]
    wanted = set(in_turn[:n_subjects])
    return [position for position, subject in enumerate(subjects) if subject in wanted]


def _common_grid(
    paths: Sequence[Path], grid: str, spacing: float | None, shape: Sequence[int] | None
) -> Grid:
    if grid == "mni":
        common = mni_grid(spacing or 2)
    elif grid == "file":
        common = check_one_grid(paths)
        common = common if spacing is None else common.respaced(spacing)
    else:
        first = read_grid(paths[0])
        step = spacing or float(first.spacing.min())
        common = centered_grid(
            np.rint(np.array(first.shape) * first.spacing / step).astype(int).tolist(), step
        )
    return common if shape is None else common.resized(shape)


def _usual_intensity(scans: Sequence[Scan]) -> tuple[float, float] | None:
    return (0.0, 1.0) if all(PROBABILITY.search(scan.path.name) for scan in scans) else None


def _lazy(
    scans: Sequence[Scan], settings: Settings, cache_dir: str | Path | None, n_jobs: int, *, progress: bool
) -> tuple[LazyTensor, LazyTensor | None]:
    """Prepared images and label maps (or None) of scans."""

    def items(
        what: str, make: Callable[[Scan, Settings], np.ndarray], measure: Any = None
    ) -> list[CachedArray]:
        paths = [cache_path(cache_dir, "brains", settings.key(scan, what)) for scan in scans]
        return [
            CachedArray(path, partial(make, scan, settings), measure)
            for path, scan in zip(paths, scans, strict=True)
        ]

    measure = partial(likeness, grid=settings.grid) if settings.in_mni else None
    images, maps = items("image", prepare_image, measure), None
    prepare(images, n_jobs=n_jobs, desc="brains", progress=progress)
    if scans[0].label_map is not None:
        label_maps = items("label map", prepare_labels)
        prepare(label_maps, n_jobs=n_jobs, desc="label maps", progress=progress)
        maps = LazyTensor(label_maps, settings.grid.shape, torch.int32)
    return LazyTensor(images, settings.grid.shape, torch.float32), maps


def _plain(classes: Classes) -> Any:
    """Classes as JSON can hold them."""
    if isinstance(classes, Mapping):
        return {name: wanted if isinstance(wanted, str) else list(wanted) for name, wanted in classes.items()}
    return list(classes)
