"""The box in front of a report, and what of a notebook its report leaves out."""

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from xaitools.reports.front import facts, warnings_of
from xaitools.reports.html import to_html

MANIFEST = {
    "started": "2026-11-26T15:53:30+00:00",
    "updated": "2026-11-26T16:56:33+00:00",
    "versions": {"xaitools": "1.2.3", "torch": "2"},
    "parameters": {"preset": "quick", "seed": 0},
    "device": "cpu",
    "data": "aafed61c33423c07",
    "data_info": {"source": "CT labelled by a table"},
}


def said(text):
    return new_output("execute_result", data={"text/markdown": text, "text/plain": "Markdown"})


def chatter(text):
    return new_output("stream", name="stderr", text=text)


@pytest.fixture
def page(tmp_path):
    def write(*cells, manifest=None):
        nbformat.write(new_notebook(cells=list(cells)), tmp_path / "study.ipynb")
        return to_html(tmp_path / "study.ipynb", tmp_path / "study.html", manifest=manifest)

    return write


def test_the_answer_and_the_run_stand_in_front(page, browser):
    cells = [
        new_markdown_cell("# The study\n\nWhy it is done."),
        new_code_cell("a", outputs=[said("**In short.** An early word.")]),
        new_code_cell("b", outputs=[said("**In short.** The network is *right*: <b>a</b> & b.")]),
    ]
    opened = browser.open(page(*cells, manifest=MANIFEST))
    texts = opened.locator("h1, .front .answer p, .front dt, .front dd, section.text p").all_inner_texts()
    assert [text.strip() for text in texts] == [
        "The study", "The network is right: a & b.",
        "Date", "2026-11-26 15:53 UTC", "Version", "xaitools 1.2.3", "Preset", "quick",
        "Data", "CT labelled by a table (fingerprint aafed61c)", "Device", "cpu",
        "Duration", "1 h 3 min", "Warnings", "none", "Why it is done.",
    ]  # fmt: skip
    assert opened.get_by_text("The network is").count() == 1, "not once more where the notebook says it"
    assert browser.errors == []


@pytest.mark.parametrize(
    ("end", "expected"), [("15:53:35", "5 s"), ("15:55:53", "2 min 23 s"), ("17:53:30", "2 h 0 min")]
)
def test_a_duration_is_readable(end, expected):
    manifest = {**MANIFEST, "updated": f"2026-11-26T{end}+00:00"}
    assert dict(facts(manifest, new_notebook()))["Duration"] == expected


def test_each_warning_is_told_once_and_progress_is_none():
    texts = [
        "\rtraining: 3/3",
        "/lib/x.py:3: UserWarning: few images\n  x()",
        "UserWarning: few images",
        "done",
    ]
    node = new_notebook(cells=[new_code_cell("x", outputs=[chatter(text) for text in texts])])
    assert warnings_of(node) == ["few images"]
    assert dict(facts(MANIFEST, node))["Warnings"] == "1: few images"


def test_without_an_answer_and_a_manifest_there_is_no_box(page):
    assert '<aside class="front">' not in page(new_markdown_cell("# The study")).read_text()
    assert (
        '<aside class="front">' in page(new_code_cell("x"), manifest=MANIFEST).read_text()
    )  # without a title too


def test_cells_for_the_notebook_only_are_left_out(page):
    only = new_markdown_cell("## Your turn\n\nRun it as it is.", metadata={"tags": ["notebook-only"]})
    code = new_code_cell("secret", outputs=[said("a control")], metadata={"tags": ["notebook-only"]})
    text = page(new_markdown_cell("# The study\n\n## One\n\n## Two"), only, code).read_text()
    for word in ("Your turn", "as it is", "secret", "a control"):
        assert word not in text
    assert "#Two" in text
