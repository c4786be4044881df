"""What the size of the brain alone tells, and how a network's score goes with it."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float32, Shaped
from scipy import stats
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, roc_auc_score
from torch import Tensor

from xaitools.checks import check_positive
from xaitools.data import (
    Volumes,
    check_brains,
    matched_subset,
)
from xaitools.errors import DataError, ShapeError
from xaitools.study.preprocessing import Judged, Preprocessing
from xaitools.study.run import Run


def volume_controls(
    run: Run, prepared: Preprocessing, judged: Judged, *, network: str, tolerance: float = 20.0
) -> pd.DataFrame:
    """What the size of the brain alone tells of the class, and what the network tells without its help; recorded.

    - ``majority class``: the accuracy of always naming the larger class.
    - ``brain volume alone``: a logistic regression on it, trained and judged in the same folds, on heads as they
      are.
    - ``brain volume alone, resized by class``: the same where both sets are resized, as in the training: at chance.
    - ``network``: on all heads, each judged by the network that has not seen it.
    - ``network, matched heads`` and ``brain volume alone, matched heads``: on the largest set of pairs of the classes
      whose brains differ by at most `tolerance` (:func:`xaitools.data.matched_subset`); absent if there is no pair.

    All but the first are balanced accuracies, for which chance is 0.5.

    Parameters
    ----------
    run
        Where they are recorded.
    prepared, judged
        One row, and how good its networks are.
    network
        Name of the network.
    tolerance
        In ml.

    Returns
    -------
    DataFrame
        ``preprocessing``, ``control``, ``value``, ``n``.

    Raises
    ------
    DataError
        If the heads have no label maps.
    """
    heads = prepared.heads
    check_brains(heads)
    truth, sizes = heads.labels.numpy(), np.empty(len(heads))
    by_volume, by_resized = (np.full(len(heads), -1) for _ in range(2))
    for fold, plain in zip(prepared.folds, _plain_sizes(prepared), strict=True):
        trained, judged_sizes = plain
        sizes[fold.shown] = judged_sizes
        by_volume[fold.shown] = _by_size(trained, fold.training.labels.numpy(), judged_sizes)
        if fold.resized is not None and fold.sizes is not None:
            by_resized[fold.shown] = _by_size(fold.sizes[0], fold.training.labels.numpy(), fold.resized[1])
    every = np.arange(len(heads))
    controls: dict[str, tuple[float, int]] = {
        "majority class": (float(np.bincount(truth).max() / len(truth)), len(heads)),
        "brain volume alone": _balanced(truth, by_volume, every),
    }
    if prepared.folds[0].resized is not None:
        controls["brain volume alone, resized by class"] = _balanced(truth, by_resized, every)
    controls["network"] = _balanced(truth, judged.predicted, every)
    try:
        pairs = matched_subset(sizes, truth, tolerance).ravel()
    except DataError:  # no pair is that close
        pairs = np.empty(0, dtype=int)
    if len(pairs):
        controls["network, matched heads"] = _balanced(truth, judged.predicted, pairs)
        controls["brain volume alone, matched heads"] = _balanced(truth, by_volume, pairs)
    for name, (value, n) in controls.items():
        run.record(metric=f"control: {name}", value=value, method=prepared.name, model=network, n=n)
    rows = [
        {"preprocessing": prepared.name, "control": name, "value": value, "n": n}
        for name, (value, n) in controls.items()
    ]
    return pd.DataFrame(rows)


def score_against(
    values: Mapping[str, Shaped[np.ndarray, "..."]], scores: Shaped[np.ndarray, "..."]
) -> pd.DataFrame:
    """How a network's score goes with what is known of each image: correlations, or the AUC of what is 0 and 1.

    Parameters
    ----------
    values
        ``{"brain volume (ml)": ..., "male": ...}``, n each.
    scores
        The network's score of each image, such as a difference of logits.

    Returns
    -------
    DataFrame
        ``value``, ``measure`` ("Pearson", "Spearman", or "AUC" for values of 0 and 1 alone), ``score`` (NaN where
        either is constant), ``n``.

    Raises
    ------
    ShapeError
        If there are not as many values as scores.
    DataError
        If a number is not finite.
    """
    scores = np.asarray(scores, dtype=np.float64)
    rows = []
    for name, own in values.items():
        own = np.asarray(own, dtype=np.float64)
        if own.shape != scores.shape or own.ndim != 1:
            raise ShapeError(
                f"{name!r} of shape {own.shape} for scores of shape {scores.shape}; expected one for each image."
            )
        if not (np.isfinite(own).all() and np.isfinite(scores).all()):
            raise DataError(
                f"{name!r} or the scores have NaN or infinite values; expected finite ones: leave them out."
            )
        known = set(np.unique(own))
        if known == {0.0, 1.0}:
            found = {"AUC": roc_auc_score(own, scores)}
        elif len(known) < 2 or np.ptp(scores) == 0:
            found = {"Pearson": np.nan, "Spearman": np.nan}
        else:
            found = {
                "Pearson": stats.pearsonr(own, scores).statistic,
                "Spearman": stats.spearmanr(own, scores).statistic,
            }
        rows += [
            {"value": name, "measure": key, "score": float(it), "n": len(own)} for key, it in found.items()
        ]
    return pd.DataFrame(rows, columns=["value", "measure", "score", "n"])


def with_brain_mean(volumes: Volumes, mean: float) -> Float32[Tensor, "n 1 x y z"]:
    """The images, each multiplied so that its mean within the label map is `mean`, for networks of raw intensities.

    The public sex network of HCP (``head_cnn``) learnt on raw intensities, whose scale its authors do not say: on IXI
    its score follows brain volume with a Spearman correlation of 0.58 for a mean of 300, 0.77 for 600 and for 1000.

    Raises
    ------
    DataError
        If they have no label maps.
    """
    check_brains(volumes)
    check_positive(mean=mean)
    images = volumes.images[:]
    for i, image in enumerate(images):
        image *= mean / image[0][torch.from_numpy(volumes.label_map(i) > 0)].mean()
    return images


def _plain_sizes(prepared: Preprocessing) -> list[tuple[np.ndarray, np.ndarray]]:
    """Volumes of the training and validation brains of each fold as they are, not resized."""
    sizes = np.empty(len(prepared.heads))
    for fold in prepared.folds:
        assert fold.sizes is not None
        sizes[fold.shown] = fold.sizes[1]
    every = np.arange(len(sizes))
    return [(sizes[np.setdiff1d(every, fold.shown)], sizes[fold.shown]) for fold in prepared.folds]


def _by_size(trained: np.ndarray, labels: np.ndarray, judged: np.ndarray) -> np.ndarray:
    """The classes that a logistic regression on the volume names."""
    mean, spread = trained.mean(), trained.std() or 1.0
    model = LogisticRegression(class_weight="balanced")
    model.fit((trained[:, None] - mean) / spread, labels)
    said: np.ndarray = model.predict((judged[:, None] - mean) / spread)
    return said


def _balanced(truth: np.ndarray, said: np.ndarray, chosen: np.ndarray) -> tuple[float, int]:
    return float(balanced_accuracy_score(truth[chosen], said[chosen])), len(chosen)
