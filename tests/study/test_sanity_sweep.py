"""Every registered method, in 2D and in 3D, on a small trained network whose head is redrawn: who passes."""

import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xaitools import study
from xaitools.attribution import METHODS
from xaitools.evaluation import Randomization, model_randomization

FEW = {"extremal_perturbation": {"iterations": 3}, "meaningful_perturbation": {"iterations": 3}}
BRACKETS = {"occlusion": "occlusion[7]"}


def bright_corners(dim: int, n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Images with a bright block in one corner or, of the other class, in the opposite one."""
    images = 0.5 * torch.rand(n, 1, *(14,) * dim, generator=torch.Generator().manual_seed(seed))
    labels = torch.arange(n) % 2
    for image, label in zip(images, labels, strict=True):
        place = slice(8, 12) if label else slice(3, 7)
        image[(0, *(place,) * dim)] += 0.5
    return images, labels


def trained(dim: int) -> nn.Module:
    convolution, norm, pool = (
        (nn.Conv2d, nn.BatchNorm2d, nn.MaxPool2d) if dim == 2 else (nn.Conv3d, nn.BatchNorm3d, nn.MaxPool3d)
    )
    torch.manual_seed(0)
    model = nn.Sequential(
        convolution(1, 8, 3, padding=1), norm(8), nn.ReLU(), pool(2), convolution(8, 8, 3, padding=1), nn.ReLU(),
        nn.Flatten(), nn.Linear(8 * 7**dim, 16), nn.ReLU(), nn.Linear(16, 2),
    )  # fmt: skip
    images, labels = bright_corners(dim, 24, 0)
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    for _ in range(40):
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()
    assert (model.eval()(images).argmax(1) == labels).all()
    return model


@pytest.fixture(scope="module", params=[2, 3])
def swept(request: pytest.FixtureRequest) -> tuple[Randomization, dict[str, str]]:
    model = trained(request.param)
    images, _ = bright_corners(request.param, 5, 1)
    able, refused = study.methods_of(model, images)
    found = model_randomization(
        model, images, 1, [BRACKETS.get(name, name) for name in able], layers=["9", "7"], similarities=["spearman"],
        steps=4, draws=4, references=images[:2], options=FEW, progress=False,
    )  # fmt: skip
    return found, refused


def verdicts(found: Randomization, **options: int) -> pd.Series:
    return found.verdicts(**options).set_index(["method", "absolute"]).verdict


def test_every_method_is_judged_or_refused_with_the_reason(swept) -> None:
    found, refused = swept
    judged = {name.split("[")[0] for name in found.table.method} - {"random"}
    assert judged | set(refused) == set(METHODS)
    assert list(refused) == ["attention_rollout"]
    assert "no softmax attention" in refused["attention_rollout"]
    assert set(verdicts(found)) <= {"passes", "fails", "undecided", "noise"}


def test_the_known_failures_fail_and_the_gradient_passes(swept) -> None:
    """With the sign; deep Taylor and Grad-CAM++ keep their absolute values, whatever the head says."""
    found, _ = swept
    assert verdicts(found)["gradient", False] == "passes"
    assert verdicts(found)["gradient", True] == "passes"
    for name in ("guided_backprop", "deconvolution"):
        assert verdicts(found, last=1)[name, False] == "fails"
    for name in ("deep_taylor", "grad_cam_plus_plus"):
        assert verdicts(found)[name, True] == "fails"


def test_noise_never_wins(swept) -> None:
    assert (verdicts(swept[0])["random"] == "noise").all()
