"""A first convolution and the max pool behind it, computed on blocks of two voxels: the same numbers, sooner.

A convolution of one channel leaves a processor's vectors nearly empty, and its backward pass more so. Blocks of two
voxels along each axis are channels here: a volume of one channel becomes one of eight, of half the size, and the values
of all cells of a pool are channels of one result, of which the pool takes the largest.
"""

import copy
import itertools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.fx import GraphModule, Node

from xaitools.models.surgery import hooked

CELLS = 2**3
"""Voxels of a block."""


def in_blocks(network: nn.Module) -> nn.Module:
    """The network with 3D convolutions of one channel that a max pool of two follows on blocks; itself if it has none.

    Outputs and gradients are the same but for rounding; other weights are shared with `network`.
    """
    if not isinstance(network, GraphModule) or hooked(network):
        return network
    pairs = [node for node in network.graph.nodes if _is_pool_of_convolution(node, network)]
    if not pairs:
        return network
    owner = copy.copy(network)
    owner._modules = dict(network._modules)
    graph = copy.deepcopy(network.graph)
    for k, old in enumerate(pairs):
        pool = next(node for node in graph.nodes if node.name == old.name)
        convolution = pool.args[0]
        name = f"blocked_{k}"
        layer = network.get_submodule(str(convolution.target))
        assert isinstance(layer, nn.Conv3d)
        owner._modules[name] = BlockedConvolution(layer)
        with graph.inserting_before(pool):
            pool.replace_all_uses_with(graph.call_module(name, convolution.args))
        graph.erase_node(pool)
        graph.erase_node(convolution)
    graph.lint()
    return GraphModule(owner, graph)


class BlockedConvolution(nn.Module):
    """A convolution and the max pool of two behind it.

    Parameters
    ----------
    convolution
        Of stride 1; its weights are copied.
    """

    weight: Tensor
    bias: Tensor | None

    def __init__(self, convolution: nn.Conv3d) -> None:
        super().__init__()
        weight = convolution.weight.detach()
        self._padding = [int(p) for p in convolution.padding]
        self._kernel = list(weight.shape[2:])
        bias = convolution.bias
        self.register_buffer("weight", _of_blocks(weight))
        self.register_buffer("bias", None if bias is None else bias.detach().repeat(CELLS))

    def forward(self, images: Tensor) -> Tensor:
        """What the pool returns (batch, channel, *spatial), channels-last."""
        values = F.conv3d(self._blocks(images), self.weight, self.bias).movedim(1, -1)
        cells = values.flatten(1, -2).unflatten(2, (CELLS, -1))
        largest: Tensor = _LargestCell.apply(cells.movedim(3, 1))  # type: ignore[no-untyped-call]
        return largest.unflatten(2, values.shape[1:-1]).squeeze(-1)

    def _blocks(self, images: Tensor) -> Tensor:
        """Voxels two by two along each axis, as channels; the first block starts in the padding."""
        borders = []
        for size, kernel, padding in zip(images.shape[2:], self._kernel, self._padding, strict=True):
            pooled = (size + 2 * padding - kernel + 1) // 2
            borders.append((padding, 2 * (pooled + kernel // 2) - padding - size))
        padded = F.pad(images, [side for border in reversed(borders) for side in border])
        return _channels_last(_two_by_two(padded))


class _LargestCell(torch.autograd.Function):
    """Max pool over the whole last axis of cells (batch, channel, block, cell) that lie channels-last.

    PyTorch's own way back is the same, but copies its result twice: an axis of one cell hides from it that the signal
    lies channels-last, too.
    """

    @staticmethod
    def forward(ctx: Any, cells: Tensor) -> Tensor:
        largest, places = torch.ops.aten.max_pool2d_with_indices(cells, [1, CELLS])
        ctx.save_for_backward(places)
        return largest

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, signal: Tensor) -> Tensor:
        (places,) = ctx.saved_tensors
        signal = signal.squeeze(-1).movedim(1, -1).contiguous().unsqueeze(2).movedim(-1, 1)
        shape = (len(signal), signal.shape[2], CELLS, signal.shape[1])
        unread, found = (signal.new_empty(shape).movedim(-1, 1) for _ in range(2))
        torch.ops.aten.max_pool2d_with_indices_backward.grad_input(
            signal, unread, [1, CELLS], [1, CELLS], [0, 0], [1, 1], False, places, grad_input=found
        )
        return found


def _of_blocks(weight: Tensor) -> Tensor:
    """A kernel (out, in, *spatial) on blocks: (cells * out, in * cells, *blocks)."""
    axes = range(2, weight.ndim)
    spans = [2 * (size // 2 + 1) for size in weight.shape[2:]]
    moved = []
    for cell in itertools.product((0, 1), repeat=len(axes)):
        one = weight.new_zeros(*weight.shape[:2], *spans)
        place = tuple(slice(a, a + weight.shape[axis]) for a, axis in zip(cell, axes, strict=True))
        one[(slice(None), slice(None), *place)] = weight
        moved.append(one)
    return _channels_last(_two_by_two(torch.cat(moved)))


def _two_by_two(images: Tensor) -> Tensor:
    """Images (n, channel, *spatial) as (n, channel * cells of a block, *blocks)."""
    n = images.ndim - 2
    for axis in range(n):
        images = images.unflatten(2 + 2 * axis, (-1, 2))
    return images.permute(0, 1, *range(3, 3 + 2 * n, 2), *range(2, 2 + 2 * n, 2)).flatten(1, 1 + n)


def _channels_last(images: Tensor) -> Tensor:
    return images.movedim(1, -1).contiguous().movedim(-1, 1)


def _is_pool_of_convolution(pool: Node, network: GraphModule) -> bool:
    if pool.op != "call_module" or len(pool.args) != 1 or pool.kwargs:
        return False
    convolution = pool.args[0]
    if not isinstance(convolution, Node) or convolution.op != "call_module" or len(convolution.users) != 1:
        return False
    if len(convolution.args) != 1 or convolution.kwargs:
        return False
    own = network.get_submodule(str(pool.target))
    return _halves(own) and _blockable(network.get_submodule(str(convolution.target)))


def _halves(pool: nn.Module) -> bool:
    """Whether it is a max pool of two by two by two cells that do not overlap."""
    if type(pool) is not nn.MaxPool3d or pool.return_indices or pool.ceil_mode:
        return False
    sizes = [(pool.kernel_size, 2), (pool.stride, 2), (pool.padding, 0), (pool.dilation, 1)]
    return all(_all(value, wanted) for value, wanted in sizes)


def _blockable(convolution: nn.Module) -> bool:
    if type(convolution) is not nn.Conv3d or isinstance(convolution.padding, str):
        return False
    return (
        convolution.in_channels == 1
        and convolution.padding_mode == "zeros"
        and _all(convolution.stride, 1)
        and _all(convolution.dilation, 1)
    )


def _all(value: Any, wanted: int) -> bool:
    return all(one == wanted for one in (value if isinstance(value, tuple) else (value,)))
