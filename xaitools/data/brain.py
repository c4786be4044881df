"""Brain volumes with what a table says of their participants, from the folders in which they are published."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from xaitools.checks import check_choice, check_positive
from xaitools.data.classes import Classes, column_labels
from xaitools.data.lazy import LazyTensor, cached, prepare
from xaitools.data.missing import without_missing
from xaitools.data.mni import likeness, warn_if_unregistered
from xaitools.data.naming import called
from xaitools.data.orientation import check_orientation
from xaitools.data.participants import OWN_COLUMNS, read_rows
from xaitools.data.preparation import Settings, common_grid, placement, prepare_image, prepare_labels
from xaitools.data.scans import (
    Scan,
    add_maps,
    find_scans,
    names_of,
    of_scan,
    pair,
    recognise_layout,
    spelling_hint,
)
from xaitools.data.subjects import check_n_subjects, in_turn, study_names
from xaitools.data.tables import find_column, is_number, number
from xaitools.data.volume_set import Volumes
from xaitools.data.volumes import assumed_orientation
from xaitools.errors import DataError, DataFileError, ParameterError

SPACES = ("file", "mni", "centered")
MASKS = ("none", "dseg", "mni")
OASIS_ID = re.compile(r"(OAS1_\d{4})_(MR\d)")
PROBABILITY = re.compile(r"_probability\.nii|_probseg\.nii|^mwr?c[123]", re.IGNORECASE)
CONTROL_AND_DEMENTIA = {"control": "= 0", "dementia": "> 0"}


def load_brains(
    data_dir: str | Path,
    *,
    table: str | Path | None = None,
    label_column: str,
    classes: Classes | None = None,
    unit: str = "",
    numbers: Sequence[str] = (),
    missing: Sequence[str | float] | None = None,
    subject_column: str = "",
    session_column: str = "",
    image: str = "",
    label_maps: str | Path = "auto",
    space: str = "file",
    spacing: float | None = None,
    shape: Sequence[int] | None = None,
    intensity: tuple[float, float] | None = None,
    brain_mask: str | Path = "none",
    orientation: str = "",
    skip_missing: bool = False,
    n_subjects: int | None = None,
    cache_dir: str | Path | None = None,
    n_jobs: int = 1,
    progress: bool = True,
) -> Volumes:
    """Load brain volumes with labels from their table of participants; the layout of the folder is recognised.

    - **CAPS**, as Clinica writes it: ``subjects/sub-X/ses-Y/t1_linear/*_T1w.nii.gz`` (cropped ones before whole
      ones) or modulated grey-matter maps of t1-volume, ``.../t1/spm/dartel/group-*/*_segm-graymatter_space-
      Ixi549Space_modulated-on_probability.nii.gz``.
    - **BIDS**: ``sub-X/[ses-Y/]anat/*_T1w.nii.gz``. In both, the table is ``participants.tsv``, to which
      ``sub-X/sub-X_sessions.tsv`` add what they know of a session, or `table`. Where a participant has rows of
      sessions, each of its volumes needs one (M12 and M012 are one session), also if there is a row for all.
    - **A flat folder**, such as IXI: NIfTI files whose names (or folders) begin with a participant's id, below
      ``t1`` where there is such a folder, and a CSV or TSV file; its column of files, if any, decides.

    Each volume is prepared once and kept in the cache: its axes are turned towards right, front and head, its
    intensities scaled, its brain cut out, and it is resampled (see :func:`xaitools.data.resampling.resample`). It is
    read again when it is indexed, so that memory does not grow with the number of subjects.

    Parameters
    ----------
    data_dir : path
        The folder.
    table : path, optional
        CSV or TSV file, or a BIDS folder whose tables to take. Empty: that in the folder.
    label_column : str
        Column of the table with what to predict.
    classes : mapping or sequence of str, optional
        Which values make which class: ``["CN", "AD"]``, ``{"control": "CN", "patient": ["AD", "MCI"]}`` or ranges,
        ``{"young": "< 40", "old": ">= 60"}``; other rows are left out. The last class is the positive one. By
        default a column of two different values is a classification, a usual name of controls (CN, healthy, 0)
        before that of patients (see :func:`xaitools.data.participants.ordered`), one of more numbers a regression.
    unit : str
        Unit of a regression's labels.
    numbers : sequence of str
        More columns of numbers to keep, as ``Volumes.numbers``; NaN where one is missing.
    missing : sequence of str or numbers, optional
        Numbers that stand for a missing value in these columns, besides empty cells and words such as ``n/a``. By
        default the usual codes (-1, -4, -9999, 999, ...) where they can be no value of their column, which ``info``
        counts; an empty sequence takes every number as a value.
    subject_column, session_column : str, optional
        Columns of the table; where empty, usual names are tried (``participant_id``, ``session_id``, ...).
    image : str, optional
        Which volumes to take: ``"t1-linear"`` or ``"t1-volume"`` of a CAPS folder, or a pattern of paths below
        the folder (below the session in a CAPS folder), such as ``"**/*_run-1_T1w.nii.gz"``.
    label_maps : path, "auto" or "none"
        Folder of label maps of brain structures, one a volume on its grid. By default the folder ``dseg`` of a
        flat folder, if there is one.
    space : {"file", "mni", "centered"}
        Where the volumes lie. ``"file"``: on one grid already. ``"mni"``: in MNI space; they are resampled onto
        :func:`xaitools.data.grids.mni_grid`, and whether they are in it is checked, see below. ``"centered"``: heads as
        they came from the scanner, each moved (not turned nor scaled) so that the centre of its brain, or without label
        map and mask that of the head, is the middle of the common grid.
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
    orientation : str
        What to take of files whose header does not say where its voxels lie, which are refused otherwise: "sform",
        "qform", or the letters of the axes as stored, "LAS" for towards left, front and head, the middle at 0 mm.
    skip_missing : bool
        Leave out participants without a volume and volumes without a row (of their participant, or of their session
        where there are rows of sessions) instead of raising; ``info`` counts both.
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
        that have a label and a volume, so that an id does not depend on `n_subjects`.

    Raises
    ------
    DataFileError
        A folder, table or file is missing, empty, truncated or damaged, a participant has no volume, or a volume
        that should be in MNI space (for its grid or brain mask) has signal in less than half of its brain.
    DataError
        A column is missing, one class only, a participant in two rows, a volume without a row, in four
        dimensions, with NaN, constant, or with a header that does not say where its voxels lie.
    ShapeError
        Volumes on different grids, for ``space="file"``, or a map on another grid than its volume.
    ParameterError
        A parameter out of its range.

    Notes
    -----
    If more than a tenth of the volumes that should be in MNI space do not look like its template (see
    :func:`xaitools.data.mni.likeness`), a warning is logged: they are probably not registered.
    """
    _check_parameters(space, spacing, shape, intensity, str(brain_mask), n_subjects)
    check_orientation(orientation, in_mni="mni" in (space, brain_mask))
    folder = Path(data_dir)
    layout = recognise_layout(folder)
    rows = read_rows(folder, layout, Path(table) if table else None, subject_column, session_column)
    scans = find_scans(folder, layout, image, rows)
    chosen = _choose(rows, scans, folder, label_column, classes, numbers, missing, skip_missing, n_subjects)
    scans = chosen.scans
    if label_maps == "auto":
        label_maps = folder / "dseg" if layout == "flat" and (folder / "dseg").is_dir() else "none"
    if str(label_maps) != "none":
        scans = add_maps(scans, Path(label_maps), layout, rows, "label_map")
    elif brain_mask == "dseg":
        raise ParameterError(
            "brain_mask='dseg' without label maps; expected them in a flat folder's own folder 'dseg', or in the one "
            "that label_maps names."
        )
    mask = str(brain_mask)
    if mask not in MASKS:
        scans, mask = add_maps(scans, Path(brain_mask), layout, rows, "mask"), "files"
    with called(names_of(scans)):
        grid = common_grid([scan.path for scan in scans], space, spacing, shape, orientation)
    settings = Settings(
        grid=grid,
        space=space,
        intensity=_usual_intensity(scans) if intensity is None else intensity,
        brain_mask=mask,
        orientation=orientation,
    )
    source = f"brain volumes, {layout} folder"
    options: dict[str, Any] = {"unit": unit, "cache_dir": cache_dir, "n_jobs": n_jobs, "progress": progress}
    return _volumes(replace(chosen, scans=scans), settings, source, **options)


def load_oasis(
    data_dir: str | Path | None = None,
    *,
    label_column: str = "cdr",
    classes: Classes | None = None,
    unit: str = "",
    numbers: Sequence[str] = ("age",),
    dartel_version: bool = True,
    spacing: float | None = None,
    shape: Sequence[int] | None = None,
    intensity: tuple[float, float] = (0.0, 1.0),
    n_subjects: int | None = None,
    cache_dir: str | Path | None = None,
    n_jobs: int = 1,
    progress: bool = True,
) -> Volumes:
    """Load the modulated grey-matter maps of OASIS-1, fetched by ``nilearn.datasets.fetch_oasis_vbm``.

    The first call downloads about 1 GB and means that you accept the data usage agreement of OASIS.

    Parameters
    ----------
    data_dir : path, optional
        Where nilearn keeps the data.
    label_column : str
        Column of OASIS' table: ``"cdr"`` (clinical dementia rating), ``"age"``, ``"mf"``, ``"mmse"``, ...
    classes, unit : optional
        As for :func:`load_brains`. For ``"cdr"`` the default is ``{"control": "= 0", "dementia": "> 0"}``;
        participants without a rating, who are the younger ones, are left out.
    dartel_version : bool
        Maps normalised with DARTEL instead of SPM8's standard.
    numbers, spacing, shape, intensity, n_subjects, cache_dir, n_jobs, progress
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
    if classes is None and label_column.lower() == "cdr":
        classes = CONTROL_AND_DEMENTIA
    where = Path("OASIS")
    chosen = _choose(rows, scans, where, label_column, classes, numbers, None, False, n_subjects)
    with called(names_of(chosen.scans)):
        grid = common_grid([scan.path for scan in chosen.scans], "file", spacing, shape)
    settings = Settings(grid, space="file", intensity=intensity, brain_mask="none")
    options: dict[str, Any] = {"unit": unit, "cache_dir": cache_dir, "n_jobs": n_jobs, "progress": progress}
    return _volumes(chosen, settings, "OASIS-1 grey-matter maps", **options)


