"""The code of README and docs runs as it stands, on small images where the text says `images`."""

import ast
import builtins
import re
import shlex
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from torch import nn

import xaitools
from xaitools.cli import main
from xaitools.study.notebooks import find_notebook, read_parameters, studies

ROOT = Path(__file__).parents[1]
CARDS = set((ROOT / "docs" / "methods").glob("*.md"))  # made by the site's build, from the registry
PAGES = [ROOT / "README.md", *sorted(set((ROOT / "docs").rglob("*.md")) - CARDS)]


def blocks(language):
    """Code and where it stands, of every block of a language."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for found in re.finditer(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
            yield found[1], f"{page.relative_to(ROOT)}:{text[: found.start()].count(chr(10)) + 1}"


BLOCKS = [pytest.param(code, id=place) for code, place in blocks("python")]
COMMANDS = [
    pytest.param(line, id=f"{place} {line}")
    for code, place in blocks("sh")
    for line in code.splitlines()
    if line.strip()
]
OTHERS = {"pip", "python", "papermill", "cp", "dask", ".venv/bin/pip"}
"""Programs that are not ours."""
SMALLER = {
    "(96, 96, 96)": "(8, 8, 8)",
    '{"seed": [0, 1]}': '{"seed": [0]}',
    '"loky", n_jobs=2': '"loky", n_jobs=1',
}
"""Sizes that would take minutes here."""


def network(outputs=2, axes=2):
    torch.manual_seed(0)
    convolution, pool = (nn.Conv3d, nn.AdaptiveAvgPool3d) if axes == 3 else (nn.Conv2d, nn.AdaptiveAvgPool2d)
    layers = [convolution(1, 4, 3, padding=1), nn.ReLU(), pool(2), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(4 * 2**axes, outputs)).eval()


@pytest.fixture
def reader(tmp_path, monkeypatch):
    """What a reader has before the code: networks, images and maps, and in the current folder some files."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    labels = np.zeros((8, 9, 8), dtype=np.int16)
    labels[1:4], labels[4:7] = 1, 2
    nibabel.save(nibabel.Nifti1Image(labels, affine), "atlas.nii")
    Path("atlas.csv").write_text("index,name\n1,front\n2,back\n")
    Path("FOLDER").mkdir()
    for name in ("one", "two"):
        volume = rng.uniform(1, 2, labels.shape).astype(np.float32)
        nibabel.save(nibabel.Nifti1Image(volume, affine), f"FOLDER/{name}.nii.gz")
    shutil.copy(ROOT / "tests" / "notebooks" / "tiny.ipynb", "my_study.ipynb")
    model, images = network(), torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    masks = torch.zeros(2, 1, 32, 32, dtype=torch.bool)
    masks[..., 5:15, 5:15] = True
    names = ("sub-001", "sub-002")
    two = xaitools.Samples(images, torch.tensor([0, 1]), names, names, class_names=("no", "yes"))
    return {
        "training": two,
        "validation": two,
        "model": model,
        "images": images,
        "target": 1,
        "maps": xaitools.attribute(model, images, 1, "gradient", progress=False),
        "masks": masks,
        "regressor": network(outputs=1),
        "truth": [10.0, 12.0],
        "brain_model": network(axes=3),
        "brain_maps": torch.rand(2, *labels.shape),
        "affine": affine,
        "unet": nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv3d(4, 3, 1)).eval(),
        "volume": torch.rand(1, 1, 12, 12, 12),
    }


@pytest.mark.parametrize("code", BLOCKS)
def test_code_of_the_documentation_runs(code, reader):
    for size, smaller in SMALLER.items():
        code = code.replace(size, smaller)
    exec(compile(code, "the documentation", "exec"), reader)


def test_the_first_example_needs_nothing_but_itself():
    """Whatever it names is imported, set in it, or Python's own."""
    tree = ast.parse(BLOCKS[0].values[0])
    known = {alias.asname or alias.name for node in ast.walk(tree) for alias in getattr(node, "names", ())}
    names = [node for node in ast.walk(tree) if isinstance(node, ast.Name)]
    known |= {node.id for node in names if isinstance(node.ctx, ast.Store)} | set(dir(builtins))
    assert {node.id for node in names if isinstance(node.ctx, ast.Load)} <= known
    assert "torchvision" in BLOCKS[0].values[0]


@pytest.mark.parametrize("line", COMMANDS)
def test_commands_of_the_documentation_exist(line):
    """They are read as the shell and click read them; their studies and parameters are there."""
    program, *arguments = shlex.split(line, comments=True)
    if program == "make":
        targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert set(arguments) <= set(targets)
        return
    if Path(program).name != "xaitools":
        assert program in OTHERS
        return
    command = main.commands[arguments[0]]
    given = command.make_context(arguments[0], arguments[1:]).params
    study = given.get("study")
    if study in studies():
        names = {name for name, _ in given["parameters"]}
        names |= {item.partition("=")[0] for item in given.get("grid", ())}
        assert names <= set(read_parameters(find_notebook(study)))
        assert given["preset"] in (None, "quick", "paper")
    else:
        assert study is None or study.endswith(".ipynb")
