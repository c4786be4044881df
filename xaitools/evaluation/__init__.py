"""Is a map right: against a mask, against the model it explains, and when the training is repeated?"""

from xaitools.evaluation.agreement import (
    cosine,
    mean_maps,
    mean_over_pairs,
    noise_coherence,
    pairwise_l2,
    rank_correlation,
    recovered_regions,
    top_k,
    top_k_intersection,
)
from xaitools.evaluation.bootstrap import (
    AGREES,
    DIFFERS,
    NOT_TESTED,
    UNDECIDED,
    VERDICTS,
    Interval,
    Verdict,
    mean_interval,
    paired_comparisons,
    paired_difference,
    rank_ranges,
    verdict,
)
from xaitools.evaluation.checking import Check, Checks, check_attribution
from xaitools.evaluation.complexity import complexity_rise, map_complexity
from xaitools.evaluation.control_maps import control_maps
from xaitools.evaluation.data_randomization import DataRandomization, data_randomization
from xaitools.evaluation.known_signal import known_signal, known_signal_means
from xaitools.evaluation.localization import localization
from xaitools.evaluation.mask_similarity import (
    PAIRS,
    difference_mask,
    pair_means,
    prob_cnn,
    random_masks_like,
    share_outside,
)
from xaitools.evaluation.perturbation import REPLACEMENTS, Fidelity, fidelity_curves
from xaitools.evaluation.randomization import (
    Randomization,
    model_randomization,
    smooth_model_randomization,
)
from xaitools.evaluation.region_perturbation import RegionCurves, perturbed_images, region_perturbation
from xaitools.evaluation.region_targets import lateral_asymmetry, region_volumes
from xaitools.evaluation.shares import explanation_shares, tissue_masks
from xaitools.evaluation.similarity import SIMILARITIES, map_similarity

__all__ = [
    "AGREES",
    "DIFFERS",
    "NOT_TESTED",
    "PAIRS",
    "REPLACEMENTS",
    "SIMILARITIES",
    "UNDECIDED",
    "VERDICTS",
    "Check",
    "Checks",
    "DataRandomization",
    "Fidelity",
    "Interval",
    "Randomization",
    "RegionCurves",
    "Verdict",
    "check_attribution",
    "complexity_rise",
    "control_maps",
    "cosine",
    "data_randomization",
    "difference_mask",
    "explanation_shares",
    "fidelity_curves",
    "known_signal",
    "known_signal_means",
    "lateral_asymmetry",
    "localization",
    "map_complexity",
    "map_similarity",
    "mean_interval",
    "mean_maps",
    "mean_over_pairs",
    "model_randomization",
    "noise_coherence",
    "pair_means",
    "paired_comparisons",
    "paired_difference",
    "pairwise_l2",
    "perturbed_images",
    "prob_cnn",
    "random_masks_like",
    "rank_correlation",
    "rank_ranges",
    "recovered_regions",
    "region_perturbation",
    "region_volumes",
    "share_outside",
    "smooth_model_randomization",
    "tissue_masks",
    "top_k",
    "top_k_intersection",
    "verdict",
]
