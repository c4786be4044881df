"""Samples: labelled images with their subjects, one loader a modality."""

from xaitools.data.brain import load_brains, load_oasis
from xaitools.data.ct import load_ct
from xaitools.data.fetal import load_fetal
from xaitools.data.samples import Samples, two_classes
from xaitools.data.splits import check_disjoint, folds, split
from xaitools.data.volume_set import Volumes

__all__ = [
    "Samples",
    "Volumes",
    "check_disjoint",
    "folds",
    "load_brains",
    "load_ct",
    "load_fetal",
    "load_oasis",
    "split",
    "two_classes",
]
