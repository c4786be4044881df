"""The networks of the matrix: what people bring, each as small as it can be and with weights that mean something."""

import copy
import warnings
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace
from typing import Any

import einops.layers.torch
import monai.networks.nets as monai
import timm
import torch
import torch.nn.functional as F
import torchvision.models as vision
from timm.models.mlp_mixer import MlpMixer
from torch import Tensor, nn
from torchvision.models.googlenet import BasicConv2d, Inception
from torchvision.models.squeezenet import Fire

GRADIENTS = "gradients"
OCCLUSION = "occlusion"
RECTIFIERS = "rectifiers"
RULES = "rules"
DIFFERENTIABLE = frozenset({GRADIENTS, OCCLUSION})
PIECEWISE_LINEAR = frozenset({GRADIENTS, OCCLUSION, RECTIFIERS, RULES})


@dataclass(frozen=True)
class Case:
    """A network and what is expected of it.

    Attributes
    ----------
    name, family
        Its row, and the section of the table.
    build
        Makes the user's model.
    works
        Kinds of methods that must be right; a refusal of these is a fault.
    forbidden
        Kinds of methods that must refuse, as they are not defined or would be wrong.
    shape
        Of an image (channel, *spatial).
    target
        Class of each of the two images, or None.
    plain
        The same function as an eager network without wrapper, from the user's model.
    pick
        The scores among what the network returns.
    call
        Further arguments of `attribute`.
    bound
        Largest norm of a map's error as a fraction of its own if the numbers are coarse; None where they are not.
    note
        What all but occlusion is true of, where that is not the network itself.
    settled
        Whether weights are drawn anew, see `settle`.
    images
        Turns the images in [0, 1] into the network's.
    """

    name: str
    family: str
    build: Callable[[], Any]
    works: frozenset[str] = DIFFERENTIABLE
    forbidden: frozenset[str] = frozenset()
    shape: tuple[int, ...] = (1, 16, 16)
    target: Any = (2, 0)
    plain: Callable[[Any], nn.Module] = lambda model: model
    pick: Callable[[Any], Tensor] = lambda outputs: outputs
    call: Mapping[str, Any] = field(default_factory=dict)
    bound: float | None = None
    note: str = ""
    settled: bool = True
    images: Callable[[Tensor], Tensor] = lambda images: images

    def make(self) -> tuple[Any, nn.Module, Tensor]:
        """The user's model, its plain twin in float64, and two images."""
        generator = torch.Generator().manual_seed(7)
        smooth = torch.rand(16, *self.shape, generator=generator)
        pool = F.avg_pool2d if len(self.shape) == 3 else F.avg_pool3d
        images = self.images(0.5 * smooth + 0.5 * pool(smooth, 3, stride=1, padding=1))
        with torch.random.fork_rng(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of old ways to write a network, which are their authors' affair
            torch.manual_seed(0)
            model = self.build()
            if hasattr(model, "eval"):
                model.eval()
            if self.settled:
                settle(model, images)
            plain = self.plain(model).eval()
        return model, copy.deepcopy(plain).double().eval().requires_grad_(False), images[:2]

    @property
    def targets(self) -> Tensor | None:
        return None if self.target is None else torch.tensor(self.target)


def settle(model: nn.Module, images: Tensor) -> None:
    """Draw weights that keep activations near 1, and statistics of batch normalisation that change something."""
    with torch.no_grad():
        for name, value in model.named_parameters():
            if name.endswith("bias"):
                value.normal_(0, 0.1)
            elif value.ndim == 1:
                value.uniform_(0.5, 1.5)
            elif name.endswith("weight"):
                nn.init.kaiming_normal_(value)
            else:
                value.normal_(0, 0.5)
        norms = [
            m
            for m in model.modules()
            if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats
        ]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None
            norm.train()
        if norms:
            model(images.to(next(model.parameters())).clone())
        for norm in norms:
            norm.momentum = 0.1
            norm.eval()
            norm.running_mean += 0.1 * torch.randn_like(norm.running_mean)
            norm.running_var *= 0.5 + torch.rand_like(norm.running_var)


ZOO: dict[str, Case] = {}


def add(name: str, family: str, build: Callable[[], Any], *works: str, **options: Any) -> None:
    """Put a network into the zoo; `works` are the kinds that must be right, all that is differentiable by default."""
    assert name not in ZOO, name
    ZOO[name] = Case(name, family, build, works=frozenset(works) or DIFFERENTIABLE, **options)


def no_rectifiers_unless(works: Collection[str]) -> dict[str, frozenset[str]]:
    """Deconvolution and its like must refuse what has other activations than ReLU."""
    return {} if RECTIFIERS in works else NOT_ALL_RELU


NOT_ALL_RELU = {"forbidden": frozenset({RECTIFIERS})}


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
    ("SegResNet 3D", lambda: Scores(monai.SegResNet(3, 8, 1, 3, blocks_down=(1, 1), blocks_up=(1,))),
     DIFFERENTIABLE, CUBE),
    ("AutoEncoder 2D", lambda: Scores(monai.AutoEncoder(2, 1, 3, (4, 8), (2, 2))), DIFFERENTIABLE, (1, 16, 16)),
    ("Regressor 3D", lambda: monai.Regressor((1, 16, 16, 16), (3,), (4, 8), (2, 2)), DIFFERENTIABLE, CUBE),
):  # fmt: skip
    _options = no_rectifiers_unless(_case[2])
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

