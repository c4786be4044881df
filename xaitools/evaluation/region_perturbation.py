"""Is a map faithful to its model: what do noisy windows, those it ranks first before the others, do to the output?"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64, Shaped
from torch import Tensor
from tqdm.auto import tqdm

from xaitools.errors import DataError, ParameterError, ShapeError, TargetError
from xaitools.evaluation.checks import check_counts, checked_images, checked_maps, checked_targets
from xaitools.evaluation.perturbation import RANDOM, Curve, Predict

GRID = (4, 4)
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
        """Output after 0 to K windows, in the unit of `predict`; under random the mean over the orders."""
        return {key: runs.mean(axis=0) for key, runs in self.runs.items()}

    def errors(
        self, truth: Shaped[np.ndarray, "..."] | Shaped[Tensor, "..."] | Sequence[float]
    ) -> dict[Curve, Float64[np.ndarray, "n_images n_steps"]]:
        """Absolute prediction error after 0 to K windows; under random the mean of the errors of the orders.

        Parameters
        ----------
        truth
            True value of each image, in the unit of `predict`.

        Raises
        ------
        ShapeError
            If there is not one value for each image.
        DataError
            If a value is not finite.
        """
        n = next(iter(self.runs.values())).shape[1]
        true = np.asarray(torch.as_tensor(truth).detach().cpu(), dtype=np.float64)
        if true.shape != (n,):
            raise ShapeError(f"truth has shape {true.shape}, expected one value for each of the {n} images")
        if not np.isfinite(true).all():
            raise DataError(
                f"the true value of image {np.flatnonzero(~np.isfinite(true))[0]} is NaN or infinite; "
                "leave the image out"
            )
        return {key: np.abs(runs - true[:, None]).mean(axis=0) for key, runs in self.runs.items()}

    def aopc(self) -> dict[Curve, Float64[np.ndarray, " n_images"]]:
        """Area over the perturbation curve of each image, in the unit of `predict`: larger is more faithful.

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
        """Area over the error curve of each image, in the unit of `predict`: more negative is more faithful.

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
    predict: Predict,
    images: Float[Tensor, "n channel *spatial"],
    maps: Mapping[str, Shaped[Tensor, "..."] | Shaped[np.ndarray, "..."]],
    *,
    targets: Shaped[Tensor, " n_targets"] | Sequence[int] | None = None,
    grid: Sequence[int] = GRID,
    steps: int | None = None,
    noise_sd: float = 0.3,
    noise_unit: str = "value",
    mode: str = "add",
    clip: tuple[float, float] | None = None,
    ranking: str = "mean_abs",
    controls: bool = True,
    n_random: int = 5,
    seed: int = 0,
    batch_size: int = 32,
    progress: bool = True,
) -> RegionCurves:
    """Perturb the windows of a grid with noise, the most relevant first, and record the output after each.

    A faithful map makes the error of a regression grow fast, or the score of a class fall fast. An image has
    one noise field, which all maps, orders and steps share, so that maps differ by their order alone. Windows
    of equal relevance follow one random order of the image that all maps share. Each distinct set of
    perturbed windows of an image is evaluated once, whatever maps and orders reach it.

    Parameters
    ----------
    predict
        Gives the outputs of images ``(batch, channel, *spatial)``, which it gets on the CPU, at most
        `batch_size` at once: ``(batch,)`` or ``(batch, 1)`` of a regression, ``(batch, n_classes)`` with
        `targets`.
    images
        Images; two or three spatial axes.
    maps
        Relevance by name, ``(n, 1, *spatial)`` or ``(n, *spatial)``.
    targets
        Class of each image whose output is recorded; None records the single output of a regression.
    grid
        Number of windows along each spatial axis. Where it does not divide the size, the first windows are
        one element longer, as those of :func:`numpy.array_split`.
    steps
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
    controls
        Add, for each map, the least relevant windows first (its exact reverse), and `n_random` random orders
        of each image.
    n_random
        Random orders of each image.
    seed
        Fixes the noise and the random orders; they depend on an image's index, not on the maps.
    batch_size
        Images in one call of `predict`.
    progress
        Show a progress bar.

    Raises
    ------
    DataError
        If there is no image or no map, an image is constant, or a value is not finite.
    ShapeError
        If maps or targets do not fit the images, or `predict` does not return a row an image.
    TargetError
        If there is no target but several outputs, or a target is not one of the classes.
    ParameterError
        If an option is unknown or out of its range.

    References
    ----------
    Zhang et al., Explainability for regression CNN in fetal head circumference estimation from ultrasound
    images, iMIMIC 2020, section 2.2. Their text adds the noise; their public code replaces windows of images
    that it standardised, which is ``mode="replace", noise_unit="image_sd"``. Samek et al., Evaluating the
    visualization of what a deep neural network has learned, IEEE TNNLS 2017, section III.
    """
    pixels = checked_images(images)
    labels = _windows(pixels.shape[2:], grid)
    k = _checked_steps(steps, int(labels.max()) + 1)
    noise = _Noise(noise_sd, noise_unit, mode, clip, seed)
    check_counts(n_random=n_random, batch_size=batch_size)
    relevance = checked_maps(maps, pixels)
    classes = None if targets is None else checked_targets(targets, len(pixels))

    keys: list[Curve] = [(name, "most") for name in relevance]
    if controls:
        keys += [(name, "least") for name in relevance] + [RANDOM] * n_random
    orders = [
        _orders([own[i] for own in relevance.values()], labels, ranking, controls, n_random, (seed, i))
        for i in range(len(pixels))
    ]
    shared = [_share(own, k) for own in orders]
    sets = [(i, windows) for i, (distinct, _) in enumerate(shared) for windows in distinct]
    outputs = _evaluate(predict, pixels, sets, labels, noise, classes, batch_size, progress)

    first = np.cumsum([0, *(len(distinct) for distinct, _ in shared[:-1])])
    runs = np.stack([outputs[start + index] for start, (_, index) in zip(first, shared, strict=True)], axis=1)
    rows = {key: [row for row, own in enumerate(keys) if own == key] for key in keys}
    return RegionCurves({key: runs[own] for key, own in rows.items()}, len(outputs))


def perturbed_images(
    image: Float[Tensor, "channel *spatial"],
    relevance: Shaped[Tensor, "..."] | Shaped[np.ndarray, "..."],
    *,
    grid: Sequence[int] = GRID,
    steps: int | None = None,
    noise_sd: float = 0.3,
    noise_unit: str = "value",
    mode: str = "add",
    clip: tuple[float, float] | None = None,
    ranking: str = "mean_abs",
    seed: int = 0,
    index: int = 0,
) -> Float[Tensor, "n_steps channel *spatial"]:
    """The images that :func:`region_perturbation` shows the model: after 0 to K windows, most relevant first.

    Parameters
    ----------
    image
        One image.
    relevance
        Its map, ``(*spatial)`` or ``(1, *spatial)``.
    grid, steps, noise_sd, noise_unit, mode, clip, ranking, seed
        As for :func:`region_perturbation`.
    index
        The image's index there, on which its noise depends.

    Raises
    ------
    DataError, ShapeError, ParameterError
        As for :func:`region_perturbation`.
    """
    pixels = checked_images(image[None])
    labels = _windows(pixels.shape[2:], grid)
    k = _checked_steps(steps, int(labels.max()) + 1)
    noise = _Noise(noise_sd, noise_unit, mode, clip, seed)
    own = checked_maps({"relevance": torch.as_tensor(relevance)[None]}, pixels)["relevance"]
    (order,) = _orders([own[0]], labels, ranking, False, 0, (seed, index))
    filler = noise.fill(pixels[0], index)
    perturbed = _after_each(order, k)[:, labels]
    return torch.from_numpy(np.where(perturbed[:, None], filler, pixels[0]))


@dataclass(frozen=True)
class _Noise:
    sd: float
    unit: str
    mode: str
    clip: tuple[float, float] | None
    seed: int

    def __post_init__(self) -> None:
        if not 0 < self.sd < np.inf:
            raise ParameterError(f"noise_sd is {self.sd}, expected a positive number")
        _checked_choice("noise_unit", self.unit, NOISE_UNITS)
        _checked_choice("mode", self.mode, MODES)
        if self.clip is not None and not self.clip[0] < self.clip[1]:
            raise ParameterError(f"clip is {self.clip}, expected the smaller value first, such as (0, 1)")

    def fill(self, image: np.ndarray, index: int) -> np.ndarray:
        """What stands in the perturbed windows of an image: the whole image, perturbed."""
        mean, sd = (image.mean(), image.std()) if self.unit == "image_sd" else (0, 1)
        rng = np.random.default_rng([self.seed, index, 2])
        field = rng.standard_normal(image.shape, dtype=image.dtype) * np.float32(self.sd * sd)
        filler = field + (image if self.mode == "add" else np.float32(mean))
        return filler if self.clip is None else filler.clip(*self.clip)


def _windows(spatial: tuple[int, ...], grid: Sequence[int]) -> Int64[np.ndarray, "*spatial"]:
    """Number of the window that each element lies in."""
    if len(grid) != len(spatial):
        raise ParameterError(
            f"grid is {tuple(grid)}, but the images have {len(spatial)} spatial axes, {spatial}: "
            "expected one number of windows for each axis"
        )
    if not all(1 <= n <= size for n, size in zip(grid, spatial, strict=True)):
        raise ParameterError(
            f"grid is {tuple(grid)}, expected 1 window or more along each axis, and no more than the "
            f"images' {spatial} elements"
        )
    axes = [
        np.repeat(np.arange(n), [len(part) for part in np.array_split(np.arange(size), n)])
        for n, size in zip(grid, spatial, strict=True)
    ]
    return np.ravel_multi_index(tuple(np.meshgrid(*axes, indexing="ij")), tuple(grid))


def _orders(
    maps: list[np.ndarray],
    labels: np.ndarray,
    ranking: str,
    controls: bool,
    n_random: int,
    seed: tuple[int, int],
) -> Int64[np.ndarray, "order window"]:
    """Windows of one image in every order: most relevant first, then the controls."""
    _checked_choice("ranking", ranking, RANKINGS)
    n_windows = int(labels.max()) + 1
    scattered = np.random.default_rng([*seed, 0]).permutation(n_windows)
    most = []
    for values in maps:
        means = _window_means(np.abs(values) if ranking == "mean_abs" else values, labels)
        most.append(scattered[np.argsort(-means[scattered], kind="stable")])
    if not controls:
        return np.array(most)
    rng = np.random.default_rng([*seed, 1])
    least = [order[::-1] for order in most]
    random = [rng.permutation(n_windows) for _ in range(n_random)]
    return np.array(most + least + random)


def _window_means(values: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Means of the windows relative to the largest; in float32, so that rounding does not undo ties."""
    means = np.bincount(labels.ravel(), weights=values.ravel()) / np.bincount(labels.ravel())
    return (means / (np.abs(means).max() or 1)).astype(np.float32)


