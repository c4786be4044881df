import contextlib
import csv
import subprocess
import sys

import nbformat
import numpy as np
import pandas as pd
import papermill
import plotly.graph_objects as go
import pytest

from xaitools import maps
from xaitools.errors import ParameterError
from xaitools.maps import load_map, save_map
from xaitools.plots.style import titled
from xaitools.study import replacing, stills
from xaitools.study.manifest import read_manifest
from xaitools.study.run import Run


@pytest.fixture
def run(tmp_path):
    return Run(
        tmp_path / "out", study="ct_contrast", parameters={"seed": 3, "data_dir": "/home/jane/ct"}, seed=3
    )


def test_the_manifest_says_running_from_the_start_and_done_at_the_end(run):
    assert read_manifest(run.output_dir)["status"] == "running"
    run.note(device="cpu", data="abc")
    run.finish()
    manifest = read_manifest(run.output_dir)
    assert manifest["status"] == "done"
    assert manifest["seeds"] == {"seed": 3}
    assert manifest["device"] == "cpu"
    assert manifest["versions"]["xaitools"]
    assert {"torch", "plotly", "papermill"} <= set(manifest["versions"])


@pytest.fixture
def copy(notebooks, tmp_path):
    """A changed copy of the tiny notebook, run by plain Papermill: cells of source by their place."""

    def run(changes, parameters, fails=False):
        node = nbformat.read(notebooks / "tiny.ipynb", as_version=4)
        for place, change in changes.items():
            node.cells[place].source = change(node.cells[place].source)
        node.cells[2].source += '\nrun = Run.of_notebook("tiny", globals())'
        nbformat.write(node, tmp_path / "copy.ipynb")
        out = tmp_path / "out"
        given = {**parameters, "output_dir": str(out)}
        with pytest.raises(papermill.PapermillExecutionError) if fails else contextlib.nullcontext():
            papermill.execute_notebook(
                tmp_path / "copy.ipynb",
                tmp_path / "executed.ipynb",
                given,
                progress_bar=False,
                kernel_manager_class="xaitools.reports.kernel.ThisPython",
            )
        return read_manifest(out)

    return run


def test_a_changed_copy_records_the_parameters_that_it_has(copy):
    def change(source):
        return source.replace("limit: int | None = None", "depth: int = 3  # new") + "\nwidth = 2 * depth"

    manifest = copy({1: change, 2: lambda source: source.replace('"limit", ', "")}, {"seed": 4})
    assert manifest["study"] == "tiny"
    assert manifest["status"] == "done"
    assert manifest["parameters"] == {
        "seed": 4,
        "factor": 1.0,
        "methods": ["gradient", "integrated_gradients[black]"],
        "data_dir": "",
        "depth": 3,
        "preset": "",
        "output_dir": "{output_dir}",
        "width": 6,
    }
    assert manifest["seeds"] == {"seed": 4}


def test_a_cell_that_fails_outside_of_every_stage_is_told(copy):
    manifest = copy({6: lambda source: "1 / 0"}, {}, fails=True)
    assert manifest["status"] == "failed"
    assert manifest["error"] == "ZeroDivisionError: division by zero"


def test_a_notebook_that_is_closed_before_its_end_is_told(tmp_path):
    script = f"from xaitools.study import Run; Run({str(tmp_path)!r}, study='tiny', parameters={{}})"
    subprocess.run([sys.executable, "-c", script], check=True)
    manifest = read_manifest(tmp_path)
    assert manifest["status"] == "interrupted"
    assert "closed before its end" in manifest["error"]


def test_a_run_that_goes_on_after_a_failure_is_done_in_the_end(run):
    with pytest.raises(ValueError, match="none"), run.stage("maps"):
        raise ValueError("none at /home/jane/x")
    assert read_manifest(run.output_dir)["error"] == "ValueError: none at x"
    with run.stage("maps"):
        assert read_manifest(run.output_dir)["status"] == "running"
    run.finish()
    manifest = read_manifest(run.output_dir)
    assert manifest["status"] == "done"
    assert "error" not in manifest


def test_stages_add_up_their_seconds(run):
    for _ in range(2):
        with run.stage("train"):
            pass
    seconds = read_manifest(run.output_dir)["seconds"]
    assert list(seconds) == ["train"]
    assert 0 <= seconds["train"] < 1


@pytest.mark.parametrize(("error", "status"), [(ValueError, "failed"), (KeyboardInterrupt, "interrupted")])
def test_a_failing_stage_keeps_what_was_recorded(run, error, status):
    def fail():
        with run.stage("maps"):
            run.record(metric="auc", value=0.5)
            raise error

    with pytest.raises(error):
        fail()
    assert read_manifest(run.output_dir)["status"] == status
    assert "0.5" in (run.output_dir / "metrics.csv").read_text()


def test_metrics_are_tidy_and_exact(run):
    value = 0.1 + 0.2
    run.record(metric="auc", value=value, method="gradient[black],x", model="resnet50", run=1, fold=2, n=290)
    run.record(metric="accuracy", value=1)
    run.finish()
    with (run.output_dir / "metrics.csv").open(newline="") as file:
        first, second = csv.DictReader(file)
    assert list(first) == ["study", "model", "run", "fold", "method", "metric", "value", "n"]
    assert list(first.values()) == [
        "ct_contrast",
        "resnet50",
        "1",
        "2",
        "gradient[black],x",
        "auc",
        first["value"],
        "290",
    ]
    assert float(first["value"]) == value
    assert (second["method"], second["value"], second["n"]) == ("", "1.0", "")


