"""Networks as people write them themselves, and those that must be refused."""

from collections.abc import Callable
from typing import Any

import einops.layers.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.matrix.case import (
    DIFFERENTIABLE,
    GRADIENTS,
    NOT_ALL_RELU,
    OCCLUSION,
    PIECEWISE_LINEAR,
    RECTIFIERS,
    add,
)

# --- written by hand --------------------------------------------------------------------------------------------------


class Small(nn.Module):
    """Layers for a forward pass that is written for each network."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 6, 3, padding=1), nn.Conv2d(6, 8, 3, padding=1)
        self.bn1, self.bn2 = nn.BatchNorm2d(6), nn.BatchNorm2d(8)
        self.same, self.relu, self.relu_ = nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.ReLU(inplace=True)
        self.pool, self.tokens = nn.MaxPool2d(2), nn.Linear(8, 8)
        self.dense, self.head, self.one = nn.Linear(8 * 8 * 8, 3), nn.Linear(8, 3), nn.Linear(8, 1)

    def stem(self, x: Tensor) -> Tensor:
        """Convolutions with one ReLU and one pool, (batch, 8, 8, 8), negative values among them."""
        return self.bn2(self.conv2(self.pool(self.relu(self.bn1(self.conv1(x))))))

    def end(self, x: Tensor) -> Tensor:
        """Scores of features."""
        return self.head(x.flatten(2).mean(2))


def written(
    name: str, forward: Callable[[Any, Tensor], Any], *works: str, family: str = "", **options: Any
) -> None:
    """A network of the layers of `Small` with a forward pass of its own, and more layers by `layers`."""
    layers = options.pop("layers", dict)

    def init(self: Any) -> None:
        Small.__init__(self)
        for key, value in layers().items():
            setattr(self, key, value)

    kind = type("Net", (Small,), {"forward": forward, "__init__": init})
    add(name, family or "written by hand", kind, *(works or PIECEWISE_LINEAR), **options)


written(
    "x.view(x.size(0), -1) after convolutions",
    lambda self, x: self.dense(self.relu(self.stem(x)).view(x.size(0), -1)),
)
written("functional ReLUs", lambda self, x: self.end(F.relu(self.same(torch.relu(self.stem(x))).relu())))
written(
    "one ReLU module used again", lambda self, x: self.end(self.relu_(self.same(self.relu_(self.stem(x)))))
)


def _in_place_on_view(self, x):
    x = self.stem(x).flatten(2)
    self.relu_(x)
    return self.head(x.mean(2))


written("in-place ReLU on a view", _in_place_on_view, *DIFFERENTIABLE, RECTIFIERS)


def _slice_relu(self, x):
    x = self.stem(x)
    x[:, :4].relu_()
    return self.end(self.relu(self.same(x)))


written("in-place ReLU on a slice", _slice_relu, *DIFFERENTIABLE)
written(
    "tokens (B, N, C) and in-place ReLU",
    lambda self, x: self.head(self.relu_(self.tokens(self.stem(x).flatten(2).transpose(1, 2))).mean(1)),
)


def _masked_fill(self, x):
    x = self.stem(x)
    return self.end(x.masked_fill(x < 0, 0))


def _where(self, x):
    x = self.stem(x)
    return self.end(torch.where(x > 0, x, 0.0))


def _product(self, x):
    x = self.stem(x)
    return self.end(x * (x > 0))


def _index(self, x):
    x = self.stem(x).clone()
    x[x < 0] = 0
    return self.end(x)


def _half_sum(self, x):
    x = self.stem(x)
    return self.end((x + x.abs()) / 2)


def _stack_max(self, x):
    x = self.stem(x)
    return self.end(torch.stack([x, torch.zeros_like(x)]).amax(0))


written("ReLU spelled h * (h > 0)", _product, *DIFFERENTIABLE, **NOT_ALL_RELU)
written("ReLU spelled where", _where, *DIFFERENTIABLE, **NOT_ALL_RELU)
written(
    "ReLU spelled clamp(min=0)",
    lambda self, x: self.end(self.stem(x).clamp(min=0)),
    *DIFFERENTIABLE,
    **NOT_ALL_RELU,
)
written("ReLU spelled masked_fill", _masked_fill, *DIFFERENTIABLE, **NOT_ALL_RELU)
written("ReLU spelled x[x < 0] = 0", _index, *DIFFERENTIABLE, **NOT_ALL_RELU)
written("ReLU spelled (h + |h|) / 2", _half_sum, *DIFFERENTIABLE, **NOT_ALL_RELU)
written(
    "ReLU spelled maximum",
    lambda self, x: self.end(torch.fmax(self.stem(x), torch.zeros(()))),
    *DIFFERENTIABLE,
    **NOT_ALL_RELU,
)
written("ReLU spelled amax over a stack", _stack_max, *DIFFERENTIABLE, **NOT_ALL_RELU)
for _activation in (nn.LeakyReLU, nn.PReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Softplus, nn.Tanh, nn.ReLU6, nn.Hardswish,
                    nn.Softshrink, nn.Mish):  # fmt: skip
    written(
        f"nn.{_activation.__name__}",
        lambda self, x: self.end(self.act(self.stem(x))),
        *DIFFERENTIABLE,
        layers=lambda kind=_activation: {"act": kind()},
        **NOT_ALL_RELU,
    )
written(
    "x * sigmoid(x)",
    lambda self, x: self.end((y := self.stem(x)) * y.sigmoid()),
    *DIFFERENTIABLE,
    **NOT_ALL_RELU,
)
written(
    "gated linear unit",
    lambda self, x: self.head(torch.cat([y := F.glu(self.stem(x), 1), y], 1).mean((2, 3))),
    *DIFFERENTIABLE,
    **NOT_ALL_RELU,
)


def _residual(self, x):
    x = self.relu(self.stem(x))
    y = self.same(x)
    y += x
    return self.end(self.relu_(y))


written("residual sum by +=", _residual)
written(
    "torch.cat(tensors=...)",
    lambda self, x: self.wide(
        torch.cat(tensors=[y := self.relu(self.stem(x)), self.relu(self.same(y))], dim=1).mean((2, 3))
    ),
    *DIFFERENTIABLE,
    RECTIFIERS,
    layers=lambda: {"wide": nn.Linear(16, 3)},
)
written(
    "einops layers",
    lambda self, x: self.head(self.mean(self.relu(self.fold(self.stem(x))))),
    *DIFFERENTIABLE,
    RECTIFIERS,
    layers=lambda: {
        "fold": einops.layers.torch.Rearrange("b c h w -> b c (h w)"),
        "mean": einops.layers.torch.Reduce("b c n -> b c", "mean"),
    },
)
written(
    "einsum",
    lambda self, x: self.head(torch.einsum("bchw,cd->bd", self.relu(self.stem(x)), self.tokens.weight) / 64),
    *DIFFERENTIABLE,
    RECTIFIERS,
)


def _branch(self, x):
    x = self.relu(self.stem(x))
    return self.end(self.relu(self.same(x)) if float(x.detach().mean()) < 1e9 else x)


written("a decision on values", _branch, *DIFFERENTIABLE, RECTIFIERS)


def _shape_pool(self, x):
    x = F.relu(self.stem(x))
    return self.head(F.max_pool2d(x, x.shape[-1] // 2).flatten(2).mean(2))


written("max_pool2d sized by the input", _shape_pool, *DIFFERENTIABLE, RECTIFIERS)


class Deep25(nn.Module):
    """A thin stack, joined to one slice."""

    def __init__(self) -> None:
        super().__init__()
        self.join, self.relu = nn.Conv3d(1, 6, (3, 3, 3), padding=(0, 1, 1)), nn.ReLU()
        self.conv, self.head = nn.Conv2d(6, 6, 3), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.join(x)).squeeze(2)
        return self.head(self.relu(self.conv(x)).mean((2, 3)))


add("2.5D: Conv3d, then Conv2d", "written by hand", Deep25, *DIFFERENTIABLE, RECTIFIERS, shape=(1, 3, 16, 16))


class Buffered(Small):
    """Normalises with a buffer of another rank than the images."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("spread", torch.tensor([0.3]).view(1, 1, 1, 1))
        self.register_buffer("volume", torch.rand(1, 8, 1, 1, 1) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.stem((x - 0.4) / self.spread))
        return self.end(x * self.volume[..., 0])


