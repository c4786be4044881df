"""The CT study as a user runs it: through Papermill, on synthetic and on real slices."""

import csv
import inspect
import json
import re
import shutil
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import papermill
import pytest

from xaitools.data import load_ct
from xaitools.maps import load_map
from xaitools.phantoms.chest import chest_hu
from xaitools.reports.html import to_html
from xaitools.reports.runner import run_study
from xaitools.study.notebooks import find_notebook, read_parameters

THIRTY = read_parameters(find_notebook("ct_contrast"))["methods"].default
TINY = {"n_subjects": 60, "max_epochs": 2, "n_explained": 3, "steps": 2, "draws": 2, "n_fractions": 3}
FIGURES = ["slices", "training", "panel", "quality_auc", "quality_dice", "fidelity_area", "fidelity_curves"]


@pytest.fixture(scope="module")
def synthetic_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ct")
    run_study("ct_contrast", parameters=TINY, out=folder, progress=False)
    return folder


@pytest.fixture(scope="module")
def real_run(tmp_path_factory: pytest.TempPathFactory, real_data: Path) -> Path:
    """Plain Papermill, as a user would call it without our runner."""
    folder = tmp_path_factory.mktemp("siim")
    notebook = Path(__file__).parents[2] / "notebooks" / "ct_contrast.ipynb"
    executed = folder / "ct_contrast.ipynb"
    parameters = {"data_dir": str(real_data / "siim_ct"), "n_subjects": 0, "output_dir": str(folder)}
    parameters |= {"steps": 4, "draws": 3}
    papermill.execute_notebook(notebook, executed, parameters, progress_bar=False, cwd=str(folder))
    to_html(executed, folder / "ct_contrast.html")
    return folder


def test_what_the_loader_may_assume_reaches_it() -> None:
    """The cell that loads the data, with other values than the defaults of its parameters."""
    told = {"skip_unknown": True, "check_hu": False, "orientation": "LPS", "label_column": "agent"}
    notebook = find_notebook("ct_contrast")
    parameters = {name: own.default for name, own in read_parameters(notebook).items()}
    assert all(parameters[name] == inspect.signature(load_ct).parameters[name].default for name in told)
    (cell,) = [
        source
        for cell in json.loads(notebook.read_text())["cells"]
        if cell["cell_type"] == "code" and "load_ct(" in (source := "".join(cell["source"]))
    ]

    class Stage:
        stage = staticmethod(nullcontext)

    def loader(folder, **arguments):
        raise LookupError(arguments)

    space = {**parameters, **told, "data_dir": "somewhere", "run": Stage, "load_ct": loader}
    with pytest.raises(LookupError) as caught:
        exec(cell, space)
    (arguments,) = caught.value.args
    assert {name: arguments[name] for name in told} == told
    assert set(arguments) <= set(inspect.signature(load_ct).parameters)


