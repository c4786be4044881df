"""The checks of a method on a network and images, each a function that returns its row, or raises why it cannot."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float64
from scipy.stats import spearmanr
from torch import Tensor

from xaitools.attribution import Maps, MethodName, attribute, parse
from xaitools.errors import XaitoolsError
from xaitools.evaluation._doubles import Doubles, windows_over
from xaitools.models import Network

HOLDS, FAILS, NOT_APPLICABLE = "holds", "does not hold", "does not apply"

SUM_MISSES = 0.05
RELATIVE_ERROR = 0.01
SAME_RANKS = 0.5**0.5
BELOW_ROUNDING = 0.1
FORWARD_PASSES = 64
"""Of the float64 reference of occlusion, at most, but for those of a single voxel."""
JITTER = 1e-3
"""By how much slopes are looked at beside the images, as a share of their range."""

REDRAWN = 810_293
"""Seed of new weights: one with which nobody has drawn the old ones, as many do with 0, 1 or 42."""

OWN_GRADIENT = ("gradient", "input_x_gradient")


@dataclass(frozen=True)
class Check:
    """What came out of a check.

    Attributes
    ----------
    method
        Name of the map.
    check
        Name of the check.
    measured
        What `value` is.
    value
        The number that was measured; None where the check does not apply.
    bound
        The most that it may be.
    verdict
        "holds", "does not hold" or "does not apply".
    meaning
        What follows, in a sentence; why, where the check does not apply.
    """

    method: str
    check: str
    measured: str
    value: float | None
    bound: float | None
    verdict: str
    meaning: str


class NotApplicable(XaitoolsError):
    """Why a check does not apply."""


@dataclass(frozen=True)
class Found:
    """A value, its bound, and what it means that the value is within, or beyond it."""

    value: float
    bound: float
    within: str
    beyond: str


@dataclass(frozen=True)
class Bench:
    """A network and images, and what the checks of several methods share of them.

    Attributes
    ----------
    settings
        Further keyword arguments of `attribute`.
    pulse
        Called now and then, to be told of a cancellation.
    """

    network: Network
    images: Tensor
    target: Tensor | None
    settings: Mapping[str, Any]
    pulse: Callable[[int, int], object]

    @cached_property
    def doubles(self) -> Doubles:
        """What the network says of the images in float64."""
        return Doubles(self.network, self.images, self.target, self.settings.get("seed", 0))

    @cached_property
    def beside(self) -> Tensor:
        """Points a little beside the images: a black background lies on kinks, where no slope is the slope."""
        noise = torch.randn(self.images.shape, generator=torch.Generator().manual_seed(REDRAWN))
        spread = self.images.flatten(1).amax(1) - self.images.flatten(1).amin(1)
        level = JITTER * torch.where(spread > 0, spread, 1.0)
        return self.images + level.view(-1, *[1] * (self.images.ndim - 1)) * noise.to(self.images)

    @cached_property
    def doubles_beside(self) -> Doubles:
        """What the network says of points beside the images in float64."""
        return Doubles(self.network, self.beside, self.target, self.settings.get("seed", 0))

    @cached_property
    def gradients_beside(self) -> Tensor:
        """The network's gradient there, as methods get it."""
        return self.slopes("gradient")

    def slopes(self, name: str) -> Tensor:
        """The map of points beside the images, each explained as its image."""
        return self.maps(name, self.beside, target=self.target)[name]

    @cached_property
    def randomized(self) -> dict[str, Network]:
        """Twins with weights of the last layer, and of all layers, drawn anew."""
        layers = self.network.layers
        return {
            "last": self.network.randomized(layers[-1:], REDRAWN),
            "all": self.network.randomized(layers, REDRAWN),
        }

    @cached_property
    def companions(self) -> Tensor:
        """The first image, and one of half its contrast that is mirrored and inverted: within its range, unlike it."""
        image = self.images[:1]
        middle = (image.amax() + image.amin()) / 2
        return torch.cat([image, middle - (image.flip(-1) - middle) / 2])

    def maps(
        self,
        name: str,
        images: Tensor,
        network: Network | None = None,
        *,
        target: Tensor | None,
        keep: bool = False,
    ) -> Maps:
        """Maps of one method."""
        return attribute(
            network or self.network,
            images,
            target,
            [name],
            on_error="keep" if keep else "raise",
            progress=self.pulse,
            **self.settings,
        )


