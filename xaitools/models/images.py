"""Images in memory, or read when they are asked for."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from xaitools import files


@runtime_checkable
class ImageStack(Protocol):
    """Images (n, channel, *spatial) that can be indexed: a tensor, or a collection that reads them from disk.

    ``stack[index]`` with a slice or a tensor of positions gives a float32 tensor (k, channel, *spatial).
    """

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: slice | Tensor) -> Tensor: ...


@runtime_checkable
class LabelledImages(Protocol):
    """What a network learns from: images, the label of each, and what labels mean, as Samples have them.

    `class_names` are empty for a regression; `unit` is that of its labels.
    """

    @property
    def images(self) -> ImageStack: ...

    @property
    def labels(self) -> Tensor: ...

    @property
    def class_names(self) -> Sequence[str]: ...

    @property
    def unit(self) -> str: ...


def batches(images: ImageStack, size: int, device: torch.device) -> Iterator[Tensor]:
    """The images in order, `size` at a time, on the device."""
    for start in range(0, len(images), size):
        yield to_device(images[start : start + size], device)


def digest(*stacks: ImageStack) -> str:
    """Hexadecimal digest of stacks of images or labels: same contents, same digest."""
    return files.digest(part for stack in stacks for part in _contents(stack))


def _contents(stack: ImageStack) -> Iterator[str | memoryview]:
    """Shape, then one image after the other: memory does not grow with their number."""
    yield f"{tuple(stack.shape)}"
    for start in range(len(stack)):
        yield stack[start : start + 1].detach().cpu().contiguous().flatten().numpy().data


def to_device(images: Tensor, device: torch.device) -> Tensor:
    """The images on the device, slices with the channel last in memory, which convolutions are fastest on."""
    memory_format = torch.channels_last if images.ndim == 4 else torch.preserve_format
    return images.to(device, memory_format=memory_format)


def is_of_layout(error: RuntimeError) -> bool:
    """Whether a network failed because it views features that have the channel last in memory."""
    return "view" in str(error)


def quick_forward(model: nn.Module) -> Callable[[Tensor], Any]:
    """The model's forward pass, with the channel last in memory unless the model views what it needs channel first.

    Many networks flatten by ``x.view(len(x), -1)`` after a convolution, which a layout with the channel last forbids.
    """
    channel_last = True

    def forward(batch: Tensor) -> Any:
        nonlocal channel_last
        if channel_last:
            try:
                return model(to_device(batch, batch.device))
            except RuntimeError as error:
                if not is_of_layout(error):
                    raise
                channel_last = False
        return model(batch.clone(memory_format=torch.contiguous_format))

    return forward
