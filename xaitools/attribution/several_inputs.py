"""Maps of networks that take several inputs, such as an image and a table of clinical data."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from math import prod
from typing import Any

import torch
from torch import Tensor, fx, nn

from xaitools.attribution._rebinding import named_after, rebind
from xaitools.attribution._together import Together, of_all_images, own_options
from xaitools.attribution.attribute import InputMaps, Maps, attribute
from xaitools.attribution.names import MethodName, parse_all
from xaitools.attribution.xrai import Segments, segment_all, xrai
from xaitools.checks import Target, as_tensor, check_choice, checked_contrast, checked_images, checked_target
from xaitools.errors import (
    DataError,
    MethodError,
    ParameterError,
    ShapeError,
    UnsupportedModelError,
    XaitoolsError,
)
from xaitools.models.network import Network
from xaitools.models.outputs import Output
from xaitools.models.surgery import unwrapped
from xaitools.progress import Progress

JOINT = (
    "gradient",
    "input_x_gradient",
    "integrated_gradients",
    "expected_gradients",
    "guided_integrated_gradients",
    "idgi",
    "deconvolution",
    "guided_backprop",
    "lrp",
    "deep_taylor",
)
"""Methods to which it is all one where a number stands: they explain all inputs at once."""
OF_NEIGHBOURS = ("blur_integrated_gradients", "meaningful_perturbation", "extremal_perturbation")
"""Methods of neighbouring voxels, which no table can be given to."""
ONE_EACH = ("baseline", "baselines", "low", "high", "label_map")
"""Options that may be tuples, one part an input."""


def attribute_inputs(
    model: nn.Module,
    inputs: Sequence[Any],
    target: Target = None,
    methods: str | Sequence[str] = ("gradient",),
    *,
    held: Sequence[int] = (),
    references: Sequence[Any] | None = None,
    baselines: Mapping[str, Any] | None = None,
    segments: Sequence[Sequence[Segments] | None] | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    output: Output = None,
    precision: str = "float32",
    on_error: str = "raise",
    progress: bool | Progress = True,
    **settings: Any,
) -> InputMaps:
    """Attribution maps of a network that takes several inputs, for each of them.

    Gradients, integrated gradients and their relatives, and rules of back-propagation explain all inputs together: on
    a path all of them move at once, and the sums over all of them are what is complete. Occlusion, blur integrated
    gradients and captum's methods change one input while the others stay as they are. Inputs that are held stay as
    they are always, and have no map.

    Noise is added to each image in proportion to its own range, and to tables not at all. A table has no regions: with
    ``@xrai`` its columns stay as they are. Occlusion hides a table column by column.

    Parameters
    ----------
    model
        Network that takes the inputs one after the other; it is not changed.
    inputs
        Images or volumes (batch, channel, \\*spatial) and tables (batch, columns), as the network takes them. Whole
        numbers in a table are taken as real ones unless it is held; what is held may have any shape (batch, \\*rest).
    target, methods, output, precision, on_error, progress, \\**settings
        As `attribute` takes them.
    held
        Places of the inputs that are not explained: ``held=(1,)`` for the second.
    references
        For expected gradients: a tuple, one tensor (reference, \\*rest) an input; a reference is a row of all of them.
        None in the place of a held one.
    baselines
        More baselines by name: numbers, or tuples with a number or tensor (\\*rest) for each input. "black" (0) and
        "white" (1) stand for all of them, and so does the 0 with which occlusion hides: rarely what a table means
        by nothing.
    segments
        For each input, None or one `Segments` an image.
    options
        As `attribute` takes them; baseline, baselines, low, high and label_map may be tuples, one part an input.

    Returns
    -------
    InputMaps
        A dict from the names in `methods` to tuples of maps.

    Raises
    ------
    MethodError, TargetError
        As `attribute` does; and if a method cannot be had for a table.
    DataError
        If an input is not finite or holds no numbers.
    ShapeError
        If inputs, baselines or references do not fit together.
    ParameterError
        If there is no such input to hold, or all are held.
    UnsupportedModelError
        If a method would be wrong on this network, or its output has no gradient with respect to an input.
    """
    names = parse_all(methods)
    check_choice(MethodError, on_error=(on_error, ("raise", "keep")))
    model = unwrapped(model)
    values = checked_inputs(inputs, held)
    _check_call(model, values)
    free = tuple(k for k in range(len(values)) if k not in held)
    found = InputMaps()
    left = {}
    for text, name in names.items():
        try:
            _check_method(name, values, free)
            left[text] = name
        except MethodError as error:
            if on_error == "raise":
                raise
            found.errors[text] = error
    jobs = _jobs(model, values, free, list(left.values()), precision, output)
    with Together(sum(len(job.calls) for job in jobs), progress) as together:
        for job in jobs:
            shared = {
                "references": job.references(references),
                "baselines": job.baselines(baselines or {}),
                "options": job.options(options or {}),
                "noise_range": job.noise_range,
            }
            job.run(target, together, on_error=on_error, precision=precision, **shared, **settings)
    found.passes = sum(job.maps.passes for job in jobs)
    for text, name in left.items():
        own = [job for job in jobs if name in job.names]
        errors = [job.maps.errors[job.asked(name)] for job in own if job.asked(name) in job.maps.errors]
        if errors:
            found.errors[text] = errors[0]
            continue
        parts = {k: part for job in own for k, part in job.parts(name).items()}
        found[text] = tuple(parts.get(k) for k in range(len(values)))
        for kind in ("completeness_gap", "relevance_gap"):
            if len(own) == 1 and name.source in (gaps := getattr(own[0].maps, kind)):
                getattr(found, kind)[name.source] = gaps[name.source]
    _rank_regions(found, left, values, segments, on_error)
    return found


def checked_inputs(inputs: Sequence[Any], held: Sequence[int]) -> list[Tensor]:
    """The inputs as tensors, of the same number of images or rows, all finite; those to explain are real numbers.

    Raises
    ------
    DataError
        If they hold no numbers, NaN or infinity.
    ShapeError
        If they are no images and no tables, or not equally many.
    ParameterError
        If there is no such input to hold, or none is left.
    """
    if any(isinstance(k, bool) or not isinstance(k, int) or not 0 <= k < len(inputs) for k in held):
        raise ParameterError(
            f"held={held!r} with {len(inputs)} inputs; expected places from 0 to {len(inputs) - 1}."
        )
    if len(set(held)) == len(inputs):
        raise ParameterError(
            f"held={held!r} with {len(inputs)} inputs leaves nothing to explain; name fewer."
        )
    values = [_checked_input(value, f"input {k}", k in held) for k, value in enumerate(inputs)]
    if len({len(value) for value in values}) > 1:
        raise ShapeError(
            f"inputs of {', '.join(str(len(value)) for value in values)} images or rows; expected as many of each: the "
            "first axis of all is the batch."
        )
    return values


def _checked_input(value: Any, name: str, held: bool) -> Tensor:
    tensor = as_tensor(value, name)
    if tensor.is_complex():
        raise DataError(f"{name} is {tensor.dtype}; expected real numbers.")
    if not bool(torch.isfinite(tensor).all()):
        raise DataError(f"{name} contains NaN or infinity; expected finite values: fill in what is missing.")
    if held and tensor.ndim > 0 and 0 not in tensor.shape:
        return tensor
    if tensor.ndim == 2 and 0 not in tensor.shape:
        return tensor if tensor.is_floating_point() else tensor.to(torch.get_default_dtype())
    if tensor.ndim in (4, 5):
        return checked_images(tensor, name=name)
    raise ShapeError(
        f"{name} of shape {tuple(tensor.shape)}; expected images (batch, channel, *spatial) or a table (batch, "
        "columns) with at least one row: give a single column as (batch, 1), or hold what is neither."
    )


def _check_call(model: nn.Module, values: Sequence[Tensor]) -> None:
    try:
        inspect.signature(model.forward).bind(*values)
    except TypeError as error:
        raise UnsupportedModelError(
            f"{type(model).__name__} does not take {len(values)} inputs ({error}); expected them one after the other, "
            "as its forward does: give a tuple of as many, or wrap it."
        ) from error


def _check_method(name: MethodName, values: Sequence[Tensor], free: Sequence[int]) -> None:
    """Raise MethodError if the method cannot be had for these inputs."""
    tables = [k for k in free if values[k].ndim == 2]
    if name.base in OF_NEIGHBOURS and tables:
        raise MethodError(
            f"{name} takes neighbouring voxels together, and input {tables[0]} is a table; expected images: hold it "
            f"with held=({tables[0]},)."
        )
    if name.smoothing and name.base not in JOINT and len(free) > 1:
        raise MethodError(
            f"{name} adds noise to all images, and {name.base} explains one input after the other; expected a method "
            f"that explains them together ({', '.join(JOINT)}): hold all inputs but one."
        )
    for k in free:
        if name.smoothing and k not in tables:
            checked_contrast(values[k], f"{name} adds noise in proportion to it", name=f"input {k}")


def _jobs(
    model: nn.Module,
    values: Sequence[Tensor],
    free: tuple[int, ...],
    names: Sequence[MethodName],
    precision: str,
    output: Output,
) -> list["_Job"]:
    """One job for the methods that explain all inputs together, and one an input for the others."""
    joint = [name for name in names if name.base in JOINT or len(free) == 1]
    apart = [name for name in names if name not in joint]
    jobs = [_Job(model, values, free, joint, precision, output)] if joint else []
    return jobs + [_Job(model, values, (k,), apart, precision, output) for k in free if apart]


class OneInput(nn.Module):
    """A model of several inputs as one of a single: a row of those that move; the others are buffers."""

    def __init__(self, model: nn.Module, values: Sequence[Tensor], free: Sequence[int]):
        super().__init__()
        if packed := is_packed(values, free):
            self.rows = nn.Identity()
        self.model = model
        self.packed = packed
        self.free = list(free)
        self.shapes = [tuple(value.shape[1:]) for value in values]
        self.sizes = [prod(self.shapes[k]) for k in free]
        for k, value in enumerate(values):
            if k not in free:
                self.register_buffer(buffer_name(k), value[0].flatten().clone())

    def forward(self, rows: Any) -> Any:
        own = {}
        if self.packed:
            parts = self.rows(rows).flatten(1).split(self.sizes, 1)
            own = {k: parts[j].reshape(-1, *self.shapes[k]) for j, k in enumerate(self.free)}
        else:
            own = {self.free[0]: rows}
        return self.model(
            *(
                own[k] if k in own else beside(rows, self.get_buffer(buffer_name(k)), shape)
                for k, shape in enumerate(self.shapes)
            )
        )


def buffer_name(k: int) -> str:
    """Name of the buffer that holds input number k."""
    return f"xaitools_input_{k}"


def is_packed(values: Sequence[Tensor], free: Sequence[int]) -> bool:
    """Whether the inputs that move are packed into rows (batch, 1, 1, numbers)."""
    return len(free) > 1 or values[free[0]].ndim == 2


def beside(rows: Any, value: Any, shape: Any) -> Any:
    """Copies of the flattened value of one input, as many as there are rows."""
    return value.view(1, *shape).expand(len(rows), *shape).clone()


fx.wrap("beside")


class _Job:
    """Some methods for the inputs that move together, the others being held at each image's own."""

    def __init__(
        self,
        model: nn.Module,
        values: Sequence[Tensor],
        free: tuple[int, ...],
        names: Sequence[MethodName],
        precision: str,
        output: Output,
    ):
        self.values, self.free, self.names = values, free, names
        self.packed = is_packed(values, free)
        self.bound = [k for k in range(len(values)) if k not in free]
        self.rows = self.pack([values[k] for k in free])
        wrapper = named_after(model, OneInput)(model, values, free)
        self.network = self._prepared(wrapper, precision, output)
        self.calls = [slice(i, i + 1) for i in range(len(self.rows))] if self.bound else [slice(None)]
        self.maps = Maps()
        if len(free) > 1:
            self._check_gradients()

    def _prepared(self, wrapper: nn.Module, precision: str, output: Output) -> Network:
        try:
            return Network(wrapper, self.rows[:1], precision, output)
        except UnsupportedModelError as error:
            if not self.packed:
                raise
            raise UnsupportedModelError(
                f"{error} Here inputs {', '.join(map(str, self.free))} were explained, as a row of numbers: hold what "
                f"has to be a whole number or a category, as in held=({self.free[-1]},)."
            ) from error

    @property
    def is_table(self) -> bool:
        """Whether it is one table that moves."""
        return len(self.free) == 1 and self.packed

    @cached_property
    def noise_range(self) -> Tensor | None:
        """The range of each image, 0 for tables, shaped like the rows; None where a row is an image."""
        if not self.packed:
            return None
        widths = []
        for value in (self.values[k] for k in self.free):
            flat = value.flatten(1)
            width = flat.amax(1) - flat.amin(1) if value.ndim > 2 else torch.zeros(len(flat))
            widths.append(width.to(flat)[:, None].expand_as(flat))
        return self.pack(widths)

    def pack(self, parts: Sequence[Tensor]) -> Tensor:
        """Rows (n, 1, 1, numbers) of the inputs that move, or the images if it is one input of images."""
        if not self.packed:
            return parts[0]
        kind = torch.promote_types(parts[0].dtype, parts[-1].dtype)
        return torch.cat([part.flatten(1).to(parts[0].device, kind) for part in parts], 1)[:, None, None]

    def asked(self, name: MethodName) -> str:
        """What is asked of `attribute`: regions come later, and a table is hidden column by column."""
        option = "1" if self.is_table and name.base == "occlusion" else name.option
        return str(replace(name, regions="", option=option))

    def run(self, target: Target, together: Together, **settings: Any) -> None:
        """Make the maps."""
        asked = list(dict.fromkeys(map(self.asked, self.names)))
        classes = checked_target(target, len(self.rows), self.rows.device)
        width, own = settings.pop("noise_range"), settings.pop("options")
        parts = []
        for i, part in enumerate(self.calls):
            if self.bound:
                rebind(self.network, **{buffer_name(k): self.values[k][i].flatten() for k in self.bound})
            parts.append(
                attribute(
                    self.network,
                    self.rows[part],
                    None if classes is None else classes[part],
                    asked,
                    noise_range=None if width is None else width[part],
                    options=own_options(own, tuple(self.rows.shape), i) if self.bound else own,
                    progress=together.next(),
                    **settings,
                )
            )
        self.maps = of_all_images(parts)

    def parts(self, name: MethodName) -> dict[int, Tensor]:
        """The map of each input that moved, shaped like it."""
        value = self.maps[self.asked(name)]
        if not self.packed:
            return {self.free[0]: value}
        shapes = [tuple(self.values[k].shape[1:]) for k in self.free]
        parts = value.flatten(1).split([prod(shape) for shape in shapes], 1)
        return {k: part.reshape(-1, *shape) for k, part, shape in zip(self.free, parts, shapes, strict=True)}

    def references(self, given: Sequence[Any] | None) -> Tensor | None:
        """Rows of references."""
        if given is None:
            return None
        own = self._own("references", given)
        for k, part in zip(self.free, own, strict=True):
            expected = tuple(self.values[k].shape[1:])
            if not isinstance(part, Tensor) or tuple(part.shape[1:]) != expected or len(part) != len(own[0]):
                raise ShapeError(
                    f"references of input {k}: {_shape(part)}; expected a tensor (reference, *{expected}), and as many "
                    "references of each input: a reference is a row of all of them."
                )
        return self.pack([part.to(self.values[k]) for k, part in zip(self.free, own, strict=True)])

    def baselines(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Baselines for rows."""
        return {name: self._one(f"baseline {name!r}", value) for name, value in given.items()}

    def options(self, given: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
        """Options for rows."""
        own: dict[str, dict[str, Any]] = {}
        for method, settings in given.items():
            name = "occlusion[1]" if self.is_table and method.startswith("occlusion[") else method
            own[name] = {
                key: self._one(f"option {key} of {method}", value) if key in ONE_EACH else value
                for key, value in settings.items()
                if not (self.is_table and key == "label_map")
            }
        return own

    def _one(self, what: str, value: Any) -> Any:
        """A number or tensor for a row, of a tuple with one for each input."""
        if not isinstance(value, tuple):
            return value
        own = self._own(what, value)
        if not self.packed:
            return own[0]
        filled = []
        for k, part in zip(self.free, own, strict=True):
            try:
                filled.append(torch.as_tensor(part).to(self.values[k]).expand(1, *self.values[k].shape[1:]))
            except (RuntimeError, TypeError) as error:
                raise ShapeError(
                    f"{what} of input {k}: {_shape(part)}; expected a number, or a tensor that fits "
                    f"{tuple(self.values[k].shape[1:])}."
                ) from error
        return self.pack(filled)[0]

    def _own(self, what: str, given: Sequence[Any]) -> list[Any]:
        if len(given) != len(self.values):
            raise ShapeError(
                f"{what}: {len(given)} parts for {len(self.values)} inputs; expected one an input, None for a held one."
            )
        return [given[k] for k in self.free]

    def _check_gradients(self) -> None:
        """Raise UnsupportedModelError if an input that moves has no gradient."""
        score = self.network.plain
        leaves = [self.values[k][:1].to(self.network.example).requires_grad_() for k in self.free]
        with torch.enable_grad():
            total = score(self.pack(leaves)).sum()
        known = torch.autograd.grad(total, leaves, allow_unused=True) if total.requires_grad else [None]
        for k, gradient in zip(self.free, known, strict=False):
            if gradient is None:
                raise UnsupportedModelError(
                    f"The output of {self.network.name} does not depend on input {k} through differentiable "
                    f"operations, so it has no gradient: hold it with held=({k},), or remove detach, long and argmax "
                    "on its way."
                )


def _shape(value: Any) -> str:
    return f"shape {tuple(value.shape)}" if hasattr(value, "shape") else f"{value!r}"


def _rank_regions(
    found: InputMaps,
    names: Mapping[str, MethodName],
    values: Sequence[Tensor],
    segments: Sequence[Sequence[Segments] | None] | None,
    on_error: str,
) -> None:
    """Put XRAI's regions in place of the maps of images."""
    made: dict[int, Sequence[Segments]] = {}
    for text in [text for text in found if names[text].regions]:
        try:
            parts = list(found[text])
            for k, part in enumerate(parts):
                if part is None or part.ndim == 2:
                    continue
                if k not in made:
                    given = None if segments is None else segments[k]
                    made[k] = segment_all(values[k]) if given is None else given
                parts[k] = xrai(part, values[k], segments=made[k])
            found[text] = tuple(parts)
        except XaitoolsError as error:
            if on_error == "raise":
                raise
            found.errors[text] = error
            del found[text]
