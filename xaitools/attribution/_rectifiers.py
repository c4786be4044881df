"""Change how gradients pass back through ReLUs, on any network.

The rule is set where autograd calls the derivative of ReLU, not on modules or on nodes of its graph. So it holds for
ReLU modules, functional ReLUs, those that act in place, also on views, and modules used several times alike.
Everything else in the network has to be known: what is neither a ReLU nor in the lists here is refused.
"""

import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from xaitools.attribution._stream import Batch, Passes
from xaitools.attribution._tape import Call, Tape
from xaitools.errors import UnsupportedModelError
from xaitools.models.network import Network, gradients_of
from xaitools.models.surgery import autograd_nodes

BackwardRule = Callable[[Tensor, Tensor], Tensor]

_LINEAR = frozenset(
    # sums
    "add sub rsub neg sum mean cumsum trace "
    # averages, interpolation, padding
    "avg_pool1d avg_pool2d avg_pool3d _adaptive_avg_pool2d _adaptive_avg_pool3d "
    "upsample_nearest1d upsample_nearest2d upsample_nearest3d _upsample_nearest_exact1d _upsample_nearest_exact2d "
    "_upsample_nearest_exact3d upsample_linear1d upsample_bilinear2d upsample_trilinear3d upsample_bicubic2d "
    "_upsample_bilinear2d_aa _upsample_bicubic2d_aa constant_pad_nd "
    "reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d replication_pad2d replication_pad3d "
    # copies, constants, shapes changed in place (views are no operations to the tape)
    "clone copy _to_copy fill zero as_strided t transpose squeeze unsqueeze "
    # order and selection; a selection made from activations has no gradient, and is refused as such
    "cat stack repeat flip roll tril triu diag_embed pixel_shuffle pixel_unshuffle channel_shuffle "
    "native_channel_shuffle im2col col2im index index_select gather take where masked_fill masked_select "
    "masked_scatter index_put _index_put_impl index_copy index_fill index_add scatter scatter_add slice_scatter "
    "select_scatter diagonal_scatter as_strided_scatter".split()
)

_MAX_POOLS = frozenset(
    "max_pool2d_with_indices max_pool3d_with_indices adaptive_max_pool2d adaptive_max_pool3d".split()
)

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
        ("native_batch_norm", "cudnn_batch_norm", "miopen_batch_norm", "_native_batch_norm_legit_no_training"),
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

_RECORDED = re.compile(r"\w+Backward\d+|AccumulateGrad|CopySlices|CopyBackwards")
"""Nodes of an autograd graph that belong to operations of torch."""


class _AtReLUs(TorchDispatchMode):
    """While it is the context, ``rule(incoming, output)`` takes the place of the derivative of ReLU."""

    def __init__(self, rule: BackwardRule):
        super().__init__()
        self._rule = rule

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.threshold_backward.default:
            return self._rule(args[0], args[1])
        return func(*args, **(kwargs or {}))


def rectified(name: str, network: Network, rule: BackwardRule) -> Passes:
    """Passes in which each ReLU sends back ``rule(incoming, output)`` instead of the plain gradient.

    Each batch is checked, as a forward pass may go other ways for other images.

    Parameters
    ----------
    name
        Of the passes.
    rule
        Gets the gradient that came to the ReLU's output, and that output (positive where the ReLU was on).

    Raises
    ------
    UnsupportedModelError
        When they run, if the network has no ReLU, or an operation for which the rule is not defined, or a part whose
        operations were not recorded.
    """

    def run(batch: Batch) -> Tensor:
        with (tape := Tape(batch.points, _fault)):
            leaf, scores = network.forward(batch.points, batch.target)
        _refuse_unrecorded(scores, network.name)
        path = tape.path_to(scores)
        if not any(record.name in ("relu", "threshold") for record in path):
            raise UnsupportedModelError(
                f"No ReLU was found in {network.name}, and this method is defined by what it does at ReLUs; "
                "use gradient or integrated_gradients on this network."
            )
        for record in path:
            if record.fault:
                raise UnsupportedModelError(
                    f"{network.name} {record.fault}, and this method has a rule for ReLU only: besides ReLUs, written "
                    "as such, it takes max pooling and what is linear in the image. Let the network return logits, "
                    "without softmax or sigmoid, or use gradient or integrated_gradients on it."
                )
        with _AtReLUs(rule):
            return gradients_of(leaf, scores)

    return Passes(name, run)


def _fault(call: Call) -> str | None:
    """What the network does in this operation, if no rule is known for it."""
    name, given, dependent = call.name, call.arguments, call.dependent
    if name == "relu" or (name == "threshold" and given["threshold"] == given["value"] == 0):
        return None
    if given.get("rounding_mode") or "reduce" in given or given.get("training"):
        return f"applies {_named(name)} with a reduction, rounding or statistics of the image"
    if name in _LINEAR or name in _MAX_POOLS:
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


def _refuse_unrecorded(scores: Tensor, network: str) -> None:
    for node in autograd_nodes(scores.grad_fn):
        if isinstance(node, torch.autograd.function.BackwardCFunction) or not _RECORDED.fullmatch(
            node.name().rpartition("::")[2]
        ):
            raise UnsupportedModelError(
                f"{network} contains the custom or compiled operation {node.name()}, inside which ReLUs cannot be "
                "seen; give the plain PyTorch network without checkpointing, scripting or compilation."
            )
