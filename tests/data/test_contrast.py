import pytest

from xaitools.data.contrast import read_label_table
from xaitools.errors import DataError, DataFileError


@pytest.fixture
def table(tmp_path):
    def write(text):
        path = tmp_path / "labels.csv"
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.mark.parametrize(
    ("without", "with_agent"),
    [("False", "True"), ("0", "1"), ("0.0", "1.0"), ("no", "YES"), ("no contrast", " Contrast "), ("n", "y")],
)
def test_usual_spellings_are_understood(table, without, with_agent):
    path = table(f"file,Contrast\na.dcm,{with_agent}\nb.dcm,{without}\n")
    read = read_label_table(path, "", "", "")
    assert read.labels == [1, 0]
    assert read.files == ["a.dcm", "b.dcm"]
    assert read.subjects is None


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_separators_and_named_columns(table, separator):
    rows = [("who", "what", "scan"), ("7", "1", "a"), ("8", "0", "b")]
    path = table("\ufeff" + "\r\n".join(separator.join(row) for row in rows))
    read = read_label_table(path, "what", "scan", "who")
    assert (read.labels, read.files, read.subjects) == ([1, 0], ["a", "b"], ["7", "8"])


@pytest.mark.parametrize(
    ("text", "columns", "message"),
    [
        ("file,contrast\na,maybe\nb,1\n", ("", "", ""), r"'contrast'.*\['1', 'maybe'\].*expected"),
        ("file,contrast\na,None\nb,1\n", ("", "", ""), r"'contrast'.*\['1', 'None'\].*expected"),
        ("file,contrast\na,1\n", ("agent", "", ""), r"no column 'agent'.*'file', 'contrast'"),
        ("file,contrast\na,1\n", ("", "", "patient"), "no column 'patient'"),
        ("file,age\na,1\n", ("", "", ""), "no label column.*rename it to label.*label_column"),
        (
            "age,contrast\n3,1\n",
            ("", "", ""),
            "no column of files or subjects.*rename one to file.*file_column=",
        ),
        ("file,contrast\n", ("", "", ""), "no rows"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(table, text, columns, message):
    with pytest.raises(DataError, match=f"labels.csv.*{message}"):
        read_label_table(table(text), *columns)


def test_a_column_of_names_is_not_listed(table):
    path = table("file,name\n" + "".join(f"{i},Doe^John{i}\n" for i in range(11)))
    with pytest.raises(DataError, match="11 different values") as caught:
        read_label_table(path, "name", "", "")
    assert "Doe" not in str(caught.value)


def test_a_missing_table_is_named(tmp_path):
    with pytest.raises(DataFileError, match=r"gone\.csv"):
        read_label_table(tmp_path / "gone.csv", "", "", "")
