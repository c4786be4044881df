"""One network in many spellings: relevance sees what PyTorch runs, not what modules are called."""

import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations, spectral_norm

from xaitools.attribution import deep_taylor, input_x_gradient, lrp
from xaitools.attribution._lrp_rules import RULES, composite
from xaitools.attribution._relevance import relevance_plan
from xaitools.attribution._stream import Batch
from xaitools.attribution.registry import Setting
from xaitools.errors import UnsupportedModelError
from xaitools.models import Network


class Dense(nn.Module):
    """A hidden layer in a spelling of its own, and a head."""

    def __init__(self, spelling, act=F.relu):
        super().__init__()
        self.hidden, self.head, self.spelling, self.act = nn.Linear(120, 6), nn.Linear(6, 3), spelling, act

    def forward(self, x):
        w, b = self.hidden.weight, self.hidden.bias
        return self.head(self.act(self.spelling(x.flatten(1), w, b)))


DENSE = {
    "x @ W + b, the bias in its denominator": lambda x, w, b: torch.addmm(b, x, w.T),
    "F.linear": F.linear,
    "keywords": lambda x, w, b: F.linear(bias=b, weight=w, input=x),
    "baddbmm": lambda x, w, b: torch.baddbmm(b, x[None], w.T[None])[0],
    "conv1d": lambda x, w, b: F.conv1d(x[:, :, None], w[:, :, None], b)[:, :, 0],
    "unfold and addmm": lambda x, w, b: torch.addmm(
        b, F.unfold(x.view(-1, 1, 12, 10), (12, 10))[:, :, 0], w.T
    ),
}
FREE = {
    "matmul": lambda x, w, b: x @ w.T,
    "from the left": lambda x, w, b: (w @ x.T).T,
    "mm": lambda x, w, b: torch.mm(x, mat2=w.T),
    "bmm": lambda x, w, b: torch.bmm(x[None], w.T[None])[0],
    "mv": lambda x, w, b: torch.stack([torch.mv(w, row) for row in x]),
    "einsum": lambda x, w, b: torch.einsum("bi,oi->bo", x, w),
    "einsum, the other way round": lambda x, w, b: torch.einsum("oi,bi->bo", [w, x]),
    "conv2d": lambda x, w, b: F.conv2d(x.view(-1, 1, 12, 10), w.view(6, 1, 12, 10)).flatten(1),
}


def maps_of(net, images, targets, rule):
    if rule == "deep_taylor":
        return deep_taylor(net, images, targets, progress=False)
    return lrp(net, images, targets, rule=rule, progress=False)


@pytest.mark.parametrize("rule", ["epsilon", "gamma", "alpha2_beta1", "epsilon_gamma_box", "deep_taylor"])
def test_a_dense_layer_by_hand(images, targets, rule) -> None:
    torch.manual_seed(0)
    state = Dense(F.linear).state_dict()
    for spellings, plain in ((DENSE, F.linear), (FREE, lambda x, w, b: F.linear(x, w))):
        expected = None
        for name, spelling in {"": plain, **spellings}.items():
            if rule != "epsilon" and name in ("conv1d", "conv2d") and "_" in rule.replace("deep_taylor", ""):
                continue  # composites have other rules for convolutions
            net = Dense(spelling)
            net.load_state_dict(state)
            found = maps_of(net.double(), images.double(), targets, rule)
            expected = found if expected is None else expected
            torch.testing.assert_close(found, expected, msg=lambda m, name=name: f"{name}: {m}")


HAND_MADE = {
    "times a mask": lambda x: x * (x > 0),
    "masked_fill": lambda x: x.masked_fill(x < 0, 0.0),
    "where": lambda x: torch.where(x > 0, x, torch.zeros_like(x)),
    "assignment": lambda x: _assigned(x.clone()),
    "maximum": lambda x: torch.maximum(x, torch.zeros_like(x)),
    "amax of a stack": lambda x: torch.stack([x, torch.zeros_like(x)]).amax(0),
    "clamp": lambda x: x.clamp(min=0),
    "clamp in place": lambda x: (1.0 * x).clamp_(min=0),
    "a view in place": lambda x: _viewed(1.0 * x),
    "half of it": lambda x: torch.cat(tensors=[F.relu(x[:, :3]), x[:, 3:].relu()], dim=1),
    "twice in place": lambda x: torch.relu_(torch.relu_(1.0 * x)),
    "threshold": lambda x: F.threshold(x, 0.0, 0.0),
}


def _assigned(x):
    x[x < 0] = 0
    return x


def _viewed(x):
    x.view(-1).relu_()
    return x


@pytest.mark.parametrize("name", HAND_MADE)
def test_a_relu_by_hand(images, targets, name) -> None:
    torch.manual_seed(0)
    net, other = Dense(F.linear), Dense(F.linear, HAND_MADE[name])
    other.load_state_dict(net.state_dict())
    for rule in ("epsilon", "gamma", "alpha2_beta1"):
        torch.testing.assert_close(maps_of(other, images, targets, rule), maps_of(net, images, targets, rule))


class Scaled(nn.Conv2d):
    """Looks like a convolution, and is more."""

    def forward(self, x):
        return 2 * super().forward(x).relu()


