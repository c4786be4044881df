"""Is a map faithful to its model: what do noisy windows, those it ranks first before the others, do to the output?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64, Int64, Shaped
from torch import Tensor

from xaitools.checks import Target, check_choice, check_counts, check_positive, checked_target
from xaitools.errors import DataError, ParameterError, ShapeError
from xaitools.evaluation._answers import Model
from xaitools.evaluation._maps import as_array, checked_maps
from xaitools.evaluation._orders import Curve, inverse, ranks, share_sets
from xaitools.evaluation._perturbing import Items, checked_pixels, perturbed_runs
from xaitools.models.images import ImageStack
from xaitools.models.outputs import Output
from xaitools.progress import Progress

WINDOWS = (4, 4)
MODES = ("add", "replace")
NOISE_UNITS = ("value", "image_sd")
RANKINGS = ("mean_abs", "mean")


@dataclass(frozen=True, eq=False)
class RegionCurves:
    """What a model returns while window after window of its images is perturbed.

    Attributes
    ----------
    runs
        Outputs after 0 to K windows by name of the map and order (``"most"`` or ``"least"`` relevant first),
        ``(1, n_images, K + 1)``; under ``("random", "random")`` those of each random order,
        ``(n_random, n_images, K + 1)``.
    n_evaluations
        Images that the model was asked about.
    """

    runs: dict[Curve, Float64[np.ndarray, "n_orders n_images n_steps"]]
    n_evaluations: int

    @property
    def outputs(self) -> dict[Curve, Float64[np.ndarray, "n_images n_steps"]]:
        """Output after 0 to K windows, in the unit of the model; under random the mean over the orders."""
        return {key: runs.mean(axis=0) for key, runs in self.runs.items()}

    def errors(
        self, truth: Shaped[np.ndarray, "..."] | Shaped[Tensor, "..."] | Sequence[float]
    ) -> dict[Curve, Float64[np.ndarray, "n_images n_steps"]]:
        """Absolute prediction error after 0 to K windows; under random the mean of the errors of the orders.

        Parameters
        ----------
        truth
            True value of each image, in the unit of the model.

        Raises
        ------
        ShapeError
            If there is not one value for each image.
        DataError
            If a value is not finite.
        """
        n = next(iter(self.runs.values())).shape[1]
        true = as_array(truth).astype(np.float64)
        if true.shape != (n,):
            raise ShapeError(f"truth has shape {true.shape}; expected one value for each of the {n} images.")
        bad = np.flatnonzero(~np.isfinite(true))
        if len(bad):
            raise DataError(
                f"the true value of image {bad[0]} is NaN or infinite; expected a number: leave the image out."
            )
        return {key: np.abs(runs - true[:, None]).mean(axis=0) for key, runs in self.runs.items()}

    def aopc(self) -> dict[Curve, Float64[np.ndarray, " n_images"]]:
        """Area over the perturbation curve of each image, in the unit of the model: larger is more faithful.

        The output for the untouched image less the mean output over steps 0 to K.

        References
        ----------
        Samek et al., Evaluating the visualization of what a deep neural network has learned, IEEE TNNLS 2017,
        eq. 12. Zhang et al., Explainability for regression CNN in fetal head circumference estimation from
        ultrasound images, iMIMIC 2020, eq. 1, prints the same with 1/K before the sum of the K + 1 terms; we
        divide by K + 1, as Samek et al. do.
        """
        return {key: outputs[:, 0] - outputs.mean(axis=1) for key, outputs in self.outputs.items()}

    def aopc_regression(
        self, truth: Shaped[np.ndarray, "..."] | Shaped[Tensor, "..."] | Sequence[float]
    ) -> dict[Curve, Float64[np.ndarray, " n_images"]]:
        """Area over the error curve of each image, in the unit of the model: more negative is more faithful.

        The error for the untouched image less the mean error over steps 0 to K.

        Parameters
        ----------
        truth
            As for :meth:`errors`.

        References
        ----------
        Zhang et al., Explainability for regression CNN in fetal head circumference estimation from ultrasound
        images, iMIMIC 2020, eq. 2. It prints 1/K before a sum of K + 1 terms; we divide by K + 1, as the
        authors' code and Samek et al. 2017, eq. 12, do.
        """
        return {key: errors[:, 0] - errors.mean(axis=1) for key, errors in self.errors(truth).items()}


def region_perturbation(
    model: Model,
    images: Float[Tensor, "batch channel *spatial"]
    | Float[np.ndarray, "batch channel *spatial"]
    | ImageStack,
    maps: Mapping[str, Any] | Shaped[Tensor, "n_maps *map"] | Shaped[np.ndarray, "n_maps *map"],
    target: Target | np.integer = None,
    *,
    windows: Sequence[int] = WINDOWS,
    n_perturbed: int | None = None,
    noise_sd: float = 0.3,
    noise_unit: str = "value",
    mode: str = "add",
    clip: tuple[float, float] | None = None,
    ranking: str = "mean_abs",
    output: Output = None,
    controls: bool = True,
    n_random: int = 5,
    seed: int = 0,
    batch_size: int = 32,
    progress: bool | Progress = True,
) -> RegionCurves:
    """Perturb windows of the images with noise, the most relevant first, and record the output after each.

    A faithful map makes the error of a regression grow fast, or the score of a class fall fast. An image has
    one noise field, which all maps, orders and steps share, so that maps differ by their order alone. Windows
    of equal relevance follow one random order of the image that all maps share. Each distinct set of
    perturbed windows of an image is evaluated once, whatever maps and orders reach it.

    Parameters
    ----------
    model
        A network, whose outputs are recorded as they are; it is used on its own device, in evaluation mode and
        without gradients, and left as it was. Or any callable of a batch of images, which it gets on the CPU. Either
        returns ``(batch,)`` or ``(batch, 1)`` of a regression, or ``(batch, n_classes)`` with `target`.
    images, maps
        As for :func:`~xaitools.evaluation.perturbation.fidelity_curves`.
    target
        Class whose output is recorded, one for all images, or one for each; None records the single output of a
        regression.
    windows
        Number of windows along each spatial axis. Where it does not divide the size, the first windows are
        one element longer, as those of :func:`numpy.array_split`.
    n_perturbed
        Number K of windows that are perturbed; None perturbs all.
    noise_sd
        Standard deviation of the Gaussian noise, in `noise_unit`.
    noise_unit
        ``"value"``: the unit of the images. ``"image_sd"``: the standard deviation of each image over all its
        channels, which is what 0.3 means for images that are standardised one by one.
    mode
        ``"add"`` noise of mean 0 to the windows, or ``"replace"`` them by noise, of mean 0 if `noise_unit` is
        ``"value"``, and of the image's mean if it is ``"image_sd"``.
    clip
        Smallest and largest value of a perturbed element, such as ``(0, 1)``; None leaves it as it comes.
    ranking
        ``"mean_abs"`` ranks windows by the mean absolute value of the map in each, ``"mean"`` by the mean.
    controls, n_random, seed, batch_size, progress
        As for :func:`~xaitools.evaluation.perturbation.fidelity_curves`; every random order is kept.

    Raises
    ------
    DataError
        If there is no image or no map, an image is constant, or a value is not finite.
    ShapeError
        If maps or target do not fit the images, or the model does not return a row an image.
    TargetError
        If there is no target but several outputs, or a target is not one of them.
    ParameterError
        If an option is unknown or out of its range.

    References
    ----------
    Zhang et al., Explainability for regression CNN in fetal head circumference estimation from ultrasound
    images, iMIMIC 2020, section 2.2. Their text adds the noise; their public code replaces windows of images
    that it standardised, which is ``mode="replace", noise_unit="image_sd"``. Samek et al., Evaluating the
    visualization of what a deep neural network has learned, IEEE TNNLS 2017, section III.
    """
    pixels = checked_pixels(images)
    label_map = _label_map(pixels.shape[2:], windows)
    k = _checked_number(n_perturbed, int(label_map.max()) + 1)
    noise = _Noise(noise_sd, noise_unit, mode, clip, seed)
    check_choice(ranking=(ranking, RANKINGS))
    check_counts(n_random=n_random, batch_size=batch_size)
    relevance = checked_maps(maps, pixels)

    items = Items(
        relevance=lambda i: [_window_means(values[i], label_map, ranking) for values in relevance.values()],
        filler=lambda i: noise.fill(pixels[i], i),
        elements=lambda perturbed: perturbed[label_map],
        counts=range(k + 1),
        share=share_sets,
        draw=lambda rng, n: inverse(rng.permutation(n)),
    )
    return RegionCurves(
        *perturbed_runs(
            model,
            pixels,
            list(relevance),
            items,
            checked_target(target, len(pixels)),
            n_random=n_random if controls else 0,
            seed=seed,
            batch_size=batch_size,
            progress=progress,
            what="perturbation",
            output=output,
        )
    )


def perturbed_images(
    image: Float[Tensor, "channel *spatial"] | Float[np.ndarray, "channel *spatial"],
    relevance: Shaped[Tensor, "*map"] | Shaped[np.ndarray, "*map"],
    *,
    windows: Sequence[int] = WINDOWS,
    n_perturbed: int | None = None,
    noise_sd: float = 0.3,
    noise_unit: str = "value",
    mode: str = "add",
    clip: tuple[float, float] | None = None,
    ranking: str = "mean_abs",
    seed: int = 0,
    index: int = 0,
) -> Float32[Tensor, "step channel *spatial"]:
    """The images that :func:`region_perturbation` shows the model: after 0 to K windows, most relevant first.

    Parameters
    ----------
    image
        One image.
    relevance
        Its map, ``(*spatial)`` or ``(1, *spatial)``.
    windows, n_perturbed, noise_sd, noise_unit, mode, clip, ranking, seed
        As for :func:`region_perturbation`.
    index
        The image's index there, on which its noise depends.

    Raises
    ------
    DataError, ShapeError, ParameterError
        As for :func:`region_perturbation`.
    """
    pixels = checked_pixels(image[None])
    label_map = _label_map(pixels.shape[2:], windows)
    k = _checked_number(n_perturbed, int(label_map.max()) + 1)
    noise = _Noise(noise_sd, noise_unit, mode, clip, seed)
    check_choice(ranking=(ranking, RANKINGS))
    values = checked_maps({"relevance": relevance[None]}, pixels)["relevance"][0]
    (rank,) = ranks([_window_means(values, label_map, ranking)], 0, (seed, index))
    perturbed = rank[label_map] < np.arange(k + 1).reshape(-1, *[1] * label_map.ndim)
    return torch.from_numpy(np.where(perturbed[:, None], noise.fill(pixels[0], index), pixels[0]))


@dataclass(frozen=True)
class _Noise:
    sd: float
    unit: str
    mode: str
    clip: tuple[float, float] | None
    seed: int

    def __post_init__(self) -> None:
        check_positive(noise_sd=self.sd)
        check_choice(noise_unit=(self.unit, NOISE_UNITS), mode=(self.mode, MODES))
        if self.clip is not None and not self.clip[0] < self.clip[1]:
            raise ParameterError(f"clip={self.clip}; expected the smaller value first, such as (0, 1).")

    def fill(
        self, image: Float32[np.ndarray, "channel *spatial"], index: int
    ) -> Float32[np.ndarray, "channel *spatial"]:
        """What stands in the perturbed windows of an image: the whole image, perturbed."""
        mean, sd = (image.mean(), image.std()) if self.unit == "image_sd" else (0, 1)
        rng = np.random.default_rng([self.seed, index, 2])
        field = rng.standard_normal(image.shape, dtype=image.dtype) * np.float32(self.sd * sd)
        filler = field + (image if self.mode == "add" else np.float32(mean))
        return filler if self.clip is None else filler.clip(*self.clip)


def _label_map(spatial: tuple[int, ...], windows: Sequence[int]) -> Int64[np.ndarray, "*spatial"]:
    """Number of the window that each element lies in."""
    if len(windows) != len(spatial):
        raise ParameterError(
            f"windows={tuple(windows)}, but the images have {len(spatial)} spatial axes, {spatial}; "
            "expected one number of windows for each axis."
        )
    if not all(1 <= n <= size for n, size in zip(windows, spatial, strict=True)):
        raise ParameterError(
            f"windows={tuple(windows)}; expected 1 window or more along each axis, and no more than the "
            f"images' {spatial} elements."
        )
    axes = [
        np.repeat(np.arange(n), [len(part) for part in np.array_split(np.arange(size), n)])
        for n, size in zip(windows, spatial, strict=True)
    ]
    return np.ravel_multi_index(tuple(np.meshgrid(*axes, indexing="ij")), tuple(windows))


def _window_means(
    values: Float[np.ndarray, "*spatial"], label_map: Int64[np.ndarray, "*spatial"], ranking: str
) -> Float32[np.ndarray, " window"]:
    """Means of the windows relative to the largest; in float32, so that rounding does not undo ties."""
    weights = np.abs(values) if ranking == "mean_abs" else values
    means = np.bincount(label_map.ravel(), weights=weights.ravel()) / np.bincount(label_map.ravel())
    return (means / (np.abs(means).max() or 1)).astype(np.float32)


def _checked_number(n_perturbed: int | None, n_windows: int) -> int:
    if n_perturbed is None:
        return n_windows
    if not 1 <= n_perturbed <= n_windows:
        raise ParameterError(
            f"n_perturbed={n_perturbed}; expected 1 to {n_windows}, the number of windows, or None for all."
        )
    return n_perturbed
