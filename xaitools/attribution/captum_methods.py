"""captum's attribution classes, reachable by name as "captum.ClassName".

captum leaves to its users what we promise: that a map is right on this network, that a seed rules, that an image's map
does not depend on the others of its batch. So each class stands in a table here that says what it needs for that, and
those that are not in it are refused.

DeepLIFT has no other name here than "captum.DeepLift": it is right, in 2D and 3D, once every activation is a module of
its own, which is seen to, and its map is compared with the output's change.
"""

import inspect
import random
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from xaitools.attribution._modular import chain, modular
from xaitools.attribution._stream import AT_THE_IMAGE, Batch, Passes, Plan
from xaitools.attribution.registry import FAMILIES, METHODS, Kind, Method, Setting, method_of
from xaitools.errors import MethodError, ShapeError, UnsupportedModelError, XaitoolsError
from xaitools.models.network import Network, select
from xaitools.models.surgery import frozen_copy, twin

PREFIX = "captum."

Check = Callable[[Setting, Batch, Tensor, Mapping[str, Any], nn.Module], None]
"""Raises if a map is wrong: of the setting, a batch, its maps, the options, and the network that captum was given."""


@dataclass(frozen=True)
class Known:
    """What a class of captum's needs to be right.

    Attributes
    ----------
    kind
        A key of `xaitools.attribution.registry.KINDS`.
    alone
        Whether it is given one image at a time, since it draws from generators that all images share, or mixes them.
    network
        Makes the network that it is given.
    per_image
        Options that may hold one entry for each image.
    check
        Looks at its maps.
    """

    kind: Kind = "path"
    alone: bool = False
    network: Callable[[Network], nn.Module] = lambda network: network.plain
    per_image: tuple[str, ...] = ()
    check: Check | None = None


@lru_cache
def captum_method(name: str) -> Method:
    """The captum class behind "captum.ClassName" as a method.

    Options go to the class's constructor or to its ``attribute``, whichever has them. Baselines and masks are one for
    all images, or one for each.

    Raises
    ------
    MethodError
        If captum has no such attribution class, or it is one that cannot keep what methods here promise.
    """
    import captum.attr

    there = {
        key: value
        for key, value in vars(captum.attr).items()
        if inspect.isclass(value)
        and issubclass(value, captum.attr.Attribution)
        and hasattr(value, "attribute")
    }
    key = name.removeprefix(PREFIX)
    if key not in there:
        raise MethodError(f"captum has no attribution class {key!r}; it has {', '.join(sorted(there))}.")
    if key not in KNOWN:
        reason = REFUSED.get(key, "has not been checked yet")
        raise MethodError(f"captum.{key} {reason}; expected one of {', '.join(sorted(KNOWN))}.")
    return _method(name, there[key], KNOWN[key])


FAMILIES[PREFIX] = captum_method


def _method(name: str, kind: Any, known: Known) -> Method:
    constructor, attribute = (
        [key for key in inspect.signature(function).parameters if key not in _NOT_OFFERED]
        for function in (kind.__init__, kind.attribute)
    )
    takes_target = "target" in inspect.signature(kind.attribute).parameters

    def make(setting: Setting, **options: Any) -> Plan:
        network = known.network(setting.network)
        at_construction = {key: options.pop(key) for key in list(options) if key in constructor}
        if "layer" in at_construction:
            at_construction["layer"] = _layer(name, setting.network, network, at_construction["layer"])
        options = {key: _one_or_each(name, key, value, known, setting) for key, value in options.items()}
        if "internal_batch_size" in attribute:
            options.setdefault("internal_batch_size", setting.batch_size)

        def run(batch: Batch) -> Tensor:
            own = _own(options, known, batch.owners, len(setting.images))
            target = {"target": batch.target} if takes_target else {}
            with _seeded(batch.keys[0], batch.points.device):
                maps = _attribute(name, lambda: kind(network, **at_construction), batch, {**target, **own})
            if known.check is not None:
                known.check(setting, batch, maps, {**at_construction, **own}, network)
            return maps

        masks = [key for key in ("feature_mask", "layer_mask") if len(options.get(key, ())) > 1]
        alone = known.alone or bool(masks)
        return Plan(Passes(setting.name, _one_by_one(run) if alone else run), {"image": AT_THE_IMAGE})

    return method_of(
        make,
        name=name,
        kind=known.kind,
        label=name.removeprefix(PREFIX),
        idea=(inspect.getdoc(kind) or "").split("\n\n")[0],
        reference=f"captum, {kind.__name__}",
        keywords=dict.fromkeys([*constructor, *attribute]),
    )


