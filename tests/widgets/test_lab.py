import json
import os
import subprocess
import sys
import time
import urllib.request

import nbformat
import numpy as np
import pytest

from .conftest import Painted, expected_pixels

SOURCE = """
from pathlib import Path
import numpy as np
from xaitools.widgets import SliceViewer

ramp = np.linspace(0, 1, 40).reshape(1, 1, 5, 8)
viewer = SliceViewer(ramp, {"ramp": 1 - ramp, "signed": ramp - 0.5}, threshold=30, opacity=0.5)
viewer.observe(lambda change: Path("seen.txt").write_text(f"{change['name']} {change['new']}"), ["method", "opacity"])
viewer
"""
SETTINGS = '{"fetchNews": "false", "checkForUpdates": false}'


@pytest.fixture
def lab(tmp_path):
    """A JupyterLab on loopback with folders of its own and one notebook; gives its address."""
    folders = ["CONFIG_DIR", "DATA_DIR", "RUNTIME_DIR"]
    env = os.environ | {f"JUPYTER_{name}": str(tmp_path / name) for name in folders}
    env |= {f"JUPYTERLAB_{name}_DIR": str(tmp_path / name) for name in ["SETTINGS", "WORKSPACES"]}
    env |= {"IPYTHONDIR": str(tmp_path / "ipython"), "JUPYTER_PREFER_ENV_PATH": "1"}
    settings = tmp_path / "SETTINGS" / "@jupyterlab" / "apputils-extension"
    settings.mkdir(parents=True)
    (settings / "notification.jupyterlab-settings").write_text(SETTINGS)
    work = tmp_path / "work"
    work.mkdir()
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(SOURCE)])
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3"}  # else Lab asks for one
    nbformat.write(notebook, work / "viewer.ipynb")
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--expose-app-in-browser", "--allow-root"]
    command += [
        "--ServerApp.ip=127.0.0.1",
        "--ServerApp.port=0",
        "--IdentityProvider.token=",
        f"--notebook-dir={work}",
    ]
    with (tmp_path / "lab.log").open("w") as log:
        server = subprocess.Popen(command, env=env, stdout=log, stderr=log, cwd=work)
    try:
        yield _wait_for_address(tmp_path / "RUNTIME_DIR", server), work
    finally:
        server.terminate()
        server.wait(timeout=30)


def _wait_for_address(folder, server, seconds=60):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and server.poll() is None:
        for file in folder.glob("jpserver-*.json"):
            try:
                url = json.loads(file.read_text())["url"]
                urllib.request.urlopen(url + "api", timeout=5).close()
            except (OSError, ValueError):
                continue
            return url
        time.sleep(0.1)
    raise AssertionError("JupyterLab did not start")


def test_jupyterlab_draws_the_widget_and_python_follows_its_controls(lab, browser):
    url, work = lab
    browser.page.context.set_offline(False)
    browser.page.goto(url + "lab")
    browser.page.wait_for_function("window.jupyterapp")
    browser.page.evaluate("""async () => {
        await jupyterapp.restored;
        const panel = await jupyterapp.commands.execute("docmanager:open", { path: "viewer.ipynb" });
        await panel.context.ready;
        await panel.sessionContext.ready;
        await jupyterapp.commands.execute("notebook:run-all-cells");
    }""")
    painted = Painted(browser.page)
    assert painted.root.count() == browser.page.locator(".xai-viewer").count() == 1
    ramp = np.linspace(0, 1, 40, dtype=np.float32).reshape(5, 8)
    expected = expected_pixels(ramp, 1 - ramp, opacity=0.5, threshold=30)
    np.testing.assert_allclose(painted.pixels(8, 5), expected, atol=1)

    painted.control("method").select_option("signed")
    expected = expected_pixels(ramp, ramp - 0.5, opacity=0.5, threshold=30, signed=True)
    np.testing.assert_allclose(painted.pixels(8, 5), expected, atol=1)
    _wait_for_text(work / "seen.txt", "method signed")
    painted.move("opacity", 0.8)
    expected = expected_pixels(ramp, ramp - 0.5, opacity=0.8, threshold=30, signed=True)
    np.testing.assert_allclose(painted.pixels(8, 5), expected, atol=1)
    _wait_for_text(work / "seen.txt", "opacity 0.8")
    if folder := os.environ.get("XAITOOLS_SCREENSHOTS"):
        browser.page.screenshot(path=f"{folder}/lab.png")
    assert browser.errors == []
    assert [address for address in browser.requests if not address.startswith((url, "data:", "blob:"))] == []


def _wait_for_text(file, text, seconds=10):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if file.exists() and file.read_text() == text:
            return
        time.sleep(0.05)
    raise AssertionError(f"Python did not see '{text}'")
