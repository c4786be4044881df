"""The slides' network: its layers, the sizes it takes, the weights its authors published."""

import pytest
import torch
from torch import nn

from xaitools.errors import ShapeError
from xaitools.models import build_network, load_model
from xaitools.models.head_cnn import LAST_RELU, SMALLEST, head_cnn, head_cnn_small


def test_layers_are_those_of_the_public_code():
    net = head_cnn()
    block, pool = [nn.Conv3d, nn.BatchNorm3d, nn.ReLU], [nn.MaxPool3d]
    assert [type(layer) for layer in net.features] == block + pool + block + pool + block
    assert [type(layer) for layer in net.classifier] == [nn.MaxPool3d, nn.Flatten, nn.Dropout, nn.Linear]
    assert [layer.out_channels for layer in net.features if isinstance(layer, nn.Conv3d)] == [32, 64, 128]
    assert net.classifier[3].in_features == 22400
    last = dict(net.named_modules())[LAST_RELU]
    assert isinstance(last, nn.ReLU)
    assert last is net.features[-1]


@pytest.mark.parametrize("size", [(22, 23, 24), (25, 29, 31)])
@pytest.mark.parametrize(("channels", "classes"), [(1, 2), (2, 1)])
def test_any_input_size_fits(size, channels, classes):
    net = build_network("head_cnn_small", in_channels=channels, n_outputs=classes, input_size=size).eval()
    with torch.no_grad():
        assert net(torch.rand(2, channels, *size)).shape == (2, classes)


def test_small_one_has_fewer_filters():
    assert [layer.out_channels for layer in head_cnn_small().features if isinstance(layer, nn.Conv3d)] == [
        8,
        16,
        32,
    ]


@pytest.mark.parametrize("size", [(22, 22, SMALLEST - 1), (40, 40)])
def test_volumes_that_vanish_are_refused(size):
    with pytest.raises(ShapeError, match="each 22 or more"):
        head_cnn(input_size=size)


def test_the_authors_weights_load_as_they_are(real_data):
    path = real_data / "networks" / "hcp_sex_3d.pt"
    net = load_model(str(path), network="head_cnn", n_outputs=2, input_size=(58, 70, 58))
    state = torch.load(path, weights_only=True, map_location="cpu")
    assert state.keys() == net.state_dict().keys()
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in state.items())
