import json

import pytest

from xaitools.study.manifest import read_manifest, without_paths, write_manifest


def test_nothing_written_names_the_user_or_the_machine(tmp_path):
    facts = {
        "parameters": {"data_dir": "/home/jane/ct"},
        "weights": "/home/jane/My/w.safetensors",
        "nested": [{"dir": r"C:\Users\jane\ct"}],
        "text": "from /home/jane/a, to b/c",
    }
    write_manifest(tmp_path, facts)
    text = (tmp_path / "manifest.json").read_text()
    assert "jane" not in text
    manifest = json.loads(text)
    assert manifest["parameters"]["data_dir"] == "ct"
    assert manifest["weights"] == "w.safetensors"
    assert manifest["nested"] == [{"dir": "ct"}]
    assert manifest["text"] == "from a, to b/c"


@pytest.mark.parametrize(
    "text",
    [
        "heart/vessels",
        "../data",
        "a/b/c",
        "~/ct",
        "1/2",
        "package.module:factory",
        "{data_dir}/…: no",
        "**/*.nii",
    ],
)
def test_relative_paths_and_other_texts_stay(text):
    assert without_paths(text) == text


def test_facts_of_several_writers_are_merged_until_a_new_run_begins(tmp_path):
    write_manifest(tmp_path, {"status": "running", "data": "abc"})
    write_manifest(tmp_path, {"status": "failed", "error": "ValueError: no", "key": 1})
    manifest = read_manifest(tmp_path)
    assert manifest.pop("updated") > "2020"
    assert manifest == {"status": "failed", "data": "abc", "error": "ValueError: no", "key": 1}
    write_manifest(tmp_path, {"status": "done"})
    assert "error" not in read_manifest(tmp_path)
    write_manifest(tmp_path, {"status": "running"}, fresh=True)
    assert set(read_manifest(tmp_path)) == {"status", "updated"}


def test_a_damaged_manifest_counts_as_none_and_a_new_run_replaces_it(tmp_path, caplog):
    write_manifest(tmp_path, {"status": "done"})
    path = tmp_path / "manifest.json"
    path.write_text(path.read_text().replace("done", "dome"))
    assert read_manifest(tmp_path) == {}
    assert f"manifest.json in '{tmp_path.name}' is damaged" in caplog.text
    write_manifest(tmp_path, {"status": "running"}, fresh=True)
    assert read_manifest(tmp_path)["status"] == "running"


def test_a_manifest_of_a_version_without_checksums_is_read(tmp_path):
    (tmp_path / "manifest.json").write_text('{"status": "done"}')
    assert read_manifest(tmp_path) == {"status": "done"}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/home/FIRST LAST/My Data/ct", "ct"),
        (r"C:\Users\FIRST LAST\My Data\ct", "ct"),
        (r"\\server\FIRST LAST\ct", "ct"),
        ("no file /home/FIRST LAST/My Data/ct, see '/home/FIRST LAST/My Data/log'", "no file ct, see 'log'"),
        (r"in \\server\FIRST LAST\ct: nothing", "in ct: nothing"),
    ],
)
def test_a_blank_or_a_server_does_not_end_the_cut(text, shown):
    assert without_paths(text) == shown
