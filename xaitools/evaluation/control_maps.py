"""Maps that know nothing of a network: what a method has to beat before it has shown anything."""

from typing import Any

import numpy as np
from jaxtyping import Float64
from scipy import ndimage

from xaitools.checks import check_positive
from xaitools.errors import ShapeError
from xaitools.evaluation._maps import as_array

CONTROLS = ("smooth noise", "intensity", "edges")


def control_maps(
    images: Any, *, sigma: float = 2.0, seed: int = 0
) -> dict[str, Float64[np.ndarray, "n *spatial"]]:
    """Maps without a network: smooth noise, the image's own intensity, and its edges.

    Parameters
    ----------
    images
        ``(n, channel, *spatial)``; channels are averaged.
    sigma
        Blur of the noise in pixels or voxels.
    seed
        Of the noise. That of image `i` depends on the seed, `i` and the size alone.

    Returns
    -------
    dict
        By name, in the order of :data:`CONTROLS`: Gaussian noise, blurred; the absolute intensity; and the magnitude of
        the Sobel gradient, borders repeated.

    Raises
    ------
    ShapeError
        If the images are not ``(n, channel, *spatial)`` with two or three spatial axes.
    ParameterError
        If sigma is not above 0.
    """
    check_positive(sigma=sigma)
    values = as_array(images).astype(np.float64)
    if values.ndim not in (4, 5):
        raise ShapeError(
            f"images of shape {values.shape}; expected (n, channel, *spatial): add an axis for the channel."
        )
    grey = values.mean(axis=1)
    noise = [np.random.default_rng((seed, i)).standard_normal(image.shape) for i, image in enumerate(grey)]
    found = (
        [ndimage.gaussian_filter(own, sigma) for own in noise],
        np.abs(grey),
        [ndimage.generic_gradient_magnitude(image, ndimage.sobel, mode="nearest") for image in grey],
    )
    return {name: np.asarray(maps) for name, maps in zip(CONTROLS, found, strict=True)}
