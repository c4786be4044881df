import csv
import json

import pandas as pd
import plotly.graph_objects as go
import pytest

from xaitools.errors import DataError, ParameterError
from xaitools.reports.notebooks import read_parameters
from xaitools.reports.output import Run, read_manifest, without_paths, write_text


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


def test_a_notebook_records_all_its_parameters(tmp_path, notebooks):
    defaults = {
        name: parameter.default for name, parameter in read_parameters(notebooks / "tiny.ipynb").items()
    }
    namespace = {**defaults, "seed": 4, "output_dir": str(tmp_path), "unrelated": object()}
    Run.of_notebook(notebooks / "tiny.ipynb", namespace)
    manifest = read_manifest(tmp_path)
    assert manifest["study"] == "tiny"
    assert manifest["parameters"] == {**defaults, "seed": 4, "output_dir": tmp_path.name}
    assert manifest["seeds"] == {"seed": 4}


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


def test_nothing_written_names_the_user_or_the_machine(run, monkeypatch):
    run.note(
        weights="/home/jane/My/w.safetensors",
        nested=[{"dir": r"C:\Users\jane\ct"}],
        text="from /home/jane/a, to b/c",
    )
    text = (run.output_dir / "manifest.json").read_text()
    assert "jane" not in text
    manifest = json.loads(text)
    assert manifest["parameters"]["data_dir"] == "ct"
    assert manifest["weights"] == "w.safetensors"
    assert manifest["nested"] == [{"dir": "ct"}]
    assert manifest["text"] == "from a, to b/c"


@pytest.mark.parametrize(
    "text", ["heart/vessels", "../data", "a/b/c", "~/ct", "1/2", "package.module:factory"]
)
def test_relative_paths_and_other_texts_stay(text):
    assert without_paths(text) == text


def test_figures_share_one_script_and_open_offline(run, browser):
    for name in ("one", "two"):
        path = run.save_figure(go.Figure(go.Scatter(y=[1, 2])), name)
    assert sorted(file.name for file in run.figures_dir.iterdir()) == [
        "one.html",
        "plotly.min.js",
        "two.html",
    ]
    page = browser.open(path)
    page.wait_for_selector(".main-svg")
    assert all(url.startswith("file://") for url in browser.requests)
    assert browser.errors == []


def test_a_figure_name_cannot_leave_the_folder(run):
    with pytest.raises(ParameterError, match=r"figure name '\.\./x'"):
        run.save_figure(go.Figure(), "../x")


def test_a_damaged_manifest_is_named(tmp_path):
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(DataError, match=r"manifest\.json is damaged"):
        read_manifest(tmp_path)


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path):
    path = write_text(tmp_path / "a.csv", "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "new \ud800")
    assert [file.name for file in tmp_path.iterdir()] == ["a.csv"]
    assert path.read_text() == "old"
