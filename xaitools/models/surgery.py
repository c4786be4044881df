"""Make a copy of a trained network that is quick and safe to explain; the original is left untouched."""

import copy
import logging
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from threading import RLock, get_ident
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Graph, GraphModule, Node, Tracer
from torch.fx.experimental.optimization import fuse
from torch.fx.proxy import TraceError
from torch.nn.modules.conv import _ConvNd
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize, remove_spectral_norm, remove_weight_norm
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from xaitools.errors import UnsupportedModelError

logger = logging.getLogger(__name__)

PRECISIONS = {"float32": torch.float32, "bf16": torch.bfloat16}

HALVES = (torch.float16, torch.bfloat16)

EXACT_SHARE = 0.45
"""Share of the convolutions, from the input on, that stay in float32 under "bf16": rounding matters most there."""


class _InPrecision(nn.Module):
    """Run a network, or what follows its float32 part, in another floating point format; the output is float32."""

    def __init__(self, first: nn.Module, rest: nn.Module, dtype: torch.dtype):
        super().__init__()
        self.first = first
        self.rest = rest.to(dtype)
        self.dtype = dtype

    def forward(self, images: Tensor) -> Tensor:
        return self.rest(self.first(images).to(self.dtype)).float()


def _halves(network: nn.Module) -> tuple[nn.Module, nn.Module]:
    """Cut a traced network where one tensor carries everything, after `EXACT_SHARE` of its convolutions."""
    if not isinstance(network, GraphModule):
        return nn.Identity(), network
    nodes = list(network.graph.nodes)
    position = {node: i for i, node in enumerate(nodes)}
    last_use = {node: max((position[user] for user in node.users), default=-1) for node in nodes}
    convolutions = [position[node] for node in nodes if _is_convolution(network, node)]
    if not convolutions:
        return nn.Identity(), network
    wanted = convolutions[int(EXACT_SHARE * (len(convolutions) - 1))]
    for i in range(wanted + 1, len(nodes) - 1):
        if [node for node in nodes[: i + 1] if last_use[node] > i] == [nodes[i]]:
            return _part(network, nodes, 0, i + 1), _part(network, nodes, i + 1, len(nodes))
    return nn.Identity(), network


def _is_convolution(network: GraphModule, node: Node) -> bool:
    return node.op == "call_module" and isinstance(network.get_submodule(str(node.target)), _ConvNd)


def _part(network: GraphModule, nodes: list[Node], start: int, stop: int) -> GraphModule:
    """The nodes from `start` to `stop` as a network of their own, from one tensor to one tensor."""
    graph = Graph()
    copies: dict[Node, Node] = {}
    if start:
        copies[nodes[start - 1]] = graph.placeholder("features")
    for node in nodes[start:stop]:
        copies[node] = graph.node_copy(node, lambda old: copies[old])
    if stop < len(nodes):
        graph.output(copies[nodes[stop - 1]])
    return without_owner(GraphModule(network, graph))


def unwrapped(model: Any) -> nn.Module:
    """The user's own network inside torch.compile, DataParallel and DistributedDataParallel.

    Raises
    ------
    UnsupportedModelError
        If it is not a module.
    """
    while True:
        if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            model = model.module
        elif isinstance(inner := getattr(model, "_orig_mod", None), nn.Module):
            model = inner
        elif isinstance(model, nn.Module):
            return model
        else:
            raise UnsupportedModelError(
                f"model is {_named(model)}; expected a torch.nn.Module, which can be copied with its weights and set "
                "to evaluation mode: give the network itself, or a module whose forward does what the function does."
            )


def _named(model: Any) -> str:
    name = getattr(model, "__name__", "")
    return f"{name}, a {type(model).__name__}" if name else f"of type {type(model).__name__}"


