import numpy as np
import pandas as pd
import plotly.graph_objects as go

from xaitools.study import method_table, panel_rows, plain_table, saved, say


def test_a_saved_figure_is_shown_and_lies_among_the_figures(run):
    figure = go.Figure()
    assert saved(run, figure, "panel") is figure
    assert (run.output_dir / "figures" / "panel.html").exists()


def test_a_table_has_no_row_numbers_and_an_empty_one_is_not_shown():
    rows = pd.DataFrame({"method": ["BP"], "auc": ["0.9"]})
    html = plain_table(pd.concat([rows, rows])).to_html()
    assert "BP" in html
    assert "row_heading" not in html
    assert plain_table(pd.DataFrame()) is None


def test_empty_sentences_leave_no_trace():
    assert say("One.", "", "Two.").data == "One. Two."
    assert say("").data == ""


def test_no_map_is_lost_in_the_panel():
    names = [
        "occlusion[32:16]",
        "occlusion[16:8]",
        "gradient",
        "gradient+absolute",
        "gradient+smoothgrad@xrai",
    ]
    maps = {name: np.full((2, 1, 3, 3), i) for i, name in enumerate(names)}
    rows = panel_rows(maps, method_table(names), sample=1)
    assert list(rows) == ["plain, pixel", "SG, region"]
    shown = [tile for row in rows.values() for tile in row.values()]
    assert [int(tile[0, 0]) for tile in shown] == list(range(5))
    assert shown[0].shape == (3, 3)


def test_a_name_in_a_table_is_no_markup():
    name = "<script>alert(1)</script>"
    html = plain_table(pd.DataFrame({name: [name], "auc": [0.5]})).format("{:.1%}", subset=["auc"]).to_html()
    assert "<script>" not in html
    assert html.count("&lt;script&gt;") == 2
    assert "50.0%" in html
