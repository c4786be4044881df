"""Relevance propagation against zennit, whose rules and composites these are (Anders et al. 2021, arXiv:2106.13200).

zennit is right on networks made of modules only, each used once. There all maps are equal to rounding. Where they are
not, each difference is pinned down: what zennit does on one network is what we do on another, or the other way round.
"""

import copy

import pytest
import torch
from torch import nn
from torch.nn.functional import one_hot
from torchvision.models.resnet import BasicBlock
from zennit import composites, rules
from zennit.attribution import Gradient
from zennit.torchvision import ResNetCanonizer
from zennit.types import Linear

from xaitools.attribution import deep_taylor, lrp
from xaitools.attribution._lrp_rules import RULES

LOW, HIGH = -0.5, 1.5
EPSILON = 0.05
METHODS = [*RULES, "deep_taylor"]


def zennit_composite(name, canonizers=()):
    """zennit's own composite of that name, or the same from its rules."""
    options = {"canonizers": list(canonizers)}
    if name in composites.COMPOSITES:
        bounds = {"low": LOW, "high": HIGH} if name.endswith("_box") else {}
        return composites.COMPOSITES[name](epsilon=EPSILON, **bounds, **options)
    base = composites.layer_map_base()
    if name == "deep_taylor":
        return composites.SpecialFirstLayerMapComposite(
            [*base, (Linear, rules.ZPlus(zero_params="bias"))],
            [(Linear, rules.ZBox(LOW, HIGH))],
            **options,
        )
    everywhere = {
        "epsilon": rules.Epsilon(EPSILON),
        "gamma": rules.Gamma(0.25),
        "alpha1_beta0": rules.AlphaBeta(1, 0),
        "alpha2_beta1": rules.AlphaBeta(2, 1),
    }[name]
    return composites.LayerMapComposite([*base, (Linear, everywhere)], **options)


def zennit_maps(net, images, targets, name, canonizers=()):
    """Relevance of the target's output, with the output itself as what is shared out."""
    with Gradient(copy.deepcopy(net), zennit_composite(name, canonizers)) as attributor:
        output, relevance = attributor(images, lambda scores: scores * one_hot(targets, scores.shape[1]))
    return output.detach(), relevance.detach()


def our_maps(net, images, targets, name):
    if name == "deep_taylor":
        return deep_taylor(net, images, targets, low=LOW, high=HIGH)
    bounds = {"low": LOW, "high": HIGH} if name.endswith("_box") else {}
    return lrp(net, images, targets, rule=name, epsilon=EPSILON, **bounds)


def assert_equal(maps, expected):
    assert expected.abs().max() > 1e-6
    torch.testing.assert_close(maps, expected, rtol=0, atol=1e-11 * float(expected.abs().max()))


def modules_only(axes, activation=nn.ReLU, between=nn.Identity):
    """Every kind of layer as a module; `between` follows the layers that feed pools directly."""
    conv, up, largest, average = {
        2: (nn.Conv2d, nn.ConvTranspose2d, nn.MaxPool2d, nn.AvgPool2d),
        3: (nn.Conv3d, nn.ConvTranspose3d, nn.MaxPool3d, nn.AvgPool3d),
    }[axes]
    torch.manual_seed(axes)
    layers = [
        conv(2, 8, 3, padding=1),
        activation(),
        largest(2),
        up(8, 8, 2, stride=2),
        between(),
        average(2),
        conv(8, 8, 2),
        activation(),
        nn.Flatten(),
        nn.LazyLinear(16),
        activation(),
        nn.Linear(16, 3),
    ]
    net = nn.Sequential(*layers).double().eval()
    images = torch.rand(2, 2, *[6, 4, 6][:axes], dtype=torch.float64) * 1.9 - 0.4
    net(images)
    for parameter in net[-1].parameters():
        parameter.data[2] = -parameter.data[0]  # outputs of both signs
    return net, images, net(images).detach()


@pytest.mark.parametrize("axes", [2, 3], ids=["slice", "volume"])
@pytest.mark.parametrize("name", RULES)
def test_lrp_equals_zennit(axes, name) -> None:
    net, images, outputs = modules_only(axes)
    for targets in (outputs.argmax(1), outputs.argmin(1)):
        assert_equal(our_maps(net, images, targets, name), zennit_maps(net, images, targets, name)[1])


@pytest.mark.parametrize("activation", [nn.LeakyReLU, nn.Tanh, nn.ELU])
def test_other_activations_pass_relevance_as_in_zennit(activation) -> None:
    net, images, _ = modules_only(2, activation)
    targets = torch.tensor([2, 0])
    for name in RULES:
        assert_equal(our_maps(net, images, targets, name), zennit_maps(net, images, targets, name)[1])


@pytest.mark.parametrize("axes", [2, 3], ids=["slice", "volume"])
def test_deep_taylor_equals_z_plus_and_z_box(axes) -> None:
    net, images, outputs = modules_only(axes, between=nn.ReLU)
    targets = outputs.argmax(1)
    assert (outputs.amax(1) > 0).all()
    expected = zennit_maps(net, images, targets, "deep_taylor")[1]
    assert_equal(our_maps(net, images, targets, "deep_taylor"), expected)


def test_deep_taylor_explains_an_output_below_0_as_minus_its_opposite() -> None:
    """zennit's z+ would share it out among the contributions that speak against it."""
    net, images, outputs = modules_only(2, between=nn.ReLU)
    targets = outputs.argmin(1)
    assert (outputs.amin(1) < 0).all()
    opposite = copy.deepcopy(net)
    for parameter in opposite[-1].parameters():
        parameter.data.neg_()
    maps = our_maps(net, images, targets, "deep_taylor")
    assert_equal(maps, -zennit_maps(opposite, images, targets, "deep_taylor")[1])
    assert not torch.allclose(maps, zennit_maps(net, images, targets, "deep_taylor")[1], rtol=0.1)


