"""Many attribution maps in one call, sharing every pass that they have in common."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, overload

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from xaitools.attribution._sliding import planned
from xaitools.attribution._stream import Key, Plan, Stream, grouped
from xaitools.attribution.names import MethodName, parse_all
from xaitools.attribution.registry import Setting, find
from xaitools.attribution.xrai import segment_all, xrai
from xaitools.checks import (
    Target,
    check_choice,
    check_counts,
    check_positive,
    checked_contrast,
    checked_images,
)
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
from xaitools.progress import Progress, Teller


class Maps(dict[str, Tensor]):
    """Maps by method name, each shaped like the images.

    Attributes
    ----------
    completeness_gap
        For each map without smoothing of a method that adds up to the output's change from a baseline: its sum minus
        that change (mean over its baselines), one number an image, in the unit of the output.
    relevance_gap
        For each map of LRP or Deep Taylor without smoothing: the output minus the map's sum, one number an image, in
        the unit of the output. It is what biases and stabilisers absorb.
    passes
        Number of gradients, windows and other passes that were computed.
    errors
        Why there is no map, by method name; empty unless they were to be kept.
    """

    def __init__(self) -> None:
        super().__init__()
        self.completeness_gap: dict[str, Tensor] = {}
        self.relevance_gap: dict[str, Tensor] = {}
        self.passes = 0
        self.errors: dict[str, Exception] = {}

    def __repr__(self) -> str:
        rows = [(name, " x ".join(map(str, value.shape)), _range(value)) for name, value in self.items()]
        rows += [(name, "failed", str(error)) for name, error in self.errors.items()]
        wide, wider = (max((len(row[i]) for row in rows), default=0) for i in (0, 1))
        return "\n".join(
            [
                f"{len(self)} maps",
                *(f"  {name:{wide}}  {shape:{wider}}  {values}" for name, shape, values in rows),
            ]
        )


Parts = tuple[Tensor | None, ...]
"""One tensor for each input, None for one that is held."""


class InputMaps(dict[str, Parts]):
    """Maps by method name, each a tuple of tensors shaped like the inputs, None for those that are held.

    Attributes
    ----------
    completeness_gap, relevance_gap, passes, errors
        As in `Maps`; sums go over all inputs that are explained.
    """

    def __init__(self) -> None:
        super().__init__()
        self.completeness_gap: dict[str, Tensor] = {}
        self.relevance_gap: dict[str, Tensor] = {}
        self.passes = 0
        self.errors: dict[str, Exception] = {}

    def __repr__(self) -> str:
        shapes = {
            name: ", ".join("held" if part is None else " x ".join(map(str, part.shape)) for part in parts)
            for name, parts in self.items()
        }
        rows = {**shapes, **{name: f"failed  {error}" for name, error in self.errors.items()}}
        return "\n".join([f"{len(self)} maps", *(f"  {name}  {row}" for name, row in rows.items())])


@overload
def attribute(
    model: Any,
    images: Tensor | np.ndarray | list[Any],
    target: Target = None,
    methods: str | Sequence[str] = ("gradient",),
    **settings: Any,
) -> Maps: ...


@overload
def attribute(
    model: nn.Module,
    images: tuple[Any, ...],
    target: Target = None,
    methods: str | Sequence[str] = ("gradient",),
    **settings: Any,
) -> InputMaps: ...


def attribute(  # type: ignore[misc]  # the other arguments stand here only
    model: Any,
    images: Float[Tensor, "batch channel *spatial"] | np.ndarray | list[Any] | tuple[Any, ...],
    target: Target = None,
    methods: str | Sequence[str] = ("gradient",),
    *,
    held: Sequence[int] = (),
    steps: int = 50,
    draws: int = 25,
    noise_level: float = 0.15,
    noise_range: Float[Tensor, "..."] | None = None,
    references: Float[Tensor, "reference ref_channel *ref_spatial"] | tuple[Any, ...] | None = None,
    baselines: Mapping[str, Any] | None = None,
    segments: Sequence[Any] | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    output: Output = None,
    precision: str = "float32",
    batch_size: int = 16,
    seed: int = 0,
    on_error: str = "raise",
    progress: bool | Progress = True,
) -> Maps | InputMaps:
    """Attribution maps of several methods for the same images.

    Methods share what they have in common: SmoothGrad, SmoothGrad squared and VarGrad are moments of one stream of
    noisy copies; a black path serves integrated gradients from black and from black and white; one noise field
    serves all methods; one segmentation serves all region maps. Memory does not grow with `steps` or `draws`.

    Parameters
    ----------
    model
        Network returning (batch, classes) or (batch,), or see `output`; it is not changed. One that is asked often can
        be prepared once: ``Network(model, images[:1])``.
    images
        Images or volumes, batch and channel first: a tensor, an array, or a list of images. A tuple for a network that
        takes several inputs, such as images and a table (batch, columns); see
        `xaitools.attribution.several_inputs.attribute_inputs` for what the other arguments mean then.
    target
        Class to explain: one for all images, or one for each. None for the single output of a regression.
    methods
        One name or several, such as "gradient" or
        "integrated_gradients[black+white]+smoothgrad_squared+absolute@xrai"; see `xaitools.attribution.names`.
        ``captum.ClassName`` reaches captum's other methods.
    held
        Of several inputs, the places of those that are not explained.
    steps
        Points on the path of integrated gradients and its relatives, and samples of expected gradients.
    draws
        Noisy copies for SmoothGrad and its relatives.
    noise_level
        Standard deviation of the noise as a fraction of `noise_range`.
    noise_range
        A tensor that broadcasts to the images, 0 where no noise is to be added; None for each image's range.
    references
        Images from which expected gradients draws its baselines, usually the training set.
    baselines
        More baselines for integrated gradients by name, as numbers, one image (channel, *spatial), or one for each
        image; "black" (0) and "white" (1) are there.
    segments
        One `xaitools.attribution.xrai.Segments` an image, if XRAI should not make its own.
    options
        Further keyword arguments of methods, by method name without modifiers, or by its part before the bracket:
        ``{"deep_taylor": {"high": 255}, "lrp[gamma]": {"gamma": 0.5}}``.
    output
        Which tensor of what the model returns is explained: its place in a tuple or list, its key in a dict, the name
        of an attribute, or a function of what is returned. None for the only one.
    precision
        "float32", or "bf16" for speed (see `xaitools.models.Network`); LRP, Deep Taylor, Grad-CAM, LayerCAM and
        occlusion stay in float32.
    batch_size
        Images in one pass through the network.
    seed
        Same seed, same maps; the maps of an image do not depend on the other images of the batch.
    on_error
        "raise" the error of a method that fails, or "keep" it in `Maps.errors` and go on with the others.
    progress
        Whether to show a progress bar when the work takes more than two seconds; or a function that is called with
        the number of passes done and their total after each batch, and stops the work by raising an exception.

    Returns
    -------
    Maps
        A dict from the names in `methods` to maps, or to tuples of maps for several inputs. Signed maps are positive
        where the pixel speaks for the target.

    Raises
    ------
    MethodError
        If a name or an option is unknown, or expected gradients has no references.
    DataError
        If an image is not finite, or constant where noise or regions need contrast.
    ShapeError
        If images, targets, baselines, references or segments do not fit together.
    TargetError
        If the network has no such output.
    UnsupportedModelError
        If a method would be wrong on this network.
    """
    if isinstance(images, tuple):
        return _of_several_inputs(**locals())
    if held:
        raise ParameterError(
            f"held={held!r} with one input; expected a tuple of them: attribute(model, (images, table), held=(1,))."
        )
    names = parse_all(methods)
    check_counts(error=MethodError, steps=steps, draws=draws, batch_size=batch_size)
    check_choice(MethodError, on_error=(on_error, ("raise", "keep")))
    images = checked_images(images)
    network, inputs, classes = Network.entered(model, images, target, precision, output)
    keeper = _Keeper(names, on_error == "keep")
    for text, name in names.items():
        with keeper.keeping(text):
            _check_contrast(name, inputs, noise_level, noise_range)
    given = {"steps": steps, "references": references, "baselines": baselines}
    plans: dict[str, Plan] = {}
    for name in list(keeper.left.values()):
        if name.source not in plans:
            with keeper.keeping(name.source):
                setting = Setting(network, inputs, classes, name.source, batch_size)
                plans[name.source] = _plan(name, setting, given, options or {})
    wanted: set[Key] = {(name.source, name.smoothing) for name in keeper.left.values()}
    groups = grouped(plans, wanted)
    width = None if noise_range is None else _checked_range(noise_range, inputs)
    stream = Stream(inputs, classes, draws, noise_level, batch_size, seed, width)
    maps = Maps()
    maps.passes = sum(group.count(len(inputs), draws) for group in groups)
    computed: dict[Key, Tensor] = {}
    with Teller(maps.passes, progress) as tell:
        keeper.stopped = lambda: tell.stopped_by
        for group in groups:
            with keeper.keeping(*group.plans):
                computed |= stream.maps(group, wanted, tell)
        for (source, smoothing), value in computed.items():
            with keeper.keeping(source, smoothing=smoothing):
                _check_finite(value, smoothing)
        for source, plan in plans.items():
            if plan.gap and (source, "") in computed:
                getattr(maps, plan.gap.name)[source] = plan.gap.of(computed[source, ""]).to(images.device)
        regions = [text for text, name in keeper.left.items() if name.regions]
        if regions and segments is None:
            with keeper.keeping(*regions):
                segments = segment_all(inputs, tell)
        for text, name in list(keeper.left.items()):
            with keeper.keeping(text):
                value = computed[name.source, name.smoothing]
                value = value.abs() if name.absolute else value
                maps[text] = (xrai(value, inputs, segments=segments) if name.regions else value).to(
                    images.device
                )
    maps.errors = keeper.errors
    return maps


def _of_several_inputs(model: Any, images: tuple[Any, ...], noise_range: Any, **settings: Any) -> InputMaps:
    from xaitools.attribution.several_inputs import attribute_inputs

    if noise_range is not None:
        raise MethodError("noise_range with several inputs; expected None: the range of each image is taken.")
    return attribute_inputs(model, images, **settings)


class _Keeper:
    """Raises or keeps what goes wrong with some of the methods.

    Attributes
    ----------
    left
        The names that have not failed.
    errors
        What went wrong, by name.
    """

    def __init__(self, names: Mapping[str, MethodName], keep: bool) -> None:
        self.left = dict(names)
        self.errors: dict[str, Exception] = {}
        self._keep = keep
        self.stopped: Any = lambda: None

    @contextmanager
    def keeping(self, *which: str, smoothing: str | None = None) -> Iterator[None]:
        """Raise, or keep, an error of the methods `which`, whole names or those before their modifiers."""
        try:
            yield
        except Exception as error:
            if error is self.stopped():
                raise
            named = _naming(error, which)
            if not self._keep:
                if named is error:
                    raise
                raise named from error
            for text, name in list(self.left.items()):
                if text in which or (name.source in which and smoothing in (None, name.smoothing)):
                    self.errors[text] = named
                    del self.left[text]


def _naming(error: Exception, which: Sequence[str]) -> Exception:
    """The error, with the names of the methods that failed in front unless it says them."""
    if not isinstance(error, XaitoolsError) or any(name in str(error) for name in which):
        return error
    return type(error)(f"{', '.join(which)}: {error}")


def _plan(
    name: MethodName, setting: Setting, given: Mapping[str, Any], options: Mapping[str, Mapping[str, Any]]
) -> Plan:
    """What a method computes; options for its name with the bracket go before those for the name alone."""
    method = find(name.base)
    shared = {key: value for key, value in given.items() if key in method.shared and value is not None}
    own = {**options.get(name.base, {}), **options.get(name.source, {})}
    return planned(method, setting, name.option, {**shared, **own})


def _check_contrast(name: MethodName, images: Tensor, noise_level: float, noise_range: Tensor | None) -> None:
    if name.smoothing:
        check_positive(error=MethodError, noise_level=noise_level)
    if name.smoothing and noise_range is None:
        checked_contrast(images, f"{name} adds noise in proportion to it")
    if name.regions:
        checked_contrast(images, f"{name} has no regions to work with otherwise")


def _checked_range(noise_range: Tensor, images: Tensor) -> Tensor:
    """What the noise is a fraction of, shaped like the images."""
    try:
        width = noise_range.to(images).expand_as(images)
    except RuntimeError as error:
        raise ShapeError(
            f"noise_range of shape {tuple(noise_range.shape)} for images {tuple(images.shape)}; expected a tensor that "
            "broadcasts to them, such as one number for each channel (channel, 1, 1)."
        ) from error
    if not bool(((width >= 0) & torch.isfinite(width)).all()):
        raise DataError(
            "noise_range contains NaN, infinity or a number below 0; expected widths of 0 or more."
        )
    return width


def _check_finite(maps: Tensor, smoothing: str) -> None:
    if not torch.isfinite(maps).all():
        raise UnsupportedModelError(
            f"the {smoothing or 'plain'} map contains NaN or infinity: the network's gradients overflow or are "
            "undefined there. Check its weights, or use precision='float32'."
        )


def _range(value: Tensor) -> str:
    return f"{float(value.min()):.3g} to {float(value.max()):.3g}"
