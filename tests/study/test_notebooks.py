import json
import subprocess
import sys

import pytest

from xaitools.errors import ParameterError
from xaitools.study.notebooks import (
    find_notebook,
    notebooks_dir,
    parse_parameters,
    read_from,
    read_parameters,
    run_parameters,
    studies,
)


def test_parameters_have_name_type_default_and_comment(notebooks):
    parameters = read_parameters(notebooks / "tiny.ipynb")
    assert list(parameters) == ["seed", "factor", "methods", "data_dir", "limit", "preset", "output_dir"]
    assert parameters["seed"].types == ("int",)
    assert parameters["seed"].help == "of every random draw"
    assert parameters["methods"].default == ["gradient", "integrated_gradients[black]"]
    assert parameters["limit"].types == ("int", "None")


def test_an_equals_sign_in_a_comment_or_a_text_hides_nothing():
    found = parse_parameters('data_dir: str = ""  # empty = synthetic\nname: list[str] = ["a=b"]\nplain = 3')
    assert {name: parameter.default for name, parameter in found.items()} == {
        "data_dir": "",
        "name": ["a=b"],
        "plain": 3,
    }
    assert found["data_dir"].help == "empty = synthetic"
    assert found["name"].types == ("list",)


def test_an_unknown_study_or_file_is_refused(tmp_path):
    with pytest.raises(ParameterError, match=r"study 'nothing' is unknown; expected one of .*ct_contrast"):
        find_notebook("nothing")
    with pytest.raises(ParameterError, match=r"no notebook .*nothing\.ipynb"):
        find_notebook(tmp_path / "nothing.ipynb")


def test_a_notebook_without_its_parameters_tag_is_refused(notebooks, tmp_path):
    untagged = tmp_path / "untagged.ipynb"
    untagged.write_text((notebooks / "tiny.ipynb").read_text().replace('"parameters"', '"other"'))
    with pytest.raises(ParameterError, match=r"untagged\.ipynb has no cell tagged 'parameters'"):
        read_parameters(untagged)


@pytest.mark.parametrize(
    "text",
    ["", "no JSON", "[]", "{}", '{"worksheets": []}', '{"cells": [{}]}', '{"cells": [3]}', '{"cells": null}'],
)
def test_a_file_that_is_no_notebook_is_refused(tmp_path, text):
    (tmp_path / "file.ipynb").write_text(text)
    with pytest.raises(ParameterError, match=r"file\.ipynb is no notebook of Jupyter's format 4"):
        read_parameters(tmp_path / "file.ipynb")


def test_a_source_is_read_in_lines_or_in_one(tmp_path):
    for source in ("a: int = 1\nb: int = 2", ["a: int = 1\n", "b: int = 2"]):
        cells = [{"source": "x", "metadata": {}}, {"source": source, "metadata": {"tags": ["parameters"]}}]
        (tmp_path / "file.ipynb").write_text(json.dumps({"cells": cells}))
        found = read_parameters(tmp_path / "file.ipynb")
        assert {name: parameter.default for name, parameter in found.items()} == {"a": 1, "b": 2}


def test_a_kernel_that_reads_its_parameters_does_not_load_nbformat():
    check = (
        "import sys; from xaitools.study.notebooks import find_notebook, read_parameters; "
        "read_parameters(find_notebook('ct_contrast')); sys.exit('nbformat' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


@pytest.mark.parametrize("computed", ["seed + 1", "("])
def test_a_parameters_cell_that_computes_is_refused(notebooks, tmp_path, computed):
    changed = tmp_path / "changed.ipynb"
    changed.write_text(
        (notebooks / "tiny.ipynb").read_text().replace("seed: int = 0 ", f"seed: int = {computed} ")
    )
    with pytest.raises(ParameterError, match=r"the parameters cell of changed\.ipynb is not plain"):
        read_parameters(changed)


def test_studies_are_the_notebooks_of_the_checkout():
    assert studies() == sorted(path.stem for path in notebooks_dir().glob("*.ipynb"))
    assert (notebooks_dir().parent / "pyproject.toml").exists()


PARAMETERS = 'seed: int = 0\nlimit: int = 3\noutput_dir: str = "out"'
SET = {"seed": 5, "limit": 3, "output_dir": "there", "extra": 1, "other": object()}


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        ([PARAMETERS], ["seed", "limit", "output_dir"]),
        (["%magic is no Python", "import os", PARAMETERS, PARAMETERS], ["seed", "limit", "output_dir"]),
        ([PARAMETERS, '# Parameters\nseed = 5\noutput_dir = "there"'], ["seed", "limit", "output_dir"]),
        ([PARAMETERS, PARAMETERS.replace("limit", "extra")], ["seed", "extra", "output_dir"]),
        ([PARAMETERS + "\nextra = 5 * 2", "other = 1"], ["seed", "limit", "output_dir", "extra"]),
        (['seed = 0\noutput_dir = "out"', 'output_dir = "there"'], ["seed", "output_dir"]),
    ],
    ids=["once", "twice", "papermill", "edited", "computed", "untyped"],
)
def test_the_parameters_of_a_run_are_those_of_the_cell_that_ran(cells, expected):
    found = run_parameters("no such study", {"In": ["", *cells], **SET})
    assert found == {name: SET[name] for name in expected}
    assert list(found) == expected


def test_without_ipython_they_are_those_of_the_study_that_are_set():
    assert run_parameters("ct_contrast", {"seed": 1, "output_dir": "out", "other": 2}) == {
        "output_dir": "out",
        "seed": 1,
    }
    with pytest.raises(ParameterError, match="output_dir is not set"):
        run_parameters("ct_contrast", {"seed": 1})
    with pytest.raises(ParameterError, match="study 'nothing' is unknown"):
        run_parameters("nothing", {"In": ["", "seed = 1"], "seed": 1})


def test_links_of_a_notebook_lead_to_the_same_files_from_another_folder(tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "glossary.md").write_text("# Glossary")
    notebook = tmp_path / "notebooks" / "lessons" / "a.ipynb"
    notebook.parent.mkdir(parents=True)
    notebook.write_text(
        "See the [glossary](../../docs/glossary.md#mask), [more](../../docs/gone.md), [web](https://a.b/c)."
    )
    copy = read_from(notebook, tmp_path / "mine")
    assert copy == "See the [glossary](../docs/glossary.md#mask), more, [web](https://a.b/c)."
    assert read_from(notebook, notebook.parent) == notebook.read_text().replace(
        "[more](../../docs/gone.md)", "more"
    )


@pytest.mark.parametrize("notebook", sorted(notebooks_dir().rglob("*.ipynb")), ids=lambda path: path.stem)
def test_every_shipped_notebook_leads_to_the_glossary(notebook):
    assert "[glossary](" in read_from(notebook, notebook.parent)
