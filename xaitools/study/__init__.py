"""What the studies' notebooks share. Names are loaded when first used, so that their readers need no torch."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "manifest": ["read_manifest"],
        "run": ["Run"],
    },
)
