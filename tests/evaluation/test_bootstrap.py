import numpy as np
import pandas as pd
import pytest
from scipy import stats

from xaitools.errors import DataError, ParameterError, ShapeError
from xaitools.evaluation import (
    VERDICTS,
    Interval,
    mean_interval,
    paired_comparisons,
    paired_difference,
    rank_ranges,
    verdict,
)


def test_normal_mean_has_its_closed_form() -> None:
    values = np.random.default_rng(0).normal(3.0, 2.0, size=400)
    for confidence in (0.95, 0.8):
        interval = mean_interval(values, confidence=confidence, n_resamples=20_000)
        reach = stats.norm.ppf(0.5 + confidence / 2) * values.std() / np.sqrt(400)
        assert interval.mean == values.mean()
        np.testing.assert_allclose(
            [interval.low, interval.high], values.mean() + reach * np.array([-1, 1]), atol=0.01
        )


def test_exact_distribution_of_two_images() -> None:
    """Means of two draws from {0, 1}: 0, 1/2, 1 with probabilities 1/4, 1/2, 1/4."""
    for confidence, low, high in [(0.6, 0.0, 1.0), (0.4, 0.5, 0.5)]:
        interval = mean_interval(np.array([0.0, 1.0]), confidence=confidence)
        assert (interval.low, interval.high) == (low, high)


def test_agrees_with_scipy_on_a_skewed_sample() -> None:
    values = np.random.default_rng(1).exponential(size=60)
    expected = stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="percentile", rng=0
    ).confidence_interval
    interval = mean_interval(values, n_resamples=20_000)
    np.testing.assert_allclose([interval.low, interval.high], expected, atol=0.01)


def test_columns_are_judged_as_if_alone() -> None:
    curves = np.random.default_rng(2).random((30, 3, 2)).astype(np.float32)
    interval = mean_interval(curves, seed=5)
    assert interval.low.shape == (3, 2)
    alone = mean_interval(curves[:, 2, 1], seed=5)
    for name in ("mean", "low", "high"):
        np.testing.assert_allclose(getattr(interval, name)[2, 1], getattr(alone, name), rtol=1e-12)


def test_seed() -> None:
    values = np.random.default_rng(3).random(20)
    assert mean_interval(values, seed=1) == mean_interval(values, seed=1)
    assert mean_interval(values, seed=1).low != mean_interval(values, seed=2).low


def test_pairing_cancels_what_images_share() -> None:
    rng = np.random.default_rng(4)
    difficulty = rng.normal(0, 5, size=50)
    better, worse = difficulty + 0.5 + rng.normal(0, 0.1, size=50), difficulty
    difference = paired_difference(better, worse)
    assert difference.low > 0.4
    assert difference.high < 0.6
    assert difference.mean == pytest.approx(better.mean() - worse.mean())
    assert mean_interval(better).low < mean_interval(worse).high


def test_bad_input_is_named() -> None:
    values = np.array([0.1, np.nan, 0.3])
    for call, error, message in [
        (lambda: mean_interval(values), DataError, "1 images have NaN or infinite scores, first index 1"),
        (lambda: mean_interval(np.array([0.4])), DataError, "expected at least two images"),
        (lambda: mean_interval(np.zeros(0)), DataError, r"shape \(0,\)"),
        (lambda: mean_interval(np.ones(3), confidence=95.0), ParameterError, "confidence=95"),
        (lambda: mean_interval(np.ones(3), n_resamples=0), ParameterError, "n_resamples=0"),
        (lambda: paired_difference(np.ones(3), np.ones(4)), ShapeError, "do not pair"),
    ]:
        with pytest.raises(error, match=message):
            call()


def methods(n: int = 60) -> dict[str, np.ndarray]:
    """Scores whose means are 0, 0, 1, 1.02 and 3, on images of very different difficulty."""
    rng = np.random.default_rng(0)
    difficulty = rng.normal(0, 10, size=n)
    means = {"a": 0.0, "b": 0.0, "c": 1.0, "d": 1.02, "e": 3.0}
    return {name: difficulty + mean + rng.normal(0, 0.3, size=n) for name, mean in means.items()}


