"""The study of optimised masks as a user runs it: through Papermill, on synthetic and on real brains."""

import csv
import json
from pathlib import Path

import nbformat
import numpy as np
import papermill
import pytest

from xaitools.errors import ParameterError
from xaitools.maps import load_map
from xaitools.phantoms import synthetic_brains
from xaitools.reports.html import to_html
from xaitools.reports.runner import run_study
from xaitools.study import brain_regions, read_published
from xaitools.study.notebooks import find_notebook, read_parameters

NOTEBOOK = find_notebook("ad_mask")
FIGURES = {"brains", "objective", "forming", "grid", "contexts", "similarity", "regions"}
TINY = {
    "n_subjects": 48, "spacing": 8.0, "shape": [20, 24, 20], "atrophy": 0.6, "max_epochs": 12, "n_masked": 4,
    "steps": 25, "mask_rate": 0.05, "l1_grid": [10.0, 1.0], "l2_grid": [10.0], "n_random": 9, "n_single": 1, "k": 3,
}  # fmt: skip
CONTEXTS = [(fold, run) for fold in (1, 2) for run in (1, 2)]
SIMILARITIES = [
    f"{measure}, {pairs}"
    for measure in ("prob_CNN", "ROI cosine")
    for pairs in ("own", "inter-run", "inter-fold")
]


@pytest.fixture(scope="module")
def synthetic_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("masks")
    run_study("ad_mask", parameters=TINY, out=folder, progress=False)
    return folder


def metrics(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def values(folder: Path) -> dict[str, float]:
    return {
        row["metric"]: float(row["value"]) for row in metrics(folder) if not row["method"] and not row["fold"]
    }


def context_masks(folder: Path) -> list[np.ndarray]:
    masks = [
        load_map(folder / "maps", f"fold-{fold}_run-{run}", "mask l1=10, l2=10", volume=True)
        for fold, run in CONTEXTS
    ]
    assert all(mask is not None for mask in masks)
    return masks


def check_folder(folder: Path) -> None:
    rows = metrics(folder)
    for part in ("training", "validation", "test"):
        found = [row for row in rows if row["metric"] == f"balanced accuracy, {part}"]
        assert [(int(row["fold"]), int(row["run"])) for row in found] == CONTEXTS
    known = values(folder)
    assert all(0 <= known[name] <= 1 for name in SIMILARITIES)
    assert {path.stem for path in (folder / "figures").glob("*.html")} == FIGURES
    for mask in context_masks(folder):
        assert mask.ndim == 3
        assert 0 <= mask.min() < 1
        assert mask.max() == 1
    assert json.loads((folder / "manifest.json").read_text())["status"] == "done"


def test_synthetic_output_folder(synthetic_run) -> None:
    check_folder(synthetic_run)
    known = values(synthetic_run)
    assert known["balanced accuracy, test, mean"] > 0.7
    assert known["prob_CNN, own"] < known["prob_CNN, inter-run"]
    assert known["planted regions, AUC"] > 0.6
    assert known["planted voxels, AUC"] > known["planted voxels, AUC of random masks"] + 0.05
    controls = {row["method"] for row in metrics(synthetic_run) if row["metric"] == "control: prob_CNN"}
    assert {"difference of the groups", "network of permuted labels", "random"} < controls


def test_published_values_stand_beside_those_of_the_run(synthetic_run) -> None:
    executed = nbformat.read(synthetic_run / "ad_mask.ipynb", 4)
    shown = "".join(
        str(output) for cell in executed.cells if cell.cell_type == "code" for output in cell.outputs
    )
    table = read_published("ad_mask").set_index("metric")["value"]
    for name in (
        "prob_CNN, inter-run",
        "prob_CNN, inter-fold",
        "ROI cosine, inter-run",
        "ROI cosine, inter-fold",
    ):
        assert f">{table[name]:g}<" in shown
    assert "Published (table 1): 0.93 of l1=0.1 and l1=0.01" in shown
    assert "published comparison" in shown


def test_cosines_follow_from_the_masks_on_disk(synthetic_run) -> None:
    """The cosine between runs once more, slowly, from the files of the run."""
    brains = synthetic_brains(
        2, spacing=8.0, shape=[20, 24, 20], atrophy=0.6, modality="grey-matter", seed=0, progress=False
    )
    labels = brain_regions(brains, "mni").atlas.labels
    rows = []
    for mask in context_masks(synthetic_run):
        hidden = 1 - mask.astype(np.float64)
        rows.append([hidden[labels == n].mean() for n in np.unique(labels) if n])
    found = []
    for i, j in ((0, 1), (2, 3)):
        a, b = np.array(rows[i]), np.array(rows[j])
        found.append((a @ b) / np.sqrt((a @ a) * (b @ b)))
    assert values(synthetic_run)["ROI cosine, inter-run"] == pytest.approx(np.mean(found), abs=1e-4)


def test_report_opens_offline_and_its_viewer_moves(synthetic_run, opens_offline) -> None:
    opens_offline(synthetic_run / "ad_mask.html", len(FIGURES), "hidden, fold 2, run 1")


def test_a_second_run_repeats_no_finished_optimisation(synthetic_run) -> None:
    written = {path: path.stat().st_mtime_ns for path in (synthetic_run / "maps").rglob("*.*")}
    lost = next(
        path for path in sorted(written) if path.name.startswith("fold-2_run-1") and path.suffix == ".gz"
    )
    lost.unlink()
    run_study("ad_mask", parameters=TINY, out=synthetic_run, progress=False)
    again = {path: path.stat().st_mtime_ns for path in (synthetic_run / "maps").rglob("*.*")}
    assert again.keys() == written.keys()
    changed = {path.name.rsplit("_", 1)[0] for path in written if again[path] != written[path]}
    assert changed == {lost.name.rsplit("_", 1)[0]}


def test_a_network_of_ones_own_alone(synthetic_run, weights_of, tmp_path: Path) -> None:
    manifest = json.loads((synthetic_run / "manifest.json").read_text())
    weights = weights_of(synthetic_run)
    parameters = {**TINY, "model": str(weights), "n_permuted": 0, "n_single": 0, "l1_grid": [1.0]}
    run_study("ad_mask", parameters=parameters, out=tmp_path, progress=False)
    known = values(tmp_path)
    assert "prob_CNN, own" in known
    assert "prob_CNN, inter-run" not in known
    own = json.loads((tmp_path / "manifest.json").read_text())
    assert own["status"] == "done"
    assert set(own["weights"]) == {"fold 1, run 1"}
    assert own["data"] == manifest["data"]


def test_architectures_are_searched(tmp_path: Path) -> None:
    """Up to the trainings: the winner stands in the manifest and is what is trained."""
    parameters = {"n_architectures": 2, "max_epochs": 1}
    space = before(tmp_path, "context_accuracies", **parameters)
    exec("nets, _ = study.folds_and_runs(model, network, folds, n_runs=1, **training_options)", space)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert len(manifest["architectures"]) == 2
    assert {net.name for net in space["nets"].values()} == {manifest["architectures"][0]["network"]}


def before(folder: Path, mark: str, **parameters: object) -> dict[str, object]:
    """Run the notebook's cells in this process, before the line that holds `mark`; what they defined."""
    cells = [cell.source for cell in nbformat.read(NOTEBOOK, 4).cells if cell.cell_type == "code"]
    space: dict[str, object] = {"display": lambda *_: None}
    for i, source in enumerate(cells):
        if mark in source:
            lines = source.splitlines()
            cut = next(n for n, line in enumerate(lines) if "study.folds_and_runs" in line)
            exec(compile("\n".join(lines[:cut]), f"cell {i}", "exec"), space)
            return space
        exec(compile(source, f"cell {i}", "exec"), space)
        if i == 0:
            space |= {**TINY, "n_subjects": 16, "output_dir": str(folder), **parameters}
    raise AssertionError(f"no cell has {mark}")


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"n_runs": 1}, "n_runs=1: .*two or more of both"),
        ({"n_folds": 1}, "n_folds=1, .*two or more of both"),
        ({"l1_grid": [1.0, 1.0]}, r"l1 \[1.0, 1.0\]; expected one weight or more, each once"),
        ({"l2": -1.0}, "l2=-1.0; expected a number of 0 or more"),
        ({"reduction": "median"}, "reduction='median' is unknown"),
        ({"k": 38}, "k=38: expected 1 or more"),
        ({"n_subjects": -3}, "n_subjects=-3"),
    ],
)
def test_what_does_not_fit_ends_before_the_training(tmp_path, parameters, message) -> None:
    with pytest.raises(ParameterError, match=message):
        before(tmp_path, "study.folds_and_runs", **parameters)


