"""An ordinary network that returns something else, stands in a wrapper, or computes in another precision."""

import copy
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from tests.matrix.case import (
    DIFFERENTIABLE,
    PIECEWISE_LINEAR,
    add,
    settle,
)
from tests.matrix.written import Ordinary, written

# --- what a network returns -------------------------------------------------------------------------------------------


class Output(dict):
    """Like the ModelOutput of transformers: a dict with attributes."""

    __getattr__ = dict.__getitem__


def _returns(
    name: str, wrap: Callable[[Tensor], Any], pick: Callable[[Any], Tensor], output: Any = None
) -> None:
    call = {} if output is None else {"output": output}
    written(
        name, lambda self, x: wrap(self.end(self.relu(self.stem(x)))), family="outputs", pick=pick, call=call
    )


_returns("a tuple of one", lambda y: (y,), lambda out: out[0])
_returns("a tuple, output=1", lambda y: (y * 2, y), lambda out: out[1], 1)
_returns("a list, output=0", lambda y: [y, y * 2], lambda out: out[0], 0)
_returns("a dict of one", lambda y: {"logits": y}, lambda out: out["logits"])
_returns(
    "a dict, output='logits'", lambda y: {"loss": y.sum(), "logits": y}, lambda out: out["logits"], "logits"
)
_returns(
    "a ModelOutput, output='logits'",
    lambda y: Output(logits=y, hidden=y * 2),
    lambda out: out.logits,
    "logits",
)
_returns(
    "an object, output=function",
    lambda y: SimpleNamespace(logits=y),
    lambda out: out.logits,
    lambda out: out.logits,
)
written(
    "a dense output, output=mean",
    lambda self, x: self.relu(self.same(self.relu(self.stem(x)))),
    family="outputs",
    pick=lambda out: out.mean((2, 3)),
    call={"output": lambda out: out.mean((2, 3))},
)

# --- wrapped ----------------------------------------------------------------------------------------------------------


def _ordinary() -> nn.Module:
    net = Ordinary().eval()
    settle(net, torch.rand(4, 1, 16, 16))
    return net


class Wrapped:
    """A user's wrapped model beside the plain network in it."""

    def __init__(self, wrap: Callable[[nn.Module], Any]) -> None:
        self.wrap = wrap

    def __call__(self) -> Any:
        net = _ordinary()
        model = self.wrap(net)
        _PLAIN[id(model)] = net, model
        return model


_PLAIN: dict[int, tuple[nn.Module, Any]] = {}


def wrapped(
    name: str, wrap: Callable[[nn.Module], Any], *works: str, family: str = "wrapped", **options: Any
) -> None:
    """An ordinary network in a wrapper."""
    add(
        name,
        family,
        Wrapped(wrap),
        *works,
        plain=lambda model: _PLAIN[id(model)][0],
        settled=False,
        **options,
    )


def _frozen(net: nn.Module) -> nn.Module:
    return nn.Sequential(copy.deepcopy(net).requires_grad_(False), nn.Identity())


wrapped("nn.DataParallel", nn.DataParallel, *PIECEWISE_LINEAR)
wrapped("torch.compile", lambda net: torch.compile(net, backend="eager"), "any")
wrapped("torch.jit.trace", lambda net: torch.jit.trace(net, torch.rand(1, 1, 16, 16)), "any")
wrapped("torch.jit.script", torch.jit.script, "any")
wrapped("nn.Sequential of a frozen network", _frozen, *PIECEWISE_LINEAR)
wrapped("a lambda", lambda net: lambda x: net(x), "any")
wrapped("a function without gradient", lambda net: torch.no_grad()(net.forward), "any")

# --- precisions -------------------------------------------------------------------------------------------------------


class Mixed(Ordinary):
    """Autocast in the forward pass."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, torch.bfloat16):
            y = Ordinary.forward(self, x)
        return y.to(x.dtype)


def _mixed(net: nn.Module) -> nn.Module:
    mixed = Mixed().eval()
    mixed.load_state_dict(net.state_dict())
    return mixed


_COARSE = {"family": "precisions", "bound": 0.2}


def _float_of(model: nn.Module) -> nn.Module:
    return copy.deepcopy(model).float()


def _half(kind: torch.dtype) -> Callable[[], nn.Module]:
    return lambda: _ordinary().to(kind)


wrapped("float64", lambda net: copy.deepcopy(net).double(), *PIECEWISE_LINEAR, family="precisions")
add("float16", "precisions", _half(torch.float16), "any", plain=_float_of, settled=False, bound=0.2)
add("bfloat16", "precisions", _half(torch.bfloat16), "any", plain=_float_of, settled=False, bound=0.2)
wrapped("autocast in the forward pass", _mixed, "any", **{**_COARSE, "bound": 0.3})
wrapped('precision="bf16"', copy.deepcopy, *PIECEWISE_LINEAR, call={"precision": "bf16"}, **_COARSE)
written(
    'precision="bf16", a PReLU used twice',
    lambda self, x: self.end(self.act(self.same(self.act(self.stem(x))))),
    *DIFFERENTIABLE,
    layers=lambda: {"act": nn.PReLU()},
    call={"precision": "bf16"},
    **_COARSE,
)
