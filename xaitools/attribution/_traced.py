"""A network's graph in which nothing is done in place, so that every activation can be kept."""

import inspect
import operator
from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from xaitools.attribution._local_layers import is_passage
from xaitools.errors import UnsupportedModelError
from xaitools.models.surgery import trace, twin

_OPERATORS = {
    operator.iadd: operator.add,
    operator.isub: operator.sub,
    operator.imul: operator.mul,
    operator.itruediv: operator.truediv,
    operator.ifloordiv: operator.floordiv,
    operator.ipow: operator.pow,
}
_WRITING = (operator.setitem, operator.delitem, operator.iand, operator.ior, operator.ixor, operator.imod)


class Traced:
    """The graph of a network on the same weights, each operation in place replaced by the one that is not.

    Attributes
    ----------
    graph
        What runs. It does as the network does if `check` finds nothing.

    Raises
    ------
    UnsupportedModelError
        If the network cannot be traced, writes into activations otherwise, or has layers with hooks or a forward pass
        of their own, which a rule for the layer's kind would pass by.
    """

    def __init__(self, network: nn.Module) -> None:
        self._name = type(network).__name__
        self.graph = _traced(network)
        self._layers = dict(self.graph.named_modules())
        for name, module in (*network.named_modules(), *self._layers.items()):
            if _is_altered(module):
                raise UnsupportedModelError(
                    f"The layer {name or 'at the top'} of {self._name} has a hook or a forward pass of its own, which "
                    "may change activations; remove it, or use algorithm='full'."
                )
        self._in_place = [node for node in self.graph.graph.nodes if self._works_in_place(node)]
        for node in self._in_place:
            self._replace(node)
        for module in self.graph.modules():
            if getattr(module, "inplace", False):
                module.inplace = False  # type: ignore[assignment]
        self.graph.recompile()

    def check(self, values: Mapping[Node, Any]) -> None:
        """Make sure that what is changed in place is not used again; `values` are those of one run.

        Raises
        ------
        UnsupportedModelError
            If it is, itself or through a view.
        """
        position = {node: i for i, node in enumerate(self.graph.graph.nodes)}
        last_use = {
            node: max((position[user] for user in node.users), default=-1) for node in self.graph.graph.nodes
        }
        sharing: dict[int, set[Node]] = {}
        for node, value in values.items():
            for memory in _memory(value):
                sharing.setdefault(memory, set()).add(node)
        for node in self._in_place:
            if not node.all_input_nodes:
                continue
            changed = {
                other for memory in _memory(values[node.all_input_nodes[0]]) for other in sharing[memory]
            }
            if any(last_use[other] > position[node] for other in changed - {node}):
                raise UnsupportedModelError(
                    f"{self._name} changes activations in place that it uses again ({node.name}), which cannot be "
                    "followed layer by layer; write x = relu(x) in place of relu_(x), x = x + y in place of x += y, "
                    "or use algorithm='full'."
                )

    def _works_in_place(self, node: Node) -> bool:
        layer = self._layers[str(node.target)] if node.op == "call_module" else None
        if is_passage(node, layer):
            return False
        if layer is not None:
            return bool(getattr(layer, "inplace", False))
        if node.op == "call_method":
            return _ends_in_place(str(node.target))
        if node.op != "call_function":
            return False
        if node.target in _OPERATORS or node.target in _WRITING or "out" in node.kwargs:
            return True
        named = node.target.__module__ != "_operator" and _ends_in_place(getattr(node.target, "__name__", ""))
        return named or _inplace_argument(node) is not None

    def _replace(self, node: Node) -> None:
        """The operation that gives a new tensor, in place of one that changes its first argument."""
        if node.op == "call_module":
            return
        if (argument := _inplace_argument(node)) is not None:
            node.args = tuple(False if i == argument else value for i, value in enumerate(node.args))
            node.kwargs = {key: value for key, value in node.kwargs.items() if key != "inplace"}
            return
        name = str(node.target) if node.op == "call_method" else getattr(node.target, "__name__", "")
        plain: Any = None
        if node.op == "call_method":
            plain = name[:-1] if callable(getattr(Tensor, name[:-1], None)) else None
        elif node.target in _OPERATORS:
            plain = _OPERATORS[node.target]
        elif "out" not in node.kwargs and node.target not in _WRITING:
            plain = getattr(torch, name[:-1], None) or getattr(F, name[:-1], None)
        if plain is None:
            raise UnsupportedModelError(
                f"{self._name} writes into an activation ({node.name}), which cannot be followed layer by layer; use "
                "torch.where or masks in place of assignments, or algorithm='full'."
            )
        node.target = plain


def _traced(network: nn.Module) -> GraphModule:
    copied = twin(network)
    if isinstance(copied, GraphModule):
        return copied
    try:
        return trace(copied)
    except Exception as error:  # the network's own code runs here
        raise UnsupportedModelError(
            f"The layers of {type(network).__name__} cannot be traced ({error}), so changes cannot be followed through "
            "it; use algorithm='full'."
        ) from error


def _is_altered(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks) or "forward" in vars(module)


def _ends_in_place(name: str) -> bool:
    return name.endswith("_") and not name.startswith("__")


def _inplace_argument(node: Node) -> int | None:
    """Place of a functional's argument `inplace` where it is not plainly False; len(args) if it is a keyword."""
    if node.op != "call_function":
        return None
    if node.kwargs.get("inplace", False) is not False:
        return len(node.args)
    try:
        names = list(inspect.signature(node.target).parameters)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    place = names.index("inplace") if "inplace" in names else len(node.args)
    return place if place < len(node.args) and node.args[place] is not False else None


def _memory(value: Any) -> Iterator[int]:
    """The memory in which an activation lies, those of a tuple's tensors one by one."""
    if isinstance(value, Tensor):
        yield value.untyped_storage().data_ptr()
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _memory(item)