add("buffers (1, C, 1, 1, 1)", "written by hand", Buffered, *DIFFERENTIABLE, RECTIFIERS)
for _norm in (lambda: nn.GroupNorm(2, 8), lambda: nn.InstanceNorm2d(8, affine=True), lambda: nn.LayerNorm([8, 8, 8]),
              lambda: nn.RMSNorm([8, 8, 8])):  # fmt: skip
    written(
        f"nn.{type(_norm()).__name__}",
        lambda self, x: self.end(self.relu(self.norm(self.stem(x)))),
        *DIFFERENTIABLE,
        layers=lambda norm=_norm: {"norm": norm()},
    )
_reparametrised = lambda self, x: self.end(self.relu(self.same(self.relu(self.stem(x)))))  # noqa: E731


class Old(Small):
    """The first weight_norm and spectral_norm, which work by hooks."""

    def __init__(self, wrap: Callable[[nn.Module], nn.Module]) -> None:
        super().__init__()
        self.same = wrap(self.same)

    forward = _reparametrised


_param = nn.utils.parametrizations


def _as_it_is(model: nn.Module) -> nn.Module:
    """The same network with an ordinary weight."""
    net, layer = Old(lambda layer: layer), model.same
    net.load_state_dict(model.state_dict(), strict=False)
    if hasattr(layer, "weight_g"):
        norms = layer.weight_v.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        weight = layer.weight_v * layer.weight_g / norms
    elif hasattr(layer, "weight_orig"):
        weight = layer.weight_orig / (layer.weight_u @ layer.weight_orig.flatten(1) @ layer.weight_v)
    else:
        weight = layer.weight
    net.same.weight.data = weight.detach().clone()
    return net


