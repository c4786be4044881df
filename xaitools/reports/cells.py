"""The cells of a sweep: one run each, in a folder of its own, which tells how it stands with it."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import joblib

from xaitools.errors import DataError, XaitoolsError
from xaitools.reports.promises import broken
from xaitools.reports.runner import content_key, private_of, run_notebook
from xaitools.reports.sweep_bar import forget, telling
from xaitools.study.manifest import ending, read_manifest, write_manifest

Status = Literal["done", "broken", "failed", "interrupted", "outdated", "new"]
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


@dataclass(frozen=True)
class Cell:
    """A point of the grid, the checked parameters of its run, and the folder of that."""

    notebook: Path
    point: Mapping[str, Any]
    values: Mapping[str, Any]
    folder: Path

    @property
    def name(self) -> str:
        """The folder's, which shows nothing private."""
        return self.folder.name

    @property
    def report(self) -> str:
        """The run's report, from the sweep's folder."""
        return f"{self.name}/{self.notebook.stem}.html"


@dataclass(frozen=True)
class Found:
    """What lies in a cell's folder.

    Attributes
    ----------
    status
        "done" if nothing needs to be run; "broken" if a part of a finished run is missing or damaged; "outdated" if
        it was run with another notebook or other parameters; "interrupted" also where a run has begun and has not
        said how it ended.
    why
        What is wrong, in words.
    manifest
        What the run tells of itself.
    """

    status: Status
    why: str = ""
    manifest: Mapping[str, Any] = field(default_factory=dict)


def look(cell: Cell) -> Found:
    """Read what lies in the folder of a cell, every file that its run promised."""
    try:
        manifest = read_manifest(cell.folder)
    except DataError:
        return Found("broken", "manifest.json is damaged")
    status = manifest.get("status")
    if not status:
        return Found("new")
    if status == "failed":
        return Found("failed", manifest.get("error", "no message"), manifest)
    if status != "done":
        return Found("interrupted", manifest.get("error", "it did not come to its end"), manifest)
    if manifest.get("key") != content_key(cell.notebook, cell.values):
        return Found("outdated", "it was run with another notebook or other parameters", manifest)
    flaws = broken(cell.folder, manifest)
    return Found("broken", _sentence(flaws), manifest) if flaws else Found("done", "", manifest)


def run_cell(cell: Cell, cwd: Path, threads: int | None = None) -> str:
    """Run a cell unless it is done; its error if it fails, without what is private.

    Parameters
    ----------
    cell
        What to run, and where.
    cwd
        Folder from which relative paths among the parameters count.
    threads
        How many a process may use; None if its surroundings say so. This process must be there for cells alone.
    """
    found = look(cell)
    if found.status == "done":
        return ""
    if threads:
        os.environ["LOKY_MAX_CPU_COUNT"] = str(threads)  # what joblib takes for the cores of this machine
    try:
        if found.status == "broken" and not found.manifest:
            (cell.folder / "manifest.json").unlink()
        with telling(cell.folder) as told:
            run_notebook(cell.notebook, cell.values, cell.folder, cwd=cwd, progress=told)
        write_manifest(cell.folder, {"threads": _threads_here()})
    except Exception as error:  # whatever it is, the other cells can do without this one
        said = str(error) if isinstance(error, XaitoolsError) else f"{type(error).__name__}: {error}"
        return private_of(cell.notebook, cell.values, cell.folder).message(said)
    return ""


def stopped(cell: Cell, error: BaseException) -> None:
    """Say in the manifest of a cell whose process was ended from outside how it ended, if it has begun."""
    found = look(cell)
    forget(cell.folder)
    if found.status == "interrupted" and found.manifest["status"] == "running":
        write_manifest(
            cell.folder, ending(error), private=private_of(cell.notebook, cell.values, cell.folder)
        )


def _threads_here() -> int:
    users = os.environ.get(THREADS[0], "")
    return int(users) if users.isdigit() else int(joblib.cpu_count())


def _sentence(flaws: Sequence[str]) -> str:
    more = f", and {len(flaws) - 3} more" if len(flaws) > 3 else ""
    return "; ".join(flaws[:3]) + more
