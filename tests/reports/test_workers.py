"""Where the cells of a sweep run, and what becomes of them when a process or a scheduler dies."""

import csv
import os
import signal
import threading
import time

import joblib
import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from xaitools.errors import ClusterError, ParameterError
from xaitools.reports import workers
from xaitools.reports.sweep import plan, sweep
from xaitools.reports.workers import run_here, shares, workload
from xaitools.study.manifest import read_manifest, write_manifest

PARAMETERS = 'seed: int = 0\noutput_dir: str = "output"'
RECORD = """
import pathlib
pathlib.Path(output_dir, "metrics.csv").write_text("study,metric,value\\n" + "".join(
    f"own,{name},{value}\\n" for name, value in numbers.items()
))
"""


def read(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def notebook(tmp_path):
    """A function that writes a notebook whose code sets `numbers`, by name."""

    def write(code):
        cells = [
            new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]}),
            new_code_cell(code + RECORD),
        ]
        kernel = {"name": "python3", "language": "python", "display_name": "Python 3"}
        nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": kernel}), tmp_path / "own.ipynb")
        return tmp_path / "own.ipynb"

    return write


@pytest.mark.parametrize("cores", [1, 2, 3, 8, 64])
def test_no_core_has_two_threads(monkeypatch, cores):
    monkeypatch.setattr(joblib, "cpu_count", lambda: cores)
    for name in workers.THREADS:
        monkeypatch.delenv(name, raising=False)
    for jobs in (1, 2, 3, 8, 100):
        for n_cells in (1, 2, 5, 200):
            at_a_time, threads = shares(jobs, n_cells)
            assert 1 <= at_a_time <= min(jobs, n_cells)
            assert at_a_time * threads <= cores < (at_a_time * (threads + 1))
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert shares(1, 9)[1] == min(2, cores)
    assert f"{cores} cores; 100 were asked for" in workload(100, 100) or cores > 99


def test_a_run_computes_with_its_share_of_the_cores(notebook, tmp_path, monkeypatch):
    for name in workers.THREADS:
        monkeypatch.delenv(name, raising=False)
    cores = joblib.cpu_count()
    own = notebook(
        "import os, torch, joblib\n"
        "names = ['OMP_NUM_THREADS', 'MKL_NUM_THREADS', 'OPENBLAS_NUM_THREADS']\n"
        "numbers = {name: os.environ[name] for name in names}\n"
        "numbers |= {'torch': torch.get_num_threads(), 'joblib': joblib.cpu_count()}\n"
    )
    table = sweep(own, {"seed": [1, 2]}, out=tmp_path / "out", jobs=2, progress=False)
    share = str(max(1, cores // 2)) if cores > 1 else str(cores)
    rows = read(table)
    assert len(rows) == 10
    assert {row["value"] for row in rows} == {share}
    assert {row["threads"] for row in read(tmp_path / "out" / "runs.csv")} == {share}


def dies(index, cell, cwd, threads):
    """In a process of its own: the run of seed 2 is killed whenever it begins, that of seed 1 waits until it is."""
    tries = cell.folder / "tries"
    write_manifest(cell.folder, {"status": "running"}, fresh=True)
    tries.write_text(tries.read_text() + "x" if tries.exists() else "x")
    if cell.values["seed"] == 2:
        while not (cell.folder.parent / "seed-1" / "tries").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGKILL)
    if cell.values["seed"] == 1 and tries.read_text() == "x":
        time.sleep(60)
    write_manifest(cell.folder, {"status": "done"})
    return index, ""


def test_a_killed_process_costs_its_own_run_and_no_other(notebook, tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "_numbered", dies)
    cells = plan(notebook(""), {"seed": [1, 2, 3]}, preset=None, parameters=None, folder=tmp_path)
    errors = dict(run_here(dict(enumerate(cells)), 2, 1))
    assert {index: bool(error) for index, error in errors.items()} == {0: False, 1: True, 2: False}
    assert "its process was killed twice" in errors[1]
    assert [read_manifest(cell.folder)["status"] for cell in cells] == ["done", "failed", "done"]
    assert [(cell.folder / "tries").read_text() for cell in cells] == ["xx", "xx", "x"]


HELD = threading.Event()


def in_a_thread(cell, cwd):
    """What the dask workers of the next test run: the first cell is done at once, the others hang."""
    if cell.values["seed"] > 1:
        HELD.wait(30)
        return ""
    write_manifest(cell.folder, {"status": "failed", "error": "never mind"}, fresh=True)
    return "never mind"


def test_a_scheduler_that_dies_ends_the_sweep_clearly_and_what_is_done_is_kept(
    notebook, tmp_path, monkeypatch
):
    import dask
    from distributed import LocalCluster

    monkeypatch.setattr(workers, "run_cell", in_a_thread)
    own, heard = notebook("numbers = {}"), []
    timeouts = {"distributed.comm.timeouts.connect": "1s", "distributed.comm.retry.count": 0}
    with (
        dask.config.set(timeouts),
        LocalCluster(
            n_workers=1, threads_per_worker=1, processes=False, protocol="tcp", dashboard_address=None
        ) as cluster,
    ):

        def done(bar, folder):
            heard.append(folder.name)
            cluster.sync(cluster.scheduler.close)

        monkeypatch.setattr("xaitools.reports.sweep.SweepBar.done", done)
        address = cluster.scheduler_address
        with pytest.raises(
            ClusterError, match=r"scheduler at 'tcp://.* is gone; the runs that are done are kept"
        ):
            sweep(own, {"seed": [1, 2, 3]}, out=tmp_path / "out", dask=address, progress=False)
        HELD.set()
    assert heard == ["seed-1"]
    assert [row["status"] for row in read(tmp_path / "out" / "runs.csv")] == ["failed", "new", "new"]
    assert (tmp_path / "out" / "index.html").exists()


def test_an_address_that_is_none_is_refused(notebook, tmp_path):
    with pytest.raises(ParameterError, match="'nonsense://x' is no address of a dask scheduler"):
        sweep(notebook(""), {"seed": [1]}, out=tmp_path / "out", dask="nonsense://x", progress=False)
