"""The preprocessing study: what a network uses that is shown heads, brains, turned, resized, or equally large ones."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float32, Float64, Int, Shaped
from scipy import stats
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, roc_auc_score
from torch import Tensor

from xaitools.checks import check_choice, check_positive
from xaitools.data import (
    Volumes,
    brain_volumes,
    check_brains,
    k_folds,
    matched_subset,
    optimal_scales,
    scaled,
    skull_stripped,
    two_classes,
)
from xaitools.errors import DataError, ShapeError
from xaitools.evaluation import explanation_shares, mean_interval, tissue_masks
from xaitools.models import predict
from xaitools.models.head_cnn import LAST_RELU
from xaitools.study.contexts import Contexts, folds_and_runs
from xaitools.study.explaining import explain_each
from xaitools.study.run import Run

TRAINING, VALIDATION, RESIZED = "training", "validation", "validation, resized by class"


@dataclass(frozen=True)
class Recipe:
    """What is done to the heads: the skull stripped, each batch augmented, sizes made equal between the classes."""

    stripped: bool
    augment: str = ""
    resized: bool = False


PREPROCESSINGS = {
    "none": Recipe(stripped=False),
    "skull stripped": Recipe(stripped=True),
    "skull stripped, rotation": Recipe(stripped=True, augment="rotation"),
    "skull stripped, rotation and scaling": Recipe(stripped=True, augment="rotation_and_scaling"),
    "skull stripped, optimal scaling": Recipe(stripped=True, resized=True),
}
"""The five rows of the slides' table, in its order."""


@dataclass(frozen=True)
class Fold:
    """One fold of a preprocessing.

    Attributes
    ----------
    training, validation
        Heads as the network is trained on them, and as it is judged on them. The latter are never resized by their
        class, which is what they are asked for.
    shown
        Positions of the validation heads among all.
    sizes
        Volumes of the brains in ml, as trained on and as judged: two arrays; None without label maps.
    resized
        The validation heads resized by their class, and the volumes of their brains; None without optimal scaling.
    """

    training: Volumes
    validation: Volumes
    shown: Int[np.ndarray, " m"]
    sizes: tuple[Float64[np.ndarray, " k"], Float64[np.ndarray, " m"]] | None = None
    resized: tuple[Volumes, Float64[np.ndarray, " m"]] | None = None


@dataclass(frozen=True)
class Preprocessing:
    """The heads of one row of the study.

    Attributes
    ----------
    name
        Key of :data:`PREPROCESSINGS`.
    augment
        Key of `xaitools.models.AUGMENTATIONS`, "" for none.
    heads
        All heads, as the networks are judged on them.
    folds
        What is trained and judged in each fold; all preprocessings have the same heads in a fold.
    """

    name: str
    augment: str
    heads: Volumes
    folds: list[Fold]

    @property
    def file(self) -> str:
        """As files are named."""
        return re.sub(r"\W+", "-", self.name)


@dataclass(frozen=True)
class Judged:
    """How good the networks of a preprocessing are.

    Attributes
    ----------
    accuracies
        A row a fold and set: ``preprocessing``, ``fold``, ``set``, ``accuracy``, ``balanced``, ``n``.
    predicted
        The class of each head, said by the network that was not trained on it.
    """

    accuracies: pd.DataFrame
    predicted: Int[np.ndarray, " n"]


@dataclass(frozen=True)
class MeanCams:
    """The explanations of the validation heads of all folds.

    Attributes
    ----------
    name
        Of the preprocessing.
    means
        By name of the class, the mean over its heads of maps that sum to 1 each, (x, y, z).
    shares
        A row a head and part: ``preprocessing``, ``sample``, ``label``, ``part``, ``share``, ``volume``, ``ratio``.
    empty
        How many heads have a map of zeros; they are in neither.
    """

    name: str
    means: dict[str, Float64[np.ndarray, "x y z"]]
    shares: pd.DataFrame
    empty: int = 0


