"""What a run must not tell of persons: where its files lie, and what these are called.

A folder or file may be named after a patient or after the user, so that not even its last part is shown: in its
place stands the parameter that named it, ``{data_dir}``.
"""

import contextlib
import csv
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from xaitools.study.spellings import shared_parts, spellings

PATHS = (
    "data_dir",
    "output_dir",
    "table",
    "masks",
    "model",
    "atlas",
    "label_maps",
    "brain_mask",
    "region_names",
)
"""Parameters that hold a path, but for `WORDS`, ``package.module:factory`` and names of networks."""
WORDS = ("", "auto", "dseg", "heart-and-vessels", "mni", "none", "oasis")

_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_STUDY_ID = re.compile(r"(sub|ses|run|img)-?\d*(_(ses|run|img)-\d+)*")
_LARGEST_TABLE = 50e6  # bytes
_LONGEST_SENTENCE = 10_000  # characters; what is longer is a page


class Private:
    """The paths and names that a run knows, and texts without them.

    Parameters
    ----------
    parameters : mapping
        The run's parameters. Those in `PATHS`, and all others that are a path, are hidden.
    folders : mapping, optional
        More paths, with what to show instead.
    """

    def __init__(self, parameters: Mapping[str, Any], folders: Mapping[str, str] | None = None) -> None:
        self._given = {
            name: value
            for name, value in parameters.items()
            if isinstance(value, str) and is_path(name, value)
        }
        own = [(path, f"{{{name}}}") for name, value in parameters.items() for path in _paths(name, value)]
        self._own = [path for path, _ in own]
        known: dict[str, str] = {}
        for path, stand_in in [*own, *(folders or {}).items(), *_surroundings()]:
            for spelled in _ways(path):
                known.setdefault(spelled, stand_in)
        self._known = dict(sorted(known.items(), key=lambda item: -len(item[0])))

    def text(self, text: str) -> str:
        """`text` with every known path in it replaced, however it is spelled there."""
        return _replace(text, self._known)

    def source(self, text: str) -> str:
        """As :meth:`text`, of a cell that sets the parameters: a path may be a single word there."""
        return _replace(
            self.text(text), {value: f"{{{name}}}" for name, value in self._given.items()}, names=True
        )

    def message(self, text: str) -> str:
        """As :meth:`text`, of an error or a warning: it may also name a file, a folder or a cell of a table."""
        plain = _ANSI.sub("", text)
        hidden = self.source(plain)
        hidden = _replace(hidden, dict.fromkeys(self._names, "…"), names=True)
        return text if hidden == plain else hidden

    def value(self, value: Any) -> Any:
        """`value` without the known paths in its texts; a parameter's own path also if it is a single word."""
        if isinstance(value, Mapping):
            return {
                self.text(key): f"{{{key}}}"
                if key in self._given and item == self._given[key]
                else self.value(item)
                for key, item in ((str(key), item) for key, item in value.items())
            }
        if isinstance(value, list | tuple | set):
            return [self.value(item) for item in value]
        if not isinstance(value, str) or (hidden := self.text(value)) == value:
            return value
        return (
            hidden if len(value) > _LONGEST_SENTENCE else self.message(value)
        )  # below the path may stand a file

    @cached_property
    def _names(self) -> list[str]:
        """Of the files and folders below the known ones, and the cells of tables that tell persons apart."""
        names = {part for path in self._own for part in re.split(r"[\\/]+", path)}
        tables = []
        for path in map(Path, self._own):
            for folder, folders, files in os.walk(path):
                names.update(folders, files)
                tables += [Path(folder) / name for name in files if Path(folder) == path and _is_table(name)]
            if path.is_file():
                names.update(cell for table in [path] if _is_table(path.name) for cell in _cells(table))
        names.update(cell for table in tables for cell in _cells(table))
        names |= {name.split(".")[0] for name in names}
        return sorted(filter(_tells, names), key=len, reverse=True)


def is_path(name: str, value: str) -> bool:
    """Whether the value of a parameter is a path, so that it may name a person.

    Examples
    --------
    >>> is_path("data_dir", "Jane"), is_path("masks", "heart-and-vessels"), is_path("network", "resnet10")
    (True, False, False)
    """
    if name in PATHS or name.endswith(("_dir", "_file", "_path", "_folder")):
        named = value in WORDS or re.fullmatch(r"[A-Za-z_][\w.]+:\w+", value)
        return not named and (name != "model" or bool(re.search(r"[\\/.]", value)))
    return _is_absolute(value) or (bool(re.search(r"[\\/]", value)) and _exists(value))


