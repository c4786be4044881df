"""Explain neural networks in medical imaging.

The names below are loaded when first used, so that importing the package is instant.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "atlas": ["Atlas", "fetch_atlas", "load_atlas", "mni_regions", "region_table"],
        "attribution.attribute": ["attribute"],
        "attribution.segmentation": ["attribute_segmentation"],
        "data.brain": ["load_brains"],
        "data.ct": ["load_ct"],
        "data.fetal": ["load_fetal"],
        "data.samples": ["Samples", "two_classes"],
        "data.splits": ["folds", "split"],
        "data.unlabelled_pictures": ["load_pictures"],
        "data.unlabelled": ["load_volumes"],
        "data.volume_set": ["Volumes"],
        "evaluation.checking": ["check_attribution"],
        "evaluation.localization": ["localization"],
        "evaluation.perturbation": ["fidelity_curves"],
        "evaluation.randomization": ["model_randomization"],
        "evaluation.region_perturbation": ["region_perturbation"],
        "interpretation.activation_maximization": ["activation_maximization"],
        "interpretation.influence": ["training_influence"],
        "interpretation.kernels": ["layer_kernels"],
        "interpretation.neighbours": ["nearest_neighbours"],
        "interpretation.prototypes": ["prototypes"],
        "interpretation.surrogate": ["surrogate_tree"],
        "maps": ["save_maps"],
        "models.network": ["Network"],
        "models.networks": ["build_network"],
        "models.prediction": ["predict", "predict_values"],
        "models.surgery": ["log_odds"],
        "models.training": ["train"],
        "models.weights": ["load_model"],
        "phantoms.brain": ["synthetic_brains"],
        "phantoms.chest": ["chest_slices"],
        "phantoms.fetal": ["fetal_heads"],
        "phantoms.marker": ["mark_corner"],
        "reports.html": ["to_html"],
        "reports.runner": ["run_study"],
        "reports.sweep": ["sweep"],
        "study.run": ["Run"],
        "widgets.explorer": ["explore"],
        "widgets.mask_editor": ["MaskEditor", "load_masks"],
        "widgets.viewer": ["SliceViewer"],
    },
)
