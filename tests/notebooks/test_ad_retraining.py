"""The study of robustness to retraining as a user runs it: through Papermill, on synthetic and on real brains."""

import csv
import inspect
import json
import shutil
from pathlib import Path

import nbformat
import nibabel
import numpy as np
import pandas as pd
import papermill
import pytest

from xaitools.data.brain import load_brains
from xaitools.errors import DataError, DataFileError, MethodError, ParameterError, XaitoolsError
from xaitools.maps import load_map
from xaitools.phantoms import synthetic_brains
from xaitools.reports.html import to_html
from xaitools.reports.runner import run_study
from xaitools.study.notebooks import find_notebook, read_parameters

METHODS = read_parameters(find_notebook("ad_retraining"))["methods"].default
FIGURES = {"brains", "mean_maps", "coherence", "regions_sum", "regions_density", "regions_gain"}
TINY = {
    "n_subjects": 60, "n_runs": 2, "max_epochs": 25, "learning_rate": 0.0003, "n_explained": 8,
    "atrophy": 0.6, "k": 3,
}  # fmt: skip


NOTEBOOK = find_notebook("ad_retraining")


@pytest.fixture(scope="module")
def synthetic_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ad")
    run_study("ad_retraining", parameters=TINY, out=folder, progress=False)
    return folder


@pytest.fixture(scope="module")
def real_run(tmp_path_factory: pytest.TempPathFactory, real_data: Path) -> Path:
    """Plain Papermill, as a user would call it without our runner."""
    folder = tmp_path_factory.mktemp("ixi")
    executed = folder / "ad_retraining.ipynb"
    parameters = {
        "data_dir": str(real_data / "ixi"), "label_column": "Age", "classes": {"young": "< 40", "old": ">= 60"},
        "space": "centered", "brain_mask": "dseg", "n_subjects": 0,
        "output_dir": str(folder), "n_runs": 2, "max_epochs": 25, "n_explained": 8, "k": 10,
    }  # fmt: skip
    papermill.execute_notebook(NOTEBOOK, executed, parameters, progress_bar=False, cwd=str(folder))
    to_html(executed, folder / "ad_retraining.html")
    return folder


@pytest.fixture(scope="module")
def bids(tmp_path_factory: pytest.TempPathFactory, person: str) -> Path:
    """Synthetic brains as a BIDS folder of patients, AD, and controls, CN; patients come first in the alphabet.

    Folder, participants, with them the files, a column, the description and the headers bear names.
    """
    folder = tmp_path_factory.mktemp("bids") / person
    brains = synthetic_brains(60, spacing=5.0, atrophy=0.6, seed=1, shape=[32, 40, 32], progress=False)
    rows = ["participant_id\tdiagnosis\tname"]
    for i, name in enumerate(name.replace("-", "-Mustermann") for name in brains.names):
        path = folder / name / "anat" / f"{name}_T1w.nii.gz"
        path.parent.mkdir(parents=True)
        scan = nibabel.Nifti1Image(brains.images[i][0].numpy(), brains.affine)
        scan.header["descrip"] = scan.header["db_name"] = f"Müller {i}".encode()
        nibabel.save(scan, path)
        rows.append(f"{name}\t{('CN', 'AD')[brains.labels[i]]}\tMüller {i}")
    (folder / "participants.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    (folder / "dataset_description.json").write_text(
        '{"Name": "Study of Mustermann", "BIDSVersion": "1.9.0"}'
    )
    return folder


def before_training(folder: Path, **parameters: object) -> dict[str, object]:
    """Run the notebook's cells up to its first figure, in this process; what they defined."""
    cells = [cell.source for cell in nbformat.read(NOTEBOOK, 4).cells if cell.cell_type == "code"]
    last = next(i for i, source in enumerate(cells) if "study.saved(" in source)
    space: dict[str, object] = {"display": lambda *_: None}
    for i, source in enumerate(cells[:last]):
        exec(compile(source, f"cell {i}", "exec"), space)
        if i == 0:
            space |= {"n_subjects": 12, "spacing": 10.0, "shape": [16, 20, 16], "output_dir": str(folder)}
            space |= parameters
    return space


