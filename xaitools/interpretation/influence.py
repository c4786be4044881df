"""Which training images made the network what it is: TracIn, and the answer by training again without each."""

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from scipy.stats import spearmanr
from torch import Tensor, nn

from xaitools.checks import check_counts, check_positive, checked_images
from xaitools.errors import DataError, ParameterError, ShapeError, UnsupportedModelError, WeightsError
from xaitools.models import ImageStack, LabelledImages, epoch_files, load_epoch, train
from xaitools.models.images import batches
from xaitools.models.outputs import in_columns
from xaitools.models.tasks import LOSSES, Task, task_of
from xaitools.progress import Progress, Teller

HELPFUL, HARMFUL = "helpful", "harmful"


def training_influence(
    model: nn.Module,
    training: LabelledImages,
    test: LabelledImages,
    epochs: str | Path | Sequence[Mapping[str, Tensor]],
    *,
    last: int | None = None,
    every: int = 1,
    loss: str = "auto",
    learning_rate: float = 1e-3,
    batch_size: int = 16,
    progress: bool | Progress = True,
) -> Float[Tensor, "test training"]:
    """TracIn of the last linear layer: by how much a step on each training image lowered the loss of each test image.

    The sum over epochs of ``learning_rate * <gradient of the training loss, gradient of the test loss>``, with the
    weights of each epoch, in evaluation mode and without augmentation. Above 0 a training image helped, below 0 it
    harmed. Only the last layer's weights and bias count, as in captum's TracInCPFast, whose values these are where the
    layer has no bias; captum leaves out the bias's gradient, and passes the test images anew for each training batch.
    The formula is that of plain gradient descent: after training by Adam, as ours, read ranks and not sizes, and
    compare with :func:`leave_one_out` where that can be afforded.

    Parameters
    ----------
    model
        The network, which gives the architecture; it stays as it is.
    training, test
        Images and labels as :func:`xaitools.models.train` takes them; `training` is what the network was trained on.
    epochs
        The folder that was given to :func:`xaitools.models.train` or ``fit`` as `keep_epochs`, or the weights of each
        epoch by name.
    last
        Use the epochs up to this one, counted from 1: the one whose weights were kept is
        ``history.best_epoch + 1``. None for all.
    every
        Use each such epoch only, counted back from the last, where all would take too long.
    loss, learning_rate
        As in the training.
    batch_size
        Images in one forward pass.
    progress
        Show a bar, or a function ``progress(done, total)`` that is told of every epoch.

    Returns
    -------
    Tensor
        float64 on the CPU, in the unit of the loss (nats; for a regression that of standardised labels).

    Raises
    ------
    WeightsError
        If the folder has no epochs or lacks some, or they are of another network.
    UnsupportedModelError
        If the network does not end with a linear layer.
    ParameterError
        If `last` is beyond the epochs there are.
    TargetError
        If labels do not fit the loss.

    References
    ----------
    Pruthi et al. 2020, Estimating training data influence by tracing gradient descent, arXiv:2002.08484, section 3.2
    and appendix F.
    """
    check_positive(learning_rate=learning_rate)
    check_counts(every=every, batch_size=batch_size)
    states = epoch_files(epochs) if isinstance(epochs, str | Path) else list(epochs)
    if last is not None:
        check_counts(last=last)
        if last > len(states):
            raise ParameterError(
                f"last={last} with {len(states)} epochs; expected no more than there are: take history.best_epoch + 1."
            )
        states = states[:last]
    states = states[::-every][::-1]
    if not states:
        raise WeightsError(
            "epochs is empty; expected the weights of one epoch or more: train with keep_epochs=FOLDER."
        )
    task = task_of(training.labels, loss)
    replica = copy.deepcopy(model).eval()
    total: Tensor | None = None
    with Teller(len(states), progress, "tracing influence", "epoch") as tell:
        for state in states:
            _fill(replica, state)
            given, slopes = _last_layer(replica, training, task, batch_size)
            test_given, test_slopes = _last_layer(replica, test, task, batch_size)
            step = learning_rate * (test_given @ given.T) * (test_slopes @ slopes.T)
            total = step if total is None else total + step
            tell(1)
    assert total is not None
    return total.cpu()


