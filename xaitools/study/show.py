"""Figures, tables and texts as the last line of a cell."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from IPython.display import Markdown

from xaitools.study.run import Run


def saved(run: Run, figure: go.Figure, name: str) -> go.Figure:
    """The figure, after it was written to the run's ``figures/NAME.html``."""
    run.save_figure(figure, name)
    return figure


def plain_table(frame: pd.DataFrame) -> Any:
    """The table without its row numbers, texts to the left and never as markup; nothing for a table without rows."""
    if frame.empty:
        return None
    style = frame.reset_index(drop=True).style.hide(axis="index").set_properties(**{"text-align": "left"})
    return style.format(escape="html").format_index(escape="html", axis="columns")


def say(*sentences: str) -> Markdown:
    """Sentences of `xaitools.study.words` as one paragraph; empty ones are left out."""
    return Markdown(" ".join(filter(None, sentences)))


def panel_rows(
    maps: Mapping[str, np.ndarray], named: pd.DataFrame, sample: int
) -> dict[str, dict[str, np.ndarray]]:
    """The maps of one sample by smoothing and unit, then by method: the rows and columns of `plots.map_panel`.

    Parameters
    ----------
    maps
        ``(n, 1, row, column)`` by name of the method.
    named
        As :func:`~xaitools.study.method_table` returns it.
    sample
        Position of the sample.
    """
    rows: dict[str, dict[str, np.ndarray]] = {}
    for name, values in maps.items():
        own = named.loc[name]
        rows.setdefault(f"{own['smoothing']}, {own['unit']}", {})[own["base"]] = values[sample, 0]
    return rows
