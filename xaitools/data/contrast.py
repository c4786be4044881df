"""Which CT slices were made with contrast agent: label tables."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from xaitools.data.tables import FILE_COLUMNS, find_column, read_table, shown_columns, shown_values
from xaitools.errors import DataError

CLASS_NAMES = ("no contrast", "contrast")
LABEL_COLUMNS = ("contrast", "label", "class")
# No "id": that of SIIM's table numbers the slices.
SUBJECT_COLUMNS = ("subject", "subject_id", "participant_id", "patient", "patient_id", "patientid", "lndbid")

# No "none": programs write it where a value is missing.
_WITHOUT, _WITH = (
    frozenset(words.split(", "))
    for words in (
        "0, 0.0, false, f, no, n, no contrast, non-contrast, without, unenhanced, plain",
        "1, 1.0, true, t, yes, y, contrast, with, with contrast, enhanced, contrast-enhanced",
    )
)


@dataclass(frozen=True)
class LabelTable:
    """Labels by row, with the file or the subject that each row is about (at least one of the two)."""

    path: Path
    labels: list[int]
    files: list[str] | None
    subjects: list[str] | None


def read_label_table(path: Path, label_column: str, file_column: str, subject_column: str) -> LabelTable:
    """Read a table with a column of labels and one of files or subjects.

    A column name left empty is looked for among the usual ones, case aside.

    Raises
    ------
    DataFileError
        Missing, or not a table.
    DataError
        No rows, a column that is not there, or labels that cannot be read.
    """
    table = read_table(path)
    label = find_column(table, label_column, LABEL_COLUMNS, path)
    files = find_column(table, file_column, FILE_COLUMNS, path)
    subjects = find_column(table, subject_column, SUBJECT_COLUMNS, path)
    if label is None:
        raise DataError(
            f"{path}: no label column among {shown_columns(table)}; rename it to label, or name it with label_column"
        )
    if files is None and subjects is None:
        raise DataError(
            f"{path}: no column of files or subjects among {shown_columns(table)}; rename one to file or "
            "subject (in a call of load_ct, file_column= or subject_column= names it)"
        )
    return LabelTable(
        path=path,
        labels=_parse_labels(table[label].tolist(), path, label),
        files=None if files is None else table[files].tolist(),
        subjects=None if subjects is None else table[subjects].tolist(),
    )


def _parse_labels(values: Sequence[str], path: Path, column: str) -> list[int]:
    cells = [value.lower() for value in values]
    if not set(cells) <= _WITHOUT | _WITH:
        raise DataError(
            f"{path}, column {column!r}: {shown_values(values)}; expected two like True/False, 1/0, yes/no or "
            "contrast/no contrast. Rewrite the column or name another"
        )
    return [int(cell in _WITH) for cell in cells]
