import pytest
import torch
from torch import nn
from torchvision.models import resnet18, vgg11

from xaitools.attribution import default_layer, explained_layer, grad_cam, spatial_layers
from xaitools.errors import MethodError, UnsupportedModelError
from xaitools.models import Network


def prepared(model, *shape):
    torch.manual_seed(0)
    return Network(model.eval(), torch.rand(1, *shape))


class Written(nn.Module):
    """Convolutions and a forward pass of one's own between them and the head."""

    def __init__(self, between, **layers):
        super().__init__()
        self.first, self.second, self.head = (
            nn.Conv2d(1, 4, 3, padding=1),
            nn.Conv2d(4, 4, 1),
            nn.Linear(4, 3),
        )
        self.norm, self.tokens, self.pool = nn.LayerNorm(4), nn.Linear(4, 4), nn.AdaptiveAvgPool2d(1)
        self.between = between

    def forward(self, x):
        return self.head(self.between(self, self.first(x)).flatten(2).mean(2))


def channels_last(net, x):
    return net.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


FORWARDS = {
    "nothing": (lambda net, x: x, "first"),
    "a convolution": (lambda net, x: net.second(x), "second"),
    "one cell": (lambda net, x: net.pool(net.second(x)), "second"),
    "channels last": (channels_last, "first"),
    "channels last, and back": (lambda net, x: net.second(channels_last(net, x)), "second"),
    "turned": (lambda net, x: net.second(x.transpose(2, 3)), "first"),
    "turned twice": (lambda net, x: net.second(x.mT.mT), "second"),
    "flipped": (lambda net, x: net.pool(x.flip(2)), "first"),
    "a gate of channels": (lambda net, x: net.second(x * net.pool(x).sigmoid()), "second"),
    "a branch beside it": (lambda net, x: x + net.second(x), "first"),
    "shuffled channels": (
        lambda net, x: net.second(x.view(len(x), 2, 2, *x.shape[2:]).transpose(1, 2).reshape(x.shape)),
        "second",
    ),
}


@pytest.mark.parametrize("which", FORWARDS)
def test_default(which) -> None:
    between, expected = FORWARDS[which]
    assert default_layer(prepared(Written(between), 1, 4, 4)) == expected


def test_whole_stages_of_known_networks() -> None:
    network = prepared(resnet18(), 3, 64, 64)
    assert default_layer(network) == "layer4"
    assert {"conv1", "maxpool", "layer1.0.conv2", "layer3", "layer4.1.bn2"} <= set(spatial_layers(network))
    assert not {"layer4.0.relu", "avgpool", "fc"} & set(spatial_layers(network))
    assert default_layer(prepared(resnet18(), 3, 32, 32)) == "layer3"  # the last has one cell there
    assert default_layer(prepared(vgg11(), 3, 32, 32)) == "avgpool"


def tokens(net, x):
    return net.tokens(x.flatten(2).transpose(1, 2)).relu().transpose(1, 2)


def test_tokens_are_refused_unless_the_layer_is_named() -> None:
    network = prepared(Written(tokens), 1, 5, 4)
    with pytest.raises(
        UnsupportedModelError, match=r"tokens after 'first'.*attention_rollout.*name that layer"
    ):
        default_layer(network)
    assert grad_cam(network, torch.rand(2, 1, 5, 4), 1, layer="first").any()


def test_without_cells() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(20, 3))
    with pytest.raises(UnsupportedModelError, match=r"no layer whose output is .*Use attention_rollout"):
        default_layer(prepared(net, 1, 5, 4))
    with pytest.raises(MethodError, match="expected one of none, as no layer"):
        grad_cam(net, torch.rand(1, 1, 5, 4), 0, layer="1")


def test_axes_that_are_not_known_are_refused() -> None:
    with pytest.raises(MethodError, match=r"layer='norm'.*\(1, 4, 4, 4\), whose axes are not known"):
        grad_cam(Written(channels_last), torch.rand(1, 1, 4, 4), 0, layer="norm")


def test_nothing_is_left_on_the_network() -> None:
    network = prepared(Written(FORWARDS["a convolution"][0]), 1, 4, 4)
    default_layer(network)
    grad_cam(network, torch.rand(2, 1, 4, 4), 1)
    assert not any(module._forward_hooks for module in network.model.modules())


def test_the_layer_that_a_map_shows() -> None:
    network = prepared(resnet18(), 3, 64, 64)
    options = {"grad_cam": {"layer": "layer1"}, "layer_cam[layer2]": {"relu": False}}
    assert explained_layer(network, "grad_cam") == default_layer(network) == "layer4"
    assert explained_layer(network, "guided_grad_cam+smoothgrad") == "layer4"
    assert explained_layer(network, "grad_cam[layer3]+absolute") == "layer3"
    assert explained_layer(network, "grad_cam+absolute@xrai", options) == "layer1"
    assert explained_layer(network, "layer_cam[layer2]", options) == "layer2"
    assert explained_layer(network, "gradient+smoothgrad") is None
    with pytest.raises(MethodError, match="layer='layer9'"):
        explained_layer(network, "grad_cam[layer9]")
