"""Is a map faithful to its model: does the prediction fall when what it ranks first is taken away?"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64, Shaped
from scipy import ndimage
from torch import Tensor
from tqdm.auto import tqdm

from xaitools.errors import DataError, ParameterError, ShapeError, TargetError
from xaitools.evaluation.checks import check_counts, checked_images, checked_maps, checked_targets

Predict = Callable[[Tensor], Tensor]
Curve = tuple[str, str]

RANDOM: Curve = ("random", "random")
FRACTIONS = tuple(step / 20 for step in range(21))


@dataclass(frozen=True, eq=False)
class Fidelity:
    """Fidelity curves of several maps.

    Attributes
    ----------
    fractions
        Fraction q of the pixels that is replaced at each step.
    curves
        Probability of the target class, ``(n_images, n_fractions)``, by name of the map and order (``"most"``
        or ``"least"`` relevant first); under ``("random", "random")`` that of random orders.
    n_evaluations
        Images that the model was asked about.
    """

    fractions: Float64[np.ndarray, " n_fractions"]
    curves: dict[Curve, Float64[np.ndarray, "n_images n_fractions"]]
    n_evaluations: int

    @property
    def area(self) -> dict[Curve, Float64[np.ndarray, " n_images"]]:
        """Area under each curve by the trapezoid rule, divided by the range of q: the mean probability, 0 to 1.

        With the most relevant pixels first, smaller is more faithful; with the least relevant first, larger
        is.
        """
        steps = np.diff(self.fractions)
        return {
            key: ((curve[:, 1:] + curve[:, :-1]) / 2) @ steps / steps.sum()
            for key, curve in self.curves.items()
        }


def fidelity_curves(
    predict: Predict,
    images: Float[Tensor, "n channel *spatial"],
    maps: Mapping[str, Shaped[Tensor, "..."] | Shaped[np.ndarray, "..."]],
    targets: Shaped[Tensor, " n_targets"] | Sequence[int],
    *,
    fractions: Sequence[float] | Float64[np.ndarray, " n_fractions"] = FRACTIONS,
    replacement: str | Tensor = "black",
    controls: bool = True,
    n_random: int = 5,
    seed: int = 0,
    batch_size: int = 32,
    progress: bool = True,
) -> Fidelity:
    """Replace the most relevant fraction q of the pixels, for growing q, and record the target's probability.

    A faithful map makes it fall fast. Pixels of equal value, as in a map of regions, are ranked by one random
    order of each image that all maps share: a region is taken away pixel by pixel, evenly all over, before
    the next one begins. Whatever maps have in common is evaluated once: the untouched and the fully replaced
    image, equal rankings (a map and any increasing transform of it), and the random orders. All channels of a
    pixel are replaced together.

    Parameters
    ----------
    predict
        Gives the class probabilities ``(batch, n_classes)`` of images ``(batch, channel, *spatial)``, which
        it gets on the CPU, at most `batch_size` at once.
    images
        Images; two or three spatial axes.
    maps
        Relevance by name, ``(n, 1, *spatial)`` or ``(n, *spatial)``; larger means more relevant.
    targets
        Class of each image whose probability is recorded.
    fractions
        Increasing values of q in [0, 1]; ``round(q * n_pixels)`` pixels are replaced.
    replacement
        What pixels are replaced with: a key of :data:`REPLACEMENTS`, or a tensor that broadcasts to `images`.
    controls
        Add, for each map, the least relevant pixels first (its exact reverse), and the mean curve of
        `n_random` random orders of each image.
    n_random
        Random orders of each image.
    seed
        Fixes the random orders and the noise; they depend on an image's index, not on the maps.
    batch_size
        Images in one call of `predict`.
    progress
        Show a progress bar.

    Raises
    ------
    DataError
        If there is no image or no map, an image is constant, or a value is not finite.
    ShapeError
        If maps, targets or replacement do not fit the images, or `predict` does not return a row an image.
    TargetError
        If a target is not one of the classes.
    ParameterError
        If an option is unknown or out of its range.

    References
    ----------
    Brocki et al., Evaluation of importance estimators in deep learning classifiers for computed tomography,
    EXTRAAMAS 2022. Samek et al., Evaluating the visualization of what a deep neural network has learned, IEEE
    TNNLS 2017, eq. 12.
    """
    steps = _checked_fractions(fractions)
    check_counts(n_random=n_random, batch_size=batch_size)
    pixels = checked_images(images)
    relevance = checked_maps(maps, pixels)
    classes = checked_targets(targets, len(pixels))
    fill = _checked_replacement(replacement, pixels)

    counts = np.rint(steps * pixels[0, 0].size).astype(int).tolist()
    keys: list[Curve] = [(name, "most") for name in relevance]
    if controls:
        keys += [(name, "least") for name in relevance] + [RANDOM] * n_random
    state_of = np.empty((len(pixels), len(keys), len(counts)), dtype=int)

    def states() -> Iterator[tuple[np.ndarray, int]]:
        """Every distinct perturbed image once, with its target; fills `state_of` on the way."""
        n_states = 0
        for i in tqdm(range(len(pixels)), desc="fidelity", unit="image", disable=not progress):
            ranks = _ranks([values[i] for values in relevance.values()], controls, n_random, (seed, i))
            distinct, state_of[i] = _share(ranks, counts)
            state_of[i] += n_states
            n_states += len(distinct)
            filler = fill(i, np.random.default_rng([seed, i, 2]))
            for row, count in distinct:
                yield np.where(ranks[row] < count, filler, pixels[i]), classes[i]

    probabilities = _evaluate(predict, states(), batch_size)
    curves = probabilities[state_of]
    means = {key: curves[:, [row for row, own in enumerate(keys) if own == key]].mean(axis=1) for key in keys}
    return Fidelity(steps, means, len(probabilities))


Replacement = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def black(
    image: Float[np.ndarray, "channel *spatial"], _: np.random.Generator
) -> Float[np.ndarray, "channel *spatial"]:
    """Zeros."""
    return np.zeros_like(image)


def mean(
    image: Float[np.ndarray, "channel *spatial"], _: np.random.Generator
) -> Float[np.ndarray, "channel *spatial"]:
    """The mean of each channel of the image."""
    return np.broadcast_to(image.mean(axis=_spatial(image), keepdims=True), image.shape)


def blur(
    image: Float[np.ndarray, "channel *spatial"], _: np.random.Generator
) -> Float[np.ndarray, "channel *spatial"]:
    """The image, smoothed by a Gaussian whose standard deviation is 1/16 of its size along each axis."""
    sigma = (0.0, *(size / 16 for size in image.shape[1:]))
    return ndimage.gaussian_filter(image, sigma, mode="nearest")


def noise(
    image: Float[np.ndarray, "channel *spatial"], rng: np.random.Generator
) -> Float[np.ndarray, "channel *spatial"]:
    """Gaussian noise with the mean and the standard deviation of each channel of the image."""
    axes = _spatial(image)
    field = rng.standard_normal(image.shape, dtype=image.dtype)
    return field * image.std(axis=axes, keepdims=True) + image.mean(axis=axes, keepdims=True)


REPLACEMENTS: dict[str, Replacement] = {
    function.__name__: function for function in (black, mean, blur, noise)
}


def _spatial(image: np.ndarray) -> tuple[int, ...]:
    return tuple(range(1, image.ndim))


def _ranks(
    maps: list[np.ndarray], controls: bool, n_random: int, seed: tuple[int, int]
) -> Int64[np.ndarray, "order *spatial"]:
    """Rank of each pixel (0 is replaced first) in every order: most relevant first, then the controls."""
    shape = maps[0].shape
    scattered = np.random.default_rng([*seed, 0]).permutation(maps[0].size)
    most = []
    for values in maps:
        order = scattered[np.argsort(-values.ravel()[scattered], kind="stable")]
        most.append(_inverse(order))
    if not controls:
        return np.reshape(most, (-1, *shape))
    rng = np.random.default_rng([*seed, 1])
    least = [maps[0].size - 1 - ranks for ranks in most]
    random = [rng.permutation(maps[0].size) for _ in range(n_random)]
    return np.reshape(most + least + random, (-1, *shape))


def _inverse(order: np.ndarray) -> np.ndarray:
    ranks = np.empty_like(order)
    ranks[order] = np.arange(len(order))
    return ranks


def _share(ranks: np.ndarray, counts: list[int]) -> tuple[list[tuple[int, int]], np.ndarray]:
    """The distinct perturbed images as (order, pixels replaced), and which of them each order has at each step."""
    n_pixels = ranks[0].size
    first_row: dict[bytes, int] = {}
    number: dict[tuple[int, int], int] = {}
    index = np.empty((len(ranks), len(counts)), dtype=int)
    for row, own in enumerate(ranks):
        same = first_row.setdefault(own.tobytes(), row)
        for step, count in enumerate(counts):
            state = (0 if count in (0, n_pixels) else same, count)
            index[row, step] = number.setdefault(state, len(number))
    return list(number), index


def _evaluate(
    predict: Predict, states: Iterator[tuple[np.ndarray, int]], batch_size: int
) -> Float64[np.ndarray, " n_states"]:
    found = []
    while batch := list(islice(states, batch_size)):
        images = torch.from_numpy(np.stack([image for image, _ in batch]))
        probabilities = np.asarray(torch.as_tensor(predict(images)).detach().cpu(), dtype=np.float64)
        if probabilities.ndim != 2 or len(probabilities) != len(batch):
            raise ShapeError(
                f"predict returned shape {probabilities.shape} for {len(batch)} images, "
                f"expected ({len(batch)}, n_classes)"
            )
        targets = np.array([target for _, target in batch])
        if (outside := targets[(targets < 0) | (targets >= probabilities.shape[1])]).size:
            raise TargetError(
                f"target {outside[0]} is not a class of the model, which has {probabilities.shape[1]}: "
                f"expected 0 to {probabilities.shape[1] - 1}"
            )
        found.append(probabilities[np.arange(len(batch)), targets])
    probability = np.concatenate(found)
    if not np.isfinite(probability).all():
        raise DataError("predict returned NaN or infinite probabilities; check the model on these images")
    return probability


def _checked_fractions(fractions: Sequence[float] | np.ndarray) -> np.ndarray:
    steps = np.asarray(fractions, dtype=np.float64)
    if steps.ndim != 1 or len(steps) < 2 or steps[0] < 0 or steps[-1] > 1 or not (np.diff(steps) > 0).all():
        raise ParameterError(
            f"fractions are {fractions!r}, expected two or more increasing values from 0 to 1"
        )
    return steps


def _checked_replacement(
    replacement: str | Tensor, images: np.ndarray
) -> Callable[[int, np.random.Generator], np.ndarray]:
    if isinstance(replacement, str):
        if replacement not in REPLACEMENTS:
            raise ParameterError(
                f"unknown replacement {replacement!r}; known: {', '.join(REPLACEMENTS)}, or a tensor like the images"
            )
        function = REPLACEMENTS[replacement]
        return lambda i, rng: function(images[i], rng)
    values = replacement.detach().cpu().float().numpy()
    try:
        filled = np.broadcast_to(values, images.shape)
    except ValueError as error:
        raise ShapeError(
            f"the replacement has shape {values.shape}, expected one that broadcasts to the images' {images.shape}"
        ) from error
    if not np.isfinite(values).all():
        raise DataError("the replacement has NaN or infinite values")
    return lambda i, _: filled[i]
