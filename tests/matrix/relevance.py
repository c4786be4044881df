"""Relevance propagation written a second time, as slowly and plainly as it can be: a reference for LRP and Deep Taylor.

PyTorch's functions are caught while the user's own network runs, however they are spelled. What comes back through
autograd is relevance instead of a gradient: activations and max pools hand it on, linear operations share it out.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

STABILIZER = 1e-6
EPSILON, GAMMA, LOW, HIGH = 1e-6, 0.25, 0.0, 1.0

Part = tuple[Callable[[], Tensor], Tensor | float, float, list[Tensor]]
"""Makes a sum of contributions, the share of the relevance that goes to it, its stabiliser, and other inputs of it."""


class NoReference(Exception):
    """There is no independent value for this map."""


class _Share(torch.autograd.Function):
    """Hands relevance down to inputs by the parts that a function makes of them."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, parts: Callable[..., Sequence[Part]], *inputs: Tensor) -> Tensor:
        ctx.save_for_backward(
            value.clone(), *(x.clone() for x in inputs)
        )  # some are overwritten in place later
        ctx.parts = parts
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *incoming: Tensor) -> Any:
        value, *inputs = ctx.saved_tensors
        totals = [torch.zeros_like(x) for x in inputs]
        with torch.enable_grad():
            leaves = [x.detach().requires_grad_() for x in inputs]
            for part, share, epsilon, extra in ctx.parts(value, *leaves):
                found = part()
                stable = found + epsilon * torch.where(found < 0, -1.0, 1.0)
                signal = torch.where(found == 0, 0.0, incoming[0] * share / stable).detach()
                sources = [*leaves, *extra]
                slopes = torch.autograd.grad(found, sources, signal, retain_graph=True, allow_unused=True)
                for i, (source, slope) in enumerate(zip(sources, slopes, strict=True)):
                    if slope is not None:
                        totals[i if i < len(leaves) else 0] += (source * slope).detach()
        return None, None, *totals


_PASSES = (
    "__get__ __set__ __getitem__ __len__ __iter__ __bool__ __float__ __contains__ __hash__ __format__ __repr__ size "
    "dim numel ndimension stride type item data_ptr is_contiguous is_floating_point is_complex requires_grad_ flatten "
    "unflatten reshape view view_as permute transpose swapaxes movedim squeeze unsqueeze expand contiguous clone to "
    "detach float double cat concat concatenate stack chunk split unbind pad dropout dropout2d dropout3d alpha_dropout "
    "max_pool2d max_pool3d _max_pool2d _max_pool3d adaptive_max_pool2d fn boolean_dispatch channel_shuffle roll "
    "amax fmax maximum "
    "where masked_fill __setitem__ __gt__ __lt__ gt lt ge le isnan new_zeros zeros_like unfold flip repeat"
)
_ACTIVATIONS = (
    "relu relu_ leaky_relu prelu elu celu selu tanh relu6 hardtanh softsign gelu silu mish hardswish clamp clamp_ "
    "clamp_min softshrink hardshrink abs sigmoid hardsigmoid softplus threshold"
)
_AVERAGES = "avg_pool2d avg_pool3d adaptive_avg_pool2d adaptive_avg_pool3d mean sum interpolate"
_SUMS = "add add_ __add__ __iadd__ __radd__ sub __sub__ __isub__ sub_"
_SCALES = "mul __mul__ __rmul__ __imul__ mul_ div div_ __truediv__ __itruediv__ true_divide"
_CONVOLUTIONS = "conv1d conv2d conv3d conv_transpose2d conv_transpose3d"
_KINDS = {
    name: kind
    for kind, names in {
        "pass": _PASSES,
        "activation": _ACTIVATIONS,
        "average": _AVERAGES,
        "sum": _SUMS,
        "scale": _SCALES,
        "layer": f"{_CONVOLUTIONS} linear",
        "norm": "batch_norm",
        "product": "matmul __matmul__ bmm mm",
        "own statistics": "layer_norm group_norm instance_norm rms_norm",
        "einsum": "einsum",
        "softmax": "softmax",
        "written out": "multi_head_attention_forward scaled_dot_product_attention glu",
    }.items()
    for name in names.split()
}


