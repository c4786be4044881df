"""Do repeated trainings give the same maps, and do the maps find the regions that are known to matter?"""

from collections.abc import Iterable, Sequence
from itertools import zip_longest
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float64, Shaped
from scipy.spatial.distance import pdist, squareform
from scipy.stats import rankdata
from torch import Tensor

from xaitools.checks import check_choice, check_counts
from xaitools.errors import DataError, ShapeError
from xaitools.evaluation._maps import as_array

Values = Shaped[Tensor, "..."] | Shaped[np.ndarray, "..."]


def mean_maps(
    run_maps: Iterable[Iterable[Values] | Values],
    run_predictions: Iterable[Values | Sequence[Any]],
    labels: Values | Sequence[Any],
    *,
    label: int = 1,
    scale: bool = True,
) -> Float64[np.ndarray, "runs *map"]:
    """Mean map of each run over the images of a class that it predicted correctly.

    Parameters
    ----------
    run_maps
        The maps of each run for the same n images: an array ``(n, *map)``, or a generator of maps ``(*map)``, of which
        one at a time is in memory.
    run_predictions
        The n predicted classes of each run, whole numbers.
    labels
        The n true classes.
    label
        1: true positives; 0: true negatives; another class of several.
    scale
        Divide each mean by its largest absolute value, so that runs are comparable; the sign stays.

    Raises
    ------
    DataError
        If a run predicts no image of the class correctly, its mean map is 0 everywhere and cannot be scaled, a value is
        NaN or infinite, predictions are not whole numbers, or there is no run.
    ShapeError
        If numbers of maps, predictions and labels differ, or the runs' numbers or maps' sizes do.

    References
    ----------
    Eitel and Ritter, Testing the robustness of attribution methods for convolutional neural networks in MRI-based
    Alzheimer's disease classification, 2019, figure 1 and table 1.
    """
    truth = _classes(labels, "labels")
    all_predictions = list(run_predictions)
    means: list[np.ndarray] = []
    for number, (maps, predictions) in enumerate(zip_longest(run_maps, all_predictions), start=1):
        if maps is None or predictions is None:
            raise ShapeError("not as many runs of maps as of predictions; expected both for each run.")
        means.append(
            _mean_map(maps, predictions, truth, label, f"run {number} of {len(all_predictions)}", scale)
        )
    if not means:
        raise DataError("there is no run; expected the maps and predictions of one or more.")
    if len({mean.shape for mean in means}) > 1:
        raise ShapeError(
            f"maps of the runs have different sizes, {sorted({mean.shape for mean in means})}; expected one grid: "
            "resample them to it."
        )
    return np.stack(means)


def pairwise_l2(run_maps: Values) -> Float64[np.ndarray, "runs runs"]:
    """Euclidean distance between the maps of each two runs.

    Parameters
    ----------
    run_maps
        One map a run, ``(runs, *map)``, of any number of axes; scaled as by :func:`mean_maps` for the paper's
        distances. They grow with the number of voxels: compare methods on one grid only.

    Returns
    -------
    array (runs, runs)
        Symmetric, 0 on the diagonal. :func:`mean_over_pairs` sums it up.

    Raises
    ------
    DataError
        If there are fewer than two runs, or a value is NaN or infinite.

    References
    ----------
    Eitel and Ritter 2019, table 1.
    """
    return squareform(pdist(_runs(run_maps)))


