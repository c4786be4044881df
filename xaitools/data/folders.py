"""The one finder of files, and the places in which a name is looked for."""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from xaitools.errors import DataError, DataFileError

MOST_ENDINGS = 8


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


def layout_error(folder: Path, missing: str, layouts: Sequence[str], remedy: str) -> DataFileError:
    """The error for a folder in none of the layouts that a loader knows: which these are, and what is there instead.

    Parameters
    ----------
    folder : Path
    missing : str
        What is not in it.
    layouts : sequence of str
        Those that were looked for.
    remedy : str
        What to do, without the full stop.
    """
    looked_for = "; ".join(f"({number}) {layout}" for number, layout in enumerate(layouts, start=1))
    return DataFileError(
        f"{folder}: {missing} in it; expected {looked_for}. Found instead: {_contents(folder)}. {remedy}"
    )


def _contents(folder: Path) -> str:
    """How many files of each ending are below a folder, the most frequent first; no names."""
    files = find_files(folder, lambda _: True)
    endings = Counter(map(_ending, files))
    shown = [f"{count} {ending}" for ending, count in endings.most_common(MOST_ENDINGS)]
    if (others := len(files) - sum(count for _, count in endings.most_common(MOST_ENDINGS))) > 0:
        shown.append(f"{others} with other endings")
    n_folders = len({path.parent for path in files})
    return f"{', '.join(shown)}, in {n_folders} folder{'s' * (n_folders != 1)}" if files else "no file"


def _ending(path: Path) -> str:
    """The ending of a file's name, if it is one and no part of a name or number: ``.nii.gz``, ``.jpg``."""
    ending = re.search(r"(\.nii)?\.[a-z][a-z0-9]{0,6}$", path.name.lower())
    return ending[0] if ending else "without an ending"


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


def find_listed(name: str, folder: Path, files: Mapping[str, Sequence[Path]], where: str) -> Path:
    """The file or folder that a cell of a table names: by its path below `folder`, or by its name alone.

    Parameters
    ----------
    name : str
        The cell; ``\\`` divides folders as ``/`` does.
    folder : Path
    files : mapping
        Of :func:`by_name`, of the same folder.
    where : str
        Names the cell in messages, which do not show it: ``"a.csv, row 3 below the header"``.

    Raises
    ------
    DataFileError
        There is none.
    DataError
        Several have that name.
    """
    place = folder / name.replace("\\", "/")
    with suppress(OSError, ValueError):  # no name of a file: too long, or with a NUL
        if name and place.exists():
            return place
    names = [composed(place.relative_to(folder).as_posix())] if place.is_relative_to(folder) else []
    names.append(composed(place.name))
    matches = next((files[key] for key in names if key in files), []) if name else []
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise DataError(
            f"{where}: its file fits {len(matches)} files in {folder}; expected one. List paths below that folder"
        )
    raise DataFileError(
        f"{where}: no image of that name in {folder}; expected the name of one, or its path below that folder. Add "
        "the file or remove the row"
    )
