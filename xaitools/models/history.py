"""The course of a training."""

import math
from dataclasses import dataclass

from xaitools.models.settings import TrainingSettings


@dataclass(frozen=True)
class History:
    """What each epoch of a training reached; index 0 is the first epoch.

    Attributes
    ----------
    train_loss, val_loss
        Mean loss: cross-entropy in nats, or the error in standard deviations of the training labels. That of
        the training images is with augmentation, while the weights moved.
    val_score
        On the validation images, the share classified correctly, 0 to 1; or the mean absolute error in the
        labels' unit.
    """

    train_loss: tuple[float, ...] = ()
    val_loss: tuple[float, ...] = ()
    val_score: tuple[float, ...] = ()

    def __len__(self) -> int:
        """Epochs so far."""
        return len(self.val_loss)

    @property
    def best_epoch(self) -> int:
        """Index of the epoch of least validation loss, whose weights the model has."""
        return min(range(len(self)), key=self.val_loss.__getitem__)

    @property
    def is_best_now(self) -> bool:
        """Whether the last epoch is the best one."""
        return math.isfinite(self.val_loss[-1]) and self.best_epoch == len(self) - 1

    def extended(self, train_loss: float, val_loss: float, val_score: float) -> "History":
        """The history with one more epoch."""
        return History(
            (*self.train_loss, train_loss), (*self.val_loss, val_loss), (*self.val_score, val_score)
        )

    def is_over(self, settings: TrainingSettings) -> bool:
        """Whether these settings ask for no further epoch."""
        return bool(self.val_loss) and (
            len(self) >= settings.max_epochs
            or not math.isfinite(self.val_loss[-1])
            or self.val_loss[-1] < settings.stop_at
            or len(self) - 1 - self.best_epoch >= settings.patience
        )
