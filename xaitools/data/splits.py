"""Training, validation and test sets that share no subject."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from xaitools.data.samples import Samples
from xaitools.errors import DataError, ParameterError

SPLIT_NAMES = ("training", "validation", "test")


def split(
    samples: Samples, fractions: Sequence[float] = (0.7, 0.15, 0.15), *, seed: int
) -> tuple[Samples, Samples, Samples]:
    """Divide samples into training, validation and test sets by subject, stratified by label.

    All samples of a subject stay together, also when it has samples of several classes. Subjects are dealt
    in random order, those with most samples first, each to the set whose class counts it brings closest to
    their share. scikit-learn's ``StratifiedGroupKFold`` deals in the same way, but into sets of equal size only.

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
        Only one class, or too few subjects for every set to hold every class.
    """
    if len(fractions) != 3 or min(fractions) <= 0 or not np.isclose(sum(fractions), 1):
        raise ParameterError(f"fractions {tuple(fractions)}: expected three positive numbers that sum to 1")
    subjects, counts = _class_counts(samples)
    if np.count_nonzero(counts.sum(axis=0)) < 2:
        raise DataError(
            f"only one class among {len(samples)} samples of {samples.class_names}: a split by label needs two"
        )
    dealt = _deal(counts, np.asarray(fractions), np.random.default_rng(seed))
    _check_classes(dealt, counts, samples.class_names)
    set_of = dict(zip(subjects, dealt, strict=True))
    belongs = np.array([set_of[subject] for subject in samples.subjects])
    training, validation, test = (samples[belongs == number] for number in range(3))
    check_disjoint(training, validation, test)
    return training, validation, test


def check_disjoint(training: Samples, validation: Samples, test: Samples) -> None:
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


def _class_counts(samples: Samples) -> tuple[list[str], np.ndarray]:
    subjects = sorted(set(samples.subjects))
    row = {subject: position for position, subject in enumerate(subjects)}
    counts = np.zeros((len(subjects), len(samples.class_names)))
    for subject, label in zip(samples.subjects, samples.labels.tolist(), strict=True):
        counts[row[subject], label] += 1
    return subjects, counts


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


def _check_classes(dealt: np.ndarray, counts: np.ndarray, class_names: tuple[str, ...]) -> None:
    for number, set_name in enumerate(SPLIT_NAMES):
        for label in np.flatnonzero(counts.sum(axis=0)):
            if not counts[dealt == number, label].any():
                n_subjects = np.count_nonzero(counts[:, label])
                raise DataError(
                    f"too few subjects: {n_subjects} of class {class_names[label]!r} leave none for the "
                    f"{set_name} set; add subjects or make the {set_name} fraction larger"
                )
