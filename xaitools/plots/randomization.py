"""How alike maps stay while a network's layers are redrawn."""

from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from xaitools.plots.curves import banded, curve_styles
from xaitools.plots.style import CONTROL, checked_table, plain, titled

MOST = 6
"""Methods whose curves can be told apart in one panel; with more, each gets a panel of its own."""

COLUMNS = 4
"""Panels side by side, if each method has its own."""


def randomization_plot(
    curves: pd.DataFrame,
    *,
    controls: Sequence[str] = ("noise",),
    axis: str = "layers redrawn",
    title: str = "Similarity of the maps to those of the trained network",
    finding: str = "",
) -> go.Figure:
    """Draw how the similarity of maps falls as layers are redrawn, with the band of its interval.

    Up to six methods share panels, one for each similarity of absolute and of signed values. Of more methods each has a
    panel of its own, with a colour for each similarity, dashed where values are signed.

    Parameters
    ----------
    curves : DataFrame
        One row a point: `method`; `similarity`; `values`, "absolute" or "signed"; `k`, the number of the step, and
        `layer`, its name; `value`, and the interval's bounds `low` and `high`.
    controls : sequence of str
        Methods that serve as controls, such as a map of noise: grey and dashed, in every panel.
    axis, title, finding : str
        Text of the figure, and a published result to print under it.

    Raises
    ------
    DataError
        If a column is missing, a number is NaN or infinite, or two rows fall on one place.
    """
    names = ["method", "similarity", "values", "layer"]
    curves = checked_table(
        curves, "randomization_plot", names, ["k", "value", "low", "high"], [*names[:3], "k"]
    )
    grey = curves["method"].isin([plain(name) for name in controls])
    curves = curves.assign(way=curves["similarity"] + ", " + curves["values"])
    methods = list(dict.fromkeys(curves["method"][~grey]))
    if len(methods) <= MOST:
        fig, n_rows = _by_way(curves, methods, list(dict.fromkeys(curves["method"][grey])))
    else:
        fig, n_rows = _by_method(curves, methods, grey)
    steps = curves.drop_duplicates("k").sort_values("k")
    fig.update_xaxes(tickvals=steps["k"], ticktext=steps["layer"], tickangle=-60, tickfont={"size": 10})
    fig.update_xaxes(title=axis, row=n_rows)
    fig.update_yaxes(range=[min(-0.15, curves["low"].min() - 0.05), 1.05])
    fig.update_yaxes(title="similarity", col=1)
    fig.update_annotations(font_size=13)
    fig.update_layout(height=180 + 270 * n_rows, margin={"t": 140, "b": 130})
    return titled(fig, title, "Mean over the images and its 95 % confidence interval.", finding)


def _by_way(curves: pd.DataFrame, methods: Sequence[str], controls: Sequence[str]) -> tuple[go.Figure, int]:
    """A panel a similarity and kind of values, a line a method."""
    kinds, similarities = (list(dict.fromkeys(curves[name])) for name in ("values", "similarity"))
    fig = _panels(len(kinds), [f"{one}, {kind}" for kind in kinds for one in similarities], len(similarities))
    styles = curve_styles([*methods, *controls], controls)
    for number, (kind, one) in enumerate([(kind, one) for kind in kinds for one in similarities]):
        own = curves[(curves["values"] == kind) & (curves["similarity"] == one)]
        for name, line in styles.items():
            _add(fig, own[own["method"] == name], name, line, number, len(similarities), legend=number == 0)
    return fig, len(kinds)


def _by_method(curves: pd.DataFrame, methods: Sequence[str], grey: pd.Series) -> tuple[go.Figure, int]:
    """A panel a method, a line a similarity and kind of values; those of the controls below."""
    similarities = list(dict.fromkeys(curves["similarity"]))
    colors = curve_styles(similarities, [])
    n_rows = -(-len(methods) // COLUMNS)
    fig = _panels(n_rows, methods, COLUMNS)
    for number, name in enumerate(methods):
        for (control, way), points in curves[grey].groupby(["method", "way"], sort=False):
            line = {"color": CONTROL, "dash": "dot"}
            first = number == 0 and way == curves["way"].iloc[0]
            _add(fig, points, control, line, number, COLUMNS, legend=first, text=way)
        for way, points in curves[curves["method"] == name].groupby("way", sort=False):
            one, kind = points["similarity"].iloc[0], points["values"].iloc[0]
            line = {"color": colors[one]["color"], "dash": "dash" if kind == "signed" else "solid"}
            _add(fig, points, way, line, number, COLUMNS, legend=number == 0)
    return fig, n_rows


def _panels(n_rows: int, heads: Sequence[str], n_columns: int) -> go.Figure:
    return make_subplots(
        n_rows,
        n_columns,
        shared_yaxes=True,
        shared_xaxes=True,
        subplot_titles=heads,
        horizontal_spacing=0.02,
        vertical_spacing=0.12 / n_rows,
    )


def _add(
    fig: go.Figure,
    points: pd.DataFrame,
    name: str,
    line: dict[str, str],
    number: int,
    n_columns: int,
    *,
    legend: bool,
    text: str = "",
) -> None:
    """A line with its band in panel `number`."""
    if points.empty:
        return
    points = points.sort_values("k")
    hover = ", ".join(filter(None, [text, "%{customdata}: %{y:.2f}"]))
    traces = banded(points, "k", name, line, hover, legend=legend, customdata=points["layer"])
    fig.add_traces(traces, rows=number // n_columns + 1, cols=number % n_columns + 1)
