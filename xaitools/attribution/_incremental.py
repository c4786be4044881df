"""Outputs for many slightly changed copies of one image, computed from what changes in each layer.

The network's graph is walked once for a batch of changes. Each layer hands on the box of cells that its inputs'
boxes reach. A global mean, or the first linear layer after flattening, makes a change of a vector of it, so that no
digits are lost in the difference of outputs. What has no rule here turns boxes into full activations, and from there on
the network runs as it is.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx import GraphModule, Interpreter, Node
from torch.fx.node import map_arg

from xaitools.attribution._boxes import Change, inside, leave_out, reframe, table_of, tighten
from xaitools.attribution._local_layers import (
    Rule,
    addition,
    average_pooling,
    batch_norm,
    concatenation,
    convolution,
    elementwise,
    is_concatenation,
    is_elementwise,
    is_passage,
    is_relu,
    is_sum,
    linear,
    max_pool_options,
    max_pooling,
    operands,
)
from xaitools.attribution._traced import Traced
from xaitools.errors import UnsupportedModelError
from xaitools.models.surgery import same_outputs

SMALLEST_GROUP = 128
LARGEST_BATCH = 2**22
"""Elements of a convolution's output for all windows that are taken at once."""

LARGEST_VECTOR = 2**12
"""Features of what is taken for all windows at once, as is a change; larger activations by the batch."""

FULL_SHARE = 0.75
"""Share of an activation from which on its box is computed as a whole."""


@dataclass(frozen=True, eq=False)
class Flat:
    """A change whose activation was flattened to ``(window, feature)``, of the spatial shape given."""

    change: Change
    shape: tuple[int, ...]


Value = Any
"""A Change, a Flat, a full activation (window, ...), or what does not depend on the image."""


@dataclass
class _Step:
    node: Node
    inputs: list[Node]
    rule: Rule | None
    kind: str
    expires: list[Node] = field(default_factory=list)


