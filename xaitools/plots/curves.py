"""Curves over steps and epochs."""

import re
from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np
import pandas as pd
import plotly.express as px
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from xaitools.errors import DataError
from xaitools.plots.style import CONTROL, DASHES, PALETTE, SYMBOLS, checked_table, plain, plain_facets, titled

BAND = 0.1  # opacity of an interval, so that a few of them can overlap
MOST_BANDS = 7
"""Bands of more curves hide each other; intervals are then told where one points at a curve."""


def fidelity_plot(
    curves: pd.DataFrame,
    *,
    controls: Sequence[str] = ("random", "least relevant first"),
    title: str = "Fidelity: the class's probability as pixels are replaced",
    finding: str = "",
) -> go.Figure:
    """Draw how the predicted probability falls when the most relevant pixels are replaced.

    Parameters
    ----------
    curves : DataFrame
        One row a point: `method`, `fraction` (replaced, 0 to 1), `value` (mean probability of the class), and
        the interval's bounds `low` and `high`.
    controls : sequence of str
        Methods that serve as controls: grey, each with a dash of its own, drawn below the others.
    title, finding : str
        Title of the figure, and a published result to print under it.

    Raises
    ------
    DataError
        If a column is missing, a number is NaN or infinite, or two rows fall on one place.
    """
    numbers = ["fraction", "value", "low", "high"]
    curves = checked_table(curves, "fidelity_plot", ["method"], numbers, ["method", "fraction"])
    curves = curves.assign(percent=100 * curves["fraction"])
    hover = "%{x:.0f} % replaced: probability %{y:.3f}"
    fig = _curves({"": curves}, "percent", controls, hover)
    fig.update_xaxes(title="pixels replaced (% of the image)", range=[0, curves["percent"].max()])
    fig.update_yaxes(title=f"probability of the class, mean{_interval(curves)}", rangemode="tozero")
    fig.update_layout(height=520, legend={"title": {"text": "order of replacement"}})
    return titled(fig, title, finding)


def error_plot(
    curves: pd.DataFrame,
    *,
    unit: str = "px",
    controls: Sequence[str] = ("random", "least relevant first"),
    title: str = "Error of the prediction as windows are perturbed, the most relevant first",
    finding: str = "",
) -> go.Figure:
    """Draw how the error of a regression grows when the most relevant windows are perturbed.

    Parameters
    ----------
    curves : DataFrame
        One row a point: `network` (one panel each, on one scale), `method`, `step` (windows perturbed),
        `value` (mean error), and the interval's bounds `low` and `high`.
    unit : str
        Unit of the error.
    controls : sequence of str
        Methods that serve as controls: grey, each with a dash of its own, drawn below the others.
    title, finding : str
        Title of the figure, and a published result to print under it.

    Raises
    ------
    DataError
        If a column is missing, a number is NaN or infinite, or two rows fall on one place.
    """
    unit, key = plain(unit), ["network", "method", "step"]
    curves = checked_table(curves, "error_plot", key[:2], ["step", "value", "low", "high"], key)
    panels = dict(list(curves.groupby("network", sort=False)))
    fig = _curves(panels, "step", controls, f"%{{x}} windows: error %{{y:.3g}} {unit}")
    last = int(curves["step"].max())
    fig.update_xaxes(title="windows perturbed", range=[0, last], dtick=max(1, round(last / 8)))
    fig.update_yaxes(title=f"prediction error ({unit}), mean{_interval(curves)}", col=1)
    fig.update_layout(height=520, margin={"t": 120}, legend={"title": {"text": "order of the windows"}})
    return titled(fig, title, finding)


