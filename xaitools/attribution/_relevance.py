"""Layer-wise relevance propagation on any network that torch.fx can trace.

The relevance of a value is kept as the value times a *signal*, and autograd passes the signal back: where a rule is
the gradient's own (ReLU, max pooling, reshaping) nothing is to be done, elsewhere an operation gets another way back.
So one pass forward and one back give a map, and ReLUs, sums and pools are seen however they are written: as modules,
functions, methods or operators. zennit, whose rules these are, sees modules only and replays each of them.
"""

import builtins
import inspect
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx import GraphModule, Interpreter, Node
from torch.fx.node import map_arg
from torch.nn.modules.conv import _ConvTransposeNd

from xaitools.attribution._lrp_rules import Composite, LayerRule, Linear, Shared, own_sign
from xaitools.attribution._stream import AT_THE_IMAGE, Batch, Gap, Passes, Plan
from xaitools.attribution.registry import Setting
from xaitools.errors import UnsupportedModelError
from xaitools.models.network import select
from xaitools.models.surgery import same_outputs


def relevance_plan(setting: Setting, composite: Composite) -> Plan:
    """The relevance of each pixel under the rules of a composite.

    Raises
    ------
    UnsupportedModelError
        If the network cannot be traced, or has a layer without a rule; the message names it.
    """
    network = setting.network
    propagation = _Propagation(network.graph, composite)
    outputs, _ = propagation(network.example)
    if not same_outputs(outputs, network.expected):
        raise UnsupportedModelError(
            f"Taken apart into its layers, {network.name} returns other outputs, so its relevance would be "
            "wrong. Look for operations in place on views, or randomness, in its forward pass."
        )

    def run(batch: Batch) -> Tensor:
        outputs, leaves = propagation(batch.points)
        with torch.enable_grad():
            score = select(outputs, batch.target).sum()
        signals = torch.autograd.grad(score, leaves, allow_unused=True)
        pairs = zip(leaves, signals, strict=True)
        return torch.stack([leaf.detach() * signal for leaf, signal in pairs if signal is not None]).sum(0)

    gap = Gap("relevance_gap", lambda maps: relevance_gap(setting, maps))
    return Plan(Passes(setting.name, run), {"image": AT_THE_IMAGE}, gap=gap)


def relevance_gap(setting: Setting, maps: Tensor) -> Tensor:
    """Output minus the sum of each map, (n,), in the unit of the output: the relevance that reached no pixel.

    It is what the rules give to biases, those of merged batch normalisation among them, and to the stabiliser or
    epsilon in their denominators; and what comes to neurons that lack contributions of the sign that a rule asks for:
    with alpha-beta rules those all of whose contributions have one sign, with Deep Taylor those on by their bias alone.
    """
    return setting.network.scores(setting.images, setting.target, setting.batch_size) - maps.flatten(1).sum(1)


