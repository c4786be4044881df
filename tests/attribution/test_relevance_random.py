"""Relevance propagation on random networks, against matrices.

A network is drawn as a nested list of blocks. From it come a module, and a list of references that write every linear
layer as the matrix of its Jacobian and share relevance out by the sum of the rule's equation, in float64.
"""

import copy
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from xaitools.attribution import lrp

SHAPE = (2, 4, 6)
RULES = ("epsilon", "gamma", "alpha1_beta0", "alpha2_beta1")
EPSILON, GAMMA, STABILIZER = 0.05, 0.25, 1e-6


class Residual(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return x + self.inner(x)


class Joined(Residual):
    def forward(self, x):
        return torch.cat([self.inner(x), x], 1)


class Rescaled(nn.Module):
    def forward(self, x):
        return 0.5 * x


def draw(rng, shape, depth):
    """A module for inputs of a shape, and the shape of its outputs."""
    layers = []
    for _ in range(rng.integers(2, 5)):
        layer, shape = draw_layer(rng, shape, depth)
        layers.append(layer)
    return nn.Sequential(*layers), shape


def draw_layer(rng, shape, depth):
    channels, *sides = shape
    kinds = ["conv", "conv", "norm", "relu", "relu", "leaky", "tanh", "scale"]
    kinds += ["max", "average"] if min(sides) > 1 else []
    kinds += ["residual", "joined"] if depth else []
    kind = rng.choice(kinds)
    if kind == "conv":
        groups = int(rng.choice([1, channels]))
        out = groups * int(rng.integers(1, 4 if groups == 1 else 2))
        stride = int(rng.integers(1, 3)) if min(sides) > 1 else 1
        mode = rng.choice(["zeros", "replicate"])
        conv = nn.Conv2d(
            channels, out, 3, stride, 1, groups=groups, bias=bool(rng.integers(2)), padding_mode=mode
        )
        return conv, (out, *((side - 1) // stride + 1 for side in sides))
    if kind == "norm":
        norm = nn.BatchNorm2d(channels)
        for tensor in (norm.running_mean, norm.bias.data):
            tensor.copy_(0.3 * torch.randn(channels))
        norm.running_var.copy_(0.5 + torch.rand(channels))
        return norm, shape
    if kind == "max" or kind == "average":
        return (nn.MaxPool2d if kind == "max" else nn.AvgPool2d)(2), (
            channels,
            *(side // 2 for side in sides),
        )
    if kind in ("residual", "joined"):
        inner = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(), nn.Conv2d(channels, channels, 1)
        )
        return (Residual(inner), shape) if kind == "residual" else (Joined(inner), (2 * channels, *sides))
    simple = {
        "relu": nn.ReLU(bool(rng.integers(2))),
        "leaky": nn.LeakyReLU(0.2),
        "tanh": nn.Tanh(),
        "scale": Rescaled(),
    }
    return simple[kind], shape


def divide(numerators, denominators, stabilizer=STABILIZER):
    stable = denominators + np.where(denominators >= 0, stabilizer, -stabilizer)
    return numerators / stable[:, None]


def weights_of(rule, w, b, x):
    """What share of the relevance of output j goes to input i: (output, input)."""
    c, z = w * x, w @ x + b
    positive, negative = np.maximum(c, 0), np.minimum(c, 0)
    if rule == "epsilon":
        return divide(c, z, EPSILON)
    if rule == "gamma":
        up = divide(c + GAMMA * positive, (c + GAMMA * positive).sum(1) + b + GAMMA * np.maximum(b, 0))
        down = divide(c + GAMMA * negative, (c + GAMMA * negative).sum(1) + b + GAMMA * np.minimum(b, 0))
        return np.where(z[:, None] > 0, up, down)
    up = divide(positive, positive.sum(1) + np.maximum(b, 0))
    down = divide(negative, negative.sum(1) + np.minimum(b, 0))
    return up if rule == "alpha1_beta0" else 2 * up - down


def matrix(function, shape):
    """Matrix and offset of an affine function of arrays of a shape."""
    offset = function(torch.zeros(1, *shape, dtype=torch.float64)).flatten()
    units = torch.eye(math.prod(shape), dtype=torch.float64).reshape(-1, *shape)
    return (function(units).flatten(1) - offset).T.numpy(), offset.numpy()


def back(layers, x: Tensor, rule, at_output):
    """Relevance of x (1, channel, *spatial), from a function that gives that of the outputs (1, ...)."""
    if not layers:
        return at_output(x)
    layer, rest = layers[0], layers[1:]
    shape = tuple(x.shape[1:])
    if isinstance(layer, nn.Sequential):
        return back([*layer, *rest], x, rule, at_output)
    if isinstance(layer, nn.Conv2d) and rest and isinstance(rest[0], nn.BatchNorm2d):
        layer, rest = nn.Sequential(layer, rest[0]), rest[1:]
    conv = layer[0] if isinstance(layer, nn.Sequential) else layer
    if (
        isinstance(conv, nn.Conv2d) and conv.padding_mode != "zeros"
    ):  # copies at the border are inputs of their own
        pad, bare = nn.ReplicationPad2d(1), copy.deepcopy(conv)
        bare.padding, bare.padding_mode = (0, 0), "zeros"
        layers = [bare, *([] if layer is conv else [layer[1]]), *rest]
        of_padded = back(layers, pad(x), rule, at_output)
        return torch.from_numpy(matrix(pad, shape)[0].T @ of_padded.flatten().numpy()).reshape(x.shape)
    y = layer(x)
    if isinstance(layer, Residual):  # the parts that are added, or joined, get what is theirs
        relevance = back(rest, y, rule, at_output)
        branch = layer.inner(x)
        if isinstance(layer, Joined):
            of_branch, of_skip = relevance[:, : branch.shape[1]], relevance[:, branch.shape[1] :]
        else:
            share = relevance / (y + torch.where(y >= 0, STABILIZER, -STABILIZER))
            of_branch, of_skip = branch * share, x * share
        return of_skip + back(list(layer.inner), x, rule, lambda _: of_branch)
    relevance = back(rest, y, rule, at_output)
    if isinstance(layer, nn.ReLU | nn.LeakyReLU | nn.Tanh | Rescaled | nn.Flatten):
        return relevance.reshape(x.shape)
    if isinstance(layer, nn.MaxPool2d):
        spread = torch.zeros_like(x).flatten(2)
        winners = nn.functional.max_pool2d(x, 2, return_indices=True)[1]
        return spread.scatter_add(2, winners.flatten(2), relevance.flatten(2)).reshape(x.shape)
    w, b = matrix(layer, shape)
    flat = x.flatten().numpy()
    average = isinstance(layer, nn.AvgPool2d)
    shares = divide(w * flat, w @ flat) if average else weights_of(rule, w, b, flat)
    return torch.from_numpy(shares.T @ relevance.flatten().numpy()).reshape(x.shape)


def out_of_place(net):
    """A copy whose ReLUs leave the reference's values as they are."""
    net = copy.deepcopy(net)
    for module in net.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    return net


@pytest.mark.parametrize("seed", range(60))
def test_equals_matrices(seed) -> None:
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    body, shape = draw(rng, SHAPE, depth=1)
    net = (
        nn.Sequential(body, nn.Flatten(), nn.Linear(math.prod(shape), 3))
        .double()
        .eval()
        .requires_grad_(False)
    )
    image = torch.randn(1, *SHAPE, dtype=torch.float64)
    target = int(rng.integers(3))
    one_hot = torch.eye(3, dtype=torch.float64)[target]
    rule = RULES[seed % len(RULES)]
    expected = back([*out_of_place(net)], image, rule, lambda outputs: outputs * one_hot)
    maps = lrp(net, image, target, rule=rule, epsilon=EPSILON, gamma=GAMMA, progress=False)
    torch.testing.assert_close(maps, expected, rtol=1e-6, atol=1e-9 * float(expected.abs().max()))
