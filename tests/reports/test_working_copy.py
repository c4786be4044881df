import json
import shutil
import subprocess

import pytest

from xaitools.errors import ParameterError
from xaitools.reports import working_copy
from xaitools.reports.working_copy import copy_notebooks, is_changed
from xaitools.study.notebooks import find_notebook, notebooks_dir, read_from, studies


@pytest.fixture
def shipped(notebooks, tmp_path, monkeypatch):
    """A folder of shipped notebooks of its own, with one notebook."""
    folder = tmp_path / "shipped"
    folder.mkdir()
    shutil.copy(notebooks / "tiny.ipynb", folder)
    monkeypatch.setattr(working_copy, "notebooks_dir", lambda: folder)
    return folder / "tiny.ipynb"


def edit(notebook, change):
    content = json.loads(notebook.read_text())
    change(content["cells"])
    notebook.write_text(json.dumps(content))


def of_another_seed(cells):
    cells[1]["source"] = [line.replace("seed: int = 0", "seed: int = 5") for line in cells[1]["source"]]


def as_run(cells):
    cells[1]["execution_count"] = 3
    cells[1]["outputs"] = [{"name": "stdout", "output_type": "stream", "text": ["hello"]}]


def test_all_notebooks_are_copied_once_and_what_was_written_there_stays(tmp_path):
    made = copy_notebooks(tmp_path / "mine")
    assert {copy.name for copy in made} >= {f"{study}.ipynb" for study in studies()}
    assert all(copy.read_text() == read_from(notebooks_dir() / copy.name, copy.parent) for copy in made)
    made[0].write_text("mine")
    made[1].unlink()
    assert copy_notebooks(tmp_path / "mine") == made[1:2]
    assert made[0].read_text() == "mine"


def test_the_shipped_notebooks_are_not_opened_themselves():
    with pytest.raises(ParameterError, match="expected another folder"):
        copy_notebooks(notebooks_dir())


def test_a_change_of_what_runs_is_seen_by_git_and_results_do_not_count(shipped):
    def git(*arguments):
        who = ["-c", "user.name=n", "-c", "user.email=e"]
        subprocess.run(["git", *who, *arguments], cwd=shipped.parent, check=True, capture_output=True)

    git("init")
    git("add", "tiny.ipynb")
    git("commit", "-m", "shipped")
    assert not is_changed(shipped)
    edit(shipped, as_run)
    assert not is_changed(shipped)
    edit(shipped, of_another_seed)
    assert is_changed(shipped)


def test_a_change_of_an_installed_notebook_is_seen(shipped, monkeypatch):
    monkeypatch.setattr(working_copy, "_in_git", lambda notebook: None)
    monkeypatch.setattr(working_copy, "_recorded", lambda notebook: None)
    assert not is_changed(shipped)
    before = working_copy._digest(shipped.read_bytes())
    monkeypatch.setattr(working_copy, "_recorded", lambda notebook: before)
    assert not is_changed(shipped)
    edit(shipped, of_another_seed)
    assert is_changed(shipped)


def test_a_digest_is_as_pip_records_it():
    """Of the empty file, whose SHA-256 anybody can look up."""
    assert working_copy._digest(b"") == "47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU"


def test_of_a_notebook_of_ones_own_there_is_nothing_to_say(notebooks):
    assert not is_changed(notebooks / "tiny.ipynb")
    assert find_notebook("ct_contrast").is_file()
