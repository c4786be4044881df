"""Is anything else as good as optimised masks: random ones, the groups' difference, networks of permuted labels?"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float64

from xaitools.data import Volumes
from xaitools.evaluation import difference_mask, localization, prob_cnn, random_masks_like
from xaitools.study.contexts import Contexts
from xaitools.study.mask_files import GroupMasks, Mask
from xaitools.study.mask_tables import cosines, densities, mask_regions
from xaitools.study.regions import Regions
from xaitools.study.run import Run


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


def truth_of(samples: Volumes) -> Bool[np.ndarray, "x y z"] | None:
    """Where most of the samples are known to be changed; None if nobody knows or nothing is."""
    if samples.masks is None:
        return None
    mean = np.mean([samples.masks[i][0].numpy() for i in range(len(samples))], axis=0)
    return mean > 0.5 if (mean > 0.5).any() else None


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
        among = cosines(vectors)[: len(own), len(own) :]
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


def _auc(masks: np.ndarray, truth: np.ndarray, brain: np.ndarray) -> Float64[np.ndarray, " n"]:
    return localization(1 - masks[:, brain], truth[brain][None])["auc"]


def _mean(values: np.ndarray, chosen: np.ndarray) -> float:
    """Mean of what is chosen and a number; NaN if nothing is."""
    known = values[chosen & np.isfinite(values)]
    return float(known.mean()) if len(known) else np.nan
