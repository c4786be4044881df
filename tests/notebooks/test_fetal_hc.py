"""The fetal head circumference study as a user runs it: through Papermill, on synthetic and on real ultrasound."""

import csv
import json
import re
import shutil
from pathlib import Path

import numpy as np
import papermill
import pytest

from xaitools.errors import XaitoolsError
from xaitools.maps import load_map
from xaitools.reports.html import to_html
from xaitools.reports.runner import run_study
from xaitools.study.notebooks import find_notebook, read_parameters

EIGHT = read_parameters(find_notebook("fetal_hc"))["methods"].default
TINY = {"n_subjects": 40, "max_epochs": 2, "n_explained": 4, "steps": 2, "draws": 2}
NETWORKS = ("resnet10", "vgg8")
FIGURES = {
    "images", "predictions", "panel", "process", "error_curves", "aopc", "contour", "best_images", "worst_images",
    *(f"{kind}_{name}" for kind in ("training", "comparison") for name in NETWORKS),
}  # fmt: skip


@pytest.fixture(scope="module")
def synthetic_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fetal")
    run_study("fetal_hc", parameters=TINY, out=folder, progress=False)
    return folder


@pytest.fixture(scope="module")
def real_run(tmp_path_factory: pytest.TempPathFactory, real_data: Path) -> Path:
    """Plain Papermill, as a user would call it without our runner."""
    folder = tmp_path_factory.mktemp("hc18")
    notebook = Path(__file__).parents[2] / "notebooks" / "fetal_hc.ipynb"
    executed = folder / "fetal_hc.ipynb"
    parameters = {"data_dir": str(real_data / "hc18"), "n_subjects": 0, "output_dir": str(folder)}
    parameters |= {"max_epochs": 14, "n_explained": 10, "steps": 3, "draws": 2, "networks": ["resnet10"]}
    papermill.execute_notebook(notebook, executed, parameters, progress_bar=False, cwd=str(folder))
    to_html(executed, folder / "fetal_hc.html")
    return folder


