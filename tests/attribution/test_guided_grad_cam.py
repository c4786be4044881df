import warnings

import captum.attr
import pytest
import torch
from torch import nn

from xaitools.attribution import attribute, grad_cam, guided_backprop, guided_grad_cam
from xaitools.attribution.registry import METHODS
from xaitools.errors import MethodError
from xaitools.models import Network

CASES = {"slices": (nn.Conv2d, nn.MaxPool2d, (10, 12)), "volumes": (nn.Conv3d, nn.MaxPool3d, (8, 9, 10))}


def case(which):
    conv, pool, shape = CASES[which]
    torch.manual_seed(5)
    layers = [conv(1, 4, 3), nn.ReLU(), pool(2), conv(4, 3, 2), nn.ReLU(), nn.Flatten(), nn.LazyLinear(2)]
    net, images = nn.Sequential(*layers).double().eval(), torch.rand(2, 1, *shape, dtype=torch.float64)
    net(images)
    return net, images


@pytest.mark.parametrize("which", CASES)
def test_it_is_captums(which) -> None:
    net, images = case(which)
    mode = {"slices": "bilinear", "volumes": "trilinear"}[which]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        method = captum.attr.GuidedGradCam(net, net[4])
        expected = method.attribute(images, torch.tensor([1, 0]), interpolate_mode=mode).detach()
    torch.testing.assert_close(guided_grad_cam(net, images, [1, 0]), expected)
    assert expected.any()


@pytest.mark.parametrize("which", CASES)
@pytest.mark.parametrize("layer", ["1", "2"])
def test_it_is_a_product(which, layer) -> None:
    net, images = case(which)
    maps = attribute(net, images, 1, [f"guided_grad_cam[{layer}]"])
    product = guided_backprop(net, images, 1) * grad_cam(net, images, 1, layer=layer)
    torch.testing.assert_close(maps[f"guided_grad_cam[{layer}]"], product)
    assert maps.passes == 4


def test_what_either_refuses() -> None:
    net, images = case("slices")
    with pytest.raises(MethodError, match=r"layer='6' of Sequential.*expected one of 0, 1"):
        guided_grad_cam(net, images, 1, layer="6")
    net[1] = nn.Tanh()
    assert "tanh" in METHODS["guided_grad_cam"].supports(Network(net, images))
