"""Networks of torchvision, MONAI and timm, with their own forward passes and few channels."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import monai.networks.nets as monai
import timm
import torch
import torchvision.models as vision
from timm.models.mlp_mixer import MlpMixer
from torch import Tensor, nn
from torchvision.models.googlenet import BasicConv2d, Inception
from torchvision.models.squeezenet import Fire

from tests.matrix.case import (
    DIFFERENTIABLE,
    NOT_ALL_RELU,
    OCCLUSION,
    PIECEWISE_LINEAR,
    RECTIFIERS,
    add,
    no_rectifiers_unless,
)


class Scores(nn.Module):
    """Class scores of a dense output: its mean over the image."""

    def __init__(self, dense: nn.Module) -> None:
        super().__init__()
        self.dense = dense

    def forward(self, x: Tensor) -> Tensor:
        return self.dense(x).flatten(2).mean(2)


# --- torchvision ------------------------------------------------------------------------------------------------------

PHOTO = {"shape": (3, 32, 32)}


def bare(kind: type, **parts: Any) -> nn.Module:
    """torchvision's forward pass with layers that tests can afford."""
    net = kind.__new__(kind)
    nn.Module.__init__(net)
    for name, part in parts.items():
        setattr(net, name, part)
    return net


def thin(kind: type, head: str) -> type:
    """A residual network with an eighth of the channels in its blocks."""

    def make_layer(self: Any, block: Any, planes: int, *args: Any, **more: Any) -> nn.Module:
        return kind._make_layer(self, block, planes // 8, *args, **more)

    def init(self: Any, *args: Any, **more: Any) -> None:
        kind.__init__(self, *args, **more)
        setattr(self, head, nn.Linear(getattr(self, head).in_features // 8, 3))

    return type(kind.__name__, (kind,), {"_make_layer": make_layer, "__init__": init})


def _resnet(block: Any, *layers: int) -> nn.Module:
    return thin(vision.ResNet, "fc")(block, layers)


def _vgg() -> nn.Module:
    head = nn.Sequential(nn.Linear(64, 16), nn.ReLU(True), nn.Dropout(), nn.Linear(16, 3))
    features = vision.vgg.make_layers([8, "M", 16, "M"], True)
    return bare(vision.VGG, features=features, avgpool=nn.AdaptiveAvgPool2d(2), classifier=head)


def _alexnet() -> nn.Module:
    features = nn.Sequential(nn.Conv2d(3, 8, 5, 2, 2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2), nn.Conv2d(8, 8, 3),
                             nn.ReLU(inplace=True))  # fmt: skip
    head = nn.Sequential(nn.Dropout(), nn.Linear(32, 16), nn.ReLU(inplace=True), nn.Linear(16, 3))
    return bare(vision.AlexNet, features=features, avgpool=nn.AdaptiveAvgPool2d(2), classifier=head)


def _googlenet() -> nn.Module:
    def conv(inputs: int, outputs: int, **more: Any) -> nn.Module:
        return BasicConv2d(inputs if inputs == 3 else inputs // 16, outputs // 16, **more)

    blocks = [conv, partial(Inception, conv_block=conv), None]
    net = vision.GoogLeNet(3, aux_logits=False, init_weights=False, blocks=blocks)
    net.fc = nn.Linear(64, 3)
    return net


def _squeezenet() -> nn.Module:
    fires = [Fire(16, 4, 8, 8), Fire(16, 4, 8, 8)]
    features = nn.Sequential(
        nn.Conv2d(3, 16, 3, 2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, ceil_mode=True), *fires
    )
    head = nn.Sequential(nn.Dropout(), nn.Conv2d(16, 3, 1), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1))
    return bare(vision.SqueezeNet, features=features, classifier=head)


def _mobilenet_v3() -> nn.Module:
    config = partial(vision.mobilenetv3.InvertedResidualConfig, dilation=1, width_mult=1.0)
    blocks = [config(16, 3, 16, 16, True, "RE", 2), config(16, 3, 24, 16, True, "HS", 1)]
    return vision.MobileNetV3(blocks, 32, num_classes=3)


def _efficientnet() -> nn.Module:
    config = vision.efficientnet.MBConvConfig
    return vision.EfficientNet(
        [config(1, 3, 1, 8, 8, 1), config(4, 3, 2, 8, 16, 1)], 0.1, num_classes=3, last_channel=32
    )


def _mnasnet() -> nn.Module:
    net = vision.MNASNet(0.1, 3)
    net.layers = nn.Sequential(*net.layers[:9], nn.LazyConv2d(1280, 1), nn.ReLU(inplace=True))
    net.layers(torch.rand(1, 3, 32, 32))
    return net


def _swin() -> nn.Module:
    return vision.SwinTransformer([2, 2], 12, [1, 1], [2, 2], [4, 4], num_classes=3)


def _vit() -> nn.Module:
    return vision.VisionTransformer(32, 8, 2, 2, 16, 32, num_classes=3)


def _convnext() -> nn.Module:
    blocks = [vision.convnext.CNBlockConfig(8, 16, 1), vision.convnext.CNBlockConfig(16, None, 1)]
    return vision.ConvNeXt(blocks, num_classes=3)


def _regnet() -> nn.Module:
    parameters = vision.regnet.BlockParams([1, 1], [8, 16], [4, 8], [1, 1], [2, 2], 0.25)
    return vision.RegNet(parameters, 3, 8)


_MOBILE = [[1, 8, 1, 1], [4, 16, 2, 2]]
for _name, _build, _works in (
    ("resnet18", lambda: _resnet(vision.resnet.BasicBlock, 2, 2, 2, 2), PIECEWISE_LINEAR),
    ("resnet50", lambda: _resnet(vision.resnet.Bottleneck, 1, 1, 1, 1), PIECEWISE_LINEAR),
    ("vgg11_bn", _vgg, PIECEWISE_LINEAR),
    ("alexnet", _alexnet, PIECEWISE_LINEAR),
    ("densenet121", lambda: vision.DenseNet(8, (2, 2, 2), 8, num_classes=3), PIECEWISE_LINEAR),
    ("googlenet", _googlenet, PIECEWISE_LINEAR),
    ("squeezenet1_1", _squeezenet, PIECEWISE_LINEAR),
    (
        "shufflenet_v2",
        lambda: vision.ShuffleNetV2([1, 1, 1], [8, 16, 16, 16, 32], 3),
        {*DIFFERENTIABLE, RECTIFIERS},
    ),
    ("mnasnet", _mnasnet, PIECEWISE_LINEAR),
    ("mobilenet_v2", lambda: vision.MobileNetV2(3, 0.25, _MOBILE), DIFFERENTIABLE),
    ("mobilenet_v3_small", _mobilenet_v3, DIFFERENTIABLE),
    ("efficientnet_b0", _efficientnet, DIFFERENTIABLE),
    ("regnet_y", _regnet, DIFFERENTIABLE),
    ("convnext", _convnext, DIFFERENTIABLE),
    ("vit", _vit, DIFFERENTIABLE),
    ("swin", _swin, DIFFERENTIABLE),
):
    _options = {"target": (1, 1)} if _name.startswith("squeeze") else {}
    add(
        f"torchvision {_name}",
        "torchvision",
        _build,
        *_works,
        **PHOTO,
        **no_rectifiers_unless(_works),
        **_options,
    )

# --- MONAI ------------------------------------------------------------------------------------------------------------

SLICE = {"spatial_dims": 2, "in_channels": 1}
VOLUME = {"spatial_dims": 3, "in_channels": 1}
CUBE = (1, 16, 16, 16)


def _monai_resnet(shortcut: str, dims: int) -> nn.Module:
    return monai.ResNet(
        "basic", [1, 1, 1, 1], [4, 8, 8, 8], dims, 1, shortcut_type=shortcut, num_classes=3, conv1_t_size=3
    )


def _densenet(axes: Mapping[str, int]) -> nn.Module:
    return monai.DenseNet(**axes, out_channels=3, init_features=8, growth_rate=4, block_config=(2, 2))


def _monai_vit(axes: Mapping[str, int], size: tuple[int, ...]) -> nn.Module:
    options = {"hidden_size": 24, "mlp_dim": 32, "num_layers": 2, "num_heads": 2, "num_classes": 3}
    return monai.ViT(**axes, img_size=size, patch_size=8, classification=True, post_activation="", **options)


def _seresnet() -> nn.Module:
    return thin(monai.SENet, "last_linear")(2, 1, monai.senet.SEResNetBottleneck, (1, 1, 1, 1), 1, 2, None, 1, 64,
                                            input_3x3=False, num_classes=3)  # fmt: skip


def _monai_efficientnet() -> nn.Module:
    blocks = ["r1_k3_s11_e1_i32_o16_se0.25", "r1_k3_s22_e6_i16_o24_se0.25"]
    return monai.EfficientNet(blocks, 2, 1, 3, width_coefficient=0.25, depth_coefficient=1.0, image_size=32)


for _case in (
    ("DenseNet 2D", lambda: _densenet(SLICE), PIECEWISE_LINEAR, (1, 32, 32)),
    ("DenseNet 3D", lambda: _densenet(VOLUME), PIECEWISE_LINEAR, CUBE),
    ("ResNet 3D, shortcut B", lambda: _monai_resnet("B", 3), PIECEWISE_LINEAR, CUBE),
    ("ResNet 3D, shortcut A", lambda: _monai_resnet("A", 3), {OCCLUSION}, CUBE),
    ("ResNet 2D, shortcut B", lambda: _monai_resnet("B", 2), PIECEWISE_LINEAR, (1, 32, 32)),
    ("SEResNet50", _seresnet, DIFFERENTIABLE, (1, 32, 32)),
    ("EfficientNet", _monai_efficientnet, DIFFERENTIABLE, (1, 32, 32)),
    ("UNet 3D", lambda: Scores(monai.UNet(3, 1, 3, (4, 8, 8), (2, 2))), DIFFERENTIABLE, CUBE),
    ("BasicUNet 2D", lambda: Scores(monai.BasicUNet(2, 1, 3, (4, 4, 8, 8, 8, 4))), DIFFERENTIABLE, (1, 32, 32)),
    ("SegResNet 2D", lambda: Scores(monai.SegResNet(2, 8, 1, 3, blocks_down=(1, 1), blocks_up=(1,))),
     DIFFERENTIABLE, (1, 32, 32)),
    ("AutoEncoder 2D", lambda: Scores(monai.AutoEncoder(2, 1, 3, (4, 8), (2, 2))), DIFFERENTIABLE, (1, 16, 16)),
    ("Regressor 3D", lambda: monai.Regressor((1, 16, 16, 16), (3,), (4, 8), (2, 2)), DIFFERENTIABLE, CUBE),
):  # fmt: skip
    _options = dict(no_rectifiers_unless(_case[2]))
    if _case[0].endswith("shortcut A"):
        _options["note"] = (
            "of what its backward pass computes, which its forward pass cuts off from the shortcuts by .data"
        )
    add(f"MONAI {_case[0]}", "MONAI", _case[1], *_case[2], shape=_case[3], **_options)

_FIRST = {"pick": lambda outputs: outputs[0], "call": {"output": 0}, **NOT_ALL_RELU}
add("MONAI ViT 2D, output=0", "MONAI", lambda: _monai_vit(SLICE, (16, 16)), **_FIRST)
add("MONAI ViT 3D, output=0", "MONAI", lambda: _monai_vit(VOLUME, (16, 16, 16)), shape=CUBE, **_FIRST)

# --- timm -------------------------------------------------------------------------------------------------------------

_TINY = {"embed_dim": 16, "depth": 2}
for _name, _options, _works in (
    ("resnet10t", {"channels": (8, 8, 16, 16), "stem_width": 8}, PIECEWISE_LINEAR),
    ("resnet26d", {"layers": (1, 1, 1, 1), "channels": (4, 8, 8, 8), "stem_width": 8}, PIECEWISE_LINEAR),
    ("vit_tiny_patch16_224", {"img_size": 32, "patch_size": 8, "num_heads": 2, **_TINY}, DIFFERENTIABLE),
    ("convnext_atto", {"depths": (1, 1, 1, 1), "dims": (8, 8, 16, 16)}, DIFFERENTIABLE),
    ("swin_tiny_patch4_window7_224", {"img_size": 32, "window_size": 4, "embed_dim": 8, "depths": (1, 1),
                                      "num_heads": (1, 2)}, DIFFERENTIABLE),
    ("efficientvit_b0", {"widths": (4, 8), "depths": (1, 1)}, DIFFERENTIABLE),
):  # fmt: skip
    _build = lambda name=_name, options=_options: timm.create_model(name, num_classes=3, **options)  # noqa: E731
    add(f"timm {_name}", "timm", _build, *_works, **PHOTO, **no_rectifiers_unless(_works))

add(
    "timm mixer",
    "timm",
    lambda: MlpMixer(3, 32, patch_size=8, num_blocks=2, embed_dim=16),
    **PHOTO,
    **NOT_ALL_RELU,
)
