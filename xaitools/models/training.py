"""Train a network that one has."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from xaitools.errors import DataError, ShapeError, TargetError
from xaitools.files import digest
from xaitools.models.checkpoint import Checkpoint
from xaitools.models.devices import resolve_device, warn_of_bfloat16
from xaitools.models.history import History
from xaitools.models.images import LabelledImages
from xaitools.models.images import digest as digest_of_images
from xaitools.models.loop import Loop
from xaitools.models.prediction import check_single_output, outputs_of
from xaitools.models.settings import TrainingSettings
from xaitools.models.tasks import output_layer, task_of


def train(
    model: nn.Module,
    training: LabelledImages,
    validation: LabelledImages,
    *,
    device: str | torch.device = "auto",
    progress: bool = True,
    checkpoint: str | Path | None = None,
    keep_epochs: str | Path | None = None,
    **settings: Any,
) -> History:
    """Train a network in place, and leave it with its best weights, in evaluation mode.

    Images in a tensor are kept in the device's memory; those of another stack are read batch by batch. The same
    seed and model on the same processor give the same weights. Ctrl-C ends the training at once.

    A regression is trained on labels of mean 0 and standard deviation 1; at the end both go into its last linear
    layer, so that the network returns the labels' own unit.

    Parameters
    ----------
    model
        Returns one logit a class, ``(n, n_classes)``, or ``(n, 1)`` for a regression; it ends on `device`.
    training
        :class:`~xaitools.data.samples.Samples`, or anything with the same ``images``, ``labels``, ``class_names``
        and ``unit``. Integer labels are classes, from 0; floating point labels are quantities to regress.
    validation
        Likewise: it decides when to stop and which epoch's weights are the best.
    device
        As in :func:`~xaitools.models.devices.resolve_device`.
    progress
        Show a progress bar.
    checkpoint
        File for the state after every epoch. A training that was killed or interrupted goes on from it when the
        call is made again, and ends with the same weights; once done, the file is deleted. A damaged one is as good
        as none, and the log says so.
    keep_epochs
        Folder in which the weights after each epoch stay, ``epoch-0001.safetensors`` on, for
        :func:`xaitools.interpretation.training_influence`. Those of another training in it are deleted. A network
        for a regression has its standardised labels' scale there.
    **settings
        Options of :class:`~xaitools.models.settings.TrainingSettings`.

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
        If the checkpoint is of another training, or no checkpoint, which is not to be overwritten.
    """
    options = TrainingSettings(**settings)
    loop = checked_loop(model, training, validation, options, device)
    loop.keep_epochs = None if keep_epochs is None else Path(keep_epochs)
    if checkpoint is None:
        return loop.run(None, progress)
    shapes = [f"{name}{tuple(value.shape)}" for name, value in model.state_dict().items()]
    data = (training.images, training.labels, validation.images, validation.labels)
    file = Checkpoint(
        Path(checkpoint),
        {**options.identity, "data": digest_of_images(*data), "model": digest(shapes)},
    )
    history = loop.run(file, progress)
    file.remove()
    return history


def checked_loop(
    model: nn.Module,
    training: LabelledImages,
    validation: LabelledImages,
    settings: TrainingSettings,
    device: str | torch.device,
) -> Loop:
    """The training that :func:`train` describes, ready to run; bad input raises its errors here."""
    sets = {"training": training, "validation": validation}
    for name, labelled in sets.items():
        _check_images(name, labelled)
    task = task_of(training.labels, settings.loss)
    place = resolve_device(device)
    warn_of_bfloat16(settings.precision, place)
    n_outputs = outputs_of(model.to(place), training.images[:1]).shape[1]
    for name, labelled in sets.items():
        _check_labels(name, labelled.labels, n_outputs, task.is_regression)
    if task.is_regression:
        output_layer(model, training.images[:1].to(place))
    learned, judged = ((labelled.images, task.targets(labelled.labels)) for labelled in sets.values())
    return Loop(model, task, learned, judged, settings, place)


def _check_images(name: str, labelled: LabelledImages) -> None:
    images, labels = labelled.images, labelled.labels
    if isinstance(images, np.ndarray) or not isinstance(labels, Tensor):
        raise DataError(
            f"the {name} set has images of type {type(images).__name__} and labels of type "
            f"{type(labels).__name__}; expected tensors: convert them with torch.as_tensor."
        )
    if len(images) == 0:
        raise DataError(f"the {name} set is empty; expected at least one image.")
    if len(images) != len(labels):
        raise ShapeError(
            f"the {name} set has {len(images)} images and {len(labels)} labels; expected as many."
        )
    if not isinstance(images, Tensor):
        return
    bad = (~images.isfinite().flatten(1).all(dim=1)).nonzero().flatten().tolist()
    if bad:
        raise DataError(
            f"{len(bad)} images of the {name} set have NaN or infinite values, first index {bad[0]}; "
            "expected finite values: leave them out or repair them."
        )


def _check_labels(name: str, labels: Tensor, n_outputs: int, is_regression: bool) -> None:
    if is_regression:
        check_single_output(n_outputs)
        if not labels.is_floating_point() or not labels.isfinite().all():
            raise TargetError(
                f"the {name} set has labels that are not finite numbers; expected quantities: "
                "leave these images out."
            )
        return
    outside = labels[(labels < 0) | (labels >= n_outputs)]
    if len(outside):
        raise TargetError(
            f"the {name} set has the label {int(outside[0])}, but the model has {n_outputs} classes; "
            f"expected labels 0 to {n_outputs - 1}: leave these images out, or give a network with more outputs."
        )
