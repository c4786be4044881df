import json

import numpy as np
import pandas as pd
import pytest

from xaitools import plots
from xaitools.errors import DataError, ParameterError, ShapeError
from xaitools.evaluation import paired_comparisons

METHODS = ["gradient", "IG black", "IG black+white", "expected gradients", "deconvolution"]
ROWS = ["plain", "SmoothGrad", "SmoothGrad squared"]


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def heatmaps(fig):
    return [trace for trace in fig.data if trace.type == "heatmap"]


def axes_of(fig, trace):
    return fig.layout["xaxis" + trace.xaxis[1:]], fig.layout["yaxis" + trace.yaxis[1:]]


def assert_no_nan(fig):
    for trace in fig.data:
        for values in (trace.x, trace.y):
            numbers = [v for v in np.ravel(values).tolist() if isinstance(v, float)]
            assert np.isfinite(numbers).all()


def test_map_panel_holds_each_map_in_percent_of_its_maximum_at_its_place(rng):
    image = rng.random((5, 7))
    maps = {row: {name: rng.random((5, 7)) * 10 for name in METHODS} for row in ROWS}
    fig = plots.map_panel(image, maps)
    tiles = {trace.name: trace for trace in heatmaps(fig)}
    assert len(tiles) == 1 + len(METHODS) * len(ROWS)
    for row in ROWS:
        for name in METHODS:
            expected = np.rint(100 * maps[row][name] / maps[row][name].max())
            np.testing.assert_array_equal(tiles[f"{row}, {name}"].z, expected)
    left, right = tiles["plain, gradient"], tiles["plain, deconvolution"]
    assert fig.layout["xaxis" + left.xaxis[1:]].domain[1] < fig.layout["xaxis" + right.xaxis[1:]].domain[0]
    above, below = tiles["plain, gradient"], tiles["SmoothGrad, gradient"]
    assert fig.layout["yaxis" + above.yaxis[1:]].domain[0] > fig.layout["yaxis" + below.yaxis[1:]].domain[1]
    assert axes_of(fig, tiles["image"])[0].domain[1] < axes_of(fig, left)[0].domain[0]
    np.testing.assert_array_equal(tiles["image"].z, np.rint(255 * (image - image.min()) / np.ptp(image)))
    heads = [axes_of(fig, tiles[f"plain, {name}"])[0].title.text for name in METHODS]
    assert [head.replace("<br>", " ") for head in heads] == METHODS
    assert axes_of(fig, tiles["image"])[0].title.text == "image"
    titles = [axes_of(fig, tiles[f"{row}, gradient"])[1].title.text for row in ROWS]
    assert [title.replace("<br>", " ") for title in titles] == ROWS
    assert {axis.range for axis in fig.select_yaxes()} == {(4.5, -0.5)}
    assert {axis.range for axis in fig.select_xaxes()} == {(-0.5, 6.5)}
    assert "row %{y}, column %{x}<br>%{z} %" in left.hovertemplate
    assert (fig.layout.coloraxis.cmin, fig.layout.coloraxis.cmax) == (0, 100)
    assert fig.layout.coloraxis.colorscale[-1] == tuple(plots.SEQUENTIAL[-1])
    assert_no_nan(fig)


@pytest.mark.parametrize("n_columns", [2, 5, 11])
def test_map_panel_titles_of_rows_are_no_longer_than_their_tiles(n_columns):
    rows = ["Guided backpropagation", "LRP"]
    maps = {row: {f"run {n}": np.ones((6, 6)) for n in range(n_columns)} for row in rows}
    fig = plots.map_panel(np.ones((6, 6)), maps)
    assert [axis.title.text.replace("<br>", " ") for axis in fig.select_yaxes(col=3)] == rows
    for axis in fig.select_yaxes(col=3):
        height = (axis.domain[1] - axis.domain[0]) * (
            fig.layout.height - fig.layout.margin.t - fig.layout.margin.b
        )
        longest = max(map(len, axis.title.text.split("<br>")))
        assert 0.55 * axis.title.font.size * longest <= 1.05 * height


def test_map_panel_signed_maps_use_a_scale_symmetric_about_zero():
    fig = plots.map_panel(np.eye(4), {"plain": {"gradient": np.diag([1.0, -2, 0, 1])}})
    np.testing.assert_array_equal(np.diag(heatmaps(fig)[1].z), [50, -100, 0, 50])
    assert (fig.layout.coloraxis.cmin, fig.layout.coloraxis.cmax) == (-100, 100)
    assert dict(plots.DIVERGING)[0.5] == "rgb(247, 247, 247)"


def test_map_panel_outlines_the_mask_on_the_slice_and_every_map():
    mask = np.zeros((6, 8), dtype=bool)
    mask[2:4, 5:8] = True  # touches the border
    fig = plots.map_panel(np.ones((6, 8)), {"plain": dict.fromkeys(METHODS, np.ones((6, 8)))}, mask)
    outlines = [trace for trace in fig.data if trace.type == "scatter"]
    assert len(outlines) == len(METHODS) + 1
    points = np.array([(x, y) for x, y in zip(outlines[0].x, outlines[0].y, strict=True) if x is not None])
    assert points.min(axis=0).tolist() == [4.5, 1.5]
    assert points.max(axis=0).tolist() == [7.5, 3.5]


