"""A Jupyter server on loopback, with folders of its own: for the tests and the benchmark."""

import json
import os
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager

import nbformat

SETTINGS = '{"fetchNews": "false", "checkForUpdates": false}'
RUN_ALL = """async (path) => {
    await jupyterapp.restored;
    const panel = await jupyterapp.commands.execute("docmanager:open", { path });
    await panel.context.ready;
    await panel.sessionContext.ready;
    window.panel = panel;
    jupyterapp.commands.execute("notebook:run-all-cells");
}"""


def write_notebook(path, *sources):
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    notebook = nbformat.v4.new_notebook(cells=cells)
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3"}  # else Lab asks for one
    nbformat.write(notebook, path)


@contextmanager
def serve(app, folder, work):
    """Start the module `app` (jupyterlab, notebook) on the notebooks in `work`; gives its address."""
    env = os.environ | {
        f"JUPYTER_{name}": str(folder / name) for name in ["CONFIG_DIR", "DATA_DIR", "RUNTIME_DIR"]
    }
    env |= {f"JUPYTERLAB_{name}_DIR": str(folder / name) for name in ["SETTINGS", "WORKSPACES"]}
    env |= {"IPYTHONDIR": str(folder / "ipython"), "JUPYTER_PREFER_ENV_PATH": "1"}
    settings = folder / "SETTINGS" / "@jupyterlab" / "apputils-extension"
    settings.mkdir(parents=True)
    (settings / "notification.jupyterlab-settings").write_text(SETTINGS)
    command = [sys.executable, "-m", app, "--no-browser", "--expose-app-in-browser", "--allow-root"]
    command += [
        "--ServerApp.ip=127.0.0.1",
        "--ServerApp.port=0",
        "--IdentityProvider.token=",
        f"--notebook-dir={work}",
    ]
    with (folder / f"{app}.log").open("w") as log:
        server = subprocess.Popen(command, env=env, stdout=log, stderr=log, cwd=work)
    try:
        yield _wait_for_address(folder / "RUNTIME_DIR", server)
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
    raise AssertionError("Jupyter did not start")
