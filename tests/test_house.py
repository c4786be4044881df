"""What holds for the package as a whole: layers, light imports, what is installed and what is shipped."""

import os
import pkgutil
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

import xaitools
import xaitools.study
from xaitools.study.notebooks import studies

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
HEAVY = {"torch", "plotly", "nilearn", "captum", "papermill", "pandas", "numpy"}
CONDA_NAMES = {"torch": "pytorch", "kaleido": "python-kaleido"}


def loads_heavy_packages(statement):
    check = (
        f"{statement}; import sys; found = {HEAVY} & set(sys.modules); print(found); sys.exit(bool(found))"
    )
    return subprocess.run([sys.executable, "-c", check], check=False).returncode != 0


def test_importing_the_package_loads_nothing_heavy():
    assert not loads_heavy_packages("import xaitools; dir(xaitools)")


def test_the_viewer_does_not_load_torch():
    check = "from xaitools.widgets import SliceViewer; import sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


def test_the_check_for_heavy_packages_can_fail():
    assert loads_heavy_packages("import xaitools, plotly")
    assert loads_heavy_packages("from xaitools import Samples")


@pytest.mark.parametrize("name", xaitools.__all__)
def test_every_lazy_name_exists(name):
    assert getattr(xaitools, name).__name__ == name
    assert name in dir(xaitools)


@pytest.mark.parametrize("package", [xaitools, xaitools.study])
def test_no_lazy_name_is_that_of_a_module_which_would_take_its_place(package):
    modules = {module.name for module in pkgutil.iter_modules(package.__path__)}
    assert {name for name in modules & set(package.__all__) if callable(getattr(package, name))} == set()


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="No xaitools attribute atribute"):
        _ = xaitools.atribute


def test_layers_import_only_downward():
    command = Path(sys.executable).parent / "lint-imports"
    result = subprocess.run([command, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout


def requirements(lines):
    """``{"torch": ">=2.14"}`` from lines as pip or conda write them."""
    parts = [re.fullmatch(r"([\w.-]+)(\[.*\])?(.*)", line.strip()).groups() for line in lines]
    return {name.lower(): "".join(bounds.split()) for name, _, bounds in parts}


def test_conda_and_pip_get_the_same_packages():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    expected = requirements(project["dependencies"]) | {"python": project["requires-python"]}
    expected = {CONDA_NAMES.get(name, name): bounds for name, bounds in expected.items()}

    *conda, nested = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    assert "-e ." in nested["pip"]
    given = requirements([*conda, *(line for line in nested["pip"] if line != "-e .")])
    assert given.pop("pip") == ""
    assert given == expected


def test_the_wheel_brings_notebooks_presets_templates_and_scripts(tmp_path):
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, capture_output=True, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
    for folder in ("reports/template", "widgets/static"):
        shipped = {path.name for path in (tmp_path / "installed" / "xaitools" / folder).rglob("*")}
        assert shipped >= {path.name for path in (ROOT / "xaitools" / folder).rglob("*.*")}
    notebooks = tmp_path / "installed" / "xaitools" / "notebooks"
    shipped = {path.relative_to(notebooks) for path in notebooks.rglob("*.*")}
    assert shipped == {
        path.relative_to(ROOT / "notebooks")
        for path in (ROOT / "notebooks").rglob("*.*")
        if not {"output", ".ipynb_checkpoints"} & set(path.parts)
    }

    listing = "from xaitools.study.notebooks import studies; print(*studies())"
    found = subprocess.run(
        [sys.executable, "-c", listing],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "installed")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.split() == studies()


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_make_says_what_is_missing(tmp_path):
    command = ["make", "report", f"VENV={tmp_path}/venv"]
    for python, message in (
        ("false", "xaitools needs Python 3.10 or newer, and 'false' is"),
        ("", "none was found"),
    ):
        result = subprocess.run(
            [*command, f"PYTHON={python}"], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert result.returncode != 0
        assert message in result.stdout
    assert not (tmp_path / "venv").exists()
