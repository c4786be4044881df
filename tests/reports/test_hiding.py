import json

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from xaitools.reports.hiding import hide, parameters_as_run
from xaitools.reports.html import to_html
from xaitools.study.privacy import Private

FOLDER = '/home/Jürgen "JM" Müller\\x'
WIDGETS = "application/vnd.jupyter.widget-state+json"


@pytest.fixture
def executed():
    declared = new_code_cell('data_dir: str = ""  # of images\nn: int = 1')
    declared.metadata["tags"] = ["parameters"]
    injected = new_code_cell("data_dir = " + ascii(FOLDER))
    injected.metadata["tags"] = ["injected-parameters"]
    outputs = [
        new_output("stream", name="stderr", text=f"{FOLDER}/a.py:1: UserWarning: no {FOLDER!r}"),
        new_output(
            "execute_result", data={"text/plain": f"PosixPath({FOLDER!r})", "text/html": f"<p>{FOLDER}</p>"}
        ),
        new_output("display_data", data={"application/json": {"at": [FOLDER, 1.5], FOLDER: True}}),
        new_output("error", ename="E", evalue=FOLDER, traceback=[f"\x1b[31mE\x1b[0m: {FOLDER}"]),
    ]
    node = new_notebook(
        cells=[declared, injected, new_code_cell("x", outputs=outputs), new_markdown_cell(f"in {FOLDER}")],
        metadata={
            "papermill": {
                "input_path": f"{FOLDER}/s.ipynb",
                "output_path": r"C:\Müller\s.ipynb",
                "parameters": {"data_dir": FOLDER},
                "exception": True,
            },
            "widgets": {WIDGETS: {"state": {"1": {"description": FOLDER}}}},
        },
    )
    return json.loads(nbformat.writes(node))


def test_nothing_of_a_path_stays_anywhere_in_the_notebook(executed):
    given = parameters_as_run(executed)
    assert given == {"data_dir": FOLDER, "n": 1}
    hidden = hide(executed, Private(given))
    text = json.dumps(hidden, ensure_ascii=False)
    for part in ("rgen", "ller", "JM"):
        assert part not in text, part
    nbformat.validate(nbformat.from_dict(hidden))
    assert hidden["cells"][1]["source"] == "data_dir = '{data_dir}'"
    assert hidden["metadata"]["papermill"] == {
        "input_path": "s.ipynb", "output_path": "s.ipynb", "parameters": {"data_dir": "{data_dir}"}, "exception": True,
    }  # fmt: skip
    assert hidden["cells"][2]["outputs"][2]["data"] == {
        "application/json": {"at": ["{data_dir}", 1.5], "{data_dir}": True}
    }


def test_the_page_of_a_notebook_that_plain_papermill_ran_names_nobody(executed, tmp_path):
    del executed["cells"][2]["outputs"][2]  # which no page can show
    (tmp_path / "s.ipynb").write_text(json.dumps(executed))
    page = to_html(tmp_path / "s.ipynb", tmp_path / "s.html").read_text()
    for part in ("rgen", "ller"):
        assert part not in page, part
    assert page.count("{data_dir}") > 5


def test_a_notebook_without_a_path_stays_as_it_is(executed):
    executed["cells"] = executed["cells"][:1]
    executed["metadata"] = {}
    assert hide(executed, Private({})) == {
        **executed, "cells": [{**executed["cells"][0], "source": "".join(executed["cells"][0]["source"])}],
    }  # fmt: skip
