"""Which brain volumes a folder holds, whose they are, and the rows of the tables about them."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pandas as pd

from xaitools.data.folders import check_folder
from xaitools.data.labels import FILE_COLUMNS
from xaitools.data.participants import ID_COLUMNS, SESSION_COLUMNS, find_column, read_table
from xaitools.data.preparation import Scan
from xaitools.data.volumes import NIFTI, stem
from xaitools.errors import DataError, DataFileError, ParameterError

# Clinica's names, newest first: https://aramislab.paris.inria.fr/clinica/docs/public/latest/CAPS/Specifications
CAPS_IMAGES = {
    "t1-linear": ("t1_linear/*_desc-Crop_res-1x1x1_T1w.nii*", "t1_linear/*_T1w.nii*"),
    "t1-volume": (
        "t1/spm/dartel/group-*/*_T1w_segm-graymatter_space-Ixi549Space_modulated-on_probability.nii*",
    ),
}
BIDS_IMAGES = ("anat/*_T1w.nii*",)
FLAT_IMAGES = ("t1/*.nii*", "T1/*.nii*", "T1w/*.nii*", "**/*.nii*")
NO_IMAGES = re.compile(r"(^|[_-])(dseg|seg|mask|labels?|dlmuse)$", re.IGNORECASE)
PARTICIPANT, SESSION = re.compile(r"sub-([A-Za-z0-9]+)"), re.compile(r"ses-([A-Za-z0-9]+)")


def recognise_layout(folder: Path) -> str:
    """``"caps"``, ``"bids"`` or ``"flat"``: by folders ``subjects/sub-*`` or ``sub-*``, or neither.

    Raises
    ------
    DataFileError
        No such folder, or a file.
    """
    check_folder(folder, "give the folder that holds the volumes")
    for layout, pattern in (("caps", "subjects/sub-*"), ("bids", "sub-*")):
        if any(path.is_dir() for path in folder.glob(pattern)):
            return layout
    return "flat"


def read_rows(
    folder: Path, layout: str, table: Path | None, id_column: str, session_column: str
) -> pd.DataFrame:
    """The rows of the tables, with the added columns ``participant``, ``session``, ``file`` and ``required``.

    A row without a session is about all sessions of its participant. In BIDS and CAPS folders the tables
    ``sub-X_sessions.tsv`` add a row a session, with the columns of ``participants.tsv`` where they lack one.

    Raises
    ------
    DataFileError
        No table, or it cannot be read.
    DataError
        No column of participants, or a participant (with its session) in two rows.
    """
    path = _find_table(folder, layout, table)
    rows = pd.DataFrame({"participant_id": []}, dtype=str) if path is None else read_table(path)
    where = path or folder
    rows = _with_ids(rows, where, id_column, session_column)
    if layout != "flat":
        rows["file"] = ""
    if layout != "flat" and not rows["session"].any():
        rows = _with_sessions(rows, path.parent if path else folder, session_column)
    if rows.empty:
        columns = "with a column participant_id (ids as in sub-X) and one of what to predict"
        if layout == "caps":
            raise DataFileError(
                f"{folder}: a CAPS folder without participants.tsv, as Clinica writes it; give the BIDS folder that it "
                f"was made from, or that folder's participants.tsv, as table: one {columns}"
            )
        raise DataFileError(
            f"{folder}: no participants.tsv, participants.csv or sub-X/sub-X_sessions.tsv in it; put the table there, "
            f"{columns}, or name one elsewhere with table"
        )
    repeated = rows[rows.duplicated(["participant", "session"]) & (rows["file"] == "")]
    if len(repeated):
        participant, session = repeated.iloc[0][["participant", "session"]]
        raise DataError(
            f"{where}: {participant!r}{f', session {session!r}' if session else ''}, is in two rows ({len(repeated)} "
            "rows too many); keep one row, or add a column session_id or file that tells them apart"
        )
    return rows.reset_index(drop=True)


def find_scans(folder: Path, layout: str, image: str, rows: pd.DataFrame) -> list[Scan]:
    """The volumes in a folder, in the order of participants and sessions, each with its participant.

    Raises
    ------
    DataFileError
        There are none.
    DataError
        Several of one session of a participant.
    """
    paths = _find_paths(folder, layout, image)
    scans = _by_name(paths, folder, rows) if layout == "flat" else list(map(_by_entities, paths))
    scans.sort(key=lambda scan: (scan.participant, scan.session, str(scan.path)))
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
    paths = _nifti_files(folder, "**/*")
    if layout == "flat":
        ids = set(rows["participant"])
        known = [scan for path in paths if (scan := _name_of(path, folder, ids)).participant]
    else:
        known = [_by_entities(path) for path in paths if PARTICIPANT.search(path.name)]
    by_key: dict[tuple[str, str], list[Path]] = {}
    for scan in known:
        by_key.setdefault((scan.participant, scan.session), []).append(scan.path)
    without = [scan for scan in scans if len(by_key.get((scan.participant, scan.session), [])) != 1]
    if without:
        n_files = len(by_key.get((without[0].participant, without[0].session), []))
        raise DataFileError(
            f"{folder}: {n_files or 'no'} files named after the participant of {without[0].path} ({len(without)} of "
            f"{len(scans)} volumes); expected one {what} for each volume. Add or remove files"
        )
    found = [by_key[scan.participant, scan.session][0] for scan in scans]
    if field == "mask":
        return [replace(scan, mask=path) for scan, path in zip(scans, found, strict=True)]
    return [replace(scan, label_map=path) for scan, path in zip(scans, found, strict=True)]


def pair(
    rows: pd.DataFrame, scans: Sequence[Scan], folder: Path, *, skip_missing: bool
) -> tuple[list[Scan], list[int], dict[str, int]]:
    """Scans that have a row, and the positions of those rows; a session's own row goes before its participant's.

    Parameters
    ----------
    rows : DataFrame
        The rows to pair: those of :func:`read_rows`, with a column ``wanted``, true where the row has the target.
    skip_missing : bool
        Leave out participants without a volume and volumes without a row, instead of raising.

    Returns
    -------
    scans, positions, counts
        How many volumes and participants were left out, by reason.
    """
    keys = zip(rows["participant"], rows["session"], strict=True)
    row_of = {key: position for position, key in enumerate(keys)}
    participants = set(rows["participant"])
    strangers = [scan for scan in scans if scan.participant not in participants]
    found = {scan.participant for scan in scans}
    found_sessions = {(scan.participant, scan.session) for scan in scans}
    alone = [
        row.participant
        for row in rows.itertuples()
        if row.wanted
        and row.required
        and (
            row.participant not in found
            or (row.session and (row.participant, row.session) not in found_sessions)
        )
    ]
    if strangers and not skip_missing:
        raise DataError(
            f"{strangers[0].path}: no row of the table is about it ({len(strangers)} of {len(scans)} volumes); add "
            "rows, move such volumes out of the folder, or leave them out with skip_missing=True (in a call of "
            "load_brains, id_column= names the column of participants)"
        )
    if alone and not skip_missing:
        raise DataFileError(
            f"{folder}: no volume of participant {alone[0]!r} ({len(alone)} of {len(participants)} participants); add "
            "files, empty the cells of what to predict in the rows without one, leave them out with skip_missing=True, "
            "or give the pattern of the files with image"
        )
    chosen, positions, unlisted = [], [], -len(strangers)
    for scan in scans:
        row = scan.row
        for session in (scan.session, ""):
            row = row_of.get((scan.participant, session)) if row is None else row
        unlisted += row is None
        if row is not None and rows["wanted"].iloc[row]:
            chosen.append(scan)
            positions.append(row)
    counts = {
        "volumes_without_row": len(strangers),
        "sessions_without_row": unlisted,
        "participants_without_volume": len(set(alone)),
    }
    return chosen, positions, counts


def _find_table(folder: Path, layout: str, table: Path | None) -> Path | None:
    if table is not None and table.is_dir():
        table = table / "participants.tsv"
    if table is not None:
        return table
    usual = [folder / name for name in ("participants.tsv", "participants.csv")]
    present = [path for path in usual if path.is_file()]
    if not present and layout == "flat":
        present = sorted(path for path in folder.iterdir() if path.suffix.lower() in (".csv", ".tsv"))
        if len(present) != 1:
            raise DataFileError(
                f"{folder}: {len(present) or 'no'} tables (.csv or .tsv) in it and none named participants; put the "
                "table there as participants.csv, with a column participant_id (ids with which the names of the "
                "volumes begin) and one of what to predict, or name one with table"
            )
    return present[0] if present else None


def _with_ids(rows: pd.DataFrame, where: Path, id_column: str, session_column: str) -> pd.DataFrame:
    ids = find_column(rows, id_column, ID_COLUMNS, where)
    if ids is None:
        raise DataError(
            f"{where}: no column of participants among {list(rows.columns)}; rename it to "
            "participant_id (in a call of load_brains, id_column= names it)"
        )
    sessions = find_column(rows, session_column, SESSION_COLUMNS, where)
    files = find_column(rows, "", FILE_COLUMNS, where)
    return rows.assign(
        participant=rows[ids].str.removeprefix("sub-"),
        session=rows[sessions].str.removeprefix("ses-") if sessions else "",
        file=rows[files] if files else "",
        required=True,
    )


def _with_sessions(rows: pd.DataFrame, folder: Path, session_column: str) -> pd.DataFrame:
    """Rows of participants, and below them the rows of their sessions."""
    root = folder / "subjects" if (folder / "subjects").is_dir() else folder
    tables = sorted(root.glob("sub-*/sub-*_sessions.tsv"))
    of_participant = {row["participant"]: row for row in rows.to_dict("records")}
    added = []
    for path in tables:
        participant = path.parent.name.removeprefix("sub-")
        sessions = read_table(path)
        column = find_column(sessions, session_column, SESSION_COLUMNS, path)
        if column is None:
            raise DataError(
                f"{path}: no column of sessions among {list(sessions.columns)}; name it session_id"
            )
        for row in sessions.to_dict("records"):
            session = row[column].removeprefix("ses-")
            own = {"participant": participant, "session": session, "file": "", "required": False}
            added.append({**of_participant.get(participant, {}), **row, **own})
    if not added:
        return rows
    both = pd.concat([rows, pd.DataFrame(added)], ignore_index=True)
    return both.astype(object).where(both.notna(), "").astype({"required": bool})


def _find_paths(folder: Path, layout: str, image: str) -> list[Path]:
    root = folder / "subjects" if layout == "caps" else folder
    patterns: Iterable[str]
    if layout == "caps":
        if image and image not in CAPS_IMAGES and "*" not in image:
            raise ParameterError(
                f"image={image!r}: expected one of {list(CAPS_IMAGES)} or a pattern such as '**/*_T1w.nii*'"
            )
        named = CAPS_IMAGES.get(image, (image,)) if image else sum(CAPS_IMAGES.values(), ())
        patterns = [f"sub-*/ses-*/{pattern}" for pattern in named]
    elif image:
        patterns = [image]
    elif layout == "bids":
        patterns = [f"{start}/{pattern}" for pattern in BIDS_IMAGES for start in ("sub-*", "sub-*/ses-*")]
    else:
        patterns = FLAT_IMAGES
    if layout == "bids":
        paths = sorted({path for pattern in patterns for path in _nifti_files(root, pattern)})
    else:
        paths = next((found for pattern in patterns if (found := _nifti_files(root, pattern))), [])
    if layout == "flat" and not image:
        paths = [path for path in paths if not _is_map(path, folder)]
    if not paths:
        raise DataFileError(
            f"{folder}: no NIfTI file (.nii, .nii.gz) that fits {' or '.join(map(repr, patterns))}; give the folder of "
            "the volumes, or the pattern of their names with image"
        )
    return paths


def _nifti_files(folder: Path, pattern: str) -> list[Path]:
    try:
        found = folder.glob(pattern)
        return sorted(path for path in found if path.is_file() and path.name.lower().endswith(NIFTI))
    except (ValueError, NotImplementedError):
        raise ParameterError(
            f"image={pattern!r}: expected a pattern relative to the folder, such as '**/*_T1w.nii.gz'"
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


def _by_name(paths: Sequence[Path], folder: Path, rows: pd.DataFrame) -> list[Scan]:
    """Scans that rows list in a column of files, or those whose name begins with a participant's id."""
    if not (rows["file"] != "").any():
        ids = set(rows["participant"])
        return [_name_of(path, folder, ids) for path in paths]
    by_name: dict[str, list[Path]] = {}
    for path in paths:
        for key in {path.name, stem(path), path.relative_to(folder).as_posix()}:
            by_name.setdefault(key, []).append(path)
    scans = []
    for position, row in enumerate(rows.to_dict("records")):
        matches = by_name.get(row["file"], [])
        if len(matches) != 1:
            raise DataFileError(
                f"{folder}: {len(matches) or 'no'} files fit {row['file']!r} in row {position + 1}; expected one. "
                "Correct the column, or list paths below the folder"
            )
        scans.append(Scan(matches[0], row["participant"], row["session"], row=position))
    return scans


def _name_of(path: Path, folder: Path, ids: set[str]) -> Scan:
    """A scan of the participant with whose id the file's name, or a folder's, begins; or of nobody."""
    session = SESSION.search(path.name)
    for name in (stem(path), *reversed(path.relative_to(folder).parts[:-1])):
        name = name.removeprefix("sub-")
        ends = [len(name), *(match.start() for match in re.finditer(r"[^A-Za-z0-9]", name))]
        for end in sorted(ends, reverse=True):
            if name[:end] in ids:
                return Scan(path, name[:end], session[1] if session else "")
    return Scan(path, "")
