"""Explain neural networks in medical imaging.

The names below are loaded when first used, so that importing the package is instant.
"""

from importlib import import_module
from typing import Any

_HOMES = {
    "MaskEditor": "xaitools.widgets.mask_editor",
    "Run": "xaitools.reports.output",
    "Samples": "xaitools.data.samples",
    "SliceViewer": "xaitools.widgets.viewer",
    "attribute": "xaitools.attribution.attribute",
    "chest_slices": "xaitools.data.synthetic.chest",
    "explore": "xaitools.widgets.explore",
    "fidelity_curves": "xaitools.evaluation.perturbation",
    "load_ct": "xaitools.data.ct",
    "load_masks": "xaitools.widgets.mask_editor",
    "load_model": "xaitools.models.weights",
    "localization": "xaitools.evaluation.localization",
    "predict": "xaitools.models.training",
    "build_network": "xaitools.models.networks",
    "run_study": "xaitools.reports.runner",
    "split": "xaitools.data.splits",
    "sweep": "xaitools.reports.sweep",
    "to_html": "xaitools.reports.html",
    "train": "xaitools.models.training",
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
