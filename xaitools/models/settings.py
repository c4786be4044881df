"""How a network is trained: every option, documented and checked here only."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from xaitools.checks import check_choice, check_counts, check_positive
from xaitools.errors import ParameterError
from xaitools.models.augmentation import AUGMENTATIONS
from xaitools.models.surgery import PRECISIONS
from xaitools.models.tasks import LOSSES

Augmentation = Callable[[Tensor, torch.Generator], Tensor]
OPTIMIZERS = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}


@dataclass(frozen=True)
class TrainingSettings:
    """Options of :func:`~xaitools.models.fitting.fit` and :func:`~xaitools.models.training.train`.

    Training ends after `max_epochs`, or when the validation loss has not fallen for `patience` epochs, is below
    `stop_at`, or is not finite.

    Parameters
    ----------
    loss
        Key of :data:`~xaitools.models.tasks.LOSSES`; "auto" is the cross-entropy for classes and the mean
        absolute error for quantities.
    max_epochs, patience
        Most epochs in all, and most epochs without a fall of the validation loss.
    stop_at
        Validation loss that is good enough to stop at.
    batch_size, learning_rate, weight_decay
        Images a step, and the optimiser's settings.
    optimizer
        "adamw", or "adam", in which the weight decay is a penalty on squared weights in the loss.
    augment
        Changes every training batch: a key of :data:`~xaitools.models.augmentation.AUGMENTATIONS`, a function
        ``augment(images, generator)``, or "" for none.
    copies
        How often an epoch shows each training image, each time augmented anew.
    precision
        "float32", or "bf16" to compute in mixed bfloat16, which is faster on processors that know it.
    seed
        Fixes the batches, the augmentation and dropout.

    Raises
    ------
    ParameterError
        If an option is unknown or out of its range.
    """

    loss: str = "auto"
    max_epochs: int = 100
    patience: int = 10
    stop_at: float = 0.0
    batch_size: int = 32
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    optimizer: str = "adamw"
    augment: str | Augmentation = "flip_and_shift"
    copies: int = 1
    precision: str = "float32"
    seed: int = 0

    def __post_init__(self) -> None:
        check_counts(
            max_epochs=self.max_epochs,
            patience=self.patience,
            batch_size=self.batch_size,
            copies=self.copies,
        )
        check_positive(learning_rate=self.learning_rate)
        for name in ("seed", "weight_decay"):
            if not 0 <= (value := getattr(self, name)) < math.inf:
                raise ParameterError(f"{name}={value!r}; expected 0 or more.")
        check_choice(
            loss=(self.loss, ["auto", *LOSSES]),
            optimizer=(self.optimizer, OPTIMIZERS),
            precision=(self.precision, PRECISIONS),
        )
        if self.augment != "" and not callable(self.augment):
            check_choice(augment=(self.augment, AUGMENTATIONS))

    @property
    def identity(self) -> dict[str, Any]:
        """The settings as plain values, but for the number of epochs: what a resumed training must share."""
        named = {**vars(self), "augment": getattr(self.augment, "__name__", str(self.augment))}
        return {name: value for name, value in named.items() if name != "max_epochs"}

    def new_optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """The optimiser of all the model's parameters, at its start."""
        optimizer: Callable[..., torch.optim.Optimizer] = OPTIMIZERS[self.optimizer]
        return optimizer(model.parameters(), lr=self.learning_rate, weight_decay=self.weight_decay)

    def augmented(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """A training batch as the network shall see it."""
        if self.augment == "":
            return images
        change = AUGMENTATIONS[self.augment] if isinstance(self.augment, str) else self.augment
        return change(images, generator)

    def batches(self, n_images: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Indices of an epoch's batches, all about as long: batch norm never meets a tiny last one."""
        order = torch.randperm(n_images * self.copies, generator=generator) % n_images
        return order.tensor_split(self.n_batches(n_images))

    def n_batches(self, n_images: int) -> int:
        """Steps in an epoch of that many images."""
        return -(-n_images * self.copies // self.batch_size)
