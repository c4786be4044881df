import json
import os
import signal
import subprocess
import sys
import time

import nbformat
import pytest

from xaitools.errors import DataError, ParameterError, XaitoolsError
from xaitools.reports.runner import run_study
from xaitools.study.manifest import read_manifest, was_killed
from xaitools.study.notebooks import find_notebook, read_parameters, studies


def test_a_study_writes_its_whole_folder(notebooks, tmp_path, browser, draws_stills):
    data = tmp_path / "jane" / "ct"
    report = run_study(
        notebooks / "tiny.ipynb",
        parameters={"seed": "3", "data_dir": str(data)},
        out=tmp_path / "out",
        progress=False,
    )
    out = tmp_path / "out"
    assert report == out / "tiny.html"
    names = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    assert names == {
        "tiny.html",
        "tiny.ipynb",
        "manifest.json",
        "metrics.csv",
        "maps/map-3.txt",
        "figures/captions.md",
        "figures/line.html",
        "figures/line.svg",
        "figures/plotly.min.js",
    }
    manifest = read_manifest(out)
    assert manifest["status"] == "done"
    assert manifest["parameters"]["seed"] == 3
    assert manifest["parameters"]["preset"] == "quick"
    for name in ("manifest.json", "tiny.ipynb", "tiny.html"):
        assert "jane" not in (out / name).read_text(), name

    page = browser.open(report)
    page.wait_for_selector(".main-svg")
    assert [url for url in browser.requests if not url.startswith("file://")] == []
    assert browser.errors == []


def test_the_kernel_is_the_running_python_even_if_another_is_registered(notebooks, tmp_path, monkeypatch):
    registered = tmp_path / "jupyter" / "kernels" / "python3"
    registered.mkdir(parents=True)
    spec = {
        "argv": ["/nowhere/python", "-f", "{connection_file}"],
        "display_name": "Other",
        "language": "python",
    }
    (registered / "kernel.json").write_text(json.dumps(spec))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    notebook = nbformat.read(notebooks / "broken.ipynb", as_version=4)
    notebook.cells[-1].source = "import sys; print(sys.executable)"
    nbformat.write(notebook, tmp_path / "broken.ipynb")
    (tmp_path / "presets").mkdir()
    (tmp_path / "presets" / "broken.quick.yaml").write_text("{}")
    run_study(tmp_path / "broken.ipynb", out=tmp_path / "out", progress=False)
    printed = nbformat.read(tmp_path / "out" / "broken.ipynb", as_version=4).cells[-1].outputs[0].text
    assert printed.strip() == sys.executable.replace(sys.prefix, "python")


@pytest.mark.parametrize(
    ("users", "found"),
    [
        ({}, "PASSIVE 2000"),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE None"),
        ({"GOMP_SPINCOUNT": "7"}, "None 7"),
    ],
)
def test_threads_of_a_kernel_soon_sleep_while_they_wait_unless_the_user_says_otherwise(
    notebooks, tmp_path, monkeypatch, users, found
):
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in users.items():
        monkeypatch.setenv(name, value)
    notebook = nbformat.read(notebooks / "broken.ipynb", as_version=4)
    notebook.cells[
        -1
    ].source = "import os; print(os.environ.get('OMP_WAIT_POLICY'), os.environ.get('GOMP_SPINCOUNT'))"
    nbformat.write(notebook, tmp_path / "broken.ipynb")
    run_study(tmp_path / "broken.ipynb", out=tmp_path / "out", progress=False)
    printed = nbformat.read(tmp_path / "out" / "broken.ipynb", as_version=4).cells[-1].outputs[0].text
    assert printed.strip() == found


