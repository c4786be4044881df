"""The study of what networks use on heads, as a user runs it: through Papermill, on synthetic and on real heads."""

import csv
import json
from pathlib import Path

import nbformat
import numpy as np
import papermill
import pytest
from scipy.spatial import cKDTree

from xaitools.data import brain_volumes, k_folds
from xaitools.errors import DataError, MethodError, ParameterError
from xaitools.maps import load_map
from xaitools.reports.html import to_html
from xaitools.reports.parameters import read_preset
from xaitools.reports.runner import run_study
from xaitools.study import task_heads
from xaitools.study.notebooks import find_notebook, read_parameters
from xaitools.study.preprocessing import PREPROCESSINGS

NOTEBOOK = find_notebook("brain_mri")
FIGURES = {
    "heads", "grad_cam_side", "grad_cam_front", "methods", "kernels", "favourites", "surrogate", "prototypes",
    "neighbours",
}  # fmt: skip
TINY = {
    "n_subjects": 16, "spacing": 8.0, "n_folds": 2, "max_epochs": 3, "patience": 3, "pretrain_epochs": 1,
    "methods": ["grad_cam[features.6]", "guided_backprop"], "known_methods": ["gradient"], "n_permutations": 3,
    "n_explained": 1, "known_epochs": 1, "n_left_out": 3, "influence_epochs": 1, "ascent_steps": 2, "tolerance": 100.0,
}  # fmt: skip
EFFECTS = {"size_effect": 0.15, "face_effect": 0.35, "brain_effect": 0.6}


@pytest.fixture(scope="module")
def synthetic_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("heads")
    run_study("brain_mri", parameters=TINY, out=folder, progress=False)
    return folder