@dataclass(frozen=True)
class _Chosen:
    """Volumes to load and their rows, aligned."""

    scans: list[Scan]
    rows: pd.DataFrame
    subjects: tuple[str, ...]
    names: tuple[str, ...]
    class_names: tuple[str, ...]
    numbers: dict[str, Tensor]
    info: dict[str, Any]


def _choose(
    rows: pd.DataFrame,
    scans: Sequence[Scan],
    folder: Path,
    label_column: str,
    classes: Classes | None,
    numbers: Sequence[str],
    missing: Sequence[str | float] | None,
    skip_missing: bool,
    n_subjects: int | None,
) -> _Chosen:
    """The volumes of the first subjects whose row has a label."""
    table = rows.drop(columns=OWN_COLUMNS)
    column = find_column(table, label_column, (), folder)
    if column is None:
        raise ParameterError("label_column=''; expected the column with what to predict: name it.")
    cells, where = table[column].tolist(), f"{folder}, column {column!r}"
    values, class_names, codes = column_labels(cells, classes, where, missing)
    columns = {name: _numbers(table, name, folder, missing) for name in numbers}
    rows = rows.assign(label=values)
    hint = spelling_hint(scans, rows)
    scans, positions, counts = pair(rows, scans, folder, skip_missing=skip_missing)
    rows = rows.iloc[positions]
    labels = rows["label"].tolist()
    empty = [f"of the class {name!r}" for number, name in enumerate(class_names) if number not in labels]
    if empty or not scans:
        raise DataError(
            f"{folder}: no volume {empty[0] if empty else 'with a label'}; expected some. Check the column and which "
            f"volumes are there.{hint}"
        )
    subjects, names = study_names([scan.participant for scan in scans])
    chosen = in_turn(subjects, labels if class_names else [0] * len(scans), n_subjects)
    found = {column: codes, **{name: counts for name, (_, counts) in columns.items()}}
    return _Chosen(
        scans=[replace(scans[position], name=names[position]) for position in chosen],
        rows=rows.iloc[chosen],
        subjects=tuple(subjects[position] for position in chosen),
        names=tuple(names[position] for position in chosen),
        class_names=class_names,
        numbers={
            name: torch.from_numpy(values[positions][chosen]).float() for name, (values, _) in columns.items()
        },
        info={
            "label_column": label_column,
            "classes": _plain(classes) if classes else list(class_names),
            **counts,
            "codes_for_missing": {name: counts for name, counts in found.items() if counts},
        },
    )


