"""Residual networks of torchvision, for any number of input channels and classes."""

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import nn

from xaitools.errors import ParameterError, WeightsError

IMAGENET_WEIGHTS = {
    "resnet18": "ResNet18_Weights.IMAGENET1K_V1",
    "resnet50": "ResNet50_Weights.IMAGENET1K_V2",
}


def resnet(
    name: str = "resnet50",
    *,
    in_channels: int = 1,
    n_classes: int = 2,
    pretrained: bool = False,
    seed: int = 0,
) -> nn.Module:
    """A residual network by name.

    It takes images ``(batch, in_channels, height, width)``, height and width 64 pixels or more, with values
    in [0, 1] and returns one logit a class, ``(batch, n_classes)``.

    Parameters
    ----------
    name
        A key of :data:`NETWORKS`: ``"resnet50"``, ``"resnet18"``, or ``"resnet10"`` for quick runs on a
        processor.
    in_channels, n_classes
        Channels of the images, logits of the output.
    pretrained
        Start from ImageNet weights (downloaded once by torchvision); the last layer is new all the same. The
        first kernel is summed over its three colours, then shared evenly by the channels, so a grey image
        gives what its RGB copy gives; training settles the shift and scale of the intensities through the
        first batch norm.
    seed
        Fixes the random weights; the global random state stays as it was.

    Raises
    ------
    ParameterError
        If the name is unknown, or ``pretrained`` is asked of a network without published weights.
    WeightsError
        If the ImageNet weights can not be downloaded.

    References
    ----------
    He et al., Deep residual learning for image recognition, CVPR 2016, table 1.
    """
    if name not in NETWORKS:
        raise ParameterError(f"unknown network {name!r}; known: {', '.join(NETWORKS)}")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return NETWORKS[name](in_channels=in_channels, n_classes=n_classes, pretrained=pretrained)


def resnet50(*, in_channels: int = 1, n_classes: int = 2, pretrained: bool = False) -> nn.Module:
    """ResNet-50; see :func:`resnet`."""
    return _torchvision_resnet("resnet50", in_channels, n_classes, pretrained)


def resnet18(*, in_channels: int = 1, n_classes: int = 2, pretrained: bool = False) -> nn.Module:
    """ResNet-18; see :func:`resnet`."""
    return _torchvision_resnet("resnet18", in_channels, n_classes, pretrained)


def resnet10(*, in_channels: int = 1, n_classes: int = 2, pretrained: bool = False) -> nn.Module:
    """One basic block a stage, and a quarter of ResNet-18's width (16 to 128 channels): 0.3 million weights.

    About ten times cheaper than ResNet-50; see :func:`resnet`. It has no ImageNet weights.
    """
    from torchvision.models.resnet import BasicBlock, ResNet

    if pretrained:
        raise ParameterError(
            f"resnet10 has no ImageNet weights; set pretrained=False or use {' or '.join(IMAGENET_WEIGHTS)}"
        )
    width = 16
    model = ResNet(BasicBlock, [1, 1, 1, 1], num_classes=n_classes)
    model.inplanes = width
    model.conv1 = nn.Conv2d(in_channels, width, kernel_size=7, stride=2, padding=3, bias=False)
    model.bn1 = nn.BatchNorm2d(width)
    model.layer1 = model._make_layer(BasicBlock, width, 1)
    model.layer2 = model._make_layer(BasicBlock, 2 * width, 1, stride=2)
    model.layer3 = model._make_layer(BasicBlock, 4 * width, 1, stride=2)
    model.layer4 = model._make_layer(BasicBlock, 8 * width, 1, stride=2)
    model.fc = nn.Linear(8 * width, n_classes)
    return model


NETWORKS: dict[str, Callable[..., nn.Module]] = {
    network.__name__: network for network in (resnet50, resnet18, resnet10)
}


def _torchvision_resnet(name: str, in_channels: int, n_classes: int, pretrained: bool) -> nn.Module:
    import torchvision

    model: Any = torchvision.models.get_model(name)
    if pretrained:
        model.load_state_dict(_imagenet_state(name))
    rgb_kernel = model.conv1.weight.detach()
    model.conv1 = nn.Conv2d(in_channels, 64, kernel_size=7, stride=2, padding=3, bias=False)
    if pretrained:
        grey_kernel = rgb_kernel.sum(dim=1, keepdim=True) / in_channels
        model.conv1.weight.data.copy_(rgb_kernel if in_channels == 3 else grey_kernel)
    model.fc = nn.Linear(model.fc.in_features, n_classes)
    return cast(nn.Module, model)


def _imagenet_state(name: str) -> dict[str, torch.Tensor]:
    import torchvision

    weights = torchvision.models.get_weight(IMAGENET_WEIGHTS[name])
    try:
        return weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except Exception as error:  # the network's errors, or what a damaged copy leads torch's reader to
        folder = f"{torch.hub.get_dir()}/checkpoints"
        raise WeightsError(
            f"could not get the ImageNet weights of {name} from {weights.url} "
            f"({type(error).__name__}: {error}); either put that file into {folder} by hand, in place of any "
            "damaged copy, or set pretrained=False to start from random weights"
        ) from error