class _Propagation:
    """A traced network, ready to run under the rules of a composite."""

    def __init__(self, network: GraphModule, composite: Composite):
        self.network = network
        self.composite = composite
        self.modules = dict(network.named_modules())
        self.in_place = {name for name, module in self.modules.items() if getattr(module, "inplace", False)}
        self.first, self.before = _first_layers(network)

    def __call__(self, inputs: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The outputs, and the leaves whose values times gradients add up to the relevance of `inputs`."""
        bounds = self.composite.first.images if self.composite.first else ()
        images = [inputs, *(torch.as_tensor(bound).to(inputs).expand_as(inputs) for bound in bounds)]
        leaves = [image.detach().clone().requires_grad_() for image in images]
        with torch.enable_grad():
            return _Run(self, leaves).run(leaves[0].clone()), leaves


def _first_layers(network: GraphModule) -> tuple[set[Node], set[Node]]:
    """The trained layers that no trained layer precedes, and the operations between the input and them."""
    modules = dict(network.named_modules())
    first: set[Node] = set()
    before: set[Node] = set()
    behind: set[Node] = set()
    for node in network.graph.nodes:
        sources = set(node.all_input_nodes)
        if sources & (first | behind):
            behind.add(node)
        elif sources & before:
            (
                first if _HANDLERS.get(_name(node, modules)) in (_layer_module, _layer_function) else before
            ).add(node)
        elif node.op == "placeholder":
            before.add(node)
    return first, before


@dataclass(frozen=True)
class _Call:
    """One operation: its node and name, what it does, and on what."""

    node: Node
    name: str
    run: Callable[..., Any]
    args: tuple
    kwargs: dict[str, Any]

    def __call__(self) -> Any:
        return self.run(*self.args, **self.kwargs)


class _Run(Interpreter):
    """One pass forward through a traced network."""

    def __init__(self, plan: _Propagation, leaves: list[Tensor]):
        super().__init__(plan.network)
        self.extra_traceback = False
        self.plan = plan
        self.composite = plan.composite
        self.bounds: dict[Node, list[Any]] = {}
        self.starts = leaves[1:]

    def run_node(self, n: Node) -> Any:
        """Run one operation under its rule."""
        if n.op == "placeholder":
            self.bounds[n] = list(self.starts)
        if n.op in ("placeholder", "get_attr", "output"):
            return super().run_node(n)
        call = self._call(n)
        if not any(value.requires_grad for value in _tensors((call.args, call.kwargs))):
            return call()
        changes_input = n.target in self.plan.in_place or _works_in_place(call)
        if changes_input:
            call = replace(call, run=_on_a_copy(call.run))
        handler = _HANDLERS.get(call.name)
        if handler is None:
            raise _no_rule(call)
        bounded = self.starts and n in self.plan.before
        result = self._before_first(call, handler) if bounded else handler(self, call)
        if changes_input:
            self.env[n.all_input_nodes[0]] = result
        return result

    def _call(self, node: Node) -> _Call:
        args, kwargs = self.fetch_args_kwargs_from_env(node)
        if not args and "input" in kwargs:
            kwargs = dict(kwargs)
            args = (kwargs.pop("input"),)
        return _Call(node, _name(node, self.plan.modules), self._function(node), args, kwargs)

    def _function(self, node: Node) -> Callable[..., Any]:
        """What a node does, with the tensor of a method as first argument."""
        if node.op == "call_module":
            return self.plan.modules[str(node.target)]
        if node.op == "call_function":
            return node.target  # type: ignore[return-value]
        return lambda tensor, *args, **kwargs: getattr(tensor, str(node.target))(*args, **kwargs)

    def _before_first(self, call: _Call, handler: "_Handler") -> Any:
        """Send the images that bound the input the same way, as far as it is a change of scale or shape."""
        if handler not in (_pass, _sum, _scale, _norm, _ask) or call.name in _SELECTIONS.split():
            raise _no_rule(call, "in front of the first layer, whose rule needs the image itself")
        self.bounds[call.node] = []
        for i in range(len(self.starts)):
            chosen = partial(self._bound, i=i)
            args, kwargs = map_arg((call.node.args, call.node.kwargs), chosen)
            self.bounds[call.node].append(call.run(*args, **kwargs))
        return call()

    def _bound(self, node: Node, i: int) -> Any:
        return self.bounds[node][i] if node in self.bounds else self.env[node]

    def rectified(self, node: Node) -> bool:
        """Whether only ReLUs follow."""
        return all(_name(user, self.plan.modules) in ("ReLU", "relu", "relu_") for user in node.users)

    def linear(
        self, call: _Call, rule: LayerRule, layer: Linear, weight: Tensor, bias: Tensor | None
    ) -> Tensor:
        """A trained layer under its rule, or under that of the first layer."""
        x = call.args[0]
        if call.node not in self.plan.first or self.composite.first is None:
            return _redistribute(rule(layer, x, weight, bias, self.rectified(call.node)))
        bounds = [self._bound(call.node.all_input_nodes[0], i) for i in range(len(self.starts))]
        with torch.no_grad():
            value = layer(x, weight, bias)
        return _redistribute(Shared(value, [(self.composite.first.part(layer, x, weight, *bounds), 1.0)]))


def _tensors(values: Any) -> list[Tensor]:
    """The tensors among arguments that may be nested."""
    if isinstance(values, Tensor):
        return [values]
    if isinstance(values, dict):
        values = values.values()
    elif not isinstance(values, tuple | list):
        return []
    return [tensor for value in values for tensor in _tensors(value)]


def _name(node: Node, modules: Mapping[str, nn.Module]) -> str:
    """Name under which an operation has its handler: that of PyTorch's class, function or method."""
    if node.op == "call_module":
        kind = type(modules[str(node.target)])
        return kind.__name__ if kind.__module__.startswith("torch.nn.") else repr(kind)
    if node.op == "call_function":
        name = getattr(node.target, "__name__", "")
        known = any(getattr(library, name, None) is node.target for library in (operator, torch, F, builtins))
        return name if known else repr(node.target)
    return str(node.target)


def _works_in_place(call: _Call) -> bool:
    """Whether a function or method changes its first argument."""
    if call.node.op == "call_module":
        return False
    if call.name.endswith("_") or call.name in ("iadd", "isub", "imul", "itruediv"):
        return True
    if call.kwargs.get("inplace"):
        return True
    flags = [value for value in call.args[1:] if value is True]
    return bool(flags) and bool(
        inspect.signature(call.run).bind(*call.args, **call.kwargs).arguments.get("inplace")
    )


def _on_a_copy(run: Callable[..., Any]) -> Callable[..., Any]:
    """The operation, with its first argument left as it is."""
    return lambda tensor, *args, **kwargs: run(tensor.clone(), *args, **kwargs)


def _no_rule(call: _Call, which: str = "") -> UnsupportedModelError:
    """An error that names the layer."""
    stack = list((call.node.meta.get("nn_module_stack") or {}).keys())
    place = str(call.node.target) if call.node.op == "call_module" else (stack[-1] if stack else "")
    where = f" in layer {place!r}" if place else f" (node {call.node.name!r} of the network's own forward)"
    what = f"{call.name} {which}".strip()
    return UnsupportedModelError(
        f"Relevance propagation has no rule for {what}{where}; use input_x_gradient or integrated_gradients on "
        "this network. A softmax or sigmoid at the end is better left out: explain the score before it."
    )


def _redistribute(shared: Shared) -> Tensor:
    """The value, from which signals go back to the parts."""
    parts, factors = zip(*shared.parts, strict=True)
    return _Redistribute.apply(shared.value, factors, shared.stabilizer, *parts)


class _Redistribute(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, factors: tuple, stabilizer: float, *parts: Tensor) -> Tensor:
        ctx.save_for_backward(value, *parts)
        ctx.factors, ctx.stabilizer = factors, stabilizer
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *signals: Tensor) -> Any:
        value, *parts = ctx.saved_tensors
        relevance = signals[0] * value
        shares = [
            _quotient(relevance * factor, part, ctx.stabilizer)
            for part, factor in zip(parts, ctx.factors, strict=True)
        ]
        return None, None, None, *shares


