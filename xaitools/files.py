"""Files that are never half written, and digests of contents."""

import csv
import hashlib
import io
import re
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from xaitools.processes import is_gone, is_of_another_machine, token

in_use: set[Path] = set()
"""The stored results that this process has read or written: what a run still needs when it is done."""


_TEMPORARY = re.compile(r"\.xaitools-([0-9a-f]+\.[0-9a-f]+\.[0-9a-f]+)-[0-9a-f]{8}-.+")
_DAY = 24 * 60 * 60
_swept: set[Path] = set()


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary file beside `path`, with its suffix, that takes its place when the block ends without an error.

    Readers see the old file or the new one, never a part. The folder is made if needed. Temporary files that killed
    processes left in it are deleted, once a process; those of processes that still run are not.

    ::

        with replacing("table.csv") as temporary:
            frame.to_csv(temporary)
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.parent not in _swept:
        _swept.add(path.parent)
        for left in abandoned(path.parent):
            with suppress(OSError):  # another process was faster, or it is another user's
                left.unlink()
    unique = f"{token()}-{uuid.uuid4().hex[:8]}"
    temporary = path.with_name(f".xaitools-{unique}-{path.name[-40:]}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def abandoned(folder: Path) -> Iterator[Path]:
    """Temporary files of :func:`replacing` in a folder whose process was killed.

    Of this machine those whose process is gone; of others, that may share the folder, those more than a day old.
    """
    for path in folder.iterdir():
        if named := _TEMPORARY.fullmatch(path.name):
            try:
                left = _age(path) > _DAY if is_of_another_machine(named[1]) else is_gone(named[1])
            except FileNotFoundError:
                continue  # its process has just put it in place
            if left:
                yield path


def _age(path: Path) -> float:
    return time.time() - path.stat().st_mtime


def write_text(path: str | Path, text: str) -> Path:
    """Write a text file in one step, as UTF-8 with its line ends as they are."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")
    return Path(path)


def digest(parts: Iterable[bytes | memoryview | str]) -> str:
    """Hexadecimal SHA-256 of texts and bytes, one after the other: same contents, same digest.

    Examples
    --------
    >>> digest(["xai", b"tools"]) == digest(["xaitools"])
    True
    """
    content = hashlib.sha256()
    for part in parts:
        content.update(part.encode() if isinstance(part, str) else part)
    return content.hexdigest()


def write_csv(path: str | Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> Path:
    """Write a table in one step: a line of column names, then one line a row."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return write_text(path, text.getvalue())
