"""Phantoms with known truth."""

from xaitools.phantoms.brain import synthetic_brains
from xaitools.phantoms.chest import chest_slices
from xaitools.phantoms.fetal import fetal_heads
from xaitools.phantoms.heads import synthetic_heads

__all__ = ["chest_slices", "fetal_heads", "synthetic_brains", "synthetic_heads"]
