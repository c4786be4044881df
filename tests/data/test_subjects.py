import pytest

from xaitools.data.subjects import (
    check_n_subjects,
    check_spellings,
    check_subject_cells,
    evenly_spaced,
    in_turn,
)
from xaitools.errors import DataError, ParameterError

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


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("A", "a"),
        ("7", "7.0"),
        ("7", "007"),
        ("P07", "p7"),
        ("sub-01", "01"),
        ("Jos\u00e9", "Jose\u0301"),
        ("A", "A "),
        ("0", "00"),
    ],
)
def test_one_person_in_two_spellings_is_refused(first, second):
    check_spellings([first, first, "B"], ["x", "y", "z"], "table")
    with pytest.raises(
        DataError, match=r"table: the subjects of x and z are written in two ways.*one if they are"
    ):
        check_spellings([first, "B", second], ["x", "y", "z"], "table")


def test_different_persons_are_no_spellings_of_one():
    ids = ["1", "10", "100", "1.5", "A1", "A-1", "B1", "1A", "2.1", "OAS1_0001", "OAS1_0010", "", "0"]
    check_spellings(ids, ids, "table")


@pytest.mark.parametrize("cell", ["", "n/a", "-4", "NaN"])
def test_a_row_without_a_subject_is_refused(cell):
    check_subject_cells(["A", "0", "999"], "table")
    with pytest.raises(
        DataError, match=r"table: no subject in row 2 below the header \(1 of 3 rows\).*Fill in"
    ):
        check_subject_cells(["A", cell, "B"], "table")
