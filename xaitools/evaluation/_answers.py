"""What a model says of many images, a batch at a time: any callable, or a network where and as it is."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain, islice
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn

from xaitools.checks import check_within
from xaitools.errors import DataError, ParameterError, ShapeError, TargetError
from xaitools.models.images import quick_forward
from xaitools.models.outputs import Output, in_columns, picked
from xaitools.models.prediction import are_probabilities
from xaitools.progress import Progress, Teller

Model = nn.Module | Callable[[Tensor], Tensor]
Question = tuple[Float[np.ndarray, "channel *spatial"], int | None, int]
"""An image, the target whose output is asked for, and how many points of curves the answer is for."""


@contextmanager
def asking(
    model: Any, *, softmax: bool = False, output: Output = None
) -> Iterator[Callable[[Tensor], Tensor]]:
    """The outputs of a model for a batch of images on the CPU.

    A network is used on its own device and in its own precision, in evaluation mode and without gradients; its modes
    are restored. With `softmax` probabilities are expected: of a network's logits the softmax is taken, what any other
    callable returns has to be that. Without it, a callable is used as it is.

    Raises
    ------
    ParameterError
        If the model is neither.
    TargetError, DataError
        If probabilities are asked for of a single output, or a callable returns what is none.
    """
    if not isinstance(model, nn.Module):
        if not callable(model):
            raise ParameterError(
                f"model is of type {type(model).__name__}; expected a network or a callable of a batch: load it first."
            )
        yield (lambda batch: _probabilities(model(batch))) if softmax else model
        return
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            forward = _forward(model)

            def scores(batch: Tensor) -> Tensor:
                found = picked(forward(batch), output, type(model).__name__)[0]
                return in_columns(_tensor(found), len(batch))

            yield (lambda batch: _softmax(scores(batch))) if softmax else scores
    finally:
        for module, training in modes:
            module.training = training


def _forward(model: nn.Module) -> Callable[[Tensor], Any]:
    """The network's forward pass, where and in the precision it is."""
    like = next(filter(torch.is_floating_point, chain(model.parameters(), model.buffers())), torch.empty(0))
    forward = quick_forward(model)
    return lambda batch: forward(batch.to(like))


def answers(
    ask: Callable[[Tensor], Tensor],
    questions: Iterator[Question],
    batch_size: int,
    *,
    total: int,
    progress: bool | Progress,
    what: str,
) -> Float64[np.ndarray, " question"]:
    """The output for each image's target, or the single output where the target is None.

    Raises
    ------
    ShapeError
        If the model does not return a row an image.
    TargetError
        If a target is not one of its outputs, or there is none but several outputs.
    DataError
        If an output is not finite.
    """
    found = []
    with Teller(total, progress, what, "point") as tell:
        while batch := list(islice(questions, batch_size)):
            images, targets, points = zip(*batch, strict=True)
            found.append(_chosen(ask(torch.from_numpy(np.stack(images))), targets))
            tell(sum(points))
    return np.concatenate(found)


def _tensor(outputs: Any) -> Tensor:
    try:
        return torch.as_tensor(outputs).detach().cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise ShapeError(
            f"the model returned a {type(outputs).__name__}; expected a tensor with a row for each image: "
            "give a callable that returns that."
        ) from error


def _softmax(scores: Tensor) -> Tensor:
    logits = scores.float()
    if logits.ndim != 2 or logits.shape[1] == 1:
        raise TargetError(
            f"the network returned shape {tuple(logits.shape)}; expected a row of logits, one for each class, of which "
            "the softmax is taken: for a regression use region_perturbation, else give a callable that returns "
            "probabilities."
        )
    return logits if are_probabilities(logits) else logits.softmax(dim=1)


def _probabilities(outputs: Any) -> Tensor:
    found = _tensor(outputs)
    if ((found < 0) | (found > 1 + 1e-3)).any():
        raise DataError(
            f"the callable returned values from {found.min():.3g} to {found.max():.3g}; expected probabilities, 0 to "
            "1: take the softmax in it, or give the network itself."
        )
    return found


def _chosen(outputs: Any, targets: tuple[int | None, ...]) -> np.ndarray:
    table, n = _tensor(outputs).double(), len(targets)
    shape = tuple(table.shape)
    if table.ndim == 1:
        table = table[:, None]
    if table.ndim != 2 or len(table) != n or not table.shape[1]:
        raise ShapeError(
            f"the model returned shape {shape} for {n} images; expected ({n}, n_classes), or ({n},) or ({n}, 1) of a "
            "regression: give a callable that returns that."
        )
    rows = torch.tensor([0 if target is None else target for target in targets])
    _check_target(rows, targets[0] is not None, table.shape[1])
    chosen = table[torch.arange(n), rows]
    if not torch.isfinite(chosen).all():
        raise DataError(
            "the model returned NaN or infinity; expected finite outputs: check it on the perturbed images."
        )
    return chosen.numpy()


def _check_target(target: Tensor, given: bool, n_outputs: int) -> None:
    if not given and n_outputs != 1:
        raise TargetError(
            f"the model returned {n_outputs} outputs for an image, and target=None; expected the single output of a "
            "regression: for a classifier give target, one class for all images, or one for each."
        )
    if n_outputs == 1 and target.any():
        raise TargetError(
            f"target {int(target[target.nonzero()[0]])} with a model of a single output; expected None or 0: "
            "leave target out for a regression, or return an output for each class."
        )
    check_within(target, n_outputs)
