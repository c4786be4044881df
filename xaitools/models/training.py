"""Train a classifier, and ask it for probabilities."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from xaitools.errors import DataError, ParameterError, ShapeError, TargetError
from xaitools.models.augmentation import flip_and_shift
from xaitools.models.devices import resolve_device

Augmentation = Callable[[Tensor, torch.Generator], Tensor]


@dataclass(frozen=True)
class History:
    """What each epoch of a training reached; index 0 is the first epoch.

    Attributes
    ----------
    train_loss, val_loss
        Mean cross-entropy in nats; that of the training images is with augmentation, while the weights moved.
    val_accuracy
        Share of the validation images classified correctly, 0 to 1.
    """

    train_loss: tuple[float, ...]
    val_loss: tuple[float, ...]
    val_accuracy: tuple[float, ...]

    @property
    def best_epoch(self) -> int:
        """Index of the epoch of least validation loss, whose weights the model has."""
        return min(range(len(self.val_loss)), key=self.val_loss.__getitem__)


def train(
    model: nn.Module,
    images: Float[Tensor, "n channel *spatial"],
    labels: Int64[Tensor, " n_labels"],
    val_images: Float[Tensor, "m channel *spatial"],
    val_labels: Int64[Tensor, " m_labels"],
    *,
    max_epochs: int = 100,
    patience: int = 10,
    stop_at: float = 0.0,
    batch_size: int = 32,
    learning_rate: float = 1e-3,
    augment: Augmentation | None = flip_and_shift,
    seed: int = 0,
    device: str | torch.device = "auto",
    progress: bool = True,
    checkpoint_dir: str | Path | None = None,
) -> History:
    """Train a classifier in place with Lightning, and leave it with its best weights, in evaluation mode.

    AdamW minimises the cross-entropy; training ends when the validation loss has not fallen for `patience`
    epochs. All images are kept in the device's memory. The same seed and model on the same processor give the
    same weights.

    Parameters
    ----------
    model
        Returns one logit a class, ``(n, n_classes)``; it ends on `device`.
    images, labels
        Training set; labels count from 0.
    val_images, val_labels
        Validation set: it decides when to stop and which epoch's weights are the best.
    max_epochs, patience
        Most epochs in all, and most epochs without a fall of the validation loss.
    stop_at
        Validation loss that is good enough to stop at.
    batch_size, learning_rate
        Images a step, and AdamW's rate.
    augment
        Applied to every training batch, ``augment(images, generator)``; None for none.
    seed
        Fixes the batches, the augmentation and dropout; not the weights that `model` comes with.
    device
        As in :func:`~xaitools.models.devices.resolve_device`.
    progress
        Show a progress bar.
    checkpoint_dir
        Folder for a checkpoint after every epoch. A training that was killed continues from it when the call
        is made again, and ends with the same weights; once done, the checkpoint is deleted.

    Raises
    ------
    DataError
        If a set is empty, or an image has a value that is not finite.
    ShapeError
        If the numbers of images and labels differ.
    TargetError
        If a label is not one of the model's classes.
    ParameterError
        If an option is out of its range, or the validation loss is never finite.
    WeightsError
        If the checkpoint is damaged, or of another training.
    """
    for name, value in {"max_epochs": max_epochs, "patience": patience, "batch_size": batch_size}.items():
        if value < 1:
            raise ParameterError(f"{name} is {value}, expected 1 or more")
    if learning_rate <= 0:
        raise ParameterError(f"learning_rate is {learning_rate}, expected more than 0")
    if seed < 0:
        raise ParameterError(f"seed is {seed}, expected 0 or more")
    _check_set("training", images, labels)
    _check_set("validation", val_images, val_labels)
    target_device = resolve_device(device)
    n_classes = predict(model, images[:1], device=target_device).shape[1]
    _check_labels("training", labels, n_classes)
    _check_labels("validation", val_labels, n_classes)

    from xaitools.models._lightning import fit  # Lightning takes seconds to import

    record = fit(
        model,
        (images, labels),
        (val_images, val_labels),
        max_epochs=max_epochs,
        patience=patience,
        stop_at=stop_at,
        batch_size=batch_size,
        learning_rate=learning_rate,
        augment=augment,
        seed=seed,
        device=target_device,
        progress=progress,
        checkpoint=None if checkpoint_dir is None else Path(checkpoint_dir) / "last.ckpt",
    )
    return History(**{name: tuple(values) for name, values in record.items()})


def predict(
    model: nn.Module,
    images: Float[Tensor, "n channel *spatial"],
    *,
    batch_size: int = 64,
    device: str | torch.device = "auto",
) -> Float[Tensor, "n classes"]:
    """Class probabilities: the softmax of the model's logits.

    Parameters
    ----------
    model
        Returns logits ``(n, n_classes)``. It is moved to `device`, used in evaluation mode, and left in the
        mode it came in.
    images
        Images on any device.
    batch_size
        Images in one forward pass.
    device
        As in :func:`~xaitools.models.devices.resolve_device`.

    Returns
    -------
    Tensor
        float32 probabilities on the CPU; rows sum to 1.

    Raises
    ------
    DataError
        If there is no image.
    ShapeError
        If the model does not return one row of logits an image.
    """
    if len(images) == 0:
        raise DataError("got no images to predict, expected at least one")
    target_device = resolve_device(device)
    was_training = model.training
    model.to(target_device).eval()
    try:
        with torch.inference_mode():
            logits = [
                model(to_device(batch, target_device)).float().cpu() for batch in images.split(batch_size)
            ]
    finally:
        model.train(was_training)
    shape = tuple(torch.cat(logits).shape)
    if len(shape) != 2:
        raise ShapeError(f"the model gives logits of shape {shape}, expected ({len(images)}, n_classes)")
    return torch.cat(logits).softmax(dim=1)


def accuracy(probabilities: Float[Tensor, "n classes"], labels: Int64[Tensor, " n"]) -> float:
    """Share of the images whose most probable class is their label, 0 to 1.

    Parameters
    ----------
    probabilities
        As :func:`predict` returns them.
    labels
        Class indices.

    Raises
    ------
    DataError
        If there is no image.
    """
    if len(labels) == 0:
        raise DataError("got no labels, expected at least one")
    return (probabilities.argmax(dim=1) == labels).double().mean().item()


def to_device(images: Tensor, device: torch.device) -> Tensor:
    """The images on the device, slices with the channel last in memory, which convolutions are fastest on."""
    memory_format = torch.channels_last if images.ndim == 4 else torch.preserve_format
    return images.to(device, memory_format=memory_format)


def _check_set(name: str, images: Tensor, labels: Tensor) -> None:
    if len(images) == 0:
        raise DataError(f"the {name} set is empty, expected at least one image")
    if len(images) != len(labels):
        raise ShapeError(
            f"the {name} set has {len(images)} images and {len(labels)} labels, expected as many"
        )
    finite = images.isfinite().flatten(1).all(dim=1)
    if not finite.all():
        bad = (~finite).nonzero().flatten().tolist()
        raise DataError(
            f"{len(bad)} images of the {name} set have NaN or infinite values, first index {bad[0]}; "
            "leave them out or repair them"
        )


def _check_labels(name: str, labels: Tensor, n_classes: int) -> None:
    outside = labels[(labels < 0) | (labels >= n_classes)]
    if len(outside):
        raise TargetError(
            f"the {name} set has the label {int(outside[0])}, but the model has {n_classes} classes: "
            f"expected labels 0 to {n_classes - 1}"
        )
