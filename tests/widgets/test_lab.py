import os
import time

import numpy as np
import pytest

from .conftest import Painted, expected_pixels
from .jupyter import RUN_ALL, serve, write_notebook

SOURCE = """
from pathlib import Path
import numpy as np
from xaitools.widgets import SliceViewer

ramp = np.linspace(0, 1, 40).reshape(1, 1, 5, 8)
images = np.concatenate([ramp, ramp])
maps = {"ramp": 1 - images, "signed": images - 0.5}
viewer = SliceViewer(images, maps, threshold=30, opacity=0.5)
seen = ["method", "opacity", "image"]
viewer.observe(lambda change: Path("seen.txt").write_text(f"{change['name']} {change['new']}"), seen)
viewer
"""
RAMP = np.linspace(0, 1, 40, dtype=np.float32).reshape(5, 8)


def open_notebook(browser, url, page):
    browser.page.context.set_offline(False)
    browser.page.goto(url + page)
    browser.page.wait_for_function("window.jupyterapp")
    browser.page.evaluate(RUN_ALL, "viewer.ipynb")
    painted = Painted(browser.page)
    assert painted.root.count() == browser.page.locator(".xai-viewer").count() == 1
    return painted


def check(painted, values, **state):
    np.testing.assert_allclose(painted.pixels(8, 5), expected_pixels(RAMP, values, **state), atol=1)


@pytest.fixture
def work(tmp_path):
    folder = tmp_path / "work"
    folder.mkdir()
    write_notebook(folder / "viewer.ipynb", SOURCE)
    return folder


def test_jupyterlab_draws_the_widget_and_python_follows_its_controls(work, tmp_path, browser):
    with serve("jupyterlab", tmp_path, work) as url:
        painted = open_notebook(browser, url, "lab")
        check(painted, 1 - RAMP, opacity=0.5, threshold=30)
        painted.control("method").select_option("signed")
        check(painted, RAMP - 0.5, opacity=0.5, threshold=30, signed=True)
        _wait_for_text(work / "seen.txt", "method signed")
        painted.move("opacity", 0.8)
        check(painted, RAMP - 0.5, opacity=0.8, threshold=30, signed=True)
        _wait_for_text(work / "seen.txt", "opacity 0.8")
        painted.canvas().focus()
        browser.page.keyboard.press("ArrowUp")  # JupyterLab's own key for the cell above
        _wait_for_text(work / "seen.txt", "image 1")
        if folder := os.environ.get("XAITOOLS_SCREENSHOTS"):
            browser.page.screenshot(path=f"{folder}/lab.png")
        assert browser.errors == []

        browser.page.evaluate("panel.sessionContext.shutdown()")
        browser.page.wait_for_function("panel.sessionContext.hasNoKernel")
        painted.move("opacity", 0.3)  # without a kernel the viewer goes on with what it has
        check(painted, RAMP - 0.5, opacity=0.3, threshold=30, signed=True)
        painted.control("method").select_option("ramp")
        check(painted, 1 - RAMP, opacity=0.3, threshold=30)
        # ipywidgets says that nobody listens any more, and nothing else went wrong
        assert all(error.startswith("Could not send widget sync message") for error in browser.errors)
        local = (url, "data:", "blob:")
        assert [address for address in browser.requests if not address.startswith(local)] == []


EXPLORER = """
import time
import numpy as np
from xaitools.widgets import Explorer

def compute(method, tell):
    time.sleep(1)
    return 1 - images

images = np.linspace(0, 1, 40).reshape(1, 1, 5, 8)
explorer = Explorer(compute, images, ["ramp"])
explorer
"""
SAVE_AND_STOP = """async () => {
    await panel.context.save();
    await panel.sessionContext.shutdown();
}"""
EDITOR = """
from xaitools.widgets import MaskEditor

MaskEditor(images)
"""
OPEN = """async () => {
    await jupyterapp.restored;
    const panel = await jupyterapp.commands.execute("docmanager:open", { path: "viewer.ipynb" });
    await panel.context.ready;
}"""


def test_a_notebook_that_is_opened_again_still_shows_its_viewers(tmp_path, browser):
    work = tmp_path / "work"
    work.mkdir()
    write_notebook(work / "viewer.ipynb", SOURCE, EXPLORER, "explorer.wait()", EDITOR)
    page = browser.page
    page.set_viewport_size({"width": 1280, "height": 2600})  # Lab draws only the cells that are seen
    with serve("jupyterlab", tmp_path, work) as url:
        page.context.set_offline(False)
        page.goto(url + "lab")
        page.wait_for_function("window.jupyterapp")
        page.evaluate(RUN_ALL, "viewer.ipynb")
        page.locator(".xai-editor").wait_for(timeout=120_000)
        page.locator(".xai-viewer [data-control=method]", has_text="ramp").nth(1).wait_for()
        page.wait_for_timeout(4000)  # longer than a saved viewer waits for the one with a kernel
        assert page.locator(".xai-viewer").count() == 3
        assert page.locator(".xai-saved:visible").count() == 0
        page.evaluate(SAVE_AND_STOP)
        page.goto(url + "lab?reset")
        page.wait_for_function("window.jupyterapp")
        page.evaluate(OPEN)
        page.locator(".xai-saved .xai-viewer").nth(1).wait_for()
        painted = Painted(page)
        check(painted, 1 - RAMP, opacity=0.5, threshold=30)
        painted.control("method").select_option("signed")
        check(painted, RAMP - 0.5, opacity=0.5, threshold=30, signed=True)
        check(Painted(page, 1), 1 - RAMP, opacity=0.6, threshold=10)
        page.get_by_text("The mask editor needs a running kernel").wait_for()
        for error in page.get_by_text("Error displaying widget").all():
            assert not error.is_visible()
        if folder := os.environ.get("XAITOOLS_SCREENSHOTS"):
            page.screenshot(path=f"{folder}/lab_reopened.png")


def _wait_for_text(file, text, seconds=10):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if file.exists() and file.read_text() == text:
            return
        time.sleep(0.05)
    raise AssertionError(f"Python did not see '{text}'")