def cosine(run_maps: Values) -> Float64[np.ndarray, "runs runs"]:
    """Cosine of the angle between the maps, or vectors over regions, of each two runs, -1 to 1.

    Parameters
    ----------
    run_maps
        ``(runs, *map)``, for regions ``table.pivot(index="map", columns="region", values="density").to_numpy()``.

    Raises
    ------
    DataError
        If there are fewer than two runs, a value is NaN or infinite, or a run's are all 0.

    References
    ----------
    Thibeau-Sutre et al., Visualization approach to assess the robustness of neural networks for medical image
    classification, 2020, where it compares the densities of masks in regions.
    """
    rows = _runs(run_maps)
    largest = np.abs(rows).max(axis=1, keepdims=True)
    if not largest.all():
        raise DataError(
            f"{_run(int(np.argmin(largest)), rows)} is 0 everywhere; expected a direction: leave the run out."
        )
    rows = rows / largest
    return _products(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def rank_correlation(run_maps: Values) -> Float64[np.ndarray, "runs runs"]:
    """Spearman's correlation over the voxels, or regions, of each two runs; ties have their mean rank.

    Parameters
    ----------
    run_maps
        ``(runs, *map)``, as for :func:`cosine`. The sign counts; take the absolute value first where it does not
        matter.

    Raises
    ------
    DataError
        If there are fewer than two runs, a value is NaN or infinite, or a run's are all equal.

    References
    ----------
    Spearman, The proof and measurement of association between two things, American Journal of Psychology 1904.
    """
    rows = _runs(run_maps)
    constant = np.flatnonzero(rows.min(axis=1) == rows.max(axis=1))
    if len(constant):
        raise DataError(
            f"{_run(int(constant[0]), rows)} has one value only; expected a ranking: leave the run out."
        )
    ranks = rankdata(rows, axis=1)
    ranks -= ranks.mean(axis=1, keepdims=True)
    return _products(ranks / np.linalg.norm(ranks, axis=1, keepdims=True))


def top_k(table: pd.DataFrame, k: int = 10, *, measure: str = "sum") -> list[list[str]]:
    """The k regions of the largest values in each map, the largest first.

    Parameters
    ----------
    table
        Of :func:`xaitools.atlas.region_table`: columns ``map``, ``region`` and `measure`. For the agreement of runs,
        a map is the mean map of a run.
    k
        Number of regions.
    measure
        ``"sum"``, ``"density"``, ``"gain"`` or another column. NaN (a region without voxels) is never chosen; a gain
        of inf (a region that has relevance in patients only) comes first. Of equal values the alphabetically first
        is taken, in every run: where fewer than k regions have relevance, runs agree in the rest without merit.

    Raises
    ------
    DataError
        If a column is missing, a region stands twice in a map, or a map has fewer than k regions with a value.
    ParameterError
        If k is below 1.

    References
    ----------
    Eitel and Ritter 2019, section 3.
    """
    check_counts(k=k)
    chosen = []
    for _, which, values in _per_map(table, measure):
        values = values.dropna().sort_index()
        if len(values) < k:
            raise DataError(f"{which} has {measure} in {len(values)} regions only; expected k={k} or more.")
        chosen.append(list(values.sort_values(ascending=False, kind="stable").index[:k]))
    return chosen


def top_k_intersection(regions: Sequence[Sequence[str]]) -> Float64[np.ndarray, "runs runs"]:
    """Regions that each two runs have in common, in percent of k; their order does not count.

    Parameters
    ----------
    regions
        The k regions of each run, of :func:`top_k`.

    Returns
    -------
    array (runs, runs)
        ``100 |A and B| / k``, 100 on the diagonal. The paper's coherence (its table 2) is the mean of the whole matrix,
        ``mean_over_pairs(matrix, diagonal=True)``.

    Raises
    ------
    DataError
        If there are fewer than two runs, their numbers of regions differ, or a region stands twice in a run.

    References
    ----------
    Eitel and Ritter 2019, figure 3 and table 2.
    """
    _check_several(len(regions))
    sizes = {len(names) for names in regions}
    if len(sizes) > 1 or sizes == {0}:
        raise DataError(f"the runs have {sorted(sizes)} regions; expected the same k, 1 or more, for all.")
    (k,) = sizes
    sets = [set(names) for names in regions]
    if min(map(len, sets)) < k:
        raise DataError("a region stands twice in the list of a run; expected k different ones.")
    return np.array([[100 * len(first & second) / k for second in sets] for first in sets])


def noise_coherence(
    n_voxels: Sequence[int] | Shaped[np.ndarray, "..."],
    k: int = 10,
    *,
    measure: str = "sum",
    pairs: int = 500,
    seed: int = 0,
) -> float:
    """Regions that two maps of white noise have in common among their top k, in percent: what size alone explains.

    A sum over a region grows with the region, so maps that have nothing in common still agree on the largest
    regions; runs agree by their content only as far as they exceed this.

    Parameters
    ----------
    n_voxels
        Size of each region, 1 voxel or more.
    k, measure
        As for :func:`top_k`; ``"sum"``, ``"density"`` or ``"gain"``, of absolute values.
    pairs
        Pairs of maps to average over.
    seed
        Same seed, same value.

    Returns
    -------
    float
        Mean of :func:`top_k_intersection` over the pairs. A region's sum is drawn from the normal distribution with
        mean and variance of a sum of `n_voxels` absolute standard normal values.

    Raises
    ------
    DataError
        If a region has no voxel, or there are fewer than k.
    ParameterError
        If `k` or `pairs` is below 1, or the measure another one.
    """
    sizes = np.asarray(n_voxels, dtype=np.float64)
    check_counts(k=k, pairs=pairs)
    check_choice(measure=(measure, ("sum", "density", "gain")))
    if sizes.ndim != 1 or len(sizes) < k or sizes.min() < 1:
        raise DataError(
            f"{sizes.size} regions, the smallest of {sizes.min(initial=np.inf):g} voxels; expected k={k} "
            "regions or more, of one voxel or more each."
        )
    rng = np.random.default_rng(seed)

    def sums() -> np.ndarray:
        noise = rng.standard_normal((2 * pairs, len(sizes)))
        return np.abs(sizes * np.sqrt(2 / np.pi) + np.sqrt(sizes * (1 - 2 / np.pi)) * noise)

    values = sums()
    values = values / {"sum": 1.0, "density": sizes, "gain": sums() if measure == "gain" else 1.0}[measure]
    top = np.zeros(values.shape, dtype=bool)
    np.put_along_axis(top, np.argpartition(-values, k - 1, axis=1)[:, :k], True, axis=1)
    return float(100 * (top[::2] & top[1::2]).sum(axis=1).mean() / k)


def mean_over_pairs(matrix: Shaped[np.ndarray, "..."], *, diagonal: bool = False) -> float:
    """Mean of a runs x runs matrix over the pairs of different runs.

    Parameters
    ----------
    matrix
        (runs, runs), symmetric.
    diagonal
        Average the whole matrix, with each run against itself. So did Eitel and Ritter: every value of their
        table 2 (10 runs, k = 10) is a multiple of 0.2 %, as the mean of 100 entries of which ten are 100 % must be, and
        as the mean of 45 pairs, a multiple of 0.22 %, would not be. Their 72.60 % is 69.56 % between different runs.

    Raises
    ------
    ShapeError
        If the matrix is not square.
    DataError
        If it is of fewer than two runs.
    """
    matrix = np.asarray(matrix, dtype=np.float64)
    if matrix.ndim != 2 or len(matrix) != matrix.shape[1]:
        raise ShapeError(f"matrix of shape {matrix.shape}; expected (runs, runs).")
    _check_several(len(matrix))
    return float(matrix.mean() if diagonal else matrix[np.triu_indices(len(matrix), 1)].mean())


def recovered_regions(
    table: pd.DataFrame, true_regions: Sequence[str], k: int = 10, *, measure: str = "sum"
) -> pd.DataFrame:
    """How well the ranking of the regions by a map finds those that are known to matter, as in synthetic brains.

    Parameters
    ----------
    table, k, measure
        As for :func:`top_k`.
    true_regions
        Names of the regions that matter.

    Returns
    -------
    DataFrame
        A row a map: ``map``; ``precision``, the part of the top k that is true; ``recall``, the part of the true
        regions that is among the top k (at most k / number of true regions); ``auc``, the probability that a true
        region has a larger value than another one, ties counting one half. Regions whose value is NaN are left out.

    Raises
    ------
    DataError
        As :func:`top_k`; and if a true region is not in the table or has no value, none is given, or all are true.
    ParameterError
        If k is below 1.
    """
    true = set(true_regions)
    top = top_k(table, k, measure=measure)
    rows = []
    for (name, which, values), chosen in zip(_per_map(table, measure), top, strict=True):
        values = values.dropna()
        marked = values.index.isin(list(true))
        if missing := sorted(true - set(values.index)):
            raise DataError(
                f"{which} has no {measure} for the true regions {missing}; check their names and the grid."
            )
        if not true or marked.all():
            raise DataError(f"{len(true)} of {len(values)} regions are true; expected some, and some others.")
        n, others = len(true), len(values) - len(true)
        wins = rankdata(values)[marked].sum() - n * (n + 1) / 2
        hits = len(true.intersection(chosen))
        rows.append({"map": name, "precision": hits / k, "recall": hits / n, "auc": wins / (n * others)})
    return pd.DataFrame(rows)


def _classes(values: Values | Sequence[Any], what: str) -> np.ndarray:
    array = as_array(values)
    array = array.astype(int) if array.dtype == bool else array
    if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer):
        raise DataError(
            f"{what} of type {array.dtype} and shape {array.shape}; expected one class, a whole number, for each "
            "image: turn probabilities into classes first, by argmax or a threshold."
        )
    return array