def test_map_panel_of_30_maps_is_small(rng):
    maps = {
        f"{unit}, {row}": {name: rng.random((128, 128)) for name in METHODS} for unit in "pr" for row in ROWS
    }
    html = plots.map_panel(rng.random((128, 128)), maps, rng.random((128, 128)) > 0.999).to_html(
        include_plotlyjs=False
    )
    assert html.count('"dtype":"u1"') == 32
    assert len(html) < 1_500_000


def test_map_panel_constant_and_all_zero_maps():
    fig = plots.map_panel(np.zeros((3, 3)), {"plain": {"a": np.zeros((3, 3)), "b": np.full((3, 3), 0.2)}})
    assert [trace.z.max() for trace in heatmaps(fig)] == [0, 0, 100]


@pytest.mark.parametrize(
    ("image", "maps", "mask", "error", "message"),
    [
        (np.ones((3, 3)), {}, None, ParameterError, "No map"),
        (np.ones((3, 3)), {"plain": {"ig": np.ones((3, 4))}}, None, ShapeError, r"plain, ig.*\(3, 4\)"),
        (np.ones((3, 3)), {"plain": {"ig": np.full((3, 3), np.nan)}}, None, DataError, "plain, ig"),
        (np.full((3, 3), np.inf), {"plain": {"ig": np.ones((3, 3))}}, None, DataError, "the image"),
        (np.ones((3, 3)), {"plain": {"ig": np.ones((3, 3))}}, np.ones((2, 2), bool), ShapeError, "mask"),
    ],
)
def test_map_panel_refuses(image, maps, mask, error, message):
    with pytest.raises(error, match=message):
        plots.map_panel(image, maps, mask)


def test_slices_plot_shares_one_grey_scale_and_places_slices_row_by_row():
    images = np.stack([np.full((4, 4), level) for level in (0.0, 0.5, 1.0)])
    fig = plots.slices_plot(images, ["a", "b", "c"], columns=2)
    assert [trace.z[0, 0] for trace in heatmaps(fig)] == [0, 128, 255]
    assert [trace.xaxis for trace in heatmaps(fig)] == ["x", "x2", "x3"]
    assert fig.layout.yaxis.domain[0] > fig.layout.yaxis3.domain[1]
    with pytest.raises(ShapeError, match="2 labels"):
        plots.slices_plot(images, ["a", "b"])


@pytest.fixture
def quality(rng):
    rows = [(m, s, u, rng.uniform(0.6, 0.8)) for m in METHODS for s in ROWS for u in ("pixel", "region")]
    table = pd.DataFrame(rows, columns=["method", "smoothing", "unit", "value"])
    return table.assign(low=table["value"] - 0.03, high=table["value"] + 0.05)


def test_quality_plot_shows_every_number_with_its_interval(quality):
    fig = plots.quality_plot(quality, chance=0.5, finding="published")
    for trace in fig.data:
        unit = "pixel" if trace.xaxis == "x" else "region"
        rows = quality[(quality["unit"] == unit) & (quality["smoothing"] == trace.name)]
        assert list(trace.x) == METHODS
        np.testing.assert_array_equal(trace.y, rows["value"])
        np.testing.assert_allclose(trace.error_y.array, 0.05)
        np.testing.assert_allclose(trace.error_y.arrayminus, 0.03)
        np.testing.assert_array_equal(trace.customdata, rows[["low", "high", "smoothing", "unit"]])
        assert trace.hovertemplate == (
            "%{x}, %{customdata[2]}, %{customdata[3]}<br>ROC AUC %{y:.3f} "
            "(95 % CI %{customdata[0]:.3f} to %{customdata[1]:.3f})<extra></extra>"
        )
    assert len(fig.data) == 6
    assert [trace.name for trace in fig.data if trace.showlegend] == ROWS
    assert [note.text for note in fig.layout.annotations] == ["pixel", "region", "chance", "chance"]
    assert [shape.y0 for shape in fig.layout.shapes] == [0.5, 0.5]
    assert list(fig.layout.xaxis.categoryarray) == METHODS
    assert fig.layout.yaxis2.matches == "y"
    low, high = fig.layout.yaxis.range
    assert low < 0.5
    assert high > quality["high"].max()
    assert fig.layout.title.subtitle.text == "published"
    assert "ROC AUC" in fig.layout.yaxis.title.text


def test_quality_plot_refuses_nan_and_missing_columns(quality):
    with pytest.raises(DataError, match="low"):
        plots.quality_plot(quality.drop(columns="low"))
    with pytest.raises(DataError, match="NaN"):
        plots.quality_plot(quality.assign(value=np.nan))