def test_the_paper_preset_is_the_posters_grid_and_its_folds() -> None:
    from xaitools.reports.parameters import read_preset

    paper = read_preset(NOTEBOOK, "paper")
    published = read_published("ad_mask").set_index("metric")["value"]
    assert (paper["n_folds"], paper["n_runs"]) == (published["folds"], published["runs"])
    assert paper["l1_grid"] == [0.1, 0.01, 0.001, 0.0001]
    assert paper["shape"] == [121, 145, 121]
    assert set(paper) <= set(read_parameters(NOTEBOOK))


def test_real_heads(tmp_path: Path, real_data: Path) -> None:
    """Plain Papermill, as a user would call it without our runner: old against young."""
    parameters = {
        **TINY, "data_dir": str(real_data / "ixi"), "label_column": "Age", "spacing": 8.0, "shape": [24, 28, 24],
        "classes": {"young": "< 40", "old": ">= 60"}, "space": "centered", "brain_mask": "dseg", "n_subjects": 0,
        "output_dir": str(tmp_path), "n_permuted": 0,
    }  # fmt: skip
    executed = tmp_path / "ad_mask.ipynb"
    papermill.execute_notebook(NOTEBOOK, executed, parameters, progress_bar=False, cwd=str(tmp_path))
    to_html(executed, tmp_path / "ad_mask.html")
    check_folder(tmp_path)
    accuracies = [
        float(row["value"]) for row in metrics(tmp_path) if row["metric"] == "balanced accuracy, test"
    ]
    assert max(accuracies) > 0.6
    assert not any(name.startswith("planted") for name in values(tmp_path))
    assert "nobody knows where it is" in (tmp_path / "ad_mask.html").read_text()
