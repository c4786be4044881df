"""Interactive views over arrays, for notebooks and exported pages."""

from xaitools.widgets.viewer import SliceViewer

__all__ = ["SliceViewer"]
