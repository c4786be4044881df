"""What a network says: probabilities, or the quantity that it measures."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from xaitools.checks import check_counts
from xaitools.errors import DataError, ShapeError, TargetError
from xaitools.models.devices import resolve_device
from xaitools.models.images import ImageStack, batches, quick_forward
from xaitools.models.outputs import Output, in_columns, picked


def predict(
    model: nn.Module,
    images: Float[Tensor, "n channel *spatial"] | ImageStack,
    *,
    output: Output = None,
    device: str | torch.device | None = None,
    batch_size: int = 64,
) -> Float[Tensor, "n classes"]:
    """Class probabilities: the softmax of the model's logits, or its outputs where they are probabilities already.

    Parameters
    ----------
    model
        Returns logits ``(n, n_classes)``, or probabilities: rows from 0 to 1 that sum to 1. It is used in evaluation
        mode, and stays where and as it is.
    images
        Images on any device, an array of them, or a stack that reads them when it is indexed.
    output
        Which tensor of what the model returns, as in `xaitools.attribute`; None for the only one.
    device
        Where to compute: None for where the model is; for another device, as in
        :func:`~xaitools.models.devices.resolve_device`, a copy of the model goes there.
    batch_size
        Images in one forward pass.

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
    outputs = outputs_of(model, images, device, batch_size, output)
    return outputs if are_probabilities(outputs) else outputs.softmax(dim=1)


def predict_values(
    model: nn.Module,
    images: Float[Tensor, "n channel *spatial"] | ImageStack,
    *,
    output: Output = None,
    device: str | torch.device | None = None,
    batch_size: int = 64,
) -> Float[Tensor, " n"]:
    """The quantity that a regression network measures, in the unit of the labels that it was trained on.

    Parameters
    ----------
    model
        Returns ``(n, 1)``. It is used in evaluation mode, and stays where and as it is.
    images, output, device, batch_size
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
    outputs = outputs_of(model, images, device, batch_size, output)
    check_single_output(outputs.shape[1])
    return outputs[:, 0]


def are_probabilities(outputs: Float[Tensor, "n classes"]) -> bool:
    """Whether each row lies from 0 to 1 and sums to 1 up to rounding, as after a softmax."""
    ones = torch.ones(len(outputs), dtype=outputs.dtype, device=outputs.device)
    bounded = bool(((outputs >= 0) & (outputs <= 1)).all())
    return outputs.shape[1] > 1 and bounded and torch.allclose(outputs.sum(1), ones, rtol=0, atol=1e-2)


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
        raise DataError("got no labels; expected at least one.")
    return (probabilities.argmax(dim=1) == labels).double().mean().item()


def outputs_of(
    model: nn.Module,
    images: ImageStack,
    device: str | torch.device | None = None,
    batch_size: int = 64,
    output: Output = None,
) -> Float[Tensor, "n outputs"]:
    """What the model returns for each image, float32 on the CPU; see :func:`predict`."""
    check_counts(batch_size=batch_size)
    if isinstance(images, np.ndarray):
        images = torch.from_numpy(np.ascontiguousarray(images))
    if len(images) == 0:
        raise DataError("got no images to predict; expected at least one.")
    weights = [tensor for tensor in chain(model.parameters(), model.buffers()) if tensor.is_floating_point()]
    kind = weights[0] if weights else torch.empty(())
    here = kind.device
    there = here if device is None else resolve_device(device)
    if there != here:
        model = copy.deepcopy(model).to(there)
    with evaluating(model):
        forward, name = quick_forward(model), type(model).__name__
        outputs = torch.cat(
            [
                in_columns(
                    picked(forward(batch.to(kind.dtype, copy=True)), output, name)[0].float().cpu(),
                    len(batch),
                )
                for batch in batches(images, batch_size, there)
            ]
        )
    if outputs.ndim != 2 or len(outputs) != len(images):
        raise ShapeError(
            f"the model gives outputs of shape {tuple(outputs.shape)}; expected ({len(images)}, n_outputs)."
        )
    return outputs


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; afterwards each layer is in the mode it came in."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def check_single_output(n_outputs: int) -> None:
    """Raise TargetError unless the model has one output, as a regression needs."""
    if n_outputs != 1:
        raise TargetError(
            f"the model has {n_outputs} outputs, as a classifier has; expected one, as a regression needs: "
            "give a network that ends with one output."
        )