def _after_each(order: np.ndarray, k: int) -> np.ndarray:
    """Whether each window is perturbed after 0 to k steps: bool, (k + 1, window)."""
    step_of = np.empty_like(order)
    step_of[order] = np.arange(len(order))
    return step_of < np.arange(k + 1)[:, None]


def _share(orders: np.ndarray, k: int) -> tuple[list[np.ndarray], np.ndarray]:
    """The distinct sets of perturbed windows, and which of them each order has after each step."""
    after = np.stack([_after_each(order, k) for order in orders])
    distinct, index = np.unique(after.reshape(-1, after.shape[-1]), axis=0, return_inverse=True)
    return list(distinct), index.reshape(after.shape[:2])


def _evaluate(
    predict: Predict,
    images: np.ndarray,
    sets: list[tuple[int, np.ndarray]],
    labels: np.ndarray,
    noise: _Noise,
    classes: list[int] | None,
    batch_size: int,
    progress: bool,
) -> Float64[np.ndarray, " set"]:
    """Output of the model for every set of perturbed windows of an image."""
    found = []
    build = _builder(images, labels, noise)
    with tqdm(total=len(sets), desc="perturbation", unit="image", disable=not progress) as bar:
        for start in range(0, len(sets), batch_size):
            batch = sets[start : start + batch_size]
            targets = None if classes is None else np.array([classes[i] for i, _ in batch])
            found.append(_outputs(predict, torch.from_numpy(np.stack(list(build(batch)))), targets))
            bar.update(len(batch))
    outputs = np.concatenate(found)
    if not np.isfinite(outputs).all():
        raise DataError("predict returned NaN or infinite outputs; check the model on the perturbed images")
    return outputs


