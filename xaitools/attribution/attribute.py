"""Many attribution maps in one call, sharing every pass that they have in common."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from xaitools.attribution.captum_methods import source as captum_source
from xaitools.attribution.deconvolution import source as deconvolution_source
from xaitools.attribution.deep_taylor import source as deep_taylor_source
from xaitools.attribution.expected_gradients import source as expected_gradients_source
from xaitools.attribution.gradient import source as gradient_source
from xaitools.attribution.guided_backprop import source as guided_backprop_source
from xaitools.attribution.input_x_gradient import source as input_x_gradient_source
from xaitools.attribution.integrated_gradients import chosen_baselines, completeness_gap
from xaitools.attribution.integrated_gradients import source as integrated_gradients_source
from xaitools.attribution.lrp import relevance_gap
from xaitools.attribution.lrp import source as lrp_source
from xaitools.attribution.names import MethodName, parse
from xaitools.attribution.occlusion import source as occlusion_source
from xaitools.attribution.passes import Progress, progress_bar
from xaitools.attribution.sharing import Key, Request, Source, count_passes, shared_maps
from xaitools.attribution.xrai import Segments, segment_all, xrai
from xaitools.errors import DataError, MethodError, ShapeError, UnsupportedModelError
from xaitools.models.surgery import explainable

SOURCES: dict[str, Callable[[MethodName, Request], Source]] = {
    "gradient": gradient_source,
    "integrated_gradients": integrated_gradients_source,
    "expected_gradients": expected_gradients_source,
    "input_x_gradient": input_x_gradient_source,
    "deconvolution": deconvolution_source,
    "guided_backprop": guided_backprop_source,
    "lrp": lrp_source,
    "deep_taylor": deep_taylor_source,
    "occlusion": occlusion_source,
}
"""What to compute for each base; all others are captum's."""


class Maps(dict[str, Tensor]):
    """Maps by method name, each shaped like the images.

    Attributes
    ----------
    completeness_gap
        For each integrated-gradients map without smoothing: its sum minus the output's change from the baseline
        (mean over its baselines), one number an image, in the unit of the output.
    relevance_gap
        For each map of LRP or Deep Taylor without smoothing: the output minus the map's sum, one number an image, in
        the unit of the output. It is what biases and stabilisers absorb, see `xaitools.attribution.lrp.relevance_gap`.
    passes
        Number of gradients that were computed.
    """

    completeness_gap: dict[str, Tensor]
    relevance_gap: dict[str, Tensor]
    passes: int