def test_relative_paths_count_from_the_current_folder(notebooks, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    report = run_study(notebooks / "tiny.ipynb", out="here", progress=False)
    assert report == tmp_path / "here" / "tiny.html"
    assert report.exists()


def test_a_failing_cell_gives_its_error_keeps_the_notebook_and_resumes(notebooks, tmp_path):
    with pytest.raises(
        DataError, match=r"broken failed in 'Load the data': DataError: .*label column is missing"
    ):
        run_study(
            notebooks / "broken.ipynb", parameters={"data_dir": "/home/jane/ct"}, out=tmp_path, progress=False
        )
    manifest = read_manifest(tmp_path)
    assert manifest["status"] == "failed"
    assert "label column is missing" in manifest["error"]
    assert "jane" not in (tmp_path / "broken.ipynb").read_text() + json.dumps(manifest)
    assert not (tmp_path / "broken.html").exists()
    assert (tmp_path / "maps" / "first.txt").read_text() == "kept"

    run_study(notebooks / "broken.ipynb", out=tmp_path, progress=False)
    manifest = read_manifest(tmp_path)
    assert manifest["status"] == "done"
    assert "error" not in manifest


def test_a_dead_kernel_is_reported(notebooks, tmp_path):
    with pytest.raises(XaitoolsError, match="its Python process died"):
        run_study(notebooks / "broken.ipynb", parameters={"data_dir": "dies"}, out=tmp_path, progress=False)
    assert read_manifest(tmp_path)["status"] == "failed"


def test_bad_parameters_run_nothing(notebooks, tmp_path):
    for parameters in ({"sed": 1}, {"seed": "many"}, {"output_dir": "x"}):
        with pytest.raises(ParameterError):
            run_study(notebooks / "tiny.ipynb", parameters=parameters, out=tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(os.name != "posix", reason="sends signals")
@pytest.mark.parametrize(
    ("number", "code", "word"),
    [(signal.SIGINT, 130, "Interrupted"), (signal.SIGTERM, 143, "Stopped by SIGTERM")],
    ids=["ctrl-c", "scheduler"],
)
def test_ctrl_c_and_a_scheduler_mark_the_run_and_leave_no_kernel(notebooks, tmp_path, number, code, word):
    command = [
        sys.executable,
        "-m",
        "xaitools",
        "report",
        str(notebooks / "slow.ipynb"),
        "--out",
        str(tmp_path),
    ]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    manifest = _wait_for(lambda: read_manifest(tmp_path), lambda found: "versions" in found)
    assert manifest["status"] == "running"
    os.killpg(process.pid, number)
    _, messages = process.communicate(timeout=120)
    assert process.returncode == code
    assert f"{word}. The same command resumes where this one stopped." in messages
    assert "died" not in messages
    assert "Traceback" not in messages
    assert read_manifest(tmp_path)["status"] == "interrupted"


def _wait_for(read, is_enough, seconds=60):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if is_enough(value := read()):
            return value
        time.sleep(0.1)
    raise AssertionError(f"nothing within {seconds} s")


def test_plain_papermill_sees_every_parameter_of_every_study(notebooks):
    """One that it cannot parse makes it warn: `int | None`, or an equals sign in a comment."""
    from papermill import inspect_notebook

    assert "limit" not in inspect_notebook(notebooks / "tiny.ipynb")
    for study in studies():
        notebook = find_notebook(study)
        assert list(inspect_notebook(notebook)) == list(read_parameters(notebook)), study


@pytest.mark.skipif(os.name != "posix", reason="sends SIGKILL")
def test_a_killed_run_leaves_nothing_that_tells_of_persons(notebooks, tmp_path, caplog):
    """In its folder, nor in that of temporary files; the next run goes on there."""
    notebook = nbformat.read(notebooks / "slow.ipynb", as_version=4)
    notebook.cells[1].source += '\ndata_dir: str = ""  # a folder'
    notebook.cells[2].source = "print(data_dir)\n" + notebook.cells[2].source
    nbformat.write(notebook, tmp_path / "slow.ipynb")
    (tmp_path / "presets").mkdir()
    (tmp_path / "presets" / "slow.quick.yaml").write_text("{}")
    out, temporary, data = (tmp_path / name for name in ("out", "temporary", "Mustermann"))
    for folder in (temporary, data):
        folder.mkdir()
    command = [sys.executable, "-m", "xaitools", "report", str(tmp_path / "slow.ipynb"), "--out", str(out)]
    process = subprocess.Popen(
        [*command, "-p", "data_dir", str(data)],
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env=os.environ | {"TMPDIR": str(temporary)},
    )
    _wait_for(lambda: read_manifest(out), lambda found: "versions" in found)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(timeout=60)
    files = [path for folder in (out, temporary) for path in folder.rglob("*") if path.is_file()]
    assert out / "manifest.json" in files
    assert not [path for path in files if b"Mustermann" in path.read_bytes()]
    assert was_killed(read_manifest(out))
    values = {"seconds": 0.0, "data_dir": str(data)}
    run_study(tmp_path / "slow.ipynb", parameters=values, out=out, progress=False)
    assert "was killed; this one goes on" in caplog.text
    assert read_manifest(out)["status"] == "done"
    assert "{data_dir}" in (out / "slow.ipynb").read_text()


def test_a_finished_run_stays_whole_until_the_next_one_is_done(notebooks, tmp_path, caplog):
    def run(**parameters):
        return run_study(notebooks / "broken.ipynb", parameters=parameters, out=tmp_path, progress=False)

    def replacing():
        return [record.message for record in caplog.records if "replaces" in record.message]

    first = run().read_text()
    assert replacing() == []
    own = tmp_path / "figures" / "mine.txt"
    own.write_text("of the user")
    (tmp_path / "figures" / "old.html").write_text("of the first run")
    with pytest.raises(DataError, match="label column"):
        run(data_dir="ct")
    assert not (tmp_path / "broken.html").exists()
    previous = tmp_path / "previous"
    assert (previous / "broken.html").read_text() == first
    assert read_manifest(previous)["status"] == "done"
    assert {path.name for path in previous.iterdir()} == {
        "broken.html", "broken.ipynb", "manifest.json", "metrics.csv", "figures",
    }  # fmt: skip
    assert [path.name for path in (previous / "figures").iterdir()] == ["old.html"]
    (message,) = replacing()
    assert "data_dir was '', is '{data_dir}'" in message
    with pytest.raises(DataError, match="label column"):
        run(data_dir="ct")
    assert (previous / "broken.html").read_text() == first  # a second failure does not cost it either
    run()
    assert not previous.exists()
    assert own.read_text() == "of the user"
    assert len(replacing()) == 1
