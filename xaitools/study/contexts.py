"""Contexts: every fold of a cross-validation trained several times, and how good each network is."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from sklearn.metrics import balanced_accuracy_score

from xaitools.data import Samples, Volumes
from xaitools.errors import DataError, DivergedError, ParameterError
from xaitools.models import predict
from xaitools.study.network import Trained, train_unless_diverged
from xaitools.study.parallel import each
from xaitools.study.run import Run

SETS = ("training", "validation", "test")


class Context(NamedTuple):
    """One training: which part of the data was left out, and which of its repetitions it is; both count from 1."""

    fold: int
    run: int

    def __str__(self) -> str:
        return f"fold {self.fold}, run {self.run}"

    @property
    def file(self) -> str:
        """As files are named: ``fold-1_run-2``."""
        return f"fold-{self.fold}_run-{self.run}"


Contexts = dict[Context, Trained]
Folds = Sequence[tuple[Samples | Volumes, Samples | Volumes]]


def check_contexts(model: str, n_folds: int, n_runs: int) -> None:
    """Raise ParameterError unless there are two trainings to compare; networks that a user names may be one."""
    if not model and (n_folds < 2 or n_runs < 2):
        raise ParameterError(
            f"n_folds={n_folds}, n_runs={n_runs}: whether a mask survives other folds and other runs needs two or more "
            "of both"
        )


def folds_and_runs(
    model: str,
    network: str,
    folds: Folds,
    *,
    n_runs: int,
    seed: int = 0,
    skip_failed: bool = False,
    progress: bool = True,
    **settings: Any,
) -> tuple[Contexts, dict[str, str]]:
    """A network for each fold and run, or those that a user names, as the runs of fold 1.

    The runs of a fold differ in their random numbers only; run 1 begins with the same ones in every fold. Each training
    is taken from the cache if it was made before, and goes on where it was if it was stopped.

    Parameters
    ----------
    model
        Weights files or factories, separated by commas; "" to train.
    network, **settings
        As for :func:`~xaitools.study.train_or_load`.
    folds
        Training and validation set of each fold.
    n_runs
        Trainings of each fold.
    seed
        Of run 1; each further run has the next number.
    skip_failed
        Leave out trainings that diverge instead of stopping.
    progress
        Show a bar over the trainings.

    Returns
    -------
    nets
        The networks by context.
    diverged
        Why contexts are missing, by name.

    Raises
    ------
    DivergedError
        If a training diverges and `skip_failed` is not set.
    DataError
        If no network is left.
    """
    sources = [file.strip() for file in model.split(",") if file.strip()]
    wanted = {Context(1, i + 1): source for i, source in enumerate(sources)} or {
        Context(fold + 1, run + 1): "" for fold in range(len(folds)) for run in range(n_runs)
    }
    nets, diverged = Contexts(), dict[str, str]()
    calls = [
        (source, network, *folds[own.fold - 1], {"seed": seed + own.run - 1, **settings})
        for own, source in wanted.items()
    ]
    done = each(train_unless_diverged, calls, what="trainings", unit="network", progress=progress)
    for own, net in zip(wanted, done, strict=True):
        if not isinstance(net, DivergedError):
            nets[own] = net
        elif not skip_failed:
            raise DivergedError(f"{own}: {net}, or set skip_failed to leave it out") from None
        else:
            diverged[str(own)] = str(net)
    if not nets:
        raise DataError(f"all {len(diverged)} trainings diverged: lower learning_rate")
    return nets, diverged


def context_accuracies(
    run: Run, nets: Contexts, folds: Folds, test: Samples | Volumes, *, network: str, **options: Any
) -> pd.DataFrame:
    """Balanced accuracy of each network on its training and validation set and on the test set; recorded.

    Parameters
    ----------
    run
        Where they are recorded, with the mean over the contexts.
    nets
        The networks by context.
    folds
        Training and validation set of each fold.
    test
        The test set of all.
    network
        Name of the network.
    **options
        Of `xaitools.models.predict`.

    Returns
    -------
    DataFrame
        One row a context: ``fold``, ``run`` and a column for each of :data:`SETS`; shares, 0 to 1.
    """
    rows = []
    for own, net in nets.items():
        scores = {}
        for name, samples in zip(SETS, (*folds[own.fold - 1], test), strict=True):
            said = predict(net.model, samples.images, **options).argmax(dim=1)
            scores[name] = float(balanced_accuracy_score(samples.labels, said))
            at: dict[str, Any] = {"model": network, "fold": own.fold, "run": own.run, "n": len(samples)}
            run.record(metric=f"balanced accuracy, {name}", value=scores[name], **at)
        rows.append({"fold": own.fold, "run": own.run, **scores})
    table = pd.DataFrame(rows)
    for name in SETS:
        mean = table[name].mean()
        run.record(metric=f"balanced accuracy, {name}, mean", value=mean, model=network, n=len(table))
    return table


def permuted_labels(samples: Samples | Volumes, seed: int = 0) -> Samples | Volumes:
    """The samples with the labels of their participants permuted; all samples of one participant get one label."""
    subjects = list(dict.fromkeys(samples.subjects))
    first = {subject: samples.subjects.index(subject) for subject in subjects}
    labels = samples.labels[[first[subject] for subject in subjects]]
    order = np.random.default_rng(seed).permutation(len(subjects))
    dealt = dict(zip(subjects, labels[order], strict=True))
    return replace(samples, labels=labels.new_tensor([int(dealt[subject]) for subject in samples.subjects]))


def permuted_folds(folds: Folds, seed: int = 0) -> list[tuple[Samples | Volumes, Samples | Volumes]]:
    """The folds with :func:`permuted_labels` in each of their sets."""
    return [
        (permuted_labels(training, seed), permuted_labels(validation, seed + 1))
        for training, validation in folds
    ]


def group_of(
    samples: Samples | Volumes, label: int, *, apart: Samples | Volumes | None = None, n: int = 0
) -> Samples | Volumes:
    """The first `n` samples of a class (0: all of them), without the participants of `apart`.

    Raises
    ------
    DataError
        If there is none.
    """
    other: set[str] = set(apart.subjects) if apart is not None else set()
    found = [
        i for i, own in enumerate(samples.subjects) if own not in other and int(samples.labels[i]) == label
    ]
    if not found:
        raise DataError(f"nobody of class {samples.class_names[label]!r} is left for a group; add subjects")
    return samples[found[: n or None]]
