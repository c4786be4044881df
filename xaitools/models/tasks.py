"""What a network is trained for: classes, or a measured quantity."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from xaitools.errors import ParameterError, TargetError, UnsupportedModelError

LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cross_entropy": functional.cross_entropy,
    "mean_absolute_error": functional.l1_loss,
    "mean_squared_error": functional.mse_loss,
    "huber": functional.huber_loss,
}
"""Losses by name; all but the first are for regressions."""


@dataclass(frozen=True)
class Task:
    """Loss and score of a training.

    Attributes
    ----------
    loss
        Key of :data:`LOSSES`.
    shift, scale
        Of a regression: mean and standard deviation of the training labels. The network learns
        ``(label - shift) / scale``, so that the same learning rates fit every unit.
    """

    loss: str
    shift: float = 0.0
    scale: float = 1.0

    @property
    def is_regression(self) -> bool:
        return self.loss != "cross_entropy"

    def targets(self, labels: Tensor) -> Tensor:
        """What the network shall return for these labels."""
        return ((labels - self.shift) / self.scale).float() if self.is_regression else labels

    def mean_loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean loss of outputs (n, n_outputs) in the scale of the training."""
        return LOSSES[self.loss](outputs.float()[:, 0] if self.is_regression else outputs.float(), targets)

    def score(self, outputs: Tensor, targets: Tensor) -> float:
        """Accuracy of a classification (0 to 1); mean absolute error of a regression, in the labels' unit."""
        if self.is_regression:
            return self.scale * (outputs[:, 0] - targets).abs().double().mean().item()
        return (outputs.argmax(dim=1) == targets).double().mean().item()


def task_of(labels: Tensor, loss: str) -> Task:
    """The task that training labels and the name of a loss ask for; "auto" is the usual loss.

    Raises
    ------
    ParameterError
        If the loss does not fit the labels.
    TargetError
        If the labels of a regression are not finite, or all the same.
    """
    measured = labels.is_floating_point()
    loss = {True: "mean_absolute_error", False: "cross_entropy"}[measured] if loss == "auto" else loss
    if measured == (loss == "cross_entropy"):
        raise ParameterError(
            f"loss={loss!r} with labels of type {labels.dtype}; expected classes (int64) for cross_entropy, "
            "quantities (float32) for the others: change the loss, or leave it at 'auto'."
        )
    if not measured:
        return Task(loss)
    shift, scale = labels.double().mean().item(), labels.double().std(unbiased=False).item()
    if not torch.isfinite(labels).all() or scale == 0:
        raise TargetError(
            f"the training labels have mean {shift:g} and standard deviation {scale:g}; expected finite labels that "
            "differ, for a regression: repair them or leave these images out."
        )
    return Task(loss, shift, scale)


def rescale_output(model: nn.Module, example: Tensor, scale: float, shift: float) -> None:
    """Change the last linear layer so that the model returns ``scale * output + shift`` from now on.

    Raises
    ------
    UnsupportedModelError
        If what the model returns does not come straight from a linear layer with a bias.
    """
    last = output_layer(model, example)
    with torch.no_grad():
        last.weight.mul_(scale)
        last.bias.mul_(scale).add_(shift)


def output_layer(model: nn.Module, example: Tensor) -> nn.Linear:
    """The linear layer whose output the model returns for the images `example`.

    Raises
    ------
    UnsupportedModelError
        If there is none, or it has no bias.
    """
    outputs: list[tuple[nn.Linear, Tensor]] = []
    layers = [module for module in model.modules() if isinstance(module, nn.Linear)]
    hooks = [
        layer.register_forward_hook(lambda *call: outputs.append((call[0], call[2]))) for layer in layers
    ]
    try:
        with torch.no_grad():
            returned = model(example)
    finally:
        for hook in hooks:
            hook.remove()
    if not outputs or outputs[-1][1] is not returned or outputs[-1][0].bias is None:
        raise UnsupportedModelError(
            f"{type(model).__name__} does not return what a linear layer with a bias gives; expected that, since a "
            "regression is trained on standardised labels, whose mean and spread go into that layer at the end: let "
            "the network end with nn.Linear(features, 1)."
        )
    return outputs[-1][0]