def frozen_copy(model: nn.Module, shared: Iterable[Tensor] = ()) -> nn.Module:
    """Copy of `model` in evaluation mode whose parameters ask for no gradient.

    Weights that are made of others at every pass (weight norm, spectral norm) are stored as they are in evaluation.
    Tensors that are `shared` belong to both.

    Raises
    ------
    UnsupportedModelError
        If the model has no weights yet, or cannot be copied.
    """
    _check_weights(model)
    try:
        copied = copy.deepcopy(model, _recorded(model) | {id(tensor): tensor for tensor in shared})
    except (RuntimeError, TypeError) as error:
        raise UnsupportedModelError(
            f"The network {type(model).__name__} cannot be copied ({error}); explanations work on a copy so that "
            "the original stays as it is. Take out of it what is no weight, or rebuild it from its weights."
        ) from error
    copied.eval()
    for parameter in copied.parameters():
        if not parameter.is_leaf:  # as in a copied script
            parameter.detach_()
        parameter.requires_grad_(False)
    _store_computed_weights(copied)
    return _like(model, copied)


def weights_of(model: nn.Module) -> Iterator[Tensor]:
    """Parameters and buffers of real numbers."""
    return (tensor for tensor in chain(model.parameters(), model.buffers()) if tensor.is_floating_point())


def _check_weights(model: nn.Module) -> None:
    for name, tensor in chain(model.named_parameters(), model.named_buffers()):
        if is_lazy(tensor) or tensor.is_meta:
            raise UnsupportedModelError(
                f"The weights {name!r} of {type(model).__name__} hold no numbers yet; expected a trained network: load "
                "its weights, after it has seen an image if its layers are lazy."
            )


def _recorded(model: nn.Module) -> dict[int, Any]:
    """What stands for tensors with a history, which modules may have stored and which cannot be copied."""
    stored = [value for module in model.modules() for value in vars(module).values()]
    return {id(value): value.detach().clone() for value in _tensors(stored) if not value.is_leaf}


def _tensors(value: Any) -> Iterator[Tensor]:
    """The tensors in containers."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        yield from _tensors(list(value.values()))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)


def _store_computed_weights(model: nn.Module) -> None:
    """Store weights that parametrizations and their forerunners compute, as they are in evaluation."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore", FutureWarning)  # of the forerunners
        for module in model.modules():
            if parametrize.is_parametrized(module):
                _store_parametrized(module)
            for hook in list(module._forward_pre_hooks.values()):
                if isinstance(hook, WeightNorm):
                    remove_weight_norm(module, hook.name)
                elif isinstance(hook, SpectralNorm):
                    remove_spectral_norm(module, hook.name)


def _store_parametrized(module: nn.Module) -> None:
    """As `parametrize.remove_parametrizations`, which changes the class that the copy has in common with the model."""
    stored = {name: getattr(module, name) for name in module.parametrizations}  # type: ignore[union-attr]
    plain = parametrize.type_before_parametrizations(module)
    del module.parametrizations
    module.__class__ = plain
    for name, value in stored.items():
        module.register_parameter(name, nn.Parameter(value.detach().clone(), requires_grad=False))


def without_observers(model: nn.Module, images: Tensor, expected: Any) -> None:
    """Take forward hooks off that only look on, such as those that store activations in a list of the user's."""
    hooks = [
        own for module in model.modules() for own in (module._forward_hooks, module._forward_pre_hooks) if own
    ]
    if not hooks:
        return
    kept = [own.copy() for own in hooks]
    for own in hooks:
        own.clear()
    try:
        with torch.no_grad():
            same = _equal(model(images), expected)
    except Exception:  # it may need what a hook does
        same = False
    if not same:
        for own, old in zip(hooks, kept, strict=True):
            own.update(old)


def hooked(model: nn.Module) -> bool:
    """Whether a module in it has a forward hook."""
    return any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def _equal(one: Any, other: Any) -> bool:
    pairs = zip(_tensors(one), _tensors(other), strict=False)
    return all(a.shape == b.shape and torch.equal(a, b) for a, b in pairs)


