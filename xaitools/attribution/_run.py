"""A pass forward in which every operation gets a way back for relevance.

PyTorch shows each function, method and operator to a `TorchFunctionMode`, wherever it stands: in modules, in functions,
in other people's libraries, behind hooks and parametrizations. So nothing has to be traced, and operations in place
work as they do without us.

The pass for the example is a *recording*: what comes after an operation is not known yet, and later passes are told:
whether only ReLUs follow, whether memory is written again, which batch normalisation can be merged.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map
from torch.utils.weak import WeakIdKeyDictionary

from xaitools.attribution._lrp_rules import Composite, LayerRule, Linear, Shared
from xaitools.errors import UnsupportedModelError
from xaitools.models.surgery import autograd_nodes

Handler = Callable[["Run", "Call"], Any]


@dataclass(eq=False)
class Step:
    """What a recording tells of an operation.

    Attributes
    ----------
    name
        Of the operation.
    sources, users
        The operations whose results it uses, and that use its own; None stands for the input and the output.
    reads, gives
        Where its arguments and its results lie in memory.
    arguments_change, result_changes
        Whether an operation in place writes there later.
    norm
        Scale and shift of a batch normalisation, one number a channel each; or of the one merged into a convolution.
    merged
        Whether it is a batch normalisation that is merged into the convolution before it.
    gate
        Of a product of two values, the place of the one that is a gate, a sigmoid; None if none is.
    """

    name: str
    sources: list["Step | None"] = field(default_factory=list)
    users: list["Step | None"] = field(default_factory=list)
    reads: set[int] = field(default_factory=set)
    gives: set[int] = field(default_factory=set)
    arguments_change: bool = False
    result_changes: bool = False
    norm: tuple[Tensor, Tensor] | None = None
    merged: bool = False
    gate: int | None = None

    @property
    def rectified(self) -> bool:
        """Whether only ReLUs follow."""
        return bool(self.users) and all(user is not None and user.name == "relu" for user in self.users)


@dataclass(frozen=True)
class Origin:
    """Which operation gave a value, and what it made of the images that bound the input (None: a layer came before)."""

    step: Step | None
    bounds: list[Tensor] | None


@dataclass(frozen=True)
class Call:
    """One operation: its name without the underscore of those in place, what it does, and on what."""

    name: str
    run: Callable[..., Any]
    args: tuple
    kwargs: dict[str, Any]
    in_place: bool
    step: Step

    def __call__(self) -> Any:
        return self.run(*self.args, **self.kwargs)

    def arguments(self, *names: str) -> dict[str, Any]:
        """The arguments by name, for an operation whose first parameters have these names."""
        return {**dict(zip(names, self.args, strict=False)), **self.kwargs}


@dataclass(frozen=True)
class Rules:
    """What is done at each operation, by its name.

    Attributes
    ----------
    handlers
        The rules.
    layers
        Those of trained layers, of which one is the first.
    views, native
        Those that leave an operation as it is, in place or not: always, or where nobody writes over it later.
    scalings
        Names of operations that may stand in front of a first layer whose rule is in terms of the image's bounds.
    closing
        Those behind which a softmax or sigmoid is no longer at the end of the network.
    decompositions
        Operations that are written as others.
    asks, products, gates, shapes
        Names of operations that only tell something of a tensor; of products; of gates; of changes of shape.
    """

    handlers: Mapping[str, Handler]
    layers: frozenset[Handler]
    views: frozenset[Handler]
    native: frozenset[Handler]
    scalings: frozenset[str]
    closing: frozenset[Handler]
    decompositions: Mapping[str, Callable[..., Any]]
    asks: frozenset[str]
    products: frozenset[str]
    gates: frozenset[str]
    shapes: frozenset[str]


class OtherSteps(Exception):
    """The network does other operations than were recorded."""


class Run(TorchFunctionMode):
    """One pass forward.

    Parameters
    ----------
    rules, composite
        What is done at each operation, and which rule of relevance holds where.
    model, name
        The network, whose layers messages name, and what it is called itself.
    steps
        Those of a recording; None to record.
    """

    def __init__(
        self, rules: Rules, composite: Composite, model: nn.Module, name: str, steps: list[Step] | None = None
    ):
        super().__init__()
        self.name = name
        self.rules = rules
        self.composite = composite
        self.model = model
        self.recording = steps is None
        self.steps: list[Step] = steps or []
        self.done = 0
        self.autocast = False
        self._origins: Any = WeakIdKeyDictionary()

    def start(self, image: Tensor, bounds: list[Tensor]) -> None:
        """Take a value as the network's input."""
        self._origins[image] = Origin(None, bounds)

    def finish(self, outputs: Tensor) -> None:
        """Check where the outputs come from, and that everything on the way has a rule."""
        if not outputs.requires_grad:
            return
        if outputs not in self._origins:
            raise self._unseen(outputs)
        if not self.recording:
            return
        if (step := self._origins[outputs].step) is not None:
            step.users.append(None)
        _refuse_marked(outputs.grad_fn)
        for step in self.steps:
            norm = step.users[0] if len(step.users) == 1 else None
            if step.name in ("conv1d", "conv2d", "conv3d") and norm is not None and norm.name == "batch_norm":
                step.norm, norm.merged = norm.norm, True
                step.users, step.result_changes = norm.users, norm.result_changes
            if step.name in self.rules.products and len(step.sources) == 2:
                gates = [i for i in range(2) if self._is_gate(step.sources[i])]
                step.gate = gates[0] if len(gates) == 1 else None

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: Any = None) -> Any:
        active = [tensor for tensor in tensors((args, kwargs)) if tensor.requires_grad]
        if not active:
            return func(*args, **(kwargs or {}))
        device = active[0].device.type
        if not torch.is_autocast_enabled(device):
            return self._seen(func, args, kwargs or {}, active)
        self.autocast = True
        with torch.autocast(device, enabled=False):
            return self._seen(func, args, kwargs or {}, active)

    def _seen(self, func: Any, args: tuple, kwargs: dict[str, Any], active: list[Tensor]) -> Any:
        """Run an operation on values that depend on the input."""
        call = _call(func, args, kwargs)
        if _is_property(func) and call.name not in self.rules.handlers:
            result = call()
            if tensors(result):
                raise self.no_rule(call)
            return result
        if call.name in self.rules.asks:
            return call()
        for tensor in active:
            if tensor not in self._origins:
                raise self._unseen(tensor)
        if not torch.is_grad_enabled():
            raise self.no_rule(call, "under torch.no_grad or in a function with a gradient of its own")
        if call.name in self.rules.decompositions and _is_torchs(func):
            try:
                with self:
                    return self.rules.decompositions[call.name](*call.args, **call.kwargs)
            except NotImplementedError as error:
                raise self.no_rule(call, str(error)) from error
        call = replace(call, step=self._step(call.name, active))
        bounds = self._bounds(call, active)
        result = self._ruled(call, scaling=bool(bounds))
        given = [*tensors(result), *(call.args[:1] if call.in_place else ())]
        for i, tensor in enumerate(given):
            if tensor.requires_grad:
                own = None if bounds is None else [several[min(i, len(several) - 1)] for several in bounds]
                self._origins[tensor] = Origin(call.step, own)
        if self.recording:
            call.step.gives = {_place(tensor) for tensor in given}
            if call.in_place:
                self._written(_place(call.args[0]), call.step)
        return result

    def _step(self, name: str, active: list[Tensor]) -> Step:
        """A new step, or the next of the recording."""
        if self.recording:
            step = Step(name, reads={_place(tensor) for tensor in active})
            self.steps.append(step)
            step.sources = [self._origins[tensor].step for tensor in active]
            for source in step.sources:
                if source is not None:
                    source.users.append(step)
            return step
        if self.done == len(self.steps) or self.steps[self.done].name != name:
            raise OtherSteps
        self.done += 1
        return self.steps[self.done - 1]

    def _is_gate(self, step: Step | None) -> bool:
        """Whether a value is a sigmoid but for its shape."""
        while step is not None and step.name in self.rules.shapes:
            if len(step.sources) > 1 and not step.name.endswith("_as"):
                return False
            step = step.sources[0]
        return step is not None and step.name in self.rules.gates

    def _written(self, place: int, by: Step) -> None:
        """Note that the memory at a place has changed."""
        for step in self.steps:
            if step is not by:
                step.arguments_change |= place in step.reads
                step.result_changes |= place in step.gives

    def _bounds(self, call: Call, active: list[Tensor]) -> list[list[Tensor]] | None:
        """What an operation in front of the first layer makes of each image that bounds the input: all its results."""
        before = [self._origins[tensor].bounds for tensor in active]
        if (
            any(bounds is None for bounds in before)
            or self.rules.handlers.get(call.name) in self.rules.layers
        ):
            return None
        if not before[0]:
            return []
        if call.name not in self.rules.scalings:
            raise self.no_rule(call, "in front of the first layer, whose rule needs the image itself")
        if call.in_place and (call.args[0]._is_view() or call.args[0] not in self._origins):
            raise self.no_rule(call, "in place on part of something, in front of the first layer")
        found = []
        for i in range(len(before[0])):
            args, kwargs = tree_map(lambda value: self._bound(value, i), (call.args, call.kwargs))  # noqa: B023
            found.append(tensors(call.run(*args, **kwargs)))
        return found

    def _bound(self, value: Any, i: int) -> Any:
        """A copy of what became of bound number i where `value` is what became of the image."""
        if not isinstance(value, Tensor) or value not in self._origins:
            return value
        return self._origins[value].bounds[i].clone()

    def _ruled(self, call: Call, scaling: bool) -> Any:
        """The result of an operation under its rule, or as it is for a scaling in front of the first layer."""
        handler = self.rules.handlers.get(call.name)
        if (handler is None and call.name.startswith("__")) or call.name in (
            "item",
            "tolist",
            "numpy",
            "detach",
        ):
            raise self.no_rule(call)
        if handler is None or not _is_torchs(call.run) or call.kwargs.get("out") is not None:
            return self.refused(call)
        if scaling:
            return call()
        changes = call.step.arguments_change or call.step.result_changes
        if handler in self.rules.views or (handler in self.rules.native and not changes):
            return handler(self, call)
        if call.in_place or call.step.arguments_change:
            args, kwargs = tree_map(self._own, (call.args, call.kwargs))
            run = _on_a_copy(call.run) if call.in_place else call.run
            result = handler(self, replace(call, args=args, kwargs=kwargs, run=run))
        else:
            result = handler(self, call)
        if self.recording and handler in self.rules.closing:
            result = _Marked.apply(result, None, False)
        if call.in_place:
            return call.args[0].copy_(result)
        if self.recording or call.step.result_changes:
            return tree_map(_copy, result)
        return result

    def _own(self, value: Any) -> Any:
        """A copy of a value that depends on the input."""
        if not _is_active(value):
            return value
        copied = value.clone()
        self._origins[copied] = self._origins[value]
        return copied

    def is_first(self, x: Tensor) -> bool:
        """Whether nothing but changes of scale and shape came before, and the first layer has a rule of its own."""
        return self.composite.first is not None and self._origins[x].bounds is not None

    def linear(
        self, call: Call, rule: LayerRule, layer: Linear, x: Tensor, weight: Tensor, bias: Tensor | None
    ) -> Tensor:
        """A trained layer under its rule, or under that of the first layer."""
        first, bounds = self.composite.first, self._origins[x].bounds
        if self.recording and not (first and bounds):  # the value is all that counts
            value = layer(x, weight, bias)
            return self.share(Shared(value.detach(), [(value, 1.0)]))
        if first is None or bounds is None:
            return self.share(rule(layer, x, weight, bias, call.step.rectified))
        with torch.no_grad():
            value = layer(x, weight, bias)
        return self.share(Shared(value, [(first.part(layer, x, weight, *bounds), 1.0)]))

    def share(self, shared: Shared) -> Tensor:
        """The value, from which signals go back to the parts."""
        parts, factors = zip(*shared.parts, strict=True)
        return _Redistribute.apply(shared.value, factors, shared.stabilizer, *parts)

    def ending(self, call: Call, result: Tensor) -> Tensor:
        """The result of an operation that has no rule at the end of the network."""
        return _Marked.apply(result, self.no_rule(call), True) if self.recording else result

    def refused(self, call: Call, which: str = "") -> Any:
        """The result of an operation without a rule, which is an error where the output depends on it."""
        error = self.no_rule(call, which)
        result = call()
        if not self.recording:
            return result
        if call.in_place or not any(tensor.requires_grad for tensor in tensors(result)):
            raise error
        return tree_map(
            lambda value: _Marked.apply(value, error, False) if _is_active(value) else value, result
        )

    def no_rule(self, call: Call, which: str = "") -> UnsupportedModelError:
        """An error that names the layer."""
        place, module = _layer(self.model)
        what = call.name
        if (
            module is not None
            and type(module).__module__.startswith("torch.nn.")
            and not any(module.children())
        ):
            what = type(module).__name__
        where = f"in layer {place!r}" if place else f"in the forward pass of {self.name}"
        return UnsupportedModelError(
            f"Relevance propagation has no rule for {f'{what} {which}'.strip()} {where}; use input_x_gradient or "
            "integrated_gradients on this network. A softmax or sigmoid at the end is better left out: explain the "
            "score before it."
        )

    def _unseen(self, tensor: Tensor) -> UnsupportedModelError:
        name = type(tensor.grad_fn).__name__.removesuffix("Backward") if tensor.grad_fn else "A leaf"
        place, _ = _layer(self.model)
        where = f"in layer {place!r}" if place else f"in the forward pass of {self.name}"
        return UnsupportedModelError(
            f"{name} has a gradient of its own or is compiled, {where}, so how it shares out relevance is unknown; use "
            "input_x_gradient or integrated_gradients on this network, or write it as operations of PyTorch."
        )


