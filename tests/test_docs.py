"""The code of README and docs runs as it stands, on small images where the text says `images`."""

import ast
import builtins
import re
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from torch import nn

import xaitools

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCKS = [
    pytest.param(code, id=f"{page.name}:{page.read_text(encoding='utf-8')[: found.start()].count(chr(10)) + 1}")
    for page in PAGES
    for found in re.finditer(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    for code in [found[1]]
]  # fmt: skip
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
