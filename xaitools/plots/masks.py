"""How a mask forms."""

import pandas as pd
import plotly.express as px
import plotly.graph_objects as go

from xaitools.plots.style import PALETTE, checked_table, plain_facets, titled

TERMS = {
    "objective": "objective",
    "score": "score of the class",
    "area_penalty": "penalty on the hidden area",
    "smoothness_penalty": "penalty on roughness",
}
"""What is drawn, by column."""


def objective_plot(
    history: pd.DataFrame, *, title: str = "How the mask forms", finding: str = ""
) -> go.Figure:
    """Draw the terms of the objective over the iterations, one panel a mask.

    Parameters
    ----------
    history : DataFrame
        One row a mask and iteration: `mask`, `iteration`, and the columns of :data:`TERMS`.
    title, finding : str
        Title of the figure, and what to see in it.

    Raises
    ------
    DataError
        If a column is missing, a number is NaN or infinite, or two rows fall on one place.
    """
    key = ["mask", "iteration"]
    table = checked_table(history, "objective_plot", key[:1], ["iteration", *TERMS], key)
    long = table.rename(columns=TERMS).melt(key, list(TERMS.values()), var_name="term")
    fig = px.line(
        long,
        x="iteration",
        y="value",
        color="term",
        line_dash="term",
        facet_col="mask",
        facet_col_spacing=0.03,
        custom_data=["term"],
        color_discrete_sequence=PALETTE,
        render_mode="svg",
    )
    fig.update_traces(hovertemplate="after %{x} steps, %{customdata[0]}: %{y:.4f}<extra></extra>")
    plain_facets(fig)
    fig.update_xaxes(title="")
    fig.update_xaxes(title="steps of the optimisation", col=(table["mask"].nunique() + 1) // 2)
    fig.update_yaxes(title="value, probability or penalty (no unit)", rangemode="tozero", col=1)
    fig.update_layout(height=430, legend={"title": {"text": "term"}})
    return titled(fig, title, finding)
