"""The study of robustness to retraining as a user runs it: through Papermill, on synthetic and on real brains."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import papermill
import pytest

from xaitools.attribution.names import AD_METHODS
from xaitools.errors import XaitoolsError
from xaitools.maps import load_map
from xaitools.reports.html import to_html
from xaitools.reports.runner import run_study

FIGURES = {"brains", "mean_maps", "coherence", "regions"}
TINY = {"n_subjects": 60, "n_runs": 2, "max_epochs": 22, "n_explained": 8, "atrophy": 0.6, "k": 3, "patch": 5}


@pytest.fixture(scope="module")
def synthetic_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ad")
    run_study("ad_retraining", parameters=TINY, out=folder, progress=False)
    return folder


@pytest.fixture(scope="module")
def real_run(tmp_path_factory: pytest.TempPathFactory, real_data: Path) -> Path:
    """Plain Papermill, as a user would call it without our runner."""
    folder = tmp_path_factory.mktemp("ixi")
    notebook = Path(__file__).parents[2] / "notebooks" / "ad_retraining.ipynb"
    executed = folder / "ad_retraining.ipynb"
    parameters = {
        "data_dir": str(real_data / "ixi"), "target": "Age", "classes": {"young": "< 40", "old": ">= 60"},
        "space": "centered", "brain_mask": "dseg", "n_subjects": 0,
        "output_dir": str(folder), "n_runs": 2, "max_epochs": 25, "n_explained": 8, "k": 10, "patch": 5,
    }  # fmt: skip
    papermill.execute_notebook(notebook, executed, parameters, progress_bar=False, cwd=str(folder))
    to_html(executed, folder / "ad_retraining.html")
    return folder


def metrics(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def check_folder(folder: Path, n_runs: int) -> None:
    rows = metrics(folder)
    for metric in ("L2, true positives", "L2, true negatives", "rank correlation, true positives"):
        values = {row["method"]: float(row["value"]) for row in rows if row["metric"] == metric}
        assert values.keys() == AD_METHODS.keys()
        assert all(np.isfinite(value) for value in values.values())
    for measure in ("sum", "density", "gain"):
        found = [float(row["value"]) for row in rows if row["metric"].endswith(f"coherence, {measure}")]
        assert len(found) == 4
        assert all(0 <= value <= 100 for value in found)
    for number in range(1, n_runs + 1):
        samples = {path.name.split("_desc")[0] for path in (folder / f"maps/run-{number}").glob("*.nii.gz")}
        assert samples
        for sample in samples:
            for method in AD_METHODS:
                array = load_map(folder / f"maps/run-{number}", sample, method, volume=True)
                assert array is not None
                assert array.ndim == 3
                assert np.isfinite(array).all()
                assert array.any()
    assert {path.stem for path in (folder / "figures").glob("*.html")} == FIGURES
    assert json.loads((folder / "manifest.json").read_text())["status"] == "done"


def test_synthetic_output_folder(synthetic_run) -> None:
    check_folder(synthetic_run, 2)
    planted = [row for row in metrics(synthetic_run) if row["metric"] == "planted regions, auc"]
    assert len(planted) == 4
    accuracies = [
        float(row["value"]) for row in metrics(synthetic_run) if row["metric"] == "balanced accuracy"
    ]
    assert max(accuracies) > 0.7


def test_report_opens_offline_and_its_viewer_moves(synthetic_run, browser) -> None:
    page = browser.open(synthetic_run / "ad_retraining.html")
    page.wait_for_selector(".main-svg")
    page.locator(".xai-readout:not(:empty)").wait_for()
    assert page.locator(".js-plotly-plot").count() == len(FIGURES)
    picture = "() => document.querySelector('.xai-panes canvas, .xai-picture canvas').toDataURL()"
    before = page.evaluate(picture)
    page.locator("[data-control=method]").select_option("Occlusion, run 2")
    page.wait_for_function(f"before => ({picture})() !== before", arg=before)
    assert [url for url in browser.requests if not re.match(r"(file|data|blob):", url)] == []
    assert browser.errors == []


def test_a_second_run_resumes(synthetic_run) -> None:
    written = {path: path.stat().st_mtime_ns for path in (synthetic_run / "maps").rglob("*.*")}
    lost = next(path for path in sorted(written) if path.suffix == ".gz")
    lost.unlink()
    run_study("ad_retraining", parameters=TINY, out=synthetic_run, progress=False)
    again = {path: path.stat().st_mtime_ns for path in (synthetic_run / "maps").rglob("*.*")}
    assert again.keys() == written.keys()
    changed = {path.name.split(".")[0] for path in written if again[path] != written[path]}
    assert changed == {lost.name.split(".")[0]}


def test_real_heads(real_run) -> None:
    check_folder(real_run, 2)
    accuracies = [float(row["value"]) for row in metrics(real_run) if row["metric"] == "balanced accuracy"]
    assert max(accuracies) > 0.6


def test_one_network_is_too_few(tmp_path: Path) -> None:
    parameters = {**TINY, "n_runs": 1, "max_epochs": 1}
    with pytest.raises(XaitoolsError, match="agreement of runs needs two or more"):
        run_study("ad_retraining", parameters=parameters, out=tmp_path / "out", progress=False)


def test_runs_that_recognise_only_one_class_are_named(tmp_path: Path) -> None:
    parameters = {**TINY, "max_epochs": 1, "learning_rate": 1e-9}
    with pytest.raises(XaitoolsError, match="run 1, run 2: not one of the 8 explained brains of a class"):
        run_study("ad_retraining", parameters=parameters, out=tmp_path / "out", progress=False)


def test_regions_of_our_own_atlas(tmp_path: Path) -> None:
    parameters = {**TINY, "atlas": "mni", "methods": ["guided_backprop"], "skip_failed": True}
    run_study("ad_retraining", parameters=parameters, out=tmp_path, progress=False)
    note = json.loads((tmp_path / "manifest.json").read_text())
    assert "points on the MNI152 templates" in json.dumps(note)
    names = {row["metric"] for row in metrics(tmp_path)}
    assert {"top-3 coherence, sum", "planted regions, auc"} <= names
