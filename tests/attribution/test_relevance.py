"""Relevance propagation against matrices in float64.

The reference writes every linear layer as a matrix W (output, input) and every rule as the sum of its equation,
R_i = sum_j c_ji / sum_k c_jk R_j with contributions c, from Bach et al. 2015 and Montavon et al. 2017 and 2019.
"""

import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from xaitools.attribution import input_x_gradient, lrp
from xaitools.attribution._lrp_rules import RULES, composite, deep_taylor_composite
from xaitools.attribution._relevance import relevance_plan
from xaitools.attribution._run import _Redistribute
from xaitools.attribution._stream import Batch
from xaitools.attribution.registry import Setting
from xaitools.errors import UnsupportedModelError
from xaitools.models import Network

LOW, HIGH = -0.5, 1.5
EPSILON = 0.05
STABILIZER = 1e-6


class BlockNet(nn.Module):
    """Convolutions with batch normalisation, max pooling, a residual sum, average pooling, a dense layer."""

    def __init__(self, axes: int):
        super().__init__()
        conv, norm = {2: (nn.Conv2d, nn.BatchNorm2d), 3: (nn.Conv3d, nn.BatchNorm3d)}[axes]
        self.conv1, self.bn1 = conv(2, 3, 3, padding=1), norm(3)
        self.conv2, self.bn2 = conv(3, 4, 3, padding=1, bias=False), norm(4)
        self.conv3, self.bn3 = conv(4, 3, 1), norm(3)
        self.relu = nn.ReLU(inplace=True)
        self.pool = {2: nn.MaxPool2d(2), 3: nn.MaxPool3d(2)}[axes]
        self.average = {2: nn.AvgPool2d(2), 3: nn.AvgPool3d(2)}[axes]
        self.dense = nn.LazyLinear(3)

    def forward(self, x):
        x = self.pool(self.relu(self.bn1(self.conv1(x))))
        y = self.bn3(self.conv3(self.relu(self.bn2(self.conv2(x)))))
        y += x
        return self.dense(torch.flatten(self.average(self.relu(y)), 1))


@pytest.fixture(params=[2, 3], ids=["slice", "volume"])
def block_net(request, make_trained):
    torch.manual_seed(request.param)
    axes = request.param
    net = BlockNet(axes).double()
    images = torch.rand(2, 2, *[4, 6, 4][:axes], dtype=torch.float64) * 1.5 - 0.4
    net(images)
    return make_trained(net).double(), images


def relevance_rule(net, example, rules):
    """A function of images and targets that gives their relevance."""
    plan = relevance_plan(Setting(Network(net, example), example, None, "rules"), rules)

    def run(images, targets):
        return plan.passes.run(Batch(images, targets, list(range(len(images))), lambda passes: None))

    return run


def matrix(function, shape):
    """Matrix and offset of an affine function of arrays of a shape."""
    with torch.no_grad():
        offset = function(torch.zeros(1, *shape, dtype=torch.float64)).flatten()
        units = torch.eye(int(np.prod(shape)), dtype=torch.float64).reshape(-1, *shape)
        return (function(units).flatten(1) - offset).T.numpy(), offset.numpy()


def divide(numerators, denominators, stabilizer=STABILIZER):
    return numerators / (denominators + np.where(denominators >= 0, stabilizer, -stabilizer))[:, None]


def weights_of(rule, w, b, x):
    """What share of the relevance of output j goes to input i: (output, input)."""
    c, z = w * x, w @ x + b
    positive, negative = np.maximum(c, 0), np.minimum(c, 0)
    if rule == "epsilon":
        return divide(c, z, EPSILON)
    if rule in ("alpha1_beta0", "plus"):
        return divide(positive, positive.sum(1) + np.maximum(b, 0))
    if rule == "alpha2_beta1":
        up = divide(positive, positive.sum(1) + np.maximum(b, 0))
        return 2 * up - divide(negative, negative.sum(1) + np.minimum(b, 0))
    if rule == "gamma":
        up = divide(c + 0.25 * positive, (c + 0.25 * positive).sum(1) + b + 0.25 * np.maximum(b, 0))
        down = divide(c + 0.25 * negative, (c + 0.25 * negative).sum(1) + b + 0.25 * np.minimum(b, 0))
        return np.where(z[:, None] > 0, up, down)
    if rule == "z_plus":
        up, down = divide(positive, positive.sum(1)), divide(negative, negative.sum(1))
        return np.where(z[:, None] > 0, up, down)
    if rule == "box":
        c = w * x - LOW * np.maximum(w, 0) - HIGH * np.minimum(w, 0)
        return divide(c, c.sum(1))
    assert rule == "flat"
    c = (w != 0).astype(float)
    return divide(c, c.sum(1))


