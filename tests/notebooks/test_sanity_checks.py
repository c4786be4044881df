"""The sanity checks as a user runs them: on synthetic and on real brains, and with a network of one's own."""

import csv
import json
from pathlib import Path

import nbformat
import numpy as np
import papermill
import pytest

from xaitools.evaluation import map_similarity
from xaitools.evaluation.randomization import WARNING
from xaitools.maps import load_map
from xaitools.reports.html import to_html
from xaitools.reports.parameters import read_preset
from xaitools.reports.runner import run_study
from xaitools.study.notebooks import find_notebook, read_parameters

NOTEBOOK = find_notebook("sanity_checks")
FIGURES = {"maps", "top_down", "other_orders", "argmax"}
METHODS = ["gradient", "guided_backprop", "grad_cam"]
TINY = {
    "n_subjects": 40, "spacing": 6.0, "shape": [32, 32, 32], "atrophy": 0.6, "max_epochs": 10, "n_explained": 4,
    "steps": 3, "draws": 3, "n_memorised": 8, "memorising_epochs": 30, "methods": METHODS,
    "smooth_methods": ["gradient"],
}  # fmt: skip


@pytest.fixture(scope="module")
def synthetic_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sanity")
    run_study("sanity_checks", parameters=TINY, out=folder, progress=False)
    return folder


def metrics(folder: Path) -> dict[tuple[str, str], float]:
    with (folder / "metrics.csv").open() as file:
        return {(row["method"], row["metric"]): float(row["value"]) for row in csv.DictReader(file)}


def check_folder(folder: Path) -> None:
    found = metrics(folder)
    for test in ("top-down", "bottom-up", "one layer at a time", "top-down, argmax", "permuted labels"):
        for method in METHODS:
            assert -1 <= found[method, f"spearman, absolute, {test}"] <= 1
        assert abs(found["random", f"spearman, signed, {test}"]) < 0.1
    assert {path.stem for path in (folder / "figures").glob("*.html")} == FIGURES
    assert json.loads((folder / "manifest.json").read_text())["status"] == "done"


def test_synthetic_output_folder(synthetic_run) -> None:
    check_folder(synthetic_run)


def test_guided_backprop_stays_under_redrawn_upper_layers_and_the_gradient_does_not(synthetic_run) -> None:
    found = metrics(synthetic_run)
    upper = "spearman, signed, top-down, upper layers"
    assert found["guided_backprop", upper] > found["gradient", upper] + 0.3
    assert abs(found["gradient", "spearman, signed, top-down"]) < 0.3


def test_similarities_follow_from_the_maps_on_disk(synthetic_run) -> None:
    """The last step from the top down once more, from the maps that the notebook shows."""
    files = list((synthetic_run / "maps" / "redrawn-0").glob("*gradient_map.nii.gz"))
    assert len(files) == TINY["n_explained"]
    values = []
    for name in (path.name.split("_desc")[0] for path in files):
        one, other = (
            load_map(synthetic_run / "maps" / f"redrawn-{n}", name, "gradient", volume=True)[None, None]
            for n in (0, 6)
        )
        values.append(map_similarity(one, other)[0])
    assert np.mean(values) == pytest.approx(
        metrics(synthetic_run)["gradient", "spearman, absolute, top-down"], abs=1e-3
    )


def test_verdicts_stand_with_their_warning_and_the_claims(synthetic_run) -> None:
    executed = nbformat.read(synthetic_run / "sanity_checks.ipynb", 4)
    shown = "".join(
        str(output) for cell in executed.cells if cell.cell_type == "code" for output in cell.outputs
    )
    assert WARNING[:60] in shown
    assert "published comparisons this run agrees" in shown
    assert "not tested: not among the maps of this run" in shown  # guided Grad-CAM was left out


def test_report_opens_offline_and_its_viewer_moves(synthetic_run, opens_offline) -> None:
    opens_offline(synthetic_run / "sanity_checks.html", len(FIGURES), "GB, none")


def test_a_second_run_redraws_no_network_twice(synthetic_run) -> None:
    written = {path: path.stat().st_mtime_ns for path in (synthetic_run / "sanity").iterdir()}
    lost = synthetic_run / "sanity" / "bottom-up_draw-0_step-3.json"
    lost.unlink()
    before = metrics(synthetic_run)
    run_study("sanity_checks", parameters=TINY, out=synthetic_run, progress=False)
    again = {path: path.stat().st_mtime_ns for path in (synthetic_run / "sanity").iterdir()}
    assert again.keys() == written.keys()
    assert {path for path in written if again[path] != written[path]} == {lost}
    assert metrics(synthetic_run) == pytest.approx(before, abs=1e-6)


def test_a_network_of_ones_own(synthetic_run, weights_of, tmp_path: Path) -> None:
    weights = weights_of(synthetic_run)
    few = {"methods": ["gradient"], "smooth_methods": [], "n_explained": 2, "memorising_epochs": 1}
    run_study(
        "sanity_checks", parameters={**TINY, **few, "model": str(weights)}, out=tmp_path, progress=False
    )
    assert json.loads((tmp_path / "manifest.json").read_text())["status"] == "done"
    assert "there are no verdicts" in (tmp_path / "sanity_checks.html").read_text()


def test_the_paper_preset_holds_the_papers_methods() -> None:
    paper = read_preset(NOTEBOOK, "paper")
    assert {"gradient", "guided_backprop", "grad_cam", "guided_grad_cam"} <= set(paper["methods"])
    assert set(paper) <= set(read_parameters(NOTEBOOK))


def test_real_heads(tmp_path: Path, real_data: Path) -> None:
    """Plain Papermill, as a user would call it without our runner: women and men."""
    parameters = {
        **TINY, "data_dir": str(real_data / "ixi"), "label_column": "Sex", "space": "centered", "brain_mask": "dseg",
        "n_subjects": 0, "max_epochs": 3, "memorising_epochs": 3, "output_dir": str(tmp_path),
    }  # fmt: skip
    executed = tmp_path / "sanity_checks.ipynb"
    papermill.execute_notebook(NOTEBOOK, executed, parameters, progress_bar=False, cwd=str(tmp_path))
    to_html(executed, tmp_path / "sanity_checks.html")
    check_folder(tmp_path)
