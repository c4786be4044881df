"""captum's attribution classes, reachable by name as "captum.ClassName"."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from xaitools.attribution.gradient import path
from xaitools.attribution.names import CAPTUM, MethodName
from xaitools.attribution.sharing import Request, Source
from xaitools.errors import MethodError, UnsupportedModelError
from xaitools.models.surgery import frozen_copy


def source(name: MethodName, request: Request) -> Source:
    """What `attribute` computes for a method of captum, on a copy of the original, where modules keep their names."""
    method = functools.partial(captum_method(name.base), **request.options_of(name))
    original = frozen_copy(request.model)
    return Source(lambda _, points, target: method(original, points, target), {name.source: path()})


def captum_method(name: str) -> Callable[..., Tensor]:
    """The captum class behind "captum.ClassName" as a function ``(model, inputs, target, **options)``.

    Options go to the class's constructor or to its ``attribute``, whichever has them.

    Raises
    ------
    MethodError
        If captum has no such attribution class.
    """
    import captum.attr

    known = {
        key: value
        for key, value in vars(captum.attr).items()
        if inspect.isclass(value)
        and issubclass(value, captum.attr.Attribution)
        and hasattr(value, "attribute")
    }
    key = name.removeprefix(CAPTUM)
    if key not in known:
        raise MethodError(f"captum has no attribution class {key!r}; it has {', '.join(sorted(known))}.")
    return functools.partial(_attribute, known[key])


def _attribute(
    kind: Any, model: nn.Module, inputs: Tensor, target: Tensor | None = None, **options: Any
) -> Tensor:
    constructor = inspect.signature(kind.__init__).parameters
    at_construction = {key: options.pop(key) for key in list(options) if key in constructor}
    parameters = inspect.signature(kind.attribute).parameters
    unknown = [key for key in options if key not in parameters]
    if unknown:
        raise MethodError(
            f"captum.{kind.__name__} takes no option {unknown[0]!r}; it takes "
            f"{', '.join(key for key in [*constructor, *parameters] if key not in ('self', 'inputs', 'target'))}."
        )
    if isinstance(at_construction.get("layer"), str):
        at_construction["layer"] = model.get_submodule(at_construction["layer"])
    try:
        maps = kind(model, **at_construction).attribute(
            inputs.clone().requires_grad_(), target=target, **options
        )
    except (TypeError, RuntimeError, AssertionError) as error:
        raise UnsupportedModelError(f"captum.{kind.__name__} does not run here: {error}") from error
    if maps.shape != inputs.shape:
        raise UnsupportedModelError(
            f"captum.{kind.__name__} returned shape {tuple(maps.shape)}, not that of the images {tuple(inputs.shape)}; "
            "for layer methods choose a layer at the input's size, or interpolate its result yourself."
        )
    return maps.detach()