for _name, _wrap in (
    ("parametrizations.weight_norm", _param.weight_norm),
    ("parametrizations.spectral_norm", _param.spectral_norm),
    ("utils.weight_norm", nn.utils.weight_norm),
    ("utils.spectral_norm", nn.utils.spectral_norm),
):
    add(
        _name,
        "written by hand",
        lambda wrap=_wrap: Old(wrap),
        *DIFFERENTIABLE,
        RECTIFIERS,
        plain=_as_it_is,
        settled=False,
    )


class Hooked(Small):
    """A forward hook that changes activations."""

    def __init__(self, before: bool) -> None:
        super().__init__()
        if before:
            self.same.register_forward_pre_hook(lambda module, args: (args[0] * args[0].sigmoid(),))
        else:
            self.same.register_forward_hook(lambda module, args, output: output.tanh())

    forward = _reparametrised


add("a forward hook that changes activations", "written by hand", lambda: Hooked(False), **NOT_ALL_RELU)
add("a forward pre-hook that changes activations", "written by hand", lambda: Hooked(True), **NOT_ALL_RELU)
written(
    "x.clamp_(0, 1) on the input",
    lambda self, x: self.end(self.relu(self.stem(x.clamp_(0, 1)))),
    *DIFFERENTIABLE,
    images=lambda x: 2.4 * x - 0.7,
    call={"options": {"deep_taylor": {"low": -1, "high": 2}, "lrp": {"low": -1, "high": 2}}},
)
written(
    "x /= 2 on the input",
    lambda self, x: self.end(self.relu(self.stem(x.div_(2)))),
    *DIFFERENTIABLE,
    RECTIFIERS,
)
written(
    "x / x.amax of each image",
    lambda self, x: self.end(self.relu(self.stem(x / x.amax((1, 2, 3), keepdim=True)))),
    *DIFFERENTIABLE,
)
written(
    "ReLU network on Hounsfield units",
    lambda self, x: self.end(self.relu(self.stem((x + 1000) / 2000))),
    GRADIENTS,
    OCCLUSION,
    RECTIFIERS,
    images=lambda x: 2000 * x - 1000,
    call={"options": {"deep_taylor": {"low": -1000, "high": 1000}, "lrp": {"low": -1000, "high": 1000}}},
)
written(
    "dropout in evaluation",
    lambda self, x: self.end(self.drop(self.relu(self.stem(x)))),
    layers=lambda: {"drop": nn.Dropout(0.5)},
)
written("softmax at the end", lambda self, x: self.end(self.relu(self.stem(x))).softmax(1), *DIFFERENTIABLE)
written(
    "log-softmax at the end",
    lambda self, x: F.log_softmax(self.end(self.relu(self.stem(x))), 1),
    *DIFFERENTIABLE,
)
written("sigmoid at the end", lambda self, x: self.end(self.relu(self.stem(x))).sigmoid(), *DIFFERENTIABLE)
written("regression (batch, 1)", lambda self, x: self.one(self.relu(self.stem(x)).mean((2, 3))), target=None)
written(
    "regression (batch,)", lambda self, x: self.one(self.relu(self.stem(x)).mean((2, 3)))[:, 0], target=None
)
written(
    "regression, squeezed",
    lambda self, x: self.one(self.relu(self.stem(x)).mean((2, 3))).squeeze(),
    *DIFFERENTIABLE,
    target=None,
)
written(
    "strided, dilated, transposed, grouped",
    lambda self, x: self.end(self.relu(self.up(self.relu(self.down(self.stem(x)))))),
    layers=lambda: {
        "down": nn.Conv2d(8, 8, 3, stride=2, dilation=2, padding=2, groups=4),
        "up": nn.ConvTranspose2d(8, 8, 2, stride=2),
    },
)


