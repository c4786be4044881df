import os

import numpy as np
import pytest
from skimage.draw import polygon2mask

from .conftest import Painted, expected_pixels
from .jupyter import RUN_ALL, serve, write_notebook

SOURCE = """
import time
import numpy as np
import torch
from IPython.display import display
from xaitools.widgets import Explorer, MaskEditor

images = torch.linspace(0, 1, 48).reshape(1, 1, 6, 8)

def compute(method, tell):
    if method == "bad":
        raise ValueError("no such thing")
    for step in range(2000 if method == "slow" else 1):
        tell(step, 2000)
        time.sleep(0.02)
    return 1 - images

editor = MaskEditor(images, {"ramp": images})
editor.observe(lambda change: np.save("masks.npy", editor.masks), "drawing")
display(editor)
display(Explorer(compute, images, ["bad", "slow", "quick"]))
"""
CORNERS = [(1.2, 1.1), (6.7, 1.3), (4.1, 4.8)]


@pytest.fixture
def notebook(browser, tmp_path):
    """A notebook with the widgets that runs in JupyterLab; gives the page and the notebook's folder."""
    work = tmp_path / "work"
    work.mkdir()
    write_notebook(work / "tools.ipynb", SOURCE)
    with serve("jupyterlab", tmp_path, work) as url:
        browser.page.set_viewport_size({"width": 1280, "height": 1900})
        browser.page.context.set_offline(False)
        browser.page.goto(url + "lab")
        browser.page.wait_for_function("window.jupyterapp")
        browser.page.evaluate(RUN_ALL, "tools.ipynb")
        yield browser.page, work
    assert browser.errors == []
    outside = [address for address in browser.requests if not address.startswith((url, "data:", "blob:"))]
    assert outside == []


def test_jupyterlab_draws_and_computes_on_demand(notebook):
    page, work = notebook
    root = page.locator(".jp-OutputArea").first
    root.get_by_text("bad: failed. ValueError: no such thing").wait_for()
    choice, cancel = root.locator(".widget-dropdown select"), root.get_by_role("button", name="Cancel")
    choice.select_option("slow")
    root.get_by_text("of 2000").wait_for()
    take_screenshot(page, "explore_running")
    cancel.click()
    root.get_by_text("slow: cancelled").wait_for()
    choice.select_option("quick")
    root.locator(".xai-viewer:not(.xai-editor) [data-control=method]", has_text="quick").wait_for()
    painted = Painted(page, 1)
    ramp = np.linspace(0, 1, 48, dtype=np.float32).reshape(6, 8)
    expected = expected_pixels(ramp, 1 - ramp, opacity=0.6, threshold=10)
    np.testing.assert_allclose(painted.pixels(8, 6), expected, atol=1)

    box = root.locator(".xai-editor canvas").bounding_box()
    for column, row in CORNERS:
        page.mouse.click(box["x"] + column / 8 * box["width"], box["y"] + row / 6 * box["height"])
    page.keyboard.press("Enter")
    scores = root.locator(".xai-scores tbody tr", has_text="0.")
    scores.wait_for()
    expected = polygon2mask((6, 8), [(row - 0.5, column - 0.5) for column, row in CORNERS])
    np.testing.assert_array_equal(np.load(work / "masks.npy")[0, 0], expected)
    page.keyboard.press("x")  # the editor's key, not JupyterLab's, which would cut the cell
    root.get_by_text("Nothing is drawn on this image yet").wait_for()
    page.keyboard.press("z")
    root.get_by_text(f"{expected.sum()} of 48 pixels").wait_for()
    take_screenshot(page, "tools")


def take_screenshot(page, name):
    if folder := os.environ.get("XAITOOLS_SCREENSHOTS"):
        page.screenshot(path=f"{folder}/{name}.png")