def slow_relevance(net, image, target, dense, convolution, first, own_sign_sums):
    """Relevance of one image, layer by layer."""
    shape = tuple(image.shape)
    layer1, layer2, layer3 = (
        matrix(lambda x, c=c, b=b: b(c(x)), s)
        for c, b, s in (
            (net.conv1, net.bn1, shape),
            (net.conv2, net.bn2, (3, *(n // 2 for n in shape[1:]))),
            (net.conv3, net.bn3, (4, *(n // 2 for n in shape[1:]))),
        )
    )
    half = (3, *(n // 2 for n in shape[1:]))
    average = matrix(net.average, half)
    head = (net.dense.weight.detach().numpy(), net.dense.bias.detach().numpy())

    x0 = image.flatten().numpy()
    x1 = np.maximum(layer1[0] @ x0 + layer1[1], 0)
    pooled, winners = torch.nn.functional.__dict__[f"max_pool{image.ndim - 1}d_with_indices"](
        torch.from_numpy(x1).reshape(3, *shape[1:]), 2
    )
    voxels = int(np.prod(shape[1:]))
    winners = (winners.reshape(3, -1) + voxels * torch.arange(3)[:, None]).flatten().numpy()
    x2 = pooled.flatten().numpy()
    x3 = np.maximum(layer2[0] @ x2 + layer2[1], 0)
    branch = layer3[0] @ x3 + layer3[1]
    x4 = np.maximum(branch + x2, 0)
    x5 = average[0] @ x4
    out = head[0] @ x5 + head[1]

    relevance = np.where(np.arange(3) == target, out, 0)
    relevance = weights_of(dense, *head, x5).T @ relevance
    relevance = divide(average[0] * x4, x5).T @ relevance
    one, two = (np.maximum(branch, 0), np.maximum(x2, 0)) if own_sign_sums else (branch, x2)
    of_branch, of_skip = (divide(np.diag(term), one + two).T @ relevance for term in (one, two))
    of_branch = weights_of(convolution, *layer3, x3).T @ of_branch
    of_branch = weights_of(convolution, *layer2, x2).T @ of_branch
    relevance = np.zeros_like(x1)
    relevance[winners] = of_branch + of_skip
    return (weights_of(first or convolution, *layer1, x0).T @ relevance).reshape(shape)


PARTS = {
    "epsilon": ("epsilon", "epsilon", None),
    "gamma": ("gamma", "gamma", None),
    "alpha1_beta0": ("alpha1_beta0", "alpha1_beta0", None),
    "alpha2_beta1": ("alpha2_beta1", "alpha2_beta1", None),
    "epsilon_plus": ("epsilon", "plus", None),
    "epsilon_plus_flat": ("epsilon", "plus", "flat"),
    "epsilon_alpha2_beta1": ("epsilon", "alpha2_beta1", None),
    "epsilon_alpha2_beta1_flat": ("epsilon", "alpha2_beta1", "flat"),
    "epsilon_gamma_box": ("epsilon", "gamma", "box"),
    "deep_taylor": ("z_plus", "z_plus", "box"),
}


def compare(net, images, name):
    targets = torch.tensor([2, 0])
    if name == "deep_taylor":
        rules = deep_taylor_composite(LOW, HIGH)
    else:
        rules = composite(name, epsilon=EPSILON, low=LOW, high=HIGH)
    maps = relevance_rule(net, images[:1], rules)(images, targets)
    slow = np.stack(
        [
            slow_relevance(net, image, int(target), *PARTS[name], name == "deep_taylor")
            for image, target in zip(images, targets, strict=True)
        ]
    )
    torch.testing.assert_close(maps, torch.from_numpy(slow), rtol=1e-9, atol=1e-9 * float(np.abs(slow).max()))


@pytest.mark.parametrize("name", [*RULES, "deep_taylor"])
def test_equals_the_equations_in_matrices(block_net, name) -> None:
    assert PARTS.keys() == {*RULES, "deep_taylor"}
    compare(*block_net, name)


class Spelled(nn.Module):
    """One network in two spellings: of modules only, and of functions, operators and methods."""

    def __init__(self, functional: bool):
        super().__init__()
        self.functional = functional
        self.a, self.b = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.c = nn.Conv2d(8, 6, 3, stride=2, groups=2)
        self.head = nn.Linear(6, 3)
        self.act = nn.ReLU()
        self.pool, self.mean = nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(1)

    def forward(self, x):
        if not self.functional:
            x = self.act(self.a(x))
            y = self.act(self.b(x))
            x = torch.cat([self.act(torch.add(x, y)), y], 1)
            x = self.act(self.c(self.pool(x)))
            return self.head(torch.flatten(self.mean(x), 1))
        x = F.relu(F.conv2d(x, self.a.weight, self.a.bias, padding=1), inplace=True)
        y = torch.relu_(self.b(x))
        out = 1.0 * y
        out += x
        x = torch.cat((out.relu(), y), dim=1)
        x = F.max_pool2d(x, 2)
        x = F.dropout(F.relu(self.c(x), True), 0.5, self.training)
        return F.linear(x.mean((2, 3)).view(x.size(0), -1), self.head.weight, self.head.bias)


@pytest.mark.parametrize("name", [*RULES, "deep_taylor"])
def test_any_spelling_gives_the_same_map(images, targets, name) -> None:
    torch.manual_seed(0)
    modules = Spelled(False).eval()
    functions = Spelled(True).eval()
    functions.load_state_dict(modules.state_dict())
    rules = deep_taylor_composite() if name == "deep_taylor" else composite(name)
    one, other = (relevance_rule(net, images[:1], rules)(images, targets) for net in (modules, functions))
    torch.testing.assert_close(one, other)


class Preactivated(nn.Module):
    """What ReLU works on in place is added afterwards: changed."""

    def __init__(self):
        super().__init__()
        self.stem, self.conv, self.head = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 1), nn.Linear(4, 3)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        x = self.stem(x)
        y = self.conv(self.relu(x))
        return self.head((x + y).mean((2, 3)))


class Alone(nn.Module):
    """Batch normalisation with no layer before it, shared layers, a leaky ReLU, constants."""

    def __init__(self):
        super().__init__()
        self.norm0, self.conv, self.norm = nn.BatchNorm2d(1), nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)
        self.shared, self.shared_norm = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)
        self.up = nn.ConvTranspose2d(4, 4, 2, stride=2)
        self.leaky, self.head = nn.LeakyReLU(0.1), nn.Linear(4, 3)

    def forward(self, x):
        x = self.norm(F.max_pool2d(self.conv(self.norm0(x)), 2))
        for _ in range(2):
            x = self.leaky(self.shared_norm(self.shared(x)))
        x = (self.up(x) - 0.1) / 2 * 3
        return self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))


@pytest.mark.parametrize("kind", [BlockNet, Spelled, Preactivated, Alone])
def test_a_vanishing_epsilon_is_input_times_gradient(kind, make_trained) -> None:
    """Ancona et al. 2018, proposition 1; it holds with biases."""
    torch.manual_seed(3)
    net = kind(2) if kind is BlockNet else kind(True) if kind is Spelled else kind()
    x = torch.randn(2, 2 if kind is BlockNet else 1, 8, 8, dtype=torch.float64)
    net.double()(x)
    net = make_trained(net)
    targets = torch.tensor([0, 2])
    expected = input_x_gradient(net, x, targets)
    rule = relevance_rule(net, x[:1], composite("epsilon", epsilon=0.0))
    torch.testing.assert_close(rule(x, targets), expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))
    small = lrp(net, x, targets, epsilon=1e-12)
    torch.testing.assert_close(small, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))


@pytest.mark.parametrize("name", [*RULES, "deep_taylor"])
def test_a_norm_alone_is_a_diagonal_layer(images, targets, name, make_trained) -> None:
    torch.manual_seed(4)
    norm = nn.BatchNorm2d(4)
    layers = [
        nn.Conv2d(1, 4, 3),
        nn.ReLU(),
        norm,
        nn.ReLU(),
        nn.Conv2d(4, 3, 5),
        nn.Flatten(),
        nn.LazyLinear(3),
    ]
    net = nn.Sequential(*layers)
    net(images)
    net = make_trained(net)
    diagonal = nn.Conv2d(4, 4, 1, groups=4)
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    diagonal.weight.data = scale.detach()[:, None, None, None]
    diagonal.bias.data = (norm.bias - norm.running_mean * scale).detach()
    same = nn.Sequential(*layers[:2], diagonal, *layers[3:])
    rules = deep_taylor_composite() if name == "deep_taylor" else composite(name)
    one, other = (relevance_rule(n, images[:1], rules)(images, targets) for n in (net, same))
    torch.testing.assert_close(one, other)


class Prepared(nn.Module):
    """Scales the image and copies it to three channels before the first layer."""

    def __init__(self, net, scale):
        super().__init__()
        self.net, self.scale = net, scale
        self.register_buffer("mean", torch.tensor([0.4, 0.5, 0.6])[:, None, None])

    def forward(self, x):
        x = x.expand(-1, 3, -1, -1)
        return self.net((x - self.mean) / self.scale if self.scale else x)


@pytest.mark.parametrize("scale", [0.25, -0.25, 0])
def test_the_bounds_of_pixels_go_through_what_precedes_the_first_layer(images, targets, scale) -> None:
    """z^B in terms of the scaled image, whose bounds are scaled likewise, summed over the copies."""
    torch.manual_seed(5)
    inner = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 3, 5), nn.Flatten(), nn.LazyLinear(3)
    ).eval()
    net = Prepared(inner, scale).eval()
    net(images)
    x = images.expand(-1, 3, -1, -1)
    bounds = [torch.zeros(3, 1, 1), torch.ones(3, 1, 1)]
    if scale:
        x, bounds = (
            (x - net.mean) / scale,
            sorted(((b - net.mean) / scale for b in bounds), key=lambda b: b[0]),
        )
    expected = relevance_rule(inner, x[:1], deep_taylor_composite(*bounds))(x, targets).sum(1, keepdim=True)
    maps = relevance_rule(net, images[:1], deep_taylor_composite())(images, targets)
    torch.testing.assert_close(maps, expected)