def test_fidelity_plot_draws_controls_grey_and_dashed_and_bands_around_curves():
    fraction = np.array([0.5, 0.0, 1.0])  # unsorted on purpose
    curves = pd.concat(
        pd.DataFrame(
            {
                "method": name,
                "fraction": fraction,
                "value": 1 - fraction,
                "low": 0.9 - fraction,
                "high": 1.1 - fraction,
            }
        )
        for name in ["gradient", "random", "least relevant first"]
    )
    fig = plots.fidelity_plot(curves)
    lines = {trace.name: trace for trace in fig.data if trace.fill is None}
    band = next(trace for trace in fig.data if trace.fill == "toself" and trace.name == "gradient")
    np.testing.assert_array_equal(lines["gradient"].x, [0, 50, 100])
    np.testing.assert_array_equal(lines["gradient"].y, [1, 0.5, 0])
    np.testing.assert_array_equal(band.x, [0, 50, 100, 100, 50, 0])
    np.testing.assert_allclose(band.y, [0.9, 0.4, -0.1, 0.1, 0.6, 1.1])
    assert lines["gradient"].line.dash == "solid"
    assert {lines[name].line.color for name in ("random", "least relevant first")} == {plots.CONTROL}
    assert lines["random"].line.dash != lines["least relevant first"].line.dash != "solid"
    assert_no_nan(fig)


def test_many_bands_would_hide_each_other_so_that_intervals_are_told_when_one_points_at_a_curve():
    def drawn(n):
        rows = [
            {"method": f"m{k}", "fraction": x, "value": 0.5, "low": 0.4, "high": 0.65}
            for k in range(n)
            for x in (0.0, 1.0)
        ]
        return plots.fidelity_plot(pd.DataFrame(rows))

    few, many = drawn(7), drawn(8)
    assert sum(trace.fill == "toself" for trace in few.data) == 7
    assert [trace.fill for trace in many.data] == [None] * 8
    assert "point at a curve" in many.layout.yaxis.title.text
    for fig in (few, many):
        line = fig.data[-1]
        np.testing.assert_array_equal(line.customdata, [[0.4, 0.65]] * 2)
        assert "(%{customdata[0]:.3g} to %{customdata[1]:.3g})" in line.hovertemplate


@pytest.fixture
def errors():
    rows = [
        (network, method, step, level + step, level + step - 1, level + step + 2)
        for network, level in (("VGG", 10.0), ("ResNet", 20.0))
        for method in [*METHODS, "random", "least relevant first"]
        for step in (4, 0, 2)  # unsorted on purpose
    ]
    return pd.DataFrame(rows, columns=["network", "method", "step", "value", "low", "high"])


def test_error_plot_has_a_panel_a_network_and_one_legend_entry_a_method(errors):
    fig = plots.error_plot(errors, unit="mm", finding="published")
    lines = {(trace.name, trace.xaxis): trace for trace in fig.data if trace.fill is None}
    bands = {(trace.name, trace.xaxis): trace for trace in fig.data if trace.fill == "toself"}
    assert set(lines) == set(bands) == {(m, x) for m in errors["method"].unique() for x in ("x", "x2")}
    for (_, axis), line in lines.items():
        level = 10 if axis == "x" else 20
        np.testing.assert_array_equal(line.x, [0, 2, 4])
        np.testing.assert_array_equal(line.y, [level, level + 2, level + 4])
    np.testing.assert_array_equal(bands["gradient", "x2"].x, [0, 2, 4, 4, 2, 0])
    np.testing.assert_array_equal(bands["gradient", "x2"].y, [19, 21, 23, 26, 24, 22])
    assert sorted(trace.name for trace in fig.data if trace.showlegend) == sorted(errors["method"].unique())
    for name in METHODS:
        assert lines[name, "x"].line == lines[name, "x2"].line
    assert {lines[name, "x"].line.color for name in ("random", "least relevant first")} == {plots.CONTROL}
    assert plots.CONTROL not in {lines[name, "x"].line.color for name in METHODS}
    assert fig.layout.yaxis2.matches == "y"
    assert "(mm)" in fig.layout.yaxis.title.text
    assert [(axis.title.text, axis.range) for axis in fig.select_xaxes()] == [
        ("windows perturbed", (0, 4))
    ] * 2
    assert all("%{x} windows: error %{y:.3g} mm" in line.hovertemplate for line in lines.values())
    assert [note.text for note in fig.layout.annotations] == ["VGG", "ResNet"]
    assert fig.layout.title.subtitle.text == "published"
    assert_no_nan(fig)
    with pytest.raises(DataError, match="network"):
        plots.error_plot(errors.drop(columns="network"))


def test_more_methods_than_colours_differ_by_their_dash(errors):
    table = pd.concat(
        errors[errors["method"] == "gradient"].assign(method=f"m{i}") for i in range(len(plots.PALETTE) + 1)
    )
    lines = [trace.line for trace in plots.error_plot(table).data if trace.showlegend]
    assert len({(line.color, line.dash) for line in lines}) == len(lines) == len(plots.PALETTE) + 1


@pytest.fixture
def scores():
    rows = [
        (network, method, base - i, base - i - 2, base - i + 1, np.nan if method == "random" else -5.0 - i)
        for network, base in (("VGG", 0.0), ("ResNet", -10.0))
        for i, method in enumerate([*METHODS, "random"])
    ]
    return pd.DataFrame(rows, columns=["network", "method", "value", "low", "high", "published"])


