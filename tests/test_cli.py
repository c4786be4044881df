import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from xaitools.cli import main

TINY = str(Path(__file__).parent / "notebooks" / "tiny.ipynb")
BROKEN = str(Path(__file__).parent / "notebooks" / "broken.ipynb")


def call(*arguments):
    return CliRunner().invoke(main, list(map(str, arguments)))


def test_help_answers_at_once():
    heavy = {"papermill", "nbconvert", "joblib", "torch"}
    check = f"import sys, xaitools.cli; sys.exit(bool({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
    start = time.perf_counter()
    shown = subprocess.run(
        [sys.executable, "-m", "xaitools", "--help"], capture_output=True, text=True, check=True
    )
    assert time.perf_counter() - start < 2
    assert all(command in shown.stdout for command in ("report", "sweep", "studies", "methods", "lab"))


def test_report_runs_a_study_and_says_where_the_report_lies(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = call("report", TINY, "-p", "seed", "4", "-p", "methods", "gradient", "--no-progress")
    assert result.exit_code == 0, result.output
    assert result.stdout == "Report: output/tiny/quick/tiny.html\n"
    assert (tmp_path / "output/tiny/quick/tiny.html").exists()
    assert "gradient,product,4.0" in (tmp_path / "output/tiny/quick/metrics.csv").read_text()


def test_report_runs_a_notebook_of_ones_own_without_presets(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.ipynb").write_text(Path(TINY).read_text().replace("seed: int = 0", "seed: int = 9"))
    result = call("report", "mine.ipynb", "-p", "factor", "2", "--no-progress")
    assert result.exit_code == 0, result.output
    assert result.stdout == "Report: output/mine/own/mine.html\n"
    assert "gradient,product,18.0" in (tmp_path / "output/mine/own/metrics.csv").read_text()
    refused = call("report", "mine.ipynb", "--preset", "quick")
    assert refused.exit_code == 2
    assert "preset of mine 'quick' is unknown; expected one of none" in refused.output


def test_a_shipped_notebook_that_was_changed_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr("xaitools.reports.working_copy.is_changed", lambda notebook: True)
    result = call("report", TINY, "--preset", "papre", "--out", tmp_path)
    assert "was changed since it was shipped" in result.stderr
    assert result.exit_code == 2


@pytest.mark.skipif(os.name != "posix", reason="takes the place of this process")
def test_lab_opens_copies_with_threads_that_sleep_while_they_wait(tmp_path, monkeypatch):
    calls = []

    def run(command, env):
        calls.append((command, env))
        raise SystemExit(3)

    monkeypatch.setattr(
        "xaitools.reports.working_copy.os.execve", lambda program, command, env: run(command, env)
    )
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "THP_MEM_ALLOC_ENABLE"):  # the suite sets the last
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    assert call("lab", "--no-browser", "--port", "9").exit_code == 3
    assert calls.pop()[0][2:] == ["jupyterlab", "my-notebooks", "--no-browser", "--port", "9"]
    result = call("lab", tmp_path / "mine")
    assert result.exit_code == 3
    assert "ct_contrast.ipynb" in result.stdout
    ((command, env),) = calls
    assert command[1:] == ["-m", "jupyterlab", str(tmp_path / "mine")]
    assert (env["OMP_WAIT_POLICY"], env["GOMP_SPINCOUNT"]) == ("PASSIVE", "2000")
    assert env["THP_MEM_ALLOC_ENABLE"] == "1"
    assert "ct_contrast.ipynb" in {file.name for file in (tmp_path / "mine").iterdir()}
    assert not (tmp_path / "mine" / "lessons").exists()
    assert call("lab", "--voila", tmp_path / "mine", "--port=9").exit_code == 3
    (_, (command, env)) = calls
    assert command[1:3] == ["-m", "voila"]
    assert command[-2:] == [str(tmp_path / "mine"), "--port=9"]
    assert env["OMP_WAIT_POLICY"] == "PASSIVE"


def test_lab_opens_the_lessons_for_students_or_teachers(tmp_path, monkeypatch):
    commands = []
    monkeypatch.setattr(
        "xaitools.reports.working_copy.open_lab",
        lambda folder, options, dashboards: commands.append((str(folder), options, dashboards)),
    )
    monkeypatch.chdir(tmp_path)
    assert "2_gradient.ipynb" in call("lab", "--lessons").stdout
    assert '"solution"' not in (tmp_path / "my-lessons" / "2_gradient.ipynb").read_text()
    assert call("lab", "--lessons", "class", "--no-browser", "--solutions").exit_code == 0
    assert '"solution"' in (tmp_path / "class" / "2_gradient.ipynb").read_text()
    assert commands == [("my-lessons", (), False), ("class", ("--no-browser",), False)]
    refused = call("lab", "--solutions")
    assert refused.exit_code == 2
    assert "give it with --lessons" in refused.stderr


def test_sweep_prints_the_table_and_fails_if_a_run_did(tmp_path):
    result = call("sweep", BROKEN, "--grid", "data_dir=ct,", "--out", tmp_path, "--no-progress")
    assert result.exit_code == 1
    cores, *lines = result.stdout.splitlines()
    assert cores.startswith("Cores: 1 run at a time with ")
    assert lines == [f"Table: {tmp_path}/metrics.csv", f"Page: {tmp_path}/index.html"]
    said = r"Error: 1 run failed; the same command tries again:\n  data_dir-\w{8}: broken failed in 'Load the data'"
    assert re.search(said, result.stderr)


def test_methods_lists_names_options_ideas_and_needs():
    result = call("methods")
    assert result.exit_code == 0
    assert "occlusion[5]  (OCC)" in result.stdout
    assert "option: voxels of a patch" in result.stdout
    assert "needs:  softmax attention" in result.stdout


def test_studies_lists_parameters_with_type_default_and_comment(monkeypatch):
    monkeypatch.setattr("xaitools.study.notebooks.notebooks_dir", lambda: Path(TINY).parent)
    result = call("studies")
    assert result.exit_code == 0
    assert "tiny  (presets: quick)" in result.stdout
    assert "seed: int = 0" in result.stdout
    assert "of every random draw" in result.stdout
    assert "limit: int | None = None" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["report", "nothing"], 2, "study 'nothing' is unknown"),
        (["report", TINY, "--preset", "papre"], 2, "preset of tiny 'papre' is unknown"),
        (["report", TINY, "-p", "sed", "1"], 2, "Did you mean 'seed'?"),
        (["report", TINY, "-p", "seed", "x"], 2, "seed='x' does not fit"),
        (
            ["report", BROKEN, "-p", "data_dir", "ct", "--no-progress"],
            1,
            "DataError: ct: the label column is missing",
        ),
        (["report", TINY, "--out", "/proc/nothing"], 1, "/proc/nothing"),
        (["sweep", TINY, "--grid", "seed"], 2, "--grid seed: write NAME=A,B"),
        (["sweep", TINY, "--grid", "seed=1", "--grid", "seed=2"], 2, "seed is there already"),
    ],
)
def test_errors_are_one_line_without_a_traceback(tmp_path, monkeypatch, arguments, code, message):
    monkeypatch.chdir(tmp_path)
    result = call(*arguments)
    assert result.exit_code == code
    assert result.stderr.count("\n") == 1
    assert message in result.stderr