def twin(model: nn.Module) -> nn.Module:
    """Copy of the modules of a frozen model that shares its weights."""
    tensors = [*model.parameters(), *model.buffers()]
    shared = {
        id(tensor): nn.Parameter(tensor.detach(), requires_grad=False)
        if isinstance(tensor, nn.Parameter)
        else tensor.detach()
        for tensor in tensors
    }
    return _like(model, copy.deepcopy(model, shared))


def channels_last(model: nn.Module) -> nn.Module:
    """The model, weights of its convolutions laid out channels-last in memory."""
    return _laid_out(model, {4: torch.channels_last, 5: torch.channels_last_3d})


def channel_first(model: nn.Module) -> nn.Module:
    """The model, weights of its convolutions laid out as they come."""
    return _laid_out(model, {4: torch.contiguous_format, 5: torch.contiguous_format})


def _laid_out(model: nn.Module, layouts: Mapping[int, torch.memory_format]) -> nn.Module:
    for module in model.modules():
        if isinstance(module, _ConvNd) and module.weight.ndim in layouts:
            own = module.weight.data
            # of one channel both layouts are alike to `contiguous`, but not to a convolution, which goes by the strides
            module.weight.data = torch.empty_like(own, memory_format=layouts[own.ndim]).copy_(own)
    return model


def in_precision(network: nn.Module, precision: str) -> nn.Module:
    """The network with its deeper layers in a precision of `PRECISIONS`; the others share their weights."""
    first, rest = _halves(network)
    return _InPrecision(first, twin(rest), PRECISIONS[precision])


class _Halves(TorchDispatchMode):
    """Notices half precision in what runs inside it."""

    def __init__(self) -> None:
        super().__init__()
        self.found = False

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        self.found = self.found or (isinstance(result, Tensor) and result.dtype in HALVES)
        return result


def computes_in_halves(model: nn.Module, images: Tensor) -> bool:
    """Whether a pass of the model computes something in half precision, as under autocast."""
    with _Halves() as halves, torch.no_grad():
        model(images.clone())
    return halves.found


# While torch.fx traces, calling a module means recording it, for the whole process.
_TRACING = RLock()


class _OneInput(Tracer):
    """Leaves what a forward pass takes besides the images at its defaults, and what other threads call as it is."""

    def __init__(self) -> None:
        super().__init__()
        self._thread = get_ident()

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        if get_ident() != self._thread:
            return forward(*args, **kwargs)
        return super().call_module(m, forward, args, kwargs)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: Any) -> Any:
        if get_ident() != self._thread:
            return attr_val
        return super().getattr(attr, attr_val, parameter_proxy_cache)

    def release(self) -> None:
        """Let go of the network, but not of what a thread needs that is still inside a call."""
        for name in vars(self).keys() - {"_thread", "_autowrap_function_ids"}:
            delattr(self, name)

    def create_args_for_root(self, root_fn: Any, is_module: bool, concrete_args: Any = None) -> Any:
        def forward(module: Any, images: Any) -> Any:
            return root_fn(module, images)

        return super().create_args_for_root(forward, is_module)


def trace(model: nn.Module) -> GraphModule:
    """The torch.fx graph of `model`, on the same weights, of images alone.

    As `torch.fx.symbolic_trace`, but without the reference cycles in which that keeps the weights: what is no longer
    used is freed at once, not when Python next looks for cycles. Other threads may run, or trace, networks meanwhile.
    """
    if model._forward_hooks or model._forward_pre_hooks:
        raise TraceError("it has forward hooks of its own")
    tracer = _OneInput()
    with _TRACING:
        graph = tracer.trace(model)
    tracer.release()
    return without_owner(GraphModule(model, graph, type(model).__name__))


