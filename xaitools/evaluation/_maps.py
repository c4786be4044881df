"""Maps and other arrays as the metrics take them: tensors on any device, numpy arrays, one map or several by name."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from xaitools.errors import DataError, ShapeError


def as_array(values: Any) -> np.ndarray:
    """A tensor on any device, of any type, or whatever numpy takes, as an array."""
    if isinstance(values, Tensor):
        values = values.detach().cpu()
        return np.asarray(values.float() if values.dtype is torch.bfloat16 else values)
    return np.asarray(values)


def checked_maps(
    maps: Mapping[str, Any] | Tensor | np.ndarray, images: Shaped[np.ndarray, "batch channel *spatial"]
) -> dict[str, Float[np.ndarray, "batch *spatial"]]:
    """One map or more by name, without a channel axis, each finite and of the images' size; one alone is "map".

    Raises
    ------
    DataError
        If there is no map, or one has NaN or infinity.
    ShapeError
        If a map does not fit the images.
    """
    if not isinstance(maps, Mapping):
        maps = {"map": maps}
    if not maps:
        raise DataError("maps: got none; expected at least one by its name: add one.")
    return {name: _checked_map(name, values, images) for name, values in maps.items()}


def _checked_map(name: str, values: Any, images: np.ndarray) -> np.ndarray:
    relevance = as_array(values)
    n, _, *spatial = images.shape
    if relevance.shape not in ((n, *spatial), (n, 1, *spatial)):
        raise ShapeError(
            f"map {name!r} has shape {relevance.shape}; expected {(n, *spatial)}, with or without a channel axis of 1: "
            "reduce several channels to one first."
        )
    relevance = relevance.reshape(n, *spatial)
    if not np.issubdtype(relevance.dtype, np.floating):
        relevance = relevance.astype(np.float64)
    bad = np.flatnonzero(~np.isfinite(relevance.reshape(n, -1)).all(axis=1))
    if len(bad):
        raise DataError(
            f"map {name!r} has NaN or infinite values for image {bad[0]}; expected finite ones: "
            "its method failed there, so leave the image or the map out."
        )
    return relevance
