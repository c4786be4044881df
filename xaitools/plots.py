"""Arrays and tables in, plotly figures out: nothing here computes a result or keeps a state."""

import re
from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import plotly.graph_objects as go
from plotly.colors import sample_colorscale
from plotly.subplots import make_subplots
from skimage.measure import find_contours

from xaitools.errors import DataError, ParameterError, ShapeError

# Okabe & Ito (2008), readable with every common colour blindness.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
SYMBOLS = ("circle", "diamond", "square", "triangle-up", "x", "star")
DASHES = ("solid", "dash", "dot", "dashdot")
OUTLINE, CONTROL = "#00E5FF", "#888888"
BAND = 0.1  # opacity of an interval, so that eight of them can overlap

# Relevance has heavy tails: colours follow the square root, so that more than the peaks show.
_STEPS = np.linspace(-1, 1, 65)
_SEQUENTIAL = sample_colorscale("Inferno", _STEPS[32:])
_DIVERGING = sample_colorscale("RdBu_r", (1 + _STEPS) / 2)
SEQUENTIAL = [[step**2, color] for step, color in zip(_STEPS[32:], _SEQUENTIAL, strict=True)]
DIVERGING = [[(1 + step * abs(step)) / 2, color] for step, color in zip(_STEPS, _DIVERGING, strict=True)]

TEMPLATE = go.layout.Template(
    layout={
        "font": {
            "family": "system-ui, 'Segoe UI', Helvetica, Arial, sans-serif",
            "size": 13,
            "color": "#222",
        },
        "title": {
            "x": 0.01,
            "xanchor": "left",
            "font": {"size": 17},
            "subtitle": {"font": {"color": "#555"}},
        },
        "paper_bgcolor": "white",
        "plot_bgcolor": "white",
        "colorway": PALETTE,
        "xaxis": {"gridcolor": "#E5E5E5", "linecolor": "#888", "ticks": "outside", "automargin": True},
        "yaxis": {"gridcolor": "#E5E5E5", "linecolor": "#888", "ticks": "outside", "automargin": True},
        "legend": {"title": {"text": ""}},
        "hoverlabel": {"font": {"size": 13}},
        "margin": {"l": 70, "r": 30, "t": 90, "b": 60},
    }
)