def test_every_pair_is_compared_once_with_its_paired_interval() -> None:
    scores = methods()
    table = paired_comparisons(scores, correction="none", n_resamples=5000)
    assert len(table) == 10
    assert {frozenset(pair) for pair in zip(table["first"], table["second"], strict=True)} == {
        frozenset(pair) for pair in [*["ab", "ac", "ad", "ae", "bc", "bd", "be", "cd", "ce", "de"]]
    }
    for row in table.itertuples():
        alone = paired_difference(scores[row.first], scores[row.second])
        np.testing.assert_allclose(
            [row.difference, row.low, row.high], [alone.mean, alone.low, alone.high], rtol=1e-9
        )
    verdicts = {row.first + row.second: row.verdict for row in table.itertuples()}
    assert verdicts == {
        "ab": "undecided",
        "cd": "undecided",
        **{pair: pair[1] for pair in ["ac", "ad", "ae", "bc", "bd", "be", "ce", "de"]},
    }


def test_correction_widens_the_intervals_to_the_confidence_of_all_pairs() -> None:
    scores = methods(400)
    wide, narrow = (paired_comparisons(scores, correction=name) for name in ("bonferroni", "none"))
    for table, tail in ((wide, 0.0025), (narrow, 0.025)):
        for row in table.itertuples():
            difference = scores[row.first] - scores[row.second]
            reach = stats.norm.ppf(1 - tail) * difference.std() / 20
            np.testing.assert_allclose(
                [row.low, row.high], row.difference + reach * np.array([-1, 1]), atol=0.005
            )


def test_corrected_comparisons_of_equal_methods_are_seldom_decided() -> None:
    """Of 100 studies of six equal methods, about 5 corrected and 37 uncorrected ones decide any pair."""
    wrong = {"bonferroni": 0, "none": 0}
    for study in range(100):
        rng = np.random.default_rng(study)
        scores = {name: rng.normal(size=60) for name in "abcdef"}
        for name in wrong:
            table = paired_comparisons(scores, correction=name, n_resamples=4000)
            wrong[name] += (table["verdict"] != "undecided").any()
    assert wrong["bonferroni"] <= 12
    assert wrong["none"] >= 25


def test_rank_ranges() -> None:
    table = paired_comparisons(methods())
    expected = [("e", 1, 1), ("d", 2, 3), ("c", 2, 3), ("a", 4, 5), ("b", 4, 5)]
    ranges = {row.method: (row.best, row.worst) for row in rank_ranges(table).itertuples()}
    assert ranges == {name: (best, worst) for name, best, worst in expected}
    assert rank_ranges(table)["method"].iloc[0] == "e"
    turned = {
        row.method: (row.best, row.worst) for row in rank_ranges(table, larger_is_better=False).itertuples()
    }
    assert turned == {name: (6 - worst, 6 - best) for name, best, worst in expected}
    assert rank_ranges(table, larger_is_better=False)["method"].iloc[-1] == "e"
    assert isinstance(table, pd.DataFrame)


def test_verdict() -> None:
    def interval(low: float, high: float) -> Interval:
        return Interval(*(np.asarray(value) for value in ((low + high) / 2, low, high)))

    assert verdict(interval(0.1, 0.3)) == "agrees"
    assert verdict(interval(-0.3, -0.1)) == "differs"
    for low, high in ((-0.1, 0.3), (0.0, 0.1), (-0.1, 0.0)):
        assert verdict(interval(low, high)) == "undecided"
    assert verdict(None) == "not tested"
    assert VERDICTS == ("agrees", "differs", "undecided", "not tested")
    with pytest.raises(ShapeError, match="2 differences"):
        verdict(mean_interval(np.random.default_rng(0).random((5, 2))))


def test_bad_comparisons_are_named() -> None:
    good = methods()
    for call, error, message in [
        (lambda: paired_comparisons({"a": good["a"]}), DataError, "scores of 1 methods"),
        (lambda: paired_comparisons({**good, "b": good["b"][1:]}), ShapeError, "same images"),
        (lambda: paired_comparisons({k: v[:, None] for k, v in good.items()}), ShapeError, "same images"),
        (lambda: paired_comparisons({**good, "undecided": good["a"]}), DataError, "another name"),
        (lambda: paired_comparisons({**good, "b": good["b"] * np.nan}), DataError, "NaN"),
        (lambda: paired_comparisons(good, correction="holm"), ParameterError, "one of bonferroni, none"),
        (lambda: paired_comparisons(good, n_resamples=1999), ParameterError, "expected 2000 or more"),
        (lambda: paired_comparisons(good, confidence=1.5), ParameterError, "confidence"),
    ]:
        with pytest.raises(error, match=message):
            call()
    paired_comparisons(good, n_resamples=2000)
