"""What an image becomes under a mask: kept where it is 1, deleted where it is 0."""

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from xaitools.attribution._separable import along_axes, blurring
from xaitools.attribution._stream import seed_of
from xaitools.attribution.integrated_gradients import Baseline, check_baseline
from xaitools.checks import check_choice, check_positive, checked_images
from xaitools.errors import DataError, MethodError, ParameterError, ShapeError

DELETIONS: dict[str, str] = {
    "white": "becomes 1, as in the study of Thibeau-Sutre et al.",
    "black": "becomes 0",
    "noise": "becomes Gaussian noise of the image's own mean and spread",
    "blur": "becomes what it is in a blurred copy",
    "pyramid": "is blurred the more, the less the mask keeps, as in Fong and Vedaldi's equation",
}
"""What a deleted voxel becomes, by name."""

SIGMA = 10 / 224
"""Fong and Vedaldi's largest blur, 10 pixels, as a share of the longest axis of their images."""
LEVELS = 8
"""Steps of the pyramid between its largest blur and the image."""


class Deletion:
    """Images, and what masks leave of them.

    Parameters
    ----------
    images
        Images (n, channel, *spatial).
    name
        A key of `DELETIONS`, or of `baselines`.
    baselines
        More by name: a number, an image (channel, *spatial), or one for each of the images.
    keys
        Random seed of each image's noise, (n,).
    sigma
        Largest blur in voxels; None for `SIGMA` of the longest axis.

    Raises
    ------
    MethodError
        If the name is not known, or `sigma` not above 0.
    ShapeError, DataError
        If a baseline does not fit the images, or is not finite.
    """

    def __init__(
        self,
        images: Tensor,
        name: str = "white",
        baselines: Mapping[str, Baseline] | None = None,
        keys: list[int] | None = None,
        sigma: float | None = None,
    ) -> None:
        given = dict(baselines or {})
        check_choice(MethodError, deletion=(name, [*DELETIONS, *given]))
        self.images = images
        self.sigma = SIGMA * max(images.shape[2:]) if sigma is None else sigma
        check_positive(error=MethodError, sigma=self.sigma)
        self._levels = [*self._made(name, given, keys), images]

    def _made(self, name: str, given: Mapping[str, Baseline], keys: list[int] | None) -> list[Tensor]:
        """From what is left where a mask is 0 up to the last level below the image itself."""
        if name in given:
            return [_checked(given[name], self.images)]
        if name == "noise":
            return [_noise(self.images, keys or [0] * len(self.images))]
        if name == "blur":
            return [_blurred(self.images, self.sigma)]
        if name == "pyramid":
            return [_blurred(self.images, self.sigma * (1 - level / LEVELS)) for level in range(LEVELS)]
        return [self.images.new_tensor(float(name == "white")).expand_as(self.images)]

    def masked(self, masks: Tensor, which: Tensor) -> Tensor:
        """The images number `which` (m,) under masks (m, *spatial), (m, channel, *spatial)."""
        masks = masks[:, None]
        if len(self._levels) == 2:
            below, above = self._levels
            return torch.lerp(below[which], above[which], masks)
        level, rest = self._place(masks)
        return torch.lerp(self._at(level, which), self._at(level + 1, which), rest)

    def slopes(self, masks: Tensor, which: Tensor) -> Tensor:
        """How fast each voxel of `masked` changes with its mask, (m, channel, *spatial)."""
        if len(self._levels) == 2:
            return self._differences[0][which]
        level, _ = self._place(masks[:, None])
        return (self._at(level + 1, which) - self._at(level, which)) * LEVELS

    @cached_property
    def _differences(self) -> list[Tensor]:
        below, above = self._levels
        return [above - below]

    def _place(self, masks: Tensor) -> tuple[Tensor, Tensor]:
        """The level below each voxel's place in the pyramid, and how far it is from there to the next."""
        place = masks * LEVELS
        level = place.long().clamp(0, LEVELS - 1)
        return level, place - level

    @cached_property
    def _pyramid(self) -> Tensor:
        return torch.stack(self._levels, 1)

    def _at(self, level: Tensor, which: Tensor) -> Tensor:
        """The pyramid at one level a voxel."""
        chosen = self._pyramid[which]
        return chosen.gather(1, level[:, None].expand(-1, -1, *chosen.shape[2:]))[:, 0]