_NOT_OFFERED = (
    *("self", "forward_func", "model", "device_ids", "inputs", "target", "additional_forward_args"),
    *(
        "return_convergence_delta",
        "return_input_shape",
        "custom_attribution_func",
        "show_progress",
        "verbose",
    ),
    *("grad_kwargs", "kwargs"),
)
"""What we give ourselves, and what would make other than a map of it, or one that cannot be checked."""


def _one_by_one(run: Callable[[Batch], Tensor]) -> Callable[[Batch], Tensor]:
    def each(batch: Batch) -> Tensor:
        maps = []
        for i, (owner, key) in enumerate(zip(batch.owners, batch.keys, strict=True)):
            batch.tell(0)
            target = None if batch.target is None else batch.target[i : i + 1]
            maps.append(run(Batch(batch.points[i : i + 1], target, [owner], batch.tell, [key])))
        return torch.cat(maps)

    return each


def _attribute(name: str, method: Callable[[], Any], batch: Batch, options: Mapping[str, Any]) -> Tensor:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            maps = method().attribute(batch.points.clone().requires_grad_(), **options)
    except XaitoolsError:
        raise
    except Exception as error:
        raise UnsupportedModelError(f"{name} does not run here: {error}") from error
    if not isinstance(maps, Tensor) or maps.shape != batch.points.shape:
        shape = tuple(maps.shape) if isinstance(maps, Tensor) else type(maps).__name__
        raise UnsupportedModelError(
            f"{name} returned shape {shape}, not that of the images {tuple(batch.points.shape)}; "
            "for layer methods choose a layer at the input's size, or interpolate its result yourself."
        )
    return maps.detach()


@contextmanager
def _seeded(key: int, device: torch.device) -> Iterator[None]:
    """Python's, numpy's and torch's global generators start from `key`, and are afterwards as they were before."""
    cuda = device.type == "cuda"
    python, arrays = random.getstate(), np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng([device] if cuda else []):
        random.seed(key)
        np.random.seed(key % 2**32)  # noqa: NPY002
        torch.default_generator.manual_seed(key)
        if cuda:
            torch.cuda.manual_seed(key)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(arrays)  # noqa: NPY002


def _layer(name: str, network: Network, given: nn.Module, layer: Any) -> nn.Module:
    """The module of `given` that a name of the user's model means, which has to be called once.

    Raises
    ------
    MethodError
        If there is none.
    UnsupportedModelError
        If it is called never, or more than once.
    """
    model = getattr(network, "model", network.plain)
    modules = dict(model.named_modules())
    if not isinstance(layer, str) or layer not in modules or not layer:
        raise MethodError(
            f"{name}: layer={layer if isinstance(layer, str) else type(layer).__name__!r}; expected the name of one of "
            f"the modules of {network.name}: {', '.join(key for key in modules if key)}."
        )
    calls: list[int] = []
    handle = modules[layer].register_forward_hook(lambda *_: calls.append(1))
    try:
        with torch.no_grad():
            given(network.example.clone())
    finally:
        handle.remove()
    if len(calls) != 1:
        raise UnsupportedModelError(
            f"{name}: layer {layer!r} of {network.name} is called {len(calls)} times in a forward pass; captum expects "
            "a module that is called once: name one inside or around it."
        )
    return modules[layer]


