"""Training, validation and test sets that share no subject."""

from collections.abc import Sequence
from itertools import combinations
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np
from jaxtyping import Shaped
from torch import Tensor

from xaitools.data.samples import check_labelled
from xaitools.errors import DataError, ParameterError

SPLIT_NAMES = ("training", "validation", "test")
MOST_BINS = 10

T = TypeVar("T", bound="Divisible")


@runtime_checkable
class Divisible(Protocol):
    """What can be divided into sets: :class:`xaitools.data.Samples`, or another collection with its attributes."""

    @property
    def labels(self) -> Shaped[Tensor, " n"]: ...

    @property
    def subjects(self) -> tuple[str, ...]: ...

    @property
    def class_names(self) -> tuple[str, ...]: ...

    def __len__(self) -> int: ...

    def __getitem__(self: T, index: np.ndarray) -> T: ...


def split(samples: T, fractions: Sequence[float] = (0.7, 0.15, 0.15), *, seed: int) -> tuple[T, T, T]:
    """Divide samples into training, validation and test sets by subject, stratified by label.

    All samples of a subject stay together, also when it has samples of several classes. Subjects are dealt
    in random order, those with most samples first, each to the set whose class counts it brings closest to
    their share. scikit-learn's ``StratifiedGroupKFold`` deals in the same way, but into sets of equal size only.

    For a regression, the quantiles of the subjects' mean labels take the place of the classes: 10 of equal
    size, or as many as there are subjects in the smallest set.

    Parameters
    ----------
    samples : Samples
    fractions : three floats
        Share of the samples in each set: positive, sum 1.
    seed : int
        Same seed, same sets.

    Returns
    -------
    training, validation, test : Samples
        Each holds every class; within a set, samples keep their order.

    Raises
    ------
    ParameterError
        `fractions` are not three positive numbers that sum to 1.
    DataError
        Only one class or value, or too few subjects for every set to hold every class, or any subject.
    """
    if len(fractions) != 3 or min(fractions) <= 0 or not np.isclose(sum(fractions), 1):
        raise ParameterError(f"fractions={tuple(fractions)}; expected three positive numbers that sum to 1")
    belongs = _deal_samples(samples, np.asarray(fractions), SPLIT_NAMES, seed)
    training, validation, test = (samples[belongs == number] for number in range(3))
    check_disjoint(training, validation, test)
    return training, validation, test


def folds(samples: T, n_folds: int = 5, *, seed: int) -> list[tuple[T, T, T]]:
    """Divide samples into training, validation and test sets once for each fold of a cross-validation.

    Subjects are dealt into `n_folds` parts of equal size as :func:`split` deals them. In fold `k`, part `k` is
    the test set, part `k` + 1 (after the last, the first) the validation set, and the others the training set:
    3/5, 1/5 and 1/5 of the samples for five folds.

    Parameters
    ----------
    samples : Samples
    n_folds : int
        At least 3.
    seed : int
        Same seed, same sets.

    Returns
    -------
    list of (training, validation, test), n_folds
        Each sample is in one test set and in one validation set.

    Raises
    ------
    ParameterError
        Fewer than 3 folds.
    DataError
        More folds than subjects, only one class or value, or too few subjects of a class for every part to hold it.
    """
    if n_folds < 3:
        raise ParameterError(
            f"n_folds={n_folds}; expected at least 3, one part each for training, validation and test"
        )
    n_subjects = len(set(samples.subjects))
    if n_folds > n_subjects:
        raise DataError(
            f"{n_folds} folds of {n_subjects} subjects; expected at most one fold a subject; ask for fewer"
        )
    parts = [f"fold {number + 1}" for number in range(n_folds)]
    part = _deal_samples(samples, np.full(n_folds, 1 / n_folds), parts, seed)
    after = (part - 1) % n_folds
    sets = [
        (samples[(part != k) & (after != k)], samples[after == k], samples[part == k]) for k in range(n_folds)
    ]
    for training, validation, test in sets:
        check_disjoint(training, validation, test)
    return sets


def cross_validation(
    samples: T, n_folds: int = 5, *, test: float = 0.2, seed: int
) -> tuple[list[tuple[T, T]], T]:
    """Set a test set apart, once, and divide the rest into training and validation sets once for each fold.

    Subjects are dealt as :func:`split` deals them. In fold `k`, part `k` of the rest is the validation set, and the
    other parts are the training set. All folds share the test set, so that the networks of different folds can be
    asked about the same images, which none of them has seen. :func:`folds` takes the test sets in turn instead.

    Parameters
    ----------
    samples : Samples
    n_folds : int
        At least 2.
    test : float
        Share of the samples that is set apart, above 0 and below 1.
    seed : int
        Same seed, same sets.

    Returns
    -------
    folds : list of (training, validation), n_folds
        Each sample of the rest is in one validation set.
    test : Samples

    Raises
    ------
    ParameterError
        Fewer than 2 folds, or a share out of its range.
    DataError
        Only one class or value, or too few subjects of a class for every part to hold it.
    """
    _check_two(n_folds)
    if not 0 < test < 1:
        raise ParameterError(f"test={test}; expected a share of the samples above 0 and below 1")
    apart = _deal_samples(samples, np.array([1 - test, test]), ("training", "test"), seed) == 1
    rest = samples[~apart]
    sets = k_folds(rest, n_folds, seed=seed)
    for training, validation in sets:
        check_disjoint(training, validation, samples[apart])
    return sets, samples[apart]


