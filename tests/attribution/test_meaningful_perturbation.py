"""Masks of single images as maps."""

import pytest
import torch
from torch import nn

from xaitools.attribution import (
    MaskSettings,
    attribute,
    attribute_inputs,
    attribute_segmentation,
    meaningful_perturbation,
    optimise_masks,
)
from xaitools.errors import MethodError, ParameterError, ShapeError

FEW = {"iterations": 20, "coarse": 2}


class Bright(nn.Module):
    """Class 1 is a bright corner, however bright the rest; class 0 a dark one."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(1, 2)
        self.head.weight.data = torch.tensor([[-20.0], [20.0]])
        self.head.bias.data = torch.tensor([10.0, -10.0])

    def forward(self, x):
        return self.head(x[:, :, :4, :4].mean((1, 2, 3))[:, None])


def bright():
    images = 0.4 * torch.rand(3, 1, 12, 12, generator=torch.Generator().manual_seed(1))
    images[:, :, :4, :4] += 0.6
    return images


@pytest.mark.parametrize("deletion", ["black", "dim"])
def test_it_hides_what_the_network_looks_at_and_no_more(deletion) -> None:
    baselines = {"dim": 0.1 * bright()}
    found = attribute(
        *(Bright(), bright(), 1, [f"meaningful_perturbation[{deletion}]"]),
        **{
            "baselines": baselines,
            "options": {"meaningful_perturbation": {**FEW, "iterations": 60, "l1": 2e-3, "l2": 1e-3}},
            "progress": False,
        },
    )[f"meaningful_perturbation[{deletion}]"]
    assert found[:, :, :3, :3].min() > 0.3
    assert found[:, :, 8:, 8:].max() < 0.05
    hidden = bright() + found * (baselines["dim"] * (deletion == "dim") - bright())
    assert (Bright()(hidden).softmax(1)[:, 1] < 0.05).all()


def test_it_is_one_optimised_mask_an_image() -> None:
    net, images = Bright(), bright()
    found = meaningful_perturbation(net, images, 1, deletion="noise", seed=0, progress=False, **FEW)
    one = MaskSettings(1e-4, 1e-2, beta2=3, reduction="sum", coarse=2, steps=20, start="zeros")
    again = attribute(
        *(net, images.flip(0), 1, ["meaningful_perturbation[noise]"]),
        **{"options": {"meaningful_perturbation": FEW}, "batch_size": 2, "progress": False},
    )["meaningful_perturbation[noise]"]
    torch.testing.assert_close(found, again.flip(0), rtol=0, atol=1e-4)
    black = meaningful_perturbation(net, images, 1, deletion="black", progress=False, **FEW)
    masks = optimise_masks(net, images, 1, settings=one, deletion="black", progress=False)
    torch.testing.assert_close(1 - black[:, 0], masks.masks[0], rtol=0, atol=1e-5)


def test_a_single_output_falls_as_a_share() -> None:
    net = nn.Sequential(Bright(), nn.Linear(2, 1, bias=False))
    net[1].weight.data = 1e-6 * torch.tensor([[0.0, 1.0]])
    found = meaningful_perturbation(net, bright(), None, deletion="black", progress=False, **FEW)
    assert found[:, :, :3, :3].min() > 0.3
    with pytest.raises(MethodError, match="one output"):
        meaningful_perturbation(net, bright(), None, score="probability", progress=False)


def test_a_sum_over_a_region_falls_as_a_share() -> None:
    class Dense(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(1, 2, 1)
            self.conv.weight.data = torch.tensor([-300.0, 300.0]).view(2, 1, 1, 1)
            self.conv.bias.data.zero_()

        def forward(self, x):
            return self.conv(x)

    name = "meaningful_perturbation[black]"
    found = attribute_segmentation(
        *(Dense(), bright(), 1, [name]),
        **{"region": [slice(0, 4), slice(0, 4)], "options": {name: {**FEW, "l2": 0.0}}, "progress": False},
    )[name]
    assert found[:, :, :3, :3].min() > 0.3
    assert found[:, :, 8:, 8:].max() < 0.05


def test_bad_input() -> None:
    net, images = Bright(), bright()
    with pytest.raises(MethodError, match=r"deletion='blurr'.*'blur'"):
        attribute(net, images, 1, ["meaningful_perturbation[blurr]"], progress=False)
    with pytest.raises(ParameterError, match="l1=-1"):
        meaningful_perturbation(net, images, 1, l1=-1)
    with pytest.raises(ShapeError, match="does not fit"):
        meaningful_perturbation(net, images, 1, deletion="own", baselines={"own": torch.zeros(5, 5)})
    with pytest.raises(MethodError, match="neighbouring voxels"):
        attribute_inputs(
            TwoInputs(), (images, torch.rand(3, 4)), 1, ["meaningful_perturbation"], progress=False
        )


class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = Bright()

    def forward(self, x, table):
        return self.net(x) + table[:, :2]