class _Relevance(TorchFunctionMode):
    def __init__(self, rule: str, images: Tensor, bounds: Sequence[float]) -> None:
        super().__init__()
        self.rule = rule
        self.raw = [images]
        self.gates: list[Tensor] = []
        self.bounds = [[torch.full_like(images, bound, requires_grad=False) for bound in bounds]]
        self.layers: list[tuple[Tensor, Callable, Tensor, Tensor, Tensor | None, bool]] = []
        self.dense_rule, self.inner_rule, self.first_rule = {
            "epsilon_plus_flat": ("epsilon", "alpha1_beta0", "flat"),
            "epsilon_gamma_box": ("epsilon", "gamma", "box"),
            "deep_taylor": ("z_plus", "z_plus", "box"),
        }.get(rule, (rule, rule, None))

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", str(func))
        kind = _KINDS.get(name)
        tensors = [x for x in _tensors((args, kwargs)) if x.requires_grad]
        raw = any(_is(x, self.raw) for x in tensors)
        if not tensors or kind == "pass":
            result = func(*args, **kwargs)
            self.gates += _tensors(result) if any(_is(x, self.gates) for x in tensors) else []
            if raw and (found := _tensors(result)):
                bounds = [_tensors(func(bound, *args[1:], **kwargs)) for bound in self.bounds_of(args[0])]
                self.raw += found
                self.bounds += [list(pair) for pair in zip(*bounds, strict=True)]
            return result
        if raw and kind != "layer" and self.first_rule:
            return self.before_first(func, name, kind, args, kwargs)
        if not args:
            args = (kwargs.pop("input"),)
        if kind == "layer":
            return self.layer(func, name, args, kwargs)
        if kind == "norm":
            return self.norm(*args, **kwargs)
        if kind == "average":
            return self.linear_map(lambda x: func(x, *args[1:], **kwargs), args[0])
        if kind == "sum":
            return self.sum(name, *args, **kwargs)
        if kind == "written out":
            with self:
                return globals()[f"_{name}"](*args, **kwargs)
        if kind == "softmax":
            return _Softmax.apply(args[0], kwargs.get("dim", args[1] if len(args) > 1 else -1))
        if kind == "own statistics":
            return self.normalised(func, args, kwargs)
        if kind == "einsum":
            equation, *pair = args
            func, args, kind = (lambda a, b: torch.einsum(equation, a, b)), tuple(pair), "product"
        if kind == "product" and not all(x.requires_grad for x in args):
            x, weight = args if args[0].requires_grad else args[::-1]
            pair = (lambda x, w, b: func(x, w)) if x is args[0] else (lambda x, w, b: func(w, x))
            return self.shared(pair, x, weight, None, True)
        if kind == "product" or (kind == "scale" and "mul" in name and len(tensors) == 2):
            return self.multiplied(func, name, args)
        if kind == "scale" and "mul" in name and len(tensors) == 1 and tensors[0] is not args[0]:
            func, args = torch.mul, args[::-1]
        if kind == "scale" and isinstance(args[0], Tensor) and args[0].requires_grad:
            args = (args[0], *(x.detach() if isinstance(x, Tensor) else x for x in args[1:]))
        if name in ("sigmoid", "hardsigmoid"):
            value = func(args[0].detach())
            result = args[0] + (value - args[0]).detach()
            self.gates.append(result)
            return result
        if kind == "activation" or (kind == "scale" and not any(x.requires_grad for x in _tensors(args[1:]))):
            return self.handed_on(func, name, args, kwargs)
        raise NoReference(f"no rule for {name}")

    def multiplied(self, func: Callable, name: str, pair: Sequence[Tensor]) -> Tensor:
        """All relevance passes a gate, a sigmoid; of other products each factor gets half."""
        if self.rule == "deep_taylor":
            raise NoReference(f"no rule for {name}")
        value = func(pair[0].detach().clone(), pair[1].detach())
        gates = (
            [i for i in range(2) if _is(pair[i], self.gates)] if "mul" in name and "mat" not in name else []
        )
        if len(gates) == 1:
            x, gate = pair[1 - gates[0]], pair[gates[0]].detach()
            return _Share.apply(value, lambda v, x: [(lambda: x * gate, 1.0, 0.0, [])], x)
        return _Share.apply(value, lambda v, a, b: [(lambda: func(a, b), 0.5, STABILIZER, [])], *pair)

    def normalised(self, func: Callable, args: Any, kwargs: Any) -> Tensor:
        """A normalisation by the image's own statistics is linear once its denominator is held: the epsilon rule."""
        if self.rule == "deep_taylor":
            raise NoReference("no rule for a normalisation")
        x = args[0]
        part = _held(func.__name__, x.detach(), *args[1:], **kwargs)
        value = func(x.detach(), *args[1:], **kwargs)
        return _Share.apply(value, lambda v, y: [(lambda: part(y), 1.0, STABILIZER, [])], x)

    def bounds_of(self, x: Tensor) -> list[Tensor]:
        """The images that bound the input, where they have become what the input has become."""
        pairs = list(zip(self.raw, self.bounds, strict=True))
        return next(bounds for raw, bounds in reversed(pairs) if raw is x)  # the last, as x may work in place

    def before_first(self, func: Callable, name: str, kind: str | None, args: Any, kwargs: Any) -> Tensor:
        """A change of scale, which passes all relevance and goes for the bounds too."""
        if kind not in ("sum", "scale") or len(_tensors(args)) > 1 + sum(
            not x.requires_grad for x in _tensors(args)
        ):
            raise NoReference(f"{name} before the first layer")
        bounds = [func(bound.clone(), *args[1:], **kwargs) for bound in self.bounds_of(args[0])]
        result = self.handed_on(func, name, args, kwargs)
        self.raw.append(result)
        self.bounds.append(bounds)
        return result

    def handed_on(self, func: Callable, name: str, args: Any, kwargs: Any) -> Tensor:
        """All relevance passes."""
        value = func(args[0].detach().clone(), *args[1:], **kwargs)
        if value.shape != args[0].shape:
            raise NoReference(f"no rule for {name} of two shapes")
        result = args[0] + (value - args[0].detach())
        in_place = name.startswith("__i") or (name.endswith("_") and not name.startswith("__"))
        in_place = in_place or kwargs.get("inplace") or (name == "relu" and args[1:] == (True,))
        return self.written(args[0], result) if in_place else result

    def written(self, x: Tensor, value: Tensor) -> Tensor:
        """`value` in the place of `x`, which is no layer's output any more."""
        self.layers = [layer for layer in self.layers if layer[0] is not x]
        return x.copy_(value)

    def layer(self, func: Callable, name: str, args: Any, kwargs: Any) -> Tensor:
        names = ("input", "weight", "bias")
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        x, weight, bias = args[0], given["weight"].detach(), given.get("bias")
        more = {key: value for key, value in kwargs.items() if key not in names}
        apply = lambda x, w, b: func(x, w, b, *args[3:], **more)  # noqa: E731
        return self.shared(apply, x, weight, None if bias is None else bias.detach(), name == "linear")

    def norm(self, x: Tensor, mean: Tensor, var: Tensor, weight: Tensor, bias: Tensor, training: bool = False,
             momentum: float = 0.1, eps: float = 1e-5) -> Tensor:  # fmt: skip
        """Merged into the layer before it, else a diagonal layer."""
        if training or mean is None:
            raise NoReference("batch statistics")
        scale = (var + eps).rsqrt() * (1.0 if weight is None else weight.detach())
        shift = (0.0 if bias is None else bias.detach()) - mean * scale
        for value, apply, source, kernel, offset, dense in self.layers:
            if value is x:
                if "transpose" in str(apply):
                    raise NoReference("a norm behind a transposed convolution")
                kernel = kernel * scale.view(-1, *[1] * (kernel.ndim - 1))
                return self.shared(
                    apply, source, kernel, shift if offset is None else offset * scale + shift, dense
                )
        line = (1, -1, *[1] * (x.ndim - 2))
        diagonal = lambda x, w, b: x * w + (0 if b is None else b)  # noqa: E731
        return self.shared(diagonal, x, scale.view(line), shift.view(line), False)

    def shared(self, apply: Callable, x: Tensor, weight: Tensor, bias: Tensor | None, dense: bool) -> Tensor:
        """A trained layer under its rule."""
        first = self.first_rule if _is(x, self.raw) else None
        rule = first or (self.dense_rule if dense else self.inner_rule)
        bounds = self.bounds_of(x) if first else []
        with torch.no_grad():
            value = apply(x, weight, bias)
        result = _Share.apply(value, lambda v, x: _parts(rule, apply, v, x, weight, bias, bounds), x)
        self.layers.append((result, apply, x, weight, bias, dense))
        return result

    def linear_map(self, apply: Callable, x: Tensor) -> Tensor:
        """Averages and the like, in proportion to contributions."""
        value = apply(x.detach())
        if self.rule != "deep_taylor":
            return _Share.apply(value, lambda v, x: [(lambda: apply(x), 1.0, STABILIZER, [])], x)
        return _Share.apply(value, lambda v, x: _own_sign(v, apply(x.clamp(min=0)), apply(x.clamp(max=0))), x)

    def sum(self, name: str, first: Any, other: Any, alpha: float = 1.0) -> Tensor:
        sign = -alpha if "sub" in name else alpha
        pair = [
            x if isinstance(x, Tensor) else torch.tensor(float(x), dtype=torch.float64)
            for x in (first, other)
        ]
        value = (pair[0] + sign * pair[1]).detach()
        pair = [x.expand_as(value) for x in pair]

        def parts(v: Tensor, a: Tensor, b: Tensor) -> Sequence[Part]:
            b = sign * b
            if self.rule != "deep_taylor":
                constant = not (pair[0].requires_grad and pair[1].requires_grad)
                return [(lambda: a + b, 1.0, 0.0 if constant else STABILIZER, [])]
            terms = [x for x, own in zip((a, b), pair, strict=True) if own.requires_grad]
            up, down = (sum(x.clamp(**limit) for x in terms) for limit in ({"min": 0}, {"max": 0}))
            return _own_sign(v, up, down)

        result = _Share.apply(value, parts, *pair)
        return self.written(first, result) if name in ("__iadd__", "add_", "__isub__", "sub_") else result


