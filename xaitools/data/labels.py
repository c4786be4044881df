"""Label tables: CSV files with one row per image or subject."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from xaitools.errors import DataError, DataFileError

CLASS_NAMES = ("no contrast", "contrast")
LABEL_COLUMNS = ("contrast", "label", "class")
FILE_COLUMNS = ("file", "filename", "file_name", "path", "dicom_name", "image")
SUBJECT_COLUMNS = ("subject", "subject_id", "participant_id", "patient", "patient_id", "patientid", "lndbid")

_WITHOUT = {
    "0",
    "0.0",
    "false",
    "f",
    "no",
    "n",
    "none",
    "no contrast",
    "non-contrast",
    "without",
    "unenhanced",
    "plain",
}
_WITH = {
    "1",
    "1.0",
    "true",
    "t",
    "yes",
    "y",
    "contrast",
    "with",
    "with contrast",
    "enhanced",
    "contrast-enhanced",
}


@dataclass(frozen=True)
class LabelTable:
    """Labels by row, with the file or the subject that each row is about (at least one of the two)."""

    path: Path
    labels: list[int]
    files: list[str] | None
    subjects: list[str] | None


def read_labels(path: Path, label_column: str, file_column: str, subject_column: str) -> LabelTable:
    """Read a CSV file with a column of labels and one of files or subjects.

    A column name left empty is looked for among the usual ones, case aside.

    Raises
    ------
    DataFileError
        Missing, or not text.
    DataError
        No rows, a column that is not there, or labels that cannot be read.
    """
    rows = _read_rows(path)
    label = _find_column(rows, label_column, LABEL_COLUMNS, path)
    files = _find_column(rows, file_column, FILE_COLUMNS, path)
    subjects = _find_column(rows, subject_column, SUBJECT_COLUMNS, path)
    if label is None:
        raise DataError(
            f"{path}: no label column among {list(rows[0])}; rename it to label, or name it with label_column"
        )
    if files is None and subjects is None:
        raise DataError(
            f"{path}: no column of files or subjects among {list(rows[0])}; rename one to file or "
            "subject (in a call of load_ct, file_column= or subject_column= names it)"
        )
    return LabelTable(
        path=path,
        labels=_parse_labels([row[label] for row in rows], path, label),
        files=None if files is None else [row[files].strip() for row in rows],
        subjects=None if subjects is None else [row[subjects].strip() for row in rows],
    )


def agent_given(agent: str) -> int:
    """1 where a DICOM file names a contrast agent, 0 where the field is empty or says that there is none."""
    return int(agent.strip().lower() not in _WITHOUT | {""})


def _read_rows(path: Path) -> list[dict[str, str]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError):
        raise DataFileError(f"{path}: no such label table, or not a text file; expected a CSV file") from None
    header = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=header.count)
    rows = [dict(row) for row in csv.DictReader(text.splitlines(), delimiter=delimiter, restval="")]
    if not rows:
        raise DataError(f"{path}: no rows below the header; expected one a file or subject")
    return rows


def _find_column(rows: Sequence[dict[str, str]], wanted: str, usual: Sequence[str], path: Path) -> str | None:
    columns = list(rows[0])
    if wanted and wanted not in columns:
        raise DataError(f"{path}: no column {wanted!r}; its columns are {columns}. Name one of these")
    lower = {column.lower(): column for column in reversed(columns) if column}
    return wanted or next((lower[name] for name in usual if name in lower), None)


def _parse_labels(values: Sequence[str], path: Path, column: str) -> list[int]:
    cells = [value.strip().lower() for value in values]
    if not set(cells) <= _WITHOUT | _WITH:
        found = sorted({value.strip() for value in values})
        shown = f"the values {found}" if len(found) <= 10 else f"{len(found)} different values"
        raise DataError(
            f"{path}, column {column!r}: {shown}; expected two like True/False, 1/0, yes/no or "
            "contrast/no contrast. Rewrite the column or name another"
        )
    return [int(cell in _WITH) for cell in cells]
