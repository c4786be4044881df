import pytest

from xaitools.data.folders import check_folder
from xaitools.errors import DataFileError


def test_a_folder_is_told_from_a_file_and_from_nothing(tmp_path):
    check_folder(tmp_path, "give one")
    path = tmp_path / "table.csv"
    with pytest.raises(DataFileError, match=r"table\.csv: no such folder of masks; give one"):
        check_folder(path, "give one", "folder of masks")
    path.write_text("")
    with pytest.raises(DataFileError, match=r"table\.csv: a file; expected a folder; give one"):
        check_folder(path, "give one")