def tensors(values: Any) -> list[Tensor]:
    """The tensors among values that may be nested."""
    if isinstance(values, Tensor):
        return [values]
    if isinstance(values, dict):
        values = values.values()
    elif not isinstance(values, tuple | list):
        return []
    return [tensor for value in values for tensor in tensors(value)]


def _call(func: Any, args: tuple, kwargs: dict[str, Any]) -> Call:
    """An operation, the tensor it is about as first argument."""
    name = func.__self__.__name__ if _is_property(func) else getattr(func, "__name__", repr(func))
    own = next((key for key in ("input", "self", "tensors") if key in kwargs), None) if not args else None
    if own:
        args, kwargs = (kwargs[own],), {key: value for key, value in kwargs.items() if key != own}
    in_place = name == "__setitem__" or (name.endswith("_") and not name.endswith("__"))
    if "nn.functional" in (getattr(func, "__module__", None) or ""):
        in_place |= bool(inspect.signature(func).bind(*args, **kwargs).arguments.get("inplace"))
    if name.endswith("_") and not name.endswith("__"):
        name = name[:-1]
    return Call(name, func, args, kwargs, in_place, Step(name))


def _is_property(func: Any) -> bool:
    return getattr(func, "__name__", "") == "__get__"


def _is_torchs(func: Any) -> bool:
    """Whether an operation is PyTorch's own, so that its name says what it does."""
    return (getattr(func, "__module__", None) or "torch").split(".")[0] == "torch"