def test_score_plot_marks_the_published_value_beside_ours(scores):
    fig = plots.score_plot(scores, metric="AOPC (mm)")
    dots = {(trace.name, trace.xaxis): trace for trace in fig.data}
    assert set(dots) == {
        (name, axis) for name in ("this run", "control", "published") for axis in ("x", "x2")
    }
    for axis, network in (("x", "VGG"), ("x2", "ResNet")):
        rows = scores[(scores["network"] == network) & (scores["method"] != "random")]
        ours, published = dots["this run", axis], dots["published", axis]
        assert list(ours.x) == list(published.x) == METHODS
        np.testing.assert_array_equal(ours.y, rows["value"])
        np.testing.assert_array_equal(ours.error_y.array, [1.0] * 5)
        np.testing.assert_array_equal(ours.error_y.arrayminus, [2.0] * 5)
        np.testing.assert_array_equal(published.y, rows["published"])
        assert published.marker.symbol == "diamond-open"
        assert published.error_y.array is None
        assert ours.offsetgroup != published.offsetgroup
        np.testing.assert_array_equal(np.array(ours.customdata)[:, :2], rows[["low", "high"]])
        for trace in (ours, published):
            assert np.unique(np.array(trace.customdata)[:, 2:]).tolist() == sorted([network, trace.name])
        assert ours.hovertemplate == (
            "%{x}, %{customdata[3]}<br>%{customdata[2]}: %{y:.3g} "
            "(95 % CI %{customdata[0]:.3g} to %{customdata[1]:.3g})<extra></extra>"
        )
        assert (
            published.hovertemplate == "%{x}, %{customdata[3]}<br>%{customdata[2]}: %{y:.3g}<extra></extra>"
        )
        assert list(dots["control", axis].x) == ["random"]
        assert dots["control", axis].marker.color == plots.CONTROL
    assert len([trace for trace in fig.data if trace.showlegend]) == 3
    assert [note.text for note in fig.layout.annotations] == ["VGG", "ResNet"]
    assert [shape.y0 for shape in fig.layout.shapes] == [0, 0]
    assert list(fig.layout.xaxis.categoryarray) == [*METHODS, "random"]
    assert fig.layout.yaxis2.matches == "y"
    assert "AOPC (mm)" in fig.layout.yaxis.title.text
    assert_no_nan(fig)
    nothing = plots.score_plot(scores.assign(published=np.nan))
    assert "published" not in {trace.name for trace in nothing.data}


def test_comparison_plot_is_antisymmetric_and_greys_what_is_undecided(rng):
    noise = rng.normal(size=(3, 50))
    table = paired_comparisons({"a": noise[0], "b": noise[1] * 0.9, "c": noise[2] + 9})
    fig = plots.comparison_plot(table)
    undecided, decided = (next(t for t in heatmaps(fig) if t.name == n) for n in ("undecided", "decided"))
    grey, colored = np.array(undecided.z, dtype=float), np.array(decided.z, dtype=float)
    assert np.isfinite(grey).tolist() == [[False, True, False], [True, False, False], [False, False, False]]
    assert np.isfinite(colored).tolist() == [[False, False, True], [False, False, True], [True, True, False]]
    values = np.where(np.isfinite(grey), grey, colored)
    np.testing.assert_array_equal(np.nan_to_num(values), -np.nan_to_num(values.T))
    difference = dict(zip(table["first"] + table["second"], table["difference"], strict=True))
    assert (values[0, 1], values[0, 2], values[1, 2]) == tuple(
        difference[pair] for pair in ("ab", "ac", "bc")
    )
    assert colored[2, 0] > 8
    assert decided.zmax == -decided.zmin == pytest.approx(table["difference"].abs().max())
    row = table.set_index(["first", "second"]).loc["a", "c"]
    own, other = (f"{sign * row['difference']:+.3g}" for sign in (1, -1))
    assert decided.customdata[0, 2] == f"{own} ({row['low']:+.3g} to {row['high']:+.3g}): c"
    assert decided.customdata[2, 0] == f"{other} ({-row['high']:+.3g} to {-row['low']:+.3g}): c"
    for trace in (undecided, decided):
        assert list(trace.x) == list(trace.y) == ["a", "b", "c"]
        assert trace.hovertemplate.startswith("%{y} minus %{x}<br>%{customdata}")
        assert trace.texttemplate == "%{z:+.3~g}"
    assert {color for _, color in undecided.colorscale} == {"#E3E3E3"}
    assert decided.colorbar.title.text == "AOPC (px),<br>row minus<br>column"
    assert (fig.layout.xaxis.title.text, fig.layout.yaxis.title.text) == ("column method", "row method")
    assert fig.layout.yaxis.autorange == "reversed"
    many = {f"m{i}": rng.normal(size=20) for i in range(15)}
    wide = plots.comparison_plot(paired_comparisons(many, n_resamples=21_000))
    assert all(trace.texttemplate is None for trace in heatmaps(wide))
    with pytest.raises(DataError, match="verdict"):
        plots.comparison_plot(table.drop(columns="verdict"))


