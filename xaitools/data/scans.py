"""Which brain volumes a folder holds, whose they are, and which rows of the table are about them."""

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from xaitools.data.folders import by_name, check_folder, composed, find_files, find_listed, layout_error, stem
from xaitools.data.naming import called, numbered
from xaitools.data.subjects import spelling, without_known_words
from xaitools.data.volumes import is_nifti
from xaitools.errors import DataError, DataFileError, ParameterError

S = TypeVar("S")
T = TypeVar("T")

# Clinica's names, newest first: https://aramislab.paris.inria.fr/clinica/docs/public/latest/CAPS/Specifications
CAPS_IMAGES = {
    "t1-linear": ("t1_linear/*_desc-Crop_res-1x1x1_T1w.nii*", "t1_linear/*_T1w.nii*"),
    "t1-volume": (
        "t1/spm/dartel/group-*/*_T1w_segm-graymatter_space-Ixi549Space_modulated-on_probability.nii*",
    ),
}
BIDS_IMAGES = ("anat/*_T1w.nii*",)
FLAT_IMAGES = ("t1/*.nii*", "T1/*.nii*", "T1w/*.nii*", "**/*.nii*")
LAYOUTS = (
    "CAPS, subjects/sub-X/ses-Y/t1_linear/*_T1w.nii.gz or the grey-matter maps of t1-volume",
    "BIDS, sub-X/[ses-Y/]anat/*_T1w.nii.gz",
    "a flat folder, NIfTI files named after participants and a CSV or TSV table",
)
NO_IMAGES = re.compile(r"(^|[_-])(dseg|seg|mask|labels?|dlmuse)$", re.IGNORECASE)
PARTICIPANT, SESSION = re.compile(r"sub-([A-Za-z0-9]+)"), re.compile(r"ses-([A-Za-z0-9]+)")


@dataclass(frozen=True)
class Scan:
    """A volume's file, and what belongs to it.

    `row` is the table's row that lists the file, if one does, and `name` the study id that messages call it.
    """

    path: Path
    participant: str
    session: str = ""
    label_map: Path | None = None
    mask: Path | None = None
    row: int | None = None
    name: str = ""


def names_of(scans: Sequence[Scan]) -> dict[Path, str]:
    """What messages call the files of scans that have a name."""
    maps = {scan.label_map: f"{scan.name}'s label map" for scan in scans}
    masks = {scan.mask: f"{scan.name}'s brain mask" for scan in scans}
    names = maps | masks | {scan.path: scan.name for scan in scans}
    return {path: name for path, name in names.items() if path is not None}


def of_scan(make: Callable[[Scan, S], T], scan: Scan, settings: S) -> T:
    """What `make` makes of a scan, which its errors call by its name."""
    with called(names_of([scan])):
        return make(scan, settings)


def recognise_layout(folder: Path) -> str:
    """``"caps"``, ``"bids"`` or ``"flat"``: by folders ``subjects/sub-*`` or ``sub-*``, or neither.

    Raises
    ------
    DataFileError
        No such folder, or a file; or neither, and no NIfTI file below it.
    """
    check_folder(folder, "give the folder that holds the volumes")
    for layout, pattern in (("caps", "subjects/sub-*"), ("bids", "sub-*")):
        if any(path.is_dir() for path in folder.glob(pattern)):
            return layout
    if not find_files(folder, is_nifti):
        raise layout_error(folder, "no NIfTI file (.nii, .nii.gz)", LAYOUTS, "Give the folder of the volumes")
    return "flat"


def find_scans(folder: Path, layout: str, image: str, rows: pd.DataFrame) -> list[Scan]:
    """The volumes in a folder, in the order of participants and sessions, each with its participant.

    Raises
    ------
    DataFileError
        There are none, or one that a table lists is missing.
    DataError
        Several of one session of a participant.
    """
    paths = _find_paths(folder, layout, image)
    with called(numbered(paths)):
        return _with_owners(paths, folder, layout, rows)