def _one_or_each(name: str, key: str, value: Any, known: Known, setting: Setting) -> Any:
    """An option, a tensor among them with an axis in front that has 1 entry, or one for each image.

    Raises
    ------
    ShapeError
        If a tensor is neither.
    MethodError
        If the option cannot be a tensor.
    """
    if isinstance(value, tuple) and len(value) == 1 and isinstance(value[0], Tensor | np.ndarray):
        (value,) = value
    if key in _LIKE_LAYERS or key in _LIKE_IMAGES:
        if isinstance(value, np.ndarray):
            value = torch.from_numpy(np.ascontiguousarray(value))
        if not isinstance(value, Tensor) or value.ndim == 0:
            return float(value) if isinstance(value, Tensor) else value
    elif isinstance(value, Tensor | np.ndarray):
        raise MethodError(f"{name}: {key} is a tensor; expected numbers, words or functions.")
    else:
        return value
    images = setting.images
    value = value.to(images.device)
    value = value.to(images.dtype) if value.is_floating_point() else value
    if key in _LIKE_LAYERS:
        fits = value.shape[0] in (1, len(images))
    elif key in known.per_image:
        value = value[(None,) * (images.ndim - value.ndim)] if value.ndim < images.ndim else value
        whole = images.shape if key == "feature_mask" else (len(images), *images.shape[1:])
        fits = value.ndim == images.ndim and all(n in (1, m) for n, m in zip(value.shape, whole, strict=True))
        if fits and key == "baselines":
            value = value.expand(len(value), *images.shape[1:])
    else:  # a distribution from which each image's baselines are drawn
        fits = value.shape[1:] == images.shape[1:]
    if not fits:
        raise ShapeError(
            f"{name}: {key} of shape {tuple(value.shape)} with images of shape {tuple(images.shape)}; expected "
            f"{_EXPECTED[key in _LIKE_LAYERS, key in known.per_image]}."
        )
    return value


_LIKE_IMAGES = ("baselines", "feature_mask")
_LIKE_LAYERS = ("layer_baselines", "layer_mask")
_EXPECTED = {
    (True, True): "one entry for all images, or one for each, along the first axis",
    (False, True): "one for all images, (channel, *spatial), or one for each, (batch, channel, *spatial)",
    (False, False): "images from which baselines are drawn, (reference, channel, *spatial), the same for all",
}


def _own(options: Mapping[str, Any], known: Known, owners: list[int], n_images: int) -> dict[str, Any]:
    """The options of the images that the points of a batch belong to."""
    return {
        key: value[owners]
        if isinstance(value, Tensor) and key in known.per_image and len(value) == n_images
        else value
        for key, value in options.items()
    }


def _complete(
    setting: Setting, batch: Batch, maps: Tensor, options: Mapping[str, Any], network: nn.Module
) -> None:
    """Raise unless each map sums to the output's change from its baseline (mean over a distribution of them)."""
    x = batch.points
    baselines = options.get("baselines")
    start = torch.as_tensor(0.0 if baselines is None else baselines, dtype=x.dtype, device=x.device)
    start = start.expand_as(x) if start.ndim == 0 or len(start) == 1 else start
    with torch.no_grad():
        before, after = (
            select(network(y.clone()), None if batch.target is None else batch.target[:1].expand(len(y)))
            for y in (start, x)
        )
    if len(start) > len(x) and not options.get("multiply_by_inputs", True):
        raise MethodError(
            f"{setting.name}: multiply_by_inputs=False gives a map that cannot be checked; leave it out."
        )
    shares = maps if options.get("multiply_by_inputs", True) else maps * (x - start.mean(0))
    missed = (shares.sum() - (after - before.mean()).sum()).abs()
    allowed = 1e-4 * shares.abs().sum() + 1e-5 * (after.abs().max() + before.abs().max())
    if not missed <= allowed:
        raise UnsupportedModelError(
            f"{setting.name} missed {float(missed):.3g} of the output's change on {setting.network.name}, so captum's "
            "rules do not add up for something in it, such as overlapping max pools or an activation other than ReLU, "
            "leaky ReLU, ELU, sigmoid, tanh and softplus. Use integrated_gradients or lrp."
        )


