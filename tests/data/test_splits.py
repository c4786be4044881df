from dataclasses import dataclass

import numpy as np
import pytest
import torch
from scipy.stats import ks_2samp

from xaitools.data.samples import Samples
from xaitools.data.splits import check_disjoint, cross_validation, folds, k_folds, split
from xaitools.data.subjects import study_names
from xaitools.errors import DataError, ParameterError


def make(patients, labels):
    subjects, names = study_names([f"{patient:04d}" for patient in patients])
    images = torch.linspace(0, 1, len(labels)).reshape(-1, 1, 1, 1).repeat(1, 1, 2, 2)
    return Samples(images, torch.tensor(labels), subjects, names, ("no contrast", "contrast"))


def small_set(seed):
    """66 slices of about 40 patients, some with several slices and both classes."""
    rng = np.random.default_rng(seed)
    return make(
        rng.permutation(np.r_[np.arange(40), rng.integers(0, 40, 26)]), rng.permutation([0, 1] * 33).tolist()
    )


def measured(seed, n_subjects=60, n=76):
    """A regression: a skewed quantity, some subjects with several samples."""
    rng = np.random.default_rng(seed)
    patients = np.r_[np.arange(n_subjects), rng.integers(0, n_subjects, n - n_subjects)]
    size = rng.gamma(3, 100, n_subjects)
    subjects, names = study_names([f"{patient:04d}" for patient in patients])
    labels = torch.tensor(size[patients] * rng.normal(1, 0.02, n), dtype=torch.float32)
    return Samples(torch.zeros(n, 1, 2, 2), labels, subjects, names, unit="px")


@dataclass
class Lazy:
    """Not Samples: only what can be divided."""

    labels: torch.Tensor
    subjects: tuple[str, ...]
    class_names: tuple[str, ...]

    def __len__(self):
        return len(self.subjects)

    def __getitem__(self, index):
        chosen = np.flatnonzero(index)
        return Lazy(self.labels[chosen], tuple(self.subjects[k] for k in chosen), self.class_names)


@pytest.mark.parametrize("seed", range(20))
def test_every_sample_once_no_subject_twice_and_both_classes_everywhere(seed):
    samples = small_set(seed)
    parts = split(samples, seed=seed)
    assert sorted(name for part in parts for name in part.names) == sorted(samples.names)
    subjects = [set(part.subjects) for part in parts]
    assert sum(map(len, subjects)) == len(set.union(*subjects))
    for part, fraction in zip(parts, (0.7, 0.15, 0.15), strict=True):
        assert abs(len(part) - 66 * fraction) <= 2
        assert abs(part.labels.float().mean() - 0.5) <= 0.15


def test_the_seed_decides():
    samples = small_set(0)
    assert [part.names for part in split(samples, seed=1)] == [part.names for part in split(samples, seed=1)]
    assert split(samples, seed=1)[2].names != split(samples, seed=2)[2].names


def test_one_class_only_is_refused():
    with pytest.raises(DataError, match="only one class"):
        split(make(range(10), [1] * 10), seed=0)


def test_too_few_subjects_are_refused():
    with pytest.raises(DataError, match=r"too few subjects.*2 of class 'contrast'"):
        split(make(range(12), [0] * 10 + [1] * 2), seed=0)


@pytest.mark.parametrize("fractions", [(0.5, 0.5), (0.7, 0.3, 0.0), (0.7, 0.2, 0.2)])
def test_impossible_fractions_are_refused(fractions):
    with pytest.raises(ParameterError, match="fractions"):
        split(small_set(0), fractions, seed=0)


def test_a_subject_in_two_sets_is_named():
    samples = make([1, 2, 2, 3], [0, 1, 0, 1])
    with pytest.raises(DataError, match="sub-002 is in both the validation and the test set"):
        check_disjoint(samples[[0]], samples[[1]], samples[[2, 3]])
    check_disjoint(samples[[0]], samples[[1, 2]], samples[[3]])


def test_a_regression_is_divided_by_subject_with_labels_alike():
    distances = []
    for seed in range(20):
        samples = measured(seed)
        parts = split(samples, (0.6, 0.2, 0.2), seed=seed)
        assert sorted(name for part in parts for name in part.names) == sorted(samples.names)
        check_disjoint(*parts)
        for part, fraction in zip(parts, (0.6, 0.2, 0.2), strict=True):
            assert abs(len(part) - 76 * fraction) <= 2
            distances.append(ks_2samp(samples.labels.numpy(), part.labels.numpy()).statistic)
    assert max(distances) < 0.2
    assert (
        np.mean(distances) < 0.11
    )  # 0.15 and up to 0.38 where subjects are dealt without a look at the label


def test_a_few_subjects_are_enough_for_a_regression():
    for n_subjects in range(7, 12):
        assert min(map(len, split(measured(0, n_subjects, n_subjects), seed=0))) >= 1
    assert sorted(map(len, split(measured(0, 10, 10), (0.6, 0.2, 0.2), seed=3))) == [2, 2, 6]


