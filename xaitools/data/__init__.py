"""Samples: labelled images with their subjects, one loader a modality.

The names below are loaded when first used, so that grids can be compared without loading torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "brain": ["load_brains", "load_oasis"],
        "ct": ["load_ct"],
        "fetal": ["load_fetal"],
        "head_size": [
            "brain_volumes",
            "check_brains",
            "matched_subset",
            "optimal_scales",
            "scaled",
            "skull_stripped",
            "transported",
        ],
        "samples": ["Samples", "two_classes"],
        "splits": ["check_disjoint", "cross_validation", "folds", "k_folds", "split"],
        "unlabelled_pictures": ["load_pictures"],
        "unlabelled": ["load_volumes"],
        "volume_set": ["Volumes"],
    },
)
