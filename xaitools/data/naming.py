"""What messages call the files of persons: a study id once it is known, before that a number; the name is private."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from xaitools.errors import XaitoolsError


@contextmanager
def called(names: Mapping[Path, str]) -> Iterator[None]:
    """Let errors call files by other names; the first such file is then the error's ``file``.

    Parameters
    ----------
    names : mapping
        What to call each file.

    Examples
    --------
    >>> with called({Path("Jane.nii"): "sub-001"}):
    ...     raise XaitoolsError("Jane.nii: truncated")
    Traceback (most recent call last):
    xaitools.errors.XaitoolsError: sub-001: truncated
    """
    try:
        yield
    except XaitoolsError as error:
        text = str(error)
        found = sorted((path for path in names if str(path) in text), key=lambda path: text.index(str(path)))
        error.file = error.file or next(iter(found), None)
        for path in sorted(found, key=lambda path: -len(str(path))):
            text = text.replace(str(path), names[path])
        error.args = (text,)
        raise


def numbered(paths: Sequence[Path], what: str = "file") -> dict[Path, str]:
    """Names of files before there are study ids: ``file 2 of 30 (sorted)``, in the order given, which is that of paths."""
    return {path: f"{what} {number} of {len(paths)} (sorted)" for number, path in enumerate(paths, start=1)}
