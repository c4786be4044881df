"""What the perturbation metrics ask of their images, maps, targets and counts."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float32, Shaped
from torch import Tensor

from xaitools.errors import DataError, ParameterError, ShapeError


def checked_images(images: Shaped[Tensor, "..."]) -> Float32[np.ndarray, "n channel *spatial"]:
    """The images as an array, one or more of them, each finite and not constant."""
    pixels = images.detach().cpu().float().numpy()
    if len(pixels) == 0:
        raise DataError("got no images, expected at least one")
    for i, image in enumerate(pixels):
        if not np.isfinite(image).all():
            raise DataError(f"image {i} has NaN or infinite values; leave it out or repair it")
        if image.min() == image.max():
            raise DataError(
                f"image {i} is constant ({image.min():g} everywhere): there is nothing in it to replace"
            )
    return pixels


def checked_maps(
    maps: Mapping[str, Shaped[Tensor, "..."] | Shaped[np.ndarray, "..."]],
    images: Float32[np.ndarray, "n channel *spatial"],
) -> dict[str, Shaped[np.ndarray, "n *spatial"]]:
    """The maps as arrays without a channel axis, one or more of them, each finite and of the images' size."""
    if not maps:
        raise DataError("got no maps, expected at least one")
    return {name: _checked_map(name, values, images) for name, values in maps.items()}


def checked_targets(targets: Shaped[Tensor, "..."] | Sequence[int], n: int) -> list[int]:
    """The targets as integers, one for each of the n images."""
    classes = torch.as_tensor(targets).cpu()
    if tuple(classes.shape) != (n,):
        raise ShapeError(
            f"targets have shape {tuple(classes.shape)}, expected one class for each of the {n} images"
        )
    return [int(target) for target in classes]


def check_counts(**counts: int) -> None:
    """Raise unless every count is 1 or more; the message names it as its keyword does."""
    for name, value in counts.items():
        if value < 1:
            raise ParameterError(f"{name} is {value}, expected 1 or more")


def _checked_map(name: str, values: Tensor | np.ndarray, images: np.ndarray) -> np.ndarray:
    relevance = np.asarray(torch.as_tensor(values).detach().cpu())
    shape = (len(images), *images.shape[2:])
    if relevance.shape not in (shape, (shape[0], 1, *shape[1:])):
        raise ShapeError(
            f"map {name!r} has shape {relevance.shape}, expected {shape}, with or without a channel axis of 1; "
            "reduce several channels to one first"
        )
    relevance = relevance.reshape(shape)
    for i, own in enumerate(relevance):
        if not np.isfinite(own).all():
            raise DataError(f"map {name!r} has NaN or infinite values for image {i}; its method failed there")
    return relevance
