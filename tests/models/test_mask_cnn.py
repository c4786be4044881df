"""The family of networks for grey-matter maps: its layers, its names, what it refuses."""

import pytest
import torch
from torch import nn

from xaitools.errors import ParameterError, ShapeError
from xaitools.models import build_network
from xaitools.models.mask_cnn import gm_cnn, spelled_options


def test_layers_follow_the_poster():
    net = gm_cnn(1, 2, (16, 24, 17), n_blocks=3, filters=4, n_linear=3)
    block = [nn.Conv3d, nn.BatchNorm3d, nn.LeakyReLU, nn.MaxPool3d]
    head = [nn.Flatten, nn.Dropout, nn.Linear, nn.LeakyReLU, nn.Linear, nn.LeakyReLU, nn.Linear]
    assert [type(layer) for layer in net] == 3 * block + head
    assert [layer.out_channels for layer in net if isinstance(layer, nn.Conv3d)] == [4, 8, 16]
    widths = [layer.in_features for layer in net if isinstance(layer, nn.Linear)]
    assert widths[0] == 16 * 2 * 3 * 2
    assert widths[0] / widths[1] == pytest.approx(widths[1] / widths[2], rel=0.1)
    assert [layer.p for layer in net if isinstance(layer, nn.Dropout)] == [0.79]


@pytest.mark.parametrize("size", [(8, 8, 8), (9, 15, 10)])
@pytest.mark.parametrize(("channels", "outputs", "n_linear"), [(1, 2, 1), (2, 1, 2), (1, 3, 4)])
def test_any_input_size_fits(size, channels, outputs, n_linear):
    net = gm_cnn(channels, outputs, size, n_blocks=3, filters=2, n_linear=n_linear).eval()
    assert net(torch.rand(2, channels, *size)).shape == (2, outputs)


def test_a_name_spells_a_member():
    net = build_network("gm_cnn_b2_f3_l1_d25", input_size=(8, 8, 8))
    assert [layer.out_channels for layer in net if isinstance(layer, nn.Conv3d)] == [3, 6]
    assert [layer.p for layer in net if isinstance(layer, nn.Dropout)] == [0.25]
    assert spelled_options("gm_cnn_small") is None
    small = build_network("gm_cnn_small", input_size=(16, 16, 16))
    assert sum(isinstance(layer, nn.Conv3d) for layer in small) == 3


@pytest.mark.parametrize("size", [(31, 40, 40), (40, 40)])
def test_volumes_that_vanish_in_the_pools_are_refused(size):
    with pytest.raises(
        ShapeError, match=r"each 32 or more, since 5 poolings.*Resample the volumes, pad them"
    ):
        gm_cnn(input_size=size)


@pytest.mark.parametrize("options", [{"n_blocks": 0}, {"filters": 0}, {"dropout": 1.0}, {"n_linear": 0}])
def test_numbers_out_of_range_are_refused(options):
    with pytest.raises(ParameterError, match="expected"):
        gm_cnn(input_size=(64, 64, 64), **options)


def test_a_name_that_spells_nothing_is_unknown():
    with pytest.raises(ParameterError, match="is unknown"):
        build_network("gm_cnn_b2_f3", input_size=(8, 8, 8))
