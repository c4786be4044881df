"""How sure is a mean over images?"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Shaped

from xaitools.errors import DataError, ParameterError, ShapeError


@dataclass(frozen=True)
class Interval:
    """A mean over images and its confidence interval; floats (0-d arrays) or one for each trailing index."""

    mean: Float64[np.ndarray, "*metric"]
    low: Float64[np.ndarray, "*metric"]
    high: Float64[np.ndarray, "*metric"]


def mean_interval(
    values: Shaped[np.ndarray, "n *metric"],
    *,
    confidence: float = 0.95,
    n_resamples: int = 5000,
    seed: int = 0,
) -> Interval:
    """Mean over images with its percentile bootstrap confidence interval.

    Parameters
    ----------
    values
        One row an image: scores ``(n,)``, or several at once, as curves ``(n, n_fractions)``; all columns
        share the resamples.
    confidence
        Probability that the interval shall cover the mean of the population.
    n_resamples
        Sets of n images, drawn with replacement.
    seed
        Fixes the draws.

    Returns
    -------
    Interval
        Shaped as one row of `values`.

    Raises
    ------
    DataError
        If there are fewer than two images, or a value is not finite.
    ParameterError
        If `confidence` is not between 0 and 1, or there is no resample.

    References
    ----------
    Efron and Tibshirani, An introduction to the bootstrap, 1993, section 13.3.
    """
    values = np.asarray(values, dtype=np.float64)
    _check(values, confidence, n_resamples)
    n = len(values)
    drawn = np.random.default_rng(seed).integers(n, size=(n_resamples, n))
    drawn += n * np.arange(n_resamples)[:, None]
    times_drawn = np.bincount(drawn.ravel(), minlength=n_resamples * n).reshape(n_resamples, n)
    means = times_drawn @ values.reshape(n, -1) / n
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail], axis=0).reshape(2, *values.shape[1:])
    return Interval(np.asarray(values.mean(axis=0)), np.asarray(low), np.asarray(high))


def paired_difference(
    values: Shaped[np.ndarray, "n *metric"],
    reference: Shaped[np.ndarray, "m *reference_metric"],
    *,
    confidence: float = 0.95,
    n_resamples: int = 5000,
    seed: int = 0,
) -> Interval:
    """Mean difference of two methods on the same images, with its bootstrap confidence interval.

    Images, not scores, are resampled, so what makes an image hard for both methods cancels.

    Parameters
    ----------
    values, reference
        Scores of the two methods, the same image in the same row.
    confidence, n_resamples, seed
        As for :func:`mean_interval`.

    Returns
    -------
    Interval
        Of ``values - reference``: an interval above 0 says that `values` are larger.

    Raises
    ------
    ShapeError
        If the two do not have the same shape.
    DataError, ParameterError
        As for :func:`mean_interval`.
    """
    if np.shape(values) != np.shape(reference):
        raise ShapeError(
            f"scores of shapes {np.shape(values)} and {np.shape(reference)} do not pair: "
            "expected the same images for both methods"
        )
    difference = np.subtract(values, reference, dtype=np.float64)
    return mean_interval(difference, confidence=confidence, n_resamples=n_resamples, seed=seed)


def _check(values: np.ndarray, confidence: float, n_resamples: int) -> None:
    if values.ndim == 0 or len(values) < 2:
        raise DataError(
            f"got values of shape {values.shape}: the spread over images needs at least two images"
        )
    if not np.isfinite(values).all():
        bad = np.flatnonzero(~np.isfinite(values.reshape(len(values), -1)).all(axis=1))
        raise DataError(
            f"{len(bad)} images have NaN or infinite scores, first index {bad[0]}; leave them out"
        )
    if not 0 < confidence < 1:
        raise ParameterError(f"confidence is {confidence}, expected a value between 0 and 1, such as 0.95")
    if n_resamples < 1:
        raise ParameterError(f"n_resamples is {n_resamples}, expected 1 or more")