def _builder(
    images: np.ndarray, labels: np.ndarray, noise: _Noise
) -> Callable[[list[tuple[int, np.ndarray]]], Iterator[np.ndarray]]:
    """Makes the perturbed images of a batch; the noise of an image is drawn once, as its sets follow each other."""
    current: tuple[int, np.ndarray] = (-1, images[0])

    def build(batch: list[tuple[int, np.ndarray]]) -> Iterator[np.ndarray]:
        nonlocal current
        for i, windows in batch:
            if current[0] != i:
                current = i, noise.fill(images[i], i)
            yield np.where(windows[labels], current[1], images[i])

    return build


def _outputs(predict: Predict, images: Tensor, targets: np.ndarray | None) -> np.ndarray:
    outputs = np.asarray(torch.as_tensor(predict(images)).detach().cpu(), dtype=np.float64)
    n = len(images)
    table = outputs[:, None] if outputs.ndim == 1 else outputs
    if table.ndim != 2 or len(table) != n:
        raise ShapeError(
            f"predict returned shape {outputs.shape} for {n} images, expected ({n},) or ({n}, 1) of a regression, "
            f"or ({n}, n_classes)"
        )
    n_classes = table.shape[1]
    if targets is None:
        if n_classes != 1:
            raise TargetError(
                f"predict returned {n_classes} outputs for an image, and no target says which one to record: "
                "for a classifier pass targets, one class for each image; a regression has a single output"
            )
        return table[:, 0]
    if (outside := targets[(targets < 0) | (targets >= n_classes)]).size:
        raise TargetError(
            f"target {outside[0]} is not an output of the model, which has {n_classes}: "
            f"expected 0 to {n_classes - 1}; leave targets out for a regression"
        )
    return table[np.arange(n), targets]


def _checked_steps(steps: int | None, n_windows: int) -> int:
    if steps is None:
        return n_windows
    if not 1 <= steps <= n_windows:
        raise ParameterError(f"steps is {steps}, expected 1 to {n_windows}, the number of windows, or None")
    return steps


def _checked_choice(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ParameterError(f"unknown {name} {value!r}; known: {', '.join(known)}")