def metrics(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def shown(folder: Path) -> str:
    executed = nbformat.read(folder / "brain_mri.ipynb", 4)
    return "".join(
        str(output) for cell in executed.cells if cell.cell_type == "code" for output in cell.outputs
    )


def check_folder(folder: Path) -> None:
    rows = metrics(folder)
    for part in ("training", "validation"):
        found = [(row["method"], row["fold"]) for row in rows if row["metric"] == f"accuracy, {part}"]
        assert found == [(name, str(fold)) for name in PREPROCESSINGS for fold in (1, 2)]
    shares = [
        float(row["value"])
        for row in rows
        if row["metric"].startswith("share of the explanation: ") and "95" not in row["metric"]
    ]
    assert shares
    assert all(0 <= value <= 1 for value in shares)
    assert {path.stem for path in (folder / "figures").glob("*.html")} | {"surrogate"} == FIGURES
    assert json.loads((folder / "manifest.json").read_text())["status"] == "done"


def test_synthetic_output_folder(synthetic_run) -> None:
    check_folder(synthetic_run)
    known = {(row["method"], row["metric"]) for row in metrics(synthetic_run)}
    assert ("skull stripped, optimal scaling", "accuracy, validation, resized by class, mean") in known
    assert ("none", "accuracy, validation, resized by class, mean") not in known
    assert "influence: Spearman with leaving one out" in {name for _, name in known}


def test_published_values_stand_beside_those_of_the_run(synthetic_run) -> None:
    text = shown(synthetic_run)
    for printed in ("0.991 (0.001)", "0.916 (0.094)", "0.933 (0.018)", "0.964 (0.020)", "0.984 (0.075)"):
        assert printed in text
    assert "91.9 % for the network and 90 % for an SVM on voxels" in text
    assert "published comparison" in text


def test_shares_follow_from_the_maps_on_disk(synthetic_run) -> None:
    """The share outside the brain and its rim once more, slowly, from the files of the run."""
    heads = task_heads("sex", 16, **EFFECTS, spacing=8.0, seed=0, progress=False)
    found = []
    for number, (_, validation) in enumerate(k_folds(heads, 2, seed=0), 1):
        for i, name in enumerate(validation.names):
            folder = synthetic_run / "maps" / "cams" / "none" / f"fold-{number}_run-1"
            values = load_map(folder, name, "grad_cam[features.6]", volume=True)
            assert values is not None
            brain = np.argwhere(validation.label_map(i) > 0)
            positive = np.maximum(values, 0).astype(np.float64)
            if not positive.any():
                continue
            places = np.argwhere(positive > 0)
            apart = cKDTree(brain).query(places)[0]
            far = positive[tuple(places[apart > 1.01].T)].sum()  # a voxel of 8 mm is the rim
            found.append(far / positive.sum())
    row = next(
        row
        for row in metrics(synthetic_run)
        if (row["method"], row["metric"]) == ("none", "share of the explanation: outside")
    )
    assert float(row["value"]) == pytest.approx(np.mean(found), abs=0.02)


def test_report_opens_offline_and_its_viewer_moves(synthetic_run, opens_offline) -> None:
    n_figures = len(list((synthetic_run / "figures").glob("*.html")))
    opens_offline(synthetic_run / "brain_mri.html", n_figures, "Guided BP, brain alone")


def before(folder: Path, mark: str, **parameters: object) -> dict[str, object]:
    """Run the notebook's cells in this process, before the one that holds `mark`; what they defined."""
    cells = [cell.source for cell in nbformat.read(NOTEBOOK, 4).cells if cell.cell_type == "code"]
    space: dict[str, object] = {"display": lambda *_: None}
    for i, source in enumerate(cells):
        if mark in source:
            return space
        exec(compile(source, f"cell {i}", "exec"), space)
        if i == 0:
            space |= {**TINY, "n_subjects": 8, "output_dir": str(folder), **parameters}
    raise AssertionError(f"no cell has {mark}")


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        ({"n_folds": 1}, ParameterError, "n_folds=1; expected at least 2"),
        ({"n_folds": 5}, DataError, "too few subjects: 4 of class 'female'"),
        ({"task": "age"}, ParameterError, "task='age' is unknown"),
        ({"methods": []}, ParameterError, "methods is empty"),
        ({"methods": ["grad_cam[["]}, MethodError, "grad_cam"),
        ({"size_effect": 3.0}, ParameterError, "size_effect=3"),
    ],
)
def test_what_does_not_fit_ends_before_the_training(tmp_path, parameters, error, message) -> None:
    with pytest.raises(error, match=message):
        before(tmp_path, "compare_classifiers", **parameters)


def test_the_disease_changes_the_brain_and_nothing_else(tmp_path) -> None:
    space = before(tmp_path, "sets_table", task="disease")
    heads = space["heads"]
    assert heads.class_names == ("CN", "AD")
    sizes = brain_volumes(heads)
    same = brain_volumes(
        task_heads("disease", 8, **{**EFFECTS, "brain_effect": 0.0}, spacing=8.0, seed=0, progress=False)
    )
    np.testing.assert_allclose(sizes, same, rtol=0.02)
    assert {"hippocampus"} < set(heads.info["regions"])


def test_the_paper_preset_is_the_slides_network_and_layer() -> None:
    paper = read_preset(NOTEBOOK, "paper")
    assert (paper["network"], paper["grad_cam"], paper["n_folds"]) == ("head_cnn", "grad_cam[features.10]", 3)
    assert set(paper) <= set(read_parameters(NOTEBOOK))


def test_real_heads(tmp_path: Path, real_data: Path) -> None:
    """Plain Papermill, as a user would call it without our runner: sex, of whole heads as they were scanned."""
    parameters = {
        **TINY, "data_dir": str(real_data / "ixi"), "n_subjects": 16, "shape": [22, 30, 30], "known_targets": [],
        "output_dir": str(tmp_path), "n_left_out": 0, "pretrain_epochs": 0,
    }  # fmt: skip
    executed = tmp_path / "brain_mri.ipynb"
    papermill.execute_notebook(NOTEBOOK, executed, parameters, progress_bar=False, cwd=str(tmp_path))
    to_html(executed, tmp_path / "brain_mri.html")
    check_folder(tmp_path)
    assert "In short." in shown(tmp_path)