def metrics(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def check_folder(folder: Path) -> None:
    rows = metrics(folder)
    for metric in ("auc", "dice", "fidelity area"):
        values = {row["method"]: float(row["value"]) for row in rows if row["metric"] == metric}
        assert set(THIRTY) <= values.keys()
        assert all(0 <= value <= 1 for value in values.values())
    explained = {path.name.split("_desc")[0] for path in (folder / "maps").glob("*.npz")}
    assert explained
    for sample in explained:
        for method in THIRTY:
            array = load_map(folder / "maps", sample, method)
            assert array is not None
            assert array.shape == (128, 128)
            assert np.isfinite(array).all()
            assert array.min() >= 0
            assert array.max() > 0
    with (folder / "per_image.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 30 * len(explained)
    assert sorted(path.stem for path in (folder / "figures").glob("*.html")) == sorted(FIGURES)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["status"] == "done"
    assert {"data", "training", "attribution", "quality", "fidelity"} <= manifest["seconds"].keys()


def test_synthetic_output_folder(synthetic_run) -> None:
    check_folder(synthetic_run)
    assert len(list((synthetic_run / "maps").glob("*.npz"))) == 3 * 30


def test_report_opens_offline_and_its_viewer_moves(synthetic_run, opens_offline) -> None:
    opens_offline(synthetic_run / "ct_contrast.html", len(FIGURES), "IGBW SG² region")


def test_a_second_run_resumes(synthetic_run) -> None:
    written = {path: path.stat().st_mtime_ns for path in (synthetic_run / "maps").iterdir()}
    lost = next(iter(sorted(written)))
    lost.unlink()
    run_study("ct_contrast", parameters=TINY, out=synthetic_run, progress=False)
    again = {path: path.stat().st_mtime_ns for path in (synthetic_run / "maps").iterdir()}
    assert again.keys() == written.keys()
    changed = {path.stem for path in written if again[path] != written[path]}
    assert changed == {lost.stem}
    assert json.loads((synthetic_run / "manifest.json").read_text())["weights_from_cache"]


def test_real_slices(real_run) -> None:
    """Patient-wise test accuracy above that of naming the larger class, all maps, all numbers."""
    check_folder(real_run)
    values = {row["metric"]: float(row["value"]) for row in metrics(real_run) if not row["method"]}
    assert values["accuracy"] > values["accuracy of the larger class"] + 0.1


def test_real_report_opens_offline(real_run, browser) -> None:
    page = browser.open(real_run / "ct_contrast.html")
    page.wait_for_selector(".main-svg")
    page.wait_for_selector(".xai-panes canvas, .xai-picture canvas")
    assert [url for url in browser.requests if not re.match(r"(file|data|blob):", url)] == []
    assert browser.errors == []
    leaked = "TCGA-" in page.content()  # the patients' identifiers; the hyphen cannot be base64
    assert not leaked


def test_no_output_names_a_patient(
    tmp_path, write_dicom, name_everything, secrets, person, names_nobody
) -> None:
    """DICOM files whose folder, names, table and headers are full of names, through the whole study."""
    folder, rows = tmp_path / person / "b\\c" / "dicom", ["file,label,name"]
    for i in range(24):
        hu, _ = chest_hu(128, enhanced=bool(i % 2), seed=(i,))

        def change(dataset, i=i):
            name_everything(dataset)
            dataset.PatientID += f"-{i}"
            dataset.ContrastBolusAgent = "Omnipaque" if i % 2 else ""

        path = write_dicom(
            folder / f"Müller {i:02d}.dcm", hu, PixelSpacing=[3, 3], series=f"1.2.{i}", change=change
        )
        rows.append(f"{path.name},{('no', 'yes')[i % 2]},Jürgen {i} Söhne")
    table = folder.parent / "Söhne.csv"
    table.write_text("\n".join(rows), encoding="utf-8")
    out = tmp_path / "out"
    parameters = {**TINY, "data_dir": str(folder), "table": str(table), "methods": ["gradient+absolute"]}
    run_study("ct_contrast", parameters=parameters, out=out, progress=False)
    written = [path for path in out.rglob("*") if path.is_file()]
    assert {"ct_contrast.html", "ct_contrast.ipynb", "manifest.json", "metrics.csv"} <= {
        path.name for path in written
    }
    for path in written:
        content = path.read_bytes()
        for secret in filter(lambda secret: len(secret) > 6, secrets):  # base64 holds shorter ones by chance
            leaked = secret.encode() in content
            assert not leaked, f"{secret} in {path.name}"
            assert secret not in path.name
    names_nobody(out)


def test_slices_without_masks_are_judged_by_fidelity_alone(tmp_path, write_dicom) -> None:
    for i in range(24):
        hu, _ = chest_hu(128, enhanced=bool(i % 2), seed=(i,))
        agent = "Omnipaque" if i % 2 else ""
        write_dicom(
            tmp_path / "dicom" / f"{i:02d}.dcm",
            hu,
            patient=f"p{i}",
            series=f"1.2.{i}",
            ContrastBolusAgent=agent,
        )
    parameters = {**TINY, "data_dir": str(tmp_path / "dicom"), "methods": ["gradient+absolute"], "masks": ""}
    run_study("ct_contrast", parameters=parameters, out=tmp_path / "out", progress=False)
    found = {row["metric"] for row in metrics(tmp_path / "out")}
    assert "fidelity area" in found
    assert "auc" not in found


def test_chosen_methods_keep_all_their_maps_and_lend_the_paper_no_verdict(tmp_path) -> None:
    """A copy of the notebook, by plain Papermill in another folder: labels that would clash, nothing to compare."""
    notebook = shutil.copy(find_notebook("ct_contrast"), tmp_path / "my_copy.ipynb")
    methods = ["occlusion[32:16]", "occlusion[16:8]", "gradient", "gradient+absolute"]
    parameters = {**TINY, "methods": methods, "output_dir": str(tmp_path / "out")}
    executed = tmp_path / "executed.ipynb"
    papermill.execute_notebook(notebook, executed, parameters, progress_bar=False, cwd=str(tmp_path))
    found = metrics(tmp_path / "out")
    for metric in ("auc", "dice", "fidelity area"):
        assert {row["method"] for row in found if row["metric"] == metric} >= {*methods}
    assert not [row for row in found if row["metric"].startswith("difference")]
    to_html(executed, tmp_path / "report.html")
    shown = (tmp_path / "report.html").read_text()
    for label in ("OCC 32:16", "OCC 16:8", "BP abs"):
        assert label in shown
    assert "agrees with 0 and differs from 0; 0 undecided, 9 not tested" in shown
    assert "From all maps the absolute value is taken" not in shown
    assert "The absolute value is taken from 1 of 4 maps" in shown
