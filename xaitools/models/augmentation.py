"""Mild random changes of training images that keep their label."""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from xaitools.errors import ShapeError

LARGEST_ANGLE = 15.0
SCALES = (0.85, 1.15)


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


def rotation(
    images: Float[Tensor, "batch channel *spatial"], generator: torch.Generator
) -> Float[Tensor, "batch channel *spatial"]:
    """Turn each head about the middle of the volume by -15 to 15 degrees about each of its three axes.

    The angles are uniform and independent; the turns about x, y and z follow each other. Values are interpolated
    linearly; what is turned into view from beyond the volume is 0, as air is. Voxels are taken for cubes.

    Parameters
    ----------
    images
        Volumes of cubic voxels, their heads or brains in the middle.
    generator
        Source of randomness, on the CPU; the same state gives the same changes.

    Returns
    -------
    Tensor
        New images; the input is unchanged.

    Raises
    ------
    ShapeError
        If the images are no volumes.
    """
    return _turned(images, _angles(images, generator), torch.ones(len(images)))


def rotation_and_scaling(
    images: Float[Tensor, "batch channel *spatial"], generator: torch.Generator
) -> Float[Tensor, "batch channel *spatial"]:
    """Turn each head as :func:`rotation` does, and resize it by a factor of 0.85 to 1.15, the same along all axes.

    Lengths grow by the factor, which is uniform, and volumes by its cube, 0.61 to 1.52: more than the difference
    between the sexes, so that the size of a head says less of its label.

    Parameters
    ----------
    images, generator
        As for :func:`rotation`.

    Returns
    -------
    Tensor
        New images; the input is unchanged.

    Raises
    ------
    ShapeError
        If the images are no volumes.
    """
    angles = _angles(images, generator)
    low, high = SCALES
    return _turned(images, angles, low + (high - low) * torch.rand(len(images), generator=generator))


AUGMENTATIONS: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    function.__name__: function
    for function in (
        flip_and_shift,
        sagittal_flip,
        sagittal_flip_and_coronal_shift,
        rotation,
        rotation_and_scaling,
    )
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


def _angles(images: Tensor, generator: torch.Generator) -> Tensor:
    """Angles about x, y and z of each volume, in radians, (n, 3)."""
    if images.ndim != 5:
        raise ShapeError(
            f"images of shape {tuple(images.shape)}; expected volumes, (batch, channel, x, y, z): for slices choose "
            "the augmentation flip_and_shift."
        )
    return math.radians(LARGEST_ANGLE) * (2 * torch.rand(len(images), 3, generator=generator) - 1)


def _turned(images: Tensor, angles: Tensor, factors: Tensor) -> Tensor:
    """Each volume turned about its middle by angles (n, 3) and resized by factors (n,), 0 beyond its border."""
    turns = _turn(angles, 0) @ _turn(angles, 1) @ _turn(angles, 2)
    lengths = torch.tensor(images.shape[:1:-1], dtype=torch.float32)  # affine_grid takes the axes as z, y, x
    pull = turns.flip(1, 2) / factors[:, None, None] * lengths / lengths[:, None]
    theta = torch.cat([pull, torch.zeros(len(images), 3, 1)], dim=2).to(images)
    grid = functional.affine_grid(theta, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, align_corners=False)


def _turn(angles: Tensor, axis: int) -> Tensor:
    """Matrices (n, 3, 3) that turn about one axis."""
    first, second = (axis + 1) % 3, (axis + 2) % 3
    sine, cosine = angles[:, axis].sin(), angles[:, axis].cos()
    matrices = torch.eye(3).repeat(len(angles), 1, 1)
    matrices[:, first, first] = matrices[:, second, second] = cosine
    matrices[:, first, second], matrices[:, second, first] = -sine, sine
    return matrices
