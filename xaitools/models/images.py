"""Images in memory, or read when they are asked for."""

import hashlib
from collections.abc import Iterator
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor


@runtime_checkable
class ImageStack(Protocol):
    """Images (n, channel, *spatial) that can be indexed: a tensor, or a collection that reads them from disk.

    ``stack[index]`` with a slice or a tensor of positions gives a float32 tensor (k, channel, *spatial).
    """

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: slice | Tensor) -> Tensor: ...


def batches(images: ImageStack, size: int, device: torch.device) -> Iterator[Tensor]:
    """The images in order, `size` at a time, on the device."""
    for start in range(0, len(images), size):
        yield to_device(images[start : start + size], device)


def digest(*stacks: ImageStack) -> str:
    """Hexadecimal digest of stacks of images or labels: same contents, same digest."""
    content = hashlib.sha256()
    for stack in stacks:
        content.update(f"{tuple(stack.shape)}".encode())
        for start in range(len(stack)):
            values = stack[start : start + 1].detach().cpu().contiguous().flatten()
            content.update(values.numpy().data)
    return content.hexdigest()


def to_device(images: Tensor, device: torch.device) -> Tensor:
    """The images on the device, slices with the channel last in memory, which convolutions are fastest on."""
    memory_format = torch.channels_last if images.ndim == 4 else torch.preserve_format
    return images.to(device, memory_format=memory_format)
