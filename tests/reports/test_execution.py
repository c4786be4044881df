import os
import signal
import tempfile
import time
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from xaitools.errors import XaitoolsError
from xaitools.reports import execution, kernel, runner
from xaitools.reports.runner import run_study
from xaitools.reports.signals import POLITE, Stopped
from xaitools.study.manifest import read_manifest

posix = pytest.mark.skipif(os.name != "posix", reason="sends signals")


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """A folder of temporary files of its own, to see what is left there; its path is short, for sockets."""
    with tempfile.TemporaryDirectory(prefix="t") as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield Path(folder)


@pytest.fixture
def run(tmp_path, temporary):
    """Run a cell as a study; what it raised."""

    def call(source):
        parameters = new_code_cell("output_dir = 'output'", metadata={"tags": ["parameters"]})
        cells = [parameters, new_code_cell(source), new_code_cell("print('went on')")]
        nbformat.write(new_notebook(cells=cells), tmp_path / "own.ipynb")
        before = [signal.getsignal(number) for number in POLITE]
        with pytest.raises((XaitoolsError, KeyboardInterrupt)) as raised:
            run_study(tmp_path / "own.ipynb", out=tmp_path / "out", progress=False)
        assert [signal.getsignal(number) for number in POLITE] == before
        assert list(temporary.iterdir()) == []
        return raised.value

    return call


def start_with(monkeypatch, script):
    """Let the shell that becomes the kernel do something else."""
    monkeypatch.setattr(kernel, "_DEAF_AT_FIRST", ["/bin/sh", "-c", script, "sh"])


@posix
@pytest.mark.parametrize("to", ["kernel", "both"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_run_whoever_hears_it(run, tmp_path, number, to):
    who = {"kernel": "[os.getpid()]", "both": "[os.getppid(), os.getpid()]"}[to]
    source = f"import os, time\nfor process in {who}:\n    os.kill(process, {number:d})\ntime.sleep(60)"
    start = time.monotonic()
    stopped = run(source)
    assert isinstance(stopped, Stopped)
    assert stopped.number == number
    assert time.monotonic() - start < 50
    assert read_manifest(tmp_path / "out")["status"] == "interrupted"
    assert str(stopped) in read_manifest(tmp_path / "out")["error"]
    assert not (tmp_path / "out" / "own.html").exists()
    assert "went on\\n" not in (tmp_path / "out" / "own.ipynb").read_text()


@posix
def test_a_cell_that_does_not_hear_is_killed(run, tmp_path, monkeypatch):
    monkeypatch.setattr(execution, "_UNTIL_KILL", 0.6)
    number = tmp_path / "number"
    deaf = "import os, pathlib, signal, time\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n"
    deaf += f"pathlib.Path({str(number)!r}).write_text(str(os.getpid()))\n"
    assert isinstance(run(deaf + "os.kill(os.getppid(), signal.SIGINT)\ntime.sleep(60)"), Stopped)
    with pytest.raises(ProcessLookupError):
        os.kill(int(number.read_text()), 0)


@posix
def test_a_signal_while_the_kernel_starts_ends_the_run(run, tmp_path, monkeypatch):
    monkeypatch.setattr(execution, "_UNTIL_KILL", 0.4)
    start_with(monkeypatch, kernel._DEAF_AT_FIRST[2].replace("exec", "kill -INT $PPID; exec"))
    assert isinstance(run("1"), Stopped)
    assert read_manifest(tmp_path / "out")["status"] == "interrupted"


@posix
def test_a_kernel_that_was_killed_or_cannot_start_is_no_interruption(run, tmp_path, monkeypatch, caplog):
    error = run("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
    assert isinstance(error, XaitoolsError)
    assert "its Python process died by SIGKILL" in str(error)
    start_with(monkeypatch, "exit 3")
    assert "its Python process did not start (Kernel died before replying" in str(run("1"))
    assert read_manifest(tmp_path / "out")["status"] == "failed"
    assert caplog.text == ""


@posix
def test_a_library_never_sees_the_signal_and_no_further_cell_runs(notebooks, tmp_path, monkeypatch):
    seen = []

    def library(notebook, executed, *, on_cell_start, **_):
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.3)
        except KeyboardInterrupt:
            seen.append("the signal")
        on_cell_start(nbformat.v4.new_code_cell("1"), 1)
        seen.append("another cell")

    monkeypatch.setattr(execution.papermill, "execute_notebook", library)
    with pytest.raises(KeyboardInterrupt):
        run_study(notebooks / "tiny.ipynb", out=tmp_path, progress=False)
    assert seen == []
    assert read_manifest(tmp_path)["status"] == "interrupted"


@posix
def test_a_signal_while_the_report_is_written_counts(notebooks, tmp_path, monkeypatch):
    monkeypatch.setattr(execution.papermill, "execute_notebook", lambda *_, **__: None)
    monkeypatch.setattr(runner, "to_html", lambda *_, **__: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Stopped, match="SIGTERM"):
        run_study(notebooks / "tiny.ipynb", out=tmp_path, progress=False)
    assert read_manifest(tmp_path)["status"] == "interrupted"
    assert read_manifest(tmp_path)["error"] == "Stopped: SIGTERM"


@posix
def test_a_handler_of_the_users_own_that_raises_leaves_no_kernel(run, tmp_path):
    def raises(number, frame):
        raise XaitoolsError("of the user's own")

    before = signal.signal(signal.SIGTERM, raises)
    try:
        error = run("import os, signal, time\nos.kill(os.getppid(), signal.SIGTERM)\ntime.sleep(60)")
    finally:
        signal.signal(signal.SIGTERM, before)
    assert "of the user's own" in str(error)


def test_folders_of_kernels_that_were_killed_are_deleted(temporary, monkeypatch):
    dead, alive, foreign = ("xaitools-1.2.abcdef-x", "xaitools-3.4.abcdef-y", "xaitools-things")
    for name in (dead, alive, foreign):
        (temporary / name).mkdir()
    monkeypatch.setattr(kernel, "is_gone", lambda token: token == "1.2.abcdef")
    with kernel.kernels():
        names = {folder.name for folder in temporary.iterdir()}
    assert dead not in names
    assert names > {alive, foreign}
    assert {folder.name for folder in temporary.iterdir()} == {alive, foreign}


def test_where_no_temporary_files_can_be_written_the_variable_is_named(monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", "/proc/nothing")
    with pytest.raises(XaitoolsError, match="name it by the variable TMPDIR"), kernel.kernels():
        pass


def test_ipython_gets_a_folder_of_ours_only_where_its_own_cannot_be_written_to(
    tmp_path, temporary, monkeypatch
):
    with kernel.kernels() as own:
        started = own.manager()
        monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "not" / "made"))
        assert "IPYTHONDIR" not in started.kernel_spec.env
        (tmp_path / "file").write_text("")
        for place in ("/proc/nothing", tmp_path / "file"):
            monkeypatch.setenv("IPYTHONDIR", str(place))
            assert Path(started.kernel_spec.env["IPYTHONDIR"]).is_relative_to(temporary)
