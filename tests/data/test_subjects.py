import pytest

from xaitools.data.subjects import check_n_subjects, evenly_spaced, in_turn
from xaitools.errors import ParameterError

SUBJECTS = ["sub-1", "sub-2", "sub-2", "sub-3", "sub-4", "sub-5"]


@pytest.mark.parametrize(
    ("labels", "n_subjects", "expected"),
    [
        ([0, 0, 1, 0, 1, 1], 2, [0, 4]),
        ([0, 0, 1, 0, 1, 1], 3, [0, 1, 2, 4]),
        ([0, 0, 1, 0, 1, 1], 4, [0, 1, 2, 4, 5]),
        ([1, 0, 0, 0, 0, 0], 3, [0, 1, 2, 3]),
        ([0] * 6, 2, [0, 1, 2]),
        ([2, 0, 0, 1, 0, 0], 3, [0, 1, 2, 3]),
        ([0, 0, 1, 0, 1, 1], None, [0, 1, 2, 3, 4, 5]),
        ([0, 0, 1, 0, 1, 1], 9, [0, 1, 2, 3, 4, 5]),
    ],
)
def test_subjects_are_taken_in_turn_from_each_class(labels, n_subjects, expected):
    assert in_turn(SUBJECTS, labels, n_subjects) == expected


@pytest.mark.parametrize(
    ("n_subjects", "expected"), [(1, [0]), (2, [0, 5]), (3, [0, 3, 5]), (None, [0, 1, 2, 3, 4, 5])]
)
def test_subjects_are_taken_evenly_spaced(n_subjects, expected):
    assert evenly_spaced(SUBJECTS, n_subjects) == expected


def test_too_few_subjects_are_refused():
    check_n_subjects(None, least=2)
    check_n_subjects(2, least=2)
    for number, least, message in [(1, 2, "n_subjects=1; expected at least 2"), (0, 1, "n_subjects=0")]:
        with pytest.raises(ParameterError, match=message):
            check_n_subjects(number, least)
