"""Inside a network: kernels, images that maximise units, neighbours, a surrogate tree, prototypes."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import plotly.express as px
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from xaitools.errors import DataError, ParameterError, ShapeError
from xaitools.plots.style import CONTROL, DIVERGING, PALETTE, checked_table, finite, plain, titled
from xaitools.plots.tiles import _show_pixels, slices_plot


def kernels_plot(
    kernels: npt.ArrayLike,
    *,
    channel: int = 0,
    most: int = 16,
    title: str = "Kernels of the first layer",
    finding: str = "",
    width: int = 1100,
) -> go.Figure:
    """Show kernels as tiles on one signed colour scale: a column a filter, of volumes a row a plane along z.

    Parameters
    ----------
    kernels : array, (filter, channel, row, column) or (filter, channel, x, y, z)
        Weights, as `xaitools.interpretation.layer_kernels` gives them.
    channel : int
        The channel that is shown.
    most : int
        Filters that are shown, those of largest norm; the subtitle says how many there are.
    title, finding : str
        Title of the figure, and what to see in it.
    width : int
        Width of the figure in pixels; the height follows from the tiles.

    Raises
    ------
    ShapeError
        If they are no kernels of two or three axes.
    ParameterError
        If there is no such channel, or `most` is below 1.
    DataError
        If a weight is NaN or infinite.
    """
    weights = finite(kernels, "the kernels")
    if weights.ndim not in (4, 5) or not len(weights):
        raise ShapeError(
            f"Got kernels of shape {weights.shape}; expected (filter, channel, row, column) or "
            "(filter, channel, x, y, z)."
        )
    if not 0 <= channel < weights.shape[1] or most < 1:
        raise ParameterError(
            f"channel={channel}, most={most}; expected a channel from 0 to {weights.shape[1] - 1} and 1 filter or more."
        )
    n = len(weights)
    norms = np.sqrt((weights[:, channel] ** 2).reshape(n, -1).sum(1))
    shown = np.sort(np.argsort(-norms, kind="stable")[:most])
    tiles = weights[shown, channel]
    planes = tiles[:, None] if tiles.ndim == 3 else tiles.transpose(0, 3, 2, 1)[:, :, ::-1]  # y upwards
    n_rows = planes.shape[1]
    fig = make_subplots(
        n_rows, len(shown), horizontal_spacing=0.15 / len(shown), vertical_spacing=0.15 / n_rows
    )
    for column, (number, own) in enumerate(zip(shown, planes, strict=True), start=1):
        for row, plane in enumerate(own, start=1):
            where = f"filter {number}" + (f", z {row - 1}" if tiles.ndim == 4 else "")
            hover = f"{where}<br>row %{{y}}, column %{{x}}<br>weight %{{z:.3g}}<extra></extra>"
            fig.add_trace(
                go.Heatmap(z=plane, name=where, coloraxis="coloraxis", hovertemplate=hover), row, column
            )
        fig.update_xaxes(title={"text": str(number), "standoff": 4}, side="top", row=1, col=column)
    if tiles.ndim == 4:
        for row in range(1, n_rows + 1):
            fig.update_yaxes(title={"text": f"z {row - 1}", "standoff": 4}, row=row, col=1)
    _show_pixels(fig, planes.shape[2:])
    bound = float(np.abs(tiles).max()) or 1.0
    side = min((width - 160) / len(shown), 120.0)
    fig.update_layout(
        coloraxis={"colorscale": DIVERGING, "cmin": -bound, "cmax": bound, "colorbar": {"title": "weight"}},
        width=width,
        height=round(max(side * planes.shape[2] / planes.shape[3] * n_rows * 1.2, 120) + 150),
        margin={"l": 50, "r": 10, "t": 130, "b": 20},
    )
    count = f"All {n} filters." if len(shown) == n else f"{len(shown)} of {n} filters, those of largest norm."
    return titled(fig, title, count, finding)


def activation_plot(
    history: pd.DataFrame,
    strongest: Mapping[str, float] | None = None,
    *,
    title: str = "Activation as the image is changed to raise it",
    finding: str = "",
) -> go.Figure:
    """Draw the activation of each unit over the steps of its maximisation, and the strongest by a real image.

    Parameters
    ----------
    history : DataFrame
        One row a step and unit: `step`, `unit`, `activation` (standard deviations from the mean over real images).
    strongest : mapping from unit to float, optional
        The strongest activation by a real image, a dashed line in the unit's colour.
    title, finding : str
        Title of the figure, and what to see in it.

    Raises
    ------
    DataError
        If a column is missing, a number is NaN or infinite, or two rows fall on one place.
    """
    table = checked_table(
        history.assign(unit=history["unit"].astype(str)) if "unit" in history else history,
        "activation_plot",
        ["unit"],
        ["step", "activation"],
        ["unit", "step"],
    )
    fig = px.line(
        table, x="step", y="activation", color="unit", color_discrete_sequence=PALETTE, render_mode="svg"
    )
    fig.update_traces(hovertemplate="after %{x} steps: %{y:.2f} standard deviations<extra></extra>")
    real = {plain(unit): value for unit, value in (strongest or {}).items()}
    for trace in fig.data:
        if trace.name in real:
            fig.add_hline(real[trace.name], line={"dash": "dash", "color": trace.line.color, "width": 1.5})
    fig.update_xaxes(title="steps of the optimisation")
    fig.update_yaxes(title="activation (SD of real images)")
    fig.update_layout(height=420, legend={"title": {"text": "unit"}})
    dashed = "Dashed: the strongest activation by a real image." if real else ""
    return titled(fig, title, finding, dashed)


def neighbours_plot(
    images: npt.ArrayLike,
    references: npt.ArrayLike,
    table: pd.DataFrame,
    *,
    labels: Sequence[str] = (),
    reference_labels: Sequence[str] = (),
    title: str = "Images and those that the network takes for alike",
    finding: str = "",
    width: int = 1100,
) -> go.Figure:
    """Lay out each image beside its nearest neighbours, a row an image.

    Parameters
    ----------
    images, references : array, (slice, row, column)
        A slice of each image and of each reference.
    table : DataFrame
        One row an image and neighbour: `query`, `rank`, `neighbour` and `distance`, as
        `xaitools.interpretation.nearest_neighbours` gives it.
    labels, reference_labels : sequence of str
        Classes, for the captions.
    title, finding : str
        Title of the figure, and what to see in it.
    width : int
        Width of the figure in pixels; the height follows from the tiles.

    Raises
    ------
    DataError
        If a column is missing, or the images have different numbers of neighbours.
    ShapeError
        If the slices differ in shape, or there is not one label for each.
    """
    numbers = ["query", "rank", "neighbour", "distance"]
    table = checked_table(table, "neighbours_plot", [], numbers, ["query", "rank"])
    own, theirs = finite(images, "the images"), finite(references, "the references")
    for stack, names in ((own, labels), (theirs, reference_labels)):
        if stack.ndim != 3 or stack.shape[1:] != own.shape[1:] or len(names) not in (0, len(stack)):
            raise ShapeError(
                f"Got images of shape {own.shape}, references of {theirs.shape}, {len(labels)} and "
                f"{len(reference_labels)} labels; expected (slice, row, column) of one size and a label for each."
            )
    counts = table.groupby("query").size()
    if counts.nunique() != 1:
        raise DataError(
            f"The images have {sorted(set(counts))} neighbours; expected the same number for each."
        )
    tiles, captions = [], []
    for query, found in table.sort_values(["query", "rank"]).groupby("query"):
        tiles.append(own[int(query)])
        captions.append(f"image {int(query)}" + (f": {labels[int(query)]}" if len(labels) else ""))
        for row in found.itertuples():
            position = int(row.neighbour)
            tiles.append(theirs[position])
            name = f"{reference_labels[position]}, " if len(reference_labels) else ""
            captions.append(f"{name}distance {row.distance:.3g}")
    return slices_plot(
        np.stack(tiles), captions, columns=int(counts.iloc[0]) + 1, title=title, subtitle=finding, width=width
    )


def tree_plot(
    rules: pd.DataFrame, *, title: str = "A tree that stands for the network", finding: str = ""
) -> go.Figure:
    """Draw a decision tree, its root on top: to the left where the density is at most the threshold.

    Parameters
    ----------
    rules : DataFrame
        One row a node: `node`, `depth`, `region` ("" for a leaf), `threshold`, `below`, `above`, `n`, `class`, as
        `xaitools.interpretation.Surrogate.rules`.
    title, finding : str
        Title of the figure, and what to see in it.

    Raises
    ------
    DataError
        If a column is missing or a number is NaN or infinite.
    """
    numbers = ["node", "depth", "below", "above", "n"]
    table = checked_table(rules, "tree_plot", ["region", "class"], numbers, ["node"]).set_index("node")
    across = _places(table)
    colours = dict(
        zip(sorted(table["class"].unique()), _cycled(PALETTE, table["class"].nunique()), strict=True)
    )
    fig = go.Figure()
    for node, row in table.iterrows():
        for child, sign in ((row["below"], "≤"), (row["above"], ">")):
            if row["region"]:
                x, y = [across[node], across[child]], [-row["depth"], -row["depth"] - 1]
                fig.add_trace(
                    go.Scatter(
                        x=x, y=y, mode="lines", line={"color": CONTROL}, hoverinfo="skip", showlegend=False
                    )
                )
                fig.add_annotation(
                    x=np.mean(x),
                    y=np.mean(y),
                    text=f"{sign} {row['threshold']:.3g}",
                    showarrow=False,
                    bgcolor="white",
                )
    for node, row in table.iterrows():
        fig.add_annotation(
            x=across[node],
            y=-row["depth"],
            text=f"<b>{row['region'] or row['class']}</b><br>{row['n']} images",
            showarrow=False,
            bgcolor="white" if row["region"] else colours[row["class"]],
            bordercolor=CONTROL if row["region"] else colours[row["class"]],
            font={"color": "#222" if row["region"] else "white"},
            borderpad=5,
        )
    depth = int(table["depth"].max())
    fig.update_xaxes(visible=False, range=[-0.6, max(across.values()) + 0.6])
    fig.update_yaxes(visible=False, range=[-depth - 0.35, 0.35])
    fig.update_layout(height=180 + 110 * (depth + 1), margin={"t": 110, "b": 10, "l": 10, "r": 10})
    return titled(fig, title, finding)


def mmd_plot(
    mmd2: Sequence[float], *, title: str = "How much of the set its prototypes tell", finding: str = ""
) -> go.Figure:
    """Draw the squared maximum mean discrepancy over the number of prototypes: 0 where they tell all.

    Parameters
    ----------
    mmd2 : sequence of float
        With 1, 2, ... prototypes.
    title, finding : str
        Title of the figure, and what to see in it.

    Raises
    ------
    DataError
        If there is no value, or one is NaN or infinite.
    """
    table = pd.DataFrame({"prototypes": range(1, len(mmd2) + 1), "mmd2": list(mmd2)})
    table = checked_table(table, "mmd_plot", [], ["prototypes", "mmd2"])
    fig = px.line(table, x="prototypes", y="mmd2", markers=True, color_discrete_sequence=PALETTE)
    fig.update_traces(hovertemplate="%{x} prototypes: %{y:.4f}<extra></extra>")
    fig.update_xaxes(title="prototypes", dtick=max(1, len(table) // 10))
    fig.update_yaxes(title="MMD² to the set", rangemode="tozero")
    fig.update_layout(height=380)
    return titled(fig, title, finding)


def _places(table: pd.DataFrame) -> dict[Any, float]:
    """Where each node stands: leaves side by side, parents over the middle of their children."""
    across: dict[Any, float] = {}
    n_leaves = 0
    waiting = [table.index[0]]
    while waiting:
        node = waiting[-1]
        children = (
            [] if not table.loc[node, "region"] else [table.loc[node, side] for side in ("below", "above")]
        )
        missing = [child for child in children if child not in across]
        if missing:
            waiting.append(missing[0])
            continue
        across[node] = float(np.mean([across[child] for child in children])) if children else float(n_leaves)
        n_leaves += not children
        waiting.pop()
    return across


def _cycled(colours: Sequence[str], count: int) -> list[str]:
    return [colours[number % len(colours)] for number in range(count)]