def attribute(
    model: nn.Module,
    images: Float[Tensor, "batch channel *spatial"],
    target: Int[Tensor, " targets"] | int | None = None,
    methods: Sequence[str] = ("gradient",),
    *,
    steps: int = 50,
    draws: int = 25,
    noise_level: float = 0.15,
    references: Float[Tensor, "reference ref_channel *ref_spatial"] | None = None,
    baselines: Mapping[str, Tensor | float] | None = None,
    segments: Sequence[Segments] | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    precision: str = "float32",
    batch_size: int = 16,
    seed: int = 0,
    progress: bool | Progress = True,
) -> Maps:
    """Attribution maps of several methods for the same images.

    Methods share what they have in common: SmoothGrad, SmoothGrad squared and VarGrad are moments of one stream of
    noisy copies; a black path serves integrated gradients from black and from black and white; one noise field
    serves all methods; one segmentation serves all region maps. Memory does not grow with `steps` or `draws`.

    Parameters
    ----------
    model
        Network returning (batch, classes) or (batch,); it is copied, the original is not changed.
    images
        Images or volumes, batch and channel first.
    target
        Class to explain: one for all images, or one for each. None for the single output of a regression.
    methods
        Names such as "gradient" or "integrated_gradients[black+white]+smoothgrad_squared+absolute@xrai"; see
        `xaitools.attribution.names`. ``captum.ClassName`` reaches captum's other methods.
    steps
        Points on the path of integrated gradients, and samples of expected gradients.
    draws
        Noisy copies for SmoothGrad and its relatives.
    noise_level
        Standard deviation of the noise as a fraction of each image's range.
    references
        Images from which expected gradients draws its baselines, usually the training set.
    baselines
        More baselines for integrated gradients by name, as numbers or images (channel, *spatial); "black" (0) and
        "white" (1) are there.
    segments
        One `xaitools.attribution.xrai.Segments` an image, if XRAI should not make its own.
    options
        Keyword arguments for captum's methods, LRP and Deep Taylor, by method name without modifiers:
        ``{"deep_taylor": {"high": 255}}``.
    precision
        "float32", or "bf16" for speed (see `xaitools.models.surgery.explainable`); LRP and Deep Taylor, which divide
        by activations, stay in float32.
    batch_size
        Images in one pass through the network.
    seed
        Same seed, same maps; the maps of an image do not depend on the other images of the batch.
    progress
        Whether to show a progress bar when the work takes more than two seconds; or a function that is called with
        the number of passes done and their total after each batch, and stops the work by raising an exception.

    Returns
    -------
    Maps
        A dict from the names in `methods` to maps. Signed maps are positive where the pixel speaks for the target.

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
    names = {text: parse(text) for text in methods}
    _check_request(names, images, steps=steps, draws=draws, batch_size=batch_size, noise_level=noise_level)
    inputs = images.to(next(model.parameters(), images))
    targets = _as_targets(target, len(images), inputs.device)
    quick = explainable(model, inputs[:1], precision)
    request = Request(
        model, inputs, steps=steps, references=references, baselines=baselines or {}, options=options or {}
    )
    sources = {name.source: SOURCES.get(name.base, captum_source)(name, request) for name in names.values()}
    wanted: set[Key] = {(name.source, name.smoothing) for name in names.values()}
    maps = Maps()
    maps.passes = count_passes(sources, wanted, len(inputs), draws)
    with progress_bar(maps.passes, progress) as bar:
        computed = shared_maps(
            quick,
            inputs,
            targets,
            sources,
            wanted,
            draws=draws,
            noise_level=noise_level,
            batch_size=batch_size,
            seed=seed,
            bar=bar,
        )
    for (origin, smoothing), value in computed.items():
        _check_finite(value, origin, smoothing)
    maps.completeness_gap = {}
    for name in names.values():
        if name.base == "integrated_gradients" and not name.smoothing:
            chosen = list(chosen_baselines(name, request.baselines, inputs[0]).values())
            gap = completeness_gap(quick, inputs, targets, computed[name.source, ""], chosen)
            maps.completeness_gap[name.source] = gap.to(images.device)
    maps.relevance_gap = {}
    for name in names.values():
        if name.base in ("lrp", "deep_taylor") and not name.smoothing:
            relevance = computed[name.source, ""]
            gap = relevance_gap(quick, inputs, targets, relevance, batch_size=batch_size)
            maps.relevance_gap[name.source] = gap.to(images.device)
    if any(name.regions for name in names.values()) and segments is None:
        segments = segment_all(inputs)
    for text, name in names.items():
        value = computed[name.source, name.smoothing]
        value = value.abs() if name.absolute else value
        maps[text] = (xrai(value, inputs, segments=segments) if name.regions else value).to(images.device)
    return maps


def _check_request(
    names: Mapping[str, MethodName],
    images: Tensor,
    *,
    steps: int,
    draws: int,
    batch_size: int,
    noise_level: float,
) -> None:
    if not names:
        raise MethodError("methods is empty; name at least one, for example methods=['gradient'].")
    for key, value in {"steps": steps, "draws": draws, "batch_size": batch_size}.items():
        if value < 1:
            raise MethodError(f"{key}={value}; expected 1 or more.")
    if images.ndim not in (4, 5) or len(images) == 0:
        raise ShapeError(
            f"Images of shape {tuple(images.shape)}; expected (batch, channel, height, width) or "
            "(batch, channel, x, y, z) with at least one image."
        )
    bad = (~torch.isfinite(images)).flatten(1).any(1).nonzero()
    if len(bad):
        raise DataError(f"Image {int(bad[0])} of the batch contains NaN or infinity; replace them first.")
    needing = [text for text, name in names.items() if name.smoothing or name.regions]
    flat = images.flatten(1)
    constant = (flat.amax(1) == flat.amin(1)).nonzero()
    if needing and len(constant):
        raise DataError(
            f"Image {int(constant[0])} of the batch is constant, so {needing[0]!r} has no noise level or regions to "
            "work with; leave the image out."
        )
    if noise_level <= 0 and any(name.smoothing for name in names.values()):
        raise MethodError(f"noise_level={noise_level}; smoothing needs one above 0, usually 0.1 to 0.2.")


def _as_targets(target: Tensor | int | None, n_images: int, device: torch.device) -> Tensor | None:
    if target is None:
        return None
    if isinstance(target, int):
        return torch.full((n_images,), target, device=device)
    if target.shape != (n_images,):
        raise ShapeError(
            f"Targets of shape {tuple(target.shape)} for {n_images} images; expected one class an image."
        )
    return target.to(device)


def _check_finite(maps: Tensor, source: str, smoothing: str) -> None:
    if not torch.isfinite(maps).all():
        raise UnsupportedModelError(
            f"The {smoothing or 'plain'} map of {source} contains NaN or infinity: the network's gradients overflow "
            "or are undefined there. Check its weights, or use precision='float32'."
        )