def metrics(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def check_folder(folder: Path, n_runs: int) -> None:
    rows = metrics(folder)
    for metric in ("L2, true positives", "L2, true negatives", "rank correlation, true positives"):
        values = {row["method"]: float(row["value"]) for row in rows if row["metric"] == metric}
        assert list(values) == METHODS
        assert all(np.isfinite(value) for value in values.values())
    for measure in ("sum", "density", "gain"):
        found = [float(row["value"]) for row in rows if row["metric"].endswith(f"coherence, {measure}")]
        assert len(found) == 4
        assert all(0 <= value <= 100 for value in found)
    for number in range(1, n_runs + 1):
        samples = {path.name.split("_desc")[0] for path in (folder / f"maps/run-{number}").glob("*.nii.gz")}
        assert samples
        for sample in samples:
            for method in METHODS:
                array = load_map(folder / f"maps/run-{number}", sample, method, volume=True)
                assert array is not None
                assert array.ndim == 3
                assert np.isfinite(array).all()
                assert array.any()
    assert {path.stem for path in (folder / "figures").glob("*.html")} == FIGURES
    assert json.loads((folder / "manifest.json").read_text())["status"] == "done"


def test_synthetic_output_folder(synthetic_run) -> None:
    check_folder(synthetic_run, 2)
    rows = metrics(synthetic_run)
    accuracies = [float(row["value"]) for row in rows if row["metric"] == "balanced accuracy"]
    assert max(accuracies) > 0.7
    planted = {row["method"]: float(row["value"]) for row in rows if row["metric"] == "planted regions, auc"}
    assert len(planted) == 4
    assert planted["guided_backprop"] > 0.6
    noise = {row["metric"]: float(row["value"]) for row in rows if "coherence of noise" in row["metric"]}
    assert noise["top-3 coherence of noise, sum"] > 2 * noise["top-3 coherence of noise, density"]


@pytest.mark.parametrize("label", ["patient", "control"])
def test_distances_and_means_follow_from_the_maps_on_disk(synthetic_run, label) -> None:
    """Table 1 once more, slowly, from the files of the run."""
    images = pd.read_csv(synthetic_run / "per_image.csv")
    method, means = "guided_backprop", []
    for run in ("run 1", "run 2"):
        folder = synthetic_run / "maps" / run.replace(" ", "-")
        maps = []
        for row in images.to_dict("records"):
            found = load_map(folder, row["sample"], method, volume=True)
            if found is not None and row["label"] == label and row[run] == label:
                maps.append(found.astype(np.float64))
        mean = sum(maps) / len(maps)
        means.append(mean / abs(mean).max())
    group = "true positives" if label == "patient" else "true negatives"
    (value,) = (
        float(row["value"])
        for row in metrics(synthetic_run)
        if row["method"] == method and row["metric"] == f"L2, {group}"
    )
    assert value == pytest.approx(np.sqrt(((means[0] - means[1]) ** 2).sum()), rel=1e-5)


def test_report_opens_offline_and_its_viewer_moves(synthetic_run, opens_offline) -> None:
    opens_offline(synthetic_run / "ad_retraining.html", len(FIGURES), "Occlusion, run 2")


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


def test_patients_are_positive_and_regions_ours_in_a_bids_folder(bids, tmp_path: Path, names_nobody) -> None:
    parameters = {
        **TINY,
        "data_dir": str(bids),
        "n_subjects": 0,
        "methods": ["guided_backprop", "lrp[epsilon]"],
    }
    run_study("ad_retraining", parameters=parameters, out=tmp_path, progress=False)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["positive_class"] == "AD"
    assert "points on the MNI152 templates" in manifest["regions_from"]
    names = {row["metric"] for row in metrics(tmp_path)}
    assert {"AD found", "CN found", "top-3 coherence, gain"} <= names
    assert not any(name.startswith("planted") for name in names)
    names_nobody(tmp_path)


def test_runs_that_recognise_only_one_class_are_named(tmp_path: Path) -> None:
    parameters = {**TINY, "max_epochs": 1, "learning_rate": 1e-9}
    with pytest.raises(XaitoolsError, match="run 1, run 2: not one of the 8 explained brains of a class"):
        run_study("ad_retraining", parameters=parameters, out=tmp_path / "out", progress=False)


def test_diverged_runs_are_named(tmp_path: Path) -> None:
    parameters = {**TINY, "max_epochs": 2, "learning_rate": 1e30}
    with pytest.raises(XaitoolsError, match=r"run 1: the validation loss was never finite.*set skip_failed"):
        run_study("ad_retraining", parameters=parameters, out=tmp_path / "out", progress=False)


def test_known_regions_of_an_atlas_are_those_the_disease_touches(tmp_path: Path) -> None:
    parameters = {**TINY, "atlas": "mni", "methods": ["guided_backprop"]}
    run_study("ad_retraining", parameters=parameters, out=tmp_path, progress=False)
    chart = (tmp_path / "figures" / "regions_density.html").read_text()
    assert "known to matter" in chart
    planted = [float(row["value"]) for row in metrics(tmp_path) if row["metric"] == "planted regions, auc"]
    assert planted[0] > 0.6


def test_what_fits_is_said_before_the_training(tmp_path: Path) -> None:
    space = before_training(tmp_path, methods=["occlusion[2]", "occlusion[4]", "gradient"])
    assert space["positive"] == "patient"
    assert space["regions"].source == "the label map of each brain"
    assert "MNI152" in before_training(tmp_path, atlas="mni")["regions"].source


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        ({"n_runs": 1}, ParameterError, "n_runs=1: the agreement of runs needs two or more"),
        (
            {"methods": ["occlusion[17]"]},
            ParameterError,
            r"occlusion\[17\]: a window of 17 voxels .* larger than",
        ),
        ({"methods": []}, ParameterError, "methods is empty"),
        (
            {"model": "only_one.pt"},
            ParameterError,
            "model='only_one.pt': the agreement of runs needs two or more",
        ),
        ({"k": 0}, ParameterError, "k=0: expected 1 or more of the 10 regions"),
        ({"k": 10}, ParameterError, "k=10: expected 1 or more of the 10 regions, and fewer"),
        ({"methods": ["gradcam"]}, MethodError, "Unknown method"),
        ({"atlas": "nowhere.nii"}, DataFileError, "no such file"),
        ({"n_subjects": -3}, ParameterError, "n_subjects=-3"),
        ({"data_dir": "nowhere"}, DataFileError, "nowhere"),
    ],
)
def test_what_does_not_fit_ends_before_the_training(tmp_path, parameters, error, message) -> None:
    with pytest.raises(error, match=message):
        before_training(tmp_path, **parameters)


