"""Is a map faithful to its model: does the prediction fall when what it ranks first is taken away?"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Float64, Shaped
from scipy import ndimage
from torch import Tensor

from xaitools.checks import Target, check_choice, check_counts, checked_target
from xaitools.errors import DataError, ParameterError, ShapeError, TargetError
from xaitools.evaluation._answers import Model
from xaitools.evaluation._maps import as_array, checked_maps
from xaitools.evaluation._orders import Curve, share_rankings
from xaitools.evaluation._perturbing import Items, checked_pixels, perturbed_runs
from xaitools.models.images import ImageStack
from xaitools.models.outputs import Output
from xaitools.progress import Progress

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
    model: Model,
    images: Float[Tensor, "batch channel *spatial"]
    | Float[np.ndarray, "batch channel *spatial"]
    | ImageStack,
    maps: Mapping[str, Any] | Shaped[Tensor, "n_maps *map"] | Shaped[np.ndarray, "n_maps *map"],
    target: Target | np.integer,
    *,
    fractions: Sequence[float] | Float64[np.ndarray, " step"] = FRACTIONS,
    replacement: str | Tensor | np.ndarray = "black",
    output: Output = None,
    controls: bool = True,
    n_random: int = 5,
    seed: int = 0,
    batch_size: int = 32,
    progress: bool | Progress = True,
) -> Fidelity:
    """Replace the most relevant fraction q of the pixels, for growing q, and record the target's probability.

    A faithful map makes it fall fast. Pixels of equal value, as in a map of regions, are ranked by one random
    order of each image that all maps share: a region is taken away pixel by pixel, evenly all over, before
    the next one begins. Whatever maps have in common is evaluated once: the untouched and the fully replaced
    image, equal rankings (a map and any increasing transform of it), and the random orders. All channels of a
    pixel are replaced together.

    Parameters
    ----------
    model
        A network that returns logits ``(batch, n_classes)``, of which the softmax is taken, or probabilities, rows from
        0 to 1 that sum to 1; it is used on its own device, in evaluation mode and without gradients, and left as it
        was. Or any callable that returns the probabilities of a batch of images, which it gets on the CPU.
    images
        Images ``(batch, channel, *spatial)`` of two or three spatial axes.
    maps
        Relevance by name, ``(batch, 1, *spatial)`` or ``(batch, *spatial)``; larger means more relevant. One alone is
        named "map".
    target
        Class whose probability is recorded, one for all images, or one for each.
    fractions
        Increasing values of q in [0, 1]; ``round(q * n_pixels)`` pixels are replaced.
    replacement
        What pixels are replaced with: a key of :data:`REPLACEMENTS`, or an array that broadcasts to `images`.
    output
        Which tensor of what a network returns, as in `xaitools.attribute`; None for the only one.
    controls
        Add, for each map, the least relevant pixels first (its exact reverse), and the mean curve of
        `n_random` random orders of each image.
    n_random
        Random orders of each image.
    seed
        Fixes the random orders and the noise; they depend on an image's index, not on the maps.
    batch_size
        Images that the model gets at once.
    progress
        Show a bar if the work takes more than two seconds; or a function that is called after each batch with the
        points of curves that are known, and how many there will be. What it raises ends the call.

    Raises
    ------
    DataError
        If there is no image or no map, an image is constant, a value is not finite, or a callable
        returns what is no probability.
    ShapeError
        If maps, target or replacement do not fit the images, or the model does not return a row an image.
    TargetError
        If there is no target, or one is not among the classes.
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
    pixels = checked_pixels(images)
    relevance = checked_maps(maps, pixels)
    classes = checked_target(target, len(pixels))
    if classes is None:
        raise TargetError("target=None; expected the class whose probability is recorded: give one.")
    fill = _checked_replacement(replacement, pixels)

    spatial = pixels.shape[2:]
    items = Items(
        relevance=lambda i: [values[i].ravel() for values in relevance.values()],
        filler=lambda i: fill(i, np.random.default_rng([seed, i, 2])),
        elements=lambda replaced: replaced.reshape(spatial),
        counts=np.rint(steps * pixels[0, 0].size).astype(int).tolist(),
        share=share_rankings,
    )
    runs, n_evaluations = perturbed_runs(
        model,
        pixels,
        list(relevance),
        items,
        classes,
        n_random=n_random if controls else 0,
        seed=seed,
        batch_size=batch_size,
        progress=progress,
        what="fidelity",
        output=output,
        softmax=True,
    )
    return Fidelity(steps, {curve: own.mean(axis=0) for curve, own in runs.items()}, n_evaluations)


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


def _checked_fractions(fractions: Sequence[float] | np.ndarray) -> np.ndarray:
    steps = np.asarray(fractions, dtype=np.float64)
    if steps.ndim != 1 or len(steps) < 2 or steps[0] < 0 or steps[-1] > 1 or not (np.diff(steps) > 0).all():
        raise ParameterError(
            f"fractions={fractions!r}; expected two or more increasing values from 0 to 1: give shares, not percent."
        )
    return steps


def _checked_replacement(
    replacement: str | Tensor | np.ndarray, images: np.ndarray
) -> Callable[[int, np.random.Generator], np.ndarray]:
    if isinstance(replacement, str):
        check_choice(replacement=(replacement, REPLACEMENTS))
        function = REPLACEMENTS[replacement]
        return lambda i, rng: function(images[i], rng)
    values = as_array(replacement).astype(np.float32)
    try:
        filled = np.broadcast_to(values, images.shape)
    except ValueError as error:
        raise ShapeError(
            f"replacement has shape {values.shape}; expected one that broadcasts to the images' {images.shape}: "
            "reshape it."
        ) from error
    if not np.isfinite(values).all():
        raise DataError("replacement has NaN or infinite values; expected finite ones: repair it.")
    return lambda i, _: filled[i]
