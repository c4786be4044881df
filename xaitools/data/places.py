"""How the loaders say where a fault is, without a name.

A path may name a person. So an error names a sample by its study id, ``sub-003``, once it has one. Before that, it
names a file by its number among all files of the folder: ``file 17 of 66 (.dcm)``. The path itself stands in the
error's attribute `path`, in memory only. A table that the user gave, or that lies at the top of the folder, keeps its
name. Where a name is what is wrong, the message quotes the name, without its path.

Readers know no ids, and write the path. The loaders know them, and read within :func:`without_names`.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from xaitools.data.folders import ending, find_files
from xaitools.errors import XaitoolsError

TABLES = (".csv", ".tsv")
COUNTED, PATH = "counted in sorted order; ", "the error's attribute 'path' tells which file"


@contextmanager
def without_names(ids: Mapping[Path, str] | None = None, folder: Path | None = None) -> Iterator[None]:
    """Within it, our errors say study ids or numbers of files in place of paths.

    Parameters
    ----------
    ids : mapping
        What to call files whose sample has a study id.
    folder : Path, optional
        The files below it, and the folders, are called by their numbers.
    """
    try:
        yield
    except XaitoolsError as error:
        text = str(error)
        shown = {str(path): name for path, name in (ids or {}).items() if str(path) in text}
        if folder is not None and f"{folder}/" in text.replace("\\", "/"):
            numbered = {path: name for path, name in _numbers(folder).items() if path in text}
            shown = numbered | shown
        if shown:
            _rename(error, text, shown)
        raise


def _rename(error: XaitoolsError, text: str, shown: Mapping[str, str]) -> None:
    """Replace paths in an error, the longest first, and keep the first of them in memory."""
    pattern = "|".join(re.escape(path) for path in sorted(shown, key=len, reverse=True))
    found = re.findall(rf"(?:{pattern})(?!\w)", text)
    renamed = re.sub(rf"(?:{pattern})(?!\w)", lambda match: shown[match[0]], text)
    if found and error.path is None:
        error.path = Path(found[0])
        renamed += f" ({COUNTED if shown[found[0]].startswith(('file ', 'folder ')) else ''}{PATH})"
    error.args = (renamed,)


def _numbers(folder: Path) -> dict[str, str]:
    """What to call each file and folder below a folder, the tables at its top aside."""
    files = find_files(folder, lambda _: True)
    folders = sorted({place for path in files for place in path.parents if folder in place.parents})
    names = {str(path): f"folder {k} of {len(folders)}" for k, path in enumerate(folders, start=1)}
    for k, path in enumerate(files, start=1):
        if path.parent != folder or path.suffix.lower() not in TABLES:
            names[str(path)] = f"file {k} of {len(files)} ({ending(path)})"
    return names