def autograd_nodes(root: Any) -> Iterator[Any]:
    """All nodes of a recorded autograd graph, from the node of its end on."""
    seen, waiting = {root}, [root]
    while waiting:
        node = waiting.pop()
        yield node
        for following, _ in node.next_functions:
            if following is not None and following not in seen:
                seen.add(following)
                waiting.append(following)


def refuse_own_gradients(model: nn.Module, example: Tensor) -> None:
    """Raise TraceError if a `torch.autograd.Function` is on the way from the example to the outputs.

    torch.fx traces what such a function computes, and loses the gradient that it defines.
    """
    if (name := _own_gradients(model, example)) is not None:
        raise TraceError(f"{name} has a gradient of its own")


class SwitchedGradients(TorchFunctionMode):
    """Notices that what runs inside it switches gradients off or on, which torch.fx does not see."""

    noticed = False

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.noticed = self.noticed or function is torch._C._set_grad_enabled
        result = function(*args, **(kwargs or {}))
        self.noticed = self.noticed or (isinstance(result, Tensor) and result.is_inference())
        return result


def _own_gradients(model: nn.Module, example: Tensor) -> str | None:
    """Name of a `torch.autograd.Function` on the way from the example to the outputs."""
    if not _others_functions(torch.autograd.Function):
        return None
    with torch.enable_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of values taken out of the graph
        outputs = model(example.detach().clone().requires_grad_().clone())
    for node in autograd_nodes(outputs.grad_fn) if outputs.requires_grad else ():
        if isinstance(node, torch.autograd.function.BackwardCFunction):
            return type(node).__name__.removesuffix("Backward")
    return None


def _others_functions(kind: Any) -> bool:
    """Whether anyone but torch and we have defined a subclass: a pass is saved where nobody has."""
    return any(
        not own.__module__.startswith(("torch.", "xaitools.")) or _others_functions(own)
        for own in kind.__subclasses__()
    )


def without_owner(network: nn.Module) -> GraphModule:
    """A traced network, its graph no longer referring back to it."""
    assert isinstance(network, GraphModule)
    network.graph.owning_module = None
    return network


def _like(model: nn.Module, copied: nn.Module) -> Any:
    """The copy, under the name of the model's class, by which messages speak of it."""
    if isinstance(copied, GraphModule):
        without_owner(copied).__class__.__name__ = type(model).__name__
    return copied


def without_biases(graph: GraphModule, example: Tensor) -> nn.Module:
    """Copy of a folded graph whose biases are zero, those that merged batch normalisation brings among them.

    On such a network of ReLUs, relevance that is shared out layer by layer has to add up to the output.

    Raises
    ------
    UnsupportedModelError
        If it still adds a constant somewhere: it answers a black image with other than 0.
    """
    bare = frozen_copy(graph)
    for name, parameter in bare.named_parameters():
        if name.rpartition(".")[2] == "bias":
            parameter.zero_()
    left = outputs_of(bare, torch.zeros_like(example)).abs().max().item()
    if left > 0:
        raise UnsupportedModelError(
            f"{type(graph).__name__} answers a black image with {left:.3g} although its biases are zero: it adds a "
            "constant, or has batch normalisation that does not follow a convolution or linear layer."
        )
    return bare


