import pytest

from xaitools.data.brain import load_brains
from xaitools.data.ct import load_ct
from xaitools.data.fetal import load_fetal
from xaitools.data.folders import by_name, check_folder, find_files, find_listed, layout_error
from xaitools.errors import DataError, DataFileError


def test_a_folder_is_told_from_a_file_and_from_nothing(tmp_path):
    check_folder(tmp_path, "give one")
    path = tmp_path / "table.csv"
    with pytest.raises(DataFileError, match=r"table\.csv: no such folder of masks; give one"):
        check_folder(path, "give one", "folder of masks")
    path.write_text("")
    with pytest.raises(DataFileError, match=r"table\.csv: a file; expected a folder; give one"):
        check_folder(path, "give one")


@pytest.fixture
def files(tmp_path):
    hidden = (".hidden.nii", "deep/._a.nii", ".git/d.nii", "__MACOSX/e.nii")
    for name in ("b.nii.gz", "deep/a.nii", "deep/b.nii.gz", "c.txt", *hidden):
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    return tmp_path / "images"


def test_files_are_found_sorted_without_hidden_ones(files):
    found = find_files(files, lambda path: ".nii" in path.name)
    assert [path.relative_to(files).as_posix() for path in found] == [
        "b.nii.gz",
        "deep/a.nii",
        "deep/b.nii.gz",
    ]
    assert find_files(files, lambda path: True, "*.txt") == [files / "c.txt"]


@pytest.mark.parametrize(
    ("cell", "place"),
    [
        ("deep/b.nii.gz", "deep/b.nii.gz"),
        ("deep\\b.nii.gz", "deep/b.nii.gz"),
        ("b.nii.gz", "b.nii.gz"),
        ("a", "deep/a.nii"),
        ("a.nii", "deep/a.nii"),
        ("..\\elsewhere\\a.nii", "deep/a.nii"),
        ("deep", "deep"),
    ],
)
def test_a_cell_names_a_file_by_its_place_or_its_name(files, cell, place):
    named = by_name(find_files(files, lambda path: ".nii" in path.name))
    assert find_listed(cell, files, named, "the table") == files / place


def test_a_cell_that_names_no_file_or_several_is_refused(files):
    named = by_name(find_files(files, lambda path: True))
    with pytest.raises(DataError, match=r"the table: its file fits 2 files in .*images; .*List paths below"):
        find_listed("b", files, named, "the table")
    for cell in ("d.nii", ""):
        with pytest.raises(
            DataFileError, match=r"the table: no image of that name in .*images; .*Add the file"
        ):
            find_listed(cell, files, named, "the table")


def test_names_in_two_forms_of_unicode_are_one(tmp_path):
    (tmp_path / "deep").mkdir()
    path = tmp_path / "deep" / "Jose\u0301.nii"
    path.write_text("")
    named = by_name([path], tmp_path)
    for cell in ("Jos\u00e9", "Jos\u00e9.nii", "deep/Jos\u00e9.nii", "deep\\Jose\u0301.nii"):
        assert find_listed(cell, tmp_path, named, "the table") == path


LOADERS = {
    "ct": (load_ct, {}, r"no DICOM, .*\(1\) DICOM files .*\(2\) NIfTI .*\(3\) SIIM's"),
    "brains": (
        load_brains,
        {"label_column": "x"},
        r"no NIfTI file .*\(1\) CAPS, .*\(2\) BIDS, .*\(3\) a flat",
    ),
    "fetal": (load_fetal, {}, r"no table training_set.*\(1\) training_set.*\(2\) \*_HC\.png"),
}


@pytest.mark.parametrize("loader", LOADERS)
def test_a_layout_that_is_not_known_is_told_with_what_is_there_instead(loader, tmp_path):
    load, arguments, looked_for = LOADERS[loader]
    with pytest.raises(DataFileError, match=rf"{looked_for}.*\. Found instead: no file\. [A-Z]"):
        load(tmp_path, progress=False, **arguments)
    for name in ("a.JPG", "deep/b.jpg", "deep/c.txt", "deep/1.2.840.113", ".d.jpg", "e.Mustermann-Erika"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    with pytest.raises(
        DataFileError, match=rf"{looked_for}.*: 2 \.jpg, 2 without an ending, 1 \.txt, in 2 folders\. [A-Z]"
    ):
        load(tmp_path, progress=False, **arguments)


def test_rare_endings_are_counted_together(tmp_path):
    for number in range(12):
        (tmp_path / f"a.x{number}").write_text("")
    (tmp_path / "b.nii.gz").write_text("")
    (tmp_path / "c.nii.gz").write_text("")
    message = str(layout_error(tmp_path, "no image", ["one"], "Give another"))
    assert "no image in it; expected (1) one. Found instead: 2 .nii.gz, 1 .x" in message
    assert message.endswith(", 5 with other endings, in 1 folder. Give another")