def test_prediction_plot_shows_each_split_and_its_error():
    table = pd.DataFrame(
        {"split": ["training", "training", "test"], "truth": [10.0, 20, 30], "predicted": [12.0, 16, 30.5]}
    )
    fig = plots.prediction_plot(table, unit="mm", finding="published 4.8 mm")
    traces = {trace.name: trace for trace in fig.data}
    assert list(traces) == ["identity", "training", "test"]
    np.testing.assert_array_equal(traces["training"].x, [10, 20])
    np.testing.assert_array_equal(traces["training"].y, [12, 16])
    assert list(traces["identity"].x) == list(traces["identity"].y)
    assert fig.layout.xaxis.range == fig.layout.yaxis.range
    assert fig.layout.xaxis.range[0] < 10
    assert fig.layout.xaxis.range[1] > 30.5
    subtitle = fig.layout.title.subtitle.text
    assert subtitle == "Mean absolute error: training 3 mm (n = 2), test 0.5 mm (n = 1)<br>published 4.8 mm"
    assert fig.layout.xaxis.title.text == "true head circumference (mm)"
    assert fig.layout.yaxis.title.text == "predicted head circumference (mm)"
    assert "%{customdata[0]}<br>true %{x:.4g}, predicted %{y:.4g} mm" in traces["test"].hovertemplate
    assert np.unique(traces["test"].customdata).tolist() == ["test"]
    assert traces["test"].marker.color != traces["training"].marker.color
    assert traces["identity"].mode == "lines"
    assert fig.layout.yaxis.scaleanchor == "x"
    with pytest.raises(DataError, match="NaN"):
        plots.prediction_plot(table.assign(predicted=np.nan))


def test_training_plot_names_the_panel_of_a_measure_by_its_unit():
    names = ["training loss", "validation error (px)", "validation error (mm)", "training error (px)", "auc"]
    fig = plots.training_plot(pd.DataFrame({"epoch": [0, 1], **{name: [2.0, 1.0] for name in names}}))
    titles = {axis.plotly_name.replace("axis", ""): axis.title.text for axis in fig.select_yaxes()}
    found = {trace.name: titles[trace.yaxis] for trace in fig.data}
    assert found == {
        "training loss": "loss",
        "validation error (px)": "error (px)",
        "validation error (mm)": "error (mm)",
        "training error (px)": "error (px)",
        "auc": "score (0 to 1)",
    }
    assert titles["y"] == "loss"
    assert len({(trace.line.color, trace.marker.symbol) for trace in fig.data}) == 5


def test_training_plot_leaves_out_epochs_that_were_not_measured():
    history = pd.DataFrame(
        {
            "epoch": [0, 1, 2],
            "train_loss": [3, 2, 1],
            "val_loss": [3, np.nan, 2],
            "val_accuracy": [0.5, 0.6, 0.7],
        }
    )
    fig = plots.training_plot(history, best_epoch=2)
    by_name = {trace.name: trace for trace in fig.data}
    np.testing.assert_array_equal(by_name["val loss"].x, [0, 2])
    assert (by_name["train loss"].xaxis, by_name["val accuracy"].xaxis) == ("x", "x2")
    with pytest.raises(DataError, match="epoch"):
        plots.training_plot(pd.DataFrame({"loss": [1.0]}))


def test_every_figure_has_a_title_axis_titles_and_the_same_template(quality, errors, scores, rng):
    history = pd.DataFrame({"epoch": [0], "train_loss": [1.0]})
    predictions = pd.DataFrame({"split": ["test"], "truth": [1.0], "predicted": [1.0]})
    comparisons = paired_comparisons({"a": rng.random(9), "b": rng.random(9)})
    for fig in (
        plots.quality_plot(quality),
        plots.training_plot(history),
        plots.error_plot(errors),
        plots.score_plot(scores),
        plots.comparison_plot(comparisons),
        plots.prediction_plot(predictions),
    ):
        assert fig.layout.title.text
        assert all(axis.title.text for axis in fig.select_xaxes())
        assert fig.layout.yaxis.title.text
        assert fig.layout.template == plots.TEMPLATE


def test_map_panel_with_an_image_for_each_row():
    images = np.stack([np.full((4, 6), 0.2), np.eye(4, 6)])
    masks = np.zeros((2, 4, 6), dtype=bool)
    masks[0, 1, 1] = masks[1, 2, 3] = True
    maps = {"one": {"net": np.ones((4, 6))}, "two": {"net": np.eye(4, 6)}}
    fig = plots.map_panel(images, maps, masks)
    greys = [trace for trace in fig.data if trace.type == "heatmap" and trace.name == "image"]
    assert len(greys) == 2
    assert greys[1].z.max() > greys[1].z.min() == greys[0].z.max()
    outlines = [trace for trace in fig.data if trace.type == "scatter"]
    assert len(outlines) == 4
    centres = [
        tuple(np.nanmean(np.array(getattr(trace, axis), dtype=float)) for axis in "xy") for trace in outlines
    ]
    assert {(round(x), round(y)) for x, y in centres} == {(1, 1), (3, 2)}
    with pytest.raises(ShapeError, match="3 images for 2 rows"):
        plots.map_panel(np.zeros((3, 4, 6)), maps)
    with pytest.raises(ShapeError, match="mask has shape"):
        plots.map_panel(images, maps, masks[0])