class IncrementalNetwork:
    """A network and its clean pass over one image.

    Attributes
    ----------
    clean
        The network's output for the image, ``(1, ...)``.
    work
        Multiplications and additions done so far, elements read and written counted as
        `ELEMENTWISE_COST` each; set it to 0 to begin a count.
    full_work
        The same for one full pass.
    largest
        Of the absolute values of all activations of the clean pass.
    widest
        Most elements of one window's change so far.
    whole
        Whether outputs were differences of whole activations, with their rounding, not sums of changes.
    """

    def __init__(
        self,
        network: nn.Module,
        image: Tensor,
        *,
        batch_size: int = 16,
        pulse: Callable[[], object] = lambda: None,
    ) -> None:
        """`pulse` is called at each step of a walk.

        Full activations are made of `batch_size` windows at most; of vectors, and of changes, as many as asked for.

        Raises
        ------
        UnsupportedModelError
            If the network cannot be followed.
        """
        self._name = type(network).__name__
        traced = Traced(network)
        self._network = traced.graph
        self._batch_size = batch_size
        self._pulse = pulse
        self._layers = dict(self._network.named_modules())
        self._values = _Record(self._network)
        with torch.no_grad():
            self.clean: Tensor = self._values.run(image.clone())
        self._clean_values: dict[Node, Any] = self._values.seen
        traced.check(self._clean_values)
        self.largest = max(map(_largest, self._clean_values.values()), default=0.0)
        self._dtype = image.dtype
        self._layout = layout_of(network, image)
        self._axes = image.ndim - 2
        self._tables: dict[Node, Tensor] = {}
        self._deferred: set[Node] = set()
        self._shapes: set[Node] = set()
        self._weights: dict[nn.Module, Tensor] = {}
        self.widest = 1
        self.whole = False
        self._steps = self._plan()
        self.work = 0.0
        self.full_work = sum(self._full_work(step) for step in self._steps)
        self._forget()

    def outputs(self, change: Change) -> Tensor:
        """Change of the network's output ``(window, ...)`` for a change of the image."""
        with torch.no_grad():
            parts = tighten(change, SMALLEST_GROUP)
            return self._gather(parts, len(change), 0, self._steps[0].node)

    def check(self, outputs: Tensor) -> None:
        """Compare with the network's own outputs for the image.

        Raises
        ------
        UnsupportedModelError
            If they differ.
        """
        if self.clean.dtype != outputs.dtype or not same_outputs(self.clean, outputs):
            raise UnsupportedModelError(
                f"{self._name} returns something else when its layers run one by one (is there an autocast in its "
                "forward pass?), so changes cannot be followed through it; use algorithm='full'."
            )

    def shaken(self, image: Tensor, generator: torch.Generator) -> Tensor:
        """The network's output where the image and every activation move by one unit in the last place, at random.

        It moves as far as rounding moves it: as large as the activations are that cancel, and in as many layers.
        """
        with torch.no_grad():
            outputs: Tensor = _Shaken(self._network, generator).run(image.clone())
        return outputs

    def require_local(self) -> None:
        """Make sure that something is gained.

        Raises
        ------
        UnsupportedModelError
            If the first layer that sees the image already mixes all of it.
        """
        for step in self._steps[1:]:
            if step.kind == "local":
                return
            if step.kind != "passage":
                break
        raise UnsupportedModelError(
            f"The layer {step.node.target!s} of {type(self._network).__name__} takes the whole image at once "
            "or has no local rule, so no change stays local; use algorithm='full'."
        )

    # --- the plan

    def _plan(self) -> list[_Step]:
        steps = []
        depends: set[Node] = set()
        for node in self._network.graph.nodes:
            if node.op == "placeholder":
                if depends:
                    raise UnsupportedModelError(
                        f"{type(self._network).__name__} takes more than the image: {node.name!r}; use "
                        "algorithm='full'."
                    )
                depends.add(node)
                steps.append(_Step(node, [], None, "image"))
                continue
            if not any(source in depends or source in self._shapes for source in node.all_input_nodes):
                continue
            if not _holds_tensor(self._clean_values[node]):
                self._check_shape(node)
                continue
            inputs = [source for source in node.all_input_nodes if source in depends]
            depends.add(node)
            local = len(inputs) == len(node.all_input_nodes)
            rule, kind = self._rule(node) if local or node.op == "output" else (None, "full")
            steps.append(_Step(node, inputs, rule, kind))
        last = {}
        for step in steps:
            for source in step.inputs:
                last[source] = step
        for source, step in last.items():
            step.expires.append(source)
        return steps

    def _forget(self) -> None:
        """Keep only those clean activations that full ones may have to be made from; rules have what they need."""
        needed = {step.node for step in self._steps if step.kind not in ("local", "image")}
        for step in self._steps:
            alone = step.kind == "local" and len(step.inputs) == 1
            if not alone or isinstance(self._layer(step.node), nn.modules.conv._ConvNd):
                needed.update(step.inputs)
        for step in self._steps:
            clean = self._clean_values[step.node]
            if step.node not in needed and isinstance(clean, Tensor):
                self._clean_values[step.node] = torch.empty_like(clean, device="meta")
        self._tables.clear()

    def _check_shape(self, node: Node) -> None:
        self._shapes.add(node)
        try:
            self._shape(node, 1)
        except (RuntimeError, NotImplementedError, TypeError) as error:
            raise UnsupportedModelError(
                f"{node.name!r} makes a number from an activation, on which the network's course may depend: {error}; "
                "use algorithm='full'."
            ) from error

    def _rule(self, node: Node) -> tuple[Rule | None, str]:
        """The local rule of a node, if any, and the kind of step it is."""
        clean = self._clean_values[node]
        if node.op == "output":
            return None, "output"
        if not isinstance(clean, Tensor):
            return None, "full"
        source = node.all_input_nodes[0]
        before = self._clean_values[source]
        layer = self._layer(node)
        if is_passage(node, layer):
            return None, "passage"
        if not all(self._is_activation(own) for own in node.all_input_nodes) or clean.dtype != self._dtype:
            return None, "full"
        spatial = before.ndim > 2
        if spatial and _is_flatten(node, layer, before, clean):
            return None, "flatten"
        if spatial and clean.ndim in (2, before.ndim) and _is_global_mean(node, layer, self._axes):
            return None, "mean"
        if clean.ndim == before.ndim and (rule := self._local(node, layer, source)) is not None:
            return rule, "local"
        return None, "full"

    def _is_activation(self, node: Node) -> bool:
        """Whether a value has the channels of one image, at each cell or as a vector."""
        value = self._clean_values[node]
        if not isinstance(value, Tensor) or value.dtype != self._dtype:
            return False
        return len(value) == 1 and value.ndim in (2, self._axes + 2)

    def _local(self, node: Node, layer: nn.Module | None, source: Node) -> Rule | None:
        before, after = (tuple(self._clean_values[own].shape[2:]) for own in (source, node))
        if is_sum(node):
            same = len({self._clean_values[own].shape for own in node.all_input_nodes}) == 1
            return addition(after) if same else None
        if is_concatenation(node):
            return concatenation(after)
        if len(node.all_input_nodes) != 1:
            return None
        if (options := max_pool_options(node, layer)) is not None:
            relu = source in self._deferred
            origin = source.all_input_nodes[0] if relu else source
            return max_pooling(options, self._table(origin), self._table(node), relu, LARGEST_BATCH)
        if is_elementwise(node, layer):
            if is_relu(node, layer) and self._only_pooled(node):
                self._deferred.add(node)
                return Rule(lambda changes: changes[0], 0)
            return elementwise(self._function(node), self._table(source))
        if layer is None:
            return None
        if not before:
            return linear(layer) or batch_norm(layer)
        return convolution(layer, before, after) or average_pooling(layer, before, after) or batch_norm(layer)

    def _only_pooled(self, node: Node) -> bool:
        """Whether a ReLU's only user is a max pool, which may then come first: fewer elements, the same result."""
        users = list(node.users)
        if len(users) != 1 or users[0].all_input_nodes != [node]:
            return False
        return max_pool_options(users[0], self._layer(users[0])) is not None

    def _table(self, node: Node) -> Tensor:
        if node not in self._tables:
            self._tables[node] = table_of(self._clean_values[node])
        return self._tables[node]

    def _function(self, node: Node) -> Callable[[Tensor], Tensor]:
        layer = self._layer(node)  # not self, which stores the rules: a cycle would keep all activations

        def function(x: Tensor) -> Tensor:
            args, kwargs = (map_arg(part, lambda _: x) for part in (node.args, node.kwargs))
            return _call(node, layer, args, kwargs)

        return function

    def _full_work(self, step: _Step) -> float:
        clean = self._clean_values[step.node]
        if step.kind in ("image", "output", "passage") or not isinstance(clean, Tensor):
            return 0.0
        layer = self._layers.get(str(step.node.target)) if step.node.op == "call_module" else None
        if isinstance(layer, nn.Linear):
            return float(clean.numel() * layer.in_features)
        if isinstance(layer, nn.modules.conv._ConvNd):
            return float(clean.numel() * (layer.weight[0].numel() + 2))
        return float(2 * clean.numel())

    # --- the walk

    def _walk(self, position: int, env: dict[Node, Value], n: int) -> Tensor:
        """Change of the output, from step `position` on; `env` holds what later steps use."""
        for index in range(position, len(self._steps)):
            self._pulse()
            step = self._steps[index]
            if step.kind == "output":
                value = env[step.inputs[0]]
                if isinstance(value, Change) and value.size == ():
                    return value.values
                self.whole = True
                outputs = self._full(step.inputs[0], env, n)
                self._check_windows(step.inputs[0], outputs, n)
                return outputs - self.clean
            if (most := self._most(step, env, n)) < n:
                return self._piecewise(index, env, n, most)
            env[step.node] = self._advance(step, env, n)
            for source in step.expires:
                del env[source]
            value = env[step.node]
            if step.rule is not None and step.rule.sparsifies and len(env) == 1 and isinstance(value, Change):
                stays = value.size != () and self._steps[index + 1].kind == "local"
                parts = tighten(value, SMALLEST_GROUP) if stays else leave_out(value)
                return self._gather(parts, n, index, step.node)
        raise AssertionError("a graph ends with its output")

    def _gather(self, parts: list[tuple[Tensor, Change]], n: int, index: int, node: Node) -> Tensor:
        """Walk on with each part of the windows; zero for the windows in none."""
        if len(parts) == 1 and len(parts[0][0]) == n:
            return self._walk(index + 1, {node: parts[0][1]}, n)
        outputs = self.clean.new_zeros(n, *self.clean.shape[1:])
        for windows, change in parts:
            outputs[windows] = self._walk(index + 1, {node: change}, len(windows))
        return outputs

    def _needs_full(self, step: _Step, env: dict[Node, Value]) -> bool:
        """Whether the step computes whole activations."""
        values = [env[source] for source in step.inputs]
        if step.kind == "passage":
            return False
        if len(values) == 1 and isinstance(values[0], Flat):
            return type(self._layer(step.node)) is not nn.Linear
        if not all(isinstance(value, Change) for value in values):
            return True
        return step.kind == "full" or (step.kind == "local" and self._covers_most(step, values))

    def _covers_most(self, step: _Step, changes: Sequence[Change]) -> bool:
        if not isinstance(self._layer(step.node), nn.modules.conv._ConvNd):
            return False
        cells = prod(self._clean_values[step.inputs[0]].shape[2:])
        return cells > 1 and prod(changes[0].size) >= FULL_SHARE * cells

    def _most(self, step: _Step, env: dict[Node, Value], n: int) -> int:
        """Windows to take at once: all, or less where activations grow large."""
        if self._needs_full(step, env):
            vectors = all(self._is_vector(node) for node in (step.node, *step.inputs))
            return n if vectors else min(n, self._batch_size)
        layer = self._layer(step.node)
        if isinstance(layer, nn.modules.conv._ConvNd) and isinstance(change := env[step.inputs[0]], Change):
            cells = prod(own + k - 1 for own, k in zip(change.size, layer.kernel_size, strict=True))
            return min(n, max(1, LARGEST_BATCH // (cells * layer.out_channels)))
        return n

    def _is_vector(self, node: Node) -> bool:
        value = self._clean_values[node]
        return isinstance(value, Tensor) and value.ndim <= 2 and value.numel() <= LARGEST_VECTOR

    def _piecewise(self, index: int, env: dict[Node, Value], n: int, most: int) -> Tensor:
        """Walk on with at most `most` windows at once."""
        outputs = []
        for first in range(0, n, most):
            part = slice(first, min(first + most, n))
            own = {node: self._part(node, value, part, n) for node, value in env.items()}
            outputs.append(self._walk(index, own, part.stop - part.start))
        return torch.cat(outputs)

    def _part(self, node: Node, value: Value, part: slice, n: int) -> Value:
        if isinstance(value, Flat):
            return Flat(value.change[part], value.shape)
        if isinstance(value, Change):
            return value[part]
        self._check_windows(node, value, n)
        return _cut(value, part)

    def _check_windows(self, node: Node, value: Any, n: int) -> None:
        """Make sure that a full activation has the windows along its first axis, where the image was."""
        if not _is_by_window(value, self._clean_values[node], n):
            raise UnsupportedModelError(
                f"{node.name!r} of {type(self._network).__name__} does not have one image after the other along its "
                "first axis, so windows cannot be told apart in it; use algorithm='full'."
            )

    def _advance(self, step: _Step, env: dict[Node, Value], n: int) -> Value:
        if step.kind == "passage":
            return env[step.inputs[0]]
        if self._needs_full(step, env):
            return self._run_full(step, env, n)
        value = env[step.inputs[0]]
        if isinstance(value, Flat):
            return self._linear(step, value)
        if step.kind == "flatten":
            return Flat(value, tuple(self._clean_values[step.inputs[0]].shape[2:]))
        if step.kind == "mean":
            return self._mean(step, value)
        assert step.rule is not None
        result = step.rule.apply([env[source] for source in operands(step.node)])
        self.widest = max(self.widest, result.values[0].numel())
        self.work += len(result) * prod(result.size) * step.rule.work
        return result

    def _layer(self, node: Node) -> nn.Module | None:
        return self._layers[str(node.target)] if node.op == "call_module" else None

    def _operand(self, node: Node, env: dict[Node, Value], n: int) -> Any:
        """What a node stands for in full activations of `n` windows."""
        if node in env:
            return self._full(node, env, n)
        return self._shape(node, n) if node in self._shapes else self._clean_values[node]

    def _shape(self, node: Node, n: int) -> Any:
        """A size, or a number made from sizes, with as many images in the batch as there are windows."""

        def known(source: Node) -> Any:
            if source in self._shapes:
                return self._shape(source, n)
            value = self._clean_values[source]
            if isinstance(value, Tensor):
                return torch.empty((n, *value.shape[1:]), dtype=value.dtype, device="meta")
            if _holds_tensor(value):
                raise NotImplementedError("the size of several tensors")
            return value

        clean = self._clean_values[node]
        if clean is None or isinstance(clean, torch.device | torch.dtype):
            return clean
        args, kwargs = (map_arg(part, known) for part in (node.args, node.kwargs))
        return _call(node, self._layer(node), args, kwargs)

    def _run_full(self, step: _Step, env: dict[Node, Value], n: int) -> Any:
        self.work += n * self._full_work(step)
        args, kwargs = (
            map_arg(part, lambda source: self._operand(source, env, n))
            for part in (step.node.args, step.node.kwargs)
        )
        value = _call(step.node, self._layer(step.node), args, kwargs)
        if not self._shapes.isdisjoint(step.node.users):
            self._check_windows(step.node, value, n)
        return value

    def _full(self, node: Node, env: dict[Node, Value], n: int) -> Any:
        """The activation as the network would compute it; stored, so that it is made once."""
        value = env[node]
        if not isinstance(value, Change | Flat):
            return value
        clean = self._clean_values[node]
        change = value if isinstance(value, Change) else value.change
        shape = tuple(clean.shape[2:]) if isinstance(value, Change) else value.shape
        placed = reframe(change, torch.zeros_like(change.start), shape).movedim(-1, 1)
        if placed.ndim > 2:
            placed = placed.contiguous(memory_format=self._layout)
        self.work += 3 * n * clean.numel()
        env[node] = clean + (placed if isinstance(value, Change) else placed.flatten(1))
        return env[node]

    def _mean(self, step: _Step, change: Change) -> Change:
        shape = self._clean_values[step.inputs[0]].shape[2:]
        own = inside(change, shape)
        total = own.values.sum(dim=tuple(range(1, self._axes + 1))) / prod(shape)
        self.work += own.values.numel()
        axes = self._clean_values[step.node].ndim - 2  # none, or of one cell each
        return Change(total.view(len(change), *(1,) * axes, -1), change.start.new_zeros(len(change), axes))

    def _linear(self, step: _Step, flat: Flat) -> Change:
        """The weights of the changed features times their change."""
        change = inside(flat.change, flat.shape)
        layer = self._layer(step.node)
        assert isinstance(layer, nn.Linear)
        if layer not in self._weights:
            weight = layer.weight.view(layer.out_features, -1, *flat.shape)
            self._weights[layer] = weight.movedim(1, -1).contiguous()
        weight = self._weights[layer]
        if prod(flat.shape) <= 4 * prod(change.size):
            change = Change(
                reframe(change, torch.zeros_like(change.start), flat.shape), torch.zeros_like(change.start)
            )
        out = change.values.new_zeros(len(change), layer.out_features)
        starts, group = change.start.unique(dim=0, return_inverse=True)
        for key, start in enumerate(starts.tolist()):
            box = tuple(slice(first, first + n) for first, n in zip(start, change.size, strict=True))
            own = slice(None) if len(starts) == 1 else group == key
            out[own] += change.values[own].flatten(1) @ weight[(slice(None), *box)].flatten(1).T
        self.work += change.values.numel() * layer.out_features
        return Change(out, change.start.new_zeros(len(out), 0))


def layout_of(network: nn.Module, image: Tensor) -> torch.memory_format:
    """How the network's weights lie in memory, and so how it wants images."""
    layout = torch.channels_last_3d if image.ndim == 5 else torch.channels_last
    last = any(
        weight.ndim == image.ndim
        and weight.is_contiguous(memory_format=layout)
        and not weight.is_contiguous()
        for weight in network.parameters()
    )
    return layout if last else torch.contiguous_format


class _Record(Interpreter):
    """Run a graph and keep every value."""

    def __init__(self, network: GraphModule) -> None:
        super().__init__(network, garbage_collect_values=False)
        self.seen: dict[Node, Any] = {}

    def run_node(self, n: Node) -> Any:
        self.seen[n] = super().run_node(n)
        return self.seen[n]


class _Shaken(Interpreter):
    """Run a graph in which every activation moves by one unit in the last place, up or down."""

    def __init__(self, network: GraphModule, generator: torch.Generator) -> None:
        super().__init__(network)
        self._generator = generator

    def run_node(self, n: Node) -> Any:
        value = super().run_node(n)
        moves = n.op in ("placeholder", "call_module", "call_function", "call_method")
        if not moves or not isinstance(value, Tensor) or not value.is_floating_point():
            return value
        signs = torch.randint(2, value.shape, generator=self._generator).to(value) * 2 - 1
        return value * (1 + torch.finfo(value.dtype).eps * signs)


def _call(node: Node, layer: nn.Module | None, args: Any, kwargs: Any) -> Any:
    """What a node of the graph does, on other arguments."""
    if layer is not None:
        return layer(*args, **kwargs)
    if node.op == "call_method":
        return getattr(args[0], str(node.target))(*args[1:], **kwargs)
    assert callable(node.target)
    return node.target(*args, **kwargs)


def _largest(value: Any) -> float:
    if not isinstance(value, Tensor) or not value.is_floating_point() or not value.numel():
        return 0.0
    return float(value.abs().max())


def _is_by_window(value: Any, clean: Any, n: int) -> bool:
    """Whether a full activation of n windows is one of the image with the windows along the first axis."""
    if isinstance(value, Tensor):
        by_image = isinstance(clean, Tensor) and clean.ndim > 0 and len(clean) == 1
        return by_image and value.shape == (n, *clean.shape[1:])
    if isinstance(value, tuple | list):
        return all(_is_by_window(own, other, n) for own, other in zip(value, clean, strict=True))
    return value is None


def _cut(value: Any, part: slice) -> Any:
    if isinstance(value, tuple | list):
        return type(value)(_cut(own, part) for own in value)
    return None if value is None else value[part]


def _holds_tensor(value: Any) -> bool:
    return isinstance(value, Tensor) or (
        isinstance(value, tuple | list) and any(_holds_tensor(item) for item in value)
    )


def _is_flatten(node: Node, layer: nn.Module | None, before: Tensor, after: Tensor) -> bool:
    named = type(layer) is nn.Flatten or node.target in (torch.flatten, "flatten", "view", "reshape")
    return (
        len(node.all_input_nodes) == 1
        and named
        and after.shape == (1, before[0].numel())
        and len(before) == 1
    )


def _is_global_mean(node: Node, layer: nn.Module | None, axes: int) -> bool:
    if layer is not None:
        if type(layer) not in (nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d):
            return False
        return layer.output_size in (1, (1,) * axes)
    if node.target in (F.adaptive_avg_pool2d, F.adaptive_avg_pool3d):
        size = node.args[1] if len(node.args) > 1 else node.kwargs.get("output_size")
        return size in (1, (1,) * axes, [1] * axes)
    if node.target not in (torch.mean, "mean"):
        return False
    dims = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
    if (
        not isinstance(dims, list | tuple)
        or not all(type(dim) is int for dim in dims)
        or "dtype" in node.kwargs
    ):
        return False
    return sorted(dim % (axes + 2) for dim in dims) == list(range(2, axes + 2))  # type: ignore[operator]