def leave_one_out(
    model: nn.Module,
    training: LabelledImages,
    validation: LabelledImages,
    test: LabelledImages,
    left_out: Sequence[int] | None = None,
    *,
    device: str | torch.device = "auto",
    progress: bool | Progress = True,
    **settings: Any,
) -> Float[Tensor, "test left_out"]:
    """Train again without each training image: by how much the loss of each test image rises.

    Every training starts from the weights that `model` has now, with the same seed. The order of the batches changes
    with the number of images, which is noise that no influence explains, as dropout and augmentation are: there is none
    where `batch_size` takes in all images, so that an epoch is one step.

    Parameters
    ----------
    model
        The network before its training; it stays as it is.
    training, validation, test
        As for :func:`xaitools.models.train`; `validation` decides the epoch in each training alike.
    left_out
        Positions of the training images to leave out, one at a time; None for all.
    device, **settings
        As for :func:`xaitools.models.train`.
    progress
        Show a bar, or a function ``progress(done, total)`` that is told of every training.

    Returns
    -------
    Tensor
        float64 on the CPU, in the unit of the loss: above 0 for images that helped, as in :func:`training_influence`.

    Raises
    ------
    ParameterError
        If a position is none of the training set, or the set has one image only.
    XaitoolsError
        As :func:`xaitools.models.train` raises.
    """
    n = len(training.images)
    positions = list(range(n)) if left_out is None else list(left_out)
    if n < 2 or not positions or not all(0 <= position < n for position in positions):
        raise ParameterError(
            f"left_out={left_out} of {n} training images; expected positions from 0 to {n - 1}, of two images or more."
        )
    task = task_of(training.labels, settings.get("loss", "auto"))

    def losses(kept: Tensor) -> Tensor:
        own = copy.deepcopy(model)
        subset = _subset(training, kept)
        train(own, subset, validation, device=device, progress=False, **settings)
        return _losses(own, test, task)

    everything = torch.arange(n)
    with Teller(len(positions) + 1, progress, "leaving one out", "training") as tell:
        whole = losses(everything)
        tell(1)
        rises = []
        for position in positions:
            rises.append(losses(everything[everything != position]) - whole)
            tell(1)
    return torch.stack(rises, 1)


def influence_table(
    influence: Float[Tensor, "test training"],
    training: LabelledImages,
    test: LabelledImages,
    *,
    k: int = 3,
) -> pd.DataFrame:
    """The `k` most helpful and the `k` most harmful training images of each test image.

    Parameters
    ----------
    influence
        As :func:`training_influence` or :func:`leave_one_out` returns it.
    training, test
        The sets; class names are shown where there are any.
    k
        Rows of either kind; fewer where fewer training images helped or harmed.

    Returns
    -------
    DataFrame
        ``test``, ``test_label``, ``kind`` ("helpful" or "harmful"), ``rank`` (from 1, the strongest), ``training``
        (position), ``label``, ``influence``.

    Raises
    ------
    ShapeError
        If there is not one row a test image and one column a training image.
    """
    check_counts(k=k)
    shape = (len(test.labels), len(training.labels))
    if tuple(influence.shape) != shape:
        raise ShapeError(
            f"influence of shape {tuple(influence.shape)}; expected {shape}, a row for each test image and a column "
            "for each training image."
        )
    rows = []
    for number, values in enumerate(influence):
        for kind, sign in ((HELPFUL, 1), (HARMFUL, -1)):
            order = (sign * values).argsort(descending=True, stable=True)[:k]
            strong = [int(position) for position in order if sign * values[position] > 0]
            rows += [
                {
                    "test": number,
                    "test_label": _name(test, number),
                    "kind": kind,
                    "rank": rank,
                    "training": position,
                    "label": _name(training, position),
                    "influence": float(values[position]),
                }
                for rank, position in enumerate(strong, start=1)
            ]
    return pd.DataFrame(
        rows, columns=["test", "test_label", "kind", "rank", "training", "label", "influence"]
    )


def influence_agreement(
    influence: Float[Tensor, "test training"], retrained: Float[Tensor, "test left_out"]
) -> pd.DataFrame:
    """Spearman's correlation of TracIn with the change of the loss by retraining, for each test image.

    Parameters
    ----------
    influence, retrained
        As :func:`training_influence` and :func:`leave_one_out` return them, of the same training images.

    Returns
    -------
    DataFrame
        ``test``, ``spearman`` (NaN where either is constant), ``n`` training images.

    Raises
    ------
    ShapeError
        If their shapes differ.
    DataError
        If there are fewer than three training images.
    """
    if influence.shape != retrained.shape:
        raise ShapeError(
            f"influence of shape {tuple(influence.shape)} and retrained of {tuple(retrained.shape)}; expected the same "
            "shape: take the columns of the images that were left out."
        )
    if influence.shape[1] < 3:
        raise DataError(f"{influence.shape[1]} training images; expected three or more to compare ranks.")
    rows = []
    for number, (own, other) in enumerate(zip(influence.numpy(), retrained.numpy(), strict=True)):
        constant = np.ptp(own) == 0 or np.ptp(other) == 0
        rho = np.nan if constant else float(spearmanr(own, other).statistic)
        rows.append({"test": number, "spearman": rho, "n": len(own)})
    return pd.DataFrame(rows)


