"""Images and maps as grids of tiles."""

import html
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go
from plotly.subplots import make_subplots
from skimage.measure import find_contours

from xaitools.errors import ParameterError, ShapeError
from xaitools.plots.style import DIVERGING, OUTLINE, SEQUENTIAL, finite, plain, titled, wrapped


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
        Width in pixels that the figure is laid out for, from which its height follows; where there is less, the
        tiles shrink.

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
    images = finite(image, "the image")
    shape = images.shape[-2:]
    maps = {plain(row): {plain(name): tile for name, tile in tiles.items()} for row, tiles in maps.items()}
    columns = list(dict.fromkeys(name for row in maps.values() for name in row))
    if not columns:
        raise ParameterError("No map was given to map_panel; give at least one row with one map.")
    several = images.ndim == 3
    if several and len(images) != len(maps):
        raise ShapeError(
            f"Got {len(images)} images for {len(maps)} rows of maps; give one image, or one a row."
        )
    if mask is not None and np.shape(mask) != images.shape:
        raise ShapeError(f"The mask has shape {np.shape(mask)}; expected that of the image, {images.shape}.")
    tiles = {
        (row, name): _percent(values, shape, f"the map '{row}, {name}'")
        for row in maps
        for name, values in maps[row].items()
    }
    signed = any(tile.min() < 0 for tile in tiles.values())
    masks = [None] * len(maps) if mask is None else np.broadcast_to(mask, (len(maps), *shape))
    outlines = [_outline_trace(_outline(own, shape), mask_name) for own in masks]
    if several:
        slices = list(zip(images, outlines, strict=True))
    else:  # the slice, and below it the slice with its outline
        slices = [(images, None), *([] if mask is None else [(images, outlines[0])])]

    n_rows = max(len(maps), len(slices))
    roomy = not several and n_rows >= 4  # the first column is empty below the slice
    height = (width * 0.97 - (0 if roomy else 110)) / (len(columns) + 1.1) * shape[0] / shape[1]
    captions = [_row_title(label, height) for label in maps]
    margin = 12 + 18 * max(caption["text"].count("<br>") + 1 for caption in captions)
    fig = make_subplots(
        n_rows,
        len(columns) + 2,
        column_widths=[1, margin * (len(columns) + 1) / width] + [1] * len(columns),
        horizontal_spacing=0.006,
        vertical_spacing=0.03 / n_rows,
    )
    for row, (own, outline) in enumerate(slices, start=1):
        _add_tile(fig, _grey_tile(own, "image"), outline, row, 1)
    heads = {name: wrapped(html.unescape(name), 12) for name in ["image", *columns]}
    for (label, name), tile in tiles.items():
        row = list(maps).index(label) + 1
        outline = None if mask is None else outlines[row - 1]
        _add_tile(fig, _map_tile(tile, f"{label}, {name}"), outline, row, columns.index(name) + 3)
    next(fig.select_traces({"type": "scatter"}), go.Scatter()).update(showlegend=True)
    for column, name in [(1, "image"), *enumerate(columns, start=3)]:
        fig.update_xaxes(
            title={"text": "<br>".join(heads[name]), "standoff": 4}, side="top", row=1, col=column
        )
    for row, caption in enumerate(captions, start=1):
        fig.update_yaxes(title={**caption, "standoff": 4}, row=row, col=3)
    _show_pixels(fig, shape)
    _lay_out(fig, signed, height * n_rows, max(map(len, heads.values())), n_rows if roomy else None)
    return titled(fig, title, subtitle, width=width)


def _lay_out(fig: go.Figure, signed: bool, height: float, lines: int, n_rows: int | None) -> None:
    """Make room for titles of `lines`.

    Colour bar and legend stand below the slice, where the first column of `n_rows` has room, or beside the maps.
    """
    axis = _percent_axis(signed)
    if n_rows:
        legend = {"x": 0, "y": 1 - 2 / n_rows, "yanchor": "top", "bgcolor": "rgba(0,0,0,0)"}
    else:
        axis["colorbar"] |= {"x": 1.01, "y": 0.5, "yanchor": "middle", "len": 1 if height < 400 else 0.4}
        legend = {"x": 0, "y": -0.01, "yanchor": "top", "orientation": "h"}
    fig.update_layout(
        coloraxis=axis,
        height=round(height * 1.03 + 18 * lines + (112 if n_rows else 142)),
        margin={"l": 10, "r": 10 if n_rows else 120, "t": 84 + 18 * lines, "b": 10 if n_rows else 40},
        legend=legend,
    )


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
    mask_name: str = "reference mask",
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
    title, subtitle, mask_name : str
        Text of the figure; `mask_name` labels the outline in the legend.
    width : int
        Width in pixels that the figure is laid out for; where there is less, the tiles shrink.

    Raises
    ------
    ShapeError
        If there is not one label and one mask for each slice.
    DataError
        If a slice holds NaN or infinity.
    """
    images = finite(images, "the slices")
    if images.ndim != 3 or len(labels) != len(images) or len(images) == 0:
        raise ShapeError(
            f"Got slices of shape {images.shape} and {len(labels)} labels; "
            "expected (slice, row, column) and one label for each slice."
        )
    labels = [plain(label) for label in labels]
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
            fig.add_trace(_outline_trace(outline, mask_name, legend=index == 0), row, column)
    _show_pixels(fig, images.shape[1:])
    tile_height = width / columns * images.shape[1] / images.shape[2]
    bottom = 10 if masks is None else 40
    fig.update_layout(
        height=round(tile_height * n_rows * 1.15 + 95 + bottom),
        margin={"l": 10, "r": 10, "t": 95, "b": bottom},
        legend={"orientation": "h", "x": 0, "y": 0, "yref": "container", "yanchor": "bottom"},
    )
    return titled(fig, title, subtitle, width=width)


def _percent(values: npt.ArrayLike, shape: tuple[int, ...], what: str) -> np.ndarray:
    array = finite(values, what)
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


def _add_tile(fig: go.Figure, tile: go.Heatmap, outline: go.Scatter | None, row: int, column: int) -> None:
    for trace in [tile] if outline is None else [tile, outline]:
        fig.add_trace(trace, row, column)


def _outline_trace(outline: list[np.ndarray], name: str, *, legend: bool = False) -> go.Scatter:
    axes: list[list[float | None]] = [[], []]
    for line in outline:
        for axis, points in zip(axes, line.T, strict=True):
            axis.extend([*points.tolist(), None])
    y, x = axes
    return go.Scatter(
        x=x,
        y=y,
        name=plain(name),
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