@dataclass(frozen=True)
class Subject:
    """A method on a bench, by the name of its maps.

    Attributes
    ----------
    maps
        Its maps of the images, with the gaps of their sums.
    """

    bench: Bench
    text: str
    maps: Maps

    @cached_property
    def name(self) -> MethodName:
        """The name's parts."""
        return parse(self.text)

    @property
    def map(self) -> Tensor:
        """Its map of each image."""
        return self.maps[self.text]

    @property
    def plain(self) -> bool:
        """Whether nothing is done to the method's map."""
        return self.name == MethodName(self.name.base, self.name.option)

    @cached_property
    def alone(self) -> Tensor:
        """Its map of the first image alone."""
        return self.again()

    def again(self, images: Tensor | None = None, network: Network | None = None) -> Tensor:
        """Its map of the first image once more, or of others that are explained as the first."""
        images = self.bench.images[:1] if images is None else images
        target = None if self.bench.target is None else self.bench.target[:1].expand(len(images))
        return self.bench.maps(self.text, images, network, target=target)[self.text]


def explains(subject: Subject) -> Found:
    """Images whose map is 0 everywhere."""
    empty = int((~subject.map.flatten(1).any(1)).sum())
    return Found(
        empty,
        0,
        "Each image has a finite map that is not 0 everywhere.",
        "Maps are 0 everywhere: no signal reaches the image, as behind ReLUs that are all off or a saturated output.",
    )


def completeness(subject: Subject) -> Found:
    """Completeness gap as a share of the output's change from the baseline, the largest."""
    gap = _gap(subject, "completeness_gap")
    change = subject.maps[subject.text].flatten(1).sum(1) - gap
    return Found(
        _share(gap, change),
        SUM_MISSES,
        "The pixels' values add up to the output's change from the baseline.",
        "The pixels' values do not add up to the output's change from the baseline: take more steps, for guided "
        "integrated gradients with a smaller max_dist; if that does not help, its gradient is not that of the output.",
    )


def conservation(subject: Subject) -> Found:
    """Relevance gap as a share of the output, the largest."""
    gap = _gap(subject, "relevance_gap")
    output = subject.maps[subject.text].flatten(1).sum(1) + gap
    return Found(
        _share(gap, output),
        SUM_MISSES,
        "The pixels' values add up to the output.",
        "The pixels' values do not add up to the output: biases and the stabiliser keep that share, so read the map as "
        "ranks, not as parts of the output.",
    )


def conservation_without_biases(subject: Subject) -> Found:
    """The same for the network without biases, where nothing may be kept."""
    _gap(subject, "relevance_gap")
    bare = subject.bench.network.without_biases
    maps = subject.bench.maps(subject.text, subject.bench.images, bare, target=subject.bench.target)
    gap = maps.relevance_gap[subject.name.source]
    output = maps[subject.text].flatten(1).sum(1) + gap
    return Found(
        _share(gap, output),
        RELATIVE_ERROR,
        "Without biases the values add up to the output, so each layer's rule is right for this network.",
        "Even without biases relevance is lost or made: a rule does not suit a layer of this network, or the output is "
        "a small difference of large parts.",
    )


def finite_differences(subject: Subject) -> Found:
    """Relative error along random directions, against central differences of the network in float64."""
    name, bench = subject.name, subject.bench
    if name.method.kind != "path":
        raise NotApplicable("The map is not made of the network's gradient.")
    own = subject.plain and name.base in OWN_GRADIENT
    by_image = own and name.base == "input_x_gradient"
    maps = bench.slopes(subject.text) if own else bench.gradients_beside
    expected = bench.doubles_beside.derivatives(by_image=by_image)
    error = _relative(bench.doubles_beside.products(maps), expected)
    what = "The map" if own else "The network's gradient, which this map is made of,"
    beyond = f"{what} is not how the output changes"
    if error > RELATIVE_ERROR:
        exact = bench.doubles_beside.products(bench.doubles_beside.own_gradients())
        wrong = _relative(exact, bench.doubles_beside.derivatives()) > RELATIVE_ERROR
        beyond += (
            ": the network's own backward pass is wrong or left out in part; look for detach, no_grad, rounding, hooks "
            "and torch.autograd.Function."
            if wrong
            else ", although the network's own gradient in float64 is: this is rounding, or a fault of the method."
        )
    return Found(error, RELATIVE_ERROR, f"{what} is how the output changes when the image does.", beyond)