def _not_empty(
    setting: Setting, batch: Batch, maps: Tensor, options: Mapping[str, Any], network: nn.Module
) -> None:
    """Raise if a sparse model explains nothing."""
    if not maps.any():
        raise UnsupportedModelError(
            f"{setting.name} gives every region the weight 0: the outputs of {setting.network.name} change less than "
            "the penalty of its Lasso. Give as interpretable_model captum's SkLearnLasso with an alpha below 0.01."
        )


def _class(name: str) -> Any:
    import captum.attr

    return getattr(captum.attr, name.removeprefix(PREFIX))


def _as_ours(name: str) -> Check:
    """Raise unless the maps are those of our own method of that name."""

    def check(
        setting: Setting, batch: Batch, maps: Tensor, options: Mapping[str, Any], network: nn.Module
    ) -> None:
        _agree(setting, batch, maps, name, _class(setting.name), network)

    return check


def _guided(
    setting: Setting, batch: Batch, maps: Tensor, options: Mapping[str, Any], network: nn.Module
) -> None:
    """Raise unless captum's guided backprop, by which it multiplies Grad-CAM, is ours."""
    from captum.attr import GuidedBackprop

    found = _attribute(setting.name, lambda: GuidedBackprop(network), batch, {"target": batch.target})
    _agree(setting, batch, found, "guided_backprop", GuidedBackprop, network)


def _relevance(
    setting: Setting, batch: Batch, maps: Tensor, options: Mapping[str, Any], network: nn.Module
) -> None:
    """Raise unless LRP with captum's own rules is what it has to be on ReLUs: the image times its gradient."""
    if not any(
        hasattr(module, "rule") or isinstance(module, nn.Tanh) for module in setting.network.plain.modules()
    ):
        _agree(setting, batch, maps, "input_x_gradient", _class(setting.name), network)


SAME = 0.01
"""Most that two maps which have to agree may differ by, as a fraction of their norm."""


def _agree(setting: Setting, batch: Batch, maps: Tensor, name: str, kind: Any, network: nn.Module) -> None:
    """Raise unless captum's maps are those of our method `name`.

    Where rounding decides a maximum or the side of a ReLU, float32 tells nothing: what differs there is compared once
    more in float64, on maps by the class `kind` of captum's.
    """
    missed = _missed(maps, _ours(setting, batch, name))
    if missed > SAME and batch.points.dtype != torch.float64:
        exact = replace(batch, points=batch.points.double())
        theirs = _attribute(
            setting.name, lambda: kind(twin(network).double()), exact, {"target": batch.target}
        )
        given = setting.network
        double = Network(frozen_copy(given.model).double(), exact.points, output=given.output)
        missed = _missed(theirs, _ours(replace(setting, network=double, images=exact.points), exact, name))
    if missed > SAME:
        raise UnsupportedModelError(
            f"{setting.name} would be wrong on {setting.network.name}: its map differs by {missed:.2g} of the norm "
            f"from that of {name}, where both have to agree; captum misses activations that are not modules called "
            f"once. Use {name}."
        )


def _ours(setting: Setting, batch: Batch, name: str) -> Tensor:
    plan = METHODS[name].plan(setting)
    found = plan.passes.run(batch)
    return torch.stack([plan.finish(x, map_) for x, map_ in zip(batch.points, found, strict=True)])


def _missed(maps: Tensor, expected: Tensor) -> float:
    """The largest difference of two maps of an image as a fraction of the second's norm; infinite if one is NaN."""
    difference, size = ((part.flatten(1) ** 2).sum(1).sqrt() for part in (maps - expected, expected))
    share = torch.where(difference == 0, 0, difference / size)
    return float(torch.nan_to_num(share, nan=torch.inf).max())