def test_too_few_subjects_for_a_regression_are_refused():
    with pytest.raises(DataError, match=r"too few subjects: 2 leave none for the (validation|test) set"):
        split(measured(0, 2, 5), seed=0)


def test_a_constant_quantity_is_refused():
    samples = measured(0)
    samples.labels.fill_(7)
    with pytest.raises(DataError, match="all 76 samples have the label 7"):
        split(samples, seed=0)


@pytest.mark.parametrize("n_folds", [3, 5, 7])
@pytest.mark.parametrize("samples", [small_set(1), measured(1)], ids=["classes", "regression"])
def test_each_sample_is_in_one_test_and_one_validation_set(samples, n_folds):
    sets = folds(samples, n_folds, seed=0)
    assert len(sets) == n_folds
    for role in (1, 2):
        assert sorted(name for parts in sets for name in parts[role].names) == sorted(samples.names)
    for parts in sets:
        assert sorted(name for part in parts for name in part.names) == sorted(samples.names)
        check_disjoint(*parts)
        for part in parts[1:]:
            assert abs(len(part) - len(samples) / n_folds) <= 3


def test_folds_are_alike():
    samples = measured(2)
    for _, _, test in folds(samples, seed=0):
        assert abs(float((test.labels <= samples.labels.median()).float().mean()) - 0.5) < 0.15
    for parts in folds(small_set(2), seed=0):
        assert all(abs(float(part.labels.float().mean()) - 0.5) <= 0.15 for part in parts)


def test_the_seed_decides_the_folds():
    first, again, other = ([test.names for *_, test in folds(measured(0), seed=seed)] for seed in (1, 1, 2))
    assert first == again != other


def test_impossible_folds_are_refused():
    with pytest.raises(ParameterError, match="n_folds=2; expected at least 3"):
        folds(measured(0), 2, seed=0)
    with pytest.raises(DataError, match="13 folds of 12 subjects"):
        folds(measured(0, 12, 20), 13, seed=0)
    with pytest.raises(DataError, match=r"2 of class 'contrast' leave none for fold \d; .*fewer folds"):
        folds(make(range(12), [0] * 10 + [1] * 2), 3, seed=0)
    assert len(folds(measured(0, 12, 12), 12, seed=0)) == 12


def test_other_collections_are_divided_alike():
    samples = small_set(0)
    lazy = Lazy(samples.labels, samples.subjects, samples.class_names)
    for part, same in zip(split(samples, seed=0), split(lazy, seed=0), strict=True):
        assert isinstance(same, Lazy)
        assert part.subjects == same.subjects


def test_the_division_of_classes_is_the_one_of_earlier_versions():
    digests = [
        sum(k * int(name[4:7]) for k, name in enumerate(part.names)) for part in split(small_set(0), seed=0)
    ]
    assert digests == [21817, 475, 1375]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("n_folds", [2, 5])
def test_folds_of_a_cross_validation_share_one_test_set(seed, n_folds):
    samples = small_set(seed)
    sets, test = cross_validation(samples, n_folds, test=0.25, seed=seed)
    assert len(sets) == n_folds
    validated = [name for _, validation in sets for name in validation.names]
    assert sorted([*validated, *test.names]) == sorted(samples.names)
    for training, validation in sets:
        assert sorted([*training.names, *validation.names, *test.names]) == sorted(samples.names)
        check_disjoint(training, validation, test)
        for part in (training, validation, test):
            assert set(part.labels.tolist()) == {0, 1}
    assert len(test) / len(samples) == pytest.approx(0.25, abs=0.05)


def test_a_cross_validation_is_repeated_by_its_seed():
    sets, test = cross_validation(small_set(0), 3, seed=1)
    again, same = cross_validation(small_set(0), 3, seed=1)
    assert test.names == same.names
    assert [part.names for pair in sets for part in pair] == [part.names for pair in again for part in pair]
    assert cross_validation(small_set(0), 3, seed=2)[1].names != test.names


@pytest.mark.parametrize("options", [{"n_folds": 1}, {"test": 0.0}, {"test": 1.0}])
def test_a_cross_validation_needs_folds_and_a_test_set(options):
    with pytest.raises(ParameterError, match="expected"):
        cross_validation(small_set(0), **options, seed=0)


def test_folds_without_a_test_set_have_each_sample_in_one_validation_set():
    samples = small_set(0)
    sets = k_folds(samples, 3, seed=1)
    assert sorted(name for _, validation in sets for name in validation.names) == sorted(samples.names)
    for training, validation in sets:
        assert not set(training.subjects) & set(validation.subjects)
        assert len(training) + len(validation) == len(samples)
        assert len(set(validation.labels.tolist())) == 2
    assert [own[1].names for own in k_folds(samples, 3, seed=1)] == [own[1].names for own in sets]
    with pytest.raises(ParameterError, match="n_folds=1; expected at least 2"):
        k_folds(samples, 1, seed=0)
