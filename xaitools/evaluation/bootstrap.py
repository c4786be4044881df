"""How sure is a mean over images?"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Literal, get_args

import numpy as np
import pandas as pd
from jaxtyping import Float64, Shaped

from xaitools.checks import check_choice, check_counts
from xaitools.errors import DataError, ParameterError, ShapeError

Verdict = Literal["agrees", "differs", "undecided", "not tested"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
AGREES, DIFFERS, UNDECIDED, NOT_TESTED = VERDICTS


CORRECTIONS = ("bonferroni", "none")


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
            f"scores of shapes {np.shape(values)} and {np.shape(reference)} do not pair; "
            "expected the same images for both methods: leave out those that one lacks."
        )
    difference = np.subtract(values, reference, dtype=np.float64)
    return mean_interval(difference, confidence=confidence, n_resamples=n_resamples, seed=seed)


def paired_comparisons(
    values: Mapping[str, Shaped[np.ndarray, "..."]],
    *,
    confidence: float = 0.95,
    correction: str = "bonferroni",
    n_resamples: int = 20_000,
    seed: int = 0,
) -> pd.DataFrame:
    """Compare every two methods on the same images, so that a ranking is not read out of noise.

    Parameters
    ----------
    values
        Scores ``(n,)`` by method, the same image in the same row.
    confidence
        Probability that the intervals shall cover: of all pairs at once under ``"bonferroni"``, of each pair
        on its own under ``"none"``.
    correction
        ``"bonferroni"`` gives each of m intervals the confidence ``1 - (1 - confidence) / m``.
    n_resamples, seed
        As for :func:`mean_interval`; all pairs share the resamples.

    Returns
    -------
    DataFrame
        One row a pair: ``first`` and ``second`` method; ``difference``, the mean of first minus second, and
        its interval ``low`` to ``high``; ``verdict``, the name of the method whose scores are larger, or
        ``"undecided"`` if the interval holds 0.

    Raises
    ------
    DataError
        If there are fewer than two methods or images, or a score is not finite.
    ShapeError
        If the methods do not have one score for each of the same images.
    ParameterError
        If an option is unknown or out of its range, or fewer than 5 resamples lie beyond each end.

    References
    ----------
    Dunn, Multiple comparisons among means, Journal of the American Statistical Association 1961.
    """
    check_choice(correction=(correction, CORRECTIONS))
    _check_methods(values)
    pairs = list(combinations(values, 2))
    tail = (1 - confidence) / 2 / (len(pairs) if correction == "bonferroni" else 1)
    if 0 < tail < 0.5 and n_resamples * tail < 5 * (1 - 1e-9):
        raise ParameterError(
            f"n_resamples={n_resamples} puts fewer than 5 resamples beyond each end of {len(pairs)} intervals; "
            f"expected {int(np.ceil(5 / tail))} or more."
        )
    first, second = (np.stack([values[pair[side]] for pair in pairs], axis=1) for side in (0, 1))
    interval = paired_difference(first, second, confidence=1 - 2 * tail, n_resamples=n_resamples, seed=seed)
    larger = [
        names[0] if low > 0 else names[1] if high < 0 else UNDECIDED
        for names, low, high in zip(pairs, interval.low, interval.high, strict=True)
    ]
    return pd.DataFrame(pairs, columns=["first", "second"]).assign(
        difference=interval.mean, low=interval.low, high=interval.high, verdict=larger
    )


def rank_ranges(comparisons: pd.DataFrame, *, larger_is_better: bool = True) -> pd.DataFrame:
    """The ranks that each method can have, given which pairs are told apart.

    Parameters
    ----------
    comparisons
        As :func:`paired_comparisons` returns them.
    larger_is_better
        False where smaller scores are better, as for the AOPC of a regression.

    Returns
    -------
    DataFrame
        One row a method, in the order of the mean score, the best first: ``method``; ``best``, 1 more than
        the number of methods that are better beyond doubt; ``worst``, the number of all methods less those
        that are worse beyond doubt.
    """
    sign = 1 if larger_is_better else -1
    methods = list(dict.fromkeys([*comparisons["first"], *comparisons["second"]]))
    won, lost, lead = (dict.fromkeys(methods, 0.0) for _ in range(3))
    for row in comparisons.itertuples():
        lead[row.first] += sign * row.difference
        lead[row.second] -= sign * row.difference
        if row.verdict != UNDECIDED:
            loser = row.second if row.verdict == row.first else row.first
            better, worse = (row.verdict, loser) if larger_is_better else (loser, row.verdict)
            won[better] += 1
            lost[worse] += 1
    order = sorted(methods, key=lambda name: -lead[name])
    ranks = [(name, 1 + int(lost[name]), len(methods) - int(won[name])) for name in order]
    return pd.DataFrame(ranks, columns=["method", "best", "worst"])


def verdict(difference: Interval | None) -> Verdict:
    """Does a difference bear out the claim that it is positive?

    Parameters
    ----------
    difference
        Of what is claimed to be larger minus what is claimed to be smaller; one number, not several. None if there is
        nothing that tests the claim.

    Returns
    -------
    str
        One of :data:`VERDICTS`: ``"agrees"`` if the interval lies above 0, ``"differs"`` if it lies below,
        ``"undecided"`` if it holds 0, ``"not tested"`` if there is none.

    Raises
    ------
    ShapeError
        If the interval is that of several differences.

    Examples
    --------
    >>> verdict(mean_interval(np.array([-0.1, 0.2, 0.1])))
    'undecided'
    """
    if difference is None:
        return NOT_TESTED
    if np.ndim(difference.mean):
        raise ShapeError(
            f"difference is of {np.size(difference.mean)} differences; expected a single one: take them one at a time."
        )
    if difference.low > 0:
        return AGREES
    return DIFFERS if difference.high < 0 else UNDECIDED


def _check_methods(values: Mapping[str, np.ndarray]) -> None:
    if len(values) < 2:
        raise DataError(f"values are the scores of {len(values)} methods; expected at least two to compare.")
    if UNDECIDED in values:
        raise DataError(f"a method is named {UNDECIDED!r}, which is a verdict here; give it another name.")
    shapes = {name: np.shape(scores) for name, scores in values.items()}
    if len(set(shapes.values())) > 1 or len(next(iter(shapes.values()))) != 1:
        raise ShapeError(f"scores have shapes {shapes}; expected one score for each of the same images.")


def _check(values: np.ndarray, confidence: float, n_resamples: int) -> None:
    if values.ndim == 0 or len(values) < 2:
        raise DataError(
            f"values have shape {values.shape}; expected at least two images, for the spread over images: add some."
        )
    bad = np.flatnonzero(~np.isfinite(values.reshape(len(values), -1)).all(axis=1))
    if len(bad):
        raise DataError(
            f"{len(bad)} images have NaN or infinite scores, first index {bad[0]}; expected numbers: leave them out."
        )
    if not 0 < confidence < 1:
        raise ParameterError(f"confidence={confidence}; expected a value between 0 and 1, such as 0.95.")
    check_counts(n_resamples=n_resamples)
