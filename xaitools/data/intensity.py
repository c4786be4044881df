"""From Hounsfield units to grey values."""

import numpy as np

from xaitools.errors import ParameterError

MEDIASTINUM = (60.0, 400.0)


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
