"""What all figures share: colours, template, the check of tables, and how names and p values are written."""

import html
import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import plotly.graph_objects as go
from plotly.colors import sample_colorscale

from xaitools.errors import DataError

# Okabe & Ito (2008), readable with every common colour blindness.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
SYMBOLS = ("circle", "diamond", "square", "triangle-up", "x", "star")
DASHES = ("solid", "dash", "dot", "dashdot")
SMOOTHINGS = ("plain", "SG", "SG²", "VG")  # each keeps its colour and symbol, whichever of them a run has
OUTLINE, CONTROL = "#00E5FF", "#888888"
SMALL = 560  # pixels; what JupyterLab leaves a figure in a window of 1000, beside its list of files
_TITLE = 60  # pixels of a figure's upper margin that a title and one line below it take

# Relevance has heavy tails: colours follow the square root, so that more than the peaks show.
_STEPS = np.linspace(-1, 1, 65)
_SEQUENTIAL = sample_colorscale("Inferno", _STEPS[32:])
_DIVERGING = sample_colorscale("RdBu_r", (1 + _STEPS) / 2)
SEQUENTIAL = [[step**2, color] for step, color in zip(_STEPS[32:], _SEQUENTIAL, strict=True)]
DIVERGING = [[(1 + step * abs(step)) / 2, color] for step, color in zip(_STEPS, _DIVERGING, strict=True)]

# What every page draws figures with: without the button that offers to upload what is shown to a server of Plotly's.
# The template leaves it out too, for front ends that draw a figure their own way, as JupyterLab does.
CONFIG = {"showSendToCloud": False, "displaylogo": False, "responsive": True}

TEMPLATE = go.layout.Template(
    layout={
        "modebar": {"remove": "sendChartToCloud"},
        "font": {
            "family": "system-ui, 'Segoe UI', Helvetica, Arial, sans-serif",
            "size": 13,
            "color": "#222",
        },
        "title": {
            "x": 0.01,
            "xanchor": "left",
            "y": 1,
            "yref": "container",
            "yanchor": "top",
            "pad": {"t": 12},
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


def plain(text: Any) -> str:
    """A text as plotly shows it: its signs ``<``, ``>`` and ``&`` are themselves, not markup.

    The figures do this for every text that they are given: names, labels, units, titles and findings.

    Examples
    --------
    >>> plain("T<0.5 & up")
    'T&lt;0.5 &amp; up'
    """
    return html.escape(str(text), quote=False)


def no_uploads() -> None:
    """Let no figure that a notebook shows from now on, its own ones too, offer to upload what it shows."""
    from plotly.io import renderers

    for name in renderers:
        if isinstance(config := getattr(renderers[name], "config", None), dict):
            config["showSendToCloud"] = False


def titled(fig: go.Figure, title: str, *subtitle: str, width: int | None = None) -> go.Figure:
    """The figure in the house's template, with its title and the lines below it, broken where `SMALL` pixels end.

    A figure takes the width that there is. `width` is that for which its height and text were chosen: still pictures
    and reports draw it no wider, and a figure that is `SMALL` anyway keeps it everywhere.
    """
    heads, notes = wrapped(title, 60), [line for text in subtitle for line in wrapped(text, 88)]
    margin = fig.layout.margin.t or TEMPLATE.layout.margin.t
    top = margin - _TITLE + 18 + 22 * len(heads) + 17 * len(notes)
    if width and width > SMALL:
        fig.update_layout(meta={"width": width}, width=None)
    elif width:
        fig.update_layout(width=width)
    if fig.layout.height:
        fig.update_layout(height=fig.layout.height + top - margin)
    return fig.update_layout(
        template=TEMPLATE,
        title={"text": "<br>".join(heads), "subtitle": {"text": "<br>".join(notes)}},
        margin={"t": top},
    )


def wrapped(text: str, characters: int) -> list[str]:
    """A text in lines of at most so many characters, but for longer words, as plotly shows it."""
    lines = textwrap.wrap(str(text), characters, break_long_words=False, break_on_hyphens=False)
    return [plain(line) for line in lines]


def finite(values: npt.ArrayLike, what: str) -> np.ndarray:
    """The values as a float32 array; DataError if one is NaN or infinite."""
    array = np.asarray(values, dtype=np.float32)
    if not np.isfinite(array).all():
        raise DataError(f"{what} holds NaN or infinity; expected finite numbers. Check how it was computed.")
    return array


def checked_table(
    table: pd.DataFrame, plot: str, names: Sequence[str], numbers: Sequence[str], key: Sequence[str] = ()
) -> pd.DataFrame:
    """The table with its names as they are shown, once it has all columns, finite numbers, and one row for each key.

    Raises
    ------
    DataError
        If it is not so. Two rows of one key would be drawn on one place, and read as one.
    """
    missing = [name for name in [*names, *numbers] if name not in table.columns]
    if missing:
        raise DataError(f"The table for {plot} has no column {missing}; it has {list(table.columns)}.")
    if table.empty or not np.isfinite(table[list(numbers)].to_numpy(dtype=float)).all():
        raise DataError(
            f"The table for {plot} is empty or holds NaN in {list(numbers)}; leave such rows out."
        )
    table = table.assign(**{name: table[name].map(plain) for name in names})
    if key and table.duplicated(list(key)).any():
        row = table[table.duplicated(list(key))].iloc[0]
        raise DataError(
            f"The table for {plot} has several rows of {', '.join(f'{name}={row[name]!r}' for name in key)}; "
            "expected one: give each method a label of its own."
        )
    return table


def plain_facets(fig: go.Figure) -> go.Figure:
    """A figure of plotly.express with the value alone as title of each panel, and none of its legend."""
    panels = len(fig.layout.annotations)
    characters, size = max(10, 60 // max(1, panels)), 16 if panels < 3 else 13
    for note in fig.layout.annotations:
        name = html.unescape(note.text.partition("=")[2])
        note.update(text="<br>".join(wrapped(name, characters)), font_size=size)
    return fig.update_layout(legend={"title": {"text": ""}, "tracegroupgap": None}, margin={"t": 120})
