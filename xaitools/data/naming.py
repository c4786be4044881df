"""What messages call the files of persons: a study id once it is known, before that a number; the name is private."""

import re
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
        paths = sorted((path for path in names if str(path) in str(error)), key=lambda path: -len(str(path)))
        if paths:
            pattern = re.compile("|".join(re.escape(str(path)) for path in paths))
            found = pattern.search(str(error))
            error.file = error.file or (Path(found[0]) if found else None)
            error.args = (pattern.sub(lambda match: names[Path(match[0])], str(error)),)
        raise


def numbered(paths: Sequence[Path], what: str = "file") -> dict[Path, str]:
    """Names of files before there are study ids: ``file 2 of 30 (sorted)``; `paths` are sorted."""
    return {path: f"{what} {number} of {len(paths)} (sorted)" for number, path in enumerate(paths, start=1)}
