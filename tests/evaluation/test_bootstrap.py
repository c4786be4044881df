import numpy as np
import pytest
from scipy import stats

from xaitools.errors import DataError, ParameterError, ShapeError
from xaitools.evaluation import mean_interval, paired_difference


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
        (lambda: mean_interval(np.array([0.4])), DataError, "needs at least two images"),
        (lambda: mean_interval(np.zeros(0)), DataError, r"shape \(0,\)"),
        (lambda: mean_interval(np.ones(3), confidence=95.0), ParameterError, "confidence is 95"),
        (lambda: mean_interval(np.ones(3), n_resamples=0), ParameterError, "n_resamples is 0"),
        (lambda: paired_difference(np.ones(3), np.ones(4)), ShapeError, "do not pair"),
    ]:
        with pytest.raises(error, match=message):
            call()
