"""What `python -m build` makes works from any directory, in an environment that has never seen the checkout."""

import os
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

from xaitools.study.notebooks import studies

ROOT = Path(__file__).parents[1]
NEVER_SHIPPED = {"output", ".ipynb_checkpoints", "__pycache__"}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A folder with the source archive, and with the wheel that was made of it."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return folder


@pytest.fixture(scope="module")
def wheel(built):
    return next(built.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """Runs commands of an environment where the wheel is installed, in an empty folder.

    The packages that xaitools needs are those of this Python. A path file names their folders, whose own path files
    are not read: the checkout, if it is installed there as editable, is not on the path.
    """
    bare, empty = tmp_path_factory.mktemp("bare"), tmp_path_factory.mktemp("empty")
    venv.create(bare, symlinks=os.name == "posix")
    scripts = bare / ("bin" if os.name == "posix" else "Scripts")
    python = scripts / "python"
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet"]
    subprocess.run([*command, "--no-deps", "--no-index", str(wheel)], check=True)
    (site,) = {path.parent for path in bare.rglob("xaitools") if path.is_dir()}
    (site / "needed.pth").write_text("\n".join(path for path in sys.path if "-packages" in path))
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment["JUPYTER_PATH"] = str(Path(sys.prefix) / "share" / "jupyter")  # nbconvert's templates

    def run(command, *arguments):
        full = [str(scripts / command), *map(str, arguments)]
        return subprocess.run(
            full, cwd=empty, env=environment, capture_output=True, text=True, check=False, timeout=120
        )

    run.folder, run.site = empty, site
    return run


def shipped_from(folder):
    """What lies in a folder of the checkout, but for what runs and editors leave there."""
    return {
        path.relative_to(folder)
        for path in folder.rglob("*.*")
        if path.is_file() and not NEVER_SHIPPED & set(path.parts)
    }


@pytest.mark.parametrize(
    ("source", "place"),
    [
        ("notebooks", "xaitools/notebooks"),  # with presets, published numbers, lessons
        ("xaitools", "xaitools"),  # with the report's template and the viewer's scripts
    ],
)
def test_all_files_travel(wheel, tmp_path, source, place):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    assert shipped_from(tmp_path / place) >= shipped_from(ROOT / source)


def test_the_wheel_holds_the_package_and_its_licence_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        head = Parser().parsestr(archive.read(metadata).decode())
        licence = archive.read(metadata.replace("METADATA", "licenses/LICENSE")).decode()
    assert {name.split("/")[0] for name in names} == {"xaitools", metadata.split("/")[0]}
    assert head["License-Expression"] == "BSD-3-Clause"
    assert licence == (ROOT / "LICENSE").read_text()


def test_the_source_archive_holds_the_tests_and_no_environment(built):
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        parts = [Path(name).parts[1:] for name in archive.getnames()]
    assert ("tests", "test_wheel.py") in parts
    assert ("CONTRIBUTING.md",) in parts
    assert not [part for part in parts if {".venv", "output", "dist", "my-notebooks"} & set(part)]


def test_it_is_the_wheel_that_runs(installed):
    found = installed("python", "-c", "import xaitools; print(xaitools.__file__)")
    assert Path(found.stdout.strip()).is_relative_to(installed.site)
    assert not Path(found.stdout.strip()).is_relative_to(ROOT)


def test_it_lists_the_studies_with_their_presets(installed):
    listing = installed("xaitools", "studies")
    assert listing.returncode == 0, listing.stderr
    listed = [line for line in listing.stdout.splitlines() if not line.startswith(" ")]
    assert listed == [f"{study}  (presets: paper, quick)" for study in studies()]


def test_a_report_is_written(installed):
    shutil.copy(ROOT / "tests" / "notebooks" / "tiny.ipynb", installed.folder)
    result = installed("xaitools", "report", "tiny.ipynb", "--no-progress", "--out", "tiny")
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["Report:", str(Path("tiny", "tiny.html"))]
    assert "<html" in (installed.folder / "tiny" / "tiny.html").read_text(encoding="utf-8")
