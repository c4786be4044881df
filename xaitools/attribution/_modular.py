"""A network whose activations and pools are modules, each its own and used once, as hooks on modules need."""

import operator
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.fx import GraphModule, Node

from xaitools.errors import UnsupportedModelError
from xaitools.models.network import Network
from xaitools.models.surgery import outputs_of, same_outputs, twin


def _relu(inplace: bool = False) -> nn.Module:
    return nn.ReLU()


def _clamp(min: float | None = None, max: float | None = None) -> nn.Module | None:
    return nn.ReLU() if min == 0 and max is None else None


def _leaky_relu(negative_slope: float = 0.01, inplace: bool = False) -> nn.Module:
    return nn.LeakyReLU(negative_slope)


def _elu(alpha: float = 1.0, inplace: bool = False) -> nn.Module:
    return nn.ELU(alpha)


def _softmax(dim: int | None = None, _stacklevel: int = 3, dtype: Any = None) -> nn.Module | None:
    return None if dim is None or dtype is not None else nn.Softmax(dim)


def _pool(kind: type[nn.Module]) -> Callable[..., nn.Module | None]:
    def make(
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        ceil_mode: bool = False,
        return_indices: bool = False,
    ) -> nn.Module | None:
        return None if return_indices else kind(kernel_size, stride, padding, dilation, ceil_mode=ceil_mode)

    return make


FUNCTIONS: dict[Any, Callable[..., nn.Module | None]] = {
    **dict.fromkeys([F.relu, F.relu_, torch.relu, torch.relu_, "relu", "relu_"], _relu),
    **dict.fromkeys([torch.clamp, torch.clamp_, "clamp", "clamp_", torch.clamp_min, "clamp_min"], _clamp),
    **dict.fromkeys([F.leaky_relu, F.leaky_relu_], _leaky_relu),
    **dict.fromkeys([F.elu, F.elu_], _elu),
    **dict.fromkeys([torch.sigmoid, F.sigmoid, "sigmoid", "sigmoid_"], nn.Sigmoid),
    **dict.fromkeys([torch.tanh, F.tanh, "tanh", "tanh_"], nn.Tanh),
    F.softplus: nn.Softplus,
    **dict.fromkeys([F.softmax, torch.softmax, "softmax"], _softmax),
    F.max_pool1d: _pool(nn.MaxPool1d),
    F.max_pool2d: _pool(nn.MaxPool2d),
    F.max_pool3d: _pool(nn.MaxPool3d),
}
"""The module that does what a function, or a method of a tensor, does; or None."""

MODULES = (
    nn.ReLU,
    nn.LeakyReLU,
    nn.ELU,
    nn.Sigmoid,
    nn.Tanh,
    nn.Softplus,
    nn.Softmax,
    nn.MaxPool1d,
    nn.MaxPool2d,
    nn.MaxPool3d,
)


def modular(network: Network) -> GraphModule:
    """The folded network, each activation and max pool in it a module that is called once and not in place.

    Functions that have no module stay as they are.

    Raises
    ------
    UnsupportedModelError
        If torch.fx cannot trace the network, or it is another function then.
    """
    made = twin(network.graph)
    assert isinstance(made, GraphModule)
    for number, node in enumerate(list(made.graph.nodes)):
        module = _module_of(node, made)
        if module is not None:
            _put(made, node, f"xaitools_activation_{number}", module)
    made.graph.lint()
    made.recompile()
    company = torch.cat([network.example, 0.5 * network.example.flip(-1)])
    for images in (network.example, company):
        if not same_outputs(outputs_of(made, images.clone()), outputs_of(network.plain, images.clone())):
            raise UnsupportedModelError(
                f"The activations of {network.name} cannot be taken out of its forward pass: its outputs would differ. "
                "Write them as modules of their own, each called once."
            )
    return made


def _module_of(node: Node, graph: GraphModule) -> nn.Module | None:
    """A new module that does what the node does to its one tensor, if there is one."""
    if node.op == "call_module":
        own = graph.get_submodule(str(node.target))
        if type(own) not in MODULES:
            return None
        new = twin(own)
        if hasattr(new, "inplace"):
            setattr(new, "inplace", False)  # noqa: B010
        return new
    if node.op not in ("call_function", "call_method") or node.target not in FUNCTIONS:
        return None
    values = {key: value for key, value in node.kwargs.items() if key != "input"}
    settings = [*node.args[1 if node.args else 0 :], *values.values()]
    if len(node.all_input_nodes) != 1 or any(isinstance(value, Node) for value in settings):
        return None
    try:
        return FUNCTIONS[node.target](*node.args[1:], **values)
    except TypeError:
        return None


def _put(graph: GraphModule, node: Node, name: str, module: nn.Module) -> None:
    """Let the module take the node's place; who used its input after an operation in place uses the result.

    A copy follows: captum's hooks on a module's output and on the next one's input would meet on one tensor, and the
    first would miss what the second puts there.
    """
    (source,) = node.all_input_nodes
    graph.add_submodule(name, module)
    with graph.graph.inserting_before(node):
        new = graph.graph.call_method("clone", (graph.graph.call_module(name, (source,)),))
    if _in_place(node, graph):
        source.replace_all_uses_with(new, delete_user_cb=lambda user: node < user)
    node.replace_all_uses_with(new)
    graph.graph.erase_node(node)


def _in_place(node: Node, graph: GraphModule) -> bool:
    if node.op == "call_module":
        return bool(getattr(graph.get_submodule(str(node.target)), "inplace", False))
    name = str(node.target) if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    return name.endswith("_") or node.kwargs.get("inplace") is True


def chain(network: Network) -> bool:
    """Whether each layer of the network gets what the one before it gives, and none is used twice."""
    layers = [node for node in network.graph.graph.nodes if not _about_shapes(node)]
    targets = [node.target for node in layers if node.op == "call_module"]
    return len(set(targets)) == len(targets) and all(
        len(_layers_of(node.all_input_nodes)) <= 1
        and len(_layers_of(node.users)) <= 1
        and (node.op in ("placeholder", "call_module", "output") or node.target in _RESHAPING)
        for node in layers
    )


_RESHAPING = (torch.flatten, "flatten", "view", "reshape", "clone", "contiguous", "squeeze", torch.squeeze)


def _layers_of(nodes: Any) -> list[Node]:
    return [node for node in nodes if not _about_shapes(node)]


def _about_shapes(node: Node) -> bool:
    """Whether a node is about the shape of a tensor, such as ``x.size(0)`` or ``x.shape[0]``."""
    if node.op == "call_method":
        return node.target in ("size", "dim", "numel")
    if node.op == "call_function" and node.target is getattr:
        return bool(node.args[1] == "shape")
    return (
        node.op == "call_function"
        and node.target is operator.getitem
        and all(map(_about_shapes, node.all_input_nodes))
    )
