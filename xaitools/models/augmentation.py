"""Mild random changes of training images that keep their label."""

from collections.abc import Callable

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
    reach = [size // 16 for size in images.shape[2:]]
    return _moved(images, generator, mirrored_axis=images.ndim - 3, reach=reach)


def sagittal_flip_and_coronal_shift(
    images: Float[Tensor, "batch channel x y z"], generator: torch.Generator
) -> Float[Tensor, "batch channel x y z"]:
    """Mirror half of the brains left to right, then shift each by -2 to 2 voxels front to back.

    The border is repeated into what a shift uncovers. The paper's voxels are of 1 mm; for voxels of several mm,
    whose shifts by whole voxels would be larger than the paper's 2 mm, see :func:`sagittal_flip`.

    Parameters
    ----------
    images
        Volumes in RAS orientation: x runs to the right, y to the front, z upwards.
    generator
        Source of randomness, on the CPU; the same state gives the same changes.

    Returns
    -------
    Tensor
        New images; the input is unchanged.

    References
    ----------
    Eitel and Ritter, Testing the robustness of attribution methods for convolutional neural networks in MRI-based
    Alzheimer's disease classification, 2019, section 2.2.
    """
    return _moved(images, generator, mirrored_axis=0, reach=[0, 2, 0])


def sagittal_flip(
    images: Float[Tensor, "batch channel x y z"], generator: torch.Generator
) -> Float[Tensor, "batch channel x y z"]:
    """Mirror half of the brains left to right, and shift none: for voxels of more than about 2 mm.

    Parameters
    ----------
    images, generator
        As for :func:`sagittal_flip_and_coronal_shift`.

    Returns
    -------
    Tensor
        New images; the input is unchanged.
    """
    return _moved(images, generator, mirrored_axis=0, reach=[0, 0, 0])


AUGMENTATIONS: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    function.__name__: function
    for function in (flip_and_shift, sagittal_flip, sagittal_flip_and_coronal_shift)
}


def _moved(images: Tensor, generator: torch.Generator, mirrored_axis: int, reach: list[int]) -> Tensor:
    """Shift each image by up to `reach` along each spatial axis; mirror half of them along one."""
    n, channels, *spatial = images.shape
    index = []
    for axis, size in enumerate(spatial):
        shift = torch.randint(-reach[axis], reach[axis] + 1, (n, 1), generator=generator)
        position = (torch.arange(size) + shift).clamp(0, size - 1)
        if axis == mirrored_axis:
            mirrored = torch.rand(n, 1, generator=generator) < 0.5
            position = torch.where(mirrored, size - 1 - position, position)
        shape = [n, 1] + [1] * len(spatial)
        shape[2 + axis] = size
        index.append(position.reshape(shape).to(images.device))
    batch = torch.arange(n, device=images.device).reshape(n, *[1] * (len(spatial) + 1))
    channel = torch.arange(channels, device=images.device).reshape(1, -1, *[1] * len(spatial))
    return images[(batch, channel, *index)]
