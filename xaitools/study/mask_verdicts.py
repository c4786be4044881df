"""What the poster on optimised masks claims, beside the numbers of a run."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from xaitools.study.claims import margin_verdict
from xaitools.study.words import MISSING

CALLED = 0.5
"""Probability above which a network of two classes names a class."""


def mask_claims(
    weights: pd.DataFrame, robustness: pd.DataFrame, regions: pd.DataFrame, published: Mapping[str, float]
) -> list[dict[str, str]]:
    """The poster's claims with the numbers of this run and verdicts.

    Such numbers have no interval that a few contexts could carry, so a claim within a margin is undecided: 0.02 of a
    cosine, 0.05 of a probability or an AUC.

    Parameters
    ----------
    weights
        Cosines of masks of different l1, (l1, l1).
    robustness
        Of :func:`~xaitools.study.robustness_table`.
    regions
        Of :func:`~xaitools.study.masked_regions`; its ``AUC`` only where it is known which regions matter.
    published
        Published values by metric.

    Returns
    -------
    list of dict
        Rows with ``published``, ``this run`` and ``verdict``.
    """
    values = {(row.measure, row.pairs): row.value for row in robustness.itertuples()}
    found = []
    different = weights.to_numpy()[~np.eye(len(weights), dtype=bool)]
    known = different[np.isfinite(different)]
    lowest = float(known.min()) if len(known) else None
    across = [value for name, value in published.items() if name.startswith("ROI cosine, l1=")]
    claim = (
        f"the weight l1 changes the regions less (cosine {min(across):g} or more) than training again does "
        f"({published['ROI cosine, inter-run']:g})"
    )
    runs = values.get(("ROI cosine", "inter-run"))
    found.append(_row(claim, lowest, runs, "lowest cosine across l1 {:.2f}, between runs {:.2f}", 0.02))
    for kind, other in {"inter-run": "run", "inter-fold": "fold"}.items():
        claim = (
            f"under the mask of another {other}, a network still calls the group patients "
            f"(prob_CNN {published[f'prob_CNN, {kind}']:g})"
        )
        asked = values.get(("prob_CNN", kind))
        found.append(_row(claim, asked, CALLED, "prob_CNN {:.2f}", 0.05))
    claim = "other folds share fewer regions ({:g}) than other runs do ({:g})".format(
        *(published[f"ROI cosine, {kind}"] for kind in ("inter-fold", "inter-run"))
    )
    folds = values.get(("ROI cosine", "inter-fold"))
    found.append(_row(claim, runs, folds, "between runs {:.2f}, between folds {:.2f}", 0.02))
    lowest = float(regions["AUC"].min()) if "AUC" in regions else None
    claim = "the most hidden regions are those of the disease"
    found.append(_row(claim, lowest, 0.5, "lowest AUC of the changed regions {:.2f}", 0.05))
    return found


def _row(
    claim: str, larger: float | None, smaller: float | None, form: str, tolerance: float
) -> dict[str, str]:
    """A row on the claim that one number is larger than another; not tested where one is missing."""
    if larger is None or smaller is None:
        return {"published": claim, "this run": "", "verdict": MISSING}
    verdict = margin_verdict(larger - smaller, tolerance)
    return {"published": claim, "this run": form.format(larger, smaller), "verdict": verdict}
