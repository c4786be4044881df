"""Samples: labelled images with their subjects, one loader a modality."""

from xaitools.data.ct import load_ct
from xaitools.data.fetal import load_fetal
from xaitools.data.samples import Samples
from xaitools.data.splits import check_disjoint, folds, split
from xaitools.data.synthetic import chest_slices, fetal_heads

__all__ = [
    "Samples",
    "check_disjoint",
    "chest_slices",
    "fetal_heads",
    "folds",
    "load_ct",
    "load_fetal",
    "split",
]
