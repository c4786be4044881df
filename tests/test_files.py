import pytest

from xaitools.files import write_csv, write_text


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path):
    path = write_text(tmp_path / "a.csv", "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "new \ud800")
    assert [file.name for file in tmp_path.iterdir()] == ["a.csv"]
    assert path.read_text() == "old"


def test_a_table_is_written_as_read_csv_reads_it(tmp_path):
    path = write_csv(tmp_path / "new" / "t.csv", ("a", "b"), [{"a": 'x,"y"', "b": 1}, {"a": "", "b": 0.5}])
    assert path.read_bytes() == b'a,b\n"x,""y""",1\n,0.5\n'