def test_score_plot_needs_no_published_value_and_shows_chance():
    table = pd.DataFrame({"method": ["G"], "network": ["net"], "value": [0.7], "low": [0.6], "high": [0.8]})
    fig = plots.score_plot(table, metric="ROC AUC", chance=0.5)
    assert [trace.name for trace in fig.data] == ["this run"]
    assert [shape.y0 for shape in fig.layout.shapes] == [0.5]
    low, high = fig.layout.yaxis.range
    assert 0.4 < low < 0.5
    assert 0.8 < high < 0.9


def test_matrices_plot_shows_each_pair_and_the_mean_between_runs():
    matrix = np.array([[100.0, 40, 60], [40, 100, 80], [60, 80, 100]])
    fig = plots.matrices_plot({"LRP": {"sum": matrix, "gain": matrix / 2}, "OCC": {"sum": matrix}})
    assert len(fig.data) == 3
    np.testing.assert_array_equal(fig.data[0].z, matrix.astype(np.float32))
    heads = [note.text for note in fig.layout.annotations]
    assert heads == ["sum: 60 %", "gain: 30 %", "sum: 60 %", "gain"]
    places = {trace.hovertemplate.split("<br>")[0]: axes_of(fig, trace) for trace in fig.data}
    assert list(places) == ["LRP, sum", "LRP, gain", "OCC, sum"]
    assert places["LRP, sum"][0].domain[1] < places["LRP, gain"][0].domain[0]
    assert places["LRP, sum"][1].domain[0] > places["OCC, sum"][1].domain[1]
    assert [places[name][1].title.text for name in ("LRP, sum", "OCC, sum")] == ["LRP", "OCC"]
    assert places["OCC, sum"][0].title.text == "run"
    for trace in fig.data:
        assert list(trace.x) == list(trace.y) == ["1", "2", "3"]
        assert "run %{y} and %{x}: %{z:.3g} %" in trace.hovertemplate
        assert (trace.coloraxis, axes_of(fig, trace)[1].autorange) == ("coloraxis", "reversed")
    assert (fig.layout.coloraxis.cmin, fig.layout.coloraxis.cmax) == (0, 100)
    assert fig.layout.coloraxis.colorbar.title.text == "%"
    named = plots.matrices_plot(
        {"": {"L2": matrix[:2, :2]}}, unit="", bounds=(0, 9), names=["a", "c"], item="network"
    )
    assert list(named.data[0].x) == list(named.data[0].y) == ["a", "c"]
    assert named.layout.coloraxis.cmax == 9
    with pytest.raises(ShapeError, match=r"expected \(runs, runs\)"):
        plots.matrices_plot({"LRP": {"sum": matrix[:2]}})
    with pytest.raises(DataError, match="No matrix"):
        plots.matrices_plot({})
    with pytest.raises(DataError, match="NaN"):
        plots.matrices_plot({"LRP": {"sum": np.full((2, 2), np.nan)}})


def test_region_plot_marks_what_is_known_to_matter_and_keeps_the_largest():
    values = [5.0, 4.0, 1.0, 0.5]
    table = pd.DataFrame(
        {"method": "LRP", "region": list("abcd"), "value": values, "low": values, "high": [9.0, 5, 2, 1]}
    )
    fig = plots.region_plot(table, n_regions=3, marked=["b"])
    found = {trace.name: dict(zip(trace.y, trace.x, strict=True)) for trace in fig.data}
    assert found == {"known to matter": {"b": 4.0}, "other region": {"a": 5.0, "c": 1.0}}
    assert list(fig.layout.yaxis.categoryarray) == ["c", "b", "a"]
    bars = {trace.name: trace for trace in fig.data}
    np.testing.assert_array_equal(bars["other region"].error_x.array, [4, 1])
    np.testing.assert_array_equal(bars["other region"].error_x.arrayminus, [0, 0])
    assert bars["known to matter"].marker.color != bars["other region"].marker.color
    assert {trace.orientation for trace in fig.data} == {"h"}
    assert bars["other region"].hovertemplate == "%{customdata[0]}<br>%{y}: %{x:.3g}<extra></extra>"
    assert np.unique(bars["other region"].customdata).tolist() == ["LRP"]
    assert (fig.layout.xaxis.title.text, fig.layout.showlegend) == ("sum (%)", True)
    assert plots.region_plot(table).layout.showlegend is False
    with pytest.raises(DataError, match="region"):
        plots.region_plot(table.drop(columns="region"))