def _mean_map(
    maps: Iterable[Values],
    predictions: Values | Sequence[Any],
    truth: np.ndarray,
    label: int,
    run: str,
    scale: bool,
) -> np.ndarray:
    predicted = _classes(predictions, f"predictions of {run}")
    right = (truth == label) & (predicted == label) if len(predicted) == len(truth) else np.zeros(0, bool)
    total, n_maps = np.zeros(()), 0
    for n_maps, own in enumerate(maps, start=1):
        if n_maps <= len(right) and right[n_maps - 1]:
            total = total + as_array(own).astype(np.float64)
    if not n_maps == len(predicted) == len(truth):
        raise ShapeError(
            f"{run} has {n_maps} maps and {len(predicted)} predictions for {len(truth)} labels; "
            "expected one of each for each image."
        )
    if not right.any():
        raise DataError(
            f"{run} predicts none of the {int((truth == label).sum())} images of class {label} correctly; expected one "
            "or more for a mean map: train it longer, or leave the run out."
        )
    mean = total / right.sum()
    if not np.isfinite(mean).all():
        raise DataError(
            f"the maps of {run} have NaN or infinite values; expected finite ones: their method failed there."
        )
    largest = np.abs(mean).max()
    if scale and largest == 0:
        raise DataError(
            f"the mean map of {run} is 0 everywhere; expected relevance to scale by: leave the run out."
        )
    return mean / largest if scale else mean


