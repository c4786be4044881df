"""VGG networks (Simonyan and Zisserman, Very deep convolutional networks, ICLR 2015, table 1)."""

from typing import Any

from torch import nn

from xaitools.models.imagenet import for_channels, imagenet_state


def vgg16(*, in_channels: int = 1, n_outputs: int = 2, pretrained: bool = False) -> nn.Module:
    """The 13 convolutions of torchvision's VGG-16, the mean over the image, and one linear layer.

    The fully connected layers of the original fit images of 224 pixels only, so they are left out.
    See :func:`~xaitools.models.networks.build_network`.
    """
    import torchvision

    model: Any = torchvision.models.vgg16()
    if pretrained:
        model.load_state_dict(imagenet_state("vgg16"))
    model.features[0] = for_channels(model.features[0], in_channels, pretrained=pretrained)
    return _with_head(model.features, 512, n_outputs)


def vgg8(*, in_channels: int = 1, n_outputs: int = 2) -> nn.Module:
    """One convolution before each of VGG-16's five poolings, of 16 to 128 channels, with batch normalisation.

    About a hundred times cheaper than VGG-16; see :func:`~xaitools.models.networks.build_network`.
    """
    layers: list[nn.Module] = []
    channels = in_channels
    for width in (16, 32, 64, 128, 128):
        layers += [
            nn.Conv2d(channels, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
        ]
        channels = width
    return _with_head(nn.Sequential(*layers), channels, n_outputs)


def _with_head(features: nn.Sequential, channels: int, n_outputs: int) -> nn.Module:
    model = nn.Sequential()
    model.add_module("features", features)
    model.add_module("avgpool", nn.AdaptiveAvgPool2d(1))
    model.add_module("flatten", nn.Flatten())
    model.add_module("fc", nn.Linear(channels, n_outputs))
    return model
