"""Tables of participants and of their sessions, as BIDS and CAPS folders or flat ones have them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from xaitools.data.folders import find_files
from xaitools.data.naming import called, numbered
from xaitools.data.subjects import check_spellings, check_subject_cells
from xaitools.data.tables import FILE_COLUMNS, SESSION_COLUMNS, find_column, read_table, shown_columns
from xaitools.errors import DataError, DataFileError

OWN_COLUMNS = ["participant", "session", "file", "required", "table_row"]
ID_COLUMNS = ("participant_id", "subject_id", "subject", "participant", "mrid", "id", "ixi_id", "ptid")


def read_rows(
    folder: Path, layout: str, table: Path | None, subject_column: str, session_column: str
) -> pd.DataFrame:
    """The rows of the tables, with the columns of ``OWN_COLUMNS``; messages call a row by its ``table_row``.

    A row without a session is about all sessions of a participant who has no other row. In BIDS and CAPS folders the
    tables ``sub-X_sessions.tsv`` add a row a session, with the columns of ``participants.tsv`` where they lack one; a
    volume need not be there for each of these, as it is required for the others.

    Raises
    ------
    DataFileError
        No table, or it cannot be read.
    DataError
        No column of participants, a row without one, a participant (with its session) in two rows, or ids that look
        like two spellings of one person.
    """
    path = _find_table(folder, layout, table)
    rows = pd.DataFrame({"participant_id": []}, dtype=str) if path is None else read_table(path)
    where = path or folder
    rows = _with_ids(rows, where, subject_column, session_column)
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
    ids = rows["participant"].tolist()
    check_spellings(ids, rows["table_row"].tolist(), where)
    _check_unique(rows[rows["file"] == ""], where)
    return rows.reset_index(drop=True)


def _check_unique(rows: pd.DataFrame, where: Path) -> None:
    key = ["participant", "session"]
    repeated = rows[rows.duplicated(key)]
    if len(repeated):
        first, second = rows.loc[(rows[key] == repeated.iloc[0][key]).all(axis=1), "table_row"].iloc[:2]
        session = " and session" if repeated.iloc[0]["session"] else ""
        raise DataError(
            f"{where}: {first} and {second} are about one participant{session} ({len(repeated)} rows too many); keep "
            "one row, or add a column session_id or file that tells them apart"
        )


def _find_table(folder: Path, layout: str, table: Path | None) -> Path | None:
    if table is not None:
        return table / "participants.tsv" if table.is_dir() else table
    usual = [folder / name for name in ("participants.tsv", "participants.csv")]
    present = [path for path in usual if path.is_file()]
    if not present and layout == "flat":
        present = find_files(folder, lambda path: path.suffix.lower() in (".csv", ".tsv"), "*")
        if len(present) != 1:
            raise DataFileError(
                f"{folder}: {len(present) or 'no'} tables (.csv or .tsv) in it and none named participants; put the "
                "table there as participants.csv, with a column participant_id (ids with which the names of the "
                "volumes begin) and one of what to predict, or name one with table"
            )
    return present[0] if present else None


def _with_ids(rows: pd.DataFrame, where: Path, subject_column: str, session_column: str) -> pd.DataFrame:
    ids = find_column(rows, subject_column, ID_COLUMNS, where)
    if ids is None:
        raise DataError(
            f"{where}: no column of participants among {shown_columns(rows)}; rename it to participant_id, or name it "
            "with subject_column"
        )
    check_subject_cells(rows[ids].tolist(), where)
    sessions = find_column(rows, session_column, SESSION_COLUMNS, where)
    files = find_column(rows, "", FILE_COLUMNS, where)
    return rows.assign(
        participant=rows[ids].str.removeprefix("sub-"),
        session=rows[sessions].str.removeprefix("ses-") if sessions else "",
        file=rows[files] if files else "",
        required=True,
        table_row=[f"row {number} below the header" for number in range(1, len(rows) + 1)],
    )


def _with_sessions(rows: pd.DataFrame, folder: Path, session_column: str) -> pd.DataFrame:
    """Rows of participants, and below them the rows of their sessions."""
    root = folder / "subjects" if (folder / "subjects").is_dir() else folder
    of_participant = {row["participant"]: row for row in rows.to_dict("records")}
    added = []
    tables = numbered(find_files(root, lambda _: True, "sub-*/sub-*_sessions.tsv"), "table of sessions")
    for path, name in tables.items():
        with called(tables):
            added += _sessions(path, name, of_participant, session_column)
    if not added:
        return rows
    both = pd.concat([rows, pd.DataFrame(added)], ignore_index=True)
    return both.astype(object).where(both.notna(), "").astype({"required": bool})


def _sessions(
    path: Path, name: str, of_participant: Mapping[str, Mapping[str, str]], session_column: str
) -> list[dict[str, Any]]:
    """The rows of one participant's table of sessions, over what the table of participants says."""
    if path.name != f"{path.parent.name}_sessions.tsv":
        raise DataError(
            f"{path}: a table of sessions in the folder of another participant; expected one id in both names. "
            "Rename or move it"
        )
    sessions = read_table(path)
    column = find_column(sessions, session_column, SESSION_COLUMNS, path)
    if column is None:
        raise DataError(f"{path}: no column of sessions among {shown_columns(sessions)}; name it session_id")
    participant = path.parent.name.removeprefix("sub-")
    rows = []
    for number, row in enumerate(sessions.to_dict("records"), start=1):
        session = row[column].removeprefix("ses-")
        own = {"participant": participant, "session": session, "file": "", "required": False}
        place = f"row {number} below the header of {name}"
        rows.append({**of_participant.get(participant, {}), **row, **own, "table_row": place})
    return rows
