"""Train a network, and ask it for probabilities or for the quantity that it measures."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor, nn

from xaitools.errors import DataError, ParameterError, ShapeError, TargetError
from xaitools.models.augmentation import flip_and_shift
from xaitools.models.devices import resolve_device
from xaitools.models.images import ImageStack, batches
from xaitools.models.surgery import PRECISIONS
from xaitools.models.tasks import output_layer, rescale_output, task_of

Augmentation = Callable[[Tensor, torch.Generator], Tensor]
OPTIMIZERS = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}


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

    train_loss: tuple[float, ...]
    val_loss: tuple[float, ...]
    val_score: tuple[float, ...]

    @property
    def best_epoch(self) -> int:
        """Index of the epoch of least validation loss, whose weights the model has."""
        return min(range(len(self.val_loss)), key=self.val_loss.__getitem__)


def train(
    model: nn.Module,
    images: Float[Tensor, "n channel *spatial"] | ImageStack,
    labels: Shaped[Tensor, " n_labels"],
    val_images: Float[Tensor, "m channel *spatial"] | ImageStack,
    val_labels: Shaped[Tensor, " m_labels"],
    *,
    loss: str = "auto",
    max_epochs: int = 100,
    patience: int = 10,
    stop_at: float = 0.0,
    batch_size: int = 32,
    learning_rate: float = 1e-3,
    weight_decay: float = 0.01,
    optimizer: str = "adamw",
    augment: Augmentation | None = flip_and_shift,
    copies: int = 1,
    precision: str = "float32",
    seed: int = 0,
    device: str | torch.device = "auto",
    progress: bool = True,
    checkpoint_dir: str | Path | None = None,
) -> History:
    """Train a network in place with Lightning, and leave it with its best weights, in evaluation mode.

    Training ends when the validation loss has not fallen for `patience` epochs. Images
    in a tensor are kept in the device's memory; those of another stack are read batch by batch. The same seed and
    model on the same processor give the same weights.

    A regression is trained on labels of mean 0 and standard deviation 1; at the end both go into its last linear
    layer, so that the network returns the labels' own unit.

    Parameters
    ----------
    model
        Returns one logit a class, ``(n, n_classes)``, or ``(n, 1)`` for a regression; it ends on `device`.
    images, labels
        Training set. Integer labels are classes, from 0; floating point labels are quantities to regress.
    val_images, val_labels
        Validation set: it decides when to stop and which epoch's weights are the best.
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
        Applied to every training batch, ``augment(images, generator)``; None for none.
    copies
        How often an epoch shows each training image, each time augmented anew.
    precision
        "float32", or "bf16" to compute in mixed bfloat16, which is faster on processors that know it.
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
        If a label is not one of the model's classes or not finite, or the model has several outputs for a
        regression.
    UnsupportedModelError
        If a network for a regression does not end with a linear layer.
    ParameterError
        If an option is unknown or out of its range.
    DivergedError
        If the validation loss is never finite.
    WeightsError
        If the checkpoint is damaged, or of another training.
    """
    counts = {"max_epochs": max_epochs, "patience": patience, "batch_size": batch_size, "copies": copies}
    for name, value in counts.items():
        if value < 1:
            raise ParameterError(f"{name} is {value}, expected 1 or more")
    if learning_rate <= 0:
        raise ParameterError(f"learning_rate is {learning_rate}, expected more than 0")
    for name, number in {"seed": seed, "weight_decay": weight_decay}.items():
        if number < 0:
            raise ParameterError(f"{name} is {number}, expected 0 or more")
    if precision not in PRECISIONS:
        raise ParameterError(f"unknown precision {precision!r}; known: {', '.join(PRECISIONS)}")
    if optimizer not in OPTIMIZERS:
        raise ParameterError(f"unknown optimizer {optimizer!r}; known: {', '.join(OPTIMIZERS)}")
    _check_set("training", images, labels)
    _check_set("validation", val_images, val_labels)
    target_device = resolve_device(device)
    task = task_of(labels, loss)
    n_outputs = _outputs(model, images[:1], 1, target_device).shape[1]
    for name, own in {"training": labels, "validation": val_labels}.items():
        _check_labels(name, own, n_outputs, task.is_regression)
    example = images[:1].to(target_device)
    if task.is_regression:
        output_layer(model, example)

    from xaitools.models._lightning import fit  # Lightning takes seconds to import

    record = fit(
        model,
        task,
        (images, task.targets(labels)),
        (val_images, task.targets(val_labels)),
        max_epochs=max_epochs,
        patience=patience,
        stop_at=stop_at,
        batch_size=batch_size,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        optimizer=optimizer,
        augment=augment,
        copies=copies,
        precision=precision,
        seed=seed,
        device=target_device,
        progress=progress,
        checkpoint=None if checkpoint_dir is None else Path(checkpoint_dir) / "last.ckpt",
    )
    if task.is_regression:
        rescale_output(model, example, task.scale, task.shift)
    return History(**{name: tuple(values) for name, values in record.items()})


def predict(
    model: nn.Module,
    images: Float[Tensor, "n channel *spatial"] | ImageStack,
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
    return _outputs(model, images, batch_size, resolve_device(device)).softmax(dim=1)


def predict_values(
    model: nn.Module,
    images: Float[Tensor, "n channel *spatial"] | ImageStack,
    *,
    batch_size: int = 64,
    device: str | torch.device = "auto",
) -> Float[Tensor, " n"]:
    """The quantity that a regression network measures, in the unit of the labels that it was trained on.

    Parameters
    ----------
    model
        Returns ``(n, 1)``. It is moved to `device`, used in evaluation mode, and left in the mode it came in.
    images, batch_size, device
        As for :func:`predict`.

    Returns
    -------
    Tensor
        float32 on the CPU.

    Raises
    ------
    DataError
        If there is no image.
    ShapeError
        If the model does not return one row an image.
    TargetError
        If the model has several outputs, as a classifier has.
    """
    outputs = _outputs(model, images, batch_size, resolve_device(device))
    _check_single(outputs.shape[1])
    return outputs[:, 0]


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


def _outputs(model: nn.Module, images: ImageStack, batch_size: int, device: torch.device) -> Tensor:
    if len(images) == 0:
        raise DataError("got no images to predict, expected at least one")
    was_training = model.training
    model.to(device).eval()
    try:
        with torch.inference_mode():
            outputs = torch.cat([model(batch).float().cpu() for batch in batches(images, batch_size, device)])
    finally:
        model.train(was_training)
    if outputs.ndim != 2:
        raise ShapeError(
            f"the model gives outputs of shape {tuple(outputs.shape)}, expected ({len(images)}, n_outputs)"
        )
    return outputs


def _check_set(name: str, images: ImageStack, labels: Tensor) -> None:
    if len(images) == 0:
        raise DataError(f"the {name} set is empty, expected at least one image")
    if len(images) != len(labels):
        raise ShapeError(
            f"the {name} set has {len(images)} images and {len(labels)} labels, expected as many"
        )
    if not isinstance(images, Tensor):
        return
    finite = images.isfinite().flatten(1).all(dim=1)
    if not finite.all():
        bad = (~finite).nonzero().flatten().tolist()
        raise DataError(
            f"{len(bad)} images of the {name} set have NaN or infinite values, first index {bad[0]}; "
            "leave them out or repair them"
        )


def _check_single(n_outputs: int) -> None:
    if n_outputs != 1:
        raise TargetError(
            f"the model has {n_outputs} outputs, as a classifier has: a regression needs a network with one output"
        )


def _check_labels(name: str, labels: Tensor, n_outputs: int, is_regression: bool) -> None:
    if is_regression:
        _check_single(n_outputs)
        if not labels.is_floating_point() or not labels.isfinite().all():
            raise TargetError(
                f"the {name} set has labels that are not finite numbers; leave these images out"
            )
        return
    outside = labels[(labels < 0) | (labels >= n_outputs)]
    if len(outside):
        raise TargetError(
            f"the {name} set has the label {int(outside[0])}, but the model has {n_outputs} classes: "
            f"expected labels 0 to {n_outputs - 1}"
        )