def test_region_plot_has_a_panel_a_method_and_ranks_by_the_mean_share():
    table = pd.DataFrame(
        [("LRP", "a", 100.0), ("LRP", "b", 50.0), ("OCC", "a", 0.0), ("OCC", "b", 1.0), ("OCC", "c", 0.9)],
        columns=["method", "region", "value"],
    )
    fig = plots.region_plot(table.assign(low=table["value"], high=table["value"]), n_regions=3)
    assert list(fig.layout.yaxis.categoryarray) == ["a", "b", "c"]  # mean shares 0.5, 0.75 and 0.9
    assert [note.text for note in fig.layout.annotations] == ["LRP", "OCC"]
    found = {trace.xaxis: dict(zip(trace.y, trace.x, strict=True)) for trace in fig.data}
    assert found == {"x": {"a": 100, "b": 50}, "x2": {"a": 0, "b": 1, "c": 0.9}}
    assert [trace.showlegend for trace in fig.data] == [True, False]
    assert fig.layout.yaxis2.matches == "y"


def test_a_smoothing_keeps_its_look_and_its_legend_entry_whichever_others_are_there(quality):
    quality = quality.assign(
        smoothing=quality["smoothing"].map(dict(zip(ROWS, ["plain", "SG", "SG²"], strict=True)))
    )
    looks = {
        trace.name: (trace.marker.color, trace.marker.symbol) for trace in plots.quality_plot(quality).data
    }
    assert len(set(looks.values())) == 3
    part = quality[
        (quality["smoothing"] != "plain") & ((quality["smoothing"] != "SG") | (quality["unit"] == "region"))
    ]
    fig = plots.quality_plot(part)
    assert {trace.name: (trace.marker.color, trace.marker.symbol) for trace in fig.data} == {
        name: looks[name] for name in ("SG", "SG²")
    }
    assert sorted(trace.name for trace in fig.data if trace.showlegend) == ["SG", "SG²"]
    assert {trace.offsetgroup for trace in fig.data} == {"SG", "SG²"}


def test_region_plot_has_a_legend_entry_for_a_kind_that_the_first_panel_lacks():
    table = pd.DataFrame(
        {"method": ["LRP", "OCC"], "region": ["a", "b"], "value": [1.0, 2], "low": 0.5, "high": 3.0}
    )
    fig = plots.region_plot(table, marked=["b"])
    assert sorted(trace.name for trace in fig.data if trace.showlegend) == ["known to matter", "other region"]


def test_two_rows_on_one_place_are_refused(quality, errors, scores):
    curves = pd.DataFrame({"method": "a", "fraction": [0, 0.5], "value": 1.0, "low": 1.0, "high": 1.0})
    regions = pd.DataFrame({"method": "a", "region": ["b", "c"], "value": 1.0, "low": 1.0, "high": 1.0})
    pairs = paired_comparisons({"a": np.arange(9.0), "b": np.arange(9.0) ** 2})
    for plot, table in {
        plots.quality_plot: quality,
        plots.error_plot: errors,
        plots.score_plot: scores,
        plots.fidelity_plot: curves,
        plots.region_plot: regions,
        plots.comparison_plot: pairs,
    }.items():
        plot(table)
        with pytest.raises(DataError, match=r"expected .*: give each method a label of its own"):
            plot(pd.concat([table, table.tail(1)]))
    with pytest.raises(DataError, match="compares 'b' with 'a' again"):
        plots.comparison_plot(
            pd.concat([pairs, pairs.rename(columns={"first": "second", "second": "first"})])
        )
    with pytest.raises(DataError, match="one name for each, all different"):
        plots.matrices_plot({"LRP": {"sum": np.eye(2)}}, names=["a", "a"])


def test_names_are_shown_as_they_are(quality, scores):
    name = "G<sub> & I*G"
    shown = "G&lt;sub&gt; &amp; I*G"
    fig = plots.quality_plot(quality.replace({"gradient": name}))
    assert fig.data[0].x[0] == fig.layout.xaxis.categoryarray[0] == shown
    fig = plots.score_plot(scores.replace({"random": name}), controls=[name])
    assert list(next(trace for trace in fig.data if trace.name == "control").x) == [shown]
    panel = plots.map_panel(np.eye(3), {"plain": {name: np.eye(3)}})
    assert axes_of(panel, heatmaps(panel)[1])[0].title.text == shown


def texts(value):
    """Every text of a figure's JSON, at any depth, but for its data and the house's template."""
    if isinstance(value, dict):
        return [text for key, item in value.items() if key != "template" for text in texts(item)]
    if isinstance(value, list):
        return [text for item in value for text in texts(item)]
    return [value] if isinstance(value, str) else []


MARK = "<b>x</b> & y"


