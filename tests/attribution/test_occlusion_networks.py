"""Occlusion of networks of all kinds, against brute force on the user's own model in float64."""

import itertools
import random

import pytest
import torch
import torch.nn.functional as F
from einops.layers.torch import Rearrange, Reduce
from monai.networks.nets import BasicUNet
from torch import nn
from torchvision.models import SwinTransformer, VisionTransformer

from xaitools.attribution.occlusion import occlusion
from xaitools.errors import UnsupportedModelError


def brute_force(net, x, target, patch, stride):
    """All occluded images in one pass; every voxel gets the mean over the windows that cover it."""
    axes = list(zip(x.shape[2:], patch, stride, strict=True))
    starts = itertools.product(*(range(0, -(-(n - p) // s) * s + 1, s) for n, p, s in axes))
    boxes = [tuple(slice(a, a + p) for a, p in zip(start, patch, strict=True)) for start in starts]
    hidden = x.repeat(len(boxes), *(1 for _ in x.shape[1:]))
    for image, box in zip(hidden, boxes, strict=True):
        image[(slice(None), *box)] = 0
    falls = scores(net, x, target) - scores(net, hidden, target)
    total, count = torch.zeros_like(x), torch.zeros_like(x)
    for box, fall in zip(boxes, falls, strict=True):
        total[(..., *box)] += fall
        count[(..., *box)] += 1
    return total / count


def region_falls(net, x, target, labels):
    expected = torch.zeros_like(x)
    for label in labels.unique().tolist():
        if label:
            fall = scores(net, x, target) - scores(net, torch.where(labels == label, 0.0, x), target)
            expected[..., labels == label] = fall
    return expected


def scores(net, images, target):
    with torch.no_grad():
        outputs = net(images.clone())
    return outputs.reshape(len(images)) if target is None else outputs[:, target]


# --- a grammar of networks


def halved(module, args, output):
    return output / 2 + output.abs().sqrt() / 4


def clamped(module, args):
    return (args[0].clamp(-0.4, 0.6),)


class Loud(nn.Conv2d):
    def forward(self, x):
        return 2 * super().forward(x) ** 2


class Loud3d(nn.Conv3d):
    def forward(self, x):
        return 2 * super().forward(x) ** 2


def zero_below(x):
    x[x < 0] = 0
    return x


def half_in_place(x):
    x[:, :2].relu_()
    return x


def summed_in_place(x, y):
    x += y
    return x


class Grown(nn.Module):
    """Random steps, functions of the network and an activation."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.rng = random.Random(seed)
        self.axes = self.rng.choice((2, 2, 3))
        low, high = ((7, 12), (5, 6))[self.axes - 2]
        self.shape = tuple(self.rng.randint(low, high) for _ in range(self.axes))
        self.layers = nn.ModuleList()
        self.steps = []
        x = torch.rand(2, 2, *self.shape)
        x = self.grow(self.convolution, x)
        kinds = [self.convolution, self.convolution, self.pool, self.norm, self.activation, self.activation]
        kinds += [self.join, self.shuffle]
        for _ in range(self.rng.randint(3, 7)):
            x = self.grow(self.rng.choice(kinds), x)
        self.grow(self.head, x)
        del self.rng

    def grow(self, kind, x):
        """One more step, unless the activation is too small for it."""
        before = len(self.layers)
        step = kind(x)
        try:
            with torch.no_grad():
                y = step(self, x.clone())
        except RuntimeError:
            y = x[..., :0]
        if kind != self.head and min(y.shape[2:], default=0) < 2:
            del self.layers[before:]
            return x
        self.steps.append(step)
        return y

    def layer(self, module):
        self.layers.append(module)
        place = len(self.layers) - 1
        return lambda net, x: net.layers[place](x)

    def of(self, name):
        return getattr(nn, f"{name}{self.axes}d")

    def convolution(self, x, out=None, same=False):
        rng, channels = self.rng, x.shape[1]
        k = rng.randint(1, 3)
        options = {"kernel_size": k, "stride": rng.choice((1, 1, 2)), "dilation": rng.choice((1, 1, 2))}
        options |= {"padding": rng.randint(0, 1), "bias": rng.random() < 0.7}
        options["groups"] = 2 if channels % 2 == 0 and out is None and rng.random() < 0.3 else 1
        if rng.random() < 0.15:
            options["padding_mode"] = rng.choice(("reflect", "circular", "replicate"))
        if same:
            options |= {"kernel_size": 3, "stride": 1, "dilation": 1, "padding": "same"}
        kind = self.of("Conv")
        special = (
            ""
            if same
            else rng.choice([""] * 40 + ["hook", "pre-hook", "old", "spectral", "loud", "function"])
        )
        if special == "loud":
            kind = (Loud, Loud3d)[self.axes - 2]
        conv = kind(channels, out or 4, **options)
        step = self.layer(conv)
        if special == "hook":
            conv.register_forward_hook(halved)
        if special == "pre-hook":
            conv.register_forward_pre_hook(clamped)
        if special == "old":
            nn.utils.spectral_norm(conv)
        if special == "spectral":
            nn.utils.parametrizations.spectral_norm(conv)
        if special == "function":
            place = len(self.layers) - 1
            return lambda net, x: (own := net.layers[place])._conv_forward(x, own.weight, own.bias)
        return step

    def pool(self, x):
        rng = self.rng
        k, s, p = rng.randint(2, 3), rng.randint(1, 3), rng.randint(0, 1)
        name = f"pool{self.axes}d"
        mean, most = getattr(F, f"avg_{name}"), getattr(F, f"max_{name}")
        lost = getattr(F, f"max_{name}_with_indices")
        kind = rng.randrange(9)
        if kind < 3:
            d = rng.choice((1, 1, 2))
            return self.layer(self.of("MaxPool")(k, s, p, d, ceil_mode=rng.random() < 0.3))
        if kind < 5:
            options = {"ceil_mode": rng.random() < 0.3, "count_include_pad": rng.random() < 0.5}
            return self.layer(self.of("AvgPool")(k, s, p, divisor_override=rng.choice((None, 3)), **options))
        return [
            lambda net, x: most(F.relu(x), x.shape[2] // x.shape[2] + 1),
            lambda net, x: most(F.relu(x), kernel_size=(k,) * self.axes, stride=s, ceil_mode=True),
            lambda net, x: mean(x, k, s),
            lambda net, x: lost(x, k, s)[0],
        ][kind - 5]

    def norm(self, x):
        channels = x.shape[1]
        kinds = [self.of("BatchNorm")(channels), nn.GroupNorm(1, channels)]
        kinds += [self.of("BatchNorm")(channels), self.of("InstanceNorm")(channels)]
        norm = self.rng.choice(kinds)
        if self.rng.random() < 0.05:
            norm.register_forward_hook(halved)
        return self.layer(norm)

    def activation(self, x):
        kinds = [
            nn.ReLU(),
            nn.ReLU(inplace=True),
            nn.ELU(),
            nn.PReLU(),
            nn.Softplus(),
            nn.Hardswish(inplace=True),
        ]
        functions = [F.relu, torch.relu_, lambda x: x.relu_(), lambda x: F.relu(x, True), zero_below]
        functions += [lambda x: x * torch.sigmoid(x), lambda x: torch.where(x > 0, x, 0.1 * x), half_in_place]
        functions += [lambda x: x.clamp_(-0.5, 1), lambda x: (x - 0.1).abs(), lambda x: x**2 / 3]
        functions += [lambda x: F.dropout(x, 0.5, False), lambda x: F.leaky_relu(x, 0.2, inplace=True)]
        chosen = self.rng.choice([*kinds, *functions])
        return self.layer(chosen) if isinstance(chosen, nn.Module) else lambda net, x: chosen(x)

    def join(self, x):
        conv = self.convolution(x, out=x.shape[1], same=True)
        axes = tuple(range(2, x.ndim))
        return self.rng.choice(
            [
                lambda net, x: x + conv(net, x),
                lambda net, x: torch.add(conv(net, x), x),
                lambda net, x: summed_in_place(conv(net, x), x),
                lambda net, x: summed_in_place(x, F.relu(conv(net, x), inplace=True)),
                lambda net, x: conv(net, F.relu(x, inplace=True)) - x,
                lambda net, x: torch.cat([x, conv(net, x)], 1),
                lambda net, x: torch.cat(tensors=[conv(net, x), x], dim=1),
                lambda net, x: torch.cat((x, conv(net, x)), dim=-1),
                lambda net, x: x * torch.sigmoid(conv(net, x).mean(axes, keepdim=True)),
                lambda net, x: x * torch.sigmoid(conv(net, x)),
            ]
        )

    def shuffle(self, x):
        return self.rng.choice(
            [
                lambda net, x: x.view(x.size(0), x.shape[1], -1).view(x.shape),
                lambda net, x: torch.cat(x.chunk(2, 1)[::-1], dim=1),
                lambda net, x: x.transpose(2, 3).contiguous(),
                lambda net, x: torch.roll(x, (1, 2), (1, 2)),
                lambda net, x: x.flip(-1),
                lambda net, x: F.pad(x, (1, 0)),
                lambda net, x: x[:, :, 1:],
                lambda net, x: F.interpolate(x, scale_factor=2),
            ]
        )

    def head(self, x):
        channels, features = x.shape[1], x[0].numel()
        wide, narrow = self.layer(nn.Linear(features, 3)), self.layer(nn.Linear(channels, 3))
        bag = self.layer(self.of("AdaptiveAvgPool")(1))
        axes = tuple(range(2, x.ndim))
        return self.rng.choice(
            [
                lambda net, x: wide(net, x.flatten(1)),
                lambda net, x: wide(net, x.reshape(x.size(0), -1)),
                lambda net, x: wide(net, F.relu(x).reshape(x.shape[0], -1)),
                lambda net, x: narrow(net, x.mean(axes)),
                lambda net, x: F.softmax(narrow(net, bag(net, x).flatten(1)), 1),
                lambda net, x: narrow(net, F.relu(bag(net, x).squeeze(-1).flatten(1))),
                lambda net, x: narrow(net, x.amax(axes)),
                lambda net, x: (narrow(net, x.mean(axes)) + wide(net, x.flatten(1)).tanh()) * 2,
            ]
        )

    def forward(self, x):
        for step in self.steps:
            x = step(self, x)
        return x


@pytest.mark.filterwarnings("ignore:.*weight_norm|.*spectral_norm|Using padding='same'")
@pytest.mark.parametrize("seed", range(48))
def test_random_networks(seed, make_trained) -> None:
    torch.manual_seed(seed)
    net = make_trained(Grown(seed)).double()
    rng = random.Random(seed)
    x = torch.rand(1, 2, *net.shape, dtype=torch.float64)
    target = rng.randrange(3)
    patch = (min(rng.choice((1, 2, 5)), *net.shape),) * net.axes
    stride = tuple(rng.randint(1, p) for p in patch)
    if seed % 5 == 4:
        labels = torch.randint(0, 9, net.shape)
        options, expected = {"label_map": labels}, region_falls(net, x, target, labels)
    else:
        options, expected = {"patch": patch, "stride": stride}, brute_force(net, x, target, patch, stride)
    tolerance = float(1e-9 * expected.abs().max() + 1e-13)
    options |= {"batch_size": 5, "progress": False}
    try:
        maps = occlusion(net, x, target, algorithm="incremental", **options)
    except UnsupportedModelError:
        maps = occlusion(net, x, target, **options)
    torch.testing.assert_close(maps, expected, rtol=0, atol=tolerance)


class Called(nn.Module):
    """Layers by name, and a function of them and the images."""

    def __init__(self, function, **layers) -> None:
        super().__init__()
        self.function = function
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x):
        return self.function(self, x)


def under_autocast(net, x):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return net.head(net.conv(x).mean((2, 3))).double()


def tokens_first(net, x):
    tokens = net.conv(x).flatten(2).permute(2, 0, 1)
    return net.head(net.block(tokens).sum(0) / tokens.shape[0])


def pooled_by_shape(net, x):
    z = net.conv(x)
    return net.head(F.max_pool2d(F.relu(z), z.shape[-1] // z.shape[-1] + 1).mean((2, 3)))


def without_zeros(net):
    for parameter in net.parameters():
        parameter.data = 0.3 * torch.randn_like(parameter)
    return net


def conv(channels=4):
    return nn.Conv2d(1, channels, 3, padding=1)


BROUGHT = {
    "vit": lambda: VisionTransformer(16, 8, 2, 2, 16, 32, num_classes=3),
    "swin": lambda: SwinTransformer([2, 2], 8, [1, 1], [2, 2], [2, 2], num_classes=3),
    "unet": lambda: Called(
        lambda net, x: net.unet(x).sigmoid().mean((2, 3)),
        unet=BasicUNet(2, 1, 3, features=(2, 2, 2, 2, 2, 2)),
    ),
    "einops": lambda: nn.Sequential(
        conv(),
        Reduce("b c (h 2) (w 2) -> b c h w", "max"),
        Rearrange("b c h w -> b (c h w)"),
        nn.Linear(256, 3),
    ),
    "cat by keywords": lambda: Called(
        lambda net, x: net.head(torch.cat(tensors=[net.one(x), net.two(x)], dim=1).relu().mean((2, 3))),
        **{"one": conv(), "two": conv(), "head": nn.Linear(8, 3)},
    ),
    "autocast": lambda: Called(under_autocast, conv=conv(), head=nn.Linear(4, 3)),
    "roll and unfold": lambda: Called(
        lambda net, x: net.head(F.unfold(torch.roll(net.conv(x), (2, 1), (2, 3)), 3).mean(-1)),
        **{"conv": conv(), "head": nn.Linear(36, 3)},
    ),
    "tokens first": lambda: Called(
        tokens_first,
        **{
            "conv": nn.Conv2d(1, 8, 4, 4),
            "block": nn.TransformerEncoderLayer(8, 2, 16),
            "head": nn.Linear(8, 3),
        },
    ),
    "pool by shape": lambda: Called(pooled_by_shape, conv=conv(), head=nn.Linear(4, 3)),
    "view": lambda: Called(
        lambda net, x: net.head(F.pad(net.conv(x), (1, 1)).view(x.size(0), -1)),
        **{"conv": nn.Conv2d(1, 4, 3, padding=1, padding_mode="reflect"), "head": nn.Linear(4 * 16 * 18, 3)},
    ),
}


@pytest.mark.parametrize("make", BROUGHT.values(), ids=BROUGHT.keys())
def test_networks_that_people_bring(make) -> None:
    torch.manual_seed(0)
    net = without_zeros(make()).double().eval()
    size = 32 if isinstance(getattr(net, "unet", None), BasicUNet) else 16
    x = torch.rand(1, 3 if isinstance(net, VisionTransformer | SwinTransformer) else 1, size, size).double()
    patch = (size // 8, size // 8)
    expected = brute_force(net, x, 1, patch, patch)
    assert expected.abs().max() > 1e-9
    for algorithm in ("auto", "incremental"):
        try:
            maps = occlusion(net, x, 1, patch=patch, algorithm=algorithm, progress=False)
        except UnsupportedModelError:
            if algorithm == "auto":
                raise
        else:
            torch.testing.assert_close(maps, expected, rtol=1e-6, atol=1e-12)
