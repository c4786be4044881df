"""How each kind of layer passes on a change that is confined to a box.

A rule takes the changes of a layer's inputs and gives that of its output. Linear layers need nothing else; the others
read the clean activations around the box.
"""

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx import Node

from xaitools.attribution._boxes import Change, Overlay, add, clamp, inside, reach, read, reframe

ELEMENTWISE_COST = 10
"""Work of one element that is read, changed and written, in multiplications and additions of a convolution."""


@dataclass(frozen=True, eq=False)
class Rule:
    """What to do with a change, and the work in multiplications and additions for each cell of the result.

    Attributes
    ----------
    sparsifies
        Whether changes can end here, as those below zero do at a ReLU and those below the maximum in a pool.
    """

    apply: Callable[[Sequence[Change]], Change]
    work: float
    sparsifies: bool = False


ACTIVATIONS = (
    nn.ReLU,
    nn.ReLU6,
    nn.LeakyReLU,
    nn.ELU,
    nn.SELU,
    nn.CELU,
    nn.GELU,
    nn.SiLU,
    nn.Mish,
    nn.Softplus,
    nn.Sigmoid,
    nn.Tanh,
    nn.Hardtanh,
    nn.Hardswish,
    nn.Hardsigmoid,
)
FUNCTIONS = (
    *(torch.relu, torch.sigmoid, torch.tanh, torch.abs, torch.exp, torch.clamp, torch.square, torch.neg),
    *(F.relu, F.relu6, F.leaky_relu, F.elu, F.selu, F.celu, F.gelu, F.silu, F.mish, F.softplus, F.sigmoid),
    *(F.tanh, F.hardtanh, F.hardswish, F.hardsigmoid),
    *(operator.add, operator.sub, operator.mul, operator.truediv, operator.neg, operator.pow),
    *(torch.add, torch.sub, torch.mul, torch.div, torch.pow),
)
METHODS = (
    "relu",
    "sigmoid",
    "tanh",
    "abs",
    "exp",
    "clamp",
    "square",
    "neg",
    "add",
    "sub",
    "mul",
    "div",
    "pow",
)
RELUS = (nn.ReLU, torch.relu, F.relu, "relu")
DROPOUTS = (nn.Dropout, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)


def is_passage(node: Node, layer: nn.Module | None) -> bool:
    """Whether the node hands on what it gets: dropout in evaluation, identity."""
    if layer is not None:
        return type(layer) in (nn.Identity, *DROPOUTS) and not (type(layer) in DROPOUTS and layer.training)
    if node.target in (F.dropout, F.dropout2d, F.dropout3d):
        return (node.args[2] if len(node.args) > 2 else node.kwargs.get("training", True)) is False
    return node.op == "call_method" and node.target == "contiguous"


def is_relu(node: Node, layer: nn.Module | None) -> bool:
    return type(layer) is nn.ReLU or (node.op != "call_module" and node.target in RELUS)


def is_elementwise(node: Node, layer: nn.Module | None) -> bool:
    """Whether each output element depends on the same element of the one input that is an activation."""
    if layer is not None:
        return type(layer) in ACTIVATIONS
    known = node.target in (METHODS if node.op == "call_method" else FUNCTIONS)
    return known and _only_numbers(node)


def is_sum(node: Node) -> bool:
    if node.target not in (operator.add, torch.add, "add"):
        return False
    return len(node.args) == 2 and all(isinstance(arg, Node) for arg in node.args) and not node.kwargs


def is_concatenation(node: Node) -> bool:
    """Whether channels are put one after the other."""
    if node.target not in (torch.cat, torch.concat, torch.concatenate) or not node.kwargs.keys() <= {
        "tensors",
        "dim",
    }:
        return False
    dim = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", 0)
    return type(dim) is int and dim == 1 and bool(operands(node))


def operands(node: Node) -> list[Node]:
    """The nodes that a local rule combines, in order and as often as they are named; none if unclear."""
    if node.target in (torch.cat, torch.concat, torch.concatenate):
        given = node.args[0] if node.args else node.kwargs["tensors"]
        clear = isinstance(given, list | tuple) and all(isinstance(arg, Node) for arg in given)
        return list(given) if clear else []  # type: ignore[arg-type]
    if is_sum(node):
        return list(node.args)  # type: ignore[arg-type]
    return node.all_input_nodes[:1]