def metrics(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def check_folder(folder: Path, networks: tuple[str, ...]) -> None:
    rows = metrics(folder)
    for network in networks:
        own = [row for row in rows if row["model"] == network]
        for metric in ("AOPC, regression", "AOPC, classification"):
            values = {row["method"]: float(row["value"]) for row in own if row["metric"] == metric}
            assert values.keys() == {*EIGHT, "random"}
            assert all(np.isfinite(value) for value in values.values())
        on_skull = [float(row["value"]) for row in own if row["metric"] == "AUC on the skull"]
        assert len(on_skull) == 8
        assert all(0 <= value <= 1 for value in on_skull)
        lost = {
            row["method"]: float(row["value"]) for row in own if row["metric"].endswith("biases set to zero")
        }
        assert lost.keys() == {"lrp[epsilon]", "deep_taylor"}
        assert max(lost.values()) < 1e-3
        (r,) = [float(row["value"]) for row in own if row["metric"] == "correlation of LRP and I*G"]
        assert r > 0.999
        explained = {path.name.split("_desc")[0] for path in (folder / "maps" / network).glob("*.npz")}
        assert explained
        for sample in explained:
            for method in EIGHT:
                array = load_map(folder / "maps" / network, sample, method)
                assert array is not None
                assert array.shape == (128, 128)
                assert np.isfinite(array).all()
                assert array.any()
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["status"] == "done"
    assert {"data", "training", "attribution", "conservation", "perturbation"} <= manifest["seconds"].keys()


def test_synthetic_output_folder(synthetic_run) -> None:
    check_folder(synthetic_run, NETWORKS)
    assert {path.stem for path in (synthetic_run / "figures").glob("*.html")} == FIGURES
    with (synthetic_run / "per_image.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 2 * 8 * 4


def test_report_opens_offline_and_its_viewer_moves(synthetic_run, opens_offline) -> None:
    opens_offline(synthetic_run / "fetal_hc.html", len(FIGURES), "LRP, vgg8")


def test_a_second_run_resumes(synthetic_run) -> None:
    written = {path: path.stat().st_mtime_ns for path in (synthetic_run / "maps").rglob("*.*")}
    lost = next(iter(sorted(written)))
    lost.unlink()
    run_study("fetal_hc", parameters=TINY, out=synthetic_run, progress=False)
    again = {path: path.stat().st_mtime_ns for path in (synthetic_run / "maps").rglob("*.*")}
    assert again.keys() == written.keys()
    assert {path.stem for path in written if again[path] != written[path]} == {lost.stem}


def test_real_images(real_run) -> None:
    """All maps, all numbers, on fetuses that the network was not trained on, and better than the median."""
    check_folder(real_run, ("resnet10",))
    values = {row["metric"]: float(row["value"]) for row in metrics(real_run) if not row["method"]}
    assert values["MAE (px)"] < 0.75 * values["MAE of always saying the median (px)"]
    assert values["MAE (mm)"] < 0.2 * values["MAE (px)"]


def test_real_report_opens_offline(real_run, browser) -> None:
    page = browser.open(real_run / "fetal_hc.html")
    page.wait_for_selector(".main-svg")
    page.locator(".xai-readout:not(:empty)").wait_for()
    assert [url for url in browser.requests if not re.match(r"(file|data|blob):", url)] == []
    assert browser.errors == []


def test_folds_own_network_and_missing_annotations(
    tmp_path: Path, real_data: Path, monkeypatch, person, names_nobody
) -> None:
    """Images without the sonographer's ellipse: the study runs and says why the skull is not judged."""
    source, folder = real_data / "hc18", tmp_path / person / "Müller hc18"
    rows = (source / "training_set_pixel_size_and_HC.csv").read_text().splitlines()
    kept = [rows[0], *rows[1:400:10]]
    (folder / "training_set").mkdir(parents=True)
    (folder / "training_set_pixel_size_and_HC.csv").write_text("\n".join(kept))
    for row in kept[1:]:
        shutil.copy(source / "training_set" / row.split(",")[0], folder / "training_set")
    (tmp_path / "my_networks.py").write_text(
        "from torch import nn\n"
        "def build():\n"
        "    return nn.Sequential(nn.Conv2d(1, 4, 5, 4), nn.ReLU(), nn.Flatten(), nn.Linear(3844, 1))\n"
    )
    monkeypatch.chdir(tmp_path)
    parameters = {
        **TINY,
        "data_dir": str(folder),
        "n_folds": 3,
        "model": "my_networks:build",
        "mode": "replace",
    }
    run_study("fetal_hc", parameters=parameters, out=tmp_path / "out", progress=False)
    found = {row["metric"] for row in metrics(tmp_path / "out")}
    assert "AOPC, regression" in found
    assert "AUC on the skull" not in found
    missing = (
        "on the skull is not measured: the skull band is missing"
        in (tmp_path / "out/fetal_hc.html").read_text()
    )
    assert missing
    names_nobody(tmp_path / "out")


def test_a_classifier_is_refused(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "my_classifier.py").write_text(
        "from torch import nn\ndef build():\n    return nn.Sequential(nn.Flatten(), nn.Linear(16384, 2))\n"
    )
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        XaitoolsError, match=r"gives 2 outputs for an image of shape \(1, 128, 128\); expected 1"
    ):
        run_study(
            "fetal_hc",
            parameters={**TINY, "model": "my_classifier:build"},
            out=tmp_path / "out",
            progress=False,
        )


@pytest.fixture
def gelu_network(tmp_path: Path, monkeypatch) -> str:
    (tmp_path / "my_gelu.py").write_text(
        "from torch import nn\n"
        "def build():\n"
        "    return nn.Sequential(nn.Conv2d(1, 2, 9, 8), nn.GELU(), nn.Flatten(), nn.Linear(450, 1))\n"
    )
    monkeypatch.chdir(tmp_path)
    return "my_gelu:build"


def test_layers_without_a_rule_are_named(tmp_path: Path, gelu_network) -> None:
    parameters = {**TINY, "model": gelu_network, "methods": ["guided_backprop"]}
    with pytest.raises(XaitoolsError, match="ReLU"):
        run_study("fetal_hc", parameters=parameters, out=tmp_path / "out", progress=False)


def test_a_method_that_cannot_explain_the_network_does_not_cost_the_others(
    tmp_path: Path, gelu_network
) -> None:
    parameters = {
        **TINY,
        "model": gelu_network,
        "methods": ["guided_backprop", "gradient", "gradient+absolute"],
    }
    run_study("fetal_hc", parameters=parameters, out=tmp_path / "out", progress=False)
    aopc = {row["method"] for row in metrics(tmp_path / "out") if row["metric"] == "AOPC, regression"}
    assert aopc == {"gradient", "gradient+absolute", "random"}
    report = (tmp_path / "out" / "fetal_hc.html").read_text()
    assert "Without maps: guided_backprop" in report
    assert "0 undecided, 4 not tested" in report
