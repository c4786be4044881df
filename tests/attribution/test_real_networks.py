"""Networks that others trained, as a user would bring them: every method is right on them, or says why not."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from captum.attr import Deconvolution, GuidedBackprop
from scipy.ndimage import affine_transform
from torch import Tensor, nn

from xaitools.attribution import METHODS, Maps, MaskSettings, attribute, delete, optimise_masks, parse
from xaitools.data import load_ct

STEPS = 2
ROUNDING = 1e-2
"""Relative error of float32 against float64. Units on a kink make it up, and max pools over a background of one value,
of which each layout of memory takes another voxel; 5e-3 was seen."""

SIDE = 24
"""Voxels of a patch along each axis, so that there are few."""


class ContrastPhase(nn.Module):
    """The classifier of contrast phases with its preprocessing: three channels, transposed, flipped on both axes."""

    def __init__(self) -> None:
        super().__init__()
        densenet = pytest.importorskip("monai.networks.nets", reason="needs MONAI").DenseNet121
        self.net = densenet(spatial_dims=2, in_channels=3, out_channels=4, growth_rate=8)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x.repeat(1, 3, 1, 1).transpose(2, 3).flip(2, 3))


class Alzheimer(nn.Module):
    """As published: a view after convolutions, and a softmax at the end."""

    def __init__(self, *, softmax: bool = True) -> None:
        super().__init__()
        widths, pools = [1, 8, 8, 16, 16, 32, 32, 64, 64], {1: 4, 3: 3, 5: 2, 7: 2}
        blocks = []
        for i in range(8):
            layers = [
                nn.Conv3d(widths[i], widths[i + 1], 3, padding=1, bias=False),
                nn.BatchNorm3d(widths[i + 1]),
                nn.ReLU(inplace=True),
            ]
            blocks.append(nn.Sequential(*layers, *([nn.MaxPool3d(pools[i])] if i in pools else [])))
        self.embedding, self.f = nn.Sequential(*blocks), nn.Sequential(nn.Linear(256, 2))
        self.softmax = softmax

    def forward(self, x: Tensor) -> Tensor:
        x = self.embedding(x)
        x = self.f(x.view(x.size(0), -1))
        return torch.softmax(x, dim=1) if self.softmax else x


class Sex(nn.Module):
    """Three convolutions without padding, a dropout, a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        widths = [1, 32, 64, 128]
        layers: list[nn.Module] = []
        for i in range(3):
            layers += [nn.Conv3d(widths[i], widths[i + 1], 3), nn.BatchNorm3d(widths[i + 1]), nn.ReLU()]
            layers += [nn.MaxPool3d(2)] if i < 2 else []
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.MaxPool3d(2), nn.Flatten(), nn.Dropout(), nn.Linear(22400, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x))


def brain(folder: Path, shape: tuple[int, ...], spacing: tuple[float, ...]) -> np.ndarray:
    """The first head's brain, the rest 0, in RAS orientation on a grid around its centre."""
    scan, labels = (sorted((folder / "ixi" / kind).glob("*.nii.gz"))[0] for kind in ("t1", "dseg"))
    head, inside = (nib.as_closest_canonical(nib.load(path)) for path in (scan, labels))
    values = np.where(np.asarray(inside.dataobj) > 0, np.asarray(head.dataobj, dtype=np.float32), 0)
    places = np.argwhere(values)
    scale = np.array(spacing) / head.header.get_zooms()
    offset = (places.min(0) + places.max(0)) / 2 - scale * (np.array(shape) - 1) / 2
    return affine_transform(values, scale, offset, output_shape=shape, order=1)


def slices(folder: Path) -> Tensor:
    """Two slices, as the network was trained but for their size, which it takes as it comes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        samples = load_ct(folder / "siim_ct", window=(0, 2000), size=96, n_subjects=2, progress=False)
    return samples.images[:2].float()


def standardized(folder: Path) -> Tensor:
    """A slab of a brain: the network needs 48 voxels along the first axis."""
    values = brain(folder, (48, 96, 96), (2, 2, 2))
    own = values[values != 0]
    return torch.from_numpy((values - own.mean()) / own.std())[None, None].float()


def raw(folder: Path) -> Tensor:
    """A brain on the grid of the network's field of view, its mean 300."""
    values = brain(folder, (58, 70, 58), (182 / 58, 218 / 70, 182 / 58))
    return torch.from_numpy(values * 300 / values[values != 0].mean())[None, None].float()


@dataclass
class Case:
    """A network with its images, and what attribute makes of it."""

    net: nn.Module
    images: Tensor
    target: int
    baseline: float
    maps: Maps


@dataclass(frozen=True)
class Real:
    """How a case is made: the file of weights, its module, its images and the class to explain."""

    file: str
    make: Callable[[], nn.Module]
    images: Callable[[Path], Tensor]
    target: int


NETWORKS = {
    "contrast phase": Real("ct_phase_densenet121", ContrastPhase, slices, 1),
    "Alzheimer": Real("ad_cn_3d", partial(Alzheimer, softmax=False), standardized, 1),
    "sex": Real("hcp_sex_3d", Sex, raw, 1),
}


def loaded(net: nn.Module, file: str, folder: Path) -> nn.Module:
    """The module with its weights."""
    state = torch.load(folder / "networks" / f"{file}.pt", weights_only=True, map_location="cpu")
    (net.net if isinstance(net, ContrastPhase) else net).load_state_dict(state)
    return net.eval()