def test_equal_shares_need_the_image_itself(images, targets) -> None:
    inner = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(3)).eval()
    for scale in (0, 0.25):
        net = Prepared(inner, scale).eval()
        net(images)
        if scale:
            with pytest.raises(UnsupportedModelError, match="scales the image before its first layer"):
                relevance_rule(net, images[:1], composite("epsilon_plus_flat"))
        else:
            same = torch.nn.Sequential(nn.Conv2d(1, 4, 3), *inner[1:])
            same[0].weight.data, same[0].bias.data = (
                inner[0].weight.data.sum(1, keepdim=True),
                inner[0].bias.data,
            )
            one, other = (
                relevance_rule(n, images[:1], composite("epsilon_plus_flat"))(images, targets)
                for n in (net, same)
            )
            torch.testing.assert_close(one, other)


class Custom(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx, grad):
        return grad


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(10, 5, batch_first=True)

    def forward(self, x):
        return self.lstm(x.squeeze(1))[0].mean((1, 2))


class Calling(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x).mean((1, 2, 3))


def branching(x):
    return x if float(x.sum()) > -1e9 else -x


def scripted(module):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.script(module)


def without_gradient(x):
    with torch.no_grad():
        scale = x * 2 * (len(x) > 0)  # which torch.fx does not trace
    return x * scale


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (Recurrent(), "no rule for LSTM in layer 'inner.lstm'; use input_x_gradient"),
        (
            nn.Sequential(nn.Flatten(), nn.Linear(120, 1), nn.Sigmoid()),
            "Sigmoid in layer 'inner.2'.*before it",
        ),
        (
            nn.Sequential(nn.Flatten(), nn.Linear(120, 3), nn.Softmax(1)),
            "Softmax in layer 'inner.2'.*before it",
        ),
        (nn.Sequential(nn.Flatten(), nn.Linear(120, 3), nn.LogSoftmax(1)), "LogSoftmax in layer 'inner.2'"),
        (Calling(torch.sigmoid), "no rule for sigmoid in layer 'inner'"),
        (Calling(lambda x: x.detach()), "no rule for detach in layer 'inner'"),
        (Calling(lambda x: x.data), "no rule for data in layer 'inner'"),
        (Calling(lambda x: x + 0 * float(x.sum())), "no rule for __float__ in layer 'inner'"),
        (Calling(lambda x: x + 0 * x.sum().item()), "no rule for item in layer 'inner'"),
        (Calling(lambda x: 1 / (2 + x)), "no rule for __rdiv__ in layer 'inner'"),
        (Calling(lambda x: torch.ones(1) / (2 + x)), "no rule for div by a value that depends on the image"),
        (Calling(lambda x: x**2), "no rule for pow"),
        (Calling(lambda x: torch.addcmul(x, x, x)), "no rule for addcmul"),
        (
            Calling(lambda x: F.conv2d(x, (1 + 0 * x.sum()).view(1, 1, 1, 1))),
            "conv2d whose weights depend on the image",
        ),
        (
            Calling(lambda x: F.layer_norm(x, (10,), torch.ones(10) + 0 * x.sum())),
            "layer_norm whose weights depend on the image",
        ),
        (Calling(Custom.apply), "clamp under torch.no_grad or in a function with a gradient of its own"),
        (Calling(scripted(nn.ReLU())), "has a gradient of its own or is compiled"),
        (Calling(branching), "no rule for __float__ in layer 'inner'"),
        (Calling(without_gradient), "no rule for mul under torch.no_grad"),
    ],
    ids=lambda value: "" if isinstance(value, str) else type(value).__name__,
)
def test_layers_without_a_rule_are_named(images, network, message) -> None:
    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = network.eval()

        def forward(self, x):
            return self.inner(x)

    with pytest.raises(UnsupportedModelError, match=message):
        relevance_rule(Outer(), images[:1], composite("epsilon"))


