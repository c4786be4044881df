"""Masks of single participants, and those of two sessions of one."""

from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from xaitools.attribution import MaskSettings
from xaitools.data import Volumes
from xaitools.evaluation import share_outside
from xaitools.study.contexts import Context
from xaitools.study.mask_files import GroupMasks, Mask, group_masks, setting_name
from xaitools.study.mask_tables import cosines
from xaitools.study.network import Trained
from xaitools.study.run import Run


def single_masks(
    net: Trained, context: Context, samples: Volumes, setting: MaskSettings, folder: Path, **options: Any
) -> GroupMasks:
    """One mask for each sample alone, by its name; on disk as :func:`~xaitools.study.mask_files` has them."""
    label = setting_name(setting)
    each = {
        name: group_masks(
            net, samples[[i]], {label: setting}, folder, name=f"{context.file}_{name}", **options
        )
        for i, name in enumerate(samples.names)
    }
    return GroupMasks(
        {name: one.masks[label] for name, one in each.items()},
        pd.concat([one.report.assign(mask=name).set_index("mask") for name, one in each.items()]),
        pd.concat([one.history.assign(mask=name) for name, one in each.items()], ignore_index=True),
    )


def singles_table(masks: GroupMasks, group: Mask) -> pd.DataFrame:
    """What each participant's own mask does, and the cosine of its voxels with those of the group's mask."""
    hidden = 1 - np.stack([group, *masks.masks.values()]).astype(np.float64)
    alike = cosines(hidden.reshape(len(hidden), -1))[0, 1:]
    report = masks.report
    return pd.DataFrame(
        {
            "mask of": report.index,
            "probability before": report["score_before"].to_numpy(),
            "under the mask": report["score_after"].to_numpy(),
            "hidden (% of voxels)": 100 * report["hidden"].to_numpy(),
            "cosine with the group's mask": alike,
        }
    )


def sessions(samples: Volumes, label: int) -> Volumes | None:
    """The first and last session of each participant of a class who has several, in turn; None if nobody has."""
    places: dict[str, list[int]] = {}
    for i, subject in enumerate(samples.subjects):
        if int(samples.labels[i]) == label:
            places.setdefault(subject, []).append(i)
    found = [i for own in places.values() if len(own) > 1 for i in (own[0], own[-1])]
    return samples[found] if found else None


def longitudinal_table(run: Run, masks: GroupMasks) -> pd.DataFrame:
    """Where masks of later sessions lie against earlier ones, and against those of other participants; recorded.

    Disease spreads and does not retreat: a coherent explanation has the earlier mask inside the later one.

    Parameters
    ----------
    run
        Where the means are recorded.
    masks
        Of :func:`single_masks` of :func:`sessions`: the earlier and the later one of each participant in turn.

    Returns
    -------
    DataFrame
        ``pairs``, ``earlier outside later``, ``later outside earlier`` (shares, 0 to 1; see
        `xaitools.evaluation.share_outside`) and ``n``. Masks that hide nothing are left out.
    """
    each = list(masks.masks.values())
    earlier, later = each[::2], each[1::2]
    some = [i for i in range(len(earlier)) if earlier[i].min() < 1 and later[i].min() < 1]
    own = [(i, i) for i in some]
    rows = []
    for name, pairs in {
        "one participant": own,
        "two participants": list(permutations(some, 2)),
    }.items():
        if pairs:
            lost = np.mean([share_outside(earlier[i], later[j]) for i, j in pairs])
            new = np.mean([share_outside(later[j], earlier[i]) for i, j in pairs])
            run.record(metric=f"earlier outside later, {name}", value=lost, n=len(pairs))
            run.record(metric=f"later outside earlier, {name}", value=new, n=len(pairs))
            rows.append((name, lost, new, len(pairs)))
    return pd.DataFrame(rows, columns=["pairs", "earlier outside later", "later outside earlier", "n"])
