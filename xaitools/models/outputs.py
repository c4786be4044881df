"""What a model returns, made one tensor of scores: (batch, outputs) or (batch,)."""

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from torch import Tensor, nn

from xaitools.errors import MethodError, UnsupportedModelError

Output = int | str | Callable[[Any], Tensor] | None
"""Which tensor of what a model returns: by place, by key or name, or by a function of it; None for the only one."""


class Answer(nn.Module):
    """A model whose forward pass returns one tensor, and leaves its input as it is.

    Parameters
    ----------
    model
        Returns anything.
    output
        Which tensor of that.
    fresh
        Whether it gets a copy of its input, as one needs that works in place on it.
    columns
        Outputs of an image, if they are to be laid out as (batch, columns).
    """

    def __init__(self, model: nn.Module, output: Output, fresh: bool, columns: int | None = None) -> None:
        super().__init__()
        self.model = model
        self.output = output
        self.fresh = fresh
        self.columns = columns

    def forward(self, images: Any) -> Any:  # tensors, or what torch.fx passes in their place
        found = self.model(images.clone() if self.fresh else images)
        if self.output is not None:
            found = pick(found, self.output)
        return found if self.columns is None else found.reshape(images.shape[0], self.columns)


def answering(model: nn.Module, output: Output, fresh: bool, columns: int | None = None) -> nn.Module:
    """The model itself where it needs nothing, else an `Answer` under the name of its class."""
    if output is None and not fresh and columns is None:
        return model
    kind = type(type(model).__name__, (Answer,), {})
    answer: nn.Module = kind(model, output, fresh, columns)
    return answer.train(model.training)


def pick(found: Any, output: Output) -> Any:
    """The tensor of what a model returned that `output` says."""
    if callable(output):
        return output(found)
    if isinstance(output, str) and not isinstance(found, Mapping):
        return getattr(found, output)
    return found[output]


def picked(found: Any, output: Output, name: str) -> tuple[Tensor, Output]:
    """The tensor of real numbers that is explained, and where it stands in what the model `name` returned.

    Raises
    ------
    MethodError
        If there is nothing at `output`, or no tensor.
    UnsupportedModelError
        If no output is named and there are several tensors, or none.
    """
    if output is None and not isinstance(found, Tensor):
        output = _only(found, name)
    if output is not None:
        try:
            found = pick(found, output)
        except (KeyError, IndexError, AttributeError, TypeError) as error:
            raise MethodError(
                f"output={output!r} with {name}, which returns {_described(found)}: {type(error).__name__}: {error}; "
                "expected the place, the key or a function of a tensor in it."
            ) from error
        if not isinstance(found, Tensor):
            raise MethodError(
                f"output={output!r} picks {_described(found)} of what {name} returns; expected a tensor: "
                "give a function that takes it out of there."
            )
    return found, output


def _only(found: Any, name: str) -> int | str:
    """Where the only tensor stands."""
    places = [place for place, value in _parts(found).items() if isinstance(value, Tensor)]
    if len(places) != 1:
        example = places[0] if places else "logits"
        raise UnsupportedModelError(
            f"The network {name} returns {_described(found)}; expected one tensor of scores: say which is to be "
            f"explained, as in output={example!r}, or give a function of what it returns."
        )
    return places[0]


def _parts(found: Any) -> dict[Any, Any]:
    """What can be picked, by its place or name."""
    if isinstance(found, Mapping):
        return dict(found)
    if is_dataclass(found) and not isinstance(found, type):
        return {field.name: getattr(found, field.name) for field in fields(found)}
    return dict(enumerate(found)) if isinstance(found, tuple | list) else {}


def _described(found: Any) -> str:
    if isinstance(found, Tensor):
        return f"a tensor of shape {tuple(found.shape)}"
    inside = ", ".join(
        f"{place!r}: {tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__}"
        for place, value in _parts(found).items()
    )
    return f"{type(found).__name__} ({inside})" if inside else f"an object of type {type(found).__name__}"


def columns_of(one: Tensor, three: Tensor) -> int | None:
    """Outputs of an image, where those of one image and of three are not yet laid out as (batch, outputs) or (batch,).

    A model that squeezes its outputs loses the axis of a single image, one that is convolutional to the end keeps
    spatial axes of one cell.
    """
    n = three.numel() // 3
    cells = three.shape[2:].numel() if three.ndim > 2 else 1
    if three.ndim == 0 or len(three) != 3 or one.numel() != n or cells != 1:
        return None
    laid_out = three.ndim <= 2 and tuple(one.shape) == (1, *three.shape[1:])
    return None if laid_out else n


def in_columns(outputs: Tensor, n_images: int) -> Tensor:
    """Outputs as (batch, outputs): the axis of a single image put back, and axes of one cell taken away."""
    if outputs.ndim == 0 or (n_images == 1 and len(outputs) != 1):
        outputs = outputs[None]
    if outputs.ndim == 1 or outputs.shape[2:].numel() == 1:
        outputs = outputs.reshape(len(outputs), -1)
    return outputs
