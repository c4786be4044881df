"""ImageNet weights for torchvision's networks, carried over to images of any number of channels."""

import logging
from pathlib import Path

import torch
from torch import Tensor, nn

from xaitools.errors import WeightsError
from xaitools.seals import checksum

logger = logging.getLogger(__name__)

IMAGENET_WEIGHTS = {
    "resnet18": "ResNet18_Weights.IMAGENET1K_V1",
    "resnet50": "ResNet50_Weights.IMAGENET1K_V2",
    "vgg16": "VGG16_Weights.IMAGENET1K_V1",
}


def imagenet_state(name: str) -> dict[str, Tensor]:
    """Published weights of a network; torchvision downloads them once, and again if the copy on disk is damaged.

    Raises
    ------
    WeightsError
        If they can not be downloaded.
    """
    import torchvision

    weights = torchvision.models.get_weight(IMAGENET_WEIGHTS[name])
    try:
        _set_aside_if_damaged(weights.url)
        return weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except Exception as error:  # the network's errors, or what a damaged copy leads torch's reader to
        folder = f"{torch.hub.get_dir()}/checkpoints"
        raise WeightsError(
            f"could not get the ImageNet weights of {name} from {weights.url} "
            f"({type(error).__name__}: {error}); either put that file into {folder} by hand, in place of any "
            "damaged copy, or set pretrained=False to start from random weights"
        ) from error


def _set_aside_if_damaged(url: str) -> None:
    """Rename the copy of a published file that is not the one its name says: it ends with digits of its SHA-256."""
    path = Path(torch.hub.get_dir(), "checkpoints", url.rpartition("/")[2])
    if path.is_file() and not checksum(path).startswith(path.stem.rpartition("-")[2]):
        logger.warning("%s is damaged, is now called %s.damaged, and is fetched again.", path.name, path.name)
        path.replace(path.with_name(f"{path.name}.damaged"))


def imagenet_reachable(name: str) -> bool:
    """Whether a network has ImageNet weights, here or to be downloaded; if not, the log says why."""
    if name not in IMAGENET_WEIGHTS:
        logger.info("%s has no ImageNet weights", name)
        return False
    try:
        imagenet_state(name)
    except WeightsError as error:
        logger.warning("%s", error)
        return False
    return True


def for_channels(first: nn.Conv2d, in_channels: int, *, pretrained: bool) -> nn.Conv2d:
    """A first layer like `first`, for `in_channels` instead of three colours.

    A pretrained kernel is summed over its colours, then shared evenly by the channels, so that a grey image
    gives what its RGB copy gives.
    """
    new = nn.Conv2d(
        in_channels,
        first.out_channels,
        kernel_size=first.kernel_size,  # type: ignore[arg-type]
        stride=first.stride,  # type: ignore[arg-type]
        padding=first.padding,  # type: ignore[arg-type]
        bias=first.bias is not None,
    )
    if not pretrained:
        return new
    rgb_kernel = first.weight.detach()
    grey_kernel = rgb_kernel.sum(dim=1, keepdim=True) / in_channels
    new.weight.data.copy_(rgb_kernel if in_channels == 3 else grey_kernel)
    if first.bias is not None and new.bias is not None:
        new.bias.data.copy_(first.bias.detach())
    return new
