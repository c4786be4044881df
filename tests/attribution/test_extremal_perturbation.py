"""Masks of a given area as maps."""

import itertools

import pytest
import torch
from torch import nn

from xaitools.attribution import attribute, extremal_perturbation
from xaitools.errors import MethodError, ParameterError


def linear(shape):
    net = nn.Sequential(nn.Flatten(), nn.Linear(torch.Size(shape).numel(), 1))
    nn.init.normal_(net[1].weight, generator=torch.Generator().manual_seed(4))
    return net


@pytest.mark.parametrize("shape", [(4, 3), (3, 2, 2)])
@pytest.mark.parametrize("hidden", [1, 3])
def test_of_all_masks_of_that_area_it_is_the_one_under_which_the_output_is_least(shape, hidden) -> None:
    net = linear(shape)
    image = torch.rand(1, 1, *shape, generator=torch.Generator().manual_seed(5))
    found = extremal_perturbation(
        *(net, image), area=hidden / 12, deletion="black", coarse=1, iterations=200, progress=False
    )
    masks = torch.ones(0, *shape)
    for places in itertools.combinations(range(12), hidden):
        mask = torch.ones(12)
        mask[list(places)] = 0
        masks = torch.cat([masks, mask.view(1, *shape)])
    with torch.no_grad():
        best = masks[net(masks[:, None] * image)[:, 0].argmin()]
    torch.testing.assert_close(1 - found[0, 0], best, rtol=0, atol=0.05)


def test_the_area_stands_in_the_name() -> None:
    net, images = linear((20, 20)), torch.rand(2, 1, 20, 20)
    options = {"extremal_perturbation": {"coarse": 2, "iterations": 150, "deletion": "white"}}
    maps = attribute(
        *(net, images, None, ["extremal_perturbation[0.1]", "extremal_perturbation[0.3]"]),
        **{"options": options, "progress": False},
    )
    for area, found in zip((0.1, 0.3), maps.values(), strict=True):
        assert found.mean((1, 2, 3)).tolist() == pytest.approx([area, area], rel=0.1)


def test_bad_input() -> None:
    net, images = linear((4, 3)), torch.rand(1, 1, 4, 3)
    with pytest.raises(MethodError, match=r"extremal_perturbation\[large\]: expected the share"):
        attribute(net, images, None, ["extremal_perturbation[large]"])
    with pytest.raises(ParameterError, match=r"area=1\.5"):
        attribute(net, images, None, ["extremal_perturbation[1.5]"])