def delete(
    images: Float[Tensor, "batch channel *spatial"],
    masks: Float[Tensor, "*masks"],
    deletion: str = "white",
    *,
    baselines: Mapping[str, Baseline] | None = None,
    sigma: float | None = None,
    seed: int = 0,
) -> Float[Tensor, "batch channel *spatial"]:
    """Images as masks leave them: ``m * X + (1 - m) * B``.

    Parameters
    ----------
    images
        Images or volumes (batch, channel, *spatial).
    masks
        From 0 (deleted) to 1 (kept): one for all, (*spatial), or one an image, (batch, *spatial).
    deletion
        What B is: "white" (1), "black" (0), "noise" (drawn once, of the mean and standard deviation of each channel),
        "blur" (a Gaussian blur of `sigma`; beyond its border an image goes on as it ends), or a name in `baselines`.
        "pyramid" blurs by ``sigma * (1 - m)`` instead, between levels that are made once.
    baselines
        More of them by name: numbers, one image (channel, *spatial), or one for each image.
    sigma
        Blur in voxels; None for 10/224 of the longest axis, as Fong and Vedaldi have it.
    seed
        Of the noise, together with each image's content.

    Returns
    -------
    Tensor
        Shaped like the images, in their unit. Where a mask is 1 an image is as it was, bit for bit.

    Raises
    ------
    MethodError
        If the deletion is not known.
    ShapeError, DataError
        If masks or baselines do not fit the images, or are not finite.
    ParameterError
        If a mask is not within 0 and 1.

    References
    ----------
    Fong and Vedaldi 2017, arXiv:1704.03296, section 4.1.
    """
    images = checked_images(images)
    masks = torch.as_tensor(masks).to(images)
    own = checked_masks(masks, images).expand(len(images), *images.shape[2:])
    made = Deletion(images, deletion, baselines, keys_of(images, seed), sigma)
    return made.masked(own, torch.arange(len(images), device=images.device))


def keys_of(images: Tensor, seed: int) -> list[int]:
    """Seed of each image's noise, from its content."""
    return [seed_of(image, seed) for image in images]


def checked_masks(masks: Tensor, images: Tensor, *, name: str = "masks") -> Tensor:
    """Masks of one for all images, or one each, from 0 to 1."""
    spatial = tuple(images.shape[2:])
    if tuple(masks.shape) not in (spatial, (len(images), *spatial)):
        raise ShapeError(
            f"{name} of shape {tuple(masks.shape)} for images {tuple(images.shape)}; expected {spatial}, or one an "
            f"image, {(len(images), *spatial)}: resample to the images' grid first."
        )
    if not bool(((masks >= 0) & (masks <= 1)).all()):
        raise ParameterError(
            f"{name} hold values that are not within 0 (deleted) and 1 (kept): clamp them first."
        )
    return masks


def _checked(baseline: Any, images: Tensor) -> Tensor:
    """A baseline for each image, shaped like the images."""
    check_baseline(baseline, images)
    value = torch.as_tensor(baseline, dtype=images.dtype, device=images.device)
    if not bool(torch.isfinite(value).all()):
        raise DataError("The baseline contains NaN or infinity; expected finite values: replace them first.")
    return value.expand_as(images)


def _blurred(images: Tensor, sigma: float) -> Tensor:
    return along_axes(images, [blurring(n, sigma) for n in images.shape[2:]])


def _noise(images: Tensor, keys: list[int]) -> Tensor:
    """Noise of each channel's mean and standard deviation."""
    drawn = [
        torch.randn(image.shape, generator=torch.Generator().manual_seed(key), dtype=image.dtype)
        for image, key in zip(images, keys, strict=True)
    ]
    axes = tuple(range(2, images.ndim))
    spread, mean = torch.std_mean(images, axes, correction=0, keepdim=True)
    return mean + spread * torch.stack(drawn).to(images)