@pytest.fixture(scope="module", params=NETWORKS)
def case(request: pytest.FixtureRequest, real_data: Path) -> Case:
    real = NETWORKS[request.param]
    net = loaded(real.make(), real.file, real_data)
    images = real.images(real_data)
    bounds = {"low": float(images.min()), "high": float(images.max())}
    maps = attribute(
        net,
        images,
        real.target,
        [f"occlusion[{SIDE}]" if name == "occlusion" else name for name in METHODS],
        steps=STEPS,
        references=images.flip(2),
        options={
            "deep_taylor": bounds,
            "occlusion": {"baseline": float(images.min())},
            "meaningful_perturbation": {"iterations": STEPS},
            "extremal_perturbation": {"iterations": STEPS},
        },
        on_error="keep",
        progress=False,
    )
    return Case(net, images, real.target, float(images.min()), maps)


def gradient_of(case: Case, points: Tensor) -> Tensor:
    """By autograd on the user's own model in float64."""
    net = case.net.double()
    leaf = points.double().requires_grad_()
    (gradient,) = torch.autograd.grad(net(leaf.clone())[:, case.target].sum(), leaf)
    net.float()
    return gradient


def scores_of(case: Case, images: Tensor) -> Tensor:
    net = case.net.double()
    with torch.no_grad():
        scores = net(images.double())[:, case.target]
    net.float()
    return scores


def error(found: Tensor, expected: Tensor) -> float:
    return float((found.double() - expected).norm() / expected.norm())


def test_every_method_gives_a_map(case: Case) -> None:
    assert case.maps.errors.keys() == {"attention_rollout"}
    assert "attention" in str(case.maps.errors["attention_rollout"])
    assert len(case.maps) == len(METHODS) - 1
    for name, found in case.maps.items():
        assert found.shape == case.images.shape, name
        assert torch.isfinite(found).all(), name
        assert found.flatten(1).any(1).all(), name


def test_a_softmax_at_the_end_is_left_out_for_relevance(real_data: Path) -> None:
    net, images = loaded(Alzheimer(), "ad_cn_3d", real_data), standardized(real_data)
    maps = attribute(net, images, 1, ["gradient", "lrp"], on_error="keep", progress=False)
    assert maps["gradient"].any()
    assert maps.errors.keys() == {"lrp"}
    assert "softmax" in str(maps.errors["lrp"])
    assert "explain the score before it" in str(maps.errors["lrp"])


def test_an_optimised_mask_turns_the_answer(real_data: Path) -> None:
    """A network that is sure of a brain calls it the other class when a small part of it is darkened."""
    net, images = loaded(Alzheimer(softmax=False), "ad_cn_3d", real_data), standardized(real_data)
    with torch.no_grad():
        before = net(images).softmax(1)[0]
    own = int(before.argmax())
    assert before[own] > 0.9
    setting = MaskSettings(l1=30.0, l2=0.1, steps=12, learning_rate=0.1)
    found = optimise_masks(
        net, images, own, settings=setting, deletion="black", score="log_odds", patience=None, progress=False
    )
    (row,) = found.report.to_dict("records")
    assert row["score_before"] == pytest.approx(float(torch.logit(before[own].double())), abs=1e-2)
    assert row["hidden"] < 0.2
    with torch.no_grad():
        after = net(delete(images, found.masks[0, 0], "black")).softmax(1)[0]
    assert after[own] < 0.1


def test_gradients_are_those_of_autograd(case: Case) -> None:
    expected = gradient_of(case, case.images)
    assert error(case.maps["gradient"], expected) < ROUNDING
    assert error(case.maps["input_x_gradient"], case.images * expected) < ROUNDING


def test_integrated_gradients_are_an_own_quadrature(case: Case) -> None:
    nodes, weights = np.polynomial.legendre.leggauss(STEPS)
    expected = sum(
        weight / 2 * case.images * gradient_of(case, case.images * (node + 1) / 2)
        for node, weight in zip(nodes, weights, strict=True)
    )
    assert error(case.maps["integrated_gradients"], expected) < ROUNDING
    change = scores_of(case, case.images) - scores_of(case, torch.zeros_like(case.images))
    gap = case.maps["integrated_gradients"].double().flatten(1).sum(1) - change
    torch.testing.assert_close(
        case.maps.completeness_gap[str(parse("integrated_gradients"))].double(),
        gap,
        rtol=1e-3,
        atol=1e-4 * float(gap.abs().max()),
    )


def test_rules_of_rectifiers_are_captums(case: Case) -> None:
    for name, method in {"deconvolution": Deconvolution, "guided_backprop": GuidedBackprop}.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected = method(case.net).attribute(case.images, case.target).double()
        assert error(case.maps[name], expected) < ROUNDING


def test_occlusion_by_brute_force(case: Case) -> None:
    clean = scores_of(case, case.images[:1])
    found, expected = [], []
    for corner in (0, 1):
        box = tuple(slice(corner * SIDE, (corner + 1) * SIDE) for _ in case.images.shape[2:])
        hidden = case.images[:1].clone()
        hidden[(..., *box)] = case.baseline
        expected.append(clean - scores_of(case, hidden))
        found.append(case.maps[f"occlusion[{SIDE}]"][(0, 0, *(part.start for part in box))])
    assert error(torch.stack(found), torch.cat(expected)) < ROUNDING
