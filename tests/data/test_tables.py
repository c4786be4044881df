import pytest

from xaitools.data.tables import find_column, parse_table, plain, read_table, shown_values
from xaitools.errors import DataError, DataFileError


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
    "text",
    [
        "a,b\n1,x y\n2,\n",
        "a;b\n1; x y\n2\n",
        'a\tb\r\n1\t"x y"\r\n2\t\r\n',
        "\na, b ,\n1, x y ,\n\n2,,\n",
        'a b\n1   "x y"\n2\n',
    ],
)
def test_cells_are_divided_by_what_divides_the_header(text):
    table = parse_table(text, "table")
    assert table[["a", "b"]].to_dict("list") == {"a": ["1", "2"], "b": ["x y", ""]}


@pytest.mark.parametrize("text", ["a,b\n1,2,3\n2,3,4\n", "a,b\n1,2\n2,3,4\n", ""])
def test_rows_that_are_longer_than_the_header_are_refused_rather_than_shifted(text):
    with pytest.raises(
        DataFileError, match=r"table: cannot be read as a CSV or TSV table .*Correct or fetch"
    ):
        parse_table(text, "table")


def test_names_of_columns_are_compared_by_their_letters():
    assert plain("Pixel_Size (mm)") == plain("pixel size(mm)") == "pixelsizemm"


def test_many_different_values_may_be_names_and_are_counted_only():
    assert shown_values(["b", "a", "b"]) == "the values ['a', 'b']"
    assert shown_values([f"Doe{i}" for i in range(11)]) == "11 different values"
