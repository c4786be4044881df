"""First convolutions on blocks of two voxels."""

import pytest
import torch
from torch import nn

from xaitools.attribution import MaskSettings, optimise_masks
from xaitools.models import Network
from xaitools.models.blocks import BlockedConvolution, in_blocks
from xaitools.models.pooling import pooled_first


def pair(kernel, padding, bias=True, out=3):
    torch.manual_seed(0)
    return nn.Conv3d(1, out, kernel, padding=padding, bias=bias).double().requires_grad_(False)


def values_and_gradient(function, images):
    leaf = images.clone().requires_grad_()
    values = function(leaf)
    weights = torch.randn(values.shape, dtype=values.dtype, generator=torch.Generator().manual_seed(1))
    return values.detach(), torch.autograd.grad((values * weights).sum(), leaf)[0]


@pytest.mark.parametrize("shape", [(8, 8, 8), (9, 10, 7), (11, 6, 8)])
@pytest.mark.parametrize(
    ("kernel", "padding"), [(3, 1), (3, 0), (5, 2), (2, 0), (4, 1), ((3, 1, 5), (1, 0, 2)), (3, 3)]
)
def test_the_same_as_convolution_and_pool(shape, kernel, padding) -> None:
    images = torch.rand(2, 1, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    convolution, pool = pair(kernel, padding, bias=shape[0] != 9), nn.MaxPool3d(2)
    found = values_and_gradient(BlockedConvolution(convolution), images)
    expected = values_and_gradient(lambda x: pool(convolution(x)), images)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_of_equal_values_the_first_has_the_gradient() -> None:
    convolution = pair(3, 0)
    images = torch.full((2, 1, 8, 8, 8), 0.25, dtype=torch.float64)
    found = values_and_gradient(BlockedConvolution(convolution.double()), images)
    convolution.weight.fill_(0.5)
    exact = values_and_gradient(BlockedConvolution(convolution), images)
    expected = values_and_gradient(lambda x: nn.MaxPool3d(2)(convolution(x)), images)
    torch.testing.assert_close(exact, expected, rtol=0, atol=0)
    assert not torch.equal(found[1], exact[1])


def block(pool=None, **convolution):
    options = {"kernel_size": 3, "padding": 1, **convolution}
    channels = options.pop("channels", 1)
    return nn.Sequential(
        nn.Conv3d(channels, 4, **options), nn.BatchNorm3d(4), nn.LeakyReLU(), pool or nn.MaxPool3d(2),
        nn.Conv3d(4, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(4, 2),
    ).eval()  # fmt: skip


def prepared(model, channels=1):
    torch.manual_seed(0)
    return pooled_first(Network(model, torch.rand(1, channels, 12, 10, 12)).quick)


def blocked(network):
    return [name for name, module in network.named_modules() if isinstance(module, BlockedConvolution)]


def test_a_network_answers_as_before() -> None:
    plain = prepared(block())
    found = in_blocks(plain)
    images = torch.rand(3, 1, 12, 10, 12)
    assert len(blocked(found)) == 1
    assert not blocked(plain)
    expected = values_and_gradient(plain, images)
    torch.testing.assert_close(values_and_gradient(found, images), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    "model",
    [
        block(stride=2),
        block(dilation=2),
        block(padding_mode="reflect"),
        block(padding="same"),
        block(nn.MaxPool3d(3)),
        block(nn.MaxPool3d(2, stride=1)),
        block(nn.MaxPool3d(2, padding=1)),
        block(nn.MaxPool3d(2, ceil_mode=True)),
        block(nn.AvgPool3d(2)),
    ],
)
def test_other_layers_stay(model) -> None:
    plain = prepared(model)
    assert in_blocks(plain) is plain


def test_several_channels_stay() -> None:
    plain = prepared(block(channels=2), channels=2)
    assert in_blocks(plain) is plain


def test_what_is_no_graph_stays() -> None:
    model = block()
    assert in_blocks(model) is model


def test_masks_are_optimised_on_blocks(monkeypatch) -> None:
    called = []
    forward = BlockedConvolution.forward
    monkeypatch.setattr(BlockedConvolution, "forward", lambda self, x: called.append(1) or forward(self, x))
    torch.manual_seed(0)
    optimise_masks(block(), torch.rand(1, 1, 8, 8, 8), 0, settings=MaskSettings(steps=2), progress=False)
    assert called


@pytest.mark.parametrize(("convolution", "shape"), [(nn.Conv2d, (8, 8)), (nn.Conv3d, (6, 6, 6))])
def test_weights_of_one_channel_are_laid_out_channels_last_too(convolution, shape) -> None:
    network = Network(nn.Sequential(convolution(1, 4, 3), nn.ReLU()).eval(), torch.rand(1, 1, *shape))
    assert network.folded.get_submodule("0")(torch.rand(2, 1, *shape)).stride()[1] == 1
