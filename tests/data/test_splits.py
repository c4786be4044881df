import numpy as np
import pytest
import torch

from xaitools.data.samples import Samples, study_names
from xaitools.data.splits import check_disjoint, split
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
