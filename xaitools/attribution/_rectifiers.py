"""Change how gradients pass back through ReLUs, on any network.

The rule is set on the nodes of the recorded autograd graph, not on modules, and where the graph hides some, on the
derivatives that autograd calls. So it holds for ReLU modules, functional ReLUs, those that act in place, also on
views, and modules used several times alike. Everything else in the network has to be known: what is neither a
ReLU nor in the lists here is refused.
"""

import re
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from xaitools.attribution._stream import Batch, Passes
from xaitools.attribution._tape import Call, Record, Tape
from xaitools.errors import UnsupportedModelError
from xaitools.models.network import Network, gradients_of
from xaitools.models.surgery import autograd_nodes

BackwardRule = Callable[[Tensor, Tensor], Tensor]

_SUMS = "add sub rsub neg sum mean cumsum trace"
_AVERAGES = """
avg_pool1d avg_pool2d avg_pool3d _adaptive_avg_pool2d _adaptive_avg_pool3d
upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_linear1d upsample_bilinear2d upsample_trilinear3d
upsample_bicubic2d _upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_nearest_exact3d
_upsample_bilinear2d_aa _upsample_bicubic2d_aa
"""
_COPIES = """
clone copy _to_copy fill zero constant_pad_nd reflection_pad1d reflection_pad2d reflection_pad3d
replication_pad1d replication_pad2d replication_pad3d
"""
_SHAPES = """
as_strided t transpose squeeze unsqueeze cat stack repeat flip roll tril triu diag_embed
pixel_shuffle pixel_unshuffle channel_shuffle native_channel_shuffle im2col col2im
"""
"""The first five only where they change a tensor itself: views are no operations to the tape."""
_SELECTIONS = """
index index_select gather take where masked_fill masked_select masked_scatter index_put _index_put_impl
index_copy index_fill index_add scatter scatter_add slice_scatter select_scatter diagonal_scatter as_strided_scatter
"""
"""Linear if the selection is a constant: one made from activations has no gradient, which the tape finds."""
_MAX_POOLS = "max_pool2d_with_indices max_pool3d_with_indices adaptive_max_pool2d adaptive_max_pool3d"
"""Both methods send the signal to where the maximum was: the switches of Zeiler and Fergus, section 2.1."""
_KNOWN = frozenset(f"{_SUMS} {_AVERAGES} {_COPIES} {_SHAPES} {_SELECTIONS} {_MAX_POOLS}".split())

_PRODUCTS = {
    "mul": ("self", "other"),
    "mm": ("self", "mat2"),
    "bmm": ("self", "mat2"),
    "mv": ("self", "vec"),
    "dot": ("self", "tensor"),
    "addmm": ("mat1", "mat2"),
    "addmv": ("mat", "vec"),
    "addbmm": ("batch1", "batch2"),
    "baddbmm": ("batch1", "batch2"),
    "addcmul": ("tensor1", "tensor2"),
    "_trilinear": ("i1", "i2", "i3"),
    "linear": ("input", "weight"),
    "convolution": ("input", "weight"),
}
"""Products, and the factors, of which one at most may depend on the image."""

_BY_CONSTANTS = {
    "div": ("other",),
    "addcdiv": ("tensor2",),
    "lerp": ("weight",),
    "grid_sampler_2d": ("grid",),
    "grid_sampler_3d": ("grid",),
    **dict.fromkeys(
        (
            "native_batch_norm",
            "cudnn_batch_norm",
            "miopen_batch_norm",
            "_native_batch_norm_legit_no_training",
        ),
        ("weight", "bias", "running_mean", "running_var"),
    ),
}
"""Operations that are linear in the image if these arguments do not depend on it."""

_NAMES = {
    "hardtanh": "hardtanh or ReLU6",
    "_prelu_kernel": "PReLU",
    "leaky_relu": "leaky ReLU",
    "silu": "SiLU",
    "gelu": "GELU",
    "elu": "ELU, CELU or SELU",
    "native_layer_norm": "layer normalisation",
    "native_group_norm": "group normalisation",
    **dict.fromkeys(("gt", "ge", "lt", "le", "eq", "ne", "sign", "heaviside"), "a comparison"),
}

_RELUS = re.compile(r"(Relu|Threshold)Backward\d+")
"""A threshold in place has another number than one that makes a new tensor."""
_HIDES = "torch::autograd::CopySlices"
"""Node of an operation in place on a view, which autograd keeps to itself."""
_RECORDED = re.compile(rf"\w+Backward\d+|torch::autograd::(AccumulateGrad|CopyBackwards)|{_HIDES}")
"""Nodes of an autograd graph that belong to operations of torch."""