def preprocessings(
    heads: Volumes,
    names: Sequence[str] = tuple(PREPROCESSINGS),
    *,
    n_folds: int = 3,
    onto: str = "",
    seed: int = 0,
    cache_dir: str | Path | None = None,
) -> dict[str, Preprocessing]:
    """Prepare heads as the rows of the study ask for, with the same subjects in the same folds.

    For optimal scaling, the heads of one class are resized so that the volumes of the brains have the distribution that
    they have in the other one (:func:`xaitools.data.optimal_scales`), fitted on the training heads of the fold. A
    head's factor follows from its class. Training heads are resized; validation heads are judged as they are, and once
    more resized by their class, which is another question and has another name.

    Parameters
    ----------
    heads
        Whole heads of two classes, with label maps.
    names
        Keys of :data:`PREPROCESSINGS`.
    n_folds
        Of the cross-validation, stratified, by subject.
    onto
        Name of the class that keeps its size; by default the first one.
    seed
        Fixes the folds.
    cache_dir
        Where stripped and resized heads are kept, as for `xaitools.data.load_brains`.

    Raises
    ------
    DataError
        If heads without label maps shall be stripped or resized; if a class is absent in a fold, or there are not two.
    ParameterError
        If a name or class is unknown.
    """
    classes = two_classes(heads)
    for name in names:
        check_choice(preprocessing=(name, PREPROCESSINGS))
    onto = onto or classes[0]
    check_choice(onto=(onto, classes))
    recipes = {name: PREPROCESSINGS[name] for name in names}
    needed = any(recipe.stripped or recipe.resized for recipe in recipes.values())
    if needed:
        check_brains(heads)
    sizes = None if heads.label_maps is None else brain_volumes(heads)
    places = {name: position for position, name in enumerate(heads.names)}
    dealt = [
        tuple(np.array([places[name] for name in part.names]) for part in fold)
        for fold in k_folds(heads, n_folds, seed=seed)
    ]
    stripped = skull_stripped(heads, cache_dir=cache_dir) if needed else heads
    prepared = {}
    for name, recipe in recipes.items():
        own = stripped if recipe.stripped else heads
        label = classes.index(onto) if recipe.resized else None
        folds = [_fold(own, sizes, *positions, onto=label, cache_dir=cache_dir) for positions in dealt]
        prepared[name] = Preprocessing(name, recipe.augment, own, folds)
    return prepared


def preprocessing_networks(
    prepared: Preprocessing, network: str, *, seed: int = 0, progress: bool = True, **settings: Any
) -> Contexts:
    """A network for each fold, trained or from the cache; see :func:`~xaitools.study.folds_and_runs`.

    The validation heads of the fold choose the epoch whose weights are kept, so that accuracies on them are a little
    too good, as published ones are that are chosen so; it is the same for all rows.

    Parameters
    ----------
    prepared
        One row.
    network, seed, progress, **settings
        As for :func:`~xaitools.study.folds_and_runs`; the augmentation is that of the row.
    """
    folds = [(fold.training, fold.validation) for fold in prepared.folds]
    settings = {**settings, "augment": prepared.augment}
    return folds_and_runs("", network, folds, n_runs=1, seed=seed, progress=progress, **settings)[0]


def preprocessing_accuracies(
    run: Run, prepared: Preprocessing, nets: Contexts, *, network: str, **options: Any
) -> Judged:
    """How often the networks are right, on the training and the validation heads of their folds; recorded.

    Parameters
    ----------
    run
        Where they are recorded, the name of the row as the method.
    prepared
        One row.
    nets
        Its networks.
    network
        Name of the network.
    **options
        Of `xaitools.models.predict`.
    """
    rows = []
    predicted = np.full(len(prepared.heads), -1)
    for own, net in nets.items():
        fold = prepared.folds[own.fold - 1]
        sets = {TRAINING: fold.training, VALIDATION: fold.validation}
        if fold.resized is not None:
            sets[RESIZED] = fold.resized[0]
        for name, heads in sets.items():
            said = predict(net.model, heads.images, **options).argmax(dim=1).numpy()
            if name == VALIDATION:
                predicted[fold.shown] = said
            truth = heads.labels.numpy()
            scores = {
                "accuracy": float((said == truth).mean()),
                "balanced": float(balanced_accuracy_score(truth, said)),
            }
            rows.append(
                {"preprocessing": prepared.name, "fold": own.fold, "set": name, **scores, "n": len(heads)}
            )
            of: dict[str, Any] = {"method": prepared.name, "model": network, "fold": own.fold}
            run.record(metric=f"accuracy, {name}", value=scores["accuracy"], n=len(heads), **of)
            run.record(metric=f"balanced accuracy, {name}", value=scores["balanced"], n=len(heads), **of)
    return Judged(pd.DataFrame(rows), predicted)


def preprocessing_table(
    run: Run, judged: Sequence[Judged], *, network: str, score: str = "accuracy"
) -> pd.DataFrame:
    """Mean and standard deviation over the folds, a row a preprocessing, as the slides have them; recorded.

    Parameters
    ----------
    run
        Where the means are recorded.
    judged
        As :func:`preprocessing_accuracies` returns them.
    network
        Name of the network.
    score
        "accuracy", which the slides give, or "balanced".

    Returns
    -------
    DataFrame
        ``preprocessing``; for each set that there is, ``SET`` and ``SET, sd``, 0 to 1 (the standard deviation is that
        of a sample, NaN for one fold).
    """
    check_choice(score=(score, ("accuracy", "balanced")))
    rows = []
    for one in judged:
        row: dict[str, Any] = {"preprocessing": one.accuracies["preprocessing"].iloc[0]}
        for name, values in one.accuracies.groupby("set", sort=False)[score]:
            row |= {str(name): float(values.mean()), f"{name}, sd": float(values.std())}
            of: dict[str, Any] = {"method": row["preprocessing"], "model": network, "n": len(values)}
            run.record(metric=f"{score}, {name}, mean", value=values.mean(), **of)
            run.record(metric=f"{score}, {name}, sd", value=values.std(), **of)
        rows.append(row)
    return pd.DataFrame(rows)


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