def brute_force(subject: Subject) -> Found:
    """Relative error of sampled voxels, against falls of the network's output in float64."""
    found, expected, _ = _falls(subject)
    return Found(
        _relative(found, expected),
        RELATIVE_ERROR,
        "The map shows how far the output falls.",
        "The map does not show how far the output falls: falls this small are lost in rounding, so explain the network "
        "in float64 (model.double(), images.double()) or hide larger patches.",
    )


def above_rounding(subject: Subject) -> Found:
    """Share of the sampled voxels whose fall is smaller than the error of the falls."""
    found, expected, single = _falls(subject)
    error = (found - expected).square().mean().sqrt()
    return Found(
        float((single.abs() <= error).double().mean()) if error else 0.0,
        BELOW_ROUNDING,
        "Differences between weak places of the map mean something too.",
        "The weak places of the map are rounding: compare only places that stand out, or explain the network in "
        "float64 (model.double(), images.double()).",
    )


def determinism(subject: Subject) -> Found:
    """Largest change from one call to the next, as a share of the map's largest value."""
    change = (subject.again() - subject.alone).abs().max() / subject.alone.abs().max().clamp(min=1e-30)
    return Found(
        float(change),
        0.0,
        "The same call gives the same map, bit by bit.",
        "The same call gives another map: the network draws random numbers or keeps a state though it is in evaluation "
        "mode, or the device adds up in varying order.",
    )


def batch_independence(subject: Subject) -> Found:
    """Relative difference between the map of an image alone and beside another, the larger of the two images."""
    pair = subject.bench.companions
    together, alone = subject.again(pair), torch.cat([subject.alone, subject.again(pair[1:])])
    return Found(
        max(_relative(together[i], alone[i]) for i in range(2)),
        RELATIVE_ERROR,
        "An image's map does not depend on its neighbours in the batch.",
        "An image's map depends on its neighbours in the batch: look for statistics over the batch in the network, as "
        "x / x.max(), or explain one image at a time.",
    )


def last_layer(subject: Subject) -> Found:
    """Rank correlation of absolute maps before and after the last layer's weights are drawn anew."""
    return _sensitivity(subject, "last", "the last layer")


def all_layers(subject: Subject) -> Found:
    """Rank correlation of absolute maps before and after all weights are drawn anew."""
    return _sensitivity(subject, "all", "all layers")


CHECKS: dict[str, Callable[[Subject], Found]] = {
    "explains the network": explains,
    "completeness": completeness,
    "conservation": conservation,
    "conservation without biases": conservation_without_biases,
    "finite differences": finite_differences,
    "brute force": brute_force,
    "falls above rounding": above_rounding,
    "determinism": determinism,
    "batch independence": batch_independence,
    "depends on the last layer": last_layer,
    "depends on the weights": all_layers,
}
"""All checks in their order; the first line of each docstring says what is measured."""


def row_of(subject: Subject, check: str) -> Check:
    """A row of the table; an error of ours is why a check does not apply."""
    run = CHECKS[check]
    measured = (run.__doc__ or "").splitlines()[0].rstrip(".")
    try:
        found = run(subject)
    except XaitoolsError as error:
        return Check(subject.text, check, measured, None, None, NOT_APPLICABLE, str(error))
    holds = found.value <= found.bound
    verdict, meaning = (HOLDS, found.within) if holds else (FAILS, found.beyond)
    return Check(subject.text, check, measured, found.value, found.bound, verdict, meaning)


def _gap(subject: Subject, kind: str) -> Tensor:
    gaps = getattr(subject.maps, kind)
    if not subject.plain or subject.name.source not in gaps:
        raise NotApplicable("The map promises no such sum.")
    return gaps[subject.name.source].double()


