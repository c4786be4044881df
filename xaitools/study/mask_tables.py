"""Numbers of optimised masks: which regions they hide, how alike they are, and whether anything is as good."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float64

from xaitools.atlas import region_table
from xaitools.data import Volumes
from xaitools.evaluation import (
    cosine,
    difference_mask,
    localization,
    pair_means,
    prob_cnn,
    random_masks_like,
    recovered_regions,
    top_k,
)
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
    matrix = cosine(densities(table))
    for i, one in enumerate(names):
        for j, other in enumerate(names[:i]):
            run.record(metric="ROI cosine across weights", value=matrix[i, j], method=f"{other}; {one}")
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
    """
    models = [nets[own].model for own in masks.masks]
    asked = prob_cnn(models, np.stack(list(masks.masks.values())), judged.images[:], target, **options)
    return dict(zip(MEASURES, (asked, cosine(densities(table))), strict=True))


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


def group_difference(controls: Volumes, patients: Volumes, hidden: float, *, deletion: str = "white") -> Mask:
    """The mask that the maps themselves suggest: where the groups' means differ, hiding as much as masks do.

    For a deletion that raises values ("white") where patients have less than controls, for "black" where they have
    more, for all others where the two differ at all.

    Parameters
    ----------
    controls, patients
        The groups.
    hidden
        Sum of 1 - m.
    deletion
        Of the masks.
    """
    lead = group_mean(controls) - group_mean(patients)
    signed = {"white": lead, "black": -lead}.get(deletion, np.abs(lead))
    return difference_mask(signed, min(hidden, int((signed > 0).sum()))).astype(np.float32)


def group_mean(samples: Volumes) -> Mask:
    """Mean image of a group, which is read one by one."""
    total = sum(samples.images[i, 0].double() for i in range(len(samples)))
    return (total / len(samples)).numpy().astype(np.float32)


def brain_of(samples: Volumes, least: float = 0.02) -> Bool[np.ndarray, "x y z"]:
    """Where the mean image is above `least`: what is outside of it can hold no finding."""
    return group_mean(samples) > least


def as_good_at_random(
    run: Run,
    masks: GroupMasks,
    truth: Bool[np.ndarray, "x y z"] | None,
    brain: Bool[np.ndarray, "x y z"],
    *,
    n_random: int,
    seed: int = 0,
) -> pd.DataFrame:
    """How well each mask finds what is known to change, and how often a random mask of its area and smoothness does.

    Parameters
    ----------
    run
        Where the means are recorded.
    masks
        By context.
    truth
        Where the disease changes something; None if nobody knows.
    brain
        Where AUCs are counted, and random masks are laid.
    n_random
        Random masks for each mask.
    seed
        Of the random masks.

    Returns
    -------
    DataFrame
        One row a mask: ``mask``; ``AUC`` of 1 - m against the truth in the brain; ``AUC of random masks``, their mean;
        ``as good at random``, the share of random masks whose AUC is at least as large, the mask itself counted among
        them. Empty without a truth.
    """
    rows = []
    for number, (own, mask) in enumerate(masks.masks.items()):
        if truth is None:
            break
        random = random_masks_like(mask, n_random, within=brain, seed=seed + number)
        auc = _auc(np.concatenate([mask[None], random]), truth, brain)
        as_good = float((auc >= auc[0]).mean())
        rows.append((str(own), auc[0], auc[1:].mean(), as_good))
    table = pd.DataFrame(rows, columns=["mask", "AUC", "AUC of random masks", "as good at random"])
    for name in table.columns[1:] if rows else ():
        run.record(metric=f"planted voxels, {name}", value=table[name].mean(), n=len(table))
    return table


def some_random_masks(
    masks: GroupMasks, brain: Bool[np.ndarray, "x y z"], *, n: int, seed: int = 0
) -> list[Mask]:
    """`n` random masks in the brain for each mask, as large and as smooth as it."""
    drawn = [
        random_masks_like(mask, n, within=brain, seed=seed + number)
        for number, mask in enumerate(masks.masks.values())
    ]
    return [mask for several in drawn for mask in several]


def control_table(
    run: Run,
    nets: Contexts,
    masks: GroupMasks,
    controls: Mapping[str, Sequence[Mask]],
    regions: Regions,
    patients: Volumes,
    judged: Volumes,
    *,
    truth: Bool[np.ndarray, "x y z"] | None,
    brain: Bool[np.ndarray, "x y z"],
    target: int = 1,
    **options: Any,
) -> pd.DataFrame:
    """Masks that say nothing about these networks, beside theirs: how alike, how effective, how right they are.

    Parameters
    ----------
    run
        Where the numbers are recorded.
    nets, masks
        Networks and masks by context.
    controls
        Other masks by what they are; of several, means are taken.
    regions, patients
        As for :func:`mask_regions`.
    judged, target, **options
        As for :func:`similarity_matrices`.
    truth, brain
        As for :func:`as_good_at_random`.

    Returns
    -------
    DataFrame
        A row for the masks of the contexts and for each control: ``mask``; ``ROI cosine`` with the masks of the
        contexts (of different ones); ``prob_CNN`` of the contexts' networks under it (of the others'); with a truth,
        ``AUC`` against it.
    """
    own, models = list(masks.masks.values()), [nets[key].model for key in masks.masks]
    groups: dict[str, Sequence[Mask]] = {"masks of the other networks": own, **controls}
    rows = []
    for name, group in groups.items():
        vectors = densities(mask_regions([*own, *group], regions, patients))
        among = cosine(vectors)[: len(own), len(own) :]
        asked = prob_cnn(models, np.stack(group), judged.images[:], target, **options)
        different = ~np.eye(len(own), dtype=bool) if group is own else np.ones(among.shape, dtype=bool)
        row: dict[str, Any] = {
            "mask": name,
            "ROI cosine": _mean(among, different),
            "prob_CNN": _mean(asked, different),
        }
        if truth is not None:
            row["AUC"] = float(_auc(np.stack(group), truth, brain).mean())
        for metric, value in list(row.items())[1:]:
            if np.isfinite(value):
                run.record(metric=f"control: {metric}", value=value, method=name, n=len(group))
        rows.append(row)
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


def truth_of(samples: Volumes) -> Bool[np.ndarray, "x y z"] | None:
    """Where most of the samples are known to be changed; None if nobody knows or nothing is."""
    if samples.masks is None:
        return None
    mean = np.mean([samples.masks[i][0].numpy() for i in range(len(samples))], axis=0)
    return mean > 0.5 if (mean > 0.5).any() else None


def _auc(masks: np.ndarray, truth: np.ndarray, brain: np.ndarray) -> Float64[np.ndarray, " n"]:
    return localization(1 - masks[:, brain], truth[brain][None])["auc"]


def _mean(values: np.ndarray, chosen: np.ndarray) -> float:
    return float(values[chosen].mean()) if chosen.any() else np.nan
