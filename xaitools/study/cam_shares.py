"""Mean explanations of the heads of a preprocessing, and how they are shared out among parts of the head."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float64

from xaitools.data import (
    check_brains,
)
from xaitools.evaluation import explanation_shares, mean_interval, tissue_masks
from xaitools.models.head_cnn import LAST_RELU
from xaitools.study.contexts import Contexts
from xaitools.study.explaining import explain_each
from xaitools.study.preprocessing import Preprocessing
from xaitools.study.run import Run


@dataclass(frozen=True)
class MeanCams:
    """The explanations of the validation heads of all folds.

    Attributes
    ----------
    name
        Of the preprocessing.
    means
        By name of the class, the mean over its heads of maps that sum to 1 each, (x, y, z).
    shares
        A row a head and part: ``preprocessing``, ``sample``, ``label``, ``part``, ``share``, ``volume``, ``ratio``.
    empty
        How many heads have a map of zeros; they are in neither.
    """

    name: str
    means: dict[str, Float64[np.ndarray, "x y z"]]
    shares: pd.DataFrame
    empty: int = 0


def mean_cams(
    prepared: Preprocessing,
    nets: Contexts,
    folder: Path,
    *,
    method: str = f"grad_cam[{LAST_RELU}]",
    rim: float = 5.0,
    progress: bool = True,
    **settings: Any,
) -> MeanCams:
    """Explain every validation head's own class, and add the maps up by class and by part of the head.

    Each map is divided by the sum of its positive values, so that heads count alike. Heads stand as their grid has
    them, with the centres of the brains in one place if they were loaded so, but not registered: the mean is as blurred
    as people differ. The shares are taken head by head with its own label map.

    Parameters
    ----------
    prepared, nets
        One row and its networks.
    folder
        Where maps are written as they come, in a folder of their own for each row and fold.
    method
        Name of the map, with its layer.
    rim
        As for `xaitools.evaluation.tissue_masks`, in mm.
    **settings
        Of `xaitools.attribution.attribute`.

    Raises
    ------
    DataError
        If the heads have no label maps.
    """
    check_brains(prepared.heads)
    classes, shape = prepared.heads.class_names, prepared.heads.shape
    sums, counts = np.zeros((len(classes), *shape)), np.zeros(len(classes))
    tables, empty = [], 0
    for own, net in nets.items():
        fold = prepared.folds[own.fold - 1]
        for label, name in enumerate(classes):
            group = fold.validation[np.flatnonzero(fold.validation.labels.numpy() == label)]
            place = folder / prepared.file / own.file
            of: dict[str, Any] = {"target": label, "key": {"target": label}, "progress": progress}
            for i, found in enumerate(explain_each(net.model, group, [method], place, **of, **settings)):
                values = np.maximum(found[method], 0).astype(np.float64)
                if not values.any():
                    empty += 1
                    continue
                sums[label] += values / values.sum()
                counts[label] += 1
                parts = tissue_masks(group.label_map(i), group.affine, rim=rim)
                who = {"preprocessing": prepared.name, "sample": group.names[i], "label": name}
                tables.append(explanation_shares(values, parts).assign(**who))
    means = {
        name: sums[label] / counts[label] if counts[label] else np.zeros(shape)
        for label, name in enumerate(classes)
    }
    columns = ["preprocessing", "sample", "label", "part", "share", "volume", "ratio"]
    shares = pd.concat(tables, ignore_index=True)[columns] if tables else pd.DataFrame(columns=columns)
    return MeanCams(prepared.name, means, shares, empty)


def shares_table(run: Run, cams: Sequence[MeanCams], *, network: str, seed: int = 0) -> pd.DataFrame:
    """Mean share of the explanations in each part of the head, beside the part's share of the volume; recorded.

    Parameters
    ----------
    run
        Where they are recorded.
    cams
        As :func:`mean_cams` returns them.
    network
        Name of the network.
    seed
        Of the bootstrap over heads.

    Returns
    -------
    DataFrame
        A row a preprocessing and part: ``preprocessing``, ``part``; ``share`` with ``low`` and ``high``, its 95 %
        interval; ``volume``, the share that an even map would have; ``ratio`` of both; ``n`` heads.
    """
    rows = []
    for one in cams:
        for part, own in one.shares.groupby("part", sort=False):
            interval = mean_interval(own["share"].to_numpy(dtype=np.float64), seed=seed)
            volume = float(own["volume"].mean())
            of: dict[str, Any] = {"method": one.name, "model": network, "n": len(own)}
            run.record_interval(interval, metric=f"share of the explanation: {part}", **of)
            run.record(metric=f"share of the volume: {part}", value=volume, **of)
            share = float(interval.mean)
            bounds = {"share": share, "low": float(interval.low), "high": float(interval.high)}
            rows.append(
                {
                    "preprocessing": one.name,
                    "part": part,
                    **bounds,
                    "volume": volume,
                    "ratio": share / volume if volume else np.nan,
                    "n": len(own),
                }
            )
    return pd.DataFrame(
        rows, columns=["preprocessing", "part", "share", "low", "high", "volume", "ratio", "n"]
    )