def log_odds(model: nn.Module, example: Tensor) -> nn.Module:
    """Copy of a network of two classes with one output: the second class's logit less the first's.

    It is the logarithm of the second class's odds, positive where the network decides for that class. What moves
    both logits together, which no decision depends on, is gone from its explanations. The difference is taken in
    the weights of the last linear layer, so that rules of relevance propagation see one neuron.

    Parameters
    ----------
    model
        Network that returns the two classes' logits, (batch, 2), from a linear layer; it is not changed.
    example
        Images (batch, channel, *spatial) on which the copy is compared with the model.

    Raises
    ------
    UnsupportedModelError
        If the network cannot be copied, or does not end with a linear layer of two outputs.
    """
    odds = frozen_copy(model)
    last = next((layer for layer in reversed(list(odds.modules())) if isinstance(layer, nn.Linear)), None)
    expected = outputs_of(odds, example)
    if last is None or last.out_features != 2 or expected.shape != (len(example), 2):
        raise UnsupportedModelError(
            f"{type(model).__name__} returns {tuple(expected.shape)} and its last linear layer is {last}; expected "
            "(batch, 2), the logits of two classes, from a linear layer. Explain its classes one by one instead."
        )
    last.out_features = 1
    last.weight = nn.Parameter(last.weight[1:] - last.weight[:1], requires_grad=False)
    if last.bias is not None:
        last.bias = nn.Parameter(last.bias[1:] - last.bias[:1], requires_grad=False)
    found = outputs_of(odds, example)
    if found.shape != (len(example), 1) or not same_outputs(found, expected[:, 1:] - expected[:, :1]):
        raise UnsupportedModelError(
            f"{type(model).__name__} does more after its last linear layer, so its log-odds cannot be merged into that "
            "layer. Let it return logits, without softmax, and explain those."
        )
    return odds


def same_outputs(outputs: Tensor, expected: Tensor) -> bool:
    """Whether two networks' outputs agree up to rounding."""
    if outputs.shape != expected.shape:
        return False
    return torch.allclose(outputs, expected, rtol=1e-3, atol=1e-4 * expected.abs().max().item())


def outputs_of(model: Callable[[Tensor], Any], images: Tensor) -> Tensor:
    """What the model returns, without a gradient."""
    with torch.no_grad():
        return model(images)


def folded(model: nn.Module, example: Tensor, expected: Tensor, *, traceable: bool = True) -> nn.Module:
    """The frozen model as a graph with batch normalisation folded into the layer before, weights channels-last.

    Without folding if it is not the same then; with the channel first if it does not run, or not the same, otherwise.
    Whatever goes wrong in making it faster leaves it as it is.
    """
    try:
        if not traceable:
            raise TraceError("gradients are switched in it")
        graph: nn.Module = trace(model)
        if not hooked(model):  # folding would lose the hooks, or move them
            graph = fuse(graph, inplace=True, no_trace=True)
        merged = _like(model, graph).requires_grad_(False)
        _give_own_layers(merged, model)
        refuse_own_gradients(model, example)
        if quickest_layout(merged, example, expected):
            return merged
        logger.info("Batch normalisation is not folded: the outputs would differ.")
    except Exception as error:
        logger.info("Batch normalisation is not folded: %s", error)
    plain = twin(model)
    if _own_gradients(model, example) is None:
        quickest_layout(plain, example, expected)
    return plain


def quickest_layout(model: nn.Module, example: Tensor, expected: Tensor) -> bool:
    """Lay weights out channels-last if the model runs so, and the same; whether it returns what is expected.

    On two images, since the layouts of one are the same where axes have one cell.
    """
    pair, both = torch.cat([example, example]), torch.cat([expected, expected])
    for lay_out in (channels_last, channel_first):
        try:
            forward = lay_out(model).forward  # a graph that is called prints what goes wrong in it
            if same_outputs(outputs_of(forward, pair), both):
                return True
        except Exception as error:
            logger.info("Weights are not laid out by %s: %s", lay_out.__name__, error)
    return False


def _give_own_layers(graph: GraphModule, model: nn.Module) -> None:
    """Replace the layers that a graph shares with the model it was traced from by twins, to be laid out otherwise."""
    theirs = set(model.modules())
    for name, layer in list(graph.named_modules()):
        if layer in theirs and any(True for _ in layer.parameters()):
            graph.set_submodule(name, twin(layer))
    parameters = {id(parameter) for parameter in model.parameters()}
    for module in graph.modules():
        for name, parameter in module._parameters.items():
            if id(parameter) in parameters and parameter is not None:
                module._parameters[name] = nn.Parameter(parameter.detach(), requires_grad=False)
