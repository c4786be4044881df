"""captum's attribution classes, reachable by name as "captum.ClassName"."""

import inspect
from collections.abc import Callable
from typing import Any

from torch import Tensor

from xaitools.attribution._stream import AT_THE_IMAGE, Batch, Passes, Plan
from xaitools.attribution.registry import FAMILIES, Method, Setting, method_of
from xaitools.errors import MethodError, UnsupportedModelError

PREFIX = "captum."


def captum_method(name: str) -> Method:
    """The captum class behind "captum.ClassName" as a method.

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
    key = name.removeprefix(PREFIX)
    if key not in known:
        raise MethodError(f"captum has no attribution class {key!r}; it has {', '.join(sorted(known))}.")
    return _method(name, known[key])


FAMILIES[PREFIX] = captum_method


def _method(name: str, kind: Any) -> Method:
    constructor, attribute = (
        [
            key
            for key in inspect.signature(function).parameters
            if key not in ("self", "inputs", "target", *_MODELS)
        ]
        for function in (kind.__init__, kind.attribute)
    )

    def make(setting: Setting, **options: Any) -> Plan:
        at_construction = {key: options.pop(key) for key in list(options) if key in constructor}
        plain = setting.network.plain  # the original's modules, with their names
        if isinstance(at_construction.get("layer"), str):
            at_construction["layer"] = plain.get_submodule(at_construction["layer"])

        def attribute_(x: Tensor, target: Tensor | None) -> Tensor:
            return kind(plain, **at_construction).attribute(x, target=target, **options)

        def run(batch: Batch) -> Tensor:
            return _attribute(name, attribute_, batch)

        return Plan(Passes(setting.name, run), {"image": AT_THE_IMAGE})

    return method_of(
        make,
        name=name,
        kind="perturbation" if issubclass(kind, _perturbations()) else "path",
        label=name.removeprefix(PREFIX),
        idea=(inspect.getdoc(kind) or "").split("\n\n")[0],
        reference=f"captum, {kind.__name__}",
        keywords=dict.fromkeys([*constructor, *attribute]),
    )


_MODELS = ("forward_func", "model")


def _perturbations() -> type:
    from captum.attr import PerturbationAttribution

    return PerturbationAttribution


def _attribute(name: str, method: Callable[[Tensor, Tensor | None], Tensor], batch: Batch) -> Tensor:
    try:
        maps = method(batch.points.clone().requires_grad_(), batch.target)
    except (TypeError, RuntimeError, AssertionError) as error:
        raise UnsupportedModelError(f"{name} does not run here: {error}") from error
    if maps.shape != batch.points.shape:
        raise UnsupportedModelError(
            f"{name} returned shape {tuple(maps.shape)}, not that of the images {tuple(batch.points.shape)}; "
            "for layer methods choose a layer at the input's size, or interpolate its result yourself."
        )
    return maps.detach()