def test_a_selection_in_front_of_the_first_layer_has_no_bounds(images) -> None:
    net = nn.Sequential(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(30, 1)).eval()
    relevance_rule(net, images[:1], composite("alpha2_beta1"))
    with pytest.raises(UnsupportedModelError, match="MaxPool2d in front of the first layer"):
        relevance_rule(net, images[:1], deep_taylor_composite())


def test_a_view_changed_in_place_changes_its_base(images) -> None:
    """Which a traced graph does not show."""

    class Viewing(nn.Module):
        def forward(self, x):
            x = x - 0.5
            x.view(-1).relu_()
            return x.mean((1, 2, 3))

    maps = lrp(Viewing(), images, epsilon=0.0)
    torch.testing.assert_close(maps, input_x_gradient(Viewing(), images))
    assert maps.any()


def test_randomness_is_noticed(images) -> None:
    class Random(nn.Module):
        def forward(self, x):
            return (x * torch.rand(())).sum((1, 2, 3))

    with pytest.raises(UnsupportedModelError, match="Random"):
        relevance_rule(Random(), images[:1], composite("epsilon"))


@pytest.mark.parametrize("kind", [nn.ReLU6, nn.ELU, nn.Tanh])
def test_activations_through_the_origin_pass_all_relevance(images, kind) -> None:
    net = nn.Sequential(
        nn.Flatten(), nn.Linear(120, 5, bias=False), kind(), nn.Linear(5, 1, bias=False)
    ).eval()
    net[1].weight.data = net[1].weight.data.abs() * torch.tensor([20.0, -20.0, 20.0, -20.0, 20.0])[:, None]
    maps = lrp(net, images)
    torch.testing.assert_close(maps.flatten(1).sum(1), net(images)[:, 0].detach(), rtol=1e-3, atol=1e-5)
    assert not torch.allclose(maps, input_x_gradient(net, images), rtol=0.05)