def _with_owners(paths: Sequence[Path], folder: Path, layout: str, rows: pd.DataFrame) -> list[Scan]:
    if layout != "flat":
        scans = [_by_entities(path) for path in paths]
    elif (rows["file"] != "").any():
        scans = _listed(paths, folder, rows)
    else:
        ids = set(rows["participant"])
        scans = [_by_id(path, folder, ids) for path in paths]
    scans.sort(key=lambda scan: (scan.participant, _in_time(scan.session), str(scan.path)))
    or_list = ", or list those to take in a column 'file' of the table" if layout == "flat" else ""
    for first, second in pairwise(scans):
        known = first.participant and first.row is None
        if known and (first.participant, first.session) == (second.participant, second.session):
            raise DataError(
                f"{first.path} and {second.path}: two volumes of one session of one participant; move one out of "
                f"the folder{or_list}, or choose with image, a pattern such as '**/*_run-1_T1w.nii.gz'"
            )
    return scans


def add_maps(scans: Sequence[Scan], folder: Path, layout: str, rows: pd.DataFrame, field: str) -> list[Scan]:
    """Give each scan the file of `folder` that is named after the same participant and session.

    Parameters
    ----------
    field : str
        The attribute to set: ``"label_map"`` or ``"mask"``.

    Raises
    ------
    DataFileError
        A scan has none; names the first and counts them.
    """
    what = field.replace("_", " ")
    check_folder(folder, "give one, or 'none'", f"folder of {what}s")
    paths = find_files(folder, is_nifti)
    with called(numbered(paths, what)):
        if layout == "flat":
            ids = set(rows["participant"])
            maps = [_by_id(path, folder, ids) for path in paths]
        else:
            maps = [_by_entities(path) for path in paths if PARTICIPANT.search(path.name)]
    named: dict[tuple[str, str], list[Path]] = {}
    for found in maps:
        named.setdefault((found.participant, found.session), []).append(found.path)
    own = [named.get((scan.participant, scan.session), []) for scan in scans]
    without = [position for position, files in enumerate(own) if len(files) != 1]
    if without:
        raise DataFileError(
            f"{folder}: {len(own[without[0]]) or 'no'} files named after the participant of {scans[without[0]].name} "
            f"({len(without)} of {len(scans)} volumes); expected one {what} for each volume. Add or remove files"
        )
    changes: list[dict[str, Any]] = [{field: files[0]} for files in own]
    return [replace(scan, **change) for scan, change in zip(scans, changes, strict=True)]


def pair(
    rows: pd.DataFrame, scans: Sequence[Scan], folder: Path, *, skip_missing: bool
) -> tuple[list[Scan], list[int], dict[str, int]]:
    """Scans that have a row with a label, and the positions of those rows.

    A participant's row without a session is about all sessions, unless other rows of the participant have one: then
    each scan needs the row of its own session, see :func:`match_sessions`.

    Parameters
    ----------
    rows : DataFrame
        The rows to pair: those of :func:`xaitools.data.participants.read_rows`, with a column ``label``, NaN where the
        row has none.
    skip_missing : bool
        Leave out participants without a volume and volumes without a row, instead of raising.

    Returns
    -------
    scans, positions, counts
        How many volumes and participants were left out, by reason.

    Raises
    ------
    DataFileError
        No volume is there for a row that needs one.
    DataError
        A volume whose participant, or whose session among rows of sessions, has no row.
    """
    participants, scanned = set(rows["participant"]), {scan.participant for scan in scans}
    row_of = _rows_of(rows, scans)
    strangers = [scan for scan in scans if scan.participant not in participants]
    unmatched = [
        scan
        for scan, row in zip(scans, row_of, strict=True)
        if row is None and scan.participant in participants
    ]
    needed = rows[rows["label"].notna() & rows["required"] & ~rows.index.isin(row_of)]
    alone = needed[(needed["session"] != "") | ~needed["participant"].isin(scanned)]
    if not skip_missing:
        with called(numbered(sorted(scan.path for scan in scans))):
            _check_complete(rows, strangers, alone, unmatched, folder, len(scans))
    labelled = rows["label"].notna().to_numpy()
    pairs = [(scan, row) for scan, row in zip(scans, row_of, strict=True) if row is not None]
    chosen = [(scan, row) for scan, row in pairs if labelled[row]]
    counts = {
        "volumes_without_row": len(strangers),
        "sessions_without_row": len(unmatched),
        "volumes_without_label": len(pairs) - len(chosen),
        "participants_without_volume": alone["participant"].nunique(),
    }
    return [scan for scan, _ in chosen], [row for _, row in chosen], counts


