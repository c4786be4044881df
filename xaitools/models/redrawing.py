"""A layer's state drawn anew, as before training."""

from itertools import chain

import torch
from torch import Tensor, nn

STATISTICS = {"running_mean": 0.0, "running_var": 1.0, "weight": 1.0, "bias": 0.0}
"""Buffers of a normalisation by running statistics before any image was seen; weight and bias are if it is frozen."""


def has_state(layer: nn.Module) -> bool:
    """Whether a layer itself has something that training changes: parameters, or running statistics."""
    return any(True for _ in layer.parameters(recurse=False)) or _has_statistics(layer)


def redraw(layer: nn.Module) -> None:
    """Draw a layer's own parameters anew and set its running statistics back; layers within it stay as they are.

    Parameters that its `reset_parameters` leaves, or that has none, are drawn from a normal distribution of their own
    mean and standard deviation.
    """
    before = {name: tensor.clone() for name, tensor in _state(layer).items()}
    reset = getattr(layer, "reset_parameters", None) or getattr(layer, "_reset_parameters", None)
    if callable(reset):
        reset()
    with torch.no_grad():
        for name, tensor in _state(layer).items():
            if "." in name:
                tensor.copy_(before[name])
        for name, parameter in layer.named_parameters(recurse=False):
            if torch.equal(parameter, before[name]):
                nn.init.normal_(parameter, float(parameter.mean()), float(parameter.std(correction=0)))
        if _has_statistics(layer):
            for name, buffer in layer.named_buffers(recurse=False):
                if name in STATISTICS:
                    buffer.fill_(STATISTICS[name])


def _has_statistics(layer: nn.Module) -> bool:
    return isinstance(layer._buffers.get("running_var"), Tensor)


def _state(layer: nn.Module) -> dict[str, Tensor]:
    return dict(chain(layer.named_parameters(), layer.named_buffers()))