def _quotient(numerator: Tensor, denominator: Tensor, stabilizer: float) -> Tensor:
    """A stabilised quotient; 0 where there are no contributions to share among."""
    stable = denominator + torch.copysign(denominator.new_tensor(stabilizer), denominator)
    return (numerator / stable).masked_fill_(denominator == 0, 0)


def _pass(run: _Run, call: _Call) -> Any:
    """Relevance is value times gradient."""
    return call()


def _ask(run: _Run, call: _Call) -> Any:
    """A property of a tensor, such as its shape."""
    result = call()
    if _tensors(result):
        raise _no_rule(call)
    return result


def _activate(run: _Run, call: _Call) -> Tensor:
    """All relevance passes, whatever the slope."""
    return _redistribute(Shared(call().detach(), [(call.args[0], 1.0)], stabilizer=0.0))


def _average(run: _Run, call: _Call) -> Tensor:
    """Shares in proportion to contributions."""
    value = call()
    if not run.composite.own_sign_sums:
        return _redistribute(Shared(value.detach(), [(value, 1.0)]))
    x, *rest = call.args
    positive, negative = (call.run(part, *rest, **call.kwargs) for part in (x.clamp(min=0), x.clamp(max=0)))
    return _redistribute(Shared(value.detach(), own_sign(value.detach(), positive, negative)))


def _sum(run: _Run, call: _Call) -> Tensor:
    """Shares in proportion to the summands."""
    value = call()
    if not run.composite.own_sign_sums:
        return _redistribute(Shared(value.detach(), [(value, 1.0)]))
    sign = call.kwargs.get("alpha", 1) * (-1 if "sub" in call.name else 1)
    second = call.args[1] if len(call.args) > 1 else call.kwargs["other"]
    terms = [
        term.expand_as(value)
        for term in (call.args[0], sign * second)
        if _tensors(term) and term.requires_grad
    ]
    positive = torch.stack([term.clamp(min=0) for term in terms]).sum(0)
    negative = torch.stack([term.clamp(max=0) for term in terms]).sum(0)
    return _redistribute(Shared(value.detach(), own_sign(value.detach(), positive, negative)))


def _scale(run: _Run, call: _Call) -> Tensor:
    """Products with constants pass all relevance; for products of two activations there is no rule."""
    depends = [
        bool(_tensors(factor)) and factor.requires_grad
        for factor in (*call.args, call.kwargs.get("other"))[:2]
    ]
    if all(depends) or ("div" in call.name and depends[1]):
        raise _no_rule(call, "of two values that both depend on the image")
    return call()


