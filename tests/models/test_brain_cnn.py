import pytest
import torch
from torch import nn

from xaitools.errors import ParameterError
from xaitools.models import build_network
from xaitools.models.brain_cnn import eitel_cnn


def test_layers_follow_the_paper():
    net = eitel_cnn(1, 2, (36, 73, 40))
    kinds = [type(layer) for layer in net]
    block = [nn.Conv3d, nn.BatchNorm3d, nn.ReLU, nn.MaxPool3d]
    assert kinds == 4 * block + [nn.Flatten, nn.Dropout, nn.Linear, nn.ReLU, nn.Dropout, nn.Linear]
    assert [layer.out_channels for layer in net if isinstance(layer, nn.Conv3d)] == [8, 16, 32, 64]
    assert {layer.kernel_size for layer in net if isinstance(layer, nn.Conv3d)} == {(3, 3, 3)}
    assert [layer.kernel_size for layer in net if isinstance(layer, nn.MaxPool3d)] == [2, 3, 2, 3]
    assert [layer.p for layer in net if isinstance(layer, nn.Dropout)] == [0.4, 0.4]


@pytest.mark.parametrize("size", [(36, 36, 36), (36, 73, 40), (45, 54, 45)])
@pytest.mark.parametrize(("channels", "classes"), [(1, 2), (2, 1)])
def test_any_input_size_fits(size, channels, classes):
    with torch.no_grad():
        assert eitel_cnn(channels, classes, size).eval()(torch.rand(2, channels, *size)).shape == (2, classes)


def test_by_name_with_the_size_of_the_volumes():
    one, same, other = (build_network("eitel_cnn", input_size=(36, 40, 36), seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one[0].weight, same[0].weight)
    assert not torch.equal(one[0].weight, other[0].weight)
    with pytest.raises(ParameterError, match="pass input_size"):
        build_network("eitel_cnn")


@pytest.mark.parametrize("size", [(36, 36, 35), (40, 40)])
def test_volumes_that_vanish_in_the_pools_are_refused(size):
    with pytest.raises(ParameterError, match="each 36 or more"):
        eitel_cnn(input_size=size)