def _check_complete(
    rows: pd.DataFrame,
    strangers: Sequence[Scan],
    alone: pd.DataFrame,
    unmatched: Sequence[Scan],
    folder: Path,
    n_scans: int,
) -> None:
    """Raise for volumes without a participant, rows without a volume, and volumes without a row of their session."""
    if strangers:
        raise DataError(
            f"{strangers[0].path}: no row of the table is about it ({len(strangers)} of {n_scans} volumes); add "
            "rows, move such volumes out of the folder, name another column of participants with subject_column, or "
            f"leave them out with skip_missing=True.{spelling_hint(strangers, rows)}"
        )
    if len(alone):
        place, session = alone.iloc[0][["table_row", "session"]]
        raise DataFileError(
            f"{folder}: no volume of the participant in {place}{f', session {session!r}' if session else ''} "
            f"({len(alone)} of {rows['participant'].nunique()} participants); add files, empty the cells of what to "
            "predict in the rows without one, leave them out with skip_missing=True, or give the pattern of the files "
            "with image"
        )
    if unmatched:
        path, session = unmatched[0].path, unmatched[0].session
        listed = sorted(set(rows.loc[rows["participant"] == unmatched[0].participant, "session"]) - {""})
        raise DataError(
            f"{path}: {f'the session {session!r}' if session else 'no session (ses-...) in its name'}, where the "
            f"table has rows for the sessions {listed} of its participant ({len(unmatched)} of {n_scans} volumes); "
            "expected one row that fits, M12 and M012 being one session. Correct the sessions, or leave such volumes "
            "out with skip_missing=True"
        )


def _rows_of(rows: pd.DataFrame, scans: Sequence[Scan]) -> list[int | None]:
    """The position of each scan's row, or None.

    That of its participant's session; the participant's only row without a session where none of its rows has one.
    """
    row_of = {(row.participant, row.session): position for position, row in enumerate(rows.itertuples())}
    listed, scanned = defaultdict(set), defaultdict(set)
    for participant, session in row_of:
        listed[participant].update({session} - {""})
    for scan in scans:
        scanned[scan.participant].add(scan.session)
    matched = {
        participant: match_sessions(scanned[participant], listed[participant]) for participant in listed
    }
    found: list[int | None] = []
    for scan in scans:
        known = scan.participant
        session = matched[known].get(scan.session) if listed.get(known) else ""
        own = None if session is None else row_of.get((known, session))
        found.append(own if scan.row is None else scan.row)
    return found


def match_sessions(scanned: Collection[str], listed: Collection[str]) -> dict[str, str]:
    """Which listed session each scanned one of a participant is: of the same name, or else, if that is unique, number.

    Examples
    --------
    >>> match_sessions({"M000", "M012"}, {"M00", "M12", "M24"})
    {'M000': 'M00', 'M012': 'M12'}
    """
    matched = {session: session for session in sorted(scanned) if session in listed}
    own, other = _by_visit(set(scanned) - set(listed)), _by_visit(set(listed) - set(scanned))
    unique = [visit for visit in own if len(own[visit]) == len(other.get(visit, ())) == 1]
    return matched | {own[visit][0]: other[visit][0] for visit in unique}


def _by_visit(sessions: Collection[str]) -> dict[tuple[str, int | None], list[str]]:
    groups = defaultdict(list)
    for session in sorted(sessions):
        groups[_visit(session)].append(session)
    return dict(groups)


def _visit(session: str) -> tuple[str, int | None]:
    """What ``M12``, ``m012`` and ``M12.0`` have in common."""
    match = re.fullmatch(r"(\D*)(\d+)(?:\.0+)?", session)
    return (match[1].lower(), int(match[2])) if match else (session.lower(), None)


def _in_time(session: str) -> tuple[str, int, str]:
    """To sort the sessions of a participant: M6 before M12, M12 before M120."""
    kind, number = _visit(session)
    return kind, -1 if number is None else number, session


