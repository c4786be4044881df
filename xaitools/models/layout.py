"""The layout in memory that a network is trained in."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from xaitools.models.images import is_of_layout, to_device
from xaitools.models.prediction import evaluating
from xaitools.models.surgery import channel_first, channels_last


def quickest_forward(model: nn.Module, images: Tensor) -> Callable[[Tensor], Tensor]:
    """The model's forward pass, its weights laid out anew: channels-last, which convolutions are fastest on.

    A network that flattens by ``x.view(len(x), -1)`` forbids that; its weights and batches have the channel first. So
    have volumes on a GPU, where it was not measured.

    Parameters
    ----------
    model, images
        On one device; the batch, (batch, channel, *spatial), and its first image are passed to see what the model
        takes: PyTorch chooses its convolutions, and with them the layout of what they return, by the batch too.
    """
    if images.ndim == 5 and images.device.type != "cpu":
        return model
    try:
        with torch.no_grad(), evaluating(channels_last(model)):
            for batch in (images, images[:1]):
                model(to_device(batch, images.device))
    except RuntimeError as error:
        if not is_of_layout(error):
            raise
        channel_first(model)
        return lambda batch: model(batch.clone(memory_format=torch.contiguous_format))
    return model