def _runs(run_maps: Values) -> Float64[np.ndarray, "runs voxel"]:
    """One flat float64 row a run."""
    array = as_array(run_maps)
    if array.ndim < 2 or not array[:1].size:
        raise DataError(f"maps of shape {array.shape}; expected at least two runs, (runs, *map).")
    _check_several(len(array))
    rows = array.reshape(len(array), -1).astype(np.float64)
    if len(bad := np.flatnonzero(~np.isfinite(rows).all(axis=1))):
        raise DataError(
            f"{_run(int(bad[0]), rows)} has NaN or infinite values; expected finite ones: correct it, or drop the "
            "regions without voxels."
        )
    return rows


def _check_several(n_runs: int) -> None:
    if n_runs < 2:
        raise DataError(f"number of runs: {n_runs}; agreement needs at least two runs.")


def _run(index: int, runs: np.ndarray) -> str:
    """A run as messages call it: counted from 1."""
    return f"run {index + 1} of {len(runs)}"


def _products(unit: np.ndarray) -> np.ndarray:
    """Scalar products of unit vectors; exactly 1 on the diagonal."""
    products = np.clip(unit @ unit.T, -1, 1)
    np.fill_diagonal(products, 1)
    return (products + products.T) / 2


def _per_map(table: pd.DataFrame, measure: str) -> list[tuple[object, str, pd.Series]]:
    """Each map as the table names it, as messages do (counted from 1), and its values by region."""
    if missing := [column for column in ("map", "region", measure) if column not in table]:
        raise DataError(
            f"the table has no column {missing}, only {list(table.columns)}; expected that of region_table: "
            "make one, with controls for gain."
        )
    groups = table.groupby("map", sort=False)
    parts = [
        (name, f"map {number} of {len(groups)} ({name} in the table)", part.set_index("region")[measure])
        for number, (name, part) in enumerate(groups, start=1)
    ]
    for _, which, values in parts:
        if values.index.has_duplicates:
            repeated = values.index[values.index.duplicated()][0]
            raise DataError(
                f"region {repeated!r} stands twice in {which}; expected once: number the maps of several tables apart."
            )
    if not parts:
        raise DataError("the table is empty; expected that of region_table.")
    return parts
