"""The one reader of tables, CSV and TSV files as text, and the finder of their columns."""

import codecs
import csv
import io
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd

from xaitools.errors import DataError, DataFileError

FILE_COLUMNS = ("file", "filename", "file_name", "path", "dicom_name", "image")
MOST_BYTES, MOST_COLUMNS = 2**26, 2**14
MOST_SHOWN = 50
SESSION_COLUMNS = ("session_id", "session", "visit")
# No text has these: files of Excel, zip files, pictures.
CONTROLS = re.compile(r"[\x00-\x08\x0e-\x1f]")


def read_table(path: Path) -> pd.DataFrame:
    """Read a CSV or TSV file as text, see :func:`parse_table`.

    UTF-8 and UTF-16 are told by their marks and their bytes; what is neither is taken as Windows-1252 (Latin-1).

    Raises
    ------
    DataFileError
        Missing, or not such a table.
    DataError
        No rows.
    """
    table = parse_table(_decoded(read_content(path), path), path)
    if table.empty:
        raise DataError(f"{path}: no rows below the header; expected one for each image or subject")
    return table


def read_content(path: Path) -> bytes:
    """The bytes of a file of text.

    Raises
    ------
    DataFileError
        Missing, no regular file, which may never end, or larger than a table is.
    """
    try:
        if path.exists() and not path.is_file():
            raise DataFileError(f"{path}: no file; give a CSV or TSV file")
        if (size := path.stat().st_size) > MOST_BYTES:
            raise DataFileError(
                f"{path}: {size} bytes; expected a table of at most {MOST_BYTES}. Save the columns that are needed"
            )
        return path.read_bytes()
    except DataFileError:
        raise
    except OSError as error:
        raise DataFileError(
            f"{path}: no such table, or one that cannot be opened ({type(error).__name__}); give a CSV or TSV file"
        ) from None


def _decoded(content: bytes, path: Path) -> str:
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encodings = ["utf-16"]
    elif b"\0" in content[:2]:
        encodings = ["utf-16-be" if content[0] == 0 else "utf-16-le"]
    else:
        encodings = ["utf-8-sig", "cp1252", "latin-1"]
    for encoding in encodings:
        with suppress(UnicodeDecodeError):
            text = content.decode(encoding)
            if not CONTROLS.search(text):
                return text
    raise DataFileError(
        f"{path}: not a text file; expected a CSV or TSV table. Save it as one, in UTF-8 (in Excel: CSV UTF-8)"
    )


def parse_table(text: str, where: str | Path) -> pd.DataFrame:
    """A table whose cells are divided by tabs, commas or semicolons, or by blanks where its header has none of these.

    Cells are text in Unicode's composed form (NFC), without the blanks around them; those that a short row lacks are
    empty, and empty ones beyond the header are left out, as are columns without a name or cell. Of two columns of one
    name the second is called ``name (2)``. Numbers with a decimal comma, which semicolons or tabs allow, get a point.

    Raises
    ------
    DataFileError
        It is empty, a quotation mark is not closed, or a row has more cells than the header, so that it is unknown
        which column is which.
    """
    text = unicodedata.normalize("NFC", text.replace("\ufeff", "").replace("\r\n", "\n").replace("\r", "\n"))
    text = text.lstrip("\n")
    if said := re.match(r'"?sep=(.)"?\n', text):  # Excel's own first line
        text = text[said.end() :]
    header = re.sub(r'"[^"]*"', "", text.split("\n", 1)[0])
    sign = said[1] if said else max("\t,;", key=header.count)
    if sign not in header and " " in header.strip():
        sign, text = " ", "\n".join(re.sub(" +", " ", line.strip()) for line in text.split("\n"))
    try:
        lines = io.StringIO(text, newline="")
        rows = [
            [cell.strip() for cell in row]
            for row in csv.reader(lines, delimiter=sign, skipinitialspace=sign != " ")
        ]
    except csv.Error as error:
        raise _unreadable(where, str(error)) from None
    rows = [row for row in rows if any(row)]
    if not rows:
        raise _unreadable(where, "it is empty")
    if text.count('"') % 2:
        raise _unreadable(where, "a quotation mark is not closed")
    width = len(rows[0])
    if width > MOST_COLUMNS:
        raise _unreadable(where, f"{width} columns, of which at most {MOST_COLUMNS} are read")
    for line, row in enumerate(rows[1:], start=1):
        if any(row[width:]):
            raise _unreadable(where, f"{len(row)} cells in row {line} below a header of {width}")
    cells = [(row + [""] * width)[:width] for row in rows[1:]]
    table = pd.DataFrame(cells, columns=_own_names(rows[0]), dtype=str)
    table = table[[name for name, given in zip(table, rows[0], strict=True) if given or table[name].any()]]
    return table if sign == "," else table.assign(**{name: _with_points(table[name]) for name in table})


def _unreadable(where: str | Path, why: str) -> DataFileError:
    return DataFileError(
        f"{where}: cannot be read as a CSV or TSV table ({why}); expected a header, and below it rows of as many "
        "cells. Correct or fetch it again"
    )


def _own_names(header: Sequence[str]) -> list[str]:
    """Names of columns, no two alike."""
    names: dict[str, None] = {}
    counts = Counter[str]()
    for position, given in enumerate(header, start=1):
        name = base = given or f"column {position}"
        while name in names:
            counts[base] += 1
            name = f"{base} ({counts[base] + 1})"
        names[name] = None
    return list(names)


def _with_points(column: pd.Series) -> pd.Series:
    """The column with points for its decimal commas; ``1,234`` alone, which may be a thousand, stays as it is."""
    cells = [cell for cell in column if cell]
    decimal = any(re.fullmatch(r"[+-]?(0,\d+|\d+,(\d{1,2}|\d{4,}))", cell) for cell in cells)
    fits = all(re.fullmatch(r"[+-]?\d+(,\d+)?", cell) for cell in cells)
    return column.str.replace(",", ".") if decimal and fits else column


def find_column(table: pd.DataFrame, wanted: str, usual: Sequence[str], where: str | Path) -> str | None:
    """The column named `wanted`, case aside, or without a wish the first of the `usual` ones, or None.

    Raises
    ------
    DataError
        `wanted` is not there, the message lists the columns; or two columns have that name.
    """
    wanted = unicodedata.normalize("NFC", wanted.strip())
    lower = {column.lower(): column for column in reversed(list(table.columns))}
    found = next((lower[name] for name in ([wanted.lower()] if wanted else usual) if name in lower), None)
    found = wanted if wanted in table.columns else found
    if f"{found} (2)" in table.columns:
        raise DataError(
            f"{where}: two columns are named {found!r}; expected one. Rename the other, or take it out"
        )
    if wanted and found is None:
        raise DataError(
            f"{where}: no column {wanted!r}; its columns are {shown_columns(table)}. Name one of these"
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


def shown_columns(table: pd.DataFrame) -> str:
    """The names of a table's columns for a message, the first fifty of many."""
    names, more = list(table.columns), len(table.columns) - MOST_SHOWN
    return f"{names[:MOST_SHOWN]}{f' and {more} more' if more > 0 else ''}"


def shown_values(values: Sequence[str]) -> str:
    """The different values of a column for a message; more than ten, which may be names, are counted only."""
    found = sorted(set(values))
    return f"the values {found}" if len(found) <= 10 else f"{len(found)} different values"
