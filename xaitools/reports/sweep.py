"""Run a study over a grid of parameters: each point a run in a folder of its own, and one table of all."""

import logging
import re
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from xaitools.errors import ParameterError
from xaitools.files import digest
from xaitools.reports.cells import Cell, look
from xaitools.reports.parameters import check_parameters, usual_preset
from xaitools.reports.runner import inputs
from xaitools.reports.sweep_bar import SweepBar
from xaitools.reports.sweep_page import write_page
from xaitools.reports.sweep_tables import gather
from xaitools.reports.workers import run_here, run_on_dask, shares, workload
from xaitools.study.notebooks import find_notebook
from xaitools.study.privacy import Private

logger = logging.getLogger(__name__)


def sweep(
    study: str | Path,
    grid: Mapping[str, Sequence[Any]],
    *,
    preset: str | None = None,
    parameters: Mapping[str, Any] | None = None,
    out: str | Path | None = None,
    jobs: int = 1,
    dask: str | None = None,
    progress: bool = True,
) -> Path:
    """Run a study at every point of a grid of parameters, in parallel, and gather the numbers.

    A point whose run has finished with the same notebook and parameters is not run again, if everything that the run
    left is still as it was: numbers, figures, report and executed notebook by their checksums, maps by their sizes. A
    run that fails does not stop the others.

    Parameters
    ----------
    study : str or Path
        A study's name, or the path of a notebook.
    grid : mapping
        For each parameter's name the values to try.
    preset, parameters : optional
        What all points share, as in `run_study`.
    out : str or Path, optional
        The folder of the sweep; ``output/STUDY/sweep`` if not given.
    jobs : int
        How many processes to run at a time on this machine, at most one for each core; the cores are divided among
        them.
    dask : str, optional
        Address of a dask scheduler to run on instead. Its workers need xaitools and the same file system.
    progress : bool
        Show one progress bar over all runs.

    Returns
    -------
    Path
        ``metrics.csv`` of the whole sweep: the columns of each run's, and one ``grid_NAME`` for each
        parameter of the grid. Beside it ``runs.csv`` lists the runs with their status, ``comparison.csv`` has means
        and intervals over the seeds, and ``index.html`` shows all that. Where a run failed, a warning says so.

    Raises
    ------
    ParameterError
        For an unknown study, preset or parameter, or a value of the wrong type; nothing is run then.
    ClusterError
        If the dask scheduler does not answer, or no longer; what is done is kept, and in the tables.
    """
    notebook = find_notebook(study).resolve()
    folder = Path(out or Path("output") / notebook.stem / "sweep").resolve()
    cells = plan(notebook, grid, preset=preset, parameters=parameters, folder=folder)
    at_a_time, threads = shares(jobs, len(cells))
    left: dict[int, Cell] = {}
    for index, cell in enumerate(cells):
        found = look(cell)
        if found.status == "broken":
            logger.warning("%s: %s; it is run again", cell.name, found.why)
        if found.status != "done":
            left[index] = cell
    errors: dict[int, str] = {}
    try:
        with SweepBar(notebook.stem, [cell.folder for cell in left.values()], len(cells), progress) as bar:
            outcomes = run_on_dask(left, dask) if dask and left else run_here(left, at_a_time, threads)
            for index, errors[index] in outcomes:
                bar.done(left[index].folder)
    finally:
        tables = gather(folder, cells, errors)
        where = "on a dask cluster" if dask else workload(jobs, len(cells))
        write_page(folder, cells, tables, where)
        if len(missing := tables.runs.query("status != 'done'")):
            logger.warning(
                "%d of %d runs are not in the table; runs.csv and index.html tell why",
                len(missing),
                len(cells),
            )
    return folder / "metrics.csv"


def plan(
    notebook: Path,
    grid: Mapping[str, Sequence[Any]],
    *,
    preset: str | None,
    parameters: Mapping[str, Any] | None,
    folder: Path,
) -> list[Cell]:
    """The cells of a sweep, every parameter of each checked."""
    preset = usual_preset(notebook) if preset is None else preset
    return [
        Cell(
            notebook,
            shown_point(point),
            inputs(notebook, preset, {**(parameters or {}), **point}),
            folder / folder_name(point),
        )
        for point in grid_points(notebook, grid)
    ]


def grid_points(notebook: Path, grid: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Every combination of the grid's values, checked against the notebook's parameters."""
    if not grid:
        raise ParameterError("the grid is empty: name at least one parameter and its values")
    if empty := [name for name, choices in grid.items() if not choices]:
        raise ParameterError(f"the grid has no values for {', '.join(empty)}: give at least one to try")
    points = [
        check_parameters(notebook, dict(zip(grid, point, strict=True))) for point in product(*grid.values())
    ]
    if twice := [point for index, point in enumerate(points) if point in points[:index]]:
        shown = ", ".join(f"{name}={value}" for name, value in shown_point(twice[0]).items())
        raise ParameterError(f"the grid has {shown} more than once: give each value once")
    return points


def folder_name(point: Mapping[str, Any]) -> str:
    """A readable name for a point of the grid; with a hash where readable would not be unique or too long."""
    text = "_".join(f"{name}-{value}" for name, value in point.items())
    hidden = Private(point).value(point)
    shown = "_".join(name if value == f"{{{name}}}" else f"{name}-{value}" for name, value in hidden.items())
    plain = re.sub(r"[^\w.-]+", "-", shown)
    if plain == text and len(plain) <= 80:
        return plain
    return f"{plain[:70].strip('-.')}-{digest([text])[:8]}"


def shown_point(point: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a point, each path as its parameter and a digest, which tells it from the others."""
    hidden = Private(point).value(point)
    return {
        name: f"{hidden[name]} {digest([str(value)])[:8]}" if hidden[name] == f"{{{name}}}" else hidden[name]
        for name, value in point.items()
    }
