"""Phantoms with known truth."""

from xaitools.data.synthetic.chest import chest_slices

__all__ = ["chest_slices"]
