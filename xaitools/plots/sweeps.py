"""Numbers along a parameter that was swept."""

import re

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from xaitools.plots.style import PALETTE, SYMBOLS, checked_table, plain, titled

MOST_LINES = 7
"""More lines than colours cannot be told apart: each name then has a row of its own."""
_LONG = 30  # characters


def axis_plot(table: pd.DataFrame, *, axis: str, metric: str, title: str, finding: str = "") -> go.Figure:
    """Draw a number along a parameter, with its interval: one line, or with many names one row, for each.

    Parameters
    ----------
    table : DataFrame
        One row a point: `name` (of the line), `at` (value of the parameter: numbers, or texts in their order),
        `value`, and the interval's bounds `low` and `high`, NaN where there is none.
    axis, metric : str
        What the parameter and the number are called.
    title, finding : str
        Title of the figure, and what to print under it.

    Raises
    ------
    DataError
        If a column is missing, a value is not finite, or two rows fall on one place.
    """
    is_numeric = pd.api.types.is_numeric_dtype(table["at"])
    table = table if is_numeric else table.assign(at=table["at"].map(plain))
    table = checked_table(table, "axis_plot", ["name"], ["value"], ["name", "at"])
    by_name = table["name"].nunique() <= MOST_LINES
    table = table if by_name else table.assign(name=table["name"].map(_folded))
    lines = 1 + int(table["name"].str.count("<br>").max())
    fig = go.Figure()
    for number, (key, own) in enumerate(table.groupby("name" if by_name else "at", sort=False)):
        interval = {
            "array": _length(own["high"] - own["value"]),
            "arrayminus": _length(own["value"] - own["low"]),
            "thickness": 1.5,
            "width": 3,
        }
        fig.add_scatter(
            x=list(own["at"] if by_name else own["value"]),
            y=list(own["value"] if by_name else own["name"]),
            name=str(key),
            mode="lines+markers" if by_name else "markers",
            marker={
                "color": PALETTE[number % len(PALETTE)],
                "symbol": SYMBOLS[number % len(SYMBOLS)],
                "size": 9,
            },
            line={"color": PALETTE[number % len(PALETTE)], "width": 1.5},
            **{"error_y" if by_name else "error_x": interval},
            hovertemplate="%{y:.4g}" if by_name else "%{y}: %{x:.4g}",
        )
    names, axis, metric = table["name"].nunique(), plain(axis), plain(metric)
    if by_name:
        fig.update_xaxes(title=axis, type="linear" if is_numeric else "category")
        fig.update_yaxes(title=metric)
        fig.update_layout(height=420, showlegend=names > 1)
    else:
        fig.update_xaxes(title=metric)
        fig.update_yaxes(autorange="reversed", type="category")
        fig.update_traces(orientation="h").update_layout(scattermode="group", scattergap=0.4)
        fig.update_layout(
            height=170 + (6 + 16 * lines) * names, showlegend=True, legend={"title": {"text": axis}}
        )
    return titled(fig, title, finding)


def _folded(name: str) -> str:
    """A long name in lines that begin with its "+" and "@", but for those within brackets."""
    return name if len(name) <= _LONG else re.sub(r"(?=[+@])(?![^\[]*\])", "<br>", name)


def _length(values: pd.Series) -> list[float | None]:
    """Lengths of one side of the intervals, none where there is no interval."""
    return [None if np.isnan(value) else float(value) for value in values]