def k_folds(samples: T, n_folds: int = 3, *, seed: int) -> list[tuple[T, T]]:
    """Divide samples into training and validation sets once for each fold, with no test set.

    Subjects are dealt as :func:`split` deals them. What is chosen by the validation sets, as the epoch whose weights
    are kept, is chosen on what is reported: for numbers that are free of that, see :func:`folds`.

    Parameters
    ----------
    samples : Samples
    n_folds : int
        At least 2.
    seed : int
        Same seed, same sets.

    Returns
    -------
    list of (training, validation), n_folds
        Each sample is in one validation set.

    Raises
    ------
    ParameterError
        Fewer than 2 folds.
    DataError
        Only one class or value, or too few subjects of a class for every part to hold it.
    """
    _check_two(n_folds)
    parts = [f"fold {number + 1}" for number in range(n_folds)]
    part = _deal_samples(samples, np.full(n_folds, 1 / n_folds), parts, seed)
    return [(samples[part != k], samples[part == k]) for k in range(n_folds)]


def check_disjoint(training: Divisible, validation: Divisible, test: Divisible) -> None:
    """Check that no subject is in two of the three sets.

    Raises
    ------
    DataError
        Names the study id and the two sets.
    """
    sets = zip(SPLIT_NAMES, (training, validation, test), strict=True)
    for (first, first_samples), (second, second_samples) in combinations(sets, 2):
        shared = sorted(set(first_samples.subjects) & set(second_samples.subjects))
        if shared:
            raise DataError(
                f"subject {shared[0]} is in both the {first} and the {second} set ({len(shared)} shared in "
                "all): keep all samples of a subject in one set, for instance with split()"
            )


def _check_two(n_folds: int) -> None:
    if n_folds < 2:
        raise ParameterError(
            f"n_folds={n_folds}; expected at least 2, so that something is left to train with in each fold"
        )


def _deal_samples(
    samples: Divisible, fractions: np.ndarray, set_names: Sequence[str], seed: int
) -> np.ndarray:
    """Set number of each sample, (n,)."""
    check_labelled(samples)
    subjects = sorted(set(samples.subjects))
    row = {subject: position for position, subject in enumerate(subjects)}
    rows = np.array([row[subject] for subject in samples.subjects])
    if samples.labels.is_floating_point():
        counts = _bin_counts(samples, rows, float(fractions.min()))
    else:
        counts = _class_counts(samples, rows)
    dealt = _deal(counts, fractions, np.random.default_rng(seed))
    if samples.labels.is_floating_point():
        _check_filled(dealt, set_names)
    else:
        _check_classes(dealt, counts, samples.class_names, set_names)
    return dealt[rows]


def _class_counts(samples: Divisible, rows: np.ndarray) -> np.ndarray:
    """Samples of each class, (subject, class); `rows` is the row of each sample's subject."""
    counts = np.zeros((rows.max() + 1, len(samples.class_names)))
    np.add.at(counts, (rows, samples.labels.numpy()), 1)
    if np.count_nonzero(counts.sum(axis=0)) < 2:
        raise DataError(
            f"only one class among {len(samples)} samples of {samples.class_names}: a split by label needs two"
        )
    return counts


def _bin_counts(samples: Divisible, rows: np.ndarray, smallest: float) -> np.ndarray:
    """Samples of each subject, in the column of its quantile and, to keep the sets' sizes, in a last column for all.

    `smallest` is the share of the smallest set.
    """
    labels = samples.labels.double().numpy()
    if labels.min() == labels.max():
        raise DataError(
            f"all {len(samples)} samples have the label {labels[0]:g}: a regression needs different ones"
        )
    n_samples = np.bincount(rows)
    rank = (np.bincount(rows, labels) / n_samples).argsort(kind="stable").argsort()
    n_bins = int(np.clip(len(rank) * smallest + 1e-9, 1, MOST_BINS))
    counts = np.zeros((len(rank), n_bins + 1))
    counts[np.arange(len(rank)), rank * n_bins // len(rank)] = n_samples
    counts[:, -1] = n_samples
    return counts


def _deal(counts: np.ndarray, fractions: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Set number of each subject: (subject,) from counts (subject, class) and fractions (set,)."""
    target = np.maximum(fractions[:, None] * counts.sum(axis=0), 1e-9)
    filled = np.zeros_like(target)
    dealt = np.empty(len(counts), dtype=int)
    order = generator.permutation(len(counts))
    for subject in order[np.argsort(-counts[order].max(axis=1), kind="stable")]:
        added = counts[subject]
        change = (added * (added + 2 * filled - 2 * target) / target).sum(axis=1)
        dealt[subject] = change.argmin()
        filled[dealt[subject]] += added
    return dealt


def _check_filled(dealt: np.ndarray, set_names: Sequence[str]) -> None:
    for number, set_name in enumerate(set_names):
        if not (dealt == number).any():
            raise DataError(f"too few subjects: {len(dealt)} leave none for {_the(set_name)}; add subjects")


def _check_classes(
    dealt: np.ndarray, counts: np.ndarray, class_names: tuple[str, ...], set_names: Sequence[str]
) -> None:
    for number, set_name in enumerate(set_names):
        for label in np.flatnonzero(counts.sum(axis=0)):
            if not counts[dealt == number, label].any():
                n_subjects = np.count_nonzero(counts[:, label])
                remedy = f"make {_the(set_name)} larger" if set_name in SPLIT_NAMES else "ask for fewer folds"
                raise DataError(
                    f"too few subjects: {n_subjects} of class {class_names[label]!r} leave none for "
                    f"{_the(set_name)}; add subjects or {remedy}"
                )


def _the(set_name: str) -> str:
    return f"the {set_name} set" if set_name in SPLIT_NAMES else set_name
