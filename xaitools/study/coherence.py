"""Do repeated trainings name the same regions, and more often than noise does?"""

import numpy as np
import pandas as pd
from jaxtyping import Float64

from xaitools.evaluation import mean_over_pairs, noise_coherence, top_k, top_k_intersection
from xaitools.study.leaders import Leader
from xaitools.study.regions import RegionTables
from xaitools.study.run import Run

MEASURES = ("sum", "density", "gain")
"""Of relevance in a region: added up, per voxel, and in patients by that in controls."""

Matrices = dict[str, dict[str, Float64[np.ndarray, "runs runs"]]]


def coherence_of_runs(
    run: Run, tables: RegionTables, k: int, *, network: str
) -> tuple[pd.DataFrame, Matrices]:
    """Top k regions that each two runs have in common, in percent; means over the pairs are recorded.

    Parameters
    ----------
    run
        Where the means are recorded.
    tables
        Relevance by run and region, by full name of the method.
    k
        How many regions count as the top.
    network
        Name of the network.

    Returns
    -------
    means
        One row a method, indexed by its full name, one column for each of :data:`MEASURES`.
    matrices
        ``(runs, runs)`` by method and measure.
    """
    matrices = {
        name: {measure: top_k_intersection(top_k(table, k, measure=measure)) for measure in MEASURES}
        for name, table in tables.items()
    }
    means = {
        name: {measure: mean_over_pairs(matrix) for measure, matrix in own.items()}
        for name, own in matrices.items()
    }
    for name, own in matrices.items():
        for measure, matrix in own.items():
            metric, value = f"top-{k} coherence, {measure}", means[name][measure]
            run.record(metric=metric, value=value, method=name, model=network, n=len(matrix))
    return pd.DataFrame.from_dict(means, orient="index", columns=list(MEASURES)), matrices


def coherence_of_noise(run: Run, sizes: pd.Series, k: int, *, seed: int = 0) -> dict[str, float]:
    """The same of maps of white noise, by measure: what the sizes of the regions alone explain; recorded.

    Parameters
    ----------
    run
        Where the numbers are recorded.
    sizes
        Voxels of each region.
    k, seed
        As for `xaitools.evaluation.noise_coherence`.
    """
    at_least_one = sizes.clip(lower=1).to_numpy()
    found = {measure: noise_coherence(at_least_one, k, measure=measure, seed=seed) for measure in MEASURES}
    for measure, value in found.items():
        run.record(metric=f"top-{k} coherence of noise, {measure}", value=value, n=len(sizes))
    return found


def steadiest(
    shares: pd.Series,
    sizes: pd.Series,
    k: int,
    noise: float,
    *,
    n_runs: int,
    tolerance: float = 0.5,
    seed: int = 0,
) -> Leader:
    """Whose runs have the most regions in common, and whether that is more than noise reaches by luck.

    Parameters
    ----------
    shares
        By method, of one measure: a column of :func:`coherence_of_runs`, which is its name.
    sizes
        Voxels of each region.
    k
        How many regions count as the top.
    noise
        What maps of noise have in common, in percent.
    n_runs
        How many runs were compared. As many pairs of noise maps are drawn again and again; better than noise is
        who has more in common than 97.5 % of these draws.
    tolerance
        Methods that are behind by no more are tied.
    seed
        Of the noise.
    """
    best = str(shares.idxmax())
    tied = tuple(str(name) for name in shares.index[shares >= shares[best] - tolerance] if name != best)
    at_least_one, measure, pairs = (
        sizes.clip(lower=1).to_numpy(),
        str(shares.name),
        n_runs * (n_runs - 1) // 2,
    )
    draws = [
        noise_coherence(at_least_one, k, measure=measure, pairs=pairs, seed=seed + draw)
        for draw in range(400)
    ]
    beats_noise = bool(shares[best] > np.quantile(draws, 0.975))
    return Leader(best, float(shares[best]), tied, beats_noise, noise, len(shares) - 1)


def between_runs(printed: float, n_runs: int) -> float:
    """Mean over different runs, in percent, of a matrix whose whole mean is printed, 100 % on its diagonal.

    Examples
    --------
    >>> round(between_runs(72.6, n_runs=10), 2)
    69.56
    """
    return (n_runs * printed - 100) / (n_runs - 1)