def test_subclasses_are_what_they_do(images, targets) -> None:
    torch.manual_seed(0)
    conv, tail = Scaled(1, 4, 3, padding=1, padding_mode="reflect"), [nn.Flatten(), nn.Linear(480, 3)]
    plain = nn.Conv2d(1, 4, 3)
    plain.load_state_dict(conv.state_dict())
    same = nn.Sequential(nn.ReflectionPad2d(1), plain, nn.ReLU(), nn.Flatten(), nn.Linear(480, 3))
    same[4].weight.data, same[4].bias.data = 2 * tail[1].weight.data, tail[1].bias.data
    for rule in RULES:
        if not rule.endswith("flat"):
            one, other = (maps_of(net, images, targets, rule) for net in (nn.Sequential(conv, *tail), same))
            torch.testing.assert_close(one, other)


@pytest.mark.parametrize("kind", ["spectral", "old spectral", "weight", "hook"])
def test_weights_and_values_that_others_change_are_the_changed(images, targets, kind) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(320, 3))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if kind == "spectral":
            parametrizations.spectral_norm(net[0])
        elif kind == "old spectral":
            spectral_norm(net[0])
        elif kind == "weight":
            parametrizations.weight_norm(net[0])
            net[0].parametrizations.weight.original0.data *= 3
        else:
            net[0].register_forward_hook(lambda module, args, output: 3 * output)
            net[3].register_forward_pre_hook(lambda module, args: (args[0] - 1,))
        net.eval()
        expected = input_x_gradient(net.double(), images.double(), targets)
        found = lrp(net, images.double(), targets, epsilon=1e-12)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-7)


class Extra(nn.Module):
    """Computes what it does not return."""

    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 4, 3), nn.Linear(4, 3)

    def forward(self, x):
        logits = self.head(F.relu(self.conv(x)).mean((2, 3)))
        logits.sigmoid(), logits.softmax(1), logits.exp(), (logits - logits.std(1, keepdim=True)).erf()
        return logits


def test_what_is_computed_but_not_returned_needs_no_rule(images, targets) -> None:
    torch.manual_seed(0)
    net = Extra()
    maps = lrp(net, images, targets)
    torch.testing.assert_close(maps, input_x_gradient(net, images, targets), rtol=1e-2, atol=1e-3)
    assert maps.any()


class Squashing(nn.Module):
    """A sigmoid as a hidden activation, or last."""

    def __init__(self, last):
        super().__init__()
        self.conv, self.head, self.last = nn.Conv2d(1, 4, 3), nn.Linear(4, 3), last

    def forward(self, x):
        x = torch.sigmoid(self.conv(x)).mean((2, 3))
        return self.head(x).sigmoid() if self.last else self.head(x)


def test_a_sigmoid_has_a_rule_where_something_follows(images, targets) -> None:
    torch.manual_seed(0)
    net = Squashing(False)
    for parameter in (net.conv.bias, net.head.bias):
        parameter.data.zero_()
    maps = lrp(net.double(), images.double(), targets, epsilon=1e-9)
    outputs = net(images.double()).gather(1, targets[:, None])[:, 0].detach()
    torch.testing.assert_close(maps.flatten(1).sum(1), outputs, rtol=1e-3, atol=1e-4)
    with pytest.raises(UnsupportedModelError, match=r"sigmoid in the forward pass of Squashing.*before it"):
        lrp(Squashing(True), images, targets)


class Mixed(nn.Module):
    """Convolves in half precision."""

    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 4, 3), nn.Linear(4, 3)

    def forward(self, x):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            x = F.relu(self.conv(x))
        return self.head(x.float().mean((2, 3)))


def test_autocast_is_propagated_in_float32(images, targets) -> None:
    torch.manual_seed(0)
    net = Mixed()
    same = nn.Sequential(net.conv, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), net.head)
    torch.testing.assert_close(lrp(net, images, targets), lrp(same, images, targets))


@pytest.mark.parametrize("rule", ["epsilon", "gamma"])
def test_a_network_in_half_precision(images, targets, rule) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    net = net.to(torch.float16)
    x = images.half()
    plan = relevance_plan(Setting(Network(net, x), x, targets, "lrp"), composite(rule))
    maps = plan.passes.run(Batch(x, targets, [0, 1, 2], lambda passes: None))
    assert maps.dtype == torch.float16
    expected = lrp(net.float(), x.float(), targets, rule=rule)
    torch.testing.assert_close(maps.float(), expected, rtol=1e-2, atol=1e-3 * float(expected.abs().max()))


def test_loops_over_images_are_recorded_again(images, targets) -> None:
    class Looping(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.head = nn.Conv2d(1, 4, 3), nn.Linear(320, 3)

        def forward(self, x):
            return torch.stack([self.head(F.relu(self.conv(image[None])).flatten()) for image in x])

    torch.manual_seed(0)
    net = Looping()
    same = nn.Sequential(net.conv, nn.ReLU(), nn.Flatten(), net.head)
    for rule in ("epsilon", "gamma"):
        torch.testing.assert_close(
            maps_of(net, images, targets, rule), maps_of(same, images, targets, rule), rtol=1e-4, atol=1e-6
        )


class NotTraced(nn.Module):
    """torch.fx cannot trace it, so its batch normalisation is merged where it runs."""

    def __init__(self, body):
        super().__init__()
        self.body = body

    def forward(self, x):
        return self.body(x[: len(x)])


@pytest.mark.parametrize("rule", ["gamma", "alpha2_beta1", "epsilon_gamma_box", "deep_taylor"])
def test_normalisation_is_merged_whether_traced_or_not(images, targets, rule, make_residual_net) -> None:
    net = make_residual_net().double()
    one, other = (maps_of(n, images.double(), targets, rule) for n in (net, NotTraced(net)))
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7 * float(one.abs().max()))