# --- written by hand --------------------------------------------------------------------------------------------------


class Small(nn.Module):
    """Layers for a forward pass that is written for each network."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 6, 3, padding=1), nn.Conv2d(6, 8, 3, padding=1)
        self.bn1, self.bn2 = nn.BatchNorm2d(6), nn.BatchNorm2d(8)
        self.same, self.relu, self.relu_ = nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.ReLU(inplace=True)
        self.pool, self.tokens = nn.MaxPool2d(2), nn.Linear(8, 8)
        self.dense, self.head, self.one = nn.Linear(8 * 8 * 8, 3), nn.Linear(8, 3), nn.Linear(8, 1)

    def stem(self, x: Tensor) -> Tensor:
        """Convolutions with one ReLU and one pool, (batch, 8, 8, 8), negative values among them."""
        return self.bn2(self.conv2(self.pool(self.relu(self.bn1(self.conv1(x))))))

    def end(self, x: Tensor) -> Tensor:
        """Scores of features."""
        return self.head(x.flatten(2).mean(2))


def written(
    name: str, forward: Callable[[Any, Tensor], Any], *works: str, family: str = "", **options: Any
) -> None:
    """A network of the layers of `Small` with a forward pass of its own, and more layers by `layers`."""
    layers = options.pop("layers", dict)

    def init(self: Any) -> None:
        Small.__init__(self)
        for key, value in layers().items():
            setattr(self, key, value)

    kind = type("Net", (Small,), {"forward": forward, "__init__": init})
    add(name, family or "written by hand", kind, *(works or PIECEWISE_LINEAR), **options)


written(
    "x.view(x.size(0), -1) after convolutions",
    lambda self, x: self.dense(self.relu(self.stem(x)).view(x.size(0), -1)),
)
written("functional ReLUs", lambda self, x: self.end(F.relu(self.same(torch.relu(self.stem(x))).relu())))
written(
    "one ReLU module used again", lambda self, x: self.end(self.relu_(self.same(self.relu_(self.stem(x)))))
)


def _in_place_on_view(self, x):
    x = self.stem(x).flatten(2)
    self.relu_(x)
    return self.head(x.mean(2))


written("in-place ReLU on a view", _in_place_on_view, *DIFFERENTIABLE, RECTIFIERS)


def _slice_relu(self, x):
    x = self.stem(x)
    x[:, :4].relu_()
    return self.end(self.relu(self.same(x)))


written("in-place ReLU on a slice", _slice_relu, *DIFFERENTIABLE)
written(
    "tokens (B, N, C) and in-place ReLU",
    lambda self, x: self.head(self.relu_(self.tokens(self.stem(x).flatten(2).transpose(1, 2))).mean(1)),
)


def _masked_fill(self, x):
    x = self.stem(x)
    return self.end(x.masked_fill(x < 0, 0))


def _where(self, x):
    x = self.stem(x)
    return self.end(torch.where(x > 0, x, 0.0))


def _product(self, x):
    x = self.stem(x)
    return self.end(x * (x > 0))


def _index(self, x):
    x = self.stem(x).clone()
    x[x < 0] = 0
    return self.end(x)


def _half_sum(self, x):
    x = self.stem(x)
    return self.end((x + x.abs()) / 2)


def _stack_max(self, x):
    x = self.stem(x)
    return self.end(torch.stack([x, torch.zeros_like(x)]).amax(0))


written("ReLU spelled h * (h > 0)", _product, *DIFFERENTIABLE, **NOT_ALL_RELU)
written("ReLU spelled where", _where, *DIFFERENTIABLE, **NOT_ALL_RELU)
written(
    "ReLU spelled clamp(min=0)",
    lambda self, x: self.end(self.stem(x).clamp(min=0)),
    *DIFFERENTIABLE,
    **NOT_ALL_RELU,
)
written("ReLU spelled masked_fill", _masked_fill, *DIFFERENTIABLE, **NOT_ALL_RELU)
written("ReLU spelled x[x < 0] = 0", _index, *DIFFERENTIABLE, **NOT_ALL_RELU)
written("ReLU spelled (h + |h|) / 2", _half_sum, *DIFFERENTIABLE, **NOT_ALL_RELU)
written(
    "ReLU spelled maximum",
    lambda self, x: self.end(torch.fmax(self.stem(x), torch.zeros(()))),
    *DIFFERENTIABLE,
    **NOT_ALL_RELU,
)
written("ReLU spelled amax over a stack", _stack_max, *DIFFERENTIABLE, **NOT_ALL_RELU)
for _activation in (nn.LeakyReLU, nn.PReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Softplus, nn.Tanh, nn.ReLU6, nn.Hardswish,
                    nn.Softshrink, nn.Mish):  # fmt: skip
    written(
        f"nn.{_activation.__name__}",
        lambda self, x: self.end(self.act(self.stem(x))),
        *DIFFERENTIABLE,
        layers=lambda kind=_activation: {"act": kind()},
        **NOT_ALL_RELU,
    )
written(
    "x * sigmoid(x)",
    lambda self, x: self.end((y := self.stem(x)) * y.sigmoid()),
    *DIFFERENTIABLE,
    **NOT_ALL_RELU,
)
written(
    "gated linear unit",
    lambda self, x: self.head(torch.cat([y := F.glu(self.stem(x), 1), y], 1).mean((2, 3))),
    *DIFFERENTIABLE,
    **NOT_ALL_RELU,
)


def _residual(self, x):
    x = self.relu(self.stem(x))
    y = self.same(x)
    y += x
    return self.end(self.relu_(y))


written("residual sum by +=", _residual)
written(
    "torch.cat(tensors=...)",
    lambda self, x: self.wide(
        torch.cat(tensors=[y := self.relu(self.stem(x)), self.relu(self.same(y))], dim=1).mean((2, 3))
    ),
    *DIFFERENTIABLE,
    RECTIFIERS,
    layers=lambda: {"wide": nn.Linear(16, 3)},
)
written(
    "einops layers",
    lambda self, x: self.head(self.mean(self.relu(self.fold(self.stem(x))))),
    *DIFFERENTIABLE,
    RECTIFIERS,
    layers=lambda: {
        "fold": einops.layers.torch.Rearrange("b c h w -> b c (h w)"),
        "mean": einops.layers.torch.Reduce("b c n -> b c", "mean"),
    },
)
written(
    "einsum",
    lambda self, x: self.head(torch.einsum("bchw,cd->bd", self.relu(self.stem(x)), self.tokens.weight) / 64),
    *DIFFERENTIABLE,
    RECTIFIERS,
)


def _branch(self, x):
    x = self.relu(self.stem(x))
    return self.end(self.relu(self.same(x)) if float(x.detach().mean()) < 1e9 else x)


written("a decision on values", _branch, *DIFFERENTIABLE, RECTIFIERS)


def _shape_pool(self, x):
    x = F.relu(self.stem(x))
    return self.head(F.max_pool2d(x, x.shape[-1] // 2).flatten(2).mean(2))


written("max_pool2d sized by the input", _shape_pool, *DIFFERENTIABLE, RECTIFIERS)


class Deep25(nn.Module):
    """A thin stack, joined to one slice."""

    def __init__(self) -> None:
        super().__init__()
        self.join, self.relu = nn.Conv3d(1, 6, (3, 3, 3), padding=(0, 1, 1)), nn.ReLU()
        self.conv, self.head = nn.Conv2d(6, 6, 3), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.join(x)).squeeze(2)
        return self.head(self.relu(self.conv(x)).mean((2, 3)))


add("2.5D: Conv3d, then Conv2d", "written by hand", Deep25, *DIFFERENTIABLE, RECTIFIERS, shape=(1, 3, 16, 16))


class Buffered(Small):
    """Normalises with a buffer of another rank than the images."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("spread", torch.tensor([0.3]).view(1, 1, 1, 1))
        self.register_buffer("volume", torch.rand(1, 8, 1, 1, 1) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.stem((x - 0.4) / self.spread))
        return self.end(x * self.volume[..., 0])


