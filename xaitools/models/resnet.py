"""Residual networks (He et al., Deep residual learning for image recognition, CVPR 2016, table 1)."""

from typing import Any, cast

from torch import nn

from xaitools.models.imagenet import for_channels, imagenet_state


def resnet50(*, in_channels: int = 1, n_outputs: int = 2, pretrained: bool = False) -> nn.Module:
    """ResNet-50 of torchvision; see :func:`~xaitools.models.networks.build_network`."""
    return _torchvision_resnet("resnet50", in_channels, n_outputs, pretrained)


def resnet18(*, in_channels: int = 1, n_outputs: int = 2, pretrained: bool = False) -> nn.Module:
    """ResNet-18 of torchvision; see :func:`~xaitools.models.networks.build_network`."""
    return _torchvision_resnet("resnet18", in_channels, n_outputs, pretrained)


def resnet10(*, in_channels: int = 1, n_outputs: int = 2) -> nn.Module:
    """One basic block a stage, and a quarter of ResNet-18's width (16 to 128 channels): 0.3 million weights.

    About ten times cheaper than ResNet-50; see :func:`~xaitools.models.networks.build_network`.
    """
    from torchvision.models.resnet import BasicBlock, ResNet

    width = 16
    model = ResNet(BasicBlock, [1, 1, 1, 1], num_classes=n_outputs)
    model.inplanes = width
    model.conv1 = nn.Conv2d(in_channels, width, kernel_size=7, stride=2, padding=3, bias=False)
    model.bn1 = nn.BatchNorm2d(width)
    model.layer1 = model._make_layer(BasicBlock, width, 1)
    model.layer2 = model._make_layer(BasicBlock, 2 * width, 1, stride=2)
    model.layer3 = model._make_layer(BasicBlock, 4 * width, 1, stride=2)
    model.layer4 = model._make_layer(BasicBlock, 8 * width, 1, stride=2)
    model.fc = nn.Linear(8 * width, n_outputs)
    return model


def _torchvision_resnet(name: str, in_channels: int, n_outputs: int, pretrained: bool) -> nn.Module:
    import torchvision

    model: Any = torchvision.models.get_model(name)
    if pretrained:
        model.load_state_dict(imagenet_state(name))
    model.conv1 = for_channels(model.conv1, in_channels, pretrained=pretrained)
    model.fc = nn.Linear(model.fc.in_features, n_outputs)
    return cast(nn.Module, model)