def max_pool_options(node: Node, layer: nn.Module | None) -> dict[str, Any] | None:
    """Options of a max pool, or None for what is none, or has options that are not constant or not understood."""
    names = ("kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")
    if type(layer) in (nn.MaxPool2d, nn.MaxPool3d):
        options = {name: getattr(layer, name) for name in names}
    elif layer is None and node.target in (F.max_pool2d, F.max_pool3d):
        given = dict(zip(("input", *names), node.args, strict=False)) | node.kwargs
        options = {name: value for name, value in given.items() if name != "input"}
        if not options.keys() <= set(names) or not isinstance(given.get("input"), Node):
            return None
    else:
        return None
    constant = all(_is_constant(value) for value in options.values())
    understood = not options.get("return_indices") and _is_one(options.get("dilation", 1))
    return options if constant and understood else None


def _is_constant(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(type(item) is int for item in value)
    return value is None or type(value) in (int, bool)


def _is_one(value: Any) -> bool:
    return set(value if isinstance(value, list | tuple) else [value]) == {1}


def _only_numbers(node: Node) -> bool:
    values = [*node.args, *node.kwargs.values()]
    others = [value for value in values if not isinstance(value, Node)]
    known = all(isinstance(value, int | float | bool | str) or value is None for value in others)
    return known and len(values) - len(others) == 1


def convolution(layer: nn.Module, before: Sequence[int], after: Sequence[int]) -> Rule | None:
    """A convolution with zero padding, from one spatial shape to another."""
    if type(layer) not in (nn.Conv2d, nn.Conv3d) or layer.padding_mode != "zeros":  # type: ignore[comparison-overlap]
        return None
    assert isinstance(layer, nn.Conv2d | nn.Conv3d)
    convolve: Any = F.conv2d if isinstance(layer, nn.Conv2d) else F.conv3d
    weight = layer.weight
    extent = [(k - 1) * d + 1 for k, d in zip(layer.kernel_size, layer.dilation, strict=True)]
    padding = _padding(layer, extent)
    plain = {"dilation": layer.dilation, "groups": layer.groups}
    steady = all(step == 1 for step in layer.stride)
    margin = [k - 1 for k in extent]
    backwards = torch.tensor([p - m for p, m in zip(padding, margin, strict=True)], device=weight.device)
    kernel = _BoxKernel(weight) if layer.groups == 1 and set(layer.dilation) == {1} else None

    def apply(changes: Sequence[Change]) -> Change:
        change = changes[0]
        grown = [own + m for own, m in zip(change.size, margin, strict=True)]
        if steady and all(own <= whole for own, whole in zip(grown, after, strict=True)):
            start = change.start + backwards
            if kernel is not None and kernel.pays(change.size):
                return Change(kernel(change.values), start)
            values = convolve(change.values.movedim(-1, 1), weight, padding=margin, **plain)
        else:
            start, size = reach(change, after, extent, layer.stride, padding)
            first = start * start.new_tensor(layer.stride) - start.new_tensor(padding)
            frame = [(n - 1) * s + k for n, s, k in zip(size, layer.stride, extent, strict=True)]
            values = reframe(change, first, frame).movedim(-1, 1)
            values = convolve(values, weight, stride=layer.stride, **plain)
        return Change(values.movedim(1, -1).contiguous(), start)

    def tidy(changes: Sequence[Change]) -> Change:
        return apply([inside(changes[0], before)])

    return Rule(tidy, weight[0].numel() * weight.shape[0] + ELEMENTWISE_COST)


class _BoxKernel:
    """A convolution of small boxes as one matrix product; a library's has a cost for each call of tiny boxes."""

    LARGEST = 2**18

    def __init__(self, weight: Tensor) -> None:
        self.weight = weight
        self.matrices: dict[tuple[int, ...], Tensor] = {}

    def pays(self, size: tuple[int, ...]) -> bool:
        """Measured: up to 2 cells along each axis, and few channels."""
        kernel = self.weight.shape[2:]
        cells = prod(size)
        outputs = prod(n + k - 1 for n, k in zip(size, kernel, strict=True))
        numbers = cells * outputs * self.weight.shape[0] * self.weight.shape[1]
        useful = cells * prod(kernel) * self.weight.shape[0] * self.weight.shape[1]
        return numbers <= min(4 * useful, self.LARGEST)

    def __call__(self, values: Tensor) -> Tensor:
        size = tuple(values.shape[1:-1])
        if size not in self.matrices:
            self.matrices[size] = self._matrix(size)
        grown = [n + k - 1 for n, k in zip(size, self.weight.shape[2:], strict=True)]
        return (values.flatten(1) @ self.matrices[size]).view(len(values), *grown, -1)

    def _matrix(self, size: tuple[int, ...]) -> Tensor:
        """Response to a one in each cell and channel of the box."""
        inputs = prod(size) * self.weight.shape[1]
        ones = torch.eye(inputs, dtype=self.weight.dtype, device=self.weight.device)
        ones = ones.view(inputs, *size, -1).movedim(-1, 1)
        convolve: Any = F.conv2d if len(size) == 2 else F.conv3d
        margin = [k - 1 for k in self.weight.shape[2:]]
        return convolve(ones, self.weight, padding=margin).movedim(1, -1).flatten(1)


def max_pooling(options: dict[str, Any], before: Tensor, after: Tensor, relu: bool, room: int) -> Rule:
    """Max pooling by `max_pool_options` of `before`, followed by a ReLU if `relu`; `after` is the clean result of both.

    Changes of up to `room` elements are read most quickly.
    """
    axes = before.ndim - 1
    kernel = _per_axis(options["kernel_size"], axes)
    stride = _per_axis(options.get("stride") or kernel, axes)
    padding = _per_axis(options.get("padding", 0), axes)
    shape = after.shape[:-1]
    needed = [(n - 1) * s + k for n, s, k in zip(shape, stride, kernel, strict=True)]
    pads = [0, 0]
    for own, p, whole in reversed(list(zip(before.shape[:-1], padding, needed, strict=True))):
        pads += [p, max(0, whole - p - own)]
    framed = Overlay(F.pad(before, pads, value=-torch.inf), room)
    in_frame = torch.tensor(padding, device=before.device)

    def apply(changes: Sequence[Change]) -> Change:
        change = changes[0]
        start, size = reach(change, shape, kernel, stride, padding)
        first = start * start.new_tensor(stride)
        frame = [(n - 1) * s + k for n, s, k in zip(size, stride, kernel, strict=True)]
        boxes = framed.read(Change(change.values, change.start + in_frame), first, frame)
        pooled = _running_maximum(boxes, size, kernel, stride)
        if relu:
            pooled.clamp_(min=0)
        return Change(pooled.sub_(read(after, start, size)), start)

    return Rule(apply, (prod(stride) + 1) * ELEMENTWISE_COST * after.shape[-1], sparsifies=True)


def _running_maximum(
    boxes: Tensor, size: Sequence[int], kernel: Sequence[int], stride: Sequence[int]
) -> Tensor:
    """Maximum of the cells that each of `size` outputs sees, one axis after the other."""
    for axis, (n, k, s) in enumerate(zip(size, kernel, stride, strict=True), start=1):
        seen = [boxes[(slice(None),) * axis + (slice(t, t + (n - 1) * s + 1, s),)] for t in range(k)]
        largest = torch.maximum(seen[0], seen[1]) if k > 1 else seen[0].clone()
        for others in seen[2:]:
            torch.maximum(largest, others, out=largest)
        boxes = largest
    return boxes


def average_pooling(layer: nn.Module, before: Sequence[int], after: Sequence[int]) -> Rule | None:
    """Average pooling whose every mean counts the same number of cells."""
    if type(layer) not in (nn.AvgPool2d, nn.AvgPool3d):
        return None
    assert isinstance(layer, nn.AvgPool2d | nn.AvgPool3d)
    if layer.ceil_mode:
        return None
    axes = len(before)
    kernel, stride = _per_axis(layer.kernel_size, axes), _per_axis(layer.stride, axes)
    padding = _per_axis(layer.padding, axes)
    if any(padding) and not layer.count_include_pad:
        return None
    pool: Any = F.avg_pool2d if axes == 2 else F.avg_pool3d

    def apply(changes: Sequence[Change]) -> Change:
        change = inside(changes[0], before)
        start, size = reach(change, after, kernel, stride, padding)
        first = start * start.new_tensor(stride) - start.new_tensor(padding)
        frame = [(n - 1) * s + k for n, s, k in zip(size, stride, kernel, strict=True)]
        values = pool(
            reframe(change, first, frame).movedim(-1, 1),
            kernel,
            stride,
            divisor_override=layer.divisor_override,
        )
        return Change(values.movedim(1, -1).contiguous(), start)

    return Rule(apply, prod(kernel) * ELEMENTWISE_COST)


def elementwise(function: Callable[[Tensor], Tensor], before: Tensor) -> Rule:
    """A function of each element on its own."""

    def apply(changes: Sequence[Change]) -> Change:
        change = inside(changes[0], before.shape[:-1])
        clean = read(before, change.start, change.size)
        return Change(function(clean + change.values) - function(clean), change.start)

    return Rule(apply, 2 * ELEMENTWISE_COST * before.shape[-1], sparsifies=True)


def batch_norm(layer: nn.Module) -> Rule | None:
    """Batch normalisation by stored statistics: a factor for each channel."""
    if type(layer) not in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d) or layer.training:
        return None
    assert isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d)
    if layer.running_var is None:
        return None
    factor = (layer.running_var + layer.eps).rsqrt()
    if layer.weight is not None:
        factor = factor * layer.weight

    def apply(changes: Sequence[Change]) -> Change:
        return Change(changes[0].values * factor, changes[0].start)

    return Rule(apply, ELEMENTWISE_COST * layer.num_features)