class Forked(nn.Module):
    """Outputs below 0 matter, although a ReLU follows: it is not all that follows."""

    def __init__(self, conv, head, between):
        super().__init__()
        self.conv, self.head, self.between = conv, head, between

    def forward(self, x):
        x = self.conv(x)
        x = self.between(x) if self.between else x
        return self.head((torch.relu(x) + x).mean((2, 3)))


@pytest.mark.parametrize("rules", [composite("gamma"), deep_taylor_composite()], ids=["gamma", "deep_taylor"])
def test_a_layer_is_rectified_only_if_nothing_but_relus_follows(images, targets, rules) -> None:
    torch.manual_seed(6)
    conv, head = nn.Sequential(nn.Conv2d(1, 3, 1), nn.ReLU(), nn.Conv2d(3, 4, 3)), nn.Linear(4, 3)
    one, other = (
        relevance_rule(net, images[:1], rules)(images, targets)
        for net in (Forked(conv, head, None), Forked(conv, head, nn.Identity()))
    )
    torch.testing.assert_close(one, other)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_a_stabiliser_too_small_for_the_precision_makes_no_nan(dtype):
    inputs = torch.tensor([[1.0, 0.0, -2.0]], dtype=dtype, requires_grad=True)
    kept = _Redistribute.apply(inputs.detach(), (1.0,), 1e-9, inputs)
    (signal,) = torch.autograd.grad(kept.sum(), inputs)
    torch.testing.assert_close(signal, torch.tensor([[1.0, 0.0, 1.0]], dtype=dtype))
    kept = _Redistribute.apply(inputs.detach(), (1.0,), 0.5, inputs)
    (signal,) = torch.autograd.grad(kept.sum(), inputs)
    torch.testing.assert_close(signal, torch.tensor([[1 / 1.5, 0.0, 2 / 2.5]], dtype=dtype))