add("buffers (1, C, 1, 1, 1)", "written by hand", Buffered, *DIFFERENTIABLE, RECTIFIERS)
for _norm in (lambda: nn.GroupNorm(2, 8), lambda: nn.InstanceNorm2d(8, affine=True), lambda: nn.LayerNorm([8, 8, 8]),
              lambda: nn.RMSNorm([8, 8, 8])):  # fmt: skip
    written(
        f"nn.{type(_norm()).__name__}",
        lambda self, x: self.end(self.relu(self.norm(self.stem(x)))),
        *DIFFERENTIABLE,
        layers=lambda norm=_norm: {"norm": norm()},
    )
_reparametrised = lambda self, x: self.end(self.relu(self.same(self.relu(self.stem(x)))))  # noqa: E731


class Old(Small):
    """The first weight_norm and spectral_norm, which work by hooks."""

    def __init__(self, wrap: Callable[[nn.Module], nn.Module]) -> None:
        super().__init__()
        self.same = wrap(self.same)

    forward = _reparametrised


_param = nn.utils.parametrizations


def _as_it_is(model: nn.Module) -> nn.Module:
    """The same network with an ordinary weight."""
    net, layer = Old(lambda layer: layer), model.same
    net.load_state_dict(model.state_dict(), strict=False)
    if hasattr(layer, "weight_g"):
        norms = layer.weight_v.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        weight = layer.weight_v * layer.weight_g / norms
    elif hasattr(layer, "weight_orig"):
        weight = layer.weight_orig / (layer.weight_u @ layer.weight_orig.flatten(1) @ layer.weight_v)
    else:
        weight = layer.weight
    net.same.weight.data = weight.detach().clone()
    return net