class _HiddenReLUs(TorchDispatchMode):
    """While it is the context, the rule is set on every derivative of ReLU that autograd calls.

    It meets all of them, but at the price of a call from Python for each operation.
    """

    def __init__(self, rule: BackwardRule):
        super().__init__()
        self._rule = rule

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        return self._rule(result, args[0]) if func is torch.ops.aten.threshold_backward.default else result


def rectified(name: str, network: Network, rule: BackwardRule) -> Passes:
    """Passes in which each ReLU sends back ``rule(plain, incoming)`` instead of the plain gradient.

    The operations are judged in the first batch, and again in each batch whose autograd graph is none of those judged
    before, as a forward pass may go other ways for other images.

    Parameters
    ----------
    name
        Of the passes.
    rule
        Gets the plain gradient of the ReLU's input and the gradient that came to its output.

    Raises
    ------
    UnsupportedModelError
        When they run, if the network has no ReLU, or an operation for which the rule is not defined, or a part whose
        operations were not recorded.
    """
    judged: set[tuple[str, ...]] = set()

    def run(batch: Batch) -> Tensor:
        tape = None if judged else Tape(batch.points, _fault)
        leaf, scores, nodes, names = _forward(network, batch, tape)
        if judged and names not in judged:
            tape = Tape(batch.points, _fault)
            leaf, scores, nodes, names = _forward(network, batch, tape)
        if tape:
            _judge(names, tape.path_to(scores), network.name)
            judged.add(names)
        if _HIDES in names:
            with _HiddenReLUs(rule):
                return gradients_of(leaf, scores)
        for node, operation in zip(nodes, names, strict=True):
            if _RELUS.fullmatch(operation):
                node.register_hook(lambda plain, incoming: (rule(plain[0], incoming[0]),))
        return gradients_of(leaf, scores)

    return Passes(name, run)


def _forward(
    network: Network, batch: Batch, tape: Tape | None
) -> tuple[Tensor, Tensor, list, tuple[str, ...]]:
    """What `Network.forward` returns, the nodes of its autograd graph, and their names."""
    with tape or nullcontext():
        leaf, scores = network.forward(batch.points, batch.target)
    nodes = list(autograd_nodes(scores.grad_fn))
    return leaf, scores, nodes, tuple(node.name() for node in nodes)


def _judge(names: Iterable[str], path: Iterable[Record], network: str) -> None:
    """Raise UnsupportedModelError if anything on the way to the output is not known."""
    for name in names:
        if not _RECORDED.fullmatch(name):
            raise UnsupportedModelError(
                f"{network} contains the custom or compiled operation {name}, inside which ReLUs cannot be seen; "
                "give the plain PyTorch network without checkpointing, scripting or compilation."
            )
    if not any(record.name in ("relu", "threshold") for record in path):
        raise UnsupportedModelError(
            f"No ReLU was found in {network}, and this method is defined by what it does at ReLUs; "
            "use gradient or integrated_gradients on this network."
        )
    for record in path:
        if record.fault:
            raise UnsupportedModelError(
                f"{network} {record.fault}, and this method has a rule for ReLU only: besides ReLUs, written as "
                "such, it takes max pooling and what is linear in the image. Let the network return logits, without "
                "softmax or sigmoid, or use gradient or integrated_gradients on it."
            )


def _fault(call: Call) -> str | None:
    """What the network does in this operation, if no rule is known for it."""
    name, given, dependent = call.name, call.arguments, call.dependent
    if name == "relu" or (name == "threshold" and given["threshold"] == given["value"] == 0):
        return None
    if given.get("rounding_mode") or "reduce" in given or given.get("training"):
        return f"applies {_named(name)} with a reduction, rounding or statistics of the image"
    if name in _KNOWN:
        return None
    if name in _PRODUCTS:
        factors = dependent.intersection(_PRODUCTS[name])
        return f"multiplies values that both depend on the image ({name})" if len(factors) > 1 else None
    if name in _BY_CONSTANTS:
        if dependent.isdisjoint(_BY_CONSTANTS[name]):
            return None
        return f"takes the divisor or weights of {_named(name)} from the image"
    return f"applies {_named(name)}"


def _named(operation: str) -> str:
    words = _NAMES.get(operation)
    return f"{words} ({operation})" if words else operation
