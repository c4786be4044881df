import getpass
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from xaitools.cli import main
from xaitools.reports import doctor as own
from xaitools.reports.doctor import doctor, kind_of


@pytest.fixture
def told(monkeypatch):
    """What is told, without torch, which takes its time, and without the breaks, which versions and disks move."""
    monkeypatch.setattr(own, "_devices", lambda: "cpu")

    def call():
        return dict(" ".join(line.split()).split(": ", 1) for line in doctor())

    return call


def test_a_line_for_all_that_one_is_asked_in_a_report_of_a_fault(told, tmp_path, monkeypatch):
    monkeypatch.setenv("XAITOOLS_CACHE", str(tmp_path))
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "a").write_bytes(bytes(1500))
    found = told()
    assert set(found) == {
        "xaitools", "Python", "Packages", "Processors", "Threads", "Memory", "Studies", "Folders set", "Cache",
        "Output", "Temporary files", "Still pictures", "Real data", "Devices",
    }  # fmt: skip
    assert found["Python"].startswith(platform.python_version())
    for name in ("torch", "captum", "nilearn", "plotly", "papermill", "jupyter_client"):
        assert f"{name} " in found["Packages"], name
    assert "missing: none" in found["Packages"]
    assert found["Cache"].startswith("{XAITOOLS_CACHE}, can be written to")
    assert found["Cache"].endswith("1.5 kB in 1 files")
    assert "ct_contrast" in found["Studies"]


def test_nothing_personal_is_told(told, tmp_path, monkeypatch):
    """Also where every folder is named after somebody, and settings hold what they should not."""
    person = tmp_path / "Erika Mustermann"
    for folder in ("cache", "data/MRN-4711", "tmp"):
        (person / folder).mkdir(parents=True)
    (person / "data" / "MRN-4711" / "Mustermann.nii.gz").write_text("")
    for name, value in {
        "HOME": person,
        "XAITOOLS_CACHE": person / "cache",
        "XAITOOLS_DATA": person / "data",
        "TMPDIR": person / "tmp",
        "BROWSER_PATH": person / "chrome",
        "OMP_NUM_THREADS": f"{person}",
        "JUPYTER_CONFIG_DIR": person,
    }.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.chdir(person)
    monkeypatch.setattr(own, "studies", lambda: 1 / Path(f"{person}/x").stat().st_size)
    text = str(told())
    names = {"Mustermann", "Erika", "4711", platform.node(), str(Path.home()), str(own.notebooks_dir())}
    user = getpass.getuser()
    names |= {f"/{user}/", f"/{user}'"} | ({user} if len(user) > 4 else set())
    assert [name for name in names if name and name in text] == []
    assert "could not be found out: FileNotFoundError" in text
    assert "OMP_NUM_THREADS=(set)" in text
    monkeypatch.delenv("XAITOOLS_CACHE")
    assert "~/.cache/xaitools, not made yet" in told()["Cache"]


def test_what_is_broken_is_said(told, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XAITOOLS_CACHE", str(tmp_path / "file"))
    monkeypatch.setenv("XAITOOLS_DATA", str(tmp_path / "missing"))
    found = told()
    assert "{XAITOOLS_CACHE}, which is no folder" in found["Cache"]
    assert found["Real data"] == "XAITOOLS_DATA names no folder"
    assert "{BROWSER_PATH}, which is no program" in found["Still pictures"]
    monkeypatch.setenv("XAITOOLS_CACHE", "/proc/nothing")
    monkeypatch.delenv("XAITOOLS_DATA")
    found = told()
    assert "CANNOT BE WRITTEN TO" in found["Cache"]
    assert "is not set" in found["Real data"]


@pytest.mark.parametrize(
    ("files", "kind"),
    [
        (["training_set_pixel_size_and_HC.csv"], "HC18 (load_fetal)"),
        (["overview.csv", "dicom_dir/a.dcm"], "SIIM CT (load_ct)"),
        (["participants.tsv", "sub-01/anat/sub-01_T1w.nii.gz"], "BIDS (load_brains)"),
        (["subjects/sub-01/x"], "CAPS (load_brains)"),
        (["participants.csv", "t1/a.nii.gz"], "NIfTI with a table (load_brains)"),
        (["labels.csv", "data0/a.mhd"], "CT in .mhd with a table (load_ct)"),
        (["a.pt"], "weights (load_model)"),
        (["spm12/atlas.nii"], "NIfTI (load_volumes, load_atlas)"),
        (["readme.txt"], ""),
    ],
)
def test_folders_of_data_are_recognised(tmp_path, files, kind):
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    assert kind_of(tmp_path) == kind


def test_the_folder_of_real_data_is_recognised(told, real_data):
    found = told()["Real data"]
    for kind in ("HC18", "SIIM CT", "NIfTI with a table", "weights"):
        assert kind in found


def test_the_command_tells_the_devices_that_torch_sees_and_survives_a_torch_that_does_not_load(monkeypatch):
    result = CliRunner().invoke(main, ["doctor"])
    assert result.exit_code == 0, result.output
    assert re.search(r"cpu \((no )?bfloat16\); threads of torch: ", " ".join(result.output.split()))
    monkeypatch.setattr(own, "_ASK_TORCH", "raise OSError('/home/jane/lib/libcudart.so: cannot open')")
    assert own._devices() == "torch does not work here: OSError: libcudart.so: cannot open"
    monkeypatch.setattr(own, "_ASK_TORCH", "import os; os.abort()")
    assert own._devices() == "torch does not work here: exit code -6"
    monkeypatch.setattr(own, "_ASK_TORCH", "import time; time.sleep(60)")
    monkeypatch.setattr(own, "_PATIENCE", 0.2)
    assert "does not answer" in own._devices()


def test_the_quick_lines_do_not_load_torch():
    check = (
        "import sys; from xaitools.reports import doctor as own; own._devices = lambda: ''; "
        "list(own.doctor()); sys.exit('torch' in sys.modules)"
    )
    environment = os.environ | {"XAITOOLS_DATA": ""}
    assert subprocess.run([sys.executable, "-c", check], env=environment, check=False).returncode == 0