def _fill(model: nn.Module, state: Mapping[str, Tensor] | Path) -> None:
    own = load_epoch(state) if isinstance(state, Path) else state
    try:
        model.load_state_dict(own)
    except RuntimeError as error:
        raise WeightsError(
            f"the weights of an epoch do not fit {type(model).__name__}; expected those of the same network: "
            f"{str(error).splitlines()[-1].strip()}"
        ) from error


def _last_layer(
    model: nn.Module, labelled: LabelledImages, task: Task, batch_size: int
) -> tuple[Float[Tensor, "n feature"], Float[Tensor, "n output"]]:
    """What the last linear layer is given, with a 1 for its bias, and the gradients of the losses by its output."""
    given, slopes = [], []
    targets = task.targets(labelled.labels)
    start = 0
    for batch in _placed(model, labelled.images, batch_size):
        inputs, outputs, bias = _through(model, batch)
        logits = outputs.double().detach().requires_grad_()
        goal = targets[start : start + len(batch)].to(logits.device)
        start += len(batch)
        (slope,) = torch.autograd.grad(_each(task, logits, goal).sum(), [logits])
        ones = inputs.new_ones(len(inputs), int(bias), dtype=torch.float64)
        given.append(torch.cat([inputs.double(), ones], 1))
        slopes.append(slope)
    return torch.cat(given), torch.cat(slopes)


def _through(model: nn.Module, batch: Tensor) -> tuple[Tensor, Tensor, bool]:
    """Input and output of the linear layer whose output the model returns, and whether it has a bias."""
    calls: list[tuple[nn.Linear, Tensor, Tensor]] = []
    hooks = [
        module.register_forward_hook(partial(_note, calls))
        for module in model.modules()
        if isinstance(module, nn.Linear)
    ]
    try:
        with torch.no_grad():
            returned = model(batch)
    finally:
        for hook in hooks:
            hook.remove()
    if not calls or calls[-1][2] is not returned or calls[-1][1].ndim != 2:
        raise UnsupportedModelError(
            f"{type(model).__name__} does not return what a linear layer gives; expected a network that ends with "
            "nn.Linear: TracIn is computed for that layer."
        )
    layer, inputs, outputs = calls[-1]
    return inputs, outputs, layer.bias is not None


def _note(calls: list[Any], module: nn.Module, inputs: Any, output: Tensor) -> None:
    calls.append((module, inputs[0], output))


def _each(task: Task, outputs: Tensor, targets: Tensor) -> Float[Tensor, " n"]:
    """The loss of each image."""
    loss: Callable[..., Tensor] = LOSSES[task.loss]
    if task.is_regression:
        return loss(outputs[:, 0], targets.to(outputs), reduction="none")
    return loss(outputs, targets, reduction="none")


def _losses(model: nn.Module, labelled: LabelledImages, task: Task) -> Float[Tensor, " n"]:
    """Loss of each image under a trained model, whose regression is in the labels' own unit again."""
    with torch.no_grad():
        outputs = torch.cat(
            [in_columns(model(batch), len(batch)) for batch in _placed(model, labelled.images, 16)]
        )
    outputs = outputs.double().cpu()
    if task.is_regression:
        outputs = (outputs - task.shift) / task.scale
    return _each(task, outputs, task.targets(labelled.labels).cpu())


def _placed(model: nn.Module, images: ImageStack, batch_size: int) -> Any:
    device = next(model.parameters()).device
    return (checked_images(batch) for batch in batches(images, batch_size, device))


def _subset(labelled: LabelledImages, kept: Tensor) -> Any:
    return SimpleNamespace(
        images=labelled.images[kept],
        labels=labelled.labels[kept],
        class_names=labelled.class_names,
        unit=labelled.unit,
    )


def _name(labelled: LabelledImages, position: int) -> Any:
    label = labelled.labels[position].item()
    return labelled.class_names[int(label)] if labelled.class_names else label
