"""A linear classifier of voxels: what a network has to be better than."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64

from xaitools.checks import check_choice, check_counts
from xaitools.errors import DataError, ShapeError
from xaitools.models.images import LabelledImages

KINDS = ("svm", "logistic")
STRENGTHS = tuple(10.0**power for power in range(-4, 3))


@dataclass(frozen=True)
class LinearBaseline:
    """A linear classifier of two classes, and what it says.

    Attributes
    ----------
    kind
        "svm" or "logistic".
    strength
        The `C` that the inner cross-validation chose, for voxels that are scaled so that images have length 1 on
        average.
    decisions
        Of the test images: above 0 for the second class, ``(n,)``.
    training_decisions
        Of the training images.
    weights
        ``(channel, *spatial)`` in the units of the images: a decision is their scalar product with an image, plus
        `bias`. They have the form of a map, but see :func:`linear_baseline` before you read them as one.
    bias
        The constant.
    """

    kind: str
    strength: float
    decisions: Float[np.ndarray, " n"]
    training_decisions: Float[np.ndarray, " m"]
    weights: Float32[np.ndarray, "channel *spatial"]
    bias: float

    @property
    def predicted(self) -> Int64[np.ndarray, " n"]:
        """The class of each test image, 0 or 1."""
        return (self.decisions > 0).astype(np.int64)

    @property
    def training_predicted(self) -> Int64[np.ndarray, " m"]:
        """The class of each training image."""
        return (self.training_decisions > 0).astype(np.int64)


def linear_baseline(
    training: LabelledImages,
    test: LabelledImages,
    *,
    kind: str = "svm",
    strengths: Sequence[float] = STRENGTHS,
    n_folds: int = 3,
    seed: int = 0,
) -> LinearBaseline:
    """Train a linear classifier on all voxels, each standardised over the training images, and apply it.

    There are far more voxels than images, so it is trained on the images' coordinates in the space that they span,
    which gives the same weights as training on the voxels; no voxel is chosen. The penalty's strength comes from a
    cross-validation within the training images, by subject where they have subjects.

    The weights are the direction in which the classifier looks, no map of where classes differ: a voxel that only
    cancels the noise of others gets a weight too, and one that differs may get none (Haufe et al. 2014).

    Parameters
    ----------
    training, test
        As `xaitools.models.train` takes them; two classes.
    kind
        ``"svm"``: linear support vector machine (hinge loss); ``"logistic"``: logistic regression. Both with an L2
        penalty.
    strengths
        Candidates for `C`.
    n_folds
        Of the inner cross-validation; fewer where a class has fewer images.
    seed
        Fixes its folds.

    Raises
    ------
    DataError
        If there are not two classes with two or more training images of both.
    ShapeError
        If training and test images differ in shape.
    ParameterError
        If the kind is unknown.

    References
    ----------
    Haufe et al., On the interpretation of weight vectors of linear models in multivariate neuroimaging, NeuroImage
    2014.
    Kan et al. (arXiv 2006.15969) report 90.0 % for a support vector machine on voxels, for sex of HCP.
    """
    check_choice(kind=(kind, KINDS))
    check_counts(n_folds=n_folds)
    labels = np.asarray(training.labels)
    counts = np.bincount(labels, minlength=2) if labels.dtype.kind == "i" else np.zeros(1, dtype=int)
    if len(counts) != 2 or counts.min() < 2:
        raise DataError(
            f"training images of {len(counts)} classes, {counts.tolist()} of each; expected two classes with two or "
            "more of both: choose the classes, or add subjects."
        )
    if training.images.shape[1:] != test.images.shape[1:]:
        raise ShapeError(
            f"training images of shape {tuple(training.images.shape)} and test images of shape "
            f"{tuple(test.images.shape)}; expected one grid: resample one to the other's."
        )
    values, others = (_voxels(own) for own in (training, test))
    mean, spread = values.mean(axis=0), values.std(axis=0)
    spread[spread < 1e-6] = np.inf  # constant: it gets no weight
    values -= mean
    values /= spread
    gram = values.astype(np.float64) @ values.T.astype(np.float64)
    scale = np.sqrt(np.trace(gram) / len(gram)) or 1.0
    lengths, axes = np.linalg.eigh(gram / scale**2)
    kept = lengths > 1e-8 * lengths.max()
    coordinates = axes[:, kept] * np.sqrt(lengths[kept])
    groups = np.unique(np.asarray(getattr(training, "subjects", range(len(labels)))), return_inverse=True)[1]
    found = _fitted(kind, coordinates, labels, groups, strengths, min(n_folds, int(counts.min())), seed)
    model = found.best_estimator_
    in_images = (
        axes[:, kept] / np.sqrt(lengths[kept]) @ model.coef_[0] / scale**2
    )  # the weights as a sum of images
    weights = (in_images @ values) / spread
    bias = float(model.intercept_[0] - weights @ mean)
    return LinearBaseline(
        kind,
        float(found.best_params_["C"]),
        decisions=others @ weights + bias,
        training_decisions=coordinates @ model.coef_[0] + model.intercept_[0],
        weights=weights.reshape(tuple(training.images.shape[1:])).astype(np.float32),
        bias=bias,
    )


def _voxels(labelled: LabelledImages) -> np.ndarray:
    images = labelled.images[torch.arange(len(labelled.images))]
    return images.detach().cpu().flatten(1).numpy().astype(np.float32)


def _fitted(
    kind: str,
    coordinates: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
    strengths: Sequence[float],
    n_folds: int,
    seed: int,
) -> Any:
    """The grid search over strengths; of those that are equally good, the strongest penalty."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold
    from sklearn.svm import SVC

    model = SVC(kernel="linear") if kind == "svm" else LogisticRegression(max_iter=2000)
    folds = StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed)
    grid = {"C": sorted(strengths)}
    search = GridSearchCV(model, grid, cv=folds, scoring="balanced_accuracy", error_score="raise")
    return search.fit(coordinates, labels, groups=groups)
