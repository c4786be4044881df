"""A Jupyter server on loopback, with folders of its own: for the tests and the benchmark."""

import json
import os
import socket
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
RUN_OPENED = """async () => {
    const panel = jupyterapp.shell.currentWidget;
    await panel.context.ready;
    await panel.sessionContext.ready;
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
    settings = folder / "SETTINGS" / "@jupyterlab" / "apputils-extension"
    settings.mkdir(parents=True)
    (settings / "notification.jupyterlab-settings").write_text(SETTINGS)
    command = [app, "--no-browser", "--expose-app-in-browser", "--allow-root"]
    command += [
        "--ServerApp.ip=127.0.0.1",
        "--ServerApp.port=0",
        "--IdentityProvider.token=",
        f"--notebook-dir={work}",
    ]
    with _start(command, folder, work) as server:
        yield _wait_for(lambda: _address(folder / "RUNTIME_DIR"), server)


@contextmanager
def serve_voila(folder, notebook):
    """Start Voila on one notebook, which runs anew for whoever opens the address that this gives."""
    with _serve_voila(["voila", notebook.name], folder, notebook.parent) as url:
        yield url


@contextmanager
def serve_dashboards(folder, work):
    """Start `xaitools lab --voila` on a folder; gives the address of its list of notebooks."""
    with _serve_voila(["xaitools", "lab", "--voila", str(work)], folder, work) as url:
        yield url


@contextmanager
def _serve_voila(command, folder, work):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command += ["--no-browser", f"--port={port}", "--Voila.ip=127.0.0.1", "--ServerApp.ip=127.0.0.1"]
    with _start(command, folder, work) as server:
        _wait_for(lambda: _listens(port), server)
        yield f"http://127.0.0.1:{port}/"


@contextmanager
def _start(command, folder, work):
    env = os.environ | {
        f"JUPYTER_{name}": str(folder / name) for name in ["CONFIG_DIR", "DATA_DIR", "RUNTIME_DIR"]
    }
    env |= {f"JUPYTERLAB_{name}_DIR": str(folder / name) for name in ["SETTINGS", "WORKSPACES"]}
    env |= {"IPYTHONDIR": str(folder / "ipython"), "JUPYTER_PREFER_ENV_PATH": "1"}
    with (folder / f"{command[0]}.log").open("w") as log:
        server = subprocess.Popen([sys.executable, "-m", *command], env=env, stdout=log, stderr=log, cwd=work)
    try:
        yield server
    finally:
        server.terminate()
        server.wait(timeout=30)


def _wait_for(look, server, seconds=60):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and server.poll() is None:
        if found := look():
            return found
        time.sleep(0.1)
    raise AssertionError(f"{server.args[2]} did not start")


def _address(folder):
    for file in folder.glob("jpserver-*.json"):
        try:
            url = json.loads(file.read_text())["url"]
            urllib.request.urlopen(url + "api", timeout=5).close()
        except (OSError, ValueError):
            continue
        return url
    return None


def _listens(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except OSError:
        return False
    return True
