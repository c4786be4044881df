"""Phantoms with known truth."""

from xaitools.data.synthetic.brain import synthetic_brains
from xaitools.data.synthetic.chest import chest_slices
from xaitools.data.synthetic.fetal import fetal_heads

__all__ = ["chest_slices", "fetal_heads", "synthetic_brains"]
