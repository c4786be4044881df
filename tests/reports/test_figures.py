"""Figures take the width there is: in pages of their own, in reports, on a telephone and on paper."""

import json

import nbformat
import numpy as np
import pandas as pd
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from xaitools import plots
from xaitools.reports.html import to_html

METHODS = [
    "gradient",
    "guided backpropagation",
    "integrated gradients",
    "expected gradients",
    "deconvolution",
]
# What is written in the figures, and where: none may be cut at the page's sides.
TEXTS = """all => all.filter(text => text.textContent.trim() && text.getClientRects().length).map(text => {
    const box = text.getBoundingClientRect();
    return [text.textContent, Math.round(box.left), Math.round(box.right)];
})"""


def curves():
    rows = [
        (network, method, step, step + i, step + i - 1, step + i + 1)
        for network in ("VGG-8", "ResNet-10")
        for i, method in enumerate(METHODS)
        for step in (0, 2, 4)
    ]
    table = pd.DataFrame(rows, columns=["network", "method", "step", "value", "low", "high"])
    return plots.error_plot(
        table, finding="Published: every method but the plain gradient is better than chance."
    )


def regions():
    rows = [(method, f"region {i}", 1.0 + i, 0.5, 2.0 + i) for method in METHODS[:4] for i in range(4)]
    return plots.region_plot(pd.DataFrame(rows, columns=["method", "region", "value", "low", "high"]))


def panel():
    maps = {
        row: {name: np.eye(8) for name in METHODS} for row in ("plain, pixel", "SG, pixel", "plain, region")
    }
    return plots.map_panel(
        np.eye(8), maps, np.eye(8) > 0, title="All maps of one slice, of all the methods there are"
    )


@pytest.fixture(scope="module")
def figures():
    return [panel(), curves(), regions()]


@pytest.fixture
def report(figures, tmp_path):
    """The figures in a report, below parameters, above a table that is wider than paper."""
    kind = "application/vnd.plotly.v1+json"
    parameters = new_code_cell("seed: int = 0  # of every draw")
    parameters.metadata["tags"] = ["parameters"]
    shown = [new_output("display_data", data={kind: json.loads(figure.to_json())}) for figure in figures]
    wide = pd.DataFrame([["a_value_of_many_characters"] * 9]).to_html()
    cells = [new_code_cell("x", outputs=[*shown, new_output("display_data", data={"text/html": wide})])]
    nbformat.write(new_notebook(cells=[parameters, *cells]), tmp_path / "study.ipynb")
    return to_html(tmp_path / "study.ipynb", tmp_path / "study.html")


def cut(page, width):
    return [
        text for text in page.locator(".main-svg text").evaluate_all(TEXTS) if text[1] < 0 or text[2] > width
    ]


@pytest.mark.parametrize("width", [700, 1000, 1400])
def test_a_figure_takes_the_width_of_its_page(figures, width, browser, tmp_path):
    parts = [
        figure.to_html(full_html=False, include_plotlyjs=not i, include_mathjax=False, config=plots.CONFIG)
        for i, figure in enumerate(figures)
    ]
    (tmp_path / "page.html").write_text(
        "<!doctype html><meta charset=utf-8><body>" + "".join(parts), encoding="utf-8"
    )
    browser.page.set_viewport_size({"width": width, "height": 900})
    page = browser.open(tmp_path / "page.html")
    page.wait_for_function("n => document.querySelectorAll('.legend .traces').length >= n", arg=6)
    assert cut(page, width) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert browser.errors == []


def test_on_a_telephone_titles_wrap_legends_stay_and_panels_go_below_each_other(report, browser):
    browser.page.set_viewport_size({"width": 400, "height": 800})
    page = browser.open(report)
    page.wait_for_function("n => document.querySelectorAll('.legend .traces').length >= n", arg=6)
    assert cut(page, 400) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    title = page.locator("figcaption strong").first
    assert title.inner_text() == "All maps of one slice, of all the methods there are"
    assert title.bounding_box()["height"] > 30  # in two lines
    names = page.locator(".plot").nth(1).locator(".legendtext").all_text_contents()
    assert set(names) >= set(METHODS)
    domains = page.evaluate("[...document.querySelectorAll('.plot')][1].layout.xaxis2.domain")
    assert domains[1] - domains[0] > 0.8  # the second panel has the width to itself, below the first
    above, below = page.evaluate(
        "(() => { const { yaxis, yaxis2 } = document.querySelectorAll('.plot')[1].layout; "
        "return [yaxis.domain, yaxis2.domain]; })()"
    )
    assert above[0] > below[1]

    browser.page.set_viewport_size({"width": 1280, "height": 800})
    page.wait_for_function("document.querySelectorAll('.plot')[1].layout.xaxis2.domain[0] > 0.4")
    assert browser.errors == []


def test_on_paper_figures_and_tables_fit_and_parameters_stand_open(report, browser, tmp_path):
    page = browser.open(report)
    page.wait_for_selector(".main-svg")
    page.evaluate("""addEventListener("beforeprint", () => {
        const width = (parts) => [...document.querySelectorAll(parts)].map((own) => own.getBoundingClientRect().width);
        window.seen = { figures: width(".plot .main-svg"), tables: width("table.dataframe"),
            open: document.querySelector("details.parameters").open };
    })""")
    page.pdf(path=tmp_path / "report.pdf", prefer_css_page_size=True)
    assert (tmp_path / "report.pdf").read_bytes().startswith(b"%PDF")
    seen = page.evaluate("window.seen")
    assert 300 < max(seen["figures"]) <= 690
    assert max(seen["tables"]) <= 691
    assert seen["open"]
    page.wait_for_function("!document.querySelector('details.parameters').open")
    assert page.locator("details.parameters ~ .output").count() == 4  # where it stood before
    assert max(page.evaluate("[...document.querySelectorAll('.plot')].map(p => p.clientWidth)")) > 1000
    assert browser.errors == []