for _name, _wrap in (
    ("parametrizations.weight_norm", _param.weight_norm),
    ("parametrizations.spectral_norm", _param.spectral_norm),
    ("utils.weight_norm", nn.utils.weight_norm),
    ("utils.spectral_norm", nn.utils.spectral_norm),
):
    add(
        _name,
        "written by hand",
        lambda wrap=_wrap: Old(wrap),
        *DIFFERENTIABLE,
        RECTIFIERS,
        plain=_as_it_is,
        settled=False,
    )


class Hooked(Small):
    """A forward hook that changes activations."""

    def __init__(self, before: bool) -> None:
        super().__init__()
        if before:
            self.same.register_forward_pre_hook(lambda module, args: (args[0] * args[0].sigmoid(),))
        else:
            self.same.register_forward_hook(lambda module, args, output: output.tanh())

    forward = _reparametrised


add("a forward hook that changes activations", "written by hand", lambda: Hooked(False), **NOT_ALL_RELU)
add("a forward pre-hook that changes activations", "written by hand", lambda: Hooked(True), **NOT_ALL_RELU)
written(
    "x.clamp_(0, 1) on the input",
    lambda self, x: self.end(self.relu(self.stem(x.clamp_(0, 1)))),
    *DIFFERENTIABLE,
    images=lambda x: 2.4 * x - 0.7,
    call={"options": {"deep_taylor": {"low": -1, "high": 2}, "lrp": {"low": -1, "high": 2}}},
)
written("x /= 2 on the input", lambda self, x: self.end(self.relu(self.stem(x.div_(2)))))
written(
    "x / x.amax of each image",
    lambda self, x: self.end(self.relu(self.stem(x / x.amax((1, 2, 3), keepdim=True)))),
    *DIFFERENTIABLE,
)
written(
    "ReLU network on Hounsfield units",
    lambda self, x: self.end(self.relu(self.stem((x + 1000) / 2000))),
    GRADIENTS,
    OCCLUSION,
    RECTIFIERS,
    images=lambda x: 2000 * x - 1000,
    call={"options": {"deep_taylor": {"low": -1000, "high": 1000}, "lrp": {"low": -1000, "high": 1000}}},
)
written(
    "dropout in evaluation",
    lambda self, x: self.end(self.drop(self.relu(self.stem(x)))),
    layers=lambda: {"drop": nn.Dropout(0.5)},
)
written("softmax at the end", lambda self, x: self.end(self.relu(self.stem(x))).softmax(1), *DIFFERENTIABLE)
written(
    "log-softmax at the end",
    lambda self, x: F.log_softmax(self.end(self.relu(self.stem(x))), 1),
    *DIFFERENTIABLE,
)
written("sigmoid at the end", lambda self, x: self.end(self.relu(self.stem(x))).sigmoid(), *DIFFERENTIABLE)
written("regression (batch, 1)", lambda self, x: self.one(self.relu(self.stem(x)).mean((2, 3))), target=None)
written(
    "regression (batch,)", lambda self, x: self.one(self.relu(self.stem(x)).mean((2, 3)))[:, 0], target=None
)
written(
    "regression, squeezed",
    lambda self, x: self.one(self.relu(self.stem(x)).mean((2, 3))).squeeze(),
    *DIFFERENTIABLE,
    target=None,
)
written(
    "strided, dilated, transposed, grouped",
    lambda self, x: self.end(self.relu(self.up(self.relu(self.down(self.stem(x)))))),
    layers=lambda: {
        "down": nn.Conv2d(8, 8, 3, stride=2, dilation=2, padding=2, groups=4),
        "up": nn.ConvTranspose2d(8, 8, 2, stride=2),
    },
)