@pytest.fixture
def blocks(make_trained):
    """What zennit has a canonizer for: torchvision's residual blocks, here with nothing else that is no module."""
    torch.manual_seed(5)
    halves = nn.Sequential(nn.Conv2d(4, 6, 1, stride=2, bias=False), nn.BatchNorm2d(6))
    net = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(inplace=True),
        BasicBlock(4, 4),
        BasicBlock(4, 6, stride=2, downsample=halves),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 3),
    )
    net = make_trained(net).double()
    images = torch.rand(2, 2, 8, 6, dtype=torch.float64)
    return net, images, net(images).detach().argmax(1)


def set_eps(net, eps):
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = eps


@pytest.mark.parametrize("name", RULES)
def test_residual_blocks_equal_those_of_zennits_canonizer(blocks, name) -> None:
    """With eps = 0 in batch normalisation, see the next test."""
    net, images, targets = blocks
    set_eps(net, 0.0)
    output, expected = zennit_maps(net, images, targets, name, [ResNetCanonizer()])
    torch.testing.assert_close(output, net(images).detach(), rtol=1e-12, atol=1e-12)
    assert_equal(our_maps(net, images, targets, name), expected)


class Shrunk(nn.Module):
    """A norm, followed by a factor."""

    def __init__(self, norm):
        super().__init__()
        self.norm, self.factor = norm, (1 + norm.eps) ** -0.5

    def forward(self, x):
        return self.norm(x) * self.factor


@pytest.mark.parametrize("name", RULES)
def test_zennit_leaves_a_factor_where_it_merged_batch_normalisation(blocks, name) -> None:
    """It sets mean 0, variance 1, weight 1 and bias 0, but not eps: each norm still divides by sqrt(1 + eps).

    So zennit explains a network whose outputs are a little others. On that network our maps are zennit's. The factor
    is far from 1 here; with PyTorch's eps of 1e-5 it is 5e-6 a norm.
    """
    net, images, targets = blocks
    set_eps(net, 0.1)
    output, expected = zennit_maps(net, images, targets, name, [ResNetCanonizer()])
    shrunk = copy.deepcopy(net)
    shrunk[1] = Shrunk(shrunk[1])
    for block in (shrunk[3], shrunk[4]):
        block.bn1, block.bn2 = Shrunk(block.bn1), Shrunk(block.bn2)
    shrunk[4].downsample[1] = Shrunk(shrunk[4].downsample[1])
    torch.testing.assert_close(output, shrunk(images).detach(), rtol=1e-12, atol=1e-12)
    assert_equal(our_maps(shrunk, images, targets, name), expected)
    assert not torch.allclose(output, net(images), rtol=1e-2)
    assert not torch.allclose(our_maps(net, images, targets, name), expected, rtol=1e-2)


@pytest.mark.parametrize("name", METHODS)
def test_a_norm_alone_is_to_zennit_a_pass_and_to_us_a_diagonal_layer(name, make_trained) -> None:
    """Behind a ReLU it cannot be merged; its shift then takes its share, as a bias."""
    torch.manual_seed(6)
    norm = nn.BatchNorm2d(4)
    layers = [nn.Conv2d(2, 4, 3), nn.ReLU(), norm, nn.ReLU(), nn.Flatten(), nn.Linear(32, 3)]
    net = make_trained(nn.Sequential(*layers)).double()
    images = torch.rand(2, 2, 6, 4, dtype=torch.float64)
    targets = net(images).argmax(1)
    diagonal = nn.Conv2d(4, 4, 1, groups=4).double()
    scale = (norm.weight / (norm.running_var + norm.eps).sqrt()).detach()
    diagonal.weight.data = scale[:, None, None, None]
    diagonal.bias.data = norm.bias.detach() - norm.running_mean * scale
    same = nn.Sequential(*layers[:2], diagonal, *layers[3:]).eval()
    maps = our_maps(net, images, targets, name)
    assert_equal(maps, zennit_maps(same, images, targets, name)[1])
    assert not torch.allclose(maps, zennit_maps(net, images, targets, name)[1], rtol=0.05)


class Skip(nn.Module):
    """A sum that is no module."""

    def __init__(self):
        super().__init__()
        self.stem, self.stem_relu = nn.Conv2d(2, 4, 3, bias=False), nn.ReLU()
        self.conv, self.relu = nn.Conv2d(4, 4, 1, bias=False), nn.ReLU()
        self.flatten, self.head = nn.Flatten(), nn.Linear(32, 3, bias=False)

    def forward(self, x):
        x = self.stem_relu(self.stem(x))
        return self.head(self.flatten(self.relu(self.conv(x) + x)))


def test_zennit_doubles_relevance_at_a_sum_that_is_no_module() -> None:
    torch.manual_seed(7)
    net = Skip().double().eval()
    images = torch.rand(2, 2, 6, 4, dtype=torch.float64)
    output = net(images).detach().amax(1)
    targets = net(images).argmax(1)
    ours, theirs = (
        maps(net, images, targets, "alpha1_beta0") for maps in (our_maps, lambda *a: zennit_maps(*a)[1])
    )
    torch.testing.assert_close(ours.sum((1, 2, 3)), output, rtol=1e-3, atol=0)
    assert (theirs.sum((1, 2, 3)) > 1.5 * output).all()