def map_panel(
    image: npt.ArrayLike,
    maps: Mapping[str, Mapping[str, npt.ArrayLike]],
    mask: npt.ArrayLike | None = None,
    *,
    title: str = "Relevance maps of one slice",
    subtitle: str = "",
    mask_name: str = "reference mask",
    width: int = 1100,
) -> go.Figure:
    """Show maps as a grid of tiles, with the slice that they explain in the first column.

    Parameters
    ----------
    image : array, (row, column) or (row label, row, column)
        The slice that all maps explain, or one slice for each row of tiles.
    maps : mapping of row label to mapping of column label to array, (row, column)
        The tiles, in order. A cell that is missing stays empty. Each map is drawn in percent of its own
        largest absolute value; a map with negative values makes the whole panel signed.
    mask : bool array, shaped like `image`, optional
        What an expert expects to be highlighted: its outline is drawn over the slice and every map.
    title, subtitle, mask_name : str
        Text of the figure; `mask_name` labels the outline in the legend.
    width : int
        Width of the figure in pixels; the height follows from the tiles.

    Returns
    -------
    plotly.graph_objects.Figure
        Heatmaps hold whole percents as 8 bit integers, which keeps 30 maps of 128x128 below 1 MB.

    Raises
    ------
    ParameterError
        If there is no map.
    ShapeError
        If a map or the mask differs from the image in shape.
    DataError
        If the image or a map holds NaN or infinity.
    """
    images = _finite(image, "the image")
    columns = list(dict.fromkeys(name for row in maps.values() for name in row))
    if not columns:
        raise ParameterError("No map was given to map_panel; give at least one row with one map.")
    several = images.ndim == 3
    if several and len(images) != len(maps):
        raise ShapeError(
            f"Got {len(images)} images for {len(maps)} rows of maps; give one image, or one a row."
        )
    shape = images.shape[-2:]
    tiles = {
        (row, name): _percent(values, shape, f"the map '{row}, {name}'")
        for row in maps
        for name, values in maps[row].items()
    }
    signed = any(tile.min() < 0 for tile in tiles.values())
    if mask is not None and np.shape(mask) != images.shape:
        raise ShapeError(f"The mask has shape {np.shape(mask)}; expected that of the image, {images.shape}.")
    masks = [None] * len(maps) if mask is None else np.broadcast_to(mask, (len(maps), *shape))
    outlines = [_outline(own, shape) for own in masks]

    n_rows = len(maps) if several else max(len(maps), 1 if mask is None else 2)
    roomy = not several and n_rows >= 4  # the first column is empty below the slice
    tile_height = (width * 0.97 - (0 if roomy else 110)) / (len(columns) + 1.1) * shape[0] / shape[1]
    labels = [_row_title(label, tile_height) for label in maps]
    margin = 12 + 18 * max(caption["text"].count("<br>") + 1 for caption in labels)
    fig = make_subplots(
        n_rows,
        len(columns) + 2,
        column_widths=[1, margin * (len(columns) + 1) / width] + [1] * len(columns),
        horizontal_spacing=0.006,
        vertical_spacing=0.03 / n_rows,
    )
    for row in range(1, n_rows + 1) if several else [1] if mask is None else [1, 2]:
        fig.add_trace(_grey_tile(images[row - 1] if several else images, "image"), row, 1)
        if mask is not None and (several or row == 2):
            own = outlines[row - 1 if several else 0]
            fig.add_trace(_outline_trace(own, mask_name, legend=several is False or row == 1), row, 1)
    for (label, name), tile in tiles.items():
        row, column = list(maps).index(label) + 1, columns.index(name) + 3
        fig.add_trace(_map_tile(tile, f"{label}, {name}"), row, column)
        if mask is not None:
            fig.add_trace(_outline_trace(outlines[row - 1], mask_name), row, column)
    for column, name in [(1, "image"), *enumerate(columns, start=3)]:
        fig.update_xaxes(title={"text": name, "standoff": 4}, side="top", row=1, col=column)
    for row, caption in enumerate(labels, start=1):
        fig.update_yaxes(title={**caption, "standoff": 4}, row=row, col=3)
    _show_pixels(fig, shape)
    beside = {"x": 1.01, "y": 0.5, "yanchor": "middle", "len": 1 if tile_height * n_rows < 400 else 0.4}
    axis = _percent_axis(signed)
    axis["colorbar"] |= {} if roomy else beside
    below = {"x": 0, "y": -0.01, "yanchor": "top", "orientation": "h"}
    fig.update_layout(
        coloraxis=axis,
        width=width,
        height=round(tile_height * n_rows * 1.03 + (130 if roomy else 160)),
        margin={"l": 10, "r": 10 if roomy else 120, "t": 120, "b": 10 if roomy else 40},
        legend={"x": 0, "y": 1 - 2 / n_rows, "yanchor": "top", "bgcolor": "rgba(0,0,0,0)"}
        if roomy
        else below,
    )
    return _titled(fig, title, subtitle)


def _row_title(label: str, height: float) -> dict[str, Any]:
    """Text and font of an upright title that is no longer than its tile is high, in as many lines as that takes."""
    size = 14.0
    text = label if 0.55 * size * len(label) <= height else label.replace(" ", "<br>")
    longest = max(map(len, text.split("<br>")))
    return {"text": text, "font": {"size": max(8.0, min(size, height / (0.55 * max(longest, 1))))}}