def _norm(run: _Run, call: _Call) -> Tensor:
    """A batch normalisation that could not be merged: a diagonal layer."""
    norm = run.plan.modules[str(call.node.target)]
    if norm.running_mean is None:
        raise _no_rule(call, "by statistics of the batch")
    x = call.args[0]
    scale = (norm.running_var + norm.eps).rsqrt()
    scale = scale if norm.weight is None else scale * norm.weight
    shift = -norm.running_mean * scale if norm.bias is None else norm.bias - norm.running_mean * scale
    shape, rule = (1, -1, *[1] * (x.ndim - 2)), run.composite.convolution
    return _redistribute(rule(_diagonal, x, scale.view(shape), shift.view(shape), run.rectified(call.node)))


def _diagonal(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return x * weight if bias is None else x * weight + bias


def _layer_module(run: _Run, call: _Call) -> Tensor:
    """A convolution or dense layer."""
    module: Any = run.plan.modules[str(call.node.target)]
    if isinstance(module, nn.Linear):
        return run.linear(call, run.composite.dense, F.linear, module.weight, module.bias)
    if not isinstance(module, _ConvTransposeNd):
        return run.linear(call, run.composite.convolution, module._conv_forward, module.weight, module.bias)
    transposed = getattr(F, f"conv_transpose{module.weight.ndim - 2}d")
    shape = (module.stride, module.padding, module.output_padding, module.groups, module.dilation)
    if len(call.args) > 1 or call.kwargs:
        raise _no_rule(call, "with an output size")
    return run.linear(
        call,
        run.composite.convolution,
        lambda x, w, b: transposed(x, w, b, *shape),
        module.weight,
        module.bias,
    )


def _layer_function(run: _Run, call: _Call) -> Tensor:
    """A convolution or dense layer called as a function of its weights."""
    names = ("input", "weight", "bias")
    given = {**dict(zip(names, call.args, strict=False)), **call.kwargs}
    weight, bias = given["weight"], given.get("bias")
    if any(value.requires_grad for value in _tensors((weight, bias))):
        raise _no_rule(call, "whose weights depend on the image")
    rest = {key: value for key, value in call.kwargs.items() if key not in names}

    def layer(x: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
        return call.run(x, w, b, *call.args[3:], **rest)

    rule = run.composite.dense if call.name == "linear" else run.composite.convolution
    return run.linear(call, rule, layer, weight, bias)


_Handler = Callable[[_Run, _Call], Any]
_SELECTIONS = (
    "ReLU LeakyReLU PReLU MaxPool1d MaxPool2d MaxPool3d AdaptiveMaxPool1d AdaptiveMaxPool2d AdaptiveMaxPool3d relu "
    "relu_ leaky_relu leaky_relu_ prelu max_pool1d max_pool2d max_pool3d adaptive_max_pool1d adaptive_max_pool2d "
    "adaptive_max_pool3d amax amin"
)
_SHAPES = (
    "Identity Dropout Dropout1d Dropout2d Dropout3d AlphaDropout FeatureAlphaDropout Flatten Unflatten PixelShuffle "
    "PixelUnshuffle ChannelShuffle ZeroPad1d ZeroPad2d ZeroPad3d ReflectionPad1d ReflectionPad2d ReflectionPad3d "
    "ReplicationPad1d ReplicationPad2d ReplicationPad3d CircularPad1d CircularPad2d CircularPad3d dropout dropout1d "
    "dropout2d dropout3d alpha_dropout feature_alpha_dropout pad flatten unflatten reshape view view_as reshape_as "
    "permute transpose swapaxes movedim squeeze unsqueeze expand expand_as repeat tile contiguous clone getitem cat "
    "concat concatenate stack chunk split unbind narrow select index_select flip roll pixel_shuffle pixel_unshuffle "
    "to float double neg"
)
_HANDLERS: dict[str, _Handler] = {
    name: handler
    for handler, names in (
        (_layer_module, "Linear Conv1d Conv2d Conv3d ConvTranspose1d ConvTranspose2d ConvTranspose3d"),
        (_layer_function, "linear conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d"),
        (_norm, "BatchNorm1d BatchNorm2d BatchNorm3d"),
        (_pass, _SELECTIONS),
        (_pass, _SHAPES),
        (_activate, "ReLU6 relu6 ELU elu CELU celu SELU selu Tanh tanh Softsign softsign"),
        (
            _average,
            "AvgPool1d AvgPool2d AvgPool3d AdaptiveAvgPool1d AdaptiveAvgPool2d AdaptiveAvgPool3d mean sum",
        ),
        (
            _average,
            "avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d",
        ),
        (_average, "Upsample UpsamplingNearest2d UpsamplingBilinear2d interpolate"),
        (_sum, "add iadd add_ sub isub sub_"),
        (_scale, "mul imul mul_ truediv itruediv div div_"),
        (_ask, "getattr size dim numel"),
    )
    for name in names.split()
}
"""What is done for each operation that has a rule, by the name of PyTorch's class, function or method."""
