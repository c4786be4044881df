import numpy as np
import pandas as pd
import pytest

from xaitools import plots
from xaitools.errors import DataError, ParameterError, ShapeError

METHODS = ["gradient", "IG black", "IG black+white", "expected gradients", "deconvolution"]
ROWS = ["plain", "SmoothGrad", "SmoothGrad squared"]


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def heatmaps(fig):
    return [trace for trace in fig.data if trace.type == "heatmap"]


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
    assert fig.layout.coloraxis.cmin == 0
    assert_no_nan(fig)


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
    assert len(fig.data) == 6
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


def test_every_figure_has_a_title_axis_titles_and_the_same_template(quality):
    history = pd.DataFrame({"epoch": [0], "train_loss": [1.0]})
    for fig in (plots.quality_plot(quality), plots.training_plot(history)):
        assert fig.layout.title.text
        assert all(axis.title.text for axis in fig.select_xaxes())
        assert fig.layout.yaxis.title.text
        assert fig.layout.template == plots.TEMPLATE
