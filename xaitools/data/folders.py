"""The one finder of files, and the places in which a name is looked for."""

import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from xaitools.errors import DataError, DataFileError


def check_folder(folder: Path, remedy: str, what: str = "folder") -> None:
    """Raise unless `folder` is one.

    Parameters
    ----------
    folder : Path
    remedy : str
        What to give instead, the end of the message.
    what : str
        Names what is expected: ``"folder of masks"``.

    Raises
    ------
    DataFileError
        There is none, or there is a file.
    """
    if folder.is_dir():
        return
    found = f"a file; expected a {what}" if folder.exists() else f"no such {what}"
    raise DataFileError(f"{folder}: {found}; {remedy}")


def find_files(folder: Path, fits: Callable[[Path], bool], pattern: str = "**/*") -> list[Path]:
    """Files below a folder that fit a pattern and a test, sorted.

    Hidden files and those in hidden folders are left out, such as ``._scan.nii``, which macOS adds to ``scan.nii`` on
    foreign disks, and what it packs into ``__MACOSX``.
    """
    return sorted(
        path
        for path in folder.glob(pattern)
        if not any(part.startswith(".") or part == "__MACOSX" for part in path.relative_to(folder).parts)
        and path.is_file()
        and fits(path)
    )


def composed(name: str) -> str:
    """A name in Unicode's composed form (NFC), as tables are read; macOS writes some file names decomposed."""
    return unicodedata.normalize("NFC", name)


def stem(path: Path) -> str:
    """The file name without its suffix, ``.nii.gz`` being one suffix."""
    return path.name[:-7] if path.name.lower().endswith(".nii.gz") else path.stem


def by_name(paths: Iterable[Path], folder: Path | None = None) -> dict[str, list[Path]]:
    """Files by their name, with and without suffix, and by their path below `folder`, in :func:`composed` form."""
    found = defaultdict(list)
    for path in paths:
        keys = {path.name, stem(path)}
        if folder is not None:
            keys.add(path.relative_to(folder).as_posix())
        for key in keys:
            found[composed(key)].append(path)
    return dict(found)


def find_listed(name: str, folder: Path, files: Mapping[str, Sequence[Path]], table: str | Path) -> Path:
    """The file or folder that a cell of a table names: by its path below `folder`, or by its name alone.

    Parameters
    ----------
    name : str
        The cell; ``\\`` divides folders as ``/`` does.
    folder : Path
    files : mapping
        Of :func:`by_name`, of the same folder.
    table : str or Path
        Names the table in messages.

    Raises
    ------
    DataFileError
        There is none.
    DataError
        Several have that name.
    """
    place = folder / name.replace("\\", "/")
    if name and place.exists():
        return place
    names = [composed(place.relative_to(folder).as_posix())] if place.is_relative_to(folder) else []
    names.append(composed(place.name))
    matches = next((files[key] for key in names if key in files), []) if name else []
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise DataError(
            f"{table}: {name!r} fits {len(matches)} files in {folder}; list paths below that folder"
        )
    raise DataFileError(f"{folder}: no image {name!r}, which {table} lists; add the file or remove the row")