def linear(layer: nn.Module) -> Rule | None:
    """A linear layer of vectors, which are activations without spatial axes."""
    if type(layer) is not nn.Linear:
        return None
    weight = layer.weight

    def apply(changes: Sequence[Change]) -> Change:
        return Change(changes[0].values @ weight.T, changes[0].start)

    return Rule(apply, weight.numel())


def addition(shape: Sequence[int]) -> Rule:
    """The sum of two activations of one spatial shape."""

    def apply(changes: Sequence[Change]) -> Change:
        first, second = (inside(change, shape) for change in changes)
        start, size = _union([first, second], shape)
        return Change(add(second, reframe(first, start, size).clone(), start), start)

    return Rule(apply, 2 * ELEMENTWISE_COST)


def concatenation(shape: Sequence[int]) -> Rule:
    """Activations of one spatial shape with their channels one after the other."""

    def apply(changes: Sequence[Change]) -> Change:
        changes = [inside(change, shape) for change in changes]
        start, size = _union(changes, shape)
        return Change(torch.cat([reframe(change, start, size) for change in changes], -1), start)

    return Rule(apply, 2 * ELEMENTWISE_COST)


def _union(changes: Sequence[Change], shape: Sequence[int]) -> tuple[Tensor, tuple[int, ...]]:
    """Boxes of one size that hold those of all changes."""
    low = torch.stack([change.start for change in changes]).amin(0)
    high = torch.stack([change.start + change.start.new_tensor(change.size) for change in changes]).amax(0)
    size = tuple((high - low).amax(0).tolist())
    return clamp(low, size, shape), size


def _per_axis(value: Any, axes: int) -> tuple[int, ...]:
    values = (value,) if isinstance(value, int) else tuple(value)
    return values * axes if len(values) == 1 else values


def _padding(layer: nn.Conv2d | nn.Conv3d, extent: Sequence[int]) -> tuple[int, ...]:
    """Cells of zero padding before the activation along each axis."""
    if layer.padding == "valid":
        return (0,) * len(extent)
    if layer.padding == "same":
        return tuple((k - 1) // 2 for k in extent)
    return tuple(int(p) for p in layer.padding)
