"""Numbers of methods, regions and samples as dots and bars, with their intervals."""

from collections.abc import Mapping, Sequence
from itertools import cycle

import numpy as np
import pandas as pd
import plotly.express as px
import plotly.graph_objects as go

from xaitools.plots.style import (
    CONTROL,
    PALETTE,
    SMOOTHINGS,
    SYMBOLS,
    checked_table,
    plain,
    plain_facets,
    titled,
)


def quality_plot(
    table: pd.DataFrame,
    *,
    metric: str = "ROC AUC",
    title: str = "Agreement of the maps with the reference mask",
    finding: str = "",
    chance: float | None = None,
    chance_name: str = "chance",
) -> go.Figure:
    """Compare methods on one metric: a dot with its confidence interval per method and smoothing.

    Parameters
    ----------
    table : DataFrame
        One row a dot: `method`, `smoothing`, `unit` (one panel each, "pixel" and "region" say) and `value`,
        with the interval's bounds in `low` and `high`. Groups keep the order in which they first come; a
        smoothing of ``SMOOTHINGS`` has the same colour and symbol in every figure.
    metric : str
        Title of the value axis, with the unit if it has one.
    title, finding : str
        Title of the figure, and a published result to print under it.
    chance : float, optional
        Value of a map without information, drawn as a dashed line.
    chance_name : str
        Text at that line.

    Raises
    ------
    DataError
        If a column is missing, a number is NaN or infinite, or two rows fall on one place.
    """
    metric, key = plain(metric), ["method", "smoothing", "unit"]
    table = checked_table(table, "quality_plot", key, ["value", "low", "high"], key)
    smoothings = dict.fromkeys([*SMOOTHINGS, *table["smoothing"]])
    styles = dict(zip(smoothings, zip(cycle(PALETTE), cycle(SYMBOLS), strict=False), strict=False))
    hover = "%{x}, %{customdata[2]}, %{customdata[3]}<br>" + metric + " %{y:.3f}"
    fig = _dots(table, "smoothing", "unit", styles, hover + _hover_interval(".3f"))
    fig.update_traces(marker_size=10)
    if chance is not None:
        fig.add_hline(
            chance,
            line={"dash": "dash", "color": CONTROL},
            annotation_text=plain(chance_name),
            annotation_position="bottom left",
            annotation_font_color="#555",
        )
    fig.update_yaxes(range=_reach(table, chance))
    fig.update_yaxes(title=f"{metric}, mean and 95 % CI", col=1)
    fig.update_layout(scattergap=0.4, height=500, legend={"title": {"text": "smoothing"}})
    return titled(fig, title, finding)


def score_plot(
    table: pd.DataFrame,
    *,
    metric: str = "AOPC (px)",
    controls: Sequence[str] = ("random",),
    chance: float | None = None,
    title: str = "Faithfulness of the maps, beside the published values",
    finding: str = "",
) -> go.Figure:
    """Compare methods on one metric: a dot with its interval, and a hollow diamond for the published value.

    Parameters
    ----------
    table : DataFrame
        One row a dot: `method`, `network` (one panel each, on one scale), `value`, the interval's bounds in
        `low` and `high`, and optionally `published`, NaN where nothing is published. Groups keep the order in
        which they first come.
    metric : str
        Title of the value axis, with the unit.
    controls : sequence of str
        Methods that serve as controls: grey.
    chance : float, optional
        Value that a map without any information has, as a dashed line.
    title, finding : str
        Title of the figure, and a published result to print under it.

    Raises
    ------
    DataError
        If a column is missing, a number other than a published one is NaN or infinite, or two rows fall on one
        place.
    """
    metric, key = plain(metric), ["method", "network"]
    table = checked_table(table, "score_plot", key, ["value", "low", "high"], key)
    own = table.assign(
        group=np.where(table["method"].isin([plain(name) for name in controls]), "control", "this run")
    )
    published = own.assign(value=table.get("published", np.nan), low=np.nan, high=np.nan, group="published")
    dots = pd.concat([own, published.dropna(subset="value")], ignore_index=True)
    styles = {
        "this run": (PALETTE[0], "circle"),
        "control": (CONTROL, "circle"),
        "published": (PALETTE[1], "diamond-open"),
    }
    hover = "%{x}, %{customdata[3]}<br>%{customdata[2]}: %{y:.3g}"
    fig = _dots(dots, "group", "network", styles, hover + _hover_interval(".3g"))
    fig.update_traces(marker_size=10, offsetgroup="ours")
    fig.update_traces(
        selector={"name": "published"},
        offsetgroup="published",
        hovertemplate=hover + "<extra></extra>",
        marker={"size": 11, "line_width": 2},
        error_y={"array": None, "arrayminus": None},
    )
    if chance is None:
        fig.add_hline(0, line={"color": "#888", "width": 1})
    else:
        fig.add_hline(chance, line={"dash": "dash", "color": CONTROL})
        fig.update_yaxes(range=_reach(table, chance))
    fig.update_xaxes(tickangle=-40)
    fig.update_yaxes(title=f"{metric}<br>mean and 95 % CI", col=1)
    fig.update_layout(scattergap=0.5, height=600)
    return titled(fig, title, finding)


