"""Images that stand for a set, and those that it leaves out: MMD-critic."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from torch import Tensor, nn

from xaitools.checks import check_counts, check_positive
from xaitools.errors import DataError, ParameterError, ShapeError
from xaitools.interpretation.features import features
from xaitools.models import ImageStack, Network

Kernel = Float[np.ndarray, "n n"]


@dataclass(frozen=True)
class Prototypes:
    """Examples that stand for a set, and examples that these do not tell of.

    Attributes
    ----------
    prototypes
        Positions of the examples, in the order in which they were chosen.
    criticisms
        Likewise.
    mmd2
        Squared maximum mean discrepancy between the set and its first 1, 2, ... prototypes; 0 where they tell all.
    witness
        (n,) where the set is denser than its prototypes (above 0) and sparser (below 0); criticisms lie where its
        absolute value is large.
    bandwidth
        Of the kernel, in the unit of the features.
    """

    prototypes: tuple[int, ...]
    criticisms: tuple[int, ...]
    mmd2: tuple[float, ...]
    witness: Float[np.ndarray, " n"]
    bandwidth: float


def prototypes(
    model: nn.Module | Network,
    images: Float[Tensor, "n channel *spatial"] | Float[np.ndarray, "n channel *spatial"] | ImageStack,
    n_prototypes: int = 5,
    n_criticisms: int = 3,
    *,
    layer: str | None = None,
    bandwidth: float | None = None,
    batch_size: int = 16,
) -> Prototypes:
    """Prototypes and criticisms of images, in the space of a layer's features, by :func:`mmd_critic`.

    Of one class after the other, they are the paper's local ones: pass the images of one class.

    Parameters
    ----------
    model, images, layer, batch_size
        As for :func:`~xaitools.interpretation.features.features`.
    n_prototypes, n_criticisms, bandwidth
        As for :func:`mmd_critic`.

    Raises
    ------
    XaitoolsError
        As these two raise.
    """
    found = features(model, images, layer=layer, batch_size=batch_size)
    return mmd_critic(found.double().numpy(), n_prototypes, n_criticisms, bandwidth=bandwidth)


def mmd_critic(
    points: Float[np.ndarray, "n feature"],
    n_prototypes: int = 5,
    n_criticisms: int = 3,
    *,
    bandwidth: float | None = None,
) -> Prototypes:
    """Greedy prototypes of least maximum mean discrepancy, and criticisms where the witness function is large.

    The kernel is ``exp(-|x - y|**2 / (2 * bandwidth**2))``. The j-th prototype is the one with which the first j have
    the least MMD² to the set; criticisms are chosen one by one so that the sum of absolute witness values and the log
    determinant of their kernel, which keeps them apart, grows most.

    Parameters
    ----------
    points
        One row an example; scale features to a common unit if they have different ones.
    n_prototypes, n_criticisms
        How many, together no more than there are examples; no criticisms with 0.
    bandwidth
        Of the kernel; None for the median distance of different examples.

    Raises
    ------
    ParameterError
        If a number is out of its range.
    ShapeError
        If `points` are not rows.
    DataError
        If a feature is not finite, or all examples are the same.

    References
    ----------
    Kim, Khanna and Koyejo 2016, Examples are not enough, learn to criticize! NeurIPS, equations 2 to 4 and algorithm 1.
    """
    _check(points, n_prototypes, n_criticisms)
    squared = _squared_distances(points.astype(np.float64))
    if bandwidth is None:
        bandwidth = median_distance(squared)
    check_positive(bandwidth=bandwidth)
    kernel = np.exp(-squared / (2 * bandwidth**2))
    chosen, mmd2 = _greedy_prototypes(kernel, n_prototypes)
    witness = kernel.mean(1) - kernel[:, chosen].mean(1)
    others = [position for position in range(len(kernel)) if position not in chosen]
    criticisms = _greedy_criticisms(kernel, np.abs(witness), others, n_criticisms)
    return Prototypes(tuple(chosen), tuple(criticisms), tuple(mmd2), witness, float(bandwidth))


def median_distance(squared: Kernel) -> float:
    """Median distance of each two examples that differ; DataError if none do."""
    distances = np.sqrt(squared[np.triu_indices(len(squared), 1)])
    if not (distances > 0).any():
        raise DataError(
            "all examples have the same features; expected examples that differ: look at another layer, or at images "
            "that are not copies."
        )
    return float(np.median(distances[distances > 0]))


def _greedy_prototypes(kernel: Kernel, n_prototypes: int) -> tuple[list[int], list[float]]:
    """Positions, and MMD² after each: ``mean(K) - 2 mean(K[:, S]) + mean(K[S, S])``, kept as running sums."""
    means, own = kernel.mean(0), kernel.diagonal()
    chosen: list[int] = []
    curve: list[float] = []
    to_set, among, within = (
        0.0,
        0.0,
        np.zeros(len(kernel)),
    )  # sums over S of means, over S x S, and over S of K
    for size in range(1, n_prototypes + 1):
        gain = 2 * (to_set + means) / size - (among + 2 * within + own) / size**2
        gain[chosen] = -np.inf
        best = int(gain.argmax())
        to_set += means[best]
        among += 2 * within[best] + own[best]
        within = within + kernel[best]
        chosen.append(best)
        curve.append(max(0.0, float(kernel.mean() - gain[best])))
    return chosen, curve


def _greedy_criticisms(
    kernel: Kernel, witness: Float[np.ndarray, " n"], candidates: list[int], n_criticisms: int
) -> list[int]:
    """Positions; a candidate adds its witness value and the log of its kernel's part that the chosen do not span."""
    left = kernel.diagonal().copy()  # what of each is not spanned: the next pivot of a Cholesky factorisation
    rows = np.zeros((0, len(kernel)))
    chosen: list[int] = []
    allowed = np.full(len(kernel), -np.inf)
    allowed[candidates] = 0.0
    for _ in range(n_criticisms):
        gain = witness + np.log(np.maximum(left, 1e-12)) + allowed
        best = int(gain.argmax())
        row = (kernel[best] - rows[:, best] @ rows) / np.sqrt(max(left[best], 1e-12))
        rows = np.vstack([rows, row])
        left = left - row**2
        allowed[best] = -np.inf
        chosen.append(best)
    return chosen


def _squared_distances(points: Float[np.ndarray, "n feature"]) -> Kernel:
    return np.stack([((points - point) ** 2).sum(1) for point in points])


def _check(points: np.ndarray, n_prototypes: int, n_criticisms: int) -> None:
    if points.ndim != 2 or len(points) < 2:
        raise ShapeError(
            f"points of shape {points.shape}; expected (n, feature) with two examples or more: flatten each example."
        )
    if not np.isfinite(points).all():
        raise DataError("a feature is NaN or infinite; expected finite ones: leave that example out.")
    check_counts(n_prototypes=n_prototypes)
    if n_criticisms != 0:
        check_counts(n_criticisms=n_criticisms)
    if n_prototypes + n_criticisms > len(points):
        raise ParameterError(
            f"n_prototypes={n_prototypes} and n_criticisms={n_criticisms} of {len(points)} examples; expected no more "
            "than there are: ask for fewer."
        )