def test_a_new_run_starts_its_numbers_afresh_and_keeps_the_maps(run):
    (run.maps_dir / "sub-001.npz").write_text("kept")
    run.record(metric="auc", value=0.5)
    run.finish()
    Run(run.output_dir, study="ct_contrast", parameters={})
    assert len((run.output_dir / "metrics.csv").read_text().splitlines()) == 1
    assert (run.maps_dir / "sub-001.npz").read_text() == "kept"


def test_per_image_table(run):
    path = run.record_images(pd.DataFrame({"image": ["sub-001"], "auc": [0.25]}))
    assert path.read_text() == "image,auc\nsub-001,0.25\n"


def test_figures_share_one_script_and_open_offline(run, browser):
    for name in ("one", "two"):
        path = run.save_figure(go.Figure(go.Scatter(y=[1, 2])), name)
    assert sorted(file.name for file in run.figures_dir.iterdir()) == [
        "captions.md",
        "one.html",
        "plotly.min.js",
        "two.html",
    ]
    page = browser.open(path)
    page.wait_for_selector(".main-svg")
    assert all(url.startswith("file://") for url in browser.requests)
    assert browser.errors == []


def test_captions_of_all_figures_stand_beside_them_as_sentences(run):
    figure = titled(go.Figure(), "Maps of T<0.5", "Slice sub-003. In percent.", "From /home/jane/ct")
    for name in ("one", "one"):
        run.save_figure(figure, name)
    run.save_figure(go.Figure(), "untitled")
    assert (run.figures_dir / "captions.md").read_text() == (
        "# Figures of ct_contrast\n\n- **one**: Maps of T<0.5. Slice sub-003. In percent. From {data_dir}.\n"
    )


def test_a_figure_name_cannot_leave_the_folder(run):
    with pytest.raises(ParameterError, match=r"figure name '\.\./x'"):
        run.save_figure(go.Figure(), "../x")


def test_still_pictures_of_all_figures_are_drawn_at_the_end(run, browser, draws_stills):
    for name, figure in {
        "one": go.Figure(go.Scatter(y=[1, 2])),
        "two": go.Figure(layout={"width": 300}),
    }.items():
        run.save_figure(figure, name)
    run.finish()
    sizes = {}
    for name in ("one", "two"):
        browser.open(run.figures_dir / f"{name}.svg")
        sizes[name] = browser.page.evaluate("document.documentElement.width.baseVal.value")
    assert sizes == {"one": stills.WIDTH, "two": 300}


@pytest.mark.parametrize("reason", ["/nowhere/chrome", "hangs", "dies"])
def test_without_a_working_browser_a_run_ends_well_and_says_so_once(
    run, tmp_path, monkeypatch, caplog, reason
):
    browser = tmp_path / reason.strip("/")
    if reason != "/nowhere/chrome":
        browser.write_text({"hangs": "#!/bin/sh\nexec sleep 20\n", "dies": "#!/bin/sh\nexit 3\n"}[reason])
        browser.chmod(0o755)
    monkeypatch.setenv("BROWSER_PATH", str(browser))
    monkeypatch.setattr(stills, "PATIENCE", 2.0)
    (run.figures_dir / "one.svg").write_text("of an earlier run")
    run.save_figure(go.Figure(), "one")
    run.save_figure(go.Figure(), "two")
    run.finish()
    run.finish()
    assert read_manifest(run.output_dir)["status"] == "done"
    (message,) = (record.message for record in caplog.records if record.name == "xaitools.study.stills")
    assert message.startswith("2 of 2 still pictures were not drawn, which needs Chrome or Chromium (")
    assert not list(run.figures_dir.glob("*.svg"))


def test_maps_that_a_run_does_not_use_go_when_it_is_done(run, monkeypatch):
    for method in ("gradient", "deconvolution"):
        save_map(run.maps_dir / "net", "sub-001", method, np.eye(3), key={"weights": "a"})
    run.finish()
    assert len(list(run.maps_dir.rglob("*_map.npz"))) == 2
    other = run.maps_dir / "mine.npz"
    other.write_text("of the user")
    monkeypatch.setattr(replacing, "in_use", set())  # as another process has it
    monkeypatch.setattr(maps, "in_use", replacing.in_use)
    again = Run(run.output_dir, study="ct_contrast", parameters={})
    assert load_map(run.maps_dir / "net", "sub-001", "gradient") is not None
    assert len(list(run.maps_dir.rglob("*_map.npz"))) == 2  # as long as it runs
    again.finish()
    left = sorted(path.name for path in run.maps_dir.rglob("*") if path.is_file())
    assert left == ["mine.npz", "sub-001_desc-gradient_map.json", "sub-001_desc-gradient_map.npz"]
    replacing.in_use.clear()
    Run(run.output_dir, study="ct_contrast", parameters={}).finish()  # uses none, and deletes none
    assert len(list(run.maps_dir.rglob("*_map.npz"))) == 1


def test_numbers_and_figures_of_an_earlier_run_stay_until_the_next_one_is_done(run):
    run.record(metric="auc", value=0.5)
    run.save_figure(go.Figure(), "old")
    run.finish()
    again = Run(run.output_dir, study="ct_contrast", parameters={})
    previous = run.output_dir / "previous"
    assert "0.5" in (previous / "metrics.csv").read_text()
    assert (previous / "figures" / "old.html").exists()
    assert not (run.figures_dir / "old.html").exists()
    again.finish()
    assert not previous.exists()