def _is_active(value: Any) -> bool:
    return isinstance(value, Tensor) and value.requires_grad


def _copy(value: Any) -> Any:
    return value.clone() if _is_active(value) else value


def _on_a_copy(run: Callable[..., Any]) -> Callable[..., Any]:
    """The operation, with its first argument left as it is."""
    return lambda tensor, *args, **kwargs: run(tensor.clone(), *args, **kwargs)


def _place(tensor: Tensor) -> int:
    """Where a tensor lies in memory."""
    return tensor.untyped_storage().data_ptr()


def _layer(model: nn.Module) -> tuple[str, nn.Module | None]:
    """Name of the innermost layer that is running, and the layer."""
    names = {id(module): name for name, module in model.named_modules()}
    frame = inspect.currentframe()
    while frame is not None:
        module = frame.f_locals.get("self")
        if isinstance(module, nn.Module) and id(module) in names:
            return names[id(module)], module
        frame = frame.f_back
    return "", None


def _refuse_marked(root: Any) -> None:
    """Raise the error of an operation without a rule that the output depends on."""
    nodes = [node for node in autograd_nodes(root) if _is_marked(node)]
    for node in nodes:
        if node.error is not None and not node.at_the_end:
            raise node.error
    seen, waiting = set(), [root]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if _is_marked(node):
            if node.error is None:
                continue
            raise node.error
        waiting += [following for following, _ in node.next_functions]


