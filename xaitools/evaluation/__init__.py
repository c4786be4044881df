"""Is a map right: against a mask, and against the model it explains?"""

from xaitools.evaluation.bootstrap import (
    Interval,
    mean_interval,
    paired_comparisons,
    paired_difference,
    rank_ranges,
    verdict,
)
from xaitools.evaluation.localization import localization
from xaitools.evaluation.perturbation import REPLACEMENTS, Fidelity, fidelity_curves
from xaitools.evaluation.region_perturbation import RegionCurves, perturbed_images, region_perturbation

__all__ = [
    "REPLACEMENTS",
    "Fidelity",
    "Interval",
    "RegionCurves",
    "fidelity_curves",
    "localization",
    "mean_interval",
    "paired_comparisons",
    "paired_difference",
    "perturbed_images",
    "rank_ranges",
    "region_perturbation",
    "verdict",
]
