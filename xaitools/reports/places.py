"""The folders that a run writes to: checked before it starts, and what to say where writing fails later."""

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from xaitools.cache import cache_dir
from xaitools.errors import StorageError, XaitoolsError
from xaitools.kept import in_words as in_bytes

LEAST = 10_000_000
"""Bytes that a report needs at the least: plotly's script, twice."""

_PROBE = 1 << 16  # bytes; what a nearly full disk cannot take is not found out with a single one
_FULL = 1 << 20  # bytes; whoever fails with less than this left may have failed for that
_SHORT_OF_SPACE = (errno.ENOSPC, errno.EDQUOT)
_CODE = re.compile(r"\[(?:Errno|WinError) (\d+)\] (?P<said>[^:\n]+)(?:: '(?P<path>[^'\n]*)')?")
_RUST = re.compile(r" ?\(os error (\d+)\)")


def check_places(folder: Path) -> None:
    """Refuse a run whose output folder or cache cannot be written to, before anything is computed.

    Raises
    ------
    StorageError
        If one of them cannot, or if the user has no home folder, which paths are hidden by.
    """
    try:
        Path.home()
    except RuntimeError as error:
        raise StorageError(
            "this user has no home folder; expected one: name it by the variable HOME. Nothing has been run"
        ) from error
    check_folder(folder, "output folder", "name another one with --out (out= in Python)", least=LEAST)
    check_folder(cache_dir(), "cache", "name another one by the variable XAITOOLS_CACHE")


def check_folder(folder: Path, what: str, instead: str, *, least: int = 0) -> None:
    """Make a folder and write a file into it, which leaves no trace: better refused now than after hours of work.

    Parameters
    ----------
    folder : Path
        It may not exist.
    what : str
        What it is, for the message.
    instead : str
        How to name another one, for the message.
    least : int
        Bytes that have to be free there.

    Raises
    ------
    StorageError
        If it cannot be made or written to, or if less is free.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write_into(folder)
        free = shutil.disk_usage(folder).free
    except (OSError, ValueError) as error:
        raise StorageError(
            f"the {what} cannot be written to: {reason(error, folder)}; {instead}. Nothing has been run"
        ) from error
    if free < least:
        raise StorageError(
            f"the {what}: {_left(folder)}, where at least {in_bytes(least)} are needed; free some space, or {instead}. "
            "Nothing has been run"
        )


def can_write(folder: Path) -> bool:
    """Whether something can be written into a folder, or one can be made there and then be written to."""
    try:
        _write_into(existing(folder))
    except OSError:
        return False
    return existing(folder) == folder or not os.path.lexists(folder)


def _write_into(folder: Path) -> None:
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(_PROBE))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(folder)) from error


@contextmanager
def plain_failures(folder: Path) -> Iterator[None]:
    """Raise a `StorageError` in place of what the system says of a file, for a run that writes into `folder`."""
    try:
        yield
    except XaitoolsError:
        raise
    except OSError as error:
        raise StorageError(failure(error, folder)) from error


def failure(error: OSError, folder: Path, wanted: int | None = None) -> str:
    """What the system says of a file, and what to do: free space, say, and give the same command again.

    Parameters
    ----------
    error : OSError
        What was raised.
    folder : Path
        The output folder of the run that it ended.
    wanted : int, optional
        Bytes that were to be written.
    """
    full = next((place for place in _written_to(folder) if _free(place) < _FULL), folder)
    said = reason(error, full if error.errno in _SHORT_OF_SPACE else folder)
    if error.errno not in _SHORT_OF_SPACE:
        return said
    asked = f", {in_bytes(wanted)} were wanted" if wanted else ""
    return (
        f"{said}{asked}. What lies in {folder} stays readable. Free some space and give the same command again: "
        "it goes on from there"
    )


def reason(error: OSError | ValueError, path: Path | None = None) -> str:
    """Why a path cannot be used, in words: `path` where the error names no file."""
    if not isinstance(error, OSError):  # of a path with a null, or of links in a circle
        return f"{str(path)!r} is no path ({error})"
    if isinstance(error.filename, str):
        path = Path(error.filename)
    if path is None:
        return without_codes(str(error))
    match error.errno:
        case errno.ENOSPC:
            return _left(path)
        case errno.EDQUOT:
            return f"the quota of this user is used up where {path} lies"
        case errno.EROFS:
            return f"{path} lies on a file system that can only be read"
        case errno.EACCES | errno.EPERM:
            return f"this user has no permission for {path}"
        case errno.ENAMETOOLONG:
            longest = max(path.parts, key=lambda part: len(os.fsencode(part)), default="")
            return f"a name is too long ({len(os.fsencode(longest))} bytes; mostly 255 are possible): {longest[:40]}…"
        case errno.EEXIST | errno.ENOTDIR:
            taken = _no_folder_on(path)
            return f"{taken} is {'a file' if taken.is_file() else 'no folder'}, where a folder is wanted"
        case errno.EISDIR:
            return f"{path} is a folder, where a file is wanted"
        case errno.ENOENT:
            return f"there is no {path}"
        case _:
            return f"{path}: {error.strerror or error}"


def in_words(text: str, folder: Path) -> str:
    """What a cell failed with, in plain words, and what to do where a disk is full.

    Of an error of the system that passed through a kernel, or through a library in another language, only the text is
    left; of a full disk, sometimes not even that, so that the disks themselves are asked.
    """
    if (found := _CODE.search(text) or _RUST.search(text)) and int(found[1]) in _SHORT_OF_SPACE:
        return failure(OSError(int(found[1]), "", found.groupdict().get("path")), folder)
    if found and found.groupdict().get("path"):
        error = OSError(int(found[1]), found["said"], found["path"])
        text = text[: found.start()] + reason(error, folder) + text[found.end() :]
    full_ones = [_left(place) for place in _written_to(folder) if _free(place) < _FULL]
    return "; perhaps because ".join([without_codes(text), *full_ones[:1]])


def without_codes(text: str) -> str:
    """`text` without the numbers of the system's errors.

    Examples
    --------
    >>> without_codes("a.png cannot be read: [Errno 13] Permission denied")
    'a.png cannot be read: Permission denied'
    """
    return _RUST.sub("", re.sub(r"\[(?:Errno|WinError) \d+\] ", "", text))


def existing(path: Path) -> Path:
    """`path`, or the innermost folder on the way to it that exists."""
    for place in (path, *path.parents):
        with suppress(OSError):
            if place.is_dir():
                return place
    return Path()


def _free(path: Path) -> int:
    try:
        return shutil.disk_usage(existing(path)).free
    except OSError:
        return _FULL


def _left(path: Path) -> str:
    free = _free(path)
    return (
        f"the disk of {path} {'is full' if free < _FULL else 'has too little room'} ({in_bytes(free)} free)"
    )


def _no_folder_on(path: Path) -> Path:
    """The outermost part of a path that is no folder."""
    parts = [*reversed(path.parents), path]
    return next((part for part in parts if os.path.lexists(part) and not part.is_dir()), path)


def _written_to(folder: Path) -> Iterator[Path]:
    yield folder
    yield cache_dir()
    yield Path(tempfile.gettempdir())