def _of_a_chain(network: Network) -> nn.Module:
    """A copy for captum's LRP, which changes its modules.

    Raises
    ------
    UnsupportedModelError
        Unless the network is a chain of modules.
    """
    if not chain(network):
        raise UnsupportedModelError(
            f"captum's LRP doubles or loses relevance where a network branches or computes without modules, and "
            f"{network.name} does; expected a chain of modules, each called once: use lrp."
        )
    return frozen_copy(network.plain)


KNOWN: dict[str, Known] = {
    "Saliency": Known(),
    "InputXGradient": Known(),
    "IntegratedGradients": Known(per_image=("baselines",)),
    "GradientShap": Known(alone=True),
    "DeepLift": Known(network=modular, alone=True, per_image=("baselines",), check=_complete),
    "DeepLiftShap": Known(network=modular, alone=True, check=_complete),
    "GuidedBackprop": Known("rule", network=modular, check=_as_ours("guided_backprop")),
    "Deconvolution": Known("rule", network=modular, check=_as_ours("deconvolution")),
    "GuidedGradCam": Known("rule", check=_guided),
    "LRP": Known("rule", network=_of_a_chain, check=_relevance),
    "FeatureAblation": Known("perturbation", per_image=_LIKE_IMAGES),
    "Occlusion": Known("perturbation", per_image=("baselines",)),
    "ShapleyValues": Known("perturbation", alone=True, per_image=_LIKE_IMAGES),
    "ShapleyValueSampling": Known("perturbation", alone=True, per_image=_LIKE_IMAGES),
    "KernelShap": Known("perturbation", alone=True, per_image=_LIKE_IMAGES),
    "Lime": Known("perturbation", alone=True, per_image=_LIKE_IMAGES, check=_not_empty),
    "LayerActivation": Known(),
    "LayerGradCam": Known(),
    "LayerGradientXActivation": Known(),
    "LayerConductance": Known(per_image=("baselines",)),
    "LayerIntegratedGradients": Known(per_image=("baselines",)),
    "InternalInfluence": Known(per_image=("baselines",)),
    "LayerGradientShap": Known(alone=True),
    "LayerFeatureAblation": Known("perturbation", alone=True, per_image=_LIKE_LAYERS),
    "NeuronGradient": Known(),
    "NeuronIntegratedGradients": Known(per_image=("baselines",)),
    "NeuronConductance": Known(per_image=("baselines",)),
    "NeuronGradientShap": Known(alone=True),
    "NeuronFeatureAblation": Known("perturbation", alone=True, per_image=_LIKE_IMAGES),
}
"""The classes that keep what methods here promise, with what they need for it. Other classes are refused."""

_PERMUTED = (
    "exchanges pixels among the images of a batch, so that a map depends on the batch and is zero for one image; "
    "FeatureAblation or occlusion hide them instead"
)
_HIDDEN_ACTIVATIONS = (
    "looks for activations in modules only, and nothing checks what it finds at a layer or neuron"
)
_TEXT = "explains language models"

REFUSED: dict[str, str] = {
    "FeaturePermutation": _PERMUTED,
    "LayerFeaturePermutation": _PERMUTED,
    **dict.fromkeys(
        ["LayerDeepLift", "LayerDeepLiftShap", "LayerLRP", "NeuronDeepLift", "NeuronDeepLiftShap"],
        _HIDDEN_ACTIVATIONS,
    ),
    **dict.fromkeys(["NeuronGuidedBackprop", "NeuronDeconvolution"], _HIDDEN_ACTIVATIONS),
    **dict.fromkeys(["LLMAttribution", "LLMGradientAttribution", "RemoteLLMAttribution"], _TEXT),
    "LimeBase": "needs functions of its own; Lime has them",
    "NoiseTunnel": "goes around another method; add +smoothgrad, +smoothgrad_squared or +vargrad to that one's name",
    "DataLoaderAttribution": "goes around another method and a data loader; give the images themselves",
}
"""Why the others are refused."""