def _checkpointed(self, x):
    block = lambda y: self.relu(self.same(y))  # noqa: E731
    return self.end(torch.utils.checkpoint.checkpoint(block, self.relu(self.stem(x)), use_reentrant=False))


class Ordinary(Small):
    """A network without surprises."""

    def forward(self, x: Tensor) -> Tensor:
        return self.end(self.relu(self.same(self.relu(self.stem(x)))))


def _ordinary_of(model: nn.Module) -> nn.Module:
    net = Ordinary()
    net.load_state_dict(model.state_dict())
    return net


written("checkpointed", _checkpointed, *DIFFERENTIABLE, plain=_ordinary_of)


def _tokens_after_norm(self, x):
    x = self.stem(x).flatten(2).transpose(1, 2)
    return self.head(self.tokens(x).tanh().mean(1) if float(x.detach().mean()) < 1e9 else x)


written(
    "tokens behind batch normalisation, one image",
    _tokens_after_norm,
    *DIFFERENTIABLE,
    target=(2,),
    images=lambda x: x[:1],
    **NOT_ALL_RELU,
)


class Attention(Small):
    """nn.MultiheadAttention over the pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.attention, self.norm = nn.MultiheadAttention(8, 2, batch_first=True), nn.LayerNorm(8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.stem(x).flatten(2).transpose(1, 2))
        return self.head((x + self.attention(x, x, x, need_weights=False)[0]).mean(1))


add("nn.MultiheadAttention", "written by hand", Attention)


class Recurrent(Small):
    """An LSTM over the rows of the features."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(64, 8, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(self.stem(x).transpose(1, 2).flatten(2))[0].mean(1))


add("nn.LSTM", "written by hand", Recurrent)

# --- what must be refused ---------------------------------------------------------------------------------------------

_NOTHING = {"family": "refused on purpose", "forbidden": PIECEWISE_LINEAR}
written(
    "dropout that is always on",
    lambda self, x: self.end(F.dropout(self.relu(self.stem(x)), 0.5, training=True)),
    "nothing",
    **_NOTHING,
)
written(
    "x / x.max() of the batch",
    lambda self, x: self.end(self.relu(self.stem(x / x.max()))),
    "nothing",
    **_NOTHING,
)
written(
    "x / x.max() of the batch, Hounsfield units",
    lambda self, x: self.end(self.relu(self.stem(x / x.max()))),
    "nothing",
    images=lambda x: 2000 * x - 1000,
    **_NOTHING,
)
written(
    "batch statistics",
    lambda self, x: self.end(self.relu(self.norm(self.stem(x)))),
    "nothing",
    layers=lambda: {"norm": nn.BatchNorm2d(8, track_running_stats=False)},
    **_NOTHING,
)
written(
    "three scores squeezed, one image",
    lambda self, x: self.end(self.relu(self.stem(x))).squeeze(),
    "nothing",
    target=None,
    images=lambda x: x[:1],
    **_NOTHING,
)
