"""What a failing run leaves behind, on folders, files, tables and headers that bear a person's name."""

import csv
import json
from pathlib import Path

import pytest

from xaitools.errors import XaitoolsError
from xaitools.reports.html import to_html
from xaitools.reports.runner import run_study
from xaitools.reports.sweep import sweep


@pytest.fixture
def data(tmp_path: Path, person, write_dicom, name_everything) -> dict[str, str]:
    """Slices without a position or truncated, and a table that lists one of them twice."""
    folder = tmp_path / person / "b\\c d" / "Müller"
    for i in range(3):
        path = write_dicom(
            folder / f"Jürgen Müller {i}.dcm", change=name_everything, series=f"1.2.{i}", RescaleSlope=None
        )
    path.write_bytes(path.read_bytes()[:600])
    table = folder.parent / "Söhne.csv"
    table.write_text(
        "subject,file,label,name\n"
        + "".join(f"Mustermann{i},Jürgen Müller {i}.dcm,{i % 2},Söhne {i}\n" for i in (0, 1, 2, 2)),
        encoding="utf-8",
    )
    return {"data_dir": str(folder), "table": str(table)}


def test_a_failing_run_names_nobody(data, notebooks, tmp_path, names_nobody, secrets) -> None:
    out = tmp_path / "out"
    with pytest.raises(XaitoolsError, match="private failed in 'Fail'"):
        run_study(notebooks / "private.ipynb", parameters=data, out=out, progress=False)
    executed = json.loads((out / "private.ipynb").read_text(encoding="utf-8"))
    kinds = {output["output_type"] for cell in executed["cells"] for output in cell.get("outputs", ())}
    assert {"stream", "display_data", "error"} <= kinds
    manifest = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["status"] == "failed"
    assert manifest["parameters"] == {name: f"{{{name}}}" for name in ("data_dir", "table", "output_dir")}
    assert "{table}" in manifest["error"]
    assert "file 3 of 3 (sorted) belongs to several rows" in manifest["error"]
    assert set(manifest) >= {"ct", "ct_table", "ct_no_table", "ct_masks", "fetal", "brains"}
    to_html(out / "private.ipynb", out / "private.html")
    names_nobody(out, *(secret for secret in secrets if len(secret) > 6))


def test_a_sweep_over_folders_names_nobody_and_tells_them_apart(
    data, notebooks, tmp_path, names_nobody
) -> None:
    folders = [data["data_dir"], data["data_dir"] + "/none"]
    out = tmp_path / "out"
    table = sweep(notebooks / "broken.ipynb", {"data_dir": folders}, out=out, progress=False)
    names_nobody(out)
    with table.with_name("runs.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len({row["grid_data_dir"] for row in rows}) == 2
    assert all("label column is missing" in row["error"] for row in rows)
