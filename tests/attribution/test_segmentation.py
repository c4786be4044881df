"""Maps of segmentation networks, against plain float64 autograd through the user's own model."""

import copy

import pytest
import torch
from monai.inferers import sliding_window_inference
from monai.networks.nets import UNet
from torch import nn

from xaitools.attribution import attribute, attribute_segmentation
from xaitools.errors import (
    DataError,
    MethodError,
    ParameterError,
    ShapeError,
    TargetError,
    UnsupportedModelError,
)

QUIET = {"progress": False}


def unet(dims: int, classes: int = 3, **more) -> nn.Module:
    """MONAI's residual U-Net, small; instance normalisation and PReLU unless `more` says otherwise."""
    torch.manual_seed(0)
    return UNet(dims, 1, classes, channels=(4, 8, 8), strides=(2, 2), num_res_units=1, **more).eval()


def mesh_net(classes: int = 3) -> nn.Module:
    """As in brainchop: dilated convolutions, each with batch normalisation and ReLU, then one of 1x1x1."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    channels = 1
    for dilation in (1, 1, 2, 1):
        layers += [
            nn.Conv3d(channels, 5, 3, padding=dilation, dilation=dilation),
            nn.BatchNorm3d(5),
            nn.ReLU(inplace=True),
            nn.Dropout3d(0.1),
        ]
        channels = 5
    return nn.Sequential(*layers, nn.Conv3d(5, classes, 1)).eval()


def image_of(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(3))


def score64(model: nn.Module, images: torch.Tensor, target: int, weights: torch.Tensor, **sliding):
    """The score in float64 through the user's own model, and its gradient."""
    model = copy.deepcopy(model).double()
    leaf = images.double().requires_grad_()
    dense = sliding_window_inference(leaf, predictor=model, **sliding) if sliding else model(leaf)
    scores = (dense[:, target] * weights).flatten(1).sum(1)
    return scores.detach(), torch.autograd.grad(scores.sum(), leaf)[0]


def close(actual, expected, rtol=2e-4):
    torch.testing.assert_close(
        actual.double(), expected.double(), rtol=rtol, atol=rtol * float(expected.abs().max())
    )


def predicted(model, images, target):
    with torch.no_grad():
        return (model(images).argmax(1) == target).double()


@pytest.mark.parametrize("dims", [2, 3])
def test_the_gradient_is_that_of_the_sum_over_the_predicted_region(dims) -> None:
    model, images = unet(dims), image_of(2, 1, *[16] * dims)
    maps = attribute_segmentation(model, images, 1, ["gradient", "input_x_gradient"], **QUIET)
    weights = predicted(model, images, 1)
    scores, gradient = score64(model, images, 1, weights)
    close(maps["gradient"], gradient)
    close(maps["input_x_gradient"], images * gradient)
    close(maps.scores, scores)
    assert torch.equal(maps.regions.double(), weights)
    assert 0 < weights.mean() < 1


SLIDING = {
    "gaussian": ({"window": 16, "overlap": 0.5, "mode": "gaussian"}, (27, 20)),
    "constant": ({"window": (16, 8), "overlap": (0.25, 0.6)}, (29, 19)),
    "padded": ({"window": (16, 24), "overlap": 0.25, "mode": "gaussian", "sigma_scale": 0.3}, (27, 13)),
    "one window": ({"window": 24}, (24, 17)),
}


@pytest.mark.parametrize("kind", SLIDING)
def test_windows_are_those_of_monai(kind) -> None:
    settings, shape = SLIDING[kind]
    model, images = unet(2), image_of(2, 1, *shape)
    methods = ["gradient", "integrated_gradients[black]", "idgi", "gradient+smoothgrad_squared+absolute"]
    maps = attribute_segmentation(model, images, 2, methods, steps=8, draws=2, seed=1, **settings, **QUIET)
    sliding = {("roi_size" if key == "window" else key): value for key, value in settings.items()}
    sliding["sw_batch_size"] = 3
    with torch.no_grad():
        dense = sliding_window_inference(images, predictor=model, **sliding)
    weights = (dense.argmax(1) == 2).double()
    assert torch.equal(maps.regions.double(), weights)
    scores, gradient = score64(model, images, 2, weights, **sliding)
    close(maps["gradient"], gradient)
    close(maps.scores, scores)
    empty = score64(model, torch.zeros_like(images), 2, weights, **sliding)[0]
    close(maps["idgi"].flatten(1).sum(1), scores - empty, rtol=1e-3)
    gap = maps["integrated_gradients[black]"].double().flatten(1).sum(1) - (scores - empty)
    close(maps.completeness_gap["integrated_gradients[black]"] / scores, gap / scores, rtol=1e-3)
