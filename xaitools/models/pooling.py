"""Max pooling before activations that never fall: the same numbers from an eighth of the voxels."""

import copy
import operator
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn
from torch.fx import GraphModule, Node

from xaitools.models.surgery import hooked

RISING = (nn.ReLU, nn.ReLU6, nn.ELU)
"""Activations of single numbers that never fall; LeakyReLU is one where its slope is not negative."""
RELUS = (F.relu, torch.relu, F.leaky_relu)


def pooled_first(network: nn.Module) -> nn.Module:
    """The network with each max pool moved before the activation that it follows; itself if it is no graph.

    The largest of values that went through a function that never falls is that function of the largest value, and the
    gradient is the same, both but for rounding. Weights are shared with `network`.
    """
    if not isinstance(network, GraphModule) or hooked(network):
        return network
    graph = copy.deepcopy(network.graph)
    for pool in list(graph.nodes):
        if not _is_pool(pool, network):
            continue
        activation = pool.args[0]
        if not (isinstance(activation, Node) and len(activation.users) == 1 and _rises(activation, network)):
            continue
        source = activation.args[0]
        pool.replace_input_with(activation, source)
        with graph.inserting_after(pool):
            after = graph.node_copy(activation, {source: pool}.__getitem__)
        pool.replace_all_uses_with(after, delete_user_cb=partial(operator.is_not, after))
        graph.erase_node(activation)
    graph.lint()
    return GraphModule(network, graph)


def _is_pool(node: Node, network: GraphModule) -> bool:
    if node.op != "call_module" or len(node.args) != 1 or node.kwargs:
        return False
    module = network.get_submodule(str(node.target))
    return isinstance(module, nn.MaxPool2d | nn.MaxPool3d) and not module.return_indices


def _rises(node: Node, network: GraphModule) -> bool:
    if len(node.args) != 1 or not isinstance(node.args[0], Node):
        return False
    if node.op == "call_module":
        module = network.get_submodule(str(node.target))
        if isinstance(module, nn.LeakyReLU):
            return module.negative_slope >= 0
        return type(module) in RISING and getattr(module, "alpha", 1) > 0
    return node.op == "call_function" and node.target in RELUS and set(node.kwargs) <= {"inplace"}
