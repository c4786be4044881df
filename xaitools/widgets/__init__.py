"""Interactive views over arrays, for notebooks and exported pages."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "explorer": ["Explorer", "explore"],
        "mask_editor": ["MaskEditor", "load_masks"],
        "viewer": ["SliceViewer"],
    },
)