def _checkpointed(self, x):
    block = lambda y: self.relu(self.same(y))  # noqa: E731
    return self.end(torch.utils.checkpoint.checkpoint(block, self.relu(self.stem(x)), use_reentrant=False))


class Ordinary(Small):
    """A network without surprises."""

    def forward(self, x: Tensor) -> Tensor:
        return self.end(self.relu(self.same(self.relu(self.stem(x)))))


def _ordinary_of(model: nn.Module) -> nn.Module:
    net = Ordinary()
    net.load_state_dict(model.state_dict())
    return net


written("checkpointed", _checkpointed, *DIFFERENTIABLE, plain=_ordinary_of)


def _tokens_after_norm(self, x):
    x = self.stem(x).flatten(2).transpose(1, 2)
    return self.head(self.tokens(x).tanh().mean(1) if float(x.detach().mean()) < 1e9 else x)


written(
    "tokens behind batch normalisation, one image",
    _tokens_after_norm,
    *DIFFERENTIABLE,
    target=(2,),
    images=lambda x: x[:1],
    **NOT_ALL_RELU,
)


class Attention(Small):
    """nn.MultiheadAttention over the pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.attention, self.norm = nn.MultiheadAttention(8, 2, batch_first=True), nn.LayerNorm(8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.stem(x).flatten(2).transpose(1, 2))
        return self.head((x + self.attention(x, x, x, need_weights=False)[0]).mean(1))


add("nn.MultiheadAttention", "written by hand", Attention)


class Recurrent(Small):
    """An LSTM over the rows of the features."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(64, 8, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(self.stem(x).transpose(1, 2).flatten(2))[0].mean(1))


add("nn.LSTM", "written by hand", Recurrent)

# --- what must be refused ---------------------------------------------------------------------------------------------

_NOTHING = {"family": "refused on purpose", "forbidden": PIECEWISE_LINEAR}
written(
    "dropout that is always on",
    lambda self, x: self.end(F.dropout(self.relu(self.stem(x)), 0.5, training=True)),
    "nothing",
    **_NOTHING,
)
written(
    "x / x.max() of the batch",
    lambda self, x: self.end(self.relu(self.stem(x / x.max()))),
    "nothing",
    **_NOTHING,
)
written(
    "x / x.max() of the batch, Hounsfield units",
    lambda self, x: self.end(self.relu(self.stem(x / x.max()))),
    "nothing",
    images=lambda x: 2000 * x - 1000,
    **_NOTHING,
)
written(
    "batch statistics",
    lambda self, x: self.end(self.relu(self.norm(self.stem(x)))),
    "nothing",
    layers=lambda: {"norm": nn.BatchNorm2d(8, track_running_stats=False)},
    **_NOTHING,
)
written(
    "three scores squeezed, one image",
    lambda self, x: self.end(self.relu(self.stem(x))).squeeze(),
    "nothing",
    target=None,
    images=lambda x: x[:1],
    **_NOTHING,
)

# --- what a network returns -------------------------------------------------------------------------------------------


class Output(dict):
    """Like the ModelOutput of transformers: a dict with attributes."""

    __getattr__ = dict.__getitem__


def _returns(
    name: str, wrap: Callable[[Tensor], Any], pick: Callable[[Any], Tensor], output: Any = None
) -> None:
    call = {} if output is None else {"output": output}
    written(
        name, lambda self, x: wrap(self.end(self.relu(self.stem(x)))), family="outputs", pick=pick, call=call
    )