def _numbers(
    table: pd.DataFrame, name: str, folder: Path, missing: Sequence[str | float] | None
) -> tuple[np.ndarray, dict[str, int]]:
    """A column of numbers, (n,), NaN where one is missing, and how often each code for that was met."""
    column = find_column(table, name, (), folder)
    where = f"{folder}, column {column!r}"
    cells, codes = without_missing(table[column].tolist(), where, codes=missing)
    if not all(map(is_number, filter(None, cells))):
        raise DataError(f"{where}: cells that are not numbers; leave it out of numbers")
    return np.array([number(cell) for cell in cells]), codes


def _volumes(
    chosen: _Chosen,
    settings: Settings,
    source: str,
    *,
    unit: str,
    cache_dir: str | Path | None,
    n_jobs: int,
    progress: bool,
) -> Volumes:
    """Prepare the chosen volumes and their label maps, and tell all that is known of them."""
    scans = chosen.scans

    def prepared(
        what: str, make: Callable[[Scan, Settings], np.ndarray], dtype: torch.dtype, measure: Any = None
    ) -> LazyTensor:
        keys = [settings.key(scan, what) for scan in scans]
        items = cached(
            cache_dir, "brains", keys, [partial(of_scan, make, scan, settings) for scan in scans], measure
        )
        prepare(items, n_jobs=n_jobs, desc=f"{what}s", progress=progress)
        return LazyTensor(items, settings.grid.shape, dtype)

    measure = partial(likeness, grid=settings.grid) if settings.in_mni else None
    images = prepared("image", prepare_image, torch.float32, measure)
    mapped = scans[0].label_map is not None
    label_maps = prepared("label map", prepare_labels, torch.int64) if mapped else None
    if settings.in_mni:
        warn_if_unregistered([item.measured() for item in images.items], chosen.names)
    return Volumes(
        images=images,
        labels=torch.tensor(
            chosen.rows["label"].tolist(), dtype=torch.int64 if chosen.class_names else torch.float32
        ),
        subjects=chosen.subjects,
        names=chosen.names,
        class_names=chosen.class_names,
        affine=settings.grid.affine,
        label_maps=label_maps,
        sources=tuple(scan.path for scan in chosen.scans),
        placements=tuple(partial(of_scan, placement, scan, settings) for scan in scans),
        unit=unit,
        numbers=chosen.numbers,
        info={
            "source": source,
            "grid": f"{settings.space}: {settings.grid}",
            **chosen.info,
            **settings.words(),
            **assumed_orientation([scan.path for scan in scans], settings.orientation),
        },
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
    rows["table_row"] = [f"row {number} below the header" for number in range(1, len(rows) + 1)]
    scans = []
    for path in map(Path, fetched["gray_matter_maps"]):
        found = OASIS_ID.search(path.name)
        if found is None:
            raise DataFileError(f"{path}: expected a name with the scan's id, such as OAS1_0001_MR1")
        scans.append(Scan(path, found[1], found[2]))
    return rows.reset_index(drop=True), scans


def _check_parameters(
    space: str,
    spacing: float | None,
    shape: Sequence[int] | None,
    intensity: tuple[float, float] | None,
    brain_mask: str,
    n_subjects: int | None,
) -> None:
    check_choice(space=(space, SPACES))
    check_n_subjects(n_subjects, least=2)
    if spacing is not None:
        check_positive(spacing=spacing)
    if shape is not None and (len(shape) != 3 or min(shape) < 2):
        raise ParameterError(f"shape={tuple(shape)}; expected three numbers of voxels, 2 or more each.")
    if intensity is not None and not (len(intensity) == 2 and intensity[0] < intensity[1]):
        raise ParameterError(f"intensity={tuple(intensity)}; expected (low, high), low below high.")
    if brain_mask not in MASKS and not Path(brain_mask).is_dir():
        raise ParameterError(f"brain_mask={brain_mask!r}; expected one of {MASKS} or a folder of masks.")
    if brain_mask == "mni" and space == "centered":
        raise ParameterError(
            "brain_mask='mni' with space='centered'; expected 'mni' only for volumes in MNI space: choose another of "
            "the two."
        )


def _usual_intensity(scans: Sequence[Scan]) -> tuple[float, float] | None:
    return (0.0, 1.0) if all(PROBABILITY.search(scan.path.name) for scan in scans) else None


def _plain(classes: Classes) -> Any:
    """Classes as JSON can hold them."""
    if isinstance(classes, Mapping):
        return {name: wanted if isinstance(wanted, str) else list(wanted) for name, wanted in classes.items()}
    return list(classes)
