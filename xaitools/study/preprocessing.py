"""The preprocessing study: what a network uses that is shown heads, brains, turned, resized, or equally large ones."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float64, Int
from sklearn.metrics import balanced_accuracy_score

from xaitools.checks import check_choice
from xaitools.data import (
    Volumes,
    brain_volumes,
    check_brains,
    k_folds,
    optimal_scales,
    scaled,
    skull_stripped,
    two_classes,
)
from xaitools.models import predict
from xaitools.study.contexts import Contexts, folds_and_runs
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
