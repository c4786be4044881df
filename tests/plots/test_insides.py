"""Figures of what a network is like inside."""

import numpy as np
import pandas as pd
import pytest

from xaitools import plots
from xaitools.errors import DataError, ParameterError, ShapeError


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def heatmaps(fig):
    return {trace.name: np.asarray(trace.z) for trace in fig.data if trace.type == "heatmap"}


def test_kernels_of_slices_stand_side_by_side_on_one_scale(rng) -> None:
    weights = rng.normal(size=(5, 2, 3, 4)).astype(np.float32)
    fig = plots.kernels_plot(weights, channel=1)
    tiles = heatmaps(fig)
    assert list(tiles) == [f"filter {number}" for number in range(5)]
    for number in range(5):
        np.testing.assert_array_equal(tiles[f"filter {number}"], weights[number, 1])
    bound = np.abs(weights[:, 1]).max()
    assert fig.layout.coloraxis.cmax == -fig.layout.coloraxis.cmin == pytest.approx(bound)
    assert "All 5 filters" in fig.layout.title.subtitle.text


def test_kernels_of_volumes_show_each_plane_with_the_front_up(rng) -> None:
    weights = rng.normal(size=(2, 1, 3, 4, 5)).astype(np.float32)
    tiles = heatmaps(plots.kernels_plot(weights))
    assert len(tiles) == 10
    plane = tiles["filter 1, z 2"]
    assert plane.shape == (4, 3)
    for x in range(3):
        for y in range(4):
            assert plane[3 - y, x] == weights[1, 0, x, y, 2]


def test_the_largest_filters_are_shown_if_there_are_many(rng) -> None:
    weights = rng.normal(size=(9, 1, 3, 3))
    weights[[2, 7]] *= 100
    fig = plots.kernels_plot(weights, most=2)
    assert list(heatmaps(fig)) == ["filter 2", "filter 7"]
    assert "2 of 9 filters" in fig.layout.title.subtitle.text
    with pytest.raises(ShapeError, match="expected \\(filter, channel"):
        plots.kernels_plot(weights[0])
    with pytest.raises(ParameterError, match="channel=1"):
        plots.kernels_plot(weights, channel=1)


def test_activations_and_the_strongest_real_one() -> None:
    history = pd.DataFrame({"step": [0, 1, 0, 1], "unit": [0, 0, 3, 3], "activation": [0, 2.0, 1, 5]})
    fig = plots.activation_plot(history, {"0": 1.5, "3": 4.0})
    assert [trace.name for trace in fig.data] == ["0", "3"]
    np.testing.assert_array_equal(fig.data[1].y, [1, 5])
    assert [shape.y0 for shape in fig.layout.shapes] == [1.5, 4.0]
    assert [shape.line.color for shape in fig.layout.shapes] == [trace.line.color for trace in fig.data]
    with pytest.raises(DataError, match="no column"):
        plots.activation_plot(history.drop(columns="unit"))


def test_neighbours_stand_in_the_row_of_their_image(rng) -> None:
    images, references = rng.random((2, 4, 5)), rng.random((6, 4, 5))
    table = pd.DataFrame(
        {
            "query": [1, 1, 0, 0],
            "rank": [2, 1, 1, 2],
            "neighbour": [4, 5, 0, 3],
            "distance": [0.4, 0.1, 0.2, 0.3],
        }
    )
    fig = plots.neighbours_plot(
        images, references, table, labels=["AD", "CN"], reference_labels=list("abcdef")
    )
    tiles = [np.asarray(trace.z, dtype=float) for trace in fig.data if trace.type == "heatmap"]
    expected = [images[0], references[0], references[3], images[1], references[5], references[4]]
    for tile, own in zip(tiles, expected, strict=True):
        assert np.corrcoef(tile.ravel(), own.ravel())[0, 1] > 0.999
    names = [axis.title.text for axis in fig.select_xaxes()]
    assert names == [
        "image 0: AD",
        "a, distance 0.2",
        "d, distance 0.3",
        "image 1: CN",
        "f, distance 0.1",
        "e, distance 0.4",
    ]
    with pytest.raises(DataError, match="neighbours; expected the same number"):
        plots.neighbours_plot(images, references, table[:3])
    with pytest.raises(ShapeError, match="a label for each"):
        plots.neighbours_plot(images, references, table, labels=["AD"])


def test_a_tree_has_its_root_on_top_and_its_leaves_side_by_side() -> None:
    rules = pd.DataFrame(
        {
            "node": range(5),
            "depth": [0, 1, 1, 2, 2],
            "region": ["hippocampus", "", "ventricle", "", ""],
            "threshold": [0.5, np.nan, 0.25, np.nan, np.nan],
            "below": [1, -1, 3, -1, -1],
            "above": [2, -1, 4, -1, -1],
            "n": [20, 8, 12, 5, 7],
            "class": ["AD", "AD", "CN", "<CN>", "AD"],
        }
    )
    fig = plots.tree_plot(rules)
    places = {note.text: (note.x, note.y) for note in fig.layout.annotations}
    assert places["<b>hippocampus</b><br>20 images"] == (0.75, 0)
    assert places["<b>ventricle</b><br>12 images"] == (1.5, -1)
    assert places["<b>AD</b><br>8 images"] == (0, -1)
    assert places["<b>&lt;CN&gt;</b><br>5 images"] == (1, -2)
    assert places["≤ 0.25"][0] < places["> 0.25"][0]
    assert len(fig.data) == 4
    leaf = plots.tree_plot(rules[1:2].assign(node=0, depth=0))
    assert [note.text for note in leaf.layout.annotations] == ["<b>AD</b><br>8 images"]


def test_the_curve_of_prototypes() -> None:
    fig = plots.mmd_plot([0.5, 0.2, 0.1], finding="it falls")
    np.testing.assert_array_equal(fig.data[0].x, [1, 2, 3])
    np.testing.assert_array_equal(fig.data[0].y, [0.5, 0.2, 0.1])
    with pytest.raises(DataError, match="empty"):
        plots.mmd_plot([])