def _exists(path: str) -> bool:
    try:
        return Path(path).exists()
    except (OSError, ValueError):  # too long for a name, or with a null
        return False


def _is_absolute(value: str) -> bool:
    return bool(re.match(r"(?:~|[\\/]|[A-Za-z]:[\\/]).*\w", value))


def _paths(name: str, value: Any) -> Iterator[str]:
    """The paths in the value of a parameter; the value may list them, also separated by commas."""
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if isinstance(value, str):
        pieces = {value, *(piece.strip() for piece in value.split(","))} if name == "model" else {value}
        yield from (piece for piece in sorted(pieces) if is_path(name, piece))
    elif isinstance(value, Mapping):
        for item in (*value, *value.values()):
            yield from _paths("", item)
    elif isinstance(value, list | tuple | set):
        for item in value:
            yield from _paths("", item)


def _surroundings() -> Iterator[tuple[str, str]]:
    """Folders of this process that name a user, with what is shown instead."""
    yield str(Path.cwd()), "."
    yield str(Path(__file__).parents[2]), "python"
    for path in (sys.prefix, *sys.path):
        if Path(path).is_absolute():
            yield path, "python"
    yield str(Path.home()), "~"


def _ways(path: str) -> Iterator[str]:
    """The path as given, in full, without links and, as IPython's tracebacks have it, from the home folder."""
    home = str(Path.home())
    ways = [path]
    with contextlib.suppress(
        OSError, ValueError, RuntimeError
    ):  # a name too long, one with a null, no such user
        full = Path(path).expanduser().absolute()
        ways += [str(full), str(full.resolve())]
    for way in (way.rstrip("\\/") for way in ways):
        if re.search(r"[\\/]", way):
            yield way
            if way.startswith(home + os.sep):
                yield "~" + way.removeprefix(home)


def _replace(text: str, known: Mapping[str, str], *, names: bool = False) -> str:
    """Replace what is known by its stand-in, the longest first; `names` stand between characters of no word."""
    ordered = [item for item in known if all(part in text for part in shared_parts(item))]
    if not ordered:
        return text
    ordered.sort(key=len, reverse=True)
    pattern = "|".join(f"({_bounded(item, names)})" for item in ordered)
    shown = [known[item] for item in ordered]
    return re.sub(pattern, lambda match: shown[(match.lastindex or 1) - 1], text)


def _bounded(item: str, name: bool) -> str:
    """A short path may stand in packed data by chance, and a plain word is a name only between quotes."""
    if name and re.fullmatch(r"[a-z]+", item):
        return rf"(?<=['\"`]){item}(?=['\"`\\])"
    if name:
        return rf"(?<!\w){spellings(item)}(?!\w)"
    return rf"(?<![\w+/=]){spellings(item)}(?![\w+=])" if len(item) < 8 else spellings(item)


def _tells(name: str) -> bool:
    """Whether a name may tell of a person: no study id, no short number, no two letters."""
    return len(name) > 2 and not _STUDY_ID.fullmatch(name) and not re.fullmatch(r"[\W\d_]{,5}", name)


def _is_table(name: str) -> bool:
    return name.lower().endswith((".csv", ".tsv"))


def _cells(table: Path) -> set[str]:
    """The cells of columns with many values, which persons can be told apart by; categories are none."""
    try:
        if table.stat().st_size > _LARGEST_TABLE:
            return set()
        text = _decoded(table.read_bytes())
        rows = list(csv.reader(text.splitlines(), delimiter=max(",;\t", key=text.count)))[1:]
    except (OSError, csv.Error):
        return set()
    columns: Iterable[set[str]] = (
        {row[i].strip() for row in rows if i < len(row)} for i in range(max(map(len, rows), default=0))
    )
    return {cell for own in columns if len(own) > min(20, len(rows) / 2) for cell in own}


def _decoded(content: bytes) -> str:
    for encoding in ("utf-16",) if content[:2] in (b"\xff\xfe", b"\xfe\xff") else ("utf-8-sig", "cp1252"):
        with contextlib.suppress(UnicodeDecodeError):
            return content.decode(encoding)
    return content.decode("latin-1")
