import numpy as np
import pytest

from xaitools.data.classes import column_labels, ordered
from xaitools.errors import DataError, ParameterError


@pytest.mark.parametrize(
    "order",
    [
        ("CN", "AD"),
        ("cn", "ad"),
        ("control", "AD"),
        ("Healthy Controls", "FTD"),
        ("healthy_control", "case"),
        ("HC", "COPD"),
        ("Normal", "LBD"),
        ("Non-Patient", "Anything"),
        ("Nondemented", "Demented"),
        ("SMC", "AD"),
        ("Stable", "Dementia"),
        ("x", "case"),
        ("sMCI", "pMCI"),
        ("MCI", "AD"),
        ("CN", "MCI"),
        ("SMC", "MCI"),
        ("NC", "Dementia"),
        ("negative", "positive"),
        ("no", "yes"),
        ("FALSE", "TRUE"),
        ("0", "1"),
        ("0", "AD"),
        ("9", "10"),
        ("1", "2"),
        ("-1", "1"),
        ("F", "M"),
        ("CN", "HC"),
        ("a", "b"),
    ],
)
def test_controls_come_first_and_patients_last(order):
    assert tuple(ordered(order)) == tuple(ordered(order[::-1])) == order
    labels, class_names, _ = column_labels([order[1], order[0], order[1]], None, "table")
    assert class_names == order
    assert labels.tolist() == [1, 0, 1]
    assert column_labels(order, order[::-1], "table")[1] == order[::-1]


AGES = ["24.3", "60", "n/a", "39.9", "40", "", "71"]


@pytest.mark.parametrize(
    ("values", "classes", "rows", "labels", "names"),
    [
        (["M", "F", "M", "n/a"], None, [0, 1, 2], [1, 0, 1], ("F", "M")),
        (["AD", "CN", "MCI", "CN"], ["CN", "AD"], [0, 1, 3], [1, 0, 0], ("CN", "AD")),
        (
            ["AD", "cn", "MCI", "SMC"],
            {"control": ["CN", "SMC"], "patient": "ad"},
            [0, 1, 3],
            [1, 0, 0],
            ("control", "patient"),
        ),
        (AGES, {"young": "< 40", "old": ">=60"}, [0, 1, 3, 6], [0, 1, 0, 1], ("young", "old")),
        (
            AGES,
            {"middle": ">= 39 and <= 60", "other": ["< 39", "> 60"]},
            [0, 1, 3, 4, 6],
            [1, 0, 0, 0, 1],
            ("middle", "other"),
        ),
        (
            ["0", "0.5", "1.0", "nan", "2"],
            {"control": "= 0", "dementia": "> 0"},
            [0, 1, 2, 4],
            [0, 1, 1, 1],
            ("control", "dementia"),
        ),
        (["0.0", "2", "1.0"], ["0", "1"], [0, 2], [0, 1], ("0", "1")),
        (["x < 3", "2"], ["x < 3", "2"], [0, 1], [0, 1], ("x < 3", "2")),
    ],
)
def test_classes_from_values_and_ranges(values, classes, rows, labels, names):
    found, class_names, _ = column_labels(values, classes, "table")
    assert np.flatnonzero(~np.isnan(found)).tolist() == rows
    assert found[rows].tolist() == labels
    assert class_names == names


def test_more_than_two_numbers_are_a_quantity():
    labels, class_names, codes = column_labels(AGES, None, "table")
    np.testing.assert_array_equal(labels, [24.3, 60, np.nan, 39.9, 40, np.nan, 71])
    assert (class_names, codes) == ((), {})


def test_codes_for_missing_are_no_class_and_no_age():
    labels, class_names, codes = column_labels(["CN", "-4", "AD", "-4", "NA"], None, "table")
    assert (class_names, codes) == (("CN", "AD"), {"-4": 2})
    np.testing.assert_array_equal(labels, [0, np.nan, 1, np.nan, np.nan])
    labels, _, codes = column_labels(
        [*AGES, "-9999", "999", "-4"], {"young": "< 40", "old": ">= 60"}, "table"
    )
    np.testing.assert_array_equal(labels[[0, 1, 7, 8, 9]], [0, 1, np.nan, np.nan, np.nan])
    assert codes == {"-4": 1, "-9999": 1, "999": 1}
    assert column_labels([*AGES, "999"], None, "table")[2] == {"999": 1}


def test_values_that_are_asked_for_are_not_missing():
    labels, _, codes = column_labels(["-4", "CN", "unknown"], {"a": "-4.0", "b": ["CN", "Unknown"]}, "table")
    assert (labels.tolist(), codes) == ([0, 1, 1], {})


@pytest.mark.parametrize("cell", ["90+", "39,9", "young"])
def test_a_cell_that_is_no_number_is_in_no_range_and_refused(cell):
    with pytest.raises(DataError, match=rf"table: the values \['{cell.replace('+', '[+]')}'\] among ranges"):
        column_labels([*AGES, cell], {"young": "< 40", "old": ">= 60"}, "table")


@pytest.mark.parametrize(
    ("values", "classes", "error", "message"),
    [
        (["CN", "CN", ""], None, DataError, r"only value is \['CN'\]"),
        (["CN", "AD", "MCI"], None, DataError, r"\['AD', 'CN', 'MCI'\].*classes="),
        (["CN", "AD"], ["CN", "LBD"], DataError, r"no row of the class 'LBD'.*\['AD', 'CN'\]"),
        (["24", "30"], {"young": "< 40", "old": ">= 60"}, DataError, "no row of the class 'old'"),
        (["24", "50"], {"a": "< 40", "b": "> 20"}, DataError, "'24' is in two of the classes"),
        (["24", "50"], {"a": "< 40"}, ParameterError, "at least two"),
        ([str(i) + "x" for i in range(20)], None, DataError, "20 different values"),
    ],
)
def test_impossible_classes_are_refused(values, classes, error, message):
    with pytest.raises(error, match=message):
        column_labels(values, classes, "table")
