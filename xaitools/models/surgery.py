"""Make a copy of a trained network that is quick and safe to explain; the original is left untouched."""

import copy
import logging

import torch
from torch import Tensor, nn
from torch.fx import Graph, GraphModule, Node, Tracer
from torch.fx.experimental.optimization import fuse
from torch.fx.proxy import TraceError
from torch.nn.modules.conv import _ConvNd

from xaitools.errors import MethodError, UnsupportedModelError

logger = logging.getLogger(__name__)

PRECISIONS = {"float32": torch.float32, "bf16": torch.bfloat16}


_NOT_TRACED = (TraceError, RuntimeError, TypeError, ValueError, AttributeError, KeyError, NotImplementedError)

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


def frozen_copy(model: nn.Module) -> nn.Module:
    """Copy of `model` in evaluation mode whose parameters ask for no gradient.

    Raises
    ------
    UnsupportedModelError
        If the model cannot be copied.
    """
    try:
        twin = copy.deepcopy(model)
    except (RuntimeError, TypeError) as error:
        raise UnsupportedModelError(
            f"The network {type(model).__name__} cannot be copied ({error}); explanations work on a copy so that "
            "the original stays as it is. Detach the tensors that it stores, or rebuild it from its weights."
        ) from error
    return twin.eval().requires_grad_(False)


def explainable(model: nn.Module, example: Tensor, precision: str = "float32") -> nn.Module:
    """Copy of `model` that computes the same function faster.

    Parameters are frozen, batch normalisation is folded into the convolution before it, and weights lie
    channels-last. Folding is kept only if the outputs on `example` stay the same.

    Parameters
    ----------
    model
        Any network; it is not changed.
    example
        Images (batch, channel, *spatial) on which the copy is compared with the original.
    precision
        "float32", or "bf16" to compute the deeper layers in bfloat16, which is faster on processors that know it.

    Raises
    ------
    MethodError
        If `precision` has another value.
    UnsupportedModelError
        If the model cannot be copied, its outputs on `example` are not finite, or they depend on what else is in
        the batch.
    """
    if precision not in PRECISIONS:
        raise MethodError(f"precision={precision!r} is unknown; choose one of {', '.join(PRECISIONS)}.")
    plain = frozen_copy(model)
    expected = _outputs(plain, example)
    if not torch.isfinite(expected).all():
        raise UnsupportedModelError(
            f"The network {type(model).__name__} returns NaN or infinity on these images, so they have no "
            "explanation. Check its weights and the range of the images."
        )
    _check_independence(plain, example, expected)
    quick = _folded(plain, example, expected).to(memory_format=_memory_format(example))
    if precision == "float32":
        return quick
    return _InPrecision(*_halves(quick), PRECISIONS[precision])


def traced(model: nn.Module, example: Tensor) -> GraphModule:
    """Frozen copy of `model` as a torch.fx graph, batch normalisation merged into the layer before it.

    Merging is kept only if the outputs on `example` (batch, channel, *spatial) stay the same.

    Raises
    ------
    UnsupportedModelError
        If the model cannot be copied or traced.
    """
    plain = frozen_copy(model)
    network = _folded(plain, example, _outputs(plain, example))
    if not isinstance(network, GraphModule):
        try:
            network = trace(plain)
        except _NOT_TRACED as error:
            raise UnsupportedModelError(
                f"The forward pass of {type(model).__name__} cannot be traced by torch.fx, so its layers cannot be "
                f"told apart: {error}. Use a gradient method, or take decisions on values and custom functions out "
                "of its forward pass."
            ) from error
    return network.to(memory_format=_memory_format(example))


def trace(model: nn.Module) -> GraphModule:
    """The torch.fx graph of `model`, on the same weights.

    As `torch.fx.symbolic_trace`, but without the reference cycles in which that keeps the weights: what is no longer
    used is freed at once, not when Python next looks for cycles.
    """
    tracer = Tracer()
    graph = tracer.trace(model)
    vars(tracer).clear()
    return without_owner(GraphModule(model, graph, type(model).__name__))


def without_owner(network: nn.Module) -> GraphModule:
    """A traced network, its graph no longer referring back to it."""
    assert isinstance(network, GraphModule)
    network.graph.owning_module = None
    return network


def without_biases(model: nn.Module, example: Tensor) -> GraphModule:
    """Copy of `model` whose biases are zero, those that merged batch normalisation brings among them.

    On such a network of ReLUs, relevance that is shared out layer by layer has to add up to the output.

    Raises
    ------
    UnsupportedModelError
        If the model cannot be traced, or still adds a constant somewhere: it answers a black image with other than 0.
    """
    bare = traced(model, example)
    for name, parameter in bare.named_parameters():
        if name.rpartition(".")[2] == "bias":
            parameter.zero_()
    left = _outputs(bare, torch.zeros_like(example)).abs().max().item()
    if left > 0:
        raise UnsupportedModelError(
            f"{type(model).__name__} answers a black image with {left:.3g} although its biases are zero: it adds a "
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
    twin = frozen_copy(model)
    last = next((layer for layer in reversed(list(twin.modules())) if isinstance(layer, nn.Linear)), None)
    expected = _outputs(twin, example)
    if last is None or last.out_features != 2 or expected.shape != (len(example), 2):
        raise UnsupportedModelError(
            f"{type(model).__name__} returns {tuple(expected.shape)} and its last linear layer is {last}; expected "
            "(batch, 2), the logits of two classes, from a linear layer. Explain its classes one by one instead."
        )
    last.out_features = 1
    last.weight = nn.Parameter(last.weight[1:] - last.weight[:1], requires_grad=False)
    if last.bias is not None:
        last.bias = nn.Parameter(last.bias[1:] - last.bias[:1], requires_grad=False)
    found = _outputs(twin, example)
    if found.shape != (len(example), 1) or not same_outputs(found, expected[:, 1:] - expected[:, :1]):
        raise UnsupportedModelError(
            f"{type(model).__name__} does more after its last linear layer, so its log-odds cannot be merged into that "
            "layer. Let it return logits, without softmax, and explain those."
        )
    return twin


def _check_independence(model: nn.Module, example: Tensor, expected: Tensor) -> None:
    in_company = _outputs(model, torch.cat([example, 1 - example.flip(-1)]))[: len(example)]
    if not same_outputs(in_company, expected):
        raise UnsupportedModelError(
            f"The outputs of {type(model).__name__} for an image depend on the other images of the batch, so its "
            "gradients mix images. Look for normalisation by batch statistics (track_running_stats=False)."
        )


def same_outputs(outputs: Tensor, expected: Tensor) -> bool:
    """Whether two networks' outputs agree up to rounding."""
    return torch.allclose(outputs, expected, rtol=1e-3, atol=1e-4 * expected.abs().max().item())


def _outputs(model: nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad():
        return model(images)


def _memory_format(images: Tensor) -> torch.memory_format:
    return torch.channels_last_3d if images.ndim == 5 else torch.channels_last


def _folded(model: nn.Module, example: Tensor, expected: Tensor) -> nn.Module:
    try:
        folded = without_owner(fuse(trace(model), inplace=True, no_trace=True)).requires_grad_(False)
        same = same_outputs(_outputs(folded, example), expected)
    except _NOT_TRACED as error:
        logger.info("Batch normalisation is not folded: %s", error)
        return model
    if not same:
        logger.info("Batch normalisation is not folded: the outputs would differ.")
    return folded if same else model
