"""Every benchmark helps, refuses sizes that make no sense, and runs at its smallest, with and without the peers."""

import contextlib
import importlib
import json
import multiprocessing
import runpy
import sys
import warnings
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"
SCRIPTS = sorted(path.stem for path in FOLDER.glob("[!_]*.py"))
PEERS = ("saliency", "zennit", "monai", "quantus", "playwright", "ipyniivue")
SHARED = ["torch", "captum.attr", "xaitools.attribution", "xaitools.evaluation", "xaitools.models", "xaitools.phantoms"]


def _run(script, arguments, hidden, log):
    """In a fresh process: the script as `python benchmarks/SCRIPT.py` runs it, without the hidden modules."""
    for module in hidden:
        sys.modules.update({name: None for name in [module, *sys.modules] if name.split(".")[0] == module})
    sys.argv = [str(FOLDER / f"{script}.py"), *arguments]
    sys.path.insert(0, str(FOLDER))
    with log.open("w") as said, contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        warnings.simplefilter("ignore")
        runpy.run_path(sys.argv[0], run_name="__main__")


@pytest.fixture(scope="module")
def server():
    """Forks processes that have loaded what all scripts load, so that torch is loaded once."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(SHARED)
    return context


@pytest.fixture
def run(server, tmp_path):
    """Exit code and output of a script."""

    def start(script, *arguments, hidden=()):
        log = tmp_path / "log"
        process = server.Process(target=_run, args=(script, arguments, hidden, log))
        process.start()
        process.join()
        return process.exitcode, log.read_text()

    return start


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script_helps_without_its_peers(run, script):
    code, said = run(script, "--help", hidden=PEERS)
    assert code == 0, said
    assert "--quick" in said
    assert said.startswith(f"usage: {script}.py")


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script_runs_at_its_smallest(run, script, tmp_path):
    code, said = run(script, "--quick", "--results", str(tmp_path), hidden=("quantus", "ipyniivue"))
    assert code == 0, said
