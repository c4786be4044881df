import pytest
import torch

from xaitools.data.participants import find_column, ordered, read_table, read_target
from xaitools.errors import DataError, DataFileError, ParameterError


def test_tables_are_read_as_text_whatever_their_delimiter(tmp_path):
    for name, text in (("a.csv", "id;sex\n01; M \n02;F\n"), ("b.tsv", "\ufeffid\tsex\n01\tM\n02\tF\n")):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        assert read_table(path).to_dict("list") == {"id": ["01", "02"], "sex": ["M", "F"]}


@pytest.mark.parametrize(
    ("content", "error"), [(b"", DataFileError), (b"id,sex\n", DataError), (b"\xff\xfe,\n", DataFileError)]
)
def test_files_that_are_no_tables_are_refused(tmp_path, content, error):
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    with pytest.raises(error, match=r"a\.csv"):
        read_table(path)
    with pytest.raises(DataFileError, match=r"gone\.csv"):
        read_table(tmp_path / "gone.csv")


def test_columns_are_found_case_aside(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("MRID,Age,age\n1,2,3\n")
    table = read_table(path)
    assert find_column(table, "", ("participant_id", "mrid"), path) == "MRID"
    assert find_column(table, "age", (), path) == "age"
    assert find_column(table, "AGE", (), path) == "Age"
    assert find_column(table, "", ("session",), path) is None
    with pytest.raises(DataError, match=r"no column 'dx'; its columns are \['MRID', 'Age', 'age'\]"):
        find_column(table, "dx", (), path)


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
    target = read_target([order[1], order[0], order[1]], None, "table")
    assert target.class_names == order
    assert target.labels.tolist() == [1, 0, 1]
    assert read_target(order, order[::-1], "table").class_names == order[::-1]


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
    target = read_target(values, classes, "table")
    assert target.rows.tolist() == rows
    assert target.labels.tolist() == labels
    assert target.labels.dtype == torch.int64
    assert target.class_names == names


def test_more_than_two_numbers_are_a_quantity():
    target = read_target(AGES, None, "table")
    assert target.rows.tolist() == [0, 1, 3, 4, 6]
    torch.testing.assert_close(target.labels, torch.tensor([24.3, 60, 39.9, 40, 71]))
    assert target.class_names == ()


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
        read_target(values, classes, "table")
