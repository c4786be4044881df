"""Names of regions, from the tables that come with atlases."""

import re
from pathlib import Path
from xml.etree import ElementTree

from xaitools.data.tables import parse_table, plain, read_content
from xaitools.errors import DataError, DataFileError

_INDEX_COLUMNS = ("index", "roivalue", "value", "labelvalue", "id", "labelid", "roiid", "number", "label")
_NAME_COLUMNS = ("name", "roiname", "labelname", "regionname", "region", "structure", "structname", "label")


def read_names(path: Path) -> dict[int, str]:
    """Names of labels from a table, by index, without 0; in any form that `load_atlas` reads.

    Raises
    ------
    DataFileError
        If the file is missing, or no such table.
    """
    if not path.is_file():
        raise DataFileError(
            f"no table of region names at {path.name}: give a CSV, TSV, XML or text file with them"
        )
    data = read_content(path)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    if text.lstrip().startswith("<"):
        rows = _xml_rows(path, data)
    else:
        rows = _text_rows(
            path, [line for line in text.splitlines() if line.strip() and line.lstrip()[0] != "#"]
        )
    table: dict[int, str] = {}
    for index, name in rows:
        if name.strip() and table.setdefault(index, name) != name:
            raise DataError(
                f"{path}: index {index} is named {table[index]!r} and {name!r}; correct the table"
            )
    if not table:
        raise DataFileError(
            f"{path}: no names of regions found; expected XML of SPM or FSL, a table with columns of indices and names "
            "such as index, name, or lines of an index and a name"
        )
    return {index: name for index, name in table.items() if index != 0}


def _xml_rows(path: Path, data: bytes) -> list[tuple[int, str]]:
    try:
        root = ElementTree.fromstring(data)
        entries = list(root.iter("label"))
        if entries and "index" in entries[0].attrib:  # FSL: the volumes of a probabilistic atlas count from 0
            kind = (root.findtext("header/type") or "").strip().lower()
            first = 0 if kind == "label" else 1
            return [
                (_index(entry.attrib.get("index")) + first, (entry.text or "").strip()) for entry in entries
            ]
        return [
            (_index(entry.findtext("index")), (entry.findtext("name") or "").strip()) for entry in entries
        ]
    except (ElementTree.ParseError, ValueError) as error:
        raise DataFileError(
            f"{path}: damaged XML ({error}); expected labels with an index and a name"
        ) from None


def _text_rows(path: Path, lines: list[str]) -> list[tuple[int, str]]:
    bare = [re.fullmatch(r"\s*(\d+)[\s,;]+(.+?)((?:[\s,;]+\d+){4})?\s*", line) for line in lines]
    try:
        if bare and bare[0]:  # ITK-SNAP writes the name last, in quotes
            quoted = [re.search(r'"(.+)"', line) for line in lines]
            return [
                (_index(row[1]), end[1] if end else row[2])
                for row, end in zip(bare, quoted, strict=True)
                if row
            ]
        if not lines:
            return []
        table = parse_table("\n".join(lines), path)
        numbers = {column: table[column].str.fullmatch(r"-*\d+").all() for column in table}
        index = _pick(_INDEX_COLUMNS, [column for column in table if numbers[column]])
        name = _pick(_NAME_COLUMNS, [column for column in table if not numbers[column]])
        if index is None or name is None:
            return []
        return [(_index(cell), own) for cell, own in zip(table[index], table[name], strict=True)]
    except ValueError as error:
        raise DataFileError(f"{path}: {error}; expected whole numbers. Correct the table") from None


def _index(cell: str | None) -> int:
    """The whole number of a cell, of 18 digits at most, as 64 bits hold; ValueError if it is none."""
    if not re.fullmatch(r"\s*[+-]?\d{1,18}\s*", cell or ""):
        raise ValueError(f"{(cell or '')[:40]!r} as an index")
    return int(cell or "")


def _pick(known: tuple[str, ...], columns: list[str]) -> str | None:
    """The column with the first of the known titles."""
    return next((column for title in known for column in columns if plain(column) == title), None)