def _share(gap: Tensor, whole: Tensor) -> float:
    """The largest share; of a whole that is rounding, the gap's share in that."""
    return float((gap.abs() / whole.abs().clamp(min=1e-30)).max())


def _relative(found: Tensor, expected: Tensor) -> float:
    """Norm of the difference as a share of the norm of what was expected; 0 where both are 0."""
    difference = (found.double() - expected.double()).norm()
    return float(difference / expected.double().norm().clamp(min=1e-300)) if difference else 0.0


def _sensitivity(subject: Subject, which: str, layers: str) -> Found:
    after = subject.again(network=subject.bench.randomized[which])
    return Found(
        _rank_correlation(subject.alone, after),
        SAME_RANKS,
        f"With new weights in {layers} the map is another: it shows what the network has learned.",
        f"With new weights in {layers} most of the map's ranking stays: it shows the image, or what any network makes "
        "of it, more than what this one has learned.",
    )


def _rank_correlation(one: Tensor, other: Tensor) -> float:
    """Spearman's correlation of the absolute values where either is not 0."""
    first, second = (values.abs().flatten().cpu().double().numpy() for values in (one, other))
    shown = (first != 0) | (second != 0)
    if not first.any() or not second.any() or np.ptp(first[shown]) == 0 or np.ptp(second[shown]) == 0:
        raise NotApplicable("A map is 0 or constant everywhere, so there are no ranks to compare.")
    return float(spearmanr(first[shown], second[shown]).statistic)


def _falls(subject: Subject) -> tuple[Tensor, Tensor, Tensor]:
    """Of sampled voxels of the first image: the map's values, those by brute force, and the falls they are means of."""
    name, bench = subject.name, subject.bench
    if name.base != "occlusion" or not subject.plain:
        raise NotApplicable("The map is not one of falls.")
    options = {
        key: value for part in (name.base, name.source) for key, value in _options(bench, part).items()
    }
    filler = bench.doubles.filler(options.get("baseline", 0.0), 0)
    sampled = _sampled_windows(subject, options.get("label_map"), filler)
    if not sampled:
        raise NotApplicable("Nothing that the windows hide differs from the baseline.")
    falls = [bench.doubles.falls(0, windows, filler) for _, windows in sampled]
    found = torch.stack([subject.map[(0, 0, *voxel)] for voxel, _ in sampled]).to(falls[0])
    return found, torch.stack([own.mean() for own in falls]), torch.cat(falls)


def _options(bench: Bench, part: str) -> Mapping[str, Any]:
    return (bench.settings.get("options") or {}).get(part, {})


def _sampled_windows(
    subject: Subject, label_map: Any, filler: Float64[Tensor, "channel *spatial"]
) -> list[tuple[tuple[int, ...], Bool[Tensor, "window *spatial"]]]:
    """Voxels of the first image drawn by lot, each with the windows over it, where the image is not the baseline."""
    differs = (subject.bench.images[0].to(filler) != filler).any(0)
    shape = tuple(differs.shape)
    sampled: list[tuple[tuple[int, ...], Bool[Tensor, window * spatial]]] = []
    left = FORWARD_PASSES
    if label_map is not None:
        labels = torch.as_tensor(label_map).to(differs.device)
        labels = labels if labels.ndim == differs.ndim else labels[0]
        differs &= labels != 0
    order = torch.randperm(int(differs.sum()), generator=torch.Generator().manual_seed(0))
    for voxel in map(tuple, differs.nonzero().cpu()[order].tolist()):
        if label_map is None:
            option = subject.name.method.option
            assert option is not None  # occlusion has one
            size = option.read(subject.name.option or option.default)
            windows = windows_over(voxel, size["patch"], size["stride"], shape).to(differs.device)
        else:
            windows = (labels == labels[voxel])[None]
        if any(torch.equal(windows, other) for _, other in sampled):
            continue
        if sampled and len(windows) > left:
            break
        left -= len(windows)
        sampled.append((voxel, windows))
        if label_map is not None and len(sampled) == len(labels[differs].unique()):
            break
    return sampled