def _is_marked(node: Any) -> bool:
    return type(node).__name__ == "_MarkedBackward"


class _Marked(torch.autograd.Function):
    """A value as it is; its node tells why relevance cannot pass, everywhere or at the end of the network only."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, error: Exception | None, at_the_end: bool) -> Tensor:
        ctx.error, ctx.at_the_end = error, at_the_end
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *signals: Tensor) -> Any:
        return signals[0], None, None


class _Redistribute(torch.autograd.Function):
    """A value, whose signals go to parts in proportion to their contributions."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, factors: tuple, stabilizer: float, *parts: Tensor) -> Tensor:
        ctx.save_for_backward(value, *parts)
        ctx.factors, ctx.stabilizer = factors, stabilizer
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *signals: Tensor) -> Any:
        value, *parts = ctx.saved_tensors
        if (
            len(parts) == 1
            and _is_one(ctx.factors[0])
            and _same(value, parts[0])
            and _counts(ctx.stabilizer, value)
        ):
            return None, None, None, _kept(value, ctx.stabilizer).mul_(signals[0])
        relevance = signals[0] * value
        shares = [
            _quotient(relevance if _is_one(factor) else relevance * factor, part, ctx.stabilizer)
            for part, factor in zip(parts, ctx.factors, strict=True)
        ]
        return None, None, None, *shares


def _is_one(factor: Tensor | float) -> bool:
    return not isinstance(factor, Tensor) and factor == 1


def _counts(stabilizer: float, value: Tensor) -> bool:
    """Whether it is more than 0 in the value's precision too."""
    return stabilizer >= torch.finfo(value.dtype).tiny


def _kept(value: Tensor, stabilizer: float) -> Tensor:
    """The share of a value's relevance that is left by its own stabilised quotient, x / (x + stabilizer sign x)."""
    size = value.abs()
    return size.div_(size + stabilizer)


def _quotient(numerator: Tensor, denominator: Tensor, stabilizer: float) -> Tensor:
    """A stabilised quotient; 0 where there are no contributions to share among."""
    stable = torch.copysign(denominator.new_tensor(stabilizer), denominator).add_(denominator)
    return torch.div(numerator, stable, out=stable).masked_fill_(denominator == 0, 0)


def _same(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors are one in memory."""
    return bool(
        _place(a) == _place(b) and a.storage_offset() == b.storage_offset() and a.stride() == b.stride()
    )
