"""The one reader of tables, CSV and TSV files as text, and the finder of their columns."""

import io
import re
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from xaitools.errors import DataError, DataFileError

FILE_COLUMNS = ("file", "filename", "file_name", "path", "dicom_name", "image")
SESSION_COLUMNS = ("session_id", "session", "visit")


def read_table(path: Path) -> pd.DataFrame:
    """Read a CSV or TSV file in UTF-8 as text, see :func:`parse_table`.

    Raises
    ------
    DataFileError
        Missing, or not such a table.
    DataError
        No rows.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataFileError(
            f"{path}: no such table, or not a text file in UTF-8 ({type(error).__name__}); give a CSV or TSV file"
        ) from None
    table = parse_table(text, path)
    if table.empty:
        raise DataError(f"{path}: no rows below the header; expected one for each image or subject")
    return table


def parse_table(text: str, where: str | Path) -> pd.DataFrame:
    """A table whose cells are divided by tabs, commas or semicolons, or by blanks where its header has none of these.

    Cells are text, without the blanks around them; those that a short row lacks are empty.

    Raises
    ------
    DataFileError
        It is empty, or a row has more cells than the header, so that it is unknown which column is which.
    """
    header = text.lstrip("\r\n").split("\n", 1)[0]
    sign = max("\t,;", key=header.count)
    delimiter = " " if sign not in header and " " in header.strip() else sign
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            table = pd.read_csv(
                io.StringIO(text),
                sep=delimiter,
                dtype=str,
                keep_default_na=False,
                index_col=False,
                skipinitialspace=True,
            )
    except (pd.errors.ParserError, pd.errors.EmptyDataError, pd.errors.ParserWarning) as error:
        raise DataFileError(
            f"{where}: cannot be read as a CSV or TSV table ({str(error).strip()}); expected a header, and "
            "below it rows of as many cells. Correct or fetch it again"
        ) from None
    table.columns = [str(column).strip() for column in table.columns]
    return table.apply(lambda column: column.str.strip())


def find_column(table: pd.DataFrame, wanted: str, usual: Sequence[str], where: str | Path) -> str | None:
    """The column named `wanted`, case aside, or without a wish the first of the `usual` ones, or None.

    Raises
    ------
    DataError
        `wanted` is not there; the message lists the columns.
    """
    if wanted in table.columns:
        return wanted
    lower = {column.lower(): column for column in reversed(list(table.columns))}
    found = next((lower[name] for name in ([wanted.lower()] if wanted else usual) if name in lower), None)
    if wanted and found is None:
        raise DataError(
            f"{where}: no column {wanted!r}; its columns are {list(table.columns)}. Name one of these"
        )
    return found


def plain(name: str) -> str:
    """The small letters of a column's name alone, for names whose spelling varies: ``pixelsizemm``."""
    return re.sub("[^a-z]", "", name.lower())


def number(cell: str) -> float:
    """The number in a cell, NaN if it has none or an infinite one."""
    try:
        value = float(cell)
    except ValueError:
        return np.nan
    return value if np.isfinite(value) else np.nan


def is_number(cell: str) -> bool:
    """Whether a cell is a finite number."""
    return not np.isnan(number(cell))


def shown_values(values: Sequence[str]) -> str:
    """The different values of a column for a message; more than ten, which may be names, are counted only."""
    found = sorted(set(values))
    return f"the values {found}" if len(found) <= 10 else f"{len(found)} different values"