def _own_sign(value: Tensor, up: Tensor, down: Tensor) -> Sequence[Part]:
    above = (value > 0).double()
    return [(lambda: up, above, STABILIZER, []), (lambda: down, 1 - above, STABILIZER, [])]


def _parts(
    rule: str,
    apply: Callable,
    value: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    bounds: list[Tensor],
) -> Sequence[Part]:
    up, down = weight.clamp(min=0), weight.clamp(max=0)
    bias_up = None if bias is None else bias.clamp(min=0)
    by_sign = lambda above, offset, below: (  # noqa: E731
        apply(x.clamp(min=0), above, offset) + apply(x.clamp(max=0), below, None)
    )
    if rule == "epsilon":
        return [(lambda: apply(x, weight, bias), 1.0, EPSILON, [])]
    if rule == "alpha1_beta0":
        return [(lambda: by_sign(up, bias_up, down), 1.0, STABILIZER, [])]
    if rule == "z_plus":
        return _own_sign(value, by_sign(up, None, down), by_sign(down, None, up))
    if rule == "gamma":
        more, less = weight + GAMMA * up, weight + GAMMA * down
        offset = (None, None) if bias is None else (bias + GAMMA * bias_up, bias + GAMMA * bias.clamp(max=0))
        return _own_sign(value, by_sign(more, offset[0], less), by_sign(less, offset[1], more))
    if rule == "flat":
        ones = torch.ones_like(x).requires_grad_()
        return [(lambda: apply(ones, torch.ones_like(weight), None), 1.0, STABILIZER, [ones])]
    low, high = (bound.detach().requires_grad_() for bound in bounds)
    box = lambda: apply(x, weight, None) - apply(low, up, None) - apply(high, down, None)  # noqa: E731
    return [(box, 1.0, STABILIZER, [low, high])]


