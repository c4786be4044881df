"""The viewer in the front ends other than JupyterLab: Notebook 7 and Voila."""

import os
from urllib.parse import urlsplit

import nbformat
import numpy as np
import pytest

from .conftest import Painted, expected_pixels
from .jupyter import RUN_OPENED, serve, serve_dashboards, serve_voila, write_notebook

SOURCE = """
import numpy as np
from IPython.display import display
from ipywidgets import Label
from xaitools.widgets import SliceViewer

images = np.linspace(0, 1, 40).reshape(1, 1, 5, 8)
viewer = SliceViewer(images, {"ramp": 1 - images, "signed": images - 0.5}, threshold=30, opacity=0.5)
label = Label()
viewer.observe(lambda change: setattr(label, "value", f"Python has {change['new']}"), "method")
display(viewer, label)
"""
RAMP = np.linspace(0, 1, 40, dtype=np.float32).reshape(5, 8)
# Each front end says these of its own parts, for a notebook without any widget too.
NOTEBOOK_SAYS = ("Cannot read properties of undefined (reading 'schema')",)
VOILA_SAYS = ("Failed to load resource: net::ERR_FAILED", "Error: The getter for the shared module")


@pytest.fixture
def notebook(tmp_path):
    path = tmp_path / "work" / "viewer.ipynb"
    path.parent.mkdir()
    write_notebook(path, SOURCE)
    return path


@pytest.fixture
def page(browser):
    """A page that reaches loopback and nothing else."""
    browser.page.context.set_offline(False)
    browser.page.route(lambda url: not is_local(url), lambda route: route.abort())
    return browser.page


def is_local(url):
    return urlsplit(url).hostname == "127.0.0.1" or url.startswith(("data:", "blob:"))


def check_that_the_viewer_follows(page, name):
    painted = Painted(page)
    assert painted.root.count() == page.locator(".xai-viewer").count() == 1
    check(painted, 1 - RAMP)
    painted.control("method").select_option("signed")
    check(painted, RAMP - 0.5, signed=True)
    page.get_by_text("Python has signed").wait_for()
    painted.control("method").select_option("ramp")
    check(painted, 1 - RAMP)
    page.get_by_text("Python has ramp").wait_for()
    if folder := os.environ.get("XAITOOLS_SCREENSHOTS"):
        page.screenshot(path=f"{folder}/{name}.png")


def check(painted, values, **state):
    expected = expected_pixels(RAMP, values, opacity=0.5, threshold=30, **state)
    np.testing.assert_allclose(painted.pixels(8, 5), expected, atol=1)


def test_notebook_7_draws_the_viewer_and_python_follows(notebook, tmp_path, browser, page):
    with serve("notebook", tmp_path, notebook.parent) as url:
        page.goto(url + "notebooks/viewer.ipynb")
        page.wait_for_function("window.jupyterapp?.shell.currentWidget?.sessionContext")
        page.evaluate(RUN_OPENED)
        check_that_the_viewer_follows(page, "notebook7")
        assert [error for error in browser.errors if not error.startswith(NOTEBOOK_SAYS)] == []
        assert [address for address in browser.requests if not is_local(address)] == []


def test_voila_draws_the_viewer_and_python_follows(notebook, tmp_path, browser, page):
    with serve_voila(tmp_path, notebook) as url:
        page.goto(url)
        check_that_the_viewer_follows(page, "voila")
        # Voila's own template asks a CDN for its icons, which the page does not reach
        icons = [address for address in browser.requests if not is_local(address)]
        assert all("fontawesome" in address for address in icons)
        assert [error for error in browser.errors if not error.startswith(VOILA_SAYS)] == []


def test_dashboards_list_the_notebooks_and_show_no_code(notebook, tmp_path, page):
    shown = nbformat.read(notebook, as_version=4)
    for tag in ("notebook-only", "exercise", "solution"):
        shown.cells.append(nbformat.v4.new_markdown_cell(f"for {tag}", metadata={"tags": [tag]}))
    shown.cells.append(nbformat.v4.new_markdown_cell("for all"))
    nbformat.write(shown, notebook)
    with serve_dashboards(tmp_path, notebook.parent) as url:
        page.goto(url)
        page.get_by_text("ct_contrast.ipynb").wait_for()
        page.goto(url + "voila/render/viewer.ipynb")
        check(Painted(page), 1 - RAMP)
        text = page.locator("body").inner_text()
        assert "for all" in text
        assert not [tag for tag in ("notebook-only", "exercise", "solution") if f"for {tag}" in text]
        assert "np.linspace" not in text
