"""Run a study over a grid of parameters: each point a run in a folder of its own, then one table of all."""

import csv
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any

import joblib
from tqdm.auto import tqdm

from xaitools.errors import ParameterError, XaitoolsError
from xaitools.files import digest, write_csv
from xaitools.reports.parameters import check_parameters, usual_preset
from xaitools.reports.runner import content_key, inputs, private_of, run_notebook
from xaitools.study.manifest import read_manifest
from xaitools.study.notebooks import find_notebook
from xaitools.study.privacy import Private
from xaitools.study.run import METRIC_COLUMNS

DASK_TIMEOUT = 20.0  # seconds until a scheduler that does not answer is given up


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

    A point whose run has finished with the same notebook and parameters is not run again. A run that fails
    does not stop the others: its error stands in ``runs.csv``.

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
        How many processes to run at a time on this machine; the processor's cores are divided among them.
    dask : str, optional
        Address of a dask scheduler to run on instead. Its workers need xaitools and the same file system.
    progress : bool
        Show a progress bar.

    Returns
    -------
    Path
        ``metrics.csv`` of the whole sweep: the columns of each run's, and one ``grid_NAME`` for each
        parameter of the grid. ``runs.csv`` beside it lists the runs with their status.

    Raises
    ------
    ParameterError
        For an unknown study, preset or parameter, or a value of the wrong type; nothing is run then.
    """
    notebook = find_notebook(study).resolve()
    folder = Path(out or Path("output") / notebook.stem / "sweep").resolve()
    preset = usual_preset(notebook) if preset is None else preset
    points = grid_points(notebook, grid)
    folders = [folder / folder_name(point) for point in points]
    values = [inputs(notebook, preset, {**(parameters or {}), **point}) for point in points]
    tasks = [
        joblib.delayed(_run_point)(index, notebook, value, place, Path.cwd())
        for index, (value, place) in enumerate(zip(values, folders, strict=True))
    ]
    failures: dict[int, str] = {}
    with _backend(jobs, dask):
        done = joblib.Parallel(return_as="generator_unordered")(tasks)
        for index, error in tqdm(
            done, total=len(tasks), desc=notebook.stem, unit="run", disable=not progress
        ):
            failures[index] = error
    return _gather(notebook, folder, points, folders, [failures[index] for index in range(len(points))])


def grid_points(notebook: Path, grid: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Every combination of the grid's values, checked against the notebook's parameters."""
    if not grid:
        raise ParameterError("the grid is empty: name at least one parameter and its values")
    if empty := [name for name, choices in grid.items() if not choices]:
        raise ParameterError(f"the grid has no values for {', '.join(empty)}: give at least one to try")
    return [
        check_parameters(notebook, dict(zip(grid, point, strict=True))) for point in product(*grid.values())
    ]


def folder_name(point: Mapping[str, Any]) -> str:
    """A readable name for a point of the grid; with a hash where readable would not be unique or too long."""
    text = "_".join(f"{name}-{value}" for name, value in point.items())
    hidden = Private(point).value(point)
    shown = "_".join(name if value == f"{{{name}}}" else f"{name}-{value}" for name, value in hidden.items())
    plain = re.sub(r"[^\w.-]+", "-", shown)
    if plain == text and len(plain) <= 80:
        return plain
    return f"{plain[:70].strip('-.')}-{digest([text])[:8]}"


def _shown(point: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a point, each path as its parameter and a digest, which tells it from the others."""
    hidden = Private(point).value(point)
    return {
        name: f"{hidden[name]} {digest([str(value)])[:8]}" if hidden[name] == f"{{{name}}}" else hidden[name]
        for name, value in point.items()
    }


def _run_point(
    index: int, notebook: Path, values: dict[str, Any], folder: Path, cwd: Path
) -> tuple[int, str]:
    """Run one point unless it is done; its index, and its error if it failed."""
    manifest = read_manifest(folder)
    if manifest.get("status") == "done" and manifest.get("key") == content_key(notebook, values):
        return index, ""
    try:
        run_notebook(notebook, values, folder, cwd=cwd, progress=False)
    except XaitoolsError as error:
        return index, private_of(notebook, values, folder).message(str(error))
    return index, ""


@contextmanager
def _backend(jobs: int, dask: str | None) -> Iterator[None]:
    if dask is None:
        threads = max(1, (os.cpu_count() or 1) // jobs)
        with joblib.parallel_config("loky", n_jobs=jobs, inner_max_num_threads=threads):
            yield
        return
    try:
        from distributed import Client
    except ImportError as error:
        raise ParameterError("dask is not installed: pip install 'xaitools[dask]'") from error
    try:
        client = Client(dask, timeout=DASK_TIMEOUT)
    except (OSError, ValueError) as error:
        raise ParameterError(f"no dask scheduler answers at '{dask}': {error}") from error
    with client, joblib.parallel_config("dask"):
        yield


def _gather(
    notebook: Path, folder: Path, points: list[dict[str, Any]], folders: list[Path], failures: list[str]
) -> Path:
    grid_columns = tuple(f"grid_{name}" for name in points[0])
    metrics: list[dict[str, Any]] = []
    runs: list[dict[str, Any]] = []
    for point, place, error in zip(points, folders, failures, strict=True):
        columns = dict(zip(grid_columns, _shown(point).values(), strict=True))
        manifest = read_manifest(place)
        report = f"{place.name}/{notebook.stem}.html"
        seconds = round(sum(manifest.get("seconds", {}).values()), 3)
        outcome = {"status": manifest["status"], "seconds": seconds, "report": report, "error": error}
        runs.append({**columns, **outcome})
        if manifest["status"] == "done" and (place / "metrics.csv").exists():
            with (place / "metrics.csv").open(encoding="utf-8", newline="") as file:
                metrics.extend({**columns, **row} for row in csv.DictReader(file))
    write_csv(folder / "runs.csv", (*grid_columns, "status", "seconds", "report", "error"), runs)
    return write_csv(folder / "metrics.csv", (*grid_columns, *METRIC_COLUMNS), metrics)