class _Softmax(torch.autograd.Function):
    """x_i (R_i - s_i sum R) of each input (Achtibat et al. 2024, equation 13)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, dim: int) -> Tensor:
        ctx.dim = dim
        result = x.softmax(dim)
        ctx.save_for_backward(x.clone(), result.clone())
        return result

    @staticmethod
    def backward(ctx: Any, *incoming: Tensor) -> Any:
        x, shares = ctx.saved_tensors
        return x * (incoming[0] - shares * incoming[0].sum(ctx.dim, keepdim=True)), None


def _held(name: str, at: Tensor, first: Any = None, *more: Any, **named: Any) -> Callable[[Tensor], Tensor]:
    """A normalisation by the image's own statistics as a function whose denominator is that at one point."""
    keys = {
        "instance_norm": ("running_var", "weight", "bias", "use_input_stats", "momentum", "eps"),
        "rms_norm": ("weight", "eps"),
    }.get(name, ("weight", "bias", "eps"))
    given = {**dict(zip(keys, more, strict=False)), **named}
    weight, bias, eps = given.get("weight"), given.get("bias"), given.get("eps", 1e-5)
    groups = at.shape[1] if name == "instance_norm" else first
    shape = (len(at), groups, -1) if name in ("group_norm", "instance_norm") else at.shape
    axes = (-1,) if len(shape) == 3 and shape[-1] == -1 else tuple(range(-len(first), 0))
    if len(shape) == 3 and shape[-1] == -1:
        weight, bias = (None if x is None else x.view(-1, *[1] * (at.ndim - 2)) for x in (weight, bias))
    x = at.reshape(shape)
    if name == "rms_norm":
        eps = torch.finfo(at.dtype).eps if eps is None else eps
        scale = (x.square().mean(axes, keepdim=True) + eps).rsqrt()
    else:
        scale = (x.var(axes, unbiased=False, keepdim=True) + eps).rsqrt()

    def part(y: Tensor) -> Tensor:
        y = y.reshape(shape)
        y = y if name == "rms_norm" else y - y.mean(axes, keepdim=True)
        y = (y * scale).reshape(at.shape) * (1.0 if weight is None else weight.detach())
        return y if bias is None else y + bias.detach()

    return part


