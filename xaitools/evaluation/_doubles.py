"""What a network says in float64, by forward passes of its own modules: the reference that maps are held against."""

import copy
from collections.abc import Iterator
from functools import cached_property
from itertools import product
from typing import Any

import torch
from jaxtyping import Float, Float64, Shaped
from torch import Tensor

from xaitools.errors import UnsupportedModelError
from xaitools.models import Network
from xaitools.models.network import gradients_of, select

DIRECTIONS = 8
STEP = 1e-8
"""Of central differences, as a share of the image's range: float64 leaves them seven digits, and hardly a unit has its
kink within it."""


class Doubles:
    """A float64 copy of a network's plain modules, and what it says of some images.

    Parameters
    ----------
    network
        The network.
    images
        Images (n, channel, *spatial) on its device.
    target
        Class of each, (n,), or None.
    seed
        Of the directions.
    """

    def __init__(self, network: Network, images: Tensor, target: Tensor | None, seed: int) -> None:
        self._network, self._target, self._seed = network, target, seed
        self._images = images.to(self._device).double()

    @property
    def _device(self) -> torch.device:
        device = self._network.example.device
        return torch.device("cpu") if device.type == "mps" else device  # which has no float64

    @cached_property
    def _double(self) -> Any:
        return copy.deepcopy(self._network.plain).to(self._device).double()

    def scores(self, images: Float64[Tensor, "n channel *spatial"], number: int) -> Float64[Tensor, " n"]:
        """The output to explain of variants of image `number`, one after the other.

        Raises
        ------
        UnsupportedModelError
            If the network does not compute in float64.
        """
        with torch.no_grad():
            return torch.cat([self._score(image[None], number) for image in images])

    def _score(self, image: Tensor, number: int) -> Tensor:
        target = None if self._target is None else self._target[number : number + 1].to(self._device)
        try:
            score = select(self._double(image.clone()), target)
        except RuntimeError as error:
            raise UnsupportedModelError(
                f"{self._network.name} cannot be computed in float64, the reference of this check: {error}"
            ) from error
        if score.dtype != torch.float64:
            raise UnsupportedModelError(
                f"{self._network.name} rounds to {score.dtype} in its forward pass; expected one that computes in "
                "float64 if asked to, the reference of this check: take casts and autocast out of it."
            )
        return score

    def directions(self) -> Iterator[tuple[int, Float64[Tensor, "channel *spatial"]]]:
        """Directions with independent standard normal entries, each with the number of its image, in turn."""
        generator = torch.Generator().manual_seed(self._seed)
        for k in range(DIRECTIONS):
            drawn = torch.randn(self._images.shape[1:], generator=generator, dtype=torch.float64)
            yield k % len(self._images), drawn.to(self._device)

    def _scaled(self, direction: Tensor, number: int, by_image: bool) -> Tensor:
        return direction * self._images[number] if by_image else direction

    def derivatives(self, *, by_image: bool = False) -> Float64[Tensor, " direction"]:
        """Central differences of the output along the directions, or along the image's values times each of them."""
        return self._by_image if by_image else self._plain

    @cached_property
    def _plain(self) -> Tensor:
        return self._differences(by_image=False)

    @cached_property
    def _by_image(self) -> Tensor:
        return self._differences(by_image=True)

    def _differences(self, *, by_image: bool) -> Tensor:
        found = []
        for number, direction in self.directions():
            image = self._images[number]
            step = STEP * (float(image.max() - image.min()) or 1.0)
            along = step * self._scaled(direction, number, by_image)
            above, below = self.scores(torch.stack([image + along, image - along]), number)
            found.append((above - below) / (2 * step))
        return torch.stack(found)

    def products(self, maps: Float[Tensor, "n channel *spatial"]) -> Float64[Tensor, " direction"]:
        """Scalar products of the directions with their images' maps."""
        values = maps.to(self._device).double()
        return torch.stack([(values[number] * direction).sum() for number, direction in self.directions()])

    def own_gradients(self) -> Float64[Tensor, "n channel *spatial"]:
        """The network's own gradient in float64 of each image on which directions are tried; 0 for the others."""
        gradients = torch.zeros_like(self._images)
        for number in range(min(DIRECTIONS, len(self._images))):
            with torch.enable_grad():
                leaf = self._images[number : number + 1].clone().requires_grad_()
                gradients[number] = gradients_of(leaf, self._score(leaf, number))[0]
        return gradients

    def falls(
        self,
        number: int,
        hidden: Shaped[Tensor, "window *spatial"],
        filler: Float64[Tensor, "channel *spatial"],
    ) -> Float64[Tensor, " window"]:
        """How far the output for image `number` falls when what is true in each window is filled."""
        image = self._images[number]
        clean = self.scores(image[None], number)
        return torch.cat(
            [clean - self.scores(torch.where(own, filler, image)[None], number) for own in hidden]
        )

    def filler(self, baseline: Any, number: int) -> Float64[Tensor, "channel *spatial"]:
        """What stands in hidden parts of image `number`: a number, one image, or one for each."""
        value = torch.as_tensor(baseline).to(self._images)
        if value.ndim == self._images.ndim:
            value = value[number if len(value) > 1 else 0]
        return value.expand_as(self._images[number])


def windows_over(
    voxel: tuple[int, ...], patch: int, stride: int, shape: tuple[int, ...]
) -> Shaped[Tensor, "window *spatial"]:
    """The windows of occlusion that cover a voxel, each as a mask of the image."""
    starts = []
    for v, n in zip(voxel, shape, strict=True):
        last = -(-(n - patch) // stride)
        first = max(0, -(-(v - patch + 1) // stride))
        starts.append([k * stride for k in range(first, min(v // stride, last) + 1)])
    masks = []
    for corner in product(*starts):
        mask = torch.zeros(shape, dtype=torch.bool)
        mask[tuple(slice(a, a + patch) for a in corner)] = True
        masks.append(mask)
    return torch.stack(masks)