def slices_plot(
    images: npt.ArrayLike,
    labels: Sequence[str],
    *,
    masks: npt.ArrayLike | None = None,
    columns: int = 6,
    title: str = "Example slices",
    subtitle: str = "",
    width: int = 1100,
) -> go.Figure:
    """Lay slices out as a contact sheet, all on one grey scale.

    Parameters
    ----------
    images : array, (slice, row, column)
        The slices, in the unit of the data.
    labels : sequence of str
        One caption a slice.
    masks : bool array, (slice, row, column), optional
        Outlined where given.
    columns : int
        Slices in one row of the sheet.
    title, subtitle : str
        Text of the figure.
    width : int
        Width of the figure in pixels.

    Raises
    ------
    ShapeError
        If there is not one label and one mask for each slice.
    DataError
        If a slice holds NaN or infinity.
    """
    images = _finite(images, "the slices")
    if images.ndim != 3 or len(labels) != len(images) or len(images) == 0:
        raise ShapeError(
            f"Got slices of shape {images.shape} and {len(labels)} labels; "
            "expected (slice, row, column) and one label for each slice."
        )
    columns = min(columns, len(images))
    n_rows = -(-len(images) // columns)
    bounds = float(images.min()), float(images.max())
    fig = make_subplots(n_rows, columns, horizontal_spacing=0.008, vertical_spacing=0.15 / n_rows)
    for index, image in enumerate(images):
        row, column = index // columns + 1, index % columns + 1
        fig.add_trace(_grey_tile(image, labels[index], bounds), row, column)
        fig.update_xaxes(title={"text": labels[index], "standoff": 4}, side="top", row=row, col=column)
        if masks is not None:
            outline = _outline(np.asarray(masks)[index], image.shape)
            fig.add_trace(_outline_trace(outline, "reference mask", legend=index == 0), row, column)
    _show_pixels(fig, images.shape[1:])
    tile_height = width / columns * images.shape[1] / images.shape[2]
    fig.update_layout(
        width=width,
        height=round(tile_height * n_rows * 1.15 + 130),
        margin={"l": 10, "r": 10, "t": 120, "b": 10},
        legend={
            "orientation": "h",
            "x": 1,
            "xanchor": "right",
            "y": 0.98,
            "yanchor": "top",
            "yref": "container",
        },
    )
    return _titled(fig, title, subtitle)


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
        with the interval's bounds in `low` and `high`. Groups keep the order in which they first come.
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
        If a column is missing or a number is NaN or infinite.
    """
    _check_table(table, "quality_plot", ["method", "smoothing", "unit"], ["value", "low", "high"])
    units, smoothings = table["unit"].unique(), table["smoothing"].unique()
    methods = list(table["method"].unique())
    fig = make_subplots(1, len(units), shared_yaxes=True, subplot_titles=list(units), horizontal_spacing=0.03)
    for column, unit in enumerate(units, start=1):
        for smoothing, color, symbol in zip(smoothings, cycle(PALETTE), cycle(SYMBOLS), strict=False):
            dots = table[(table["unit"] == unit) & (table["smoothing"] == smoothing)]
            marker = {"color": color, "symbol": symbol, "size": 10}
            hover = f"{smoothing}, {unit}<br>{metric}"
            trace = _dots(dots, smoothing, marker, hover, ".3f", offset=smoothing, legend=column == 1)
            fig.add_trace(trace, 1, column)
    if chance is not None:
        fig.add_hline(
            chance,
            line={"dash": "dash", "color": CONTROL},
            annotation_text=chance_name,
            annotation_position="bottom left",
            annotation_font_color="#555",
        )
    fig.update_xaxes(title="method", categoryorder="array", categoryarray=methods)
    fig.update_yaxes(range=_reach(table, chance))
    fig.update_yaxes(title=f"{metric}, mean and 95 % CI", col=1)
    fig.update_layout(
        scattermode="group",
        scattergap=0.4,
        height=500,
        margin={"t": 120},
        legend={"title": {"text": "smoothing"}},
    )
    return _titled(fig, title, finding)


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
        If a column is missing or a number is NaN or infinite.
    """
    _check_table(curves, "fidelity_plot", ["method"], ["fraction", "value", "low", "high"])
    fig = go.Figure()
    points = curves.assign(percent=100 * curves["fraction"])
    hover = "%{x:.0f} % replaced: probability %{y:.3f}"
    for name, color, dash in _curve_styles(curves["method"], controls):
        _add_curve(fig, points[points["method"] == name], "percent", name, color, dash, hover)
    fig.update_xaxes(title="pixels replaced (% of the image)", range=[0, points["percent"].max()])
    fig.update_yaxes(title="probability of the class, mean and 95 % CI", rangemode="tozero")
    fig.update_layout(height=520, legend={"title": {"text": "order of replacement"}})
    return _titled(fig, title, finding)


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
        If a column is missing or a number is NaN or infinite.
    """
    _check_table(curves, "error_plot", ["network", "method"], ["step", "value", "low", "high"])
    networks = list(curves["network"].unique())
    fig = make_subplots(1, len(networks), shared_yaxes=True, subplot_titles=networks, horizontal_spacing=0.03)
    drawn = set()
    for column, network in enumerate(networks, start=1):
        points = curves[curves["network"] == network]
        hover = f"%{{x}} windows: error %{{y:.3g}} {unit}"
        for name, color, dash in _curve_styles(curves["method"], controls):
            rows = points[points["method"] == name]
            if len(rows):
                place = {"row": 1, "col": column}
                _add_curve(fig, rows, "step", name, color, dash, hover, legend=name not in drawn, place=place)
                drawn.add(name)
    last = int(curves["step"].max())
    fig.update_xaxes(title="windows perturbed", range=[0, last], dtick=max(1, round(last / 8)))
    fig.update_yaxes(title=f"prediction error ({unit}), mean and 95 % CI", col=1)
    fig.update_layout(height=520, margin={"t": 120}, legend={"title": {"text": "order of the windows"}})
    return _titled(fig, title, finding)


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
        If a column is missing, or a number other than a published one is NaN or infinite.
    """
    _check_table(table, "score_plot", ["method", "network"], ["value", "low", "high"])
    table = table.assign(published=table.get("published", np.nan))
    networks, methods = list(table["network"].unique()), list(table["method"].unique())
    fig = make_subplots(1, len(networks), shared_yaxes=True, subplot_titles=networks, horizontal_spacing=0.03)
    groups = {
        "this run": ("circle", PALETTE[0]),
        "control": ("circle", CONTROL),
        "published": ("diamond-open", PALETTE[1]),
    }
    drawn = set()
    for column, network in enumerate(networks, start=1):
        dots = table[table["network"] == network]
        own = dots["method"].isin(controls)
        parts = {"this run": dots[~own], "control": dots[own], "published": dots[dots["published"].notna()]}
        for group, rows in parts.items():
            if rows.empty:
                continue
            published = group == "published"
            symbol, color = groups[group]
            marker = {
                "color": color,
                "symbol": symbol,
                "size": 11 if published else 10,
                "line": {"width": 2 if published else 0, "color": color},
            }
            trace = _dots(
                rows,
                group,
                marker,
                f"{network}<br>{group}:",
                ".3g",
                value="published" if published else "value",
                offset="published" if published else "ours",
                legend=group not in drawn,
            )
            fig.add_trace(trace, 1, column)
            drawn.add(group)
    if chance is None:
        fig.add_hline(0, line={"color": "#888", "width": 1})
    else:
        fig.add_hline(chance, line={"dash": "dash", "color": CONTROL})
        fig.update_yaxes(range=_reach(table, chance))
    fig.update_xaxes(title="method", categoryorder="array", categoryarray=methods, tickangle=-40)
    fig.update_yaxes(title=f"{metric}<br>mean and 95 % CI", col=1)
    fig.update_layout(scattermode="group", scattergap=0.5, height=600, margin={"t": 120})
    return _titled(fig, title, finding)


def comparison_plot(
    comparisons: pd.DataFrame,
    *,
    metric: str = "AOPC (px)",
    title: str = "Which methods can be told apart",
    finding: str = "",
) -> go.Figure:
    """Show every pair of methods: the difference, row minus column, in colour where it is decided, grey where not.

    Parameters
    ----------
    comparisons : DataFrame
        As :func:`xaitools.evaluation.paired_comparisons` returns it: `first`, `second`, `difference`, `low`,
        `high` and `verdict`, which is "undecided" or the name of the method with the larger values.
    metric : str
        What differs, with its unit.
    title, finding : str
        Title of the figure, and a published result to print under it.

    Raises
    ------
    DataError
        If a column is missing or a number is NaN or infinite.
    """
    _check_table(
        comparisons, "comparison_plot", ["first", "second", "verdict"], ["difference", "low", "high"]
    )
    methods = list(dict.fromkeys([*comparisons["first"], *comparisons["second"]]))
    decided, undecided = (np.full((len(methods), len(methods)), np.nan) for _ in range(2))
    notes = np.full(decided.shape, "", dtype=object)
    for row in comparisons.itertuples():
        i, j = methods.index(row.first), methods.index(row.second)
        cells = undecided if row.verdict == "undecided" else decided
        cells[i, j], cells[j, i] = row.difference, -row.difference
        notes[i, j] = f"{row.difference:+.3g} ({row.low:+.3g} to {row.high:+.3g}): {row.verdict}"
        notes[j, i] = f"{-row.difference:+.3g} ({-row.high:+.3g} to {-row.low:+.3g}): {row.verdict}"
    reach = float(comparisons["difference"].abs().max()) or 1.0
    fig = go.Figure()
    shared: dict[str, Any] = {
        "x": methods,
        "y": methods,
        "xgap": 2,
        "ygap": 2,
        "customdata": notes,
        "hoverongaps": False,
        "hovertemplate": "%{y} minus %{x}<br>%{customdata}<extra></extra>",
    }
    if len(methods) <= 14:
        shared["texttemplate"] = "%{z:+.3~g}"
    bar = {"title": {"text": f"{metric},<br>row minus<br>column"}}
    grey = [[0, "#E3E3E3"], [1, "#E3E3E3"]]
    fig.add_heatmap(
        z=undecided, colorscale=grey, showscale=False, textfont={"color": "#777"}, name="undecided", **shared
    )
    fig.add_heatmap(
        z=decided, colorscale="RdBu_r", zmin=-reach, zmax=reach, colorbar=bar, name="decided", **shared
    )
    fig.add_scatter(
        x=[None],
        y=[None],
        mode="markers",
        marker={"symbol": "square", "size": 12, "color": grey[0][1]},
        name="undecided",
        showlegend=True,
    )
    side = 160 + 52 * len(methods)
    fig.update_xaxes(title="column method", tickangle=-40, showgrid=False)
    fig.update_yaxes(title="row method", autorange="reversed", showgrid=False)
    legend = {"x": 1.02, "y": -0.02, "yanchor": "top"}
    fig.update_layout(width=max(side + 140, 640), height=max(side, 420), legend=legend)
    return _titled(fig, title, finding)


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
    _check_table(table, "prediction_plot", ["split"], ["truth", "predicted"])
    numbers = table[["truth", "predicted"]].to_numpy(dtype=float)
    margin = 0.04 * (np.ptp(numbers) or 1)
    bounds = [float(numbers.min() - margin), float(numbers.max() + margin)]
    fig = go.Figure()
    fig.add_scatter(
        x=bounds,
        y=bounds,
        mode="lines",
        line={"color": CONTROL, "dash": "dash"},
        name="identity",
        hoverinfo="skip",
    )
    words = []
    for split, color, symbol in zip(table["split"].unique(), cycle(PALETTE), cycle(SYMBOLS), strict=False):
        rows = table[table["split"] == split]
        error = float((rows["predicted"] - rows["truth"]).abs().mean())
        words.append(f"{split} {error:.3g} {unit} (n = {len(rows)})")
        fig.add_scatter(
            x=rows["truth"],
            y=rows["predicted"],
            mode="markers",
            name=str(split),
            marker={"color": color, "symbol": symbol, "size": 7, "opacity": 0.65},
            hovertemplate=f"{split}<br>true %{{x:.4g}}, predicted %{{y:.4g}} {unit}<extra></extra>",
        )
    fig.update_xaxes(title=f"true {quantity} ({unit})", range=bounds, constrain="domain", nticks=8)
    fig.update_yaxes(
        title=f"predicted {quantity} ({unit})", range=bounds, constrain="domain", nticks=8, scaleanchor="x"
    )
    fig.update_layout(width=720, height=640, margin={"t": 120})
    subtitle = "Mean absolute error: " + ", ".join(words)
    return _titled(fig, title, f"{subtitle}<br>{finding}" if finding else subtitle)


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
    labels = {name: _training_panel(name) for name in curves}
    panels = {
        label: [name for name in curves if labels[name] == label]
        for label in sorted(set(labels.values()), key=lambda label: (label != "loss", label))
    }
    fig = make_subplots(1, len(panels), horizontal_spacing=0.1)
    styles = zip(cycle(PALETTE), cycle(SYMBOLS), strict=False)
    for column, (label, names) in enumerate(panels.items(), start=1):
        for name, (color, symbol) in zip(names, styles, strict=False):
            points = history[["epoch", name]].dropna()
            fig.add_trace(
                go.Scatter(
                    x=points["epoch"],
                    y=points[name],
                    name=name.replace("_", " "),
                    mode="lines+markers",
                    line={"color": color},
                    marker={"symbol": symbol},
                ),
                1,
                column,
            )
        fig.update_yaxes(title=label, rangemode="tozero", col=column)
    if best_epoch is not None:
        fig.add_vline(
            best_epoch,
            line={"dash": "dash", "color": CONTROL},
            annotation_text="kept",
            annotation_font_color="#555",
        )
    fig.update_xaxes(title="epoch")
    fig.update_layout(height=400)
    return _titled(fig, title, subtitle)


def _training_panel(name: str) -> str:
    """Title of the panel that a curve of the training belongs to."""
    if name.endswith("loss"):
        return "loss"
    with_unit = re.search(r"[^\W_]+ \([^()]+\)$", name)
    return with_unit.group() if with_unit else "score (0 to 1)"


def matrices_plot(
    matrices: Mapping[str, Mapping[str, npt.ArrayLike]],
    *,
    unit: str = "%",
    bounds: tuple[float, float] = (0, 100),
    names: Sequence[str] | None = None,
    title: str = "Agreement of each two runs",
    finding: str = "",
    width: int = 1100,
) -> go.Figure:
    """Show matrices of runs x runs as a grid of tiles, all on one colour scale.

    Parameters
    ----------
    matrices : mapping of row label to mapping of column label to array, (runs, runs)
        The tiles, in order; the mean over different runs stands above each.
    unit : str
        Unit of the values.
    bounds : (low, high)
        Ends of the colour scale.
    names : sequence of str, optional
        One a run; by default their numbers from 1.
    title, finding : str
        Title of the figure, and a published result to print under it.
    width : int
        Width of the figure in pixels; the height follows from the tiles.

    Raises
    ------
    ShapeError
        If a matrix is not square, or their sizes differ.
    DataError
        If a value is NaN or infinite, or there is no matrix.
    """
    columns = list(dict.fromkeys(name for row in matrices.values() for name in row))
    tiles = {
        (row, name): _finite(matrix, f"the matrix '{row}, {name}'")
        for row, cells in matrices.items()
        for name, matrix in cells.items()
    }
    if not tiles:
        raise DataError("No matrix was given to matrices_plot; give at least one row with one matrix.")
    shapes = {tile.shape for tile in tiles.values()}
    n = next(iter(tiles.values())).shape[0]
    if shapes != {(n, n)}:
        raise ShapeError(
            f"The matrices have the shapes {sorted(shapes)}; expected (runs, runs), the same for all."
        )
    runs = [str(number) for number in range(1, n + 1)] if names is None else list(names)
    between = ~np.eye(n, dtype=bool)
    heads = [
        f"{name}: {tiles[row, name][between].mean():.3g} {unit}" if (row, name) in tiles and n > 1 else name
        for row in matrices
        for name in columns
    ]
    fig = make_subplots(
        len(matrices),
        len(columns),
        subplot_titles=heads,
        horizontal_spacing=0.04,
        vertical_spacing=0.28 / len(matrices),
    )
    for (row, name), tile in tiles.items():
        fig.add_trace(
            go.Heatmap(
                z=tile,
                x=runs,
                y=runs,
                coloraxis="coloraxis",
                hovertemplate=f"{row}, {name}<br>runs %{{y}} and %{{x}}: %{{z:.3g}} {unit}<extra></extra>",
            ),
            list(matrices).index(row) + 1,
            columns.index(name) + 1,
        )
    fig.update_xaxes(type="category", showgrid=False, constrain="domain")
    fig.update_yaxes(type="category", showgrid=False, autorange="reversed", constrain="domain")
    fig.for_each_yaxis(lambda axis: axis.update(scaleanchor=axis.anchor))
    for number, row in enumerate(matrices, start=1):
        fig.update_yaxes(title=row, row=number, col=1)
    fig.update_xaxes(title="run", row=len(matrices))
    fig.update_annotations(font_size=12)
    tile_height = (width - 130) / len(columns)
    fig.update_layout(
        coloraxis={
            "colorscale": SEQUENTIAL,
            "cmin": bounds[0],
            "cmax": bounds[1],
            "colorbar": {"title": unit},
        },
        width=width,
        height=round(tile_height * len(matrices) * 1.05 + 160),
        margin={"l": 80, "r": 10, "t": 120, "b": 60},
    )
    return _titled(fig, title, finding)


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
        If a column is missing or a number is NaN or infinite.
    """
    _check_table(table, "region_plot", ["method", "region"], ["value", "low", "high"])
    share = table["value"] / table.groupby("method")["value"].transform(
        lambda values: values.abs().max() or 1
    )
    order = share.groupby(table["region"]).mean().sort_values(ascending=False).index[:n_regions]
    methods = list(table["method"].unique())
    fig = make_subplots(1, len(methods), shared_yaxes=True, subplot_titles=methods, horizontal_spacing=0.02)
    kinds = {
        "known to matter": (True, PALETTE[1]),
        "other region" if marked else "region": (False, PALETTE[0]),
    }
    for column, method in enumerate(methods, start=1):
        own = table[table["method"] == method].set_index("region").loc[lambda rows: rows.index.isin(order)]
        for kind, (is_marked, color) in kinds.items():
            rows = own[own.index.isin(marked) == is_marked]
            if rows.empty:
                continue
            fig.add_trace(
                go.Bar(
                    x=rows["value"],
                    y=rows.index,
                    orientation="h",
                    name=kind,
                    legendgroup=kind,
                    showlegend=column == 1,
                    marker={"color": color},
                    error_x={**_interval(rows), "color": "#444"},
                    hovertemplate=f"{method}<br>%{{y}}: %{{x:.3g}}<extra></extra>",
                ),
                1,
                column,
            )
    fig.update_yaxes(categoryorder="array", categoryarray=list(order)[::-1])
    fig.update_xaxes(rangemode="tozero")
    fig.update_xaxes(title={"text": value, "standoff": 8}, col=(len(methods) + 1) // 2)
    fig.update_layout(
        height=170 + 26 * len(order), barmode="overlay", showlegend=bool(len(marked)), margin={"t": 120}
    )
    return _titled(fig, title, finding)


def _titled(fig: go.Figure, title: str, subtitle: str) -> go.Figure:
    return fig.update_layout(template=TEMPLATE, title={"text": title, "subtitle": {"text": subtitle}})


def _finite(values: npt.ArrayLike, what: str) -> np.ndarray:
    array = np.asarray(values, dtype=np.float32)
    if not np.isfinite(array).all():
        raise DataError(f"{what} holds NaN or infinity; expected finite numbers. Check how it was computed.")
    return array


def _percent(values: npt.ArrayLike, shape: tuple[int, ...], what: str) -> np.ndarray:
    array = _finite(values, what)
    if array.shape != shape:
        raise ShapeError(f"{what} has shape {array.shape}; expected that of the image, {shape}.")
    percent = np.rint(100 * array / (np.abs(array).max() or 1))
    return percent.astype(np.int8 if percent.min() < 0 else np.uint8)


def _percent_axis(signed: bool) -> dict[str, Any]:
    return {
        "colorscale": DIVERGING if signed else SEQUENTIAL,
        "cmin": -100 if signed else 0,
        "cmax": 100,
        "colorbar": {
            "title": {"text": "% of<br>maximum"},
            "orientation": "v",
            "x": 0.02,
            "xanchor": "left",
            "y": 0.02,
            "yanchor": "bottom",
            "len": 0.4,
            "thickness": 14,
        },
    }


def _map_tile(percent: np.ndarray, name: str) -> go.Heatmap:
    hover = f"{name}<br>row %{{y}}, column %{{x}}<br>%{{z}} % of the map's maximum<extra></extra>"
    return go.Heatmap(z=percent, name=name, coloraxis="coloraxis", hovertemplate=hover)


def _grey_tile(image: np.ndarray, name: str, bounds: tuple[float, float] | None = None) -> go.Heatmap:
    low, high = bounds or (float(image.min()), float(image.max()))
    levels = np.rint(255 * (image - low) / ((high - low) or 1)).astype(np.uint8)
    hover = f"{name}<br>row %{{y}}, column %{{x}}<br>grey level %{{z}} of 255<extra></extra>"
    return go.Heatmap(
        z=levels, name=name, zmin=0, zmax=255, colorscale="Greys_r", showscale=False, hovertemplate=hover
    )


def _outline(mask: npt.ArrayLike | None, shape: tuple[int, ...]) -> list[np.ndarray]:
    if mask is None:
        return []
    mask = np.asarray(mask, dtype=bool)
    if mask.shape != shape:
        raise ShapeError(f"The mask has shape {mask.shape}; expected that of the image, {shape}.")
    return [line - 1 for line in find_contours(np.pad(mask, 1).astype(np.float32), 0.5)]


def _outline_trace(outline: list[np.ndarray], name: str, *, legend: bool = False) -> go.Scatter:
    axes: list[list[float | None]] = [[], []]
    for line in outline:
        for axis, points in zip(axes, line.T, strict=True):
            axis.extend([*points.tolist(), None])
    y, x = axes
    return go.Scatter(
        x=x,
        y=y,
        name=name,
        mode="lines",
        line={"color": OUTLINE, "width": 1},
        hoverinfo="skip",
        legendgroup="outline",
        showlegend=legend,
    )


def _show_pixels(fig: go.Figure, shape: tuple[int, ...]) -> None:
    bare = {
        "showticklabels": False,
        "ticks": "",
        "showgrid": False,
        "zeroline": False,
        "showline": False,
        "automargin": False,
    }
    fig.update_xaxes(range=[-0.5, shape[1] - 0.5], constrain="domain", **bare)
    fig.update_yaxes(range=[shape[0] - 0.5, -0.5], constrain="domain", **bare)
    fig.for_each_yaxis(lambda axis: axis.update(scaleanchor=axis.anchor))


def _check_table(table: pd.DataFrame, plot: str, names: Sequence[str], numbers: Sequence[str]) -> None:
    missing = [name for name in [*names, *numbers] if name not in table.columns]
    if missing:
        raise DataError(f"The table for {plot} has no column {missing}; it has {list(table.columns)}.")
    if table.empty or not np.isfinite(table[list(numbers)].to_numpy(dtype=float)).all():
        raise DataError(
            f"The table for {plot} is empty or holds NaN in {list(numbers)}; leave such rows out."
        )


def _interval(rows: pd.DataFrame) -> dict[str, Any]:
    return {
        "type": "data",
        "symmetric": False,
        "array": rows["high"] - rows["value"],
        "arrayminus": rows["value"] - rows["low"],
        "thickness": 1.5,
        "width": 3,
    }


def _reach(table: pd.DataFrame, chance: float | None) -> list[float]:
    """Ends of an axis that shows all intervals and the value by chance."""
    bounds = [table["low"].min(), table["high"].max(), *([] if chance is None else [chance])]
    margin = 0.05 * (max(bounds) - min(bounds)) + 0.01
    return [min(bounds) - margin, max(bounds) + margin]


def _dots(
    rows: pd.DataFrame,
    name: str,
    marker: Mapping[str, Any],
    hover: str,
    digits: str,
    *,
    value: str = "value",
    offset: str,
    legend: bool,
) -> go.Scatter:
    """A dot for each method: the column `value`, with the interval if that is our own."""
    own = value == "value"
    interval = f" (95 % CI %{{customdata[0]:{digits}}} to %{{customdata[1]:{digits}}})" if own else ""
    return go.Scatter(
        x=rows["method"],
        y=rows[value],
        error_y=_interval(rows) if own else None,
        name=name,
        mode="markers",
        marker=marker,
        offsetgroup=offset,
        legendgroup=name,
        showlegend=legend,
        customdata=rows[["low", "high"]],
        hovertemplate=f"%{{x}}, {hover} %{{y:{digits}}}{interval}<extra></extra>",
    )


def _curve_styles(names: pd.Series, controls: Sequence[str]) -> list[tuple[str, str, str]]:
    """Name, colour and dash of each curve: the controls first, so that they lie below."""
    present = list(names.unique())
    methods = [name for name in present if name not in controls]
    grey = zip([name for name in present if name in controls], cycle(DASHES[1:]), strict=False)
    colored = [
        (name, PALETTE[index % len(PALETTE)], DASHES[index // len(PALETTE) % len(DASHES)])
        for index, name in enumerate(methods)
    ]
    return [(name, CONTROL, dash) for name, dash in grey] + colored


def _add_curve(
    fig: go.Figure,
    points: pd.DataFrame,
    x: str,
    name: str,
    color: str,
    dash: str,
    hover: str,
    *,
    legend: bool = True,
    place: Mapping[str, int] | None = None,
) -> None:
    """A line over the column `x` and, below it, the band of its interval."""
    points = points.sort_values(x)
    along = points[x].to_numpy()
    fig.add_trace(
        go.Scatter(
            x=np.concatenate([along, along[::-1]]),
            y=np.concatenate([points["low"], points["high"][::-1]]),
            name=name,
            fill="toself",
            fillcolor=color,
            opacity=BAND,
            line={"width": 0},
            mode="lines",
            hoverinfo="skip",
            legendgroup=name,
            showlegend=False,
        ),
        **(place or {}),
    )
    fig.add_trace(
        go.Scatter(
            x=along,
            y=points["value"],
            name=name,
            mode="lines",
            legendgroup=name,
            showlegend=legend,
            line={"color": color, "dash": dash, "width": 2},
            hovertemplate=f"{name}<br>{hover}<extra></extra>",
        ),
        **(place or {}),
    )
