"""Files that are never half written, and digests of contents."""

import csv
import hashlib
import io
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

in_use: set[Path] = set()
"""The stored results that this process has read or written: what a run still needs when it is done."""


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary file beside `path`, with its suffix, that takes its place when the block ends without an error.

    Readers see the old file or the new one, never a part. The folder is made if needed.

    ::

        with replacing("table.csv") as temporary:
            frame.to_csv(temporary)
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{uuid.uuid4().hex}-{path.name}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


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
