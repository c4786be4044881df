"""Every method on every kind of network that people bring: right, approximate within its bound, or refused in words."""

import os
import warnings
from pathlib import Path

import pytest
import torch
from captum.attr import DeepLift
from torch import nn
from zennit import composites, rules
from zennit.attribution import Gradient
from zennit.types import Linear

from tests.matrix.cells import REFUSED, RIGHT, WRONG, columns, judged, row
from tests.matrix.page import render, statuses
from tests.matrix.references import METHODS as REFERENCES
from tests.matrix.references import Reference, dim
from tests.matrix.relevance import HIGH, LOW, relevance
from tests.matrix.zoo import ZOO, Case
from xaitools.attribution import METHODS

PAGE = Path(__file__).parents[2] / "docs" / "networks.md"


@pytest.mark.parametrize("name", ZOO)
def test_each_method_is_right_or_refuses_in_words(name) -> None:
    wrong = {method: cell.words for method, cell in row(name).items() if cell.status == WRONG}
    assert not wrong


def test_the_page_shows_what_was_found() -> None:
    page = render({name: row(name) for name in ZOO})
    if os.environ.get("XAITOOLS_WRITE_MATRIX"):
        PAGE.write_text(page, encoding="utf-8")
    assert statuses(PAGE.read_text(encoding="utf-8")) == statuses(page), (
        "write the page anew with: make matrix"
    )


def test_every_method_is_in_the_matrix() -> None:
    assert len(ZOO) >= 40
    bases = {name.partition("[")[0] for name in REFERENCES}
    assert bases >= set(METHODS)
    for name in columns():
        assert any(
            row(network)[name].status != REFUSED for network in ("torchvision vgg11_bn", "torchvision vit")
        )


WITHOUT_LAST_CELLS = {
    *("torchvision vit", "timm vit_tiny_patch16_224", "MONAI ViT 2D, output=0", "MONAI ViT 3D, output=0"),
    *("timm swin_tiny_patch4_window7_224", "timm mixer", "nn.MultiheadAttention", "nn.LSTM"),
    *("tokens (B, N, C) and in-place ReLU", "tokens behind batch normalisation, one image"),
    *("torch.jit.trace", "torch.jit.script"),
}
"""Transformers and their like, and scripts, whose layers cannot be heard."""


def test_layers_are_found_wherever_there_are_cells() -> None:
    refused = {name for name in ZOO if row(name)["grad_cam"].status == REFUSED}
    useless = {name for name in ZOO if row(name)["gradient"].status == REFUSED}
    assert refused - useless == WITHOUT_LAST_CELLS - useless


class Net(nn.Module):
    """A plain network, or one whose autograd is wrong."""

    def __init__(self, wrong: bool) -> None:
        super().__init__()
        self.conv, self.head, self.wrong = nn.Conv2d(1, 4, 3), nn.Linear(4, 3), wrong

    def forward(self, x):
        y = self.conv(x).relu()
        return self.head((y.detach() * 2 - y if self.wrong else y).mean((2, 3)))


def reference(wrong: bool = False) -> Reference:
    torch.manual_seed(0)
    images = torch.rand(2, 1, 8, 8)
    return Reference(Net(wrong).double(), images, torch.tensor([2, 0]), lambda x: x, 4)


def test_differences_notice_a_gradient_that_is_wrong() -> None:
    reference().check_gradient()
    with pytest.raises(AssertionError, match="not close"):
        reference(wrong=True).check_gradient()


@pytest.mark.parametrize("method", [name for name in REFERENCES if name != "attention_rollout"])
def test_a_wrong_map_is_seen(method) -> None:
    case, of = Case("", "", nn.Identity), reference()
    found = of[method].float()
    assert judged(case, method, found, of).status == RIGHT
    found[1, 0, 2, 2] += 0.05 * found.abs().max()
    assert judged(case, method, found, of).status == WRONG


def test_the_reference_of_deep_lift_is_captums_on_modules() -> None:
    """Without max pools, behind which captum's maps miss the change of the output."""
    torch.manual_seed(3)
    layers = [
        nn.Conv2d(2, 6, 3),
        nn.LeakyReLU(),
        nn.Conv2d(6, 6, 2),
        nn.ReLU(),
        nn.Flatten(),
    ]
    net = nn.Sequential(*layers, nn.LazyLinear(3)).double().eval()
    images = torch.rand(2, 2, 12, 12, dtype=torch.float64)
    net(images)
    of = Reference(net, images, torch.tensor([2, 0]), lambda x: x, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = DeepLift(net).attribute(images.clone(), dim(images)[None].expand_as(images), target=of.target)
    torch.testing.assert_close(of["captum.DeepLift"], found.detach())


RULES = {
    "epsilon": rules.Epsilon(1e-6),
    "gamma": rules.Gamma(0.25),
    "alpha1_beta0": rules.AlphaBeta(1, 0),
}


def zennit_maps(net, image, target, rule):
    base = composites.layer_map_base()
    if rule in RULES:
        composite = composites.LayerMapComposite([*base, (Linear, RULES[rule])])
    elif rule == "deep_taylor":
        box = [(Linear, rules.ZBox(LOW, HIGH))]
        inner = [*base, (Linear, rules.ZPlus(zero_params="bias"))]
        composite = composites.SpecialFirstLayerMapComposite(inner, box)
    else:
        bounds = {"low": LOW, "high": HIGH} if rule.endswith("_box") else {}
        composite = composites.COMPOSITES[rule](epsilon=1e-6, **bounds)
    with Gradient(net, composite) as attributor:
        one = nn.functional.one_hot(torch.tensor([target]), 3)
        return attributor(image, lambda scores: scores * one)[1]


@pytest.mark.parametrize("rule", [*RULES, "epsilon_plus_flat", "epsilon_gamma_box", "deep_taylor"])
def test_the_reference_of_relevance_is_zennits_on_modules(rule) -> None:
    torch.manual_seed(3)
    layers = [
        nn.Conv2d(2, 6, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 6, 2),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Flatten(),
    ]
    net = nn.Sequential(*layers, nn.Linear(24, 8), nn.ReLU(), nn.Linear(8, 3)).double()
    image = torch.rand(1, 2, 12, 12, dtype=torch.float64)
    target = int(net(image).argmax())
    expected = zennit_maps(net, image, target, rule)
    found = relevance(lambda x: net(x)[:, target], image, rule)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9 * float(expected.abs().max()))