def _find_paths(folder: Path, layout: str, image: str) -> list[Path]:
    root = folder
    patterns: tuple[str, ...] = FLAT_IMAGES
    if layout == "caps":
        if image and image not in CAPS_IMAGES and "*" not in image:
            raise ParameterError(
                f"image={image!r}; expected one of {list(CAPS_IMAGES)} or a pattern such as '**/*_T1w.nii*'."
            )
        named = CAPS_IMAGES.get(image, (image,)) if image else sum(CAPS_IMAGES.values(), ())
        root, patterns = folder / "subjects", tuple(f"sub-*/ses-*/{pattern}" for pattern in named)
    elif image:
        patterns = (image,)
    elif layout == "bids":
        patterns = tuple(
            f"{start}/{pattern}" for pattern in BIDS_IMAGES for start in ("sub-*", "sub-*/ses-*")
        )
    found = (_nifti_files(root, pattern) for pattern in patterns)
    paths = sorted(set().union(*found)) if layout == "bids" else next(filter(None, found), [])
    if layout == "flat" and not image:
        paths = [path for path in paths if not _is_map(path, folder)]
    if not paths:
        missing = f"no NIfTI file (.nii, .nii.gz) that fits {' or '.join(map(repr, patterns))}"
        remedy = "Give the folder of the volumes, or the pattern of their names with image"
        raise layout_error(folder, missing, LAYOUTS, remedy)
    return paths


def _nifti_files(folder: Path, pattern: str) -> list[Path]:
    try:
        return find_files(folder, is_nifti, pattern)
    except (ValueError, NotImplementedError):
        raise ParameterError(
            f"image={pattern!r}; expected a pattern relative to the folder, such as '**/*_T1w.nii.gz'."
        ) from None


def _is_map(path: Path, folder: Path) -> bool:
    return any(map(NO_IMAGES.search, [stem(path), *path.relative_to(folder).parts[:-1]]))


def _by_entities(path: Path) -> Scan:
    participant, session = PARTICIPANT.search(path.name), SESSION.search(path.name)
    if participant is None:
        raise DataFileError(
            f"{path}: no participant (sub-...) in its name; rename it, "
            "or leave it out with image, a pattern of the names to take"
        )
    return Scan(path, participant[1], session[1] if session else "")


def _listed(paths: Sequence[Path], folder: Path, rows: pd.DataFrame) -> list[Scan]:
    """The scans that rows list in a column of files."""
    named = by_name(paths, folder)
    return [
        Scan(
            find_listed(row.file, folder, named, f"its table, {row.table_row}"),
            row.participant,
            row.session,
            row=position,
        )
        for position, row in enumerate(rows.itertuples())
    ]


def _by_id(path: Path, folder: Path, ids: set[str]) -> Scan:
    """A scan of the participant with whose id the file's name, or a folder's, begins; or of nobody.

    Raises
    ------
    DataError
        The names begin with the ids of several participants.
    """
    session = SESSION.search(path.name)
    names = (stem(path), *reversed(path.relative_to(folder).parts[:-1]))
    found = [participant for name in names if (participant := _leading_id(name, ids))]
    if len(set(found)) > 1:
        raise DataError(
            f"{path}: its name and its folders' begin with several participants, {sorted(set(found))}; expected one. "
            "List the files to take in a column 'file' of the table"
        )
    return Scan(path, found[0] if found else "", session[1] if session else "")


def _leading_id(name: str, ids: set[str]) -> str:
    """The longest id with which a name begins, or nothing; a number of a well-known word, as in ``1.5T``, is none."""
    known = [part for part in _beginnings(name) if part in ids]
    numbers = _beginnings(without_known_words(name))
    return next((part for part in known if part in numbers or not part.isdecimal()), "")


def _beginnings(name: str) -> list[str]:
    """What of a name may be an id: it, and what stands before a sign that is no letter or number; the longest first."""
    name = composed(name).removeprefix("sub-")
    ends = [len(name), *(match.start() for match in re.finditer(r"[\W_]", name))]
    return [name[:end] for end in sorted(ends, reverse=True)]


def spelling_hint(scans: Sequence[Scan], rows: pd.DataFrame) -> str:
    """Which id in a file's name looks like one of the table that no file has, as a sentence; or nothing."""
    known = {spelling(participant): participant for participant in rows["participant"]}
    for scan in scans:
        if scan.participant in known.values():
            continue
        names = [*_beginnings(stem(scan.path)), *_beginnings(scan.path.parent.name)]
        for part in [scan.participant] if scan.participant else names:
            if part and (own := known.get(spelling(part))):
                return f" {own!r} in the table looks like {part!r} in a file's name: write them alike."
    return ""
