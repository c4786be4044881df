"""Matrices of methods and of runs."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from xaitools.errors import DataError, ShapeError
from xaitools.plots.style import SEQUENTIAL, checked_table, finite, plain, titled


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
        If a column is missing, a number is NaN or infinite, or two rows fall on one place.
    """
    names = ["first", "second", "verdict"]
    comparisons = checked_table(comparisons, "comparison_plot", names, ["difference", "low", "high"])
    methods = list(dict.fromkeys([*comparisons["first"], *comparisons["second"]]))
    decided, undecided = (np.full((len(methods), len(methods)), np.nan) for _ in range(2))
    notes = np.full(decided.shape, "", dtype=object)
    for row in comparisons.itertuples():
        i, j = methods.index(row.first), methods.index(row.second)
        if notes[i, j] or i == j:
            raise DataError(
                f"The table for comparison_plot compares {row.first!r} with {row.second!r} again; expected each two "
                "methods once: give each method a label of its own."
            )
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
    bar = {"title": {"text": f"{plain(metric)},<br>row minus<br>column"}}
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
    fig.update_layout(height=max(side, 420), legend=legend)
    return titled(fig, title, finding, width=max(side + 140, 640))


def matrices_plot(
    matrices: Mapping[str, Mapping[str, npt.ArrayLike]],
    *,
    unit: str = "%",
    bounds: tuple[float, float] = (0, 100),
    names: Sequence[str] | None = None,
    item: str = "run",
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
    item : str
        What a row and a column stand for.
    title, finding : str
        Title of the figure, and a published result to print under it.
    width : int
        Width in pixels that the figure is laid out for, from which its height follows; where there is less, the
        tiles shrink.

    Raises
    ------
    ShapeError
        If a matrix is not square, or their sizes differ.
    DataError
        If a value is NaN or infinite, or there is no matrix.
    """
    unit, item = plain(unit), plain(item)
    matrices = {
        plain(row): {plain(name): cell for name, cell in cells.items()} for row, cells in matrices.items()
    }
    columns = list(dict.fromkeys(name for row in matrices.values() for name in row))
    tiles = {
        (row, name): finite(matrix, f"the matrix '{row}, {name}'")
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
    runs = [plain(name) for name in names or range(1, n + 1)]
    if len(set(runs)) != n or len(runs) != n:
        raise DataError(f"names={runs} for {n} runs; expected one name for each, all different.")
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
                hovertemplate=f"{row}, {name}<br>{item} %{{y}} and %{{x}}: %{{z:.3g}} {unit}<extra></extra>",
            ),
            list(matrices).index(row) + 1,
            columns.index(name) + 1,
        )
    fig.update_xaxes(type="category", showgrid=False, constrain="domain")
    fig.update_yaxes(type="category", showgrid=False, autorange="reversed", constrain="domain")
    fig.for_each_yaxis(lambda axis: axis.update(scaleanchor=axis.anchor))
    for number, row in enumerate(matrices, start=1):
        fig.update_yaxes(title=row, row=number, col=1)
    fig.update_xaxes(title=item, row=len(matrices))
    fig.update_annotations(font_size=12)
    tile_height = (width - 130) / len(columns)
    fig.update_layout(
        coloraxis={
            "colorscale": SEQUENTIAL,
            "cmin": bounds[0],
            "cmax": bounds[1],
            "colorbar": {"title": unit},
        },
        height=round(tile_height * len(matrices) * 1.05 + 160),
        margin={"l": 80, "r": 10, "t": 120, "b": 60},
    )
    return titled(fig, title, finding, width=width)
