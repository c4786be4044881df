"""Changes that are zero outside one box: what a hidden patch does to a layer's output.

Activations lie channels-last here: a *table* is one image's activation ``(*spatial, channel)``, and what many
windows need of it is fetched row by row in one lookup.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Change:
    """Occluded minus clean activation of several windows, inside a box of one size that each window places.

    Attributes
    ----------
    values
        ``(window, *size, channel)``; outside the box nothing changes.
    start
        First cell of each window's box, ``(window, axis)``. A box may reach over the border of the activation
        right after a convolution; the values there mean nothing.
    """

    values: Tensor
    start: Tensor

    def __len__(self) -> int:
        return len(self.values)

    @property
    def size(self) -> tuple[int, ...]:
        return tuple(self.values.shape[1:-1])

    def __getitem__(self, windows: Tensor | slice) -> "Change":
        return Change(self.values[windows], self.start[windows])


def table_of(activation: Tensor) -> Tensor:
    """Table ``(*spatial, channel)`` of one image's activation ``(1, channel, *spatial)``."""
    return activation[0].movedim(0, -1).contiguous()


def read(table: Tensor, start: Tensor, size: Sequence[int]) -> Tensor:
    """Boxes ``(window, *size, channel)`` of a table; they have to lie inside it."""
    if tuple(size) == tuple(table.shape[:-1]):
        return table.expand(len(start), *table.shape).clone()
    index = torch.zeros((len(start), *(1 for _ in size)), dtype=torch.int32, device=start.device)
    for axis, length in enumerate(size):
        index = index * table.shape[axis] + _along(_steps(start[:, axis], length), axis, len(size))
    return F.embedding(index, table.reshape(-1, table.shape[-1]))