def region_plot(
    table: pd.DataFrame,
    *,
    value: str = "sum (%)",
    n_regions: int = 12,
    marked: Sequence[str] = (),
    title: str = "Relevance by brain region",
    finding: str = "",
) -> go.Figure:
    """Draw the regions of the most relevance as bars, one panel a method, with the range over the runs.

    Parameters
    ----------
    table : DataFrame
        One row a bar: `method`, `region`, `value` (mean over runs), and the range over the runs `low` to `high`.
    value : str
        Title of the value axis, with the unit.
    n_regions : int
        Regions to show at most: those of the largest mean over the methods.
    marked : sequence of str
        Regions that are known to matter: drawn in another colour.
    title, finding : str
        Title of the figure, and a published result to print under it.

    Raises
    ------
    DataError
        If a column is missing, a number is NaN or infinite, or two rows fall on one place.
    """
    key = ["method", "region"]
    table = checked_table(table, "region_plot", key, ["value", "low", "high"], key)
    largest = table.groupby("method")["value"].transform(lambda values: values.abs().max() or 1)
    share = (table["value"] / largest).groupby(table["region"]).mean()
    order = list(share.sort_values(ascending=False).index[:n_regions])
    kinds = {"known to matter": PALETTE[1], "other region" if marked else "region": PALETTE[0]}
    is_marked = table["region"].isin([plain(name) for name in marked])
    bars = table.assign(kind=np.where(is_marked, *kinds))[table["region"].isin(order)]
    methods = list(table["method"].unique())
    fig = px.bar(
        bars,
        x="value",
        y="region",
        orientation="h",
        color="kind",
        color_discrete_map=kinds,
        facet_col="method",
        facet_col_spacing=0.02,
        custom_data=["method"],
        error_x=bars["high"] - bars["value"],
        error_x_minus=bars["value"] - bars["low"],
        category_orders={"method": methods, "kind": list(kinds), "region": order},
    )
    fig.update_traces(
        error_x={"thickness": 1.5, "width": 3, "color": "#444"},
        hovertemplate="%{customdata[0]}<br>%{y}: %{x:.3g}<extra></extra>",
    )
    plain_facets(fig)
    fig.update_xaxes(rangemode="tozero", matches=None, title="")
    fig.update_xaxes(title={"text": plain(value), "standoff": 8}, col=(len(methods) + 1) // 2)
    fig.update_yaxes(title="")
    fig.update_layout(
        height=190 + 26 * len(order),
        barmode="overlay",
        showlegend=bool(len(marked)),
        legend={"orientation": "h", "x": 0, "y": 0, "yref": "container", "yanchor": "bottom"},
    )
    return titled(fig, title, finding)


def prediction_plot(
    table: pd.DataFrame,
    *,
    quantity: str = "head circumference",
    unit: str = "px",
    title: str = "Predicted against true values",
    finding: str = "",
) -> go.Figure:
    """Scatter predictions of a regression over the true values, with the line on which they are right.

    Parameters
    ----------
    table : DataFrame
        One row a sample: `truth`, `predicted`, and `split`, which keeps the order in which it first comes.
    quantity, unit : str
        What is predicted, and its unit.
    title : str
        Title of the figure; the mean absolute error of each split stands under it.
    finding : str
        A published result to print after the errors.

    Raises
    ------
    DataError
        If a column is missing or a number is NaN or infinite.
    """
    given, table = table, checked_table(table, "prediction_plot", ["split"], ["truth", "predicted"])
    shown_unit, axis = plain(unit), plain(f"{quantity} ({unit})")
    numbers = table[["truth", "predicted"]].to_numpy(dtype=float)
    margin = 0.04 * (np.ptp(numbers) or 1)
    bounds = [float(numbers.min() - margin), float(numbers.max() + margin)]
    fig = px.scatter(
        table,
        x="truth",
        y="predicted",
        color="split",
        symbol="split",
        color_discrete_sequence=PALETTE,
        symbol_sequence=SYMBOLS,
        custom_data=["split"],
        render_mode="svg",
    )
    fig.update_traces(
        marker={"size": 7, "opacity": 0.65},
        hovertemplate=f"%{{customdata[0]}}<br>true %{{x:.4g}}, predicted %{{y:.4g}} {shown_unit}<extra></extra>",
    )
    line = {"color": CONTROL, "dash": "dash"}
    fig.add_scatter(x=bounds, y=bounds, mode="lines", line=line, name="identity", hoverinfo="skip")
    fig.data = fig.data[-1:] + fig.data[:-1]
    fig.update_xaxes(title=f"true {axis}", range=bounds, constrain="domain", constraintoward="left", nticks=8)
    fig.update_yaxes(title=f"predicted {axis}", range=bounds, constrain="domain", nticks=8, scaleanchor="x")
    plain_facets(fig).update_layout(height=600)
    errors = (table["predicted"] - table["truth"]).abs().groupby(given["split"].to_numpy(), sort=False)
    subtitle = "Mean absolute error: " + ", ".join(
        f"{split} {error.mean():.3g} {unit} (n = {len(error)})" for split, error in errors
    )
    return titled(fig, title, subtitle, finding, width=680)


def _dots(
    table: pd.DataFrame, group: str, panel: str, styles: Mapping[str, tuple[str, str]], hover: str
) -> go.Figure:
    """A dot with its interval for each method and group, side by side, in panels on one scale.

    A dot carries its interval, group and panel as custom data, in this order.
    """
    methods = list(table["method"].unique())
    fig = px.scatter(
        table,
        x="method",
        y="value",
        color=group,
        symbol=group,
        color_discrete_map={name: color for name, (color, _) in styles.items()},
        symbol_map={name: symbol for name, (_, symbol) in styles.items()},
        facet_col=panel,
        facet_col_spacing=0.03,
        error_y=table["high"] - table["value"],
        error_y_minus=table["value"] - table["low"],
        custom_data=["low", "high", group, panel],
        category_orders={"method": methods, panel: list(table[panel].unique()), group: list(styles)},
        render_mode="svg",
    )
    fig.update_traces(error_y={"thickness": 1.5, "width": 3}, hovertemplate=hover)
    fig.for_each_trace(lambda trace: trace.update(offsetgroup=trace.name))
    plain_facets(fig)
    fig.update_xaxes(categoryorder="array", categoryarray=methods)
    return fig.update_layout(scattermode="group")


def _hover_interval(digits: str) -> str:
    return f" (95 % CI %{{customdata[0]:{digits}}} to %{{customdata[1]:{digits}}})<extra></extra>"


def _reach(table: pd.DataFrame, chance: float | None) -> list[float]:
    """Ends of an axis that shows all intervals and the value by chance."""
    bounds = [table["low"].min(), table["high"].max(), *([] if chance is None else [chance])]
    margin = 0.05 * (max(bounds) - min(bounds)) + 0.01
    return [min(bounds) - margin, max(bounds) + margin]