def _glu(x: Tensor, dim: int = -1) -> Tensor:
    value, gate = x.chunk(2, dim)
    return value * gate.sigmoid()


def _scaled_dot_product_attention(q: Tensor, k: Tensor, v: Tensor, *args: Any, **more: Any) -> Tensor:
    if args or any(more.get(key) for key in ("attn_mask", "is_causal", "enable_gqa")):
        raise NoReference("attention with a mask")
    return torch.matmul((torch.matmul(q * q.shape[-1] ** -0.5, k.transpose(-2, -1))).softmax(-1), v)


def _multi_head_attention_forward(q: Tensor, k: Tensor, v: Tensor, size: int, heads: int, weight: Tensor, bias: Tensor,
                                  *args: Any, **more: Any) -> tuple[Tensor, None]:  # fmt: skip
    """Of (token, batch, feature), without masks."""
    out_weight, out_bias = args[4:6]
    split = lambda x, i: (  # noqa: E731
        torch.nn.functional.linear(x, weight.chunk(3)[i], bias.chunk(3)[i])
        .reshape(len(x), x.shape[1], heads, -1)
        .permute(1, 2, 0, 3)
    )
    found = _scaled_dot_product_attention(split(q, 0), split(k, 1), split(v, 2))
    found = found.permute(2, 0, 1, 3).reshape(q.shape)
    return torch.nn.functional.linear(found, out_weight, out_bias), None


def _is(x: Tensor, others: Sequence[Tensor]) -> bool:
    return any(x is other for other in others)


def _tensors(values: Any) -> list[Tensor]:
    if isinstance(values, Tensor):
        return [values]
    if isinstance(values, dict):
        values = values.values()
    elif not isinstance(values, tuple | list):
        return []
    return [tensor for value in values for tensor in _tensors(value)]


def relevance(
    scores: Callable[[Tensor], Tensor], images: Tensor, rule: str, bounds: Sequence[float] = (LOW, HIGH)
) -> Tensor:
    """Relevance of each pixel under a rule of every layer, or a composite; `bounds` are those of its values."""
    leaf = images.detach().clone().requires_grad_()
    with torch.enable_grad(), _Relevance(rule, leaf, bounds):
        outputs = scores(leaf)
    return torch.autograd.grad(outputs, leaf, outputs.detach())[0]
