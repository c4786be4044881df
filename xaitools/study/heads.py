"""Heads of the study of shortcuts, and where on them explanations lie."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from xaitools.checks import check_choice
from xaitools.data import Volumes
from xaitools.evaluation import explanation_shares, tissue_masks
from xaitools.phantoms import synthetic_heads
from xaitools.phantoms.brain_regions import ALZHEIMER
from xaitools.study.run import Run

PARTS = ("outside", "face", "rim", "inside")
VOLUME = "share of the volume"
TASKS = ("sex", "disease")


def task_heads(
    task: str, n_subjects: int, *, size_effect: float, face_effect: float, brain_effect: float, **options: Any
) -> Volumes:
    """Synthetic heads of one of the two tasks of the study.

    Parameters
    ----------
    task
        "sex": women and men, who differ in all three; or "disease": CN and AD, who differ in the regions of Alzheimer's
        disease and in nothing else.
    n_subjects, size_effect, face_effect, brain_effect, **options
        As for `xaitools.phantoms.synthetic_heads`; the first two effects are of the sexes only.
    """
    check_choice(task=(task, TASKS))
    if task == "sex":
        effects: dict[str, Any] = {
            "size_effect": size_effect,
            "face_effect": face_effect,
            "brain_effect": brain_effect,
        }
        return synthetic_heads(n_subjects, **effects, **options)
    heads = synthetic_heads(
        n_subjects, size_effect=0.0, face_effect=0.0, brain_effect=brain_effect, regions=ALZHEIMER, **options
    )
    return replace(heads, class_names=("CN", "AD"))


def shares_by_method(
    run: Run,
    maps: Mapping[str, Float[np.ndarray, "n 1 x y z"]],
    samples: Volumes,
    named: pd.DataFrame,
    *,
    network: str,
    rim: float = 5.0,
    sign: str = "absolute",
) -> pd.DataFrame:
    """Mean share of each method's maps in the parts of the head, beside the share of the volume that these have.

    Parameters
    ----------
    run
        Where the means are recorded.
    maps
        By full name of the method.
    samples
        The heads that are explained, with label maps.
    named
        As :func:`~xaitools.study.method_table` returns it.
    network
        The network that is explained.
    rim, sign
        As for `xaitools.evaluation.tissue_masks` and `explanation_shares`.

    Returns
    -------
    DataFrame
        A row for each method, ``method`` (its label) and the parts :data:`PARTS`, shares from 0 to 1; "outside" holds
        "face". The last row, :data:`VOLUME`, is what a map that is the same everywhere would have.
    """
    parts = [tissue_masks(samples.label_map(i), samples.affine, rim=rim) for i in range(len(samples))]
    rows: list[dict[str, Any]] = []
    tables: list[pd.DataFrame] = []
    for name, values in maps.items():
        tables = [
            explanation_shares(own[0], masks, sign=sign).set_index("part")
            for own, masks in zip(values, parts, strict=True)
        ]
        shares = pd.concat([own["share"] for own in tables], axis=1)
        for part in PARTS:
            metric = f"share of the explanation, {part}"
            n = int(shares.loc[part].notna().sum())
            run.record(metric=metric, value=shares.loc[part].mean(), method=name, model=network, n=n)
        rows.append({"method": named.at[name, "label"], **shares.mean(axis=1)[list(PARTS)]})
    if tables:
        volume = pd.concat([own["volume"] for own in tables], axis=1).mean(axis=1)
        rows.append({"method": VOLUME, **volume[list(PARTS)]})
    return pd.DataFrame(rows)