def training_plot(
    history: pd.DataFrame, *, best_epoch: int | None = None, title: str = "Training", subtitle: str = ""
) -> go.Figure:
    """Draw the course of a training: losses on the left, errors and scores to the right.

    Parameters
    ----------
    history : DataFrame
        `epoch` and one column a curve. A name that ends in "loss" goes to the first panel; one that ends in
        a unit, such as "validation error (px)", to a panel named by its last word and the unit, "error (px)";
        every other one is a score from 0 to 1. Epochs at which a curve was not measured may be NaN.
    best_epoch : int, optional
        Epoch whose weights were kept, marked by a dashed line.
    title, subtitle : str
        Text of the figure.

    Raises
    ------
    DataError
        If `epoch` or every curve is missing.
    """
    curves = [name for name in history.columns if name != "epoch"]
    if "epoch" not in history.columns or not curves:
        raise DataError(
            f"training_plot got the columns {list(history.columns)}; "
            "expected 'epoch' and one column for each curve."
        )
    long = history.melt("epoch", var_name="curve").dropna()
    long = long.assign(
        panel=long["curve"].map(_training_panel), curve=long["curve"].str.replace("_", " ").map(plain)
    )
    panels = sorted(long["panel"].unique(), key=lambda panel: (panel != "loss", panel))
    fig = px.line(
        long.sort_values("panel", key=lambda column: column.map(panels.index), kind="stable"),
        x="epoch",
        y="value",
        color="curve",
        symbol="curve",
        color_discrete_sequence=PALETTE,
        symbol_sequence=SYMBOLS,
        facet_col="panel",
        facet_col_spacing=0.1,
        category_orders={"panel": panels},
        markers=True,
        render_mode="svg",
    )
    fig.update_traces(hovertemplate=None)
    plain_facets(fig).update_layout(margin={"t": 90})
    fig.layout.annotations = ()  # for the axes name the panels
    fig.update_yaxes(matches=None, showticklabels=True, rangemode="tozero")
    for column, panel in enumerate(panels, start=1):
        fig.update_yaxes(title=panel, col=column)
    if best_epoch is not None:
        fig.add_vline(
            best_epoch,
            line={"dash": "dash", "color": CONTROL},
            annotation_text="kept",
            annotation_font_color="#555",
        )
    fig.update_xaxes(title="epoch")
    fig.update_layout(height=400)
    return titled(fig, title, subtitle)


def _training_panel(name: str) -> str:
    """Title of the panel that a curve of the training belongs to."""
    name = plain(name)
    if name.endswith("loss"):
        return "loss"
    with_unit = re.search(r"[^\W_]+ \([^()]+\)$", name)
    return with_unit.group() if with_unit else "score (0 to 1)"


def _interval(curves: pd.DataFrame) -> str:
    """Where the intervals of the curves are, for the title of an axis."""
    return (
        " and 95 % CI" if curves["method"].nunique() <= MOST_BANDS else "; point at a curve for its 95 % CI"
    )


def _curves(panels: Mapping[str, pd.DataFrame], x: str, controls: Sequence[str], hover: str) -> go.Figure:
    """A line over the column `x` for each method, with the band of its interval if they are few."""
    fig = make_subplots(
        1, len(panels), shared_yaxes=True, subplot_titles=list(panels), horizontal_spacing=0.03
    )
    methods = list(dict.fromkeys(name for table in panels.values() for name in table["method"]))
    styles = curve_styles(methods, [plain(name) for name in controls])
    hover += " (%{customdata[0]:.3g} to %{customdata[1]:.3g})"
    drawn: set[str] = set()
    for column, table in enumerate(panels.values(), start=1):
        for name, line in styles.items():
            points = table[table["method"] == name].sort_values(x)
            if points.empty:
                continue
            interval = points[["low", "high"]].to_numpy()
            traces = banded(points, x, name, line, hover, legend=name not in drawn, customdata=interval)
            fig.add_traces(traces if len(methods) <= MOST_BANDS else traces[1:], rows=1, cols=column)
            drawn.add(name)
    return fig


def banded(
    points: pd.DataFrame, x: str, name: str, line: Mapping[str, str], hover: str, *, legend: bool, **more: Any
) -> list[go.Scatter]:
    """The band from `low` to `high`, and a line over the column `x`."""
    shared = {"name": name, "mode": "lines", "legendgroup": name}
    along = points[x].to_numpy()
    band = go.Scatter(
        x=np.concatenate([along, along[::-1]]),
        y=np.concatenate([points["low"], points["high"][::-1]]),
        fill="toself",
        fillcolor=line["color"],
        opacity=BAND,
        line={"width": 0},
        hoverinfo="skip",
        showlegend=False,
        **shared,
    )
    curve = go.Scatter(
        x=along,
        y=points["value"],
        line={**line, "width": 2},
        hovertemplate=f"{name}<br>{hover}<extra></extra>",
        showlegend=legend,
        **shared,
        **more,
    )
    return [band, curve]


def curve_styles(names: Sequence[str], controls: Sequence[str]) -> dict[str, dict[str, str]]:
    """Colour and dash of each curve: the controls first, so that they lie below."""
    grey = zip([name for name in names if name in controls], cycle(DASHES[1:]), strict=False)
    colored = [name for name in names if name not in controls]
    return {name: {"color": CONTROL, "dash": dash} for name, dash in grey} | {
        name: {"color": PALETTE[index % len(PALETTE)], "dash": DASHES[index // len(PALETTE) % len(DASHES)]}
        for index, name in enumerate(colored)
    }
