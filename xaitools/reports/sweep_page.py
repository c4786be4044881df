"""The page of a sweep: its reports, how their numbers compare, what failed. One file that needs nothing else."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd
from jinja2 import Environment, FileSystemLoader

from xaitools.files import write_text
from xaitools.reports.cells import Cell
from xaitools.reports.html import plot_html, plotly_js
from xaitools.reports.sweep_tables import OF, Tables, along, compare
from xaitools.study.manifest import now

_TEMPLATES = Path(__file__).parent / "template"
_HOW = {
    True: "Means over the seeds with their 95 % confidence intervals by Student's t, for the seeds stand for all "
    "others that could have been drawn; n is how many there are.",
    False: "One number each, without an interval: no parameter of the grid is a seed. "
    "Add --grid seed=0,1,2 to see what chance does.",
}
_FACTS = ("python", "platform", "cpus", "device", "network", "data", "threads", "versions", "parameters")
"""What of a manifest tells how a run came about."""
_MOST_VALUES = 4


def write_page(folder: Path, cells: Sequence[Cell], tables: Tables, where: str) -> Path:
    """Write ``index.html`` of a sweep.

    Parameters
    ----------
    folder
        The sweep's.
    cells, tables
        What was run, and what `gather` found.
    where
        Where the runs were made, and with how many threads, in words.
    """
    metrics = list(_metrics(tables))
    runs = [
        {"name": cell.name, "href": quote(cell.report), "point": [row[name] for name in tables.grid], **row}
        for cell, row in zip(cells, tables.runs.to_dict("records"), strict=True)
    ]
    failures = [row for row in runs if row["status"] != "done"]
    differs, same = _differences(tables)
    study = cells[0].notebook.stem
    facts = {
        "Study": study,
        "Runs": f"{len(runs)}, of which {len(runs) - len(failures)} are in the tables",
        "Run": where,
    }
    environment = Environment(
        loader=FileSystemLoader([_TEMPLATES / "sweep", _TEMPLATES / "report"]), autoescape=True
    )
    page = environment.get_template("sweep.html.j2").render(
        title=f"Sweep of {study}",
        date=f"{now()[:16].replace('T', ' ')} UTC",
        facts=facts.items(),
        grid=[name.removeprefix("grid_") for name in tables.grid],
        runs=runs,
        failures=failures,
        others=_others(folder, cells),
        how=_how(tables),
        metrics=metrics,
        apart=_apart(tables),
        differs=differs,
        same=same,
        plotly_js=plotly_js() if any(metric["plots"] for metric in metrics) else "",
    )
    return write_text(folder / "index.html", page)


def _how(tables: Tables) -> str:
    over = tables.metrics[["run", "fold"]].ne("").any(axis=None)
    return _HOW[bool(tables.seeds)] + (
        " Of numbers that a run gives for several runs or folds, the mean is taken first." if over else ""
    )


def _metrics(tables: Tables) -> Iterator[dict[str, Any]]:
    """Table and plots of each metric."""
    table = _with_settings(compare(tables.metrics, tables.axes, tables.seeds), tables.axes)
    curves = {
        axis: along(tables.metrics, axis, tables.grid, tables.seeds) for axis in tables.axes or tables.grid
    }
    for metric, own in table.groupby("metric", sort=False):
        of = [name for name in OF[1:] if own[name].any()]
        columns = list(dict.fromkeys(own["setting"]))
        n = int(own["n"].max())
        yield {
            "name": metric,
            "span": _number(own["mean"].min())
            + (f" to {_number(own['mean'].max())}" if own["mean"].nunique() > 1 else "")
            + (f", n = {n}" if tables.seeds else ""),
            "of": of,
            "settings": columns,
            "rows": [
                {"of": [row[name] for name in of], "cells": [_cell(rows, setting, n) for setting in columns]}
                for _, rows in own.groupby(OF, sort=False)
                for row in [rows.iloc[0]]
            ],
            "plots": [
                plot_html(_plot(curve[curve["metric"] == metric], axis, str(metric), tables))
                for axis, curve in curves.items()
                if curve.loc[curve["metric"] == metric, axis].nunique() > 1
            ],
        }


def _with_settings(table: pd.DataFrame, axes: Sequence[str]) -> pd.DataFrame:
    """The table with a column `setting`: the values of the axes, in words."""
    words = [axis.removeprefix("grid_") + " " + table[axis] for axis in axes]
    return table.assign(
        setting=[", ".join(parts) for parts in zip(*words, strict=True)] if axes else "all seeds"
    )


def _apart(tables: Tables) -> list[dict[str, str]]:
    """The numbers whose intervals at two settings do not meet, with the lowest and the highest of these."""
    table = _with_settings(compare(tables.metrics, tables.axes, tables.seeds), tables.axes).dropna(
        subset="low"
    )
    rows = []
    for of, own in table.groupby(OF, sort=False):
        if own["high"].min() < own["low"].max():
            low, high = own.loc[own["high"].idxmin()], own.loc[own["low"].idxmax()]
            ends = {"lower": low, "higher": high}
            rows.append(
                {"of": ", ".join(filter(None, of))}
                | {end: f"{_number(row['mean'])} ({row['setting']})" for end, row in ends.items()}
            )
    return rows


def _cell(rows: pd.DataFrame, setting: str, most: int) -> dict[str, str]:
    found = rows[rows["setting"] == setting]
    if found.empty:
        return {"mean": "–", "interval": ""}
    row = found.iloc[0]
    parts = [] if pd.isna(row["low"]) else [f"{_number(row['low'])} to {_number(row['high'])}"]
    parts += [f"n = {row['n']}"] if row["n"] < most else []
    return {"mean": _number(row["mean"]), "interval": ", ".join(parts)}


def _plot(curve: pd.DataFrame, axis: str, metric: str, tables: Tables) -> Mapping[str, Any]:
    from xaitools.plots import axis_plot

    name = axis.removeprefix("grid_")
    at = pd.to_numeric(curve[axis], errors="coerce")
    table = curve.assign(
        name=curve[OF[1:]].agg(lambda row: " · ".join(filter(None, row)) or metric, axis=1),
        at=curve[axis] if at.isna().any() else at,
        value=curve["mean"],
    )
    others = [other.removeprefix("grid_") for other in tables.grid if other not in (axis, *tables.seeds)]
    notes = [
        f"Mean over {', '.join(others)}." if others else "",
        "Bars: 95 % confidence intervals over the seeds." if curve["low"].notna().any() else "",
    ]
    figure = axis_plot(
        table, axis=name, metric=metric, title=f"{metric} by {name}", finding=" ".join(filter(None, notes))
    )
    return dict(json.loads(figure.to_json()))


def _differences(tables: Tables) -> tuple[list[tuple[str, str]], str]:
    """What the manifests of the runs differ in, and a sentence on what they share."""
    flat = [dict(_flat(own.manifest)) for own in tables.found if own.status == "done"]
    names = dict.fromkeys(name for facts in flat for name in facts)
    swept = {name.removeprefix("grid_") for name in tables.grid}
    rows = [
        (f"{name.removeprefix('grid_')} (of the grid)", _values(tables.runs[name].astype(str)))
        for name in tables.grid
    ]
    shared = 0
    for name in names:
        values = pd.Series([facts.get(name, "") for facts in flat])
        if values.nunique() < 2:
            shared += 1
        elif name.removeprefix("parameters ") not in swept:
            rows.append((name, _values(values)))
    same = f"{shared} other facts of the runs, such as versions, machine and parameters, are the same in all."
    return rows, same if flat else ""


def _flat(manifest: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name in _FACTS:
        value = manifest.get(name)
        if isinstance(value, Mapping):
            yield from ((f"{name} {key}", str(own)) for key, own in value.items() if key != "output_dir")
        elif value is not None:
            yield name, str(value)


def _values(values: pd.Series) -> str:
    counts = values.value_counts(sort=False)
    if len(counts) > _MOST_VALUES and len(counts) == len(values):
        return f"{len(counts)} values, another one in each run"
    texts = [f"{_short(value)} ({n})" for value, n in counts.items()]
    more = f", and {len(texts) - 3 * _MOST_VALUES} more" if len(texts) > 3 * _MOST_VALUES else ""
    return ", ".join(texts[: 3 * _MOST_VALUES]) + more


def _short(value: Any) -> str:
    text = str(value) or "none"
    return text if len(text) <= 60 else f"{text[:59]}…"


def _others(folder: Path, cells: Sequence[Cell]) -> list[str]:
    """Folders of runs that this grid does not have."""
    own = {cell.name for cell in cells}
    return sorted(path.parent.name for path in folder.glob("*/manifest.json") if path.parent.name not in own)


def _number(value: float) -> str:
    return f"{value:.4g}"
