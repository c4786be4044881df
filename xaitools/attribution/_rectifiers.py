"""Change how gradients pass back through ReLUs, on any network.

The rule is set on the nodes of the recorded autograd graph, not on modules. So it holds for ReLU modules,
functional and in-place ReLUs, and modules used several times alike.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from xaitools.attribution._stream import Batch, Passes
from xaitools.errors import UnsupportedModelError
from xaitools.models.network import Network, gradients_of
from xaitools.models.surgery import autograd_nodes

BackwardRule = Callable[[Tensor, Tensor], Tensor]

_RELU = "ReluBackward0"
_OTHER_ACTIVATIONS = {
    "LeakyReluBackward": "leaky ReLU",
    "HardtanhBackward": "ReLU6 or hardtanh",
    "ThresholdBackward": "threshold",
    "EluBackward": "ELU",
    "CeluBackward": "CELU",
    "GeluBackward": "GELU",
    "SiluBackward": "SiLU",
    "MishBackward": "Mish",
    "HardswishBackward": "hardswish",
    "SoftplusBackward": "softplus",
    "PreluKernelBackward": "PReLU",
    "RreluWithNoiseBackward": "RReLU",
    "ClampBackward": "clamp",
    "ClampMinBackward": "clamp",
    "MaximumBackward": "maximum",
    "WhereBackward": "where",
}


def rectified(name: str, network: Network, rule: BackwardRule) -> Passes:
    """Passes in which each ReLU sends back ``rule(plain, incoming)`` instead of the plain gradient.

    Parameters
    ----------
    name
        Of the passes.
    rule
        Gets the plain gradient of the ReLU's input and the gradient that came to its output.

    Raises
    ------
    UnsupportedModelError
        When they run, if the network has no ReLU, another activation for which the rule is not defined, or a part
        whose operations were not recorded.
    """

    def run(batch: Batch) -> Tensor:
        leaf, scores = network.forward(batch.points, batch.target)
        relus = 0
        for node in autograd_nodes(scores.grad_fn):
            if node.name() == _RELU:
                relus += 1
                node.register_hook(lambda plain, incoming: (rule(plain[0], incoming[0]),))
            else:
                _refuse(node, network.name)
        if relus == 0:
            raise UnsupportedModelError(
                f"No ReLU was found in {network.name}, and this method is defined by what it does at ReLUs; "
                "use gradient or integrated_gradients on this network."
            )
        return gradients_of(leaf, scores)

    return Passes(name, run)


def _refuse(node: Any, network: str) -> None:
    name = node.name()
    activation = _OTHER_ACTIVATIONS.get(name.rstrip("0123456789"))
    if activation:
        raise UnsupportedModelError(
            f"{network} applies {activation}, and this method has a rule for ReLU only; "
            "use gradient or integrated_gradients on this network."
        )
    if isinstance(node, torch.autograd.function.BackwardCFunction) or "Graph" in name:
        raise UnsupportedModelError(
            f"{network} contains the custom or compiled operation {name}, inside which ReLUs cannot be "
            "seen; give the plain PyTorch network without checkpointing, scripting or compilation."
        )