@pytest.mark.parametrize(
    "draw",
    [
        lambda own: plots.quality_plot(
            own["quality"], metric=MARK, title=MARK, finding=MARK, chance=0.5, chance_name=MARK
        ),
        lambda own: plots.score_plot(own["scores"], metric=MARK, title=MARK, finding=MARK),
        lambda own: plots.error_plot(
            own["errors"]
            .replace({"network": dict.fromkeys(own["errors"]["network"], MARK)})
            .drop_duplicates(["method", "step"]),
            unit=MARK,
            title=MARK,
            finding=MARK,
        ),
        lambda own: plots.region_plot(own["regions"], value=MARK, title=MARK, finding=MARK),
        lambda own: plots.prediction_plot(
            own["predictions"].assign(split=MARK), quantity=MARK, unit=MARK, title=MARK, finding=MARK
        ),
        lambda own: plots.comparison_plot(own["pairs"], metric=MARK, title=MARK, finding=MARK),
        lambda own: plots.matrices_plot(
            {MARK: {MARK: np.eye(2)}}, unit=MARK, title=MARK, finding=MARK, names=[MARK, "b"]
        ),
        lambda own: plots.training_plot(
            pd.DataFrame({"epoch": [1, 2], f"validation {MARK} ({MARK})": [1.0, 2.0]}),
            title=MARK,
            subtitle=MARK,
        ),
        lambda own: plots.map_panel(
            np.eye(3), {MARK: {MARK: np.eye(3)}}, np.eye(3) > 0, mask_name=MARK, title=MARK, subtitle=MARK
        ),
        lambda own: plots.slices_plot(
            np.eye(3)[None], [MARK], masks=np.eye(3)[None] > 0, mask_name=MARK, title=MARK, subtitle=MARK
        ),
    ],
)
def test_no_text_that_a_figure_is_given_is_markup(draw, quality, scores, errors):
    own = {
        "errors": errors,
        "quality": quality,
        "scores": scores,
        "regions": pd.DataFrame(
            {"method": ["a"], "region": ["b"], "value": [1.0], "low": [0.5], "high": [2.0]}
        ),
        "predictions": pd.DataFrame({"truth": [1.0, 2.0], "predicted": [1.5, 2.5]}),
        "pairs": pd.DataFrame(
            {
                "first": ["a"],
                "second": ["b"],
                "difference": [1.0],
                "low": [0.5],
                "high": [2.0],
                "verdict": ["a"],
            }
        ),
    }
    found = texts(json.loads(draw(own).to_json()))
    assert any("&lt;b&gt;x&lt;/b&gt; &amp; y" in text for text in found)
    assert not [text for text in found if "<b>" in text or "amp;lt" in text]


def test_objective_plot_draws_each_term_of_each_mask():
    table = pd.DataFrame(
        {
            "mask": ["a<b"] * 3 + ["c"] * 3, "iteration": [0, 1, 2] * 2, "objective": [1.0, 0.5, 0.4] * 2,
            "score": [1.0, 0.4, 0.2] * 2, "area_penalty": [0.0, 0.1, 0.1] * 2, "smoothness_penalty": [0.0, 0, 0.1] * 2,
        }
    )  # fmt: skip
    fig = plots.objective_plot(table)
    assert len(fig.data) == 8
    scores = [trace for trace in fig.data if trace.name == "score of the class"]
    for trace in scores:
        assert list(trace.y) == [1.0, 0.4, 0.2]
    assert {note.text for note in fig.layout.annotations} == {"a&lt;b", "c"}
    with pytest.raises(DataError, match="several rows"):
        plots.objective_plot(pd.concat([table, table]))


def redrawn(n_methods, similarities=("spearman", "ssim")):
    return pd.DataFrame(
        [
            {
                "method": name, "similarity": one, "values": kind, "k": k, "layer": f"layer {k}",
                "value": 1 - 0.1 * k, "low": 0.9 - 0.1 * k, "high": 1.05 - 0.1 * k,
            }
            for name in [*(f"m{i}" for i in range(n_methods)), "noise"]
            for one in similarities
            for kind in ("absolute", "signed")
            for k in range(4)
        ]
    )  # fmt: skip


@pytest.mark.parametrize(("n_methods", "panels", "lines"), [(3, 4, 4), (6, 4, 7), (7, 7, 8)])
def test_randomization_plot_has_panels_of_similarities_or_of_methods(n_methods, panels, lines):
    """Up to six methods and noise in each of four panels; of seven one panel each, with four ways and four of noise."""
    fig = plots.randomization_plot(redrawn(n_methods))
    curves = [trace for trace in fig.data if trace.fill is None]
    places = [(trace.xaxis, trace.yaxis) for trace in curves]
    assert len(set(places)) == panels
    assert {places.count(place) for place in places} == {lines}
    assert len([trace for trace in fig.data if trace.fill == "toself"]) == len(curves)
    grey = [trace for trace in curves if trace.name == "noise"]
    assert {trace.line.color for trace in grey} == {"#888888"}
    assert {trace.line.dash for trace in grey} <= {"dash", "dot"}
    shown = [trace.name for trace in curves if trace.showlegend]
    assert len(shown) == len(set(shown))
    for trace in curves:
        np.testing.assert_allclose(trace.y, 1 - 0.1 * np.arange(4))
    assert tuple(fig.layout.xaxis.ticktext) == tuple(f"layer {k}" for k in range(4))
    assert_no_nan(fig)


def test_randomization_plot_refuses_two_curves_of_one_name():
    with pytest.raises(DataError, match="several rows of method='m0'"):
        plots.randomization_plot(pd.concat([redrawn(1), redrawn(1)]))
