"""What the cards show: maps of synthetic chest slices, and what is measured of them."""

import logging
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from plotly.colors import sample_colorscale, unlabel_rgb
from torch import Tensor, nn
from torch.nn import functional as F

from xaitools import Samples, attribute, check_attribution, chest_slices, train
from xaitools.evaluation import Checks
from xaitools.plots import DIVERGING, SEQUENTIAL

SHOWN, ZOOM, GAP = 4, 2, 4
STEPS = torch.linspace(0, 1, 255)
logging.getLogger("xaitools").setLevel(logging.WARNING)


class BrightSeeker(nn.Module):
    """A transformer set by hand: every token attends to bright patches, so one knows what its attention must show."""

    def forward(self, images: Tensor) -> Tensor:
        tokens = F.avg_pool2d(images, 8).flatten(2).transpose(1, 2)
        keys = 8 * tokens
        attention = (torch.ones_like(keys) @ keys.transpose(1, 2)).softmax(-1)
        brightness = (attention @ tokens).mean(1)
        return torch.cat([-brightness, brightness], 1)


def small_cnn() -> nn.Sequential:
    """Four convolutions with ReLUs and the mean over the image."""
    torch.manual_seed(0)
    widths = [1, 8, 16, 32, 32]
    layers: list[nn.Module] = []
    for k, (channels, width) in enumerate(pairwise(widths)):
        layers += [nn.Conv2d(channels, width, 5 if k == 0 else 3, padding=2 if k == 0 else 1), nn.ReLU()]
        layers += [nn.MaxPool2d(2)] if k < 3 else [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(widths[-1], 2))


def chest_network(*, epochs: int) -> nn.Module:
    """A small network that tells slices with contrast agent from those without."""
    network = small_cnn()
    if epochs:
        sets = [chest_slices(n, size=64, seed=n, progress=False) for n in (256, 64)]
        settings = {"max_epochs": epochs, "patience": epochs, "learning_rate": 4e-3, "batch_size": 16}
        train(network, *sets, device="cpu", progress=False, seed=0, **settings)
    return network.eval()


def shown_slices() -> Samples:
    """The slices on all cards, every second one with contrast agent."""
    return chest_slices(SHOWN, size=64, seed=0, progress=False)


def maps_of(name: str, network: nn.Module, slices: Samples, *, iterations: int) -> Tensor:
    """A method's maps of the class "contrast"."""
    if name == "attention_rollout":
        network = BrightSeeker()
    optimised = "perturbation" in name
    return attribute(
        network,
        slices.images,
        1,
        name,
        references=chest_slices(16, size=64, seed=5, progress=False).images,
        options={name: {"iterations": iterations}} if optimised else {},
        progress=False,
    )[name]


def checks(names: Sequence[str], network: nn.Module, slices: Samples, *, iterations: int) -> Checks:
    """What `check_attribution` finds on two slices with contrast agent."""
    optimised = {name: {"iterations": iterations} for name in names if "perturbation" in name}
    images = slices.images[1::2]
    return check_attribution(
        network, images, 1, list(names), references=slices.images, options=optimised, progress=False
    )


def picture(images: Tensor, maps: Tensor, path: Path) -> None:
    """The slices, and below them their maps: red for, blue against, white 0; or dark to bright if there is no sign."""
    rows = [_grey(images), _coloured(maps)]
    side = ZOOM * images.shape[-1]
    canvas = Image.new("RGB", (len(images) * (side + GAP) - GAP, len(rows) * (side + GAP) - GAP), "white")
    for y, row in enumerate(rows):
        for x, tile in enumerate(row):
            tile = Image.fromarray(tile).resize((side, side), Image.Resampling.NEAREST)
            canvas.paste(tile, (x * (side + GAP), y * (side + GAP)))
    canvas.save(path)


def _grey(images: Tensor) -> np.ndarray:
    grey = (255 * images[:, 0].clamp(0, 1)).round().byte().numpy()
    return np.repeat(grey[..., None], 3, -1)


def _coloured(maps: Tensor) -> np.ndarray:
    values = maps[:, 0].float()
    peak = values.abs().flatten(1).quantile(0.995, 1).clamp_min(1e-30)[:, None, None]
    signed = bool((values < 0).any())
    shares = (values / peak).clamp(-1, 1)
    colours = sample_colorscale(DIVERGING if signed else SEQUENTIAL, STEPS.tolist())
    table = np.array([unlabel_rgb(colour) for colour in colours]).round().astype(np.uint8)
    return table[(254 * ((shares + 1) / 2 if signed else shares)).round().long().numpy()]
