import numpy as np
import pytest

from xaitools.evaluation import mean_interval
from xaitools.study import mean_curves, mean_scores, method_table, per_image, without_least

NAMED = method_table(["gradient+absolute", "deconvolution+smoothgrad+absolute@xrai"])
VALUES = np.random.default_rng(0).normal(size=(3, 9))


def test_means_are_recorded_and_returned_with_their_names(run, recorded):
    scores = dict(zip([*NAMED.index, "random"], VALUES, strict=True))
    table = mean_scores(run, scores, NAMED, metric="auc", network="net", seed=3)
    assert list(table.columns) == [
        "method", "label", "base", "smoothing", "unit", "network", "value", "low", "high", "n",
    ]  # fmt: skip
    assert list(table["label"]) == ["BP", "D SG region", "random"]
    assert list(table["smoothing"]) == ["plain", "SG", ""]
    assert list(table["n"]) == [9, 9, 9]
    found = recorded()
    for row, values in zip(table.itertuples(), VALUES, strict=True):
        expected = mean_interval(values, seed=3)
        assert (row.value, row.low, row.high) == (expected.mean, expected.low, expected.high)
        assert found[row.method, "auc"] == row.value
        assert found[row.method, "auc, lower 95 %"] == row.low
        assert found[row.method, "auc, upper 95 %"] == row.high


def test_no_score_is_an_empty_table(run):
    assert mean_scores(run, {}, NAMED, metric="auc").empty


def test_curves_are_means_at_each_point():
    curves = {"gradient+absolute": VALUES.T, "random": VALUES.T + 1}
    table = mean_curves(curves, NAMED, {"fraction": [0, 0.5, 1]}, network="net")
    assert list(table["label"]) == ["BP"] * 3 + ["random"] * 3
    assert list(table["fraction"]) == [0, 0.5, 1] * 2
    np.testing.assert_allclose(table["value"][:3], VALUES.mean(axis=1))
    assert (table["low"] < table["value"]).all()
    assert (table["value"] < table["high"]).all()


def test_the_least_relevant_first_is_left_out():
    keys = [("a", "most"), ("a", "least"), ("random", "random")]
    found = without_least(dict(zip(keys, VALUES, strict=True)))
    assert list(found) == ["a", "random"]
    np.testing.assert_array_equal(found["a"], VALUES[0])
    np.testing.assert_array_equal(found["random"], VALUES[2])


def test_every_score_of_every_image_has_a_row():
    scores = {"auc": {"a": VALUES[0, :2], "b": VALUES[1, :2]}, "area": {"a": VALUES[2, :2]}}
    table = per_image(["sub-1", "sub-2"], scores, network="net", error=np.array([3.0, 4.0]))
    assert list(table["method"]) == ["a", "a", "b", "b"]
    assert list(table["sample"]) == ["sub-1", "sub-2"] * 2
    assert list(table["error"]) == [3, 4] * 2
    assert table["area"].isna().tolist() == [False, False, True, True]
    assert list(table["auc"]) == pytest.approx([*VALUES[0, :2], *VALUES[1, :2]])
