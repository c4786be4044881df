"""The reference is plain autograd through the same function, spelled with a ReLU whose gradient is written out here."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from xaitools.attribution import deconvolution, guided_backprop
from xaitools.errors import UnsupportedModelError
from xaitools.models import Network

Act = Callable[[Tensor], Tensor]


class DeconvolutionReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad * (grad > 0)


class GuidedReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad * (grad > 0) * (ctx.saved_tensors[0] > 0)


RULES = {deconvolution: DeconvolutionReLU, guided_backprop: GuidedReLU}


class Spelled(nn.Module):
    """Features (n, 8, 6, 5), what is to be tested, a plain ReLU, and a linear layer."""

    def __init__(self, act: Callable[..., Tensor], relu: Act | None = None):
        super().__init__()
        torch.manual_seed(5)
        self.first, self.head = nn.Conv2d(1, 8, 3, padding=1), nn.LazyLinear(3)
        self.act, self.relu = act, relu
        self.double()(torch.rand(1, 1, 6, 5, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x - 0.5)
        h = self.act(h) if self.relu is None else self.act(h, self.relu)
        relu = self.relu or torch.relu
        return self.head(relu(h + 0.1).flatten(1))


X = torch.rand(3, 1, 6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
TARGETS = torch.tensor([2, 0, 1])


def gradient_of(net: nn.Module, x: Tensor, targets: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    return torch.autograd.grad(net(x + 0).gather(1, targets[:, None]).sum(), x)[0]


def check(spelled: nn.Module, plain: Callable[[Act], nn.Module], x: Tensor = X, targets: Tensor = TARGETS):
    network = Network(spelled, x)
    for method, rule in RULES.items():
        expected = gradient_of(plain(rule.apply), x, targets)
        torch.testing.assert_close(
            method(network, x, targets, progress=False), expected, rtol=1e-10, atol=1e-13
        )


def in_place(h: Tensor, part: Callable[[Tensor], Tensor]) -> Tensor:
    """`h` after a ReLU acted in place on a view of it."""
    part(h).relu_()
    return h


def on(where: Any) -> Callable[[Tensor, Act], Tensor]:
    """What it comes to: a ReLU where a constant mask says so."""

    def act(h: Tensor, relu: Act) -> Tensor:
        mask = torch.zeros(h.shape[1:], dtype=torch.bool)
        mask[where] = True
        return torch.where(mask, relu(h), h)

    return act


MODULE = nn.ReLU(inplace=True)
TOKENS = nn.Linear(30, 7).double().requires_grad_(False)
MATRIX = torch.rand(8, 6, dtype=torch.float64) - 0.5
MASK = torch.rand(6, 5, dtype=torch.float64) > 0.5


def filled(h: Tensor) -> Tensor:
    out = torch.zeros_like(h)
    out[:, :3] = h[:, :3]
    out[:, 3:] = 2 * h[:, 3:]
    out[:, 2:6].relu_()
    return out


def filled_plainly(h: Tensor, relu: Act) -> Tensor:
    return on(slice(2, 6))(torch.cat([h[:, :3], 2 * h[:, 3:]], 1), relu)


IN_PLACE = {
    "module after flatten": (lambda h: MODULE(h.flatten(1)), lambda h, relu: relu(h.flatten(1))),
    "module after view": (lambda h: MODULE(h.view(len(h), -1)), lambda h, relu: relu(h.flatten(1))),
    "module after reshape": (lambda h: MODULE(h.reshape(-1, 48, 5)), lambda h, relu: relu(h.flatten(1))),
    "module after squeeze": (lambda h: MODULE(h[:, :1].squeeze(1)), lambda h, relu: relu(h[:, 0])),
    "module after permute": (
        lambda h: MODULE(h.permute(0, 2, 3, 1)),
        lambda h, relu: relu(h.permute(0, 2, 3, 1)),
    ),
    "module after unsqueeze": (lambda h: MODULE(h.unsqueeze(2)), lambda h, relu: relu(h)),
    "module after einsum": (
        lambda h: MODULE(torch.einsum("nchw,cd->nhwd", h, MATRIX)),
        lambda h, relu: relu(torch.einsum("nchw,cd->nhwd", h, MATRIX)),
    ),
    "module on tokens": (
        lambda h: MODULE(TOKENS(h.flatten(2))),
        lambda h, relu: relu(TOKENS(h.flatten(2))),
    ),
    "functional on tokens": (
        lambda h: F.relu(TOKENS(h.flatten(2).transpose(0, 1)), inplace=True).transpose(0, 1),
        lambda h, relu: relu(TOKENS(h.flatten(2))),
    ),
    "threshold": (lambda h: F.threshold(h, 0, 0), lambda h, relu: relu(h)),
    "threshold in place": (lambda h: F.threshold_(h.flatten(1), 0, 0), lambda h, relu: relu(h.flatten(1))),
    "threshold in place, no view": (lambda h: F.threshold_(2 * h, 0, 0), lambda h, relu: relu(2 * h)),
    "threshold module in place": (
        lambda h: nn.Threshold(0, 0, inplace=True)(2 * h),
        lambda h, relu: relu(2 * h),
    ),
    "slice": (lambda h: in_place(h, lambda h: h[:, :4]), on(slice(0, 4))),
    "every other": (lambda h: in_place(h, lambda h: h[:, ::2]), on(slice(0, None, 2))),
    "last axis": (lambda h: in_place(h, lambda h: h[..., 1:]), on((..., slice(1, None)))),
    "select": (lambda h: in_place(h, lambda h: h[:, 3]), on(3)),
    "narrow": (lambda h: in_place(h, lambda h: h.narrow(1, 2, 3)), on(slice(2, 5))),
    "view of a view": (lambda h: in_place(h, lambda h: h[:, 2:].flatten(2)[:, :3]), on(slice(2, 5))),
    "detached base": (lambda h: in_place(h + 0, lambda h: h.transpose(1, 2)), lambda h, relu: relu(h)),
    "into an empty tensor": (filled, filled_plainly),
}


@pytest.mark.parametrize("spelling", IN_PLACE)
def test_a_relu_in_place_on_a_view(spelling) -> None:
    act, plain = IN_PLACE[spelling]
    check(Spelled(act), lambda relu: Spelled(plain, relu))


def put(h: Tensor) -> Tensor:
    h[h < 0] = 0
    return h


def without_autograd(h: Tensor) -> Tensor:
    assert float(h.detach().abs().max()) > 0  # so that it is not traced, which loses no_grad
    with torch.no_grad():
        h.relu_()
    return h


def data(h: Tensor) -> Tensor:
    h.data[h.data < 0] = 0
    return h


def replaced(h: Tensor) -> Tensor:
    h = h + 0
    h.data = h.data.clamp(min=0)
    return h


class HiddenInPlace(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.mark_dirty(x)
        return x.relu_()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad


def custom_on_a_view(h: Tensor) -> Tensor:
    h = h + 0
    HiddenInPlace.apply(h[:, :4])
    return h


def attention(h: Tensor) -> Tensor:
    tokens = h.flatten(2)
    return tokens @ (tokens.transpose(1, 2) @ tokens)


HEADS = nn.MultiheadAttention(30, 2, batch_first=True).double().eval().requires_grad_(False)
BY_HAND = {
    "h * (h > 0)": (lambda h: h * (h > 0), r"a comparison \(gt\)"),
    "h * sign": (lambda h: h * (h.sign() + 1) / 2, r"a comparison \(sign\)"),
    "a detached mask": (lambda h: h * (h.detach() > 0), "in mul what was computed .* without gradient"),
    "h / |h|": (lambda h: h * (h / h.detach().abs()), "in div what was computed"),
    "masked_fill": (lambda h: h.masked_fill(h < 0, 0), r"\(lt\)"),
    "index_put": (put, r"\(lt\)"),
    "where": (lambda h: torch.where(h > 0, h, 0), r"\(gt\)"),
    "maximum": (lambda h: torch.maximum(h, torch.zeros_like(h)), "applies maximum"),
    "minimum": (lambda h: -torch.minimum(-h, torch.zeros_like(h)), "applies minimum"),
    "fmax": (lambda h: torch.fmax(h, torch.zeros_like(h)), "applies fmax"),
    "amax": (lambda h: torch.stack([h, 0 * h]).amax(0), "applies amax"),
    "max": (lambda h: torch.stack([h, 0 * h]).max(0).values, "applies max"),
    "sort": (lambda h: h.sort(1).values, "applies sort"),
    "abs": (lambda h: (h + h.abs()) / 2, "applies abs"),
    "square root of a square": (lambda h: (h + (h**2 + 1e-9).sqrt()) / 2, "applies pow"),
    "clamp": (lambda h: h.clamp(min=0), "applies clamp"),
    "clamp_min": (lambda h: h.clamp_min_(0), "applies clamp_min"),
    "softshrink": (lambda h: F.softshrink(h, 0.1), "applies softshrink"),
    "hardshrink": (lambda h: F.hardshrink(h, 0.1), "applies hardshrink"),
    "x * sigmoid(x)": (lambda h: h * h.sigmoid(), "applies sigmoid"),
    "erf": (lambda h: h * (1 + torch.erf(h / math.sqrt(2))) / 2, "applies erf"),
    "logsigmoid": (lambda h: -F.logsigmoid(-h), "applies log_sigmoid"),
    "softplus": (F.softplus, "applies softplus"),
    "logaddexp": (lambda h: torch.logaddexp(h, torch.zeros_like(h)), "applies logaddexp"),
    "glu": (lambda h: F.glu(h, 1), "applies glu"),
    "hardsigmoid": (F.hardsigmoid, "applies hardsigmoid"),
    "tanh": (torch.tanh, "applies tanh"),
    "softsign": (F.softsign, "applies abs"),
    "relu6": (F.relu6, "applies hardtanh or ReLU6"),
    "another threshold": (lambda h: F.threshold(h, 0.1, 0), "applies threshold"),
    "another value": (lambda h: F.threshold(h, 0, -1), "applies threshold"),
    "softmax": (lambda h: h.softmax(1), "applies _softmax"),
    "layer norm": (lambda h: F.layer_norm(h, h.shape[1:]), "applies layer normalisation"),
    "group norm": (lambda h: F.group_norm(h, 2), "applies group normalisation"),
    "instance norm": (F.instance_norm, "statistics of the image"),
    "l2 norm": (lambda h: h / h.norm(dim=1, keepdim=True), "applies linalg_vector_norm"),
    "by its own mean": (lambda h: h / (3 + h.mean((1, 2, 3), keepdim=True)), "the divisor or weights of div"),
    "centred without gradient": (lambda h: h - h.detach().mean(1, keepdim=True), "in sub what was computed"),
    "rounded": (lambda h: torch.div(h, 0.01, rounding_mode="floor"), "rounding"),
    "attention": (attention, r"both depend on the image \(bmm\)"),
    "multi-head attention": (lambda h: HEADS(*3 * [h.flatten(2)])[0], "_softmax|bmm|attention"),
    "gate": (lambda h: h * h.mean((2, 3), keepdim=True), r"both depend on the image \(mul\)"),
    "in place without autograd": (without_autograd, r"where autograd does not see it \(relu\)"),
    "data": (data, "where autograd does not see it"),
    "data replaced": (replaced, "what was computed from the image without gradient"),
    "custom function": (lambda h: HiddenInPlace.apply(h + 0), "custom or compiled operation HiddenInPlace"),
    "custom function on a view": (custom_on_a_view, "where autograd does not see it"),
    "sparse": (lambda h: h.flatten(1).to_sparse().to_dense(), "applies _to_sparse"),
    "reduced": (
        lambda h: h.scatter_reduce(1, torch.zeros(3, 8, 6, 5, dtype=torch.long)[: len(h)], h, "amax"),
        "applies scatter_reduce",
    ),
}


@pytest.mark.parametrize("spelling", BY_HAND)
def test_what_is_no_relu_is_refused_by_name(spelling) -> None:
    act, words = BY_HAND[spelling]
    network = Network(Spelled(act), X)
    for method in RULES:
        with pytest.raises(UnsupportedModelError, match=f"Spelled .*{words}"):
            method(network, X, TARGETS, progress=False)


def hooked() -> nn.Module:
    layer = nn.Identity()
    layer.register_forward_hook(lambda module, args, out: out.flatten(1).relu_())
    return layer


def branching(h: Tensor, relu: Act = torch.relu) -> Tensor:
    return relu(h) if float(h.detach().mean()) > -9 and bool((h < 99).all()) else h.tanh()


def with_unused(h: Tensor, relu: Act = torch.relu) -> Tensor:
    unused = (h * h).softmax(1)
    del unused
    return relu(h)


KERNEL = torch.rand(8, 2, 3, 3, dtype=torch.float64) - 0.5
GRID = F.affine_grid(torch.eye(2, 3, dtype=torch.float64)[None] * 0.8, [1, 8, 6, 5], align_corners=False)
NORM = nn.BatchNorm2d(8).double().eval().requires_grad_(False)
NORM.running_mean[:], NORM.running_var[:] = torch.rand(8) - 0.5, torch.rand(8) + 0.5
HOOKED = hooked()
RIGHT = {
    "control flow": branching,
    "what is computed but not used": with_unused,
    "checkpoint": lambda h, relu=torch.relu: checkpoint(relu, h, use_reentrant=False) - 0.1,
    "checkpoint of a view in place": lambda h, relu=None: (
        relu(h) if relu else checkpoint(lambda h: (h + 0).flatten(1).relu_(), h, use_reentrant=False)
    ),
    "hook": lambda h, relu=None: relu(h) if relu else HOOKED(h),
    "max pooling": lambda h, relu=torch.relu: F.adaptive_max_pool2d(F.max_pool2d(relu(h), 2), 1),
    "transposed convolution": lambda h, relu=torch.relu: relu(F.conv_transpose2d(h, KERNEL, stride=2)),
    "interpolation": lambda h, relu=torch.relu: F.interpolate(relu(h), scale_factor=2, mode="bilinear"),
    "padding": lambda h, relu=torch.relu: F.pad(relu(h), (1, 1, 1, 1), mode="reflect"),
    "constant grid": lambda h, relu=torch.relu: F.grid_sample(
        relu(h), GRID.expand(len(h), -1, -1, -1), align_corners=False
    ),
    "constant mask": lambda h, relu=torch.relu: torch.where(MASK, relu(h), h).masked_fill(~MASK[:1], 0.3),
    "constant factors": lambda h, relu=torch.relu: relu(1 - h * MASK) / MATRIX[:, :5].abs().sum() + 2,
    "batch norm": lambda h, relu=torch.relu: NORM(relu(h + 0.1)),
    "loop": lambda h, relu=torch.relu: [h := relu(h - 0.05 * i) for i in range(4)][-1],
    "sum in place": lambda h, relu=torch.relu: relu(h.add_(0.1).mul_(2).add_(h.flip(1))),
    "through float32": lambda h, relu=torch.relu: relu(h.float()).double(),
    "shuffled": lambda h, relu=torch.relu: F.channel_shuffle(relu(F.pixel_unshuffle(h[..., :4], 2)), 4),
    "copied to": lambda h, relu=torch.relu: torch.zeros_like(h).copy_(relu(h)),
}


@pytest.mark.parametrize("spelling", RIGHT)
def test_what_is_linear_passes_plain_gradients(spelling) -> None:
    act = RIGHT[spelling]
    check(Spelled(act), lambda relu: Spelled(act, relu))


def test_other_ways_of_the_forward_pass_are_judged_when_they_are_taken() -> None:
    """The first batch of one image is fine."""
    network = Network(Spelled(lambda h: h.tanh() if float(h.detach().abs().max()) > 9 else torch.relu(h)), X)
    x = torch.cat([X[:1], 1000 * X[1:]])
    for method in RULES:
        method(network, X, TARGETS, batch_size=1, progress=False)
        with pytest.raises(UnsupportedModelError, match="applies tanh"):
            method(network, x, TARGETS, batch_size=1, progress=False)


STEPS: dict[str, Callable[[Tensor, Act], Tensor]] = {
    "convolution": lambda h, relu: F.conv2d(
        h, torch.cos(torch.arange(576.0).double()).view(8, 8, 3, 3) / 4, padding=1
    ),
    "scale": lambda h, relu: h * torch.linspace(-1, 1, 40).double().view(8, 1, 5) + 0.1,
    "norm": lambda h, relu: NORM(h),
    "pool": lambda h, relu: F.max_pool2d(h, 3, stride=1, padding=1),
    "average": lambda h, relu: F.avg_pool2d(h, 3, stride=1, padding=1),
    "skip": lambda h, relu: h + relu(0.5 - h.roll(1, 1)),
    "turn": lambda h, relu: h.flip(1, 2),
    "relu": lambda h, relu: relu(h),
    "relu of some": lambda h, relu: on(slice(2, 6))(h, relu),
}
SPELLINGS: dict[str, list[Callable[[Tensor], Tensor]]] = {
    "relu": [
        torch.relu,
        nn.ReLU(),
        lambda h: (h + 0).relu_(),
        lambda h: MODULE((h + 0).flatten(2)).view(h.shape),
        lambda h: in_place(h + 0, lambda h: h.permute(0, 2, 3, 1)),
        lambda h: F.threshold(h, 0, 0),
    ],
    "relu of some": [
        lambda h: torch.cat([h[:, :2], h[:, 2:6].relu(), h[:, 6:]], 1),
        lambda h: in_place(h + 0, lambda h: h[:, 2:6]),
        lambda h: in_place(h + 0, lambda h: h.transpose(1, 2)[:, :, 2:6]),
    ],
}


def test_random_networks() -> None:
    """A hundred of two to seven steps, ReLUs spelled in a dozen ways, in the place of one prepared network."""
    draw = torch.Generator().manual_seed(1)
    network = Network(Spelled(torch.relu), X[:1])
    net = network.quick = Spelled(torch.relu).requires_grad_(False)

    def one_of(options: Any) -> Any:
        return list(options)[int(torch.randint(len(options), (), generator=draw))]

    for i in range(100):
        steps = [one_of(STEPS) for _ in range(int(torch.randint(1, 7, (), generator=draw)))] + [
            "relu of some"
        ]
        spelled = [one_of(SPELLINGS[step]) if step in SPELLINGS else None for step in steps]

        def act(h: Tensor, relu: Act = torch.relu, steps=steps, spelled=spelled) -> Tensor:
            for step, spelling in zip(steps, spelled, strict=True):
                by_hand = spelling and relu is torch.relu
                h = spelling(h) if by_hand else STEPS[step](h, relu)
            return h

        method, rule = list(RULES.items())[i % 2]
        net.act, net.relu = act, rule.apply
        expected = gradient_of(net, X[:1], TARGETS[:1])
        net.relu = None
        found = method(network, X[:1], TARGETS[:1], progress=False)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-13, msg=lambda m, s=steps: f"{s}: {m}")