def mean_cams(
    prepared: Preprocessing,
    nets: Contexts,
    folder: Path,
    *,
    method: str = f"grad_cam[{LAST_RELU}]",
    rim: float = 5.0,
    progress: bool = True,
    **settings: Any,
) -> MeanCams:
    """Explain every validation head's own class, and add the maps up by class and by part of the head.

    Each map is divided by the sum of its positive values, so that heads count alike. Heads stand as their grid has
    them, with the centres of the brains in one place if they were loaded so, but not registered: the mean is as blurred
    as people differ. The shares are taken head by head with its own label map.

    Parameters
    ----------
    prepared, nets
        One row and its networks.
    folder
        Where maps are written as they come, in a folder of their own for each row and fold.
    method
        Name of the map, with its layer.
    rim
        As for `xaitools.evaluation.tissue_masks`, in mm.
    **settings
        Of `xaitools.attribution.attribute`.

    Raises
    ------
    DataError
        If the heads have no label maps.
    """
    check_brains(prepared.heads)
    classes, shape = prepared.heads.class_names, prepared.heads.shape
    sums, counts = np.zeros((len(classes), *shape)), np.zeros(len(classes))
    tables, empty = [], 0
    for own, net in nets.items():
        fold = prepared.folds[own.fold - 1]
        for label, name in enumerate(classes):
            group = fold.validation[np.flatnonzero(fold.validation.labels.numpy() == label)]
            place = folder / prepared.file / own.file
            of: dict[str, Any] = {"target": label, "key": {"target": label}, "progress": progress}
            for i, found in enumerate(explain_each(net.model, group, [method], place, **of, **settings)):
                values = np.maximum(found[method], 0).astype(np.float64)
                if not values.any():
                    empty += 1
                    continue
                sums[label] += values / values.sum()
                counts[label] += 1
                parts = tissue_masks(group.label_map(i), group.affine, rim=rim)
                who = {"preprocessing": prepared.name, "sample": group.names[i], "label": name}
                tables.append(explanation_shares(values, parts).assign(**who))
    means = {
        name: sums[label] / counts[label] if counts[label] else np.zeros(shape)
        for label, name in enumerate(classes)
    }
    columns = ["preprocessing", "sample", "label", "part", "share", "volume", "ratio"]
    shares = pd.concat(tables, ignore_index=True)[columns] if tables else pd.DataFrame(columns=columns)
    return MeanCams(prepared.name, means, shares, empty)


def shares_table(run: Run, cams: Sequence[MeanCams], *, network: str, seed: int = 0) -> pd.DataFrame:
    """Mean share of the explanations in each part of the head, beside the part's share of the volume; recorded.

    Parameters
    ----------
    run
        Where they are recorded.
    cams
        As :func:`mean_cams` returns them.
    network
        Name of the network.
    seed
        Of the bootstrap over heads.

    Returns
    -------
    DataFrame
        A row a preprocessing and part: ``preprocessing``, ``part``; ``share`` with ``low`` and ``high``, its 95 %
        interval; ``volume``, the share that an even map would have; ``ratio`` of both; ``n`` heads.
    """
    rows = []
    for one in cams:
        for part, own in one.shares.groupby("part", sort=False):
            interval = mean_interval(own["share"].to_numpy(dtype=np.float64), seed=seed)
            volume = float(own["volume"].mean())
            of: dict[str, Any] = {"method": one.name, "model": network, "n": len(own)}
            run.record_interval(interval, metric=f"share of the explanation: {part}", **of)
            run.record(metric=f"share of the volume: {part}", value=volume, **of)
            share = float(interval.mean)
            bounds = {"share": share, "low": float(interval.low), "high": float(interval.high)}
            rows.append(
                {
                    "preprocessing": one.name,
                    "part": part,
                    **bounds,
                    "volume": volume,
                    "ratio": share / volume if volume else np.nan,
                    "n": len(own),
                }
            )
    return pd.DataFrame(
        rows, columns=["preprocessing", "part", "share", "low", "high", "volume", "ratio", "n"]
    )


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


def _fold(
    heads: Volumes,
    sizes: Float64[np.ndarray, " n"] | None,
    train: Int[np.ndarray, " k"],
    shown: Int[np.ndarray, " m"],
    *,
    onto: int | None,
    cache_dir: str | Path | None,
) -> Fold:
    """One fold of heads; sizes are made equal if there is a class to carry them onto."""
    training, validation = heads[train], heads[shown]
    if sizes is None:
        return Fold(training, validation, shown)
    if onto is None:
        return Fold(training, validation, shown, (sizes[train], sizes[shown]))
    fitted = np.isin(np.arange(len(heads)), train)
    factors = optimal_scales(sizes, heads.labels.numpy(), onto=onto, fitted_on=fitted)
    after = sizes * factors**3
    return Fold(
        scaled(training, factors[train], cache_dir=cache_dir),
        validation,
        shown,
        (after[train], sizes[shown]),
        (scaled(validation, factors[shown], cache_dir=cache_dir), after[shown]),
    )


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
