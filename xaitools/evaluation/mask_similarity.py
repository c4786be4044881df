"""How alike are optimised masks: by what other networks say under them, and by the regions that they hide."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Float64, Shaped
from scipy import ndimage
from torch import Tensor

from xaitools.attribution.deletions import delete
from xaitools.checks import check_counts
from xaitools.errors import DataError, ParameterError, ShapeError
from xaitools.evaluation._answers import Model, answers, asking
from xaitools.evaluation._maps import as_array
from xaitools.models.outputs import Output
from xaitools.progress import Progress

PAIRS = ("own", "inter-run", "inter-fold", "inter-both")
"""Kinds of pairs of contexts: each with itself; another run of the same fold; the same run of another fold; another run
of another fold."""


def prob_cnn(
    models: Sequence[Model],
    masks: Float[Tensor, "mask *spatial"] | Float[np.ndarray, "mask *spatial"],
    images: Float[Tensor, "batch channel *spatial"],
    target: int,
    *,
    deletion: str = "white",
    baselines: Mapping[str, Any] | None = None,
    sigma: float | None = None,
    output: Output = None,
    seed: int = 0,
    batch_size: int = 16,
    progress: bool | Progress = False,
) -> Float64[np.ndarray, "model mask"]:
    """Mean probability of a class that each network gives to images under each mask.

    Parameters
    ----------
    models
        Networks that return logits, or callables that return probabilities.
    masks
        From 0 (hidden) to 1 (kept), each laid over all images.
    images
        Images or volumes of the class.
    target
        The class that the masks are to destroy: the true one.
    deletion, baselines, sigma, seed
        What hidden voxels become, as in :func:`xaitools.attribution.deletions.delete`.
    output
        Which tensor of what the models return, as in `xaitools.attribute`.
    batch_size
        Images in one pass.
    progress
        As in `xaitools.attribute`; counts images.

    Returns
    -------
    array (model, mask)
        0 to 1. Where the masks are those of the models, in their order, the diagonal holds each network under its own
        mask. 0: the mask of one context works for the network of the other, so the two are alike; 1: it does nothing.

    Raises
    ------
    DataError
        If there is no model or no mask.
    XaitoolsError
        As :func:`xaitools.attribution.deletions.delete` raises, and for models that give no probabilities.

    References
    ----------
    Thibeau-Sutre et al., Visualization approach to assess the robustness of neural networks for medical image
    classification, 2020, "Metrics of evaluation".
    """
    check_counts(batch_size=batch_size)
    stack = torch.as_tensor(as_array(masks))
    if not len(models) or not len(stack):
        raise DataError(f"{len(models)} models and {len(stack)} masks; expected one of each, or more.")
    options: dict[str, Any] = {"deletion": deletion, "baselines": baselines, "sigma": sigma, "seed": seed}
    total = len(stack) * len(images)
    found = np.empty((len(models), len(stack)))
    for row, model in enumerate(models):
        with asking(model, softmax=True, output=output) as ask:
            questions = (
                (image, target, 1)
                for mask in stack
                for image in delete(images, mask, **options).cpu().numpy()
            )
            what = f"network {row + 1} under masks"
            said = answers(ask, questions, batch_size, total=total, progress=progress, what=what)
        found[row] = said.reshape(len(stack), len(images)).mean(axis=1)
    return found


def pair_means(
    matrix: Shaped[np.ndarray, "..."],
    folds: Sequence[int],
    runs: Sequence[int],
    *,
    confidence: float = 0.95,
    n_resamples: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """Means of a matrix of contexts over pairs of the same context, of other runs, other folds, and both.

    A context is one training: a fold and a run. Its intervals come of resampling contexts, not pairs, since pairs that
    share a context are not independent: in each resample a pair counts as often as the product of how often its two
    contexts were drawn, and pairs of a context with itself are no pairs of different ones. Resamples without any pair
    are left out. Of fewer than ten contexts such intervals are rough, and rather too narrow.

    Parameters
    ----------
    matrix
        (context, context), as of :func:`prob_cnn` or :func:`xaitools.evaluation.cosine`; it need not be symmetric: both
        directions count.
    folds, runs
        Fold and run of each context.
    confidence, n_resamples, seed
        Of the bootstrap, as in :func:`xaitools.evaluation.mean_interval`.

    Returns
    -------
    DataFrame
        One row for each of :data:`PAIRS` of which there is one: ``pairs``, ``value``, ``low``, ``high`` (NaN for
        fewer than three contexts) and ``n``, the number of entries of the matrix.

    Raises
    ------
    ShapeError
        If the matrix is not square, or of another number of contexts.
    DataError
        If two contexts are of the same fold and run, or a value is not finite.
    ParameterError
        If an option is out of its range.

    References
    ----------
    Snijders and Borgatti, Non-parametric standard errors and tests for network statistics, Connections 1999.
    """
    values = np.asarray(matrix, dtype=np.float64)
    of_fold, of_run = np.asarray(folds), np.asarray(runs)
    _check_contexts(values, of_fold, of_run, confidence, n_resamples)
    n = len(values)
    same_fold, same_run = of_fold[:, None] == of_fold, of_run[:, None] == of_run
    chosen = (
        same_fold & same_run,
        same_fold & ~same_run,
        ~same_fold & same_run,
        ~same_fold & ~same_run,
    )
    drawn = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=n_resamples)
    rows = []
    for kind, which in zip(PAIRS, chosen, strict=True):
        if not which.any():
            continue
        low, high = _bounds(values, which, drawn, confidence) if n > 2 else (np.nan, np.nan)
        rows.append((kind, float(values[which].mean()), low, high, int(which.sum())))
    return pd.DataFrame(rows, columns=["pairs", "value", "low", "high", "n"])


def random_masks_like(
    mask: Float[np.ndarray, "*spatial"],
    n: int,
    *,
    within: Shaped[np.ndarray, "..."] | None = None,
    seed: int = 0,
) -> Float[np.ndarray, "n *spatial"]:
    """Masks without any meaning that hide as much as a mask does, as smoothly.

    They have exactly the values of the mask, so area, sum and histogram are the same, in the order of smooth noise:
    Gaussian noise, blurred until neighbouring voxels differ, in their mean square and on average, as those of the mask.

    Parameters
    ----------
    mask
        From 0 (hidden) to 1 (kept).
    n
        How many.
    within
        bool: where values are dealt anew, such as in the brain; elsewhere the mask stays as it is. None for everywhere.
    seed
        Same seed, same masks.

    Raises
    ------
    ShapeError
        If `within` is of another shape.
    DataError
        If it is true nowhere.
    ParameterError
        If `n` is below 1.
    """
    check_counts(n=n)
    own = np.asarray(mask)
    inside = np.ones(own.shape, dtype=bool) if within is None else np.asarray(within, dtype=bool)
    if inside.shape != own.shape:
        raise ShapeError(f"within of shape {inside.shape}; expected that of the mask, {own.shape}.")
    if not inside.any():
        raise DataError("within is true nowhere; expected voxels to deal the values to.")
    rng = np.random.default_rng(seed)
    sigma = _smoothness(own, inside, [rng.standard_normal(own.shape) for _ in range(5)])
    return np.stack([_dealt(own, inside, rng.standard_normal(own.shape), sigma) for _ in range(n)])


def difference_mask(
    difference: Float[np.ndarray, "*spatial"], hidden: float, *, steps: int = 60
) -> Float[np.ndarray, "*spatial"]:
    """The mask that hides where a difference is large, as much in sum as another mask does.

    Parameters
    ----------
    difference
        How much there is to change in each voxel, such as the mean of controls less that of patients where a mask
        raises values; what is below 0 is never hidden.
    hidden
        Sum of 1 - m over all voxels; at most the number of voxels with a difference above 0.
    steps
        Halvings of the interval in which the factor is sought.

    Returns
    -------
    array
        From 0 (hidden) to 1 (kept): ``1 - min(factor * difference, 1)``.

    Raises
    ------
    ParameterError
        If `hidden` is more than the voxels with a difference above 0 allow, or not above 0.
    """
    positive = np.clip(np.asarray(difference, dtype=np.float64), 0, None)
    most = int((positive > 0).sum())
    if not 0 < hidden <= most:
        raise ParameterError(
            f"hidden={hidden:g}; expected a sum above 0 and up to {most}, the voxels with a difference above 0."
        )
    low, high = hidden / positive.sum(), 1 / positive[positive > 0].min()
    for _ in range(steps):
        middle = (low * high) ** 0.5
        enough = np.minimum(middle * positive, 1).sum() >= hidden
        low, high = (low, middle) if enough else (middle, high)
    return 1 - np.minimum(high * positive, 1)


def share_outside(mask: Float[np.ndarray, "*spatial"], reference: Float[np.ndarray, "*other"]) -> float:
    """Share of what a mask hides that another one does not hide: 0 where it lies inside, 1 where the two are apart.

    ``1 - sum(min(1 - m, 1 - reference)) / sum(1 - m)``. Of two sessions of one participant, disease has only spread if
    the earlier mask lies inside the later one; what the later one hides outside of the earlier is new.

    Raises
    ------
    ShapeError
        If the two are of different shapes.
    DataError
        If the mask hides nothing.
    """
    own, other = 1 - np.asarray(mask, dtype=np.float64), 1 - np.asarray(reference, dtype=np.float64)
    if own.shape != other.shape:
        raise ShapeError(f"masks of shapes {own.shape} and {other.shape}; expected one grid: resample one.")
    if own.sum() <= 0:
        raise DataError("the mask hides nothing, so it lies nowhere; leave it out.")
    return float(1 - np.minimum(own, other).sum() / own.sum())


def _bounds(
    values: np.ndarray, which: np.ndarray, drawn: np.ndarray, confidence: float
) -> tuple[float, float]:
    """Percentile interval of the mean over the pairs `which`; drawn (resample, context) is how often each was drawn."""
    pairs = np.where(which, values, 0.0)
    if which.diagonal().any():  # each context with itself counts as often as it was drawn
        sums, counts = drawn @ pairs.diagonal(), drawn @ which.diagonal().astype(float)
    else:
        sums = np.einsum("ri,ij,rj->r", drawn, pairs, drawn)
        counts = np.einsum("ri,ij,rj->r", drawn, which.astype(float), drawn)
    means = sums[counts > 0] / counts[counts > 0]
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


def _roughness(mask: np.ndarray) -> float:
    """Mean square difference of neighbouring voxels, summed over the axes."""
    return float(sum(np.square(np.diff(mask, axis=axis)).mean() for axis in range(mask.ndim)))


def _dealt(own: np.ndarray, inside: np.ndarray, noise: np.ndarray, sigma: float) -> np.ndarray:
    """The values of the mask in the order of blurred noise."""
    smooth = ndimage.gaussian_filter(noise, sigma)
    order = np.argsort(smooth[inside])
    dealt, found = np.empty_like(own[inside]), own.copy()
    dealt[order] = np.sort(own[inside])
    found[inside] = dealt
    return found


def _smoothness(own: np.ndarray, inside: np.ndarray, noises: Sequence[np.ndarray]) -> float:
    """Blur of noise in voxels with which it is, on average, as rough as the mask."""
    wanted, low, high = _roughness(own), 0.0, max(own.shape) / 4
    for _ in range(10):
        middle = (low + high) / 2
        rough = np.mean([_roughness(_dealt(own, inside, noise, middle)) for noise in noises])
        low, high = (middle, high) if rough > wanted else (low, middle)
    return (low + high) / 2


def _check_contexts(
    values: np.ndarray, folds: np.ndarray, runs: np.ndarray, confidence: float, n_resamples: int
) -> None:
    if values.ndim != 2 or len({*values.shape, len(folds), len(runs)}) != 1:
        raise ShapeError(
            f"matrix of shape {values.shape} with {len(folds)} folds and {len(runs)} runs; expected one row, one "
            "column, one fold and one run for each context."
        )
    if len(set(zip(folds.tolist(), runs.tolist(), strict=True))) < len(values):
        raise DataError("two contexts are of the same fold and run; expected each once: take one out.")
    if not np.isfinite(values).all():
        raise DataError("the matrix holds NaN or infinity; expected finite numbers: leave such contexts out.")
    check_counts(n_resamples=n_resamples)
    if not 0 < confidence < 1:
        raise ParameterError(f"confidence={confidence}; expected a value between 0 and 1, such as 0.95.")
