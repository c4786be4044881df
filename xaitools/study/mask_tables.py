"""Numbers of optimised masks: which regions they hide, and how alike they are."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float64

from xaitools.atlas import region_table
from xaitools.data import Volumes
from xaitools.errors import DataError
from xaitools.evaluation import cosine, pair_means, prob_cnn, recovered_regions, top_k
from xaitools.study.contexts import Context, Contexts
from xaitools.study.mask_files import GroupMasks, Mask
from xaitools.study.regions import Regions, labels_of
from xaitools.study.run import Run

Matrix = Float64[np.ndarray, "context context"]
MEASURES = ("prob_CNN", "ROI cosine")
"""Of two masks: what one's network says under the other, and the regions that they hide."""


def mask_regions(
    masks: Mapping[Any, Mask] | Sequence[Mask], regions: Regions, patients: Volumes
) -> pd.DataFrame:
    """How much of each region masks hide: a row for each mask (``map``, from 0) and region.

    Where all patients share an atlas, its regions are taken; where each has a label map, a region is where it is in
    each patient, and sizes are means over the patients.

    Parameters
    ----------
    masks
        From 0 (hidden) to 1 (kept), on the grid of the patients.
    regions
        Of the study.
    patients
        Whose label maps count where there is no atlas.

    Returns
    -------
    DataFrame
        ``map``, ``region``, ``sum`` (of 1 - m), ``n_voxels`` and ``density`` (sum / n_voxels, 0 to 1).
    """
    own = masks.values() if isinstance(masks, Mapping) else masks
    labels = labels_of(patients, regions)
    people = range(1 if regions.atlas is not None else len(patients))
    atlases = [regions.of_brain(patients, i, labels) for i in people]
    tables = [
        region_table(1 - mask, atlas, affine=atlas.affine).assign(map=number)
        for number, mask in enumerate(own)
        for atlas in atlases
    ]
    mean = pd.concat(tables).groupby(["map", "region"], sort=False)[["sum", "n_voxels"]].mean().reset_index()
    mean = mean[mean["n_voxels"] > 0]
    return mean.assign(density=mean["sum"] / mean["n_voxels"])


def densities(table: pd.DataFrame) -> Float64[np.ndarray, "mask region"]:
    """The densities of :func:`mask_regions`, one row a mask, its regions in one order."""
    return table.pivot(index="map", columns="region", values="density").to_numpy()


def cosines(vectors: Float64[np.ndarray, "mask region"]) -> Float64[np.ndarray, "mask mask"]:
    """Cosine of each two rows; NaN for a mask that hides nothing, which has no direction."""
    found = np.full((len(vectors), len(vectors)), np.nan)
    some = np.flatnonzero(vectors.any(axis=1))
    if len(some) > 1:
        found[np.ix_(some, some)] = cosine(vectors[some])
    return found


