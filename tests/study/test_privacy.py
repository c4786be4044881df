import json
import sys
from pathlib import Path

import pytest

from xaitools.study.privacy import Private, is_path

NAME = 'Jürgen Müller "JM" & Söhne'


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("data_dir", "Jane Doe", True),
        ("data_dir", "", False),
        ("data_dir", "oasis", False),
        ("masks", "heart-and-vessels", False),
        ("masks", "masks of Jane", True),
        ("atlas", "mni", False),
        ("atlas", "atlas.nii", True),
        ("model", "package.module:factory", False),
        ("model", "resnet18", False),
        ("model", "jane.pt", True),
        ("model", r"C:\Users\Jane\w.pt", True),
        ("network", "resnet10", False),
        ("note", "/home/Jane", True),
        ("note", r"\\server\Jane", True),
        ("note", "~/Jane", True),
        ("note", "young/old", False),
        ("lesion_file", "Jane.csv", True),
    ],
)
def test_what_is_a_path(name, value, expected):
    assert is_path(name, value) is expected


@pytest.mark.parametrize(
    "path", [f"/home/{NAME}/My Data/ct", rf"\\server\{NAME}\ct", rf"C:\{NAME}\ct", f"{NAME}/ct"]
)
def test_a_path_is_cut_as_a_whole_in_every_text(path):
    private = Private({"data_dir": path})
    for text in (path, ascii(path)[1:-1], json.dumps(path)[1:-1]):
        assert private.text(f"a {text}/x, b") == "a {data_dir}/x, b"
    assert private.value({"data_dir": path, "n": [1, path]}) == {
        "data_dir": "{data_dir}",
        "n": [1, "{data_dir}"],
    }


def test_a_relative_path_is_known_in_full_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "real Jane").mkdir()
    (tmp_path / "Jane").symlink_to("real Jane")
    private = Private({"data_dir": "Jane"})
    for path in (tmp_path / "Jane", tmp_path / "real Jane"):
        assert private.text(f"{path}: no") == "{data_dir}: no"
    assert private.text("Jane goes") == "Jane goes"
    assert private.message("Jane: no such folder") == "{data_dir}: no such folder"
    assert private.value({"data_dir": "Jane"}) == {"data_dir": "{data_dir}"}


def test_a_folder_with_a_plain_name_does_not_take_the_word_from_every_text():
    private = Private({"data_dir": "data"})
    assert private.text('run.stage("data")') == 'run.stage("data")'
    assert private.source('data_dir = "data"  # data') == 'data_dir = "{data_dir}"  # data'
    assert private.message("the data are of one class") == "the data are of one class"


def test_the_home_the_current_folder_and_python_are_hidden(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "home", lambda: tmp_path / NAME)
    (tmp_path / NAME).mkdir()
    monkeypatch.chdir(tmp_path / NAME)
    private = Private({"model": f"{tmp_path}/{NAME}/nets of {NAME}/w.pt"})
    assert private.text(f"{Path.cwd()}/a.py, {sys.prefix}/b.py") == "./a.py, python/b.py"
    assert private.text(f"File ~/nets of {NAME}/w.pt") == "File {model}"


def test_several_weights_files_are_hidden_one_by_one():
    private = Private({"model": f"/a/{NAME}/1.pt, nets/2.pt"})
    assert private.text(f"/a/{NAME}/1.pt nets/2.pt") == "{model} {model}"


def test_paths_in_lists_and_mappings_are_hidden():
    private = Private({"sources": {"a": [f"/a/{NAME}"]}, "methods": ["gradient", "a/b"]})
    assert private.text(f"/a/{NAME}: a/b") == "{sources}: a/b"


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / NAME
    folder.mkdir()
    (folder / "Müller^Anna.nii.gz").touch()
    (folder / "sub-007").mkdir()
    (folder / "19630812").mkdir()
    rows = "id;group;name\n" + "".join(
        f"MRN-{4700 + i};{'AD' if i % 2 else 'CN'};Erika {i}\n" for i in range(9)
    )
    (folder / "people.csv").write_text(rows, encoding="cp1252")
    return folder


def test_messages_name_no_file_folder_or_person_of_a_table(folder):
    private = Private({"data_dir": str(folder)})
    said = (
        f"{folder}/Müller^Anna.nii.gz: 'MRN-4703' (Erika 3, Müller^Anna, 19630812) of sub-007 is AD, not CN"
    )
    assert private.message(said) == "{data_dir}/…: '…' (…, …, …) of sub-007 is AD, not CN"
    assert private.message(r"M\xfcller^Anna, Mu\u0308ller^Anna") == "…, …"
    colored = "\x1b[31mDataError\x1b[39m: \x1b[33mMRN-4703\x1b[39m"
    assert private.message(colored) == "DataError: …"
    assert private.message("\x1b[31mnothing\x1b[39m") == "\x1b[31mnothing\x1b[39m"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_a_table_is_read_in_any_encoding(tmp_path, encoding):
    table = tmp_path / "people.tsv"
    table.write_text("id\tlabel\n" + "".join(f"Söhne {i}\t{i % 2}\n" for i in range(8)), encoding=encoding)
    assert Private({"table": str(table)}).message("'Söhne 3' of people.tsv") == "'…' of …"


def test_packed_data_that_spell_a_short_path_by_chance_stay(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "home", lambda: Path("/anna"))
    private = Private({})
    assert private.text("aQ/anna+x /annafs /anna/a '/anna'") == "aQ/anna+x /annafs ~/a '~'"


def test_the_root_folder_hides_nothing(monkeypatch):
    monkeypatch.setattr(Path, "cwd", lambda: Path("/"))
    assert Private({"data_dir": "/"}).text("a/b /c") == "a/b /c"


@pytest.mark.parametrize("value", ["/" + "a" * 5000, "a/\0", "~nobody/x", "a" * 300 + "/b"])
def test_what_no_path_can_be_is_no_error(value):
    assert "nobody" not in Private({"data_dir": value, "other": value}).text(f"in {value}")
