"""Checksums that stored files carry, so that a file which is not as it was written is found when it is read.

A sealed file holds ``"seal": "sha256:"`` and 64 hexadecimal digits: the SHA-256 of the file with zeros in their place.
The words stand in the metadata of each format: an entry of a JSON object, of the header of a safetensors file, or the
comment of a zip archive. Any bit that changed anywhere in the file is found, before anything in it is believed.
"""

import hashlib
import json
import logging
import re
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from xaitools.errors import DataFileError
from xaitools.files import write_text

logger = logging.getLogger(__name__)

SEAL = "seal"
BLANK = "sha256:" + "0" * 64
"""What stands under the name :data:`SEAL` in a file that is to be sealed."""

_WORDS = re.compile(rb'"seal": ?"sha256:([0-9a-f]{64})"')
_HEAD, _TAIL = 2**20, 2**10  # where the words are looked for: from the start, and before the end
_CHUNK = 2**20
_told: set[Path] = set()


class NoSealError(DataFileError):
    """A file without a checksum, as earlier versions wrote it."""


def checksum(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return _sha256(file)


def seal(path: Path) -> None:
    """Put the checksum into a file that holds :data:`BLANK`, which is not yet where others look for it.

    Raises
    ------
    NoSealError
        If it does not hold it.
    """
    with path.open("r+b") as file:
        place, _ = _find(file, path)
        digits = _sha256(file, place)
        file.seek(place)
        file.write(digits.encode())


def check_seal(path: Path) -> None:
    """Read a file once and compare it with its checksum.

    Raises
    ------
    DataFileError
        If it is not as it was sealed, or no file.
    NoSealError
        If it has no checksum.
    """
    with _opened(path) as file:
        _check(file, path)


def is_sealed(path: Path) -> bool:
    """Whether a file carries a checksum, right or wrong."""
    try:
        with path.open("rb") as file:
            _find(file, path)
    except OSError:
        return False
    return True


def write_json(path: Path, content: Mapping[str, Any]) -> Path:
    """Write a JSON object with its checksum, in one step."""
    text = json.dumps({SEAL: BLANK, **content}, indent=1, ensure_ascii=False) + "\n"
    digits = hashlib.sha256(text.encode()).hexdigest()
    return write_text(path, text.replace(BLANK, f"sha256:{digits}", 1))


def read_json(path: Path, *, unsealed: bool = False) -> dict[str, Any]:
    """The object that :func:`write_json` wrote; with `unsealed` also one that has no checksum.

    Raises
    ------
    DataFileError
        If the file is missing, or not as it was written.
    """
    with _opened(path) as file:
        try:
            _check(file, path)
        except NoSealError:
            if not unsealed:
                raise
        file.seek(0)
        content = file.read()
    try:
        return {name: value for name, value in json.loads(content).items() if name != SEAL}
    except (ValueError, AttributeError, RecursionError) as error:
        raise DataFileError(f"{path} is no JSON object ({type(error).__name__})") from error


def tell_made_again(path: Path, reason: Exception | None = None) -> None:
    """Say that a stored file is not used but made again; of those without a checksum once for a folder."""
    if not isinstance(reason, NoSealError):
        logger.warning("%s is damaged and is made again.", path.name)
    elif path.parent not in _told:
        _told.add(path.parent)
        logger.warning(
            "%s has no checksum, as of an earlier version: it and its like are made again.", path.name
        )


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    if not path.is_file():  # a FIFO never ends
        raise DataFileError(f"no file at {path}")
    with path.open("rb") as file:
        yield file


def _check(file: IO[bytes], path: Path) -> None:
    place, digits = _find(file, path)
    if _sha256(file, place) != digits:
        raise DataFileError(f"{path} is not as it was written: its checksum is another")


def _find(file: IO[bytes], path: Path) -> tuple[int, str]:
    """Where the digits of the checksum stand, and what they are."""
    head = file.read(_HEAD)
    found, start, tail = _WORDS.search(head), 0, b""
    if not found:
        start = max(file.seek(0, 2) - _TAIL, 0)
        file.seek(start)
        tail = file.read()
        found = _WORDS.search(tail)
    if found:
        return start + found.start(1), found[1].decode()
    if _never_had_one(path, head, head + tail):
        raise NoSealError(f"{path} has no checksum")
    raise DataFileError(f"{path} is not as it was written: its checksum is gone")


def _never_had_one(path: Path, head: bytes, seen: bytes) -> bool:
    """Whether this looks like a whole file that was written without a checksum."""
    try:
        if path.suffix == ".safetensors":
            json.loads(head[8 : 8 + int.from_bytes(head[:8], "little")])
        elif path.suffix == ".json":
            dict(json.loads(path.read_bytes()))
        elif not zipfile.is_zipfile(path):
            return False
    except (ValueError, TypeError, RecursionError):
        return False
    return b'"seal"' not in seen and b"sha256:" not in seen


def _sha256(file: IO[bytes], place: int | None = None) -> str:
    """Digest of a file, as if there were zeros at the `place` of the checksum."""
    content = hashlib.sha256()
    file.seek(0)
    if place is not None:
        _feed(content, file, place)
        content.update(b"0" * 64)
        file.seek(place + 64)
    _feed(content, file, None)
    return content.hexdigest()


def _feed(content: Any, file: IO[bytes], length: int | None) -> None:
    while chunk := file.read(_CHUNK if length is None else min(_CHUNK, length)):
        content.update(chunk)
        length = None if length is None else length - len(chunk)
