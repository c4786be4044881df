"""Mild random changes of training images that keep their label."""

import torch
from jaxtyping import Float
from torch import Tensor


def flip_and_shift(
    images: Float[Tensor, "batch channel *spatial"], generator: torch.Generator
) -> Float[Tensor, "batch channel *spatial"]:
    """Mirror half of the images left to right, then shift each by up to 1/16 of its size along every axis.

    The border is repeated into what a shift uncovers. Intensities stay as they are: in a calibrated image
    (CT) they are the very thing a network has to read.

    Parameters
    ----------
    images
        Images; the last axis runs left to right.
    generator
        Source of randomness, on the CPU; the same state gives the same changes.

    Returns
    -------
    Tensor
        New images; the input is unchanged.
    """
    n, _, *spatial = images.shape
    index = []
    for axis, size in enumerate(spatial):
        reach = size // 16
        shift = torch.randint(-reach, reach + 1, (n, 1), generator=generator)
        position = (torch.arange(size) + shift).clamp(0, size - 1)
        if axis == len(spatial) - 1:
            mirrored = torch.rand(n, 1, generator=generator) < 0.5
            position = torch.where(mirrored, size - 1 - position, position)
        shape = [n, 1] + [1] * len(spatial)
        shape[2 + axis] = size
        index.append(position.reshape(shape).to(images.device))
    batch = torch.arange(n, device=images.device).reshape(n, *[1] * (len(spatial) + 1))
    channel = torch.arange(images.shape[1], device=images.device).reshape(1, -1, *[1] * len(spatial))
    return images[(batch, channel, *index)]
