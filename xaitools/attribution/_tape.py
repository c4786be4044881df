"""What really runs between an image and its output, however it is spelled.

The operations are heard below autograd, where in-place and functional spellings, modules, hooks, views and fused
paths have become the few hundred operations of ATen. What depends on the image is told by memory, not by the graph,
since autograd keeps what acts in place on a view to itself, and knows nothing of masks.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

_OTHER_LAYOUT = -1
"""Stands for the memory of every sparse tensor: they have none that can be told apart."""


@dataclass(frozen=True)
class Call:
    """One operation, whose arguments that depend on the image have all got a gradient.

    Attributes
    ----------
    name
        As in ATen, "add" for ``add_`` too; with its namespace if it comes from elsewhere.
    arguments
        By their names in the schema; defaults are left out.
    dependent
        Names of those that depend on the image.
    """

    name: str
    arguments: Mapping[str, Any]
    dependent: frozenset[str]


@dataclass(frozen=True)
class Record:
    """What is kept of an operation: memory read and written, and what the judge said of it."""

    name: str
    reads: frozenset[int]
    writes: frozenset[int]
    fault: str | None


class Tape(TorchDispatchMode):
    """Records what is computed from some images, while it is the context.

    Parameters
    ----------
    images
        The images; what is computed from their memory depends on them.
    judge
        Says what is wrong with an operation, or None. Not asked where no gradient passes: there it is a fault to
        change values that have one, or to use the result together with such values.
    """

    def __init__(self, images: Tensor, judge: Callable[[Call], str | None]):
        super().__init__()
        self._judge = judge
        self._records: list[Record] = []
        self._kept: list[StorageWeakRef] = []  # so that no other memory gets the same key
        self._dependent: set[int] = set()
        self._differentiable: set[int] = set()
        self._mark(images, self._dependent, self._differentiable)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name, parameters, changed = _signature(func)
        arguments = dict(zip(parameters, args, strict=False)) | kwargs
        used = [
            (argument, tensor, key)
            for argument, value in arguments.items()
            for tensor in _tensors(value)
            if (key := _memory(tensor)) in self._dependent
        ]
        result = func(*args, **kwargs)
        if used and not _only_shaped_like(name):
            self._record(name, arguments, used, changed, result)
        return result

    def path_to(self, output: Tensor) -> list[Record]:
        """The operations that the output depends on, in their order."""
        needed, path = {_memory(output)}, []
        for record in reversed(self._records):
            if record.writes & needed:
                path.append(record)
                needed |= record.reads
        return path[::-1]

    def _record(
        self,
        name: str,
        arguments: Mapping[str, Any],
        used: list[tuple[str, Tensor, int]],
        changed: frozenset[str],
        result: Any,
    ) -> None:
        dependent = frozenset(argument for argument, tensor, _ in used if _has_gradient(tensor))
        hidden = any(not _has_gradient(tensor) or key not in self._differentiable for _, tensor, key in used)
        reads = frozenset(key for _, _, key in used)
        targets = [tensor for argument in changed for tensor in _tensors(arguments.get(argument))]
        written = {_memory(tensor): tensor for tensor in targets}
        written |= {key: tensor for tensor in _tensors(result) if (key := _memory(tensor)) not in reads}
        if not written:  # a view, or a number for Python
            return
        if not dependent:
            unseen = self._differentiable & written.keys()
            fault = f"changes activations where autograd does not see it ({name})" if unseen else None
        elif hidden:
            fault = f"uses in {name} what was computed from the image without gradient"
        else:
            fault = self._judge(Call(name, arguments, dependent))
        for tensor in written.values():
            self._mark(tensor, self._dependent, *([self._differentiable] if dependent else []))
        self._records.append(Record(name, reads, frozenset(written), fault))

    def _mark(self, tensor: Tensor, *sets: set[int]) -> None:
        key = _memory(tensor)
        if key not in self._dependent and key != _OTHER_LAYOUT:
            self._kept.append(StorageWeakRef(tensor.untyped_storage()))
        for marked in sets:
            marked.add(key)


@cache
def _signature(func: Any) -> tuple[str, tuple[str, ...], frozenset[str]]:
    """Name of an operation, of its parameters, and of those that it changes."""
    schema = func._schema
    own, _, name = schema.name.rpartition("::")
    name = name.rstrip("_") if own == "aten" else schema.name
    changed = [p.name for p in schema.arguments if p.alias_info is not None and p.alias_info.is_write]
    return name, tuple(p.name for p in schema.arguments), frozenset(changed)


def _only_shaped_like(name: str) -> bool:
    """Whether an operation looks at its argument's shape and type only, as ``zeros_like`` does."""
    return name.startswith("new_") or name.endswith("_like")


def _has_gradient(tensor: Tensor) -> bool:
    return tensor.requires_grad and torch.is_grad_enabled()


def _memory(tensor: Tensor) -> int:
    if tensor.layout != torch.strided:
        return _OTHER_LAYOUT
    return tensor.untyped_storage()._cdata


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _tensors(part)