OFFERED = {
    "table": "people.csv", "label_column": "dx", "classes": {"c": "CN", "p": "AD"}, "missing": ["-4"],
    "subject_column": "code", "session_column": "visit", "image": "**/*.nii", "label_maps": "none",
    "space": "centered", "spacing": 4.0, "shape": [9, 9, 9], "intensity": [0, 90], "brain_mask": "none",
    "orientation": "LAS", "skip_missing": True, "n_subjects": 12,
}  # fmt: skip
OWN = {"unit", "numbers", "cache_dir", "n_jobs", "progress"}  # of regressions and of scripts


def test_the_loader_gets_all_that_it_can_be_told(tmp_path, monkeypatch) -> None:
    def load(data_dir, **arguments):
        assert data_dir == "folder"
        given.append(arguments)
        raise DataError("enough")

    given: list[dict[str, object]] = []
    known = inspect.signature(load_brains).parameters
    monkeypatch.setattr("xaitools.data.load_brains", load)
    for parameters in (OFFERED, {}):
        with pytest.raises(DataError, match="enough"):
            before_training(tmp_path, data_dir="folder", **parameters)
    assert given[0] == OFFERED
    assert given[0].keys() | OWN == known.keys() - {"data_dir"}
    usual = {name for name, value in given[1].items() if value == known[name].default}
    assert {
        "missing",
        "intensity",
        "orientation",
        "subject_column",
        "session_column",
        "skip_missing",
    } <= usual


def test_real_heads_that_do_not_fit(tmp_path, real_data) -> None:
    heads = {"data_dir": str(real_data / "ixi"), "space": "centered", "n_subjects": 16}
    ages = {"label_column": "Age", "classes": {"young": "< 40", "old": ">= 60"}}
    with pytest.raises(ParameterError, match="no atlas for heads as they were scanned"):
        before_training(tmp_path, **heads, **ages, atlas="mni")
    with pytest.raises(DataError, match="no label maps and are not in MNI space"):
        before_training(tmp_path, **heads, **ages, label_maps="none")
    with pytest.raises(ParameterError, match="classes"):
        before_training(tmp_path, **heads, label_column="Age")
    assert before_training(tmp_path, **heads, **ages)["positive"] == "old"


def test_chosen_methods_keep_all_their_maps_and_lend_the_paper_no_verdict(tmp_path: Path) -> None:
    """A copy of the notebook, by plain Papermill in another folder: labels that would clash, one method that fails."""
    notebook = shutil.copy(NOTEBOOK, tmp_path / "my_copy.ipynb")
    methods = ["occlusion[16]", "occlusion[8]", "lrp[epsilon]", "input_x_gradient", "expected_gradients"]
    parameters = {**TINY, "methods": methods, "output_dir": str(tmp_path / "out")}
    executed = tmp_path / "executed.ipynb"
    papermill.execute_notebook(notebook, executed, parameters, progress_bar=False, cwd=str(tmp_path))
    found = metrics(tmp_path / "out")
    for metric in ("L2, true positives", "top-3 coherence, density", "planted regions, auc"):
        assert [row["method"] for row in found if row["metric"] == metric] == methods[:4]
    to_html(executed, tmp_path / "report.html")
    shown = (tmp_path / "report.html").read_text()
    for label in ("Occlusion 16, run 1", "Occlusion 8, run 2", "LRP-ε"):
        assert label in shown
    assert "Without maps: expected_gradients" in shown
    assert "agrees with 0 and differs from 0; 0 undecided, 6 not tested" in shown
    assert "PosixPath" not in shown