def cosines_by_weight(run: Run, table: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """Cosine of the densities of each two masks, as the poster's table 1; those of different masks are recorded.

    Parameters
    ----------
    run
        Where they are recorded.
    table
        Of :func:`mask_regions`.
    names
        Of the masks, in order.
    """
    matrix = cosines(densities(table))
    for (i, one), (j, other) in combinations(enumerate(names), 2):
        if np.isfinite(matrix[i, j]):
            run.record(metric="ROI cosine across weights", value=matrix[i, j], method=f"{one}; {other}")
    return pd.DataFrame(matrix, index=list(names), columns=list(names))


def similarity_matrices(
    nets: Contexts,
    masks: GroupMasks,
    judged: Volumes,
    table: pd.DataFrame,
    *,
    target: int = 1,
    **options: Any,
) -> dict[str, Matrix]:
    """Each two contexts' prob_CNN (row: network, column: mask) and ROI cosine.

    Parameters
    ----------
    nets, masks
        Networks and masks by context, in one order.
    judged
        Patients whom no network has seen, and no mask either.
    table
        Of :func:`mask_regions`.
    target
        The true class of the judged.
    **options
        Of `xaitools.evaluation.prob_cnn`.

    Raises
    ------
    DataError
        If a mask hides nothing.
    """
    vectors = densities(table)
    if idle := [str(own) for own, row in zip(masks.masks, vectors, strict=True) if not row.any()]:
        raise DataError(
            f"the masks of {'; '.join(idle)} hide nothing of any region, so there is nothing to compare; lower l1, or "
            "leave these networks out"
        )
    models = [nets[own].model for own in masks.masks]
    asked = prob_cnn(models, np.stack(list(masks.masks.values())), judged.images[:], target, **options)
    return dict(
        zip(MEASURES, (asked, cosines(vectors) if len(vectors) > 1 else np.ones((1, 1))), strict=True)
    )


def robustness_table(
    run: Run, matrices: Mapping[str, Matrix], contexts: Iterable[Context], *, network: str, seed: int = 0
) -> pd.DataFrame:
    """Means over pairs of contexts with bootstrap intervals over the contexts, one row a measure and kind; recorded.

    Returns
    -------
    DataFrame
        ``measure`` and the columns of `xaitools.evaluation.pair_means`.
    """
    folds, runs = zip(*contexts, strict=True)
    tables = []
    for measure, matrix in matrices.items():
        table = pair_means(matrix, folds, runs, seed=seed)
        for row in table.itertuples():
            run.record(metric=f"{measure}, {row.pairs}", value=row.value, model=network, n=row.n)
            for bound, name in ((row.low, "lower"), (row.high, "upper")):
                if np.isfinite(bound):
                    metric = f"{measure}, {row.pairs}, {name} 95 %"
                    run.record(metric=metric, value=bound, model=network, n=row.n)
        tables.append(table.assign(measure=measure))
    return pd.concat(tables, ignore_index=True)[["measure", "pairs", "value", "low", "high", "n"]]


def beside_poster(table: pd.DataFrame, published: Mapping[str, float]) -> pd.DataFrame:
    """The robustness table as texts, the published means (by "MEASURE, PAIRS") in the last column.

    A cosine of a mask with itself is 1, so that row is left out.
    """
    rows = []
    for row in table.itertuples():
        if (row.measure, row.pairs) == ("ROI cosine", "own"):
            continue
        interval = f"{row.low:.2f} to {row.high:.2f}" if np.isfinite(row.low) else "–"
        said = published.get(f"{row.measure}, {row.pairs}")
        rows.append(
            {
                "measure": row.measure,
                "pairs": row.pairs,
                "this run": f"{row.value:.2f}",
                "95 % interval": interval,
                "pairs compared": str(row.n),
                "published": "" if said is None else f"{said:g}",
            }
        )
    return pd.DataFrame(rows)


def masked_regions(
    run: Run, table: pd.DataFrame, contexts: Sequence[Any], known: Sequence[str], k: int
) -> pd.DataFrame:
    """The k most hidden regions of each mask by density and, where some are known to matter, how many are among them.

    Returns
    -------
    DataFrame
        One row a mask: ``mask``; ``most hidden regions``, the most hidden first; with known regions ``found``, the
        share of them (of k, if they are more) among these, and ``AUC`` of the ranking. The last two are recorded.
    """
    top = top_k(table, k, measure="density")
    found = pd.DataFrame(
        {"mask": [str(own) for own in contexts], "most hidden regions": [", ".join(own) for own in top]}
    )
    if known:
        scores = recovered_regions(table, known, k, measure="density")
        hits = scores["recall"] * len(known) / min(k, len(known))
        found = found.assign(found=hits.to_numpy(), AUC=scores["auc"].to_numpy())
        for name in ("found", "AUC"):
            run.record(metric=f"planted regions, {name}", value=found[name].mean(), n=len(found))
    return found


def density_bars(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Mean and range over masks of each region's density in percent, a panel a table: for `plots.region_plot`."""
    rows = []
    for name, table in tables.items():
        summary = (100 * table.set_index("region")["density"]).groupby("region", sort=False)
        rows.append(summary.agg(value="mean", low="min", high="max").reset_index().assign(method=name))
    return pd.concat(rows, ignore_index=True)