class Overlay:
    """A table with room behind it for changed boxes, so that one lookup reads both."""

    def __init__(self, table: Tensor, room: int) -> None:
        self.shape = table.shape[:-1]
        self._cells = prod(self.shape)
        channels = table.shape[-1]
        self._rows = table.new_empty(self._cells + room // channels, channels)
        self._rows[: self._cells] = table.reshape(-1, channels)
        self._table = self._rows[: self._cells].view(table.shape)

    def read(self, change: Change, start: Tensor, size: Sequence[int]) -> Tensor:
        """Changed activation in boxes ``(window, *size, channel)`` that begin at `start` and lie inside the table."""
        offset = change.start - start
        n = len(change) * prod(change.size)
        if n > len(self._rows) - self._cells or bool((offset == offset[0]).all()):
            return add(change, read(self._table, start, size), start)
        new = self._rows[self._cells : self._cells + n].view(change.values.shape)
        torch.add(F.embedding(self._index(change.start, change.size), self._rows), change.values, out=new)
        return F.embedding(self._index_over(change, offset, start, size), self._rows)

    def _index(self, start: Tensor, size: Sequence[int]) -> Tensor:
        """Rows of boxes; beyond the border, those of the nearest cells."""
        index = torch.zeros((len(start), *(1 for _ in size)), dtype=torch.int32, device=start.device)
        for axis, (length, whole) in enumerate(zip(size, self.shape, strict=True)):
            steps = _steps(start[:, axis], length).clamp_(0, whole - 1)
            index = index * whole + _along(steps, axis, len(size))
        return index

    def _index_over(self, change: Change, offset: Tensor, start: Tensor, size: Sequence[int]) -> Tensor:
        """Rows of boxes: those of the change where it reaches, those of the table elsewhere."""
        first = (
            torch.arange(len(change), dtype=torch.int32, device=start.device) * prod(change.size)
            + self._cells
        )
        index = torch.zeros((len(change), *(1 for _ in size)), dtype=torch.int32, device=start.device)
        covered = torch.ones_like(index, dtype=torch.bool)
        for axis, (length, own) in enumerate(zip(size, change.size, strict=True)):
            position = _steps(-offset[:, axis], length)
            index = index * own + _along(position, axis, len(size))
            covered = covered & _along((position >= 0) & (position < own), axis, len(size))
        index += first.view(-1, *(1 for _ in size))
        return torch.where(covered, index, self._index(start, size))


def add(change: Change, boxes: Tensor, start: Tensor) -> Tensor:
    """Add the change to boxes ``(window, *size, channel)`` that begin at `start`, in place; return them."""
    size = boxes.shape[1:-1]
    offset = change.start - start
    if bool((offset == offset[0]).all()):
        target, source = _overlap(offset[0].tolist(), size, change.size)
        boxes[target] += change.values[source]
        return boxes
    channels = boxes.shape[-1]
    cells = change.values[0, ..., 0].numel()
    outside = len(change) * cells
    index = torch.arange(len(change), dtype=torch.int32, device=start.device) * cells
    index = index.view(-1, *(1 for _ in size))
    stride = cells
    for axis, length in enumerate(size):
        stride //= change.size[axis]
        position = _steps(-offset[:, axis], length)
        missing = (position < 0) | (position >= change.size[axis])
        index = index + _along((position * stride).masked_fill_(missing, outside), axis, len(size))
    rows = torch.cat([change.values.reshape(-1, channels), change.values.new_zeros(1, channels)])
    return boxes.add_(F.embedding(index.clamp_(max=outside), rows))


def reframe(change: Change, start: Tensor, size: Sequence[int]) -> Tensor:
    """The change in boxes ``(window, *size, channel)`` that begin at `start`: zero where it does not reach."""
    if change.size == tuple(size) and torch.equal(change.start, start):
        return change.values
    boxes = change.values.new_zeros(len(change), *size, change.values.shape[-1])
    return add(change, boxes, start)


def inside(change: Change, shape: Sequence[int]) -> Change:
    """The same change in boxes that lie inside an activation of that spatial shape."""
    size = tuple(min(own, whole) for own, whole in zip(change.size, shape, strict=True))
    start = clamp(change.start, size, shape)
    return Change(reframe(change, start, size), start)


def clamp(start: Tensor, size: Sequence[int], shape: Sequence[int]) -> Tensor:
    """Move boxes of that size into an activation of that spatial shape."""
    room = [whole - own for own, whole in zip(size, shape, strict=True)]
    return torch.minimum(start, start.new_tensor(room)).clamp_(min=0)


def reach(
    change: Change, shape: Sequence[int], kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int]
) -> tuple[Tensor, tuple[int, ...]]:
    """Box of the outputs that a sliding kernel lets the change reach, inside an output of that spatial shape.

    Output o sees the inputs from ``o * stride - padding`` on, `kernel` of them (with a dilated kernel, its extent).
    """
    first = change.start + change.start.new_tensor(padding)
    step = change.start.new_tensor(stride)
    low = -((change.start.new_tensor(kernel) - 1 - first) // step)
    high = (first + (change.start.new_tensor(change.size) - 1)) // step
    widest = (high - low + 1).amax(0).tolist()
    size = tuple(max(1, min(own, whole)) for own, whole in zip(widest, shape, strict=True))
    return clamp(low, size, shape), size


def tighten(change: Change, smallest: int) -> list[tuple[Tensor, Change]]:
    """Crop boxes to what did change, and leave windows out in which nothing did.

    Returns
    -------
    list
        Indices of windows, and their change in a box of one size; sizes with fewer than `smallest` windows share a box.
    """
    changed = change.values.abs().amax(-1) != 0
    axes = range(1, changed.ndim)
    edges = []
    for axis in axes:
        along = changed.any(dim=[other for other in axes if other != axis]).view(torch.uint8)
        edges.append((along.argmax(1), change.size[axis - 1] - along.flip(1).argmax(1)))
    low = torch.stack([first for first, _ in edges], 1)
    length = torch.stack([last for _, last in edges], 1) - low
    alive = changed.flatten(1).any(1).nonzero()[:, 0]
    if len(alive) == 0:
        return []
    key = torch.zeros_like(length[:, 0])
    for axis, whole in enumerate(change.size):
        key = key * (whole + 1) + length[:, axis]
    keys, group, counts = key[alive].unique(return_inverse=True, return_counts=True)
    sizes = [length[(key == own).nonzero()[0, 0]] for own in keys]
    common = (counts >= smallest).nonzero()[:, 0].tolist()
    parts = [(alive[group == key], sizes[key]) for key in common]
    rest = alive[(counts < smallest)[group]]
    if len(rest):
        parts.append((rest, length[rest].amax(0)))
    tight = []
    for windows, size in parts:
        own = change if len(windows) == len(change) else change[windows]
        lengths = tuple(size.tolist())
        start = own.start + clamp(low[windows], lengths, change.size)
        tight.append((windows, Change(reframe(own, start, lengths), start)))
    return tight


def leave_out(change: Change) -> list[tuple[Tensor, Change]]:
    """Indices of the windows in which anything changes, and their change; nothing if there are none."""
    alive = (change.values.flatten(1).abs().amax(1) != 0).nonzero()[:, 0]
    if len(alive) == len(change):
        return [(alive, change)]
    return [(alive, change[alive])] if len(alive) else []


def _steps(start: Tensor, length: int) -> Tensor:
    return (start[:, None] + torch.arange(length, device=start.device)).to(torch.int32)


def _along(steps: Tensor, axis: int, axes: int) -> Tensor:
    return steps.view(len(steps), *(-1 if other == axis else 1 for other in range(axes)))


def _overlap(
    offset: Sequence[int], size: Sequence[int], change: Sequence[int]
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Slices of the boxes, and of a change that begins at `offset` in them, that cover the same cells."""
    target, source = [slice(None)], [slice(None)]
    for first, whole, own in zip(offset, size, change, strict=True):
        low, high = max(first, 0), max(min(first + own, whole), max(first, 0))
        target.append(slice(low, high))
        source.append(slice(low - first, high - first))
    return tuple(target), tuple(source)
