"""The numbers of a sweep in tables: its runs, all their metrics, and means with intervals over the seeds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from xaitools.files import write_text
from xaitools.reports.cells import Cell, Found, look
from xaitools.study.run import METRIC_COLUMNS

OF = ["metric", "model", "method", "over"]
"""What a number of the comparison belongs to; `over` tells whether it is a mean over runs or folds."""
_BOUNDS = (", lower 95 %", ", upper 95 %")
_NOWHERE = "it was run, but nothing is in its folder: do all workers see the same file system?"


@dataclass(frozen=True)
class Tables:
    """What `gather` found.

    Attributes
    ----------
    runs
        One row a cell: its point, how it ended, its report and its error.
    metrics
        One row a number, as texts: the columns of a run's ``metrics.csv``, and its point before them.
    found
        What lies in the folder of each cell.
    """

    runs: pd.DataFrame
    metrics: pd.DataFrame
    found: Sequence[Found]

    @property
    def grid(self) -> list[str]:
        """The columns of the grid's parameters."""
        return [name for name in self.runs if name.startswith("grid_")]

    @property
    def seeds(self) -> list[str]:
        """Those of them that are seeds: what means are taken over."""
        return [name for name in self.grid if name.lower().endswith("seed")]

    @property
    def axes(self) -> list[str]:
        """The others, which are compared."""
        return [name for name in self.grid if name not in self.seeds]


def gather(folder: Path, cells: Sequence[Cell], errors: Mapping[int, str]) -> Tables:
    """Write ``runs.csv``, ``metrics.csv`` and ``comparison.csv`` of a sweep from what lies in the folders of its cells.

    Parameters
    ----------
    folder
        The sweep's.
    cells
        All of them.
    errors
        By number, the error of each cell that was run now, "" if it had none.
    """
    found = [look(cell) for cell in cells]
    runs, parts = [], []
    for index, (cell, own) in enumerate(zip(cells, found, strict=True)):
        point = {f"grid_{name}": value for name, value in cell.point.items()}
        numbers = _metrics(cell) if own.status == "done" else _no_metrics()
        parts.append(numbers.assign(**{name: str(value) for name, value in point.items()}))
        runs.append({**point, **_outcome(cell, own, errors.get(index), len(numbers))})
    grid = list(point)
    metrics = pd.concat(parts, ignore_index=True)
    metrics = metrics[grid + [name for name in metrics if name not in grid]].fillna("")
    tables = Tables(pd.DataFrame(runs), metrics, found)
    for name, table in {
        "runs": tables.runs,
        "comparison": compare(metrics, tables.axes, tables.seeds),
        "metrics": metrics,
    }.items():
        write_text(folder / f"{name}.csv", table.to_csv(index=False, lineterminator="\n"))
    return tables


def compare(metrics: pd.DataFrame, axes: Sequence[str], seeds: Sequence[str]) -> pd.DataFrame:
    """Mean of each number over the seeds, at each setting, with its 95 % confidence interval.

    The interval is that of Student's t: seeds are few, and a bootstrap of three values is too narrow. Where a run
    tells a number of several runs or folds, their mean is taken first. Bounds of intervals within a run are left out.

    Parameters
    ----------
    metrics
        As in `Tables`.
    axes, seeds
        Columns of the grid.

    Returns
    -------
    DataFrame
        One row a setting and number: `axes`, `OF`, ``mean``, ``low``, ``high``, ``n``; the bounds are NaN for one seed.

    References
    ----------
    Student, The probable error of a mean, Biometrika 1908.
    """
    return _intervals(_numbers(metrics, [*axes, *seeds]), [*axes, *OF])


def along(metrics: pd.DataFrame, axis: str, grid: Sequence[str], seeds: Sequence[str]) -> pd.DataFrame:
    """As `compare`, along one axis of the grid: the others are averaged for each seed.

    Only what is there for each value of the axis is averaged, so that a failed run does not look like an effect.
    """
    numbers = _numbers(metrics, grid)
    others = [name for name in grid if name != axis]
    there = numbers.groupby([*others, *OF], sort=False)[axis].transform("nunique")
    numbers = numbers[there == numbers.groupby(OF, sort=False)[axis].transform("nunique")]
    means = numbers.groupby([axis, *seeds, *OF], sort=False, as_index=False)["value"].mean()
    return _intervals(means, [axis, *OF])


def _numbers(metrics: pd.DataFrame, grid: Sequence[str]) -> pd.DataFrame:
    """One finite number for each cell and `OF`: the mean over runs and folds."""
    numbers = metrics.assign(
        value=pd.to_numeric(metrics["value"], errors="coerce"),
        over=[
            " and ".join(word for word, given in (("folds", fold != ""), ("runs", run != "")) if given)
            for fold, run in zip(metrics["fold"], metrics["run"], strict=True)
        ],
    )
    numbers["model"] = _without_swept(metrics, grid)
    is_bound = metrics["metric"].str.endswith(_BOUNDS)
    numbers = numbers[np.isfinite(numbers["value"]) & ~is_bound]
    return numbers.groupby([*grid, *OF], sort=False, as_index=False)["value"].mean()


def _without_swept(metrics: pd.DataFrame, grid: Sequence[str]) -> pd.Series:
    """The models, but for metrics whose model is a value of the grid: else nothing could be compared along it."""
    models = metrics["model"]
    for name in grid:
        is_swept = (models == metrics[name]).groupby(metrics["metric"]).transform("all")
        models = models.mask(is_swept, "")
    return models


def _intervals(numbers: pd.DataFrame, of: Sequence[str]) -> pd.DataFrame:
    from scipy.stats import t

    groups = numbers.groupby(list(of), sort=False)["value"]
    table = groups.agg(mean="mean", spread="std", n="count").reset_index()
    half = t.ppf(0.975, table["n"] - 1) * table["spread"] / np.sqrt(table["n"])
    return table.assign(low=table["mean"] - half, high=table["mean"] + half)[
        [*of, "mean", "low", "high", "n"]
    ]


def _outcome(cell: Cell, found: Found, error: str | None, n_rows: int) -> dict[str, Any]:
    why = "" if found.status == "done" else error or found.why
    if error is not None and found.status == "new":
        why = error or _NOWHERE
    return {
        "status": "failed" if error is not None and found.status == "new" else found.status,
        "seconds": round(sum(found.manifest.get("seconds", {}).values()), 3),
        "threads": found.manifest.get("threads", ""),
        "rows": n_rows,
        "report": cell.report,
        "error": why,
    }


def _metrics(cell: Cell) -> pd.DataFrame:
    """The numbers of a run, as they are written; none where its notebook writes none."""
    path = cell.folder / "metrics.csv"
    if not path.exists():
        return _no_metrics()
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    return table.reindex(columns=[*METRIC_COLUMNS, *table.columns.difference(METRIC_COLUMNS)], fill_value="")


def _no_metrics() -> pd.DataFrame:
    return pd.DataFrame(columns=list(METRIC_COLUMNS), dtype=str)
