"""Gradients of the selected output with respect to the image."""

import torch
from torch import Tensor, nn

from xaitools.errors import UnsupportedModelError
from xaitools.models.network import select


def gradients(model: nn.Module, points: Tensor, target: Tensor | None = None) -> Tensor:
    """Gradient of each image's selected output with respect to that image, same shape as `points`."""
    leaf, scores = forward(model, points, target)
    return backward(leaf, scores)


def forward(model: nn.Module, points: Tensor, target: Tensor | None) -> tuple[Tensor, Tensor]:
    """The images as a leaf of the autograd graph, and their selected outputs (batch,)."""
    with torch.enable_grad():
        leaf = points.detach().requires_grad_()
        scores = select(model(leaf.clone()), target)  # a clone, as the first layer may work in place
    if not scores.requires_grad:
        raise UnsupportedModelError(
            f"The output of {type(model).__name__} does not depend on its input through differentiable operations, "
            "so it has no gradient. Remove torch.no_grad, detach or argmax from its forward pass."
        )
    return leaf, scores


def backward(leaf: Tensor, scores: Tensor) -> Tensor:
    """Gradient of each score with respect to its own image."""
    return torch.autograd.grad(scores, leaf, torch.ones_like(scores))[0]