_returns("a tuple of one", lambda y: (y,), lambda out: out[0])
_returns("a tuple, output=1", lambda y: (y * 2, y), lambda out: out[1], 1)
_returns("a list, output=0", lambda y: [y, y * 2], lambda out: out[0], 0)
_returns("a dict of one", lambda y: {"logits": y}, lambda out: out["logits"])
_returns(
    "a dict, output='logits'", lambda y: {"loss": y.sum(), "logits": y}, lambda out: out["logits"], "logits"
)
_returns(
    "a ModelOutput, output='logits'",
    lambda y: Output(logits=y, hidden=y * 2),
    lambda out: out.logits,
    "logits",
)
_returns(
    "an object, output=function",
    lambda y: SimpleNamespace(logits=y),
    lambda out: out.logits,
    lambda out: out.logits,
)
written(
    "a dense output, output=mean",
    lambda self, x: self.relu(self.same(self.relu(self.stem(x)))),
    family="outputs",
    pick=lambda out: out.mean((2, 3)),
    call={"output": lambda out: out.mean((2, 3))},
)

# --- wrapped ----------------------------------------------------------------------------------------------------------


def _ordinary() -> nn.Module:
    net = Ordinary().eval()
    settle(net, torch.rand(4, 1, 16, 16))
    return net


class Wrapped:
    """A user's wrapped model beside the plain network in it."""

    def __init__(self, wrap: Callable[[nn.Module], Any]) -> None:
        self.wrap = wrap

    def __call__(self) -> Any:
        net = _ordinary()
        model = self.wrap(net)
        _PLAIN[id(model)] = net, model
        return model


_PLAIN: dict[int, tuple[nn.Module, Any]] = {}


def wrapped(
    name: str, wrap: Callable[[nn.Module], Any], *works: str, family: str = "wrapped", **options: Any
) -> None:
    """An ordinary network in a wrapper."""
    add(
        name,
        family,
        Wrapped(wrap),
        *works,
        plain=lambda model: _PLAIN[id(model)][0],
        settled=False,
        **options,
    )


def _frozen(net: nn.Module) -> nn.Module:
    return nn.Sequential(copy.deepcopy(net).requires_grad_(False), nn.Identity())


wrapped("nn.DataParallel", nn.DataParallel, *PIECEWISE_LINEAR)
wrapped("torch.compile", lambda net: torch.compile(net, backend="eager"), "any")
wrapped("torch.jit.trace", lambda net: torch.jit.trace(net, torch.rand(1, 1, 16, 16)), "any")
wrapped("torch.jit.script", torch.jit.script, "any")
wrapped("nn.Sequential of a frozen network", _frozen, *PIECEWISE_LINEAR)
wrapped("a lambda", lambda net: lambda x: net(x), "any")
wrapped("a function without gradient", lambda net: torch.no_grad()(net.forward), "any")

# --- precisions -------------------------------------------------------------------------------------------------------


class Mixed(Ordinary):
    """Autocast in the forward pass."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, torch.bfloat16):
            y = Ordinary.forward(self, x)
        return y.to(x.dtype)


def _mixed(net: nn.Module) -> nn.Module:
    mixed = Mixed().eval()
    mixed.load_state_dict(net.state_dict())
    return mixed


_COARSE = {"family": "precisions", "bound": 0.2}


def _float_of(model: nn.Module) -> nn.Module:
    return copy.deepcopy(model).float()


def _half(kind: torch.dtype) -> Callable[[], nn.Module]:
    return lambda: _ordinary().to(kind)


wrapped("float64", lambda net: copy.deepcopy(net).double(), *PIECEWISE_LINEAR, family="precisions")
add("float16", "precisions", _half(torch.float16), "any", plain=_float_of, settled=False, bound=0.2)
add("bfloat16", "precisions", _half(torch.bfloat16), "any", plain=_float_of, settled=False, bound=0.2)
wrapped("autocast in the forward pass", _mixed, "any", **_COARSE)
wrapped('precision="bf16"', copy.deepcopy, *PIECEWISE_LINEAR, call={"precision": "bf16"}, **_COARSE)
written(
    'precision="bf16", a PReLU used twice',
    lambda self, x: self.end(self.act(self.same(self.act(self.stem(x))))),
    *DIFFERENTIABLE,
    layers=lambda: {"act": nn.PReLU()},
    call={"precision": "bf16"},
    **_COARSE,
)
