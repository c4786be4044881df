"""What a network is like inside: its kernels, features and favourite images, and the examples that it learned from."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "activation_maximization": ["Maximized", "activation_maximization"],
        "features": ["features"],
        "kernels": ["layer_kernels"],
        "neighbours": ["nearest_neighbours"],
    },
)
