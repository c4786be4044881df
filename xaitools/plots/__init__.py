"""Arrays and tables in, plotly figures out: nothing here computes a result or keeps a state."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "curves": ["error_plot", "fidelity_plot", "training_plot"],
        "insides": ["activation_plot", "kernels_plot", "mmd_plot", "neighbours_plot", "tree_plot"],
        "masks": ["objective_plot"],
        "matrices": ["comparison_plot", "matrices_plot"],
        "randomization": ["randomization_plot"],
        "points": ["prediction_plot", "quality_plot", "region_plot", "score_plot"],
        "style": [
            "CONFIG",
            "CONTROL",
            "DIVERGING",
            "OUTLINE",
            "PALETTE",
            "SEQUENTIAL",
            "SMOOTHINGS",
            "TEMPLATE",
            "no_uploads",
            "plain",
        ],
        "sweeps": ["axis_plot"],
        "tiles": ["map_panel", "slices_plot"],
    },
)
