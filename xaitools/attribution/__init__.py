"""Attribution methods: which pixels speak for the network's answer.

Every module here whose name has no underscore in front is loaded, and the methods in it register themselves; see
`xaitools.attribution.registry`.
"""

import importlib
import pkgutil

from xaitools.attribution.attribute import InputMaps, Maps, attribute
from xaitools.attribution.deletions import DELETIONS, delete
from xaitools.attribution.layers import default_layer, explained_layer, spatial_layers
from xaitools.attribution.mask_settings import MaskSettings
from xaitools.attribution.names import MethodName, combine, parse, parse_all
from xaitools.attribution.optimised_masks import Masks, optimise_masks
from xaitools.attribution.registry import METHODS, Method
from xaitools.attribution.segmentation import SegmentationMaps, attribute_segmentation
from xaitools.attribution.several_inputs import attribute_inputs
from xaitools.attribution.xrai import Segments, segment, xrai

for _module in pkgutil.iter_modules(__path__):
    if not _module.name.startswith("_") and _module.name not in globals():
        importlib.import_module(f"{__name__}.{_module.name}")
for _name in sorted(METHODS):
    METHODS[_name] = METHODS.pop(_name)
globals().update({name: known.function for name, known in METHODS.items()})

__all__ = [
    "DELETIONS",
    "METHODS",
    "InputMaps",
    "Maps",
    "MaskSettings",
    "Masks",
    "Method",
    "MethodName",
    "SegmentationMaps",
    "Segments",
    "attribute",
    "attribute_inputs",
    "attribute_segmentation",
    "combine",
    "default_layer",
    "delete",
    "explained_layer",
    "optimise_masks",
    "parse",
    "parse_all",
    "segment",
    "spatial_layers",
    "xrai",
]
__all__ += list(METHODS)
