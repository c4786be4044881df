"""Phantoms with known truth."""

from xaitools.phantoms.brain import synthetic_brains
from xaitools.phantoms.chest import chest_slices
from xaitools.phantoms.fetal import fetal_heads
from xaitools.phantoms.heads import synthetic_heads
from xaitools.phantoms.marker import mark_corner

__all__ = ["chest_slices", "fetal_heads", "mark_corner", "synthetic_brains", "synthetic_heads"]
