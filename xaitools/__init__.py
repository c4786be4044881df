"""Explain neural networks in medical imaging.

The names below are loaded when first used, so that importing the package is instant.
"""

from importlib import import_module
from typing import Any

_HOMES = {
    "Atlas": "xaitools.atlas",
    "MaskEditor": "xaitools.widgets.mask_editor",
    "Run": "xaitools.reports.output",
    "Samples": "xaitools.data.samples",
    "SliceViewer": "xaitools.widgets.viewer",
    "Volumes": "xaitools.data.volume_set",
    "attribute": "xaitools.attribution.attribute",
    "build_network": "xaitools.models.networks",
    "chest_slices": "xaitools.data.synthetic.chest",
    "explore": "xaitools.widgets.explore",
    "fetal_heads": "xaitools.data.synthetic.fetal",
    "fetch_atlas": "xaitools.atlas",
    "fidelity_curves": "xaitools.evaluation.perturbation",
    "folds": "xaitools.data.splits",
    "load_atlas": "xaitools.atlas",
    "load_brains": "xaitools.data.brain",
    "load_ct": "xaitools.data.ct",
    "load_fetal": "xaitools.data.fetal",
    "load_masks": "xaitools.widgets.mask_editor",
    "load_model": "xaitools.models.weights",
    "localization": "xaitools.evaluation.localization",
    "log_odds": "xaitools.models.surgery",
    "mni_regions": "xaitools.atlas",
    "predict": "xaitools.models.training",
    "predict_values": "xaitools.models.training",
    "region_perturbation": "xaitools.evaluation.region_perturbation",
    "region_table": "xaitools.atlas",
    "run_study": "xaitools.reports.runner",
    "split": "xaitools.data.splits",
    "synthetic_brains": "xaitools.data.synthetic.brain",
    "sweep": "xaitools.reports.sweep",
    "to_html": "xaitools.reports.html",
    "train": "xaitools.models.training",
    "two_classes": "xaitools.data.samples",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'xaitools' has no attribute '{name}'")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
