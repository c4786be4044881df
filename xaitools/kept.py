"""What the cache holds: trained weights, prepared volumes, and what killed runs left there."""

import json
import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from xaitools.files import abandoned
from xaitools.seals import NoSealError, check_seal

_TRAINING = re.compile(r"(?P<network>\w+)-[0-9a-f]{16}(?P<kind>\.safetensors|\.json|\.checkpoint\.pt)")
_VOLUME = re.compile(r"[0-9a-f]{32}\.safetensors")
UNFINISHED, LEFT = "unfinished training of ", "left by a killed run"
_LONGEST_HEADER = 2**20


@dataclass(frozen=True)
class Piece:
    """What is made, and made again, as one.

    Attributes
    ----------
    kind
        "weights of NETWORK", "unfinished training of NETWORK", "left by a killed run", or the name of the volumes'
        folder.
    study
        The study that made it; "" where that is not known.
    files
        Its files.
    """

    kind: str
    study: str
    files: tuple[Path, ...]

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(path.stat().st_size for path in self.files)

    @property
    def age(self) -> float:
        """Seconds since it was made."""
        return time.time() - max(path.stat().st_mtime for path in self.files)

    def damage(self) -> str:
        """What is wrong with its files, "" if nothing is: all of them are read and compared with their checksums."""
        if self.kind == LEFT:
            return ""
        for path in self.files:
            try:
                check_seal(path)
            except NoSealError:
                return f"{path.name} has no checksum, as of an earlier version"
            except OSError:
                return f"{path.name} is not as it was written"
        return ""

    def delete(self) -> None:
        """Delete its files."""
        for path in self.files:
            path.unlink(missing_ok=True)


def pieces(folder: Path) -> list[Piece]:
    """The pieces in a cache, by kind and study; what is not of xaitools is not among them."""
    found = (
        [piece for own in sorted(folder.iterdir()) if own.is_dir() for piece in _in(own)]
        if folder.is_dir()
        else []
    )
    return sorted(found, key=lambda piece: (piece.kind, piece.study, piece.files))


def useless(found: Iterable[Piece], days: float | None = None) -> Iterator[tuple[Piece, str]]:
    """Pieces that no run takes as they are, or that were made more than `days` ago, and why."""
    for piece in found:
        if piece.kind == LEFT:
            yield piece, f"{piece.files[0].name} was left by a run that was killed"
        elif days is not None and piece.age > days * 24 * 60 * 60:
            yield piece, f"{piece.files[0].name} is more than {days:g} days old"
        elif reason := piece.damage():
            yield piece, reason


def summary(folder: Path, found: Iterable[Piece]) -> str:
    """A table of the pieces in a cache: one line a kind and study, with number, size and age."""
    groups: dict[tuple[str, str], list[Piece]] = {}
    for piece in found:
        groups.setdefault((piece.kind, piece.study), []).append(piece)
    if not groups:
        return f"Nothing in the cache, {folder}."
    rows = [("what", "study", "pieces", "size", "made")]
    for (kind, study), own in groups.items():
        ages = sorted(piece.age for piece in own)
        made = " to ".join(dict.fromkeys((_ago(ages[0]), _ago(ages[-1]))))
        rows.append(
            (kind, study or "-", str(len(own)), in_words(sum(piece.size for piece in own)), f"{made} ago")
        )
    total = in_words(sum(piece.size for own in groups.values() for piece in own))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    return "\n".join([*lines, "", f"{total} in {folder}"])


def in_words(size: int) -> str:
    """Bytes as they are read.

    Examples
    --------
    >>> in_words(999), in_words(45_000_000)
    ('999 B', '45.0 MB')
    """
    unit = max(0, min(3, (len(str(size)) - 1) // 3))
    return f"{size / 1000**unit:.1f} {('B', 'kB', 'MB', 'GB')[unit]}" if unit else f"{size} B"


def _ago(seconds: float) -> str:
    for name, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if (count := int(seconds // length)) >= 1:
            return f"{count} {name}{'s' * (count > 1)}"
    return "a moment"


def _in(folder: Path) -> Iterator[Piece]:
    yield from (Piece(LEFT, "", (path,)) for path in abandoned(folder))
    trainings: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        if folder.name != "weights" and _VOLUME.fullmatch(path.name):
            yield Piece(folder.name, _study(path), (path,))
        elif folder.name == "weights" and (named := _TRAINING.fullmatch(path.name)):
            kind = UNFINISHED if named["kind"] == ".checkpoint.pt" else "weights of "
            trainings.setdefault(f"{kind}{named['network']}\n{path.name.partition('.')[0]}", []).append(path)
    for name, files in trainings.items():
        yield Piece(name.partition("\n")[0], _study(files[0]), tuple(files))


def _study(path: Path) -> str:
    """The study that a file names, in its header or among its entries."""
    try:
        with path.open("rb") as file:
            if path.suffix == ".safetensors":
                length = int.from_bytes(file.read(8), "little")
                return str(
                    json.loads(file.read(min(length, _LONGEST_HEADER)))["__metadata__"].get("study", "")
                )
            return (
                str(json.loads(file.read(_LONGEST_HEADER)).get("study", "")) if path.suffix == ".json" else ""
            )
    except (OSError, ValueError, KeyError, AttributeError, RecursionError):
        return ""
