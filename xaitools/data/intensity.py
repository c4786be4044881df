"""Hounsfield units: what speaks against them, and their way to grey values."""

import numpy as np

from xaitools.errors import ParameterError

MEDIASTINUM = (60.0, 400.0)
LOWEST_HU = -1024


def apply_window(hu: np.ndarray, window: tuple[float, float]) -> np.ndarray:
    """Scale Hounsfield units to [0, 1], clipped outside the window.

    Parameters
    ----------
    hu : array of any shape, Hounsfield units
    window : (center, width), Hounsfield units
        Black is ``center - width / 2``, white ``center + width / 2``.

    Returns
    -------
    array of float32, shaped like `hu`

    Raises
    ------
    ParameterError
        `window` is not two finite numbers with a positive width.
    """
    if len(window) != 2 or not np.isfinite(window).all() or window[1] <= 0:
        raise ParameterError(f"window={tuple(window)}; expected (center, width) in HU, with a positive width")
    center, width = window
    return np.clip((hu - center) / width + 0.5, 0, 1).astype(np.float32)


def hu_doubt(values: np.ndarray) -> str:
    """What speaks against values being Hounsfield units of a body; empty where nothing does.

    One in a thousand must be lung, gut or the air around, below -200 HU, and one in fifty soft tissue, -200 to 300 HU.
    What lies below -1024 HU, as scanners write outside their circle, was not measured.

    Parameters
    ----------
    values : array of any shape
        Of a slice or a volume.
    """
    measured = values[np.isfinite(values) & (values >= LOWEST_HU)]
    if not measured.size:
        return f"nothing lies at {LOWEST_HU} HU or above"
    found = f"values are {measured.min():g} to {measured.max():g}"
    if (measured < -200).sum() < 0.001 * measured.size:
        return f"{found}, next to nothing below -200 HU, where air and lung are"
    if ((measured >= -200) & (measured <= 300)).sum() < 0.02 * values.size:
        return f"{found}, next to nothing between -200 and 300 HU, where soft tissue is"
    return ""
