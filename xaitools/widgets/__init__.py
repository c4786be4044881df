"""Interactive views over arrays, for notebooks and exported pages."""

from xaitools.widgets.explore import Explorer, explore
from xaitools.widgets.mask_editor import MaskEditor, load_masks
from xaitools.widgets.viewer import SliceViewer

__all__ = ["Explorer", "MaskEditor", "SliceViewer", "explore", "load_masks"]
