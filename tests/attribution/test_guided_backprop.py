"""The references here are written layer by layer from figure 1 of Springenberg et al.: R = (f > 0)(R' > 0) R'."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models.resnet import BasicBlock

from xaitools.attribution import attribute, deconvolution, gradient, guided_backprop
from xaitools.errors import UnsupportedModelError
from xaitools.models import Network


def folded(convolution, norm):
    """Weight and bias of a convolution with the batch normalisation after it."""
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    return convolution.weight * scale[:, None, None, None], norm.bias - norm.running_mean * scale


def guided(signal, output):
    return signal * (signal > 0) * (output > 0)


def slow_guided_backprop(net, x, target):
    """Forward and back by hand, one image."""
    weight, bias = folded(net.stem, net.norm)
    features = [F.relu(F.conv2d(x, weight, bias, padding=1))]
    records = []
    for block in net.blocks:
        pairs = [(block.conv1, block.bn1), (block.conv2, block.bn2)]
        if not isinstance(block, BasicBlock):
            pairs.append((block.conv3, block.bn3))
        layers, hidden = [folded(*pair) for pair in pairs], [features[-1]]
        for i, (w, b) in enumerate(layers):
            out = F.conv2d(hidden[-1], w, b, padding=w.shape[-1] // 2)
            hidden.append(F.relu(out + features[-1] if i == len(layers) - 1 else out))
        features.append(hidden[-1])
        records.append((layers, hidden))
    signal = net.head.weight[target][None, :, None, None] / x[0, 0].numel()
    signal = signal.expand_as(features[-1])
    for layers, hidden in reversed(records):
        signal = guided(signal, hidden[-1])
        inner = signal
        for i in reversed(range(len(layers))):
            w = layers[i][0]
            inner = torch.nn.grad.conv2d_input(hidden[i].shape, w, inner, padding=w.shape[-1] // 2)
            if i:
                inner = guided(inner, hidden[i])
        signal = signal + inner
    return torch.nn.grad.conv2d_input(x.shape, weight, guided(signal, features[0]), padding=1)


def test_equals_reference_by_hand_on_residual_blocks(residual_net, images, targets) -> None:
    net, x = residual_net.double(), images.double()
    with torch.no_grad():
        slow = [slow_guided_backprop(net, x[i : i + 1], int(targets[i]))[0] for i in range(len(x))]
    maps = guided_backprop(net, x, targets)
    torch.testing.assert_close(maps, torch.stack(slow))
    assert not torch.allclose(maps, gradient(net, x, targets))
    assert not torch.allclose(maps, deconvolution(net, x, targets))


def test_functional_relus_are_seen(functional_net, images, targets) -> None:
    """Libraries that replace modules return the plain gradient here."""
    first, second, head = functional_net.first, functional_net.second, functional_net.head
    with torch.no_grad():
        one = F.relu(first(images))
        two = F.relu(second(one))
        signal = (head.weight[targets] / 120)[:, :, None, None].expand(-1, -1, 12, 10)
        signal = guided(guided(signal, F.relu(two - 0.1)), two)
        signal = guided(torch.nn.grad.conv2d_input(one.shape, second.weight, signal, padding=1), one)
        slow = torch.nn.grad.conv2d_input(images.shape, first.weight, signal, padding=1)
    torch.testing.assert_close(guided_backprop(functional_net, images, targets), slow)


def test_volumes(volume_net) -> None:
    net, x = volume_net.double(), torch.rand(2, 1, 6, 5, 7, dtype=torch.float64)
    with torch.no_grad():
        scale = net.norm.weight / (net.norm.running_var + net.norm.eps).sqrt()
        out = F.relu(net.norm(net.conv(x)))
        signal = (net.head.weight[0] / out[0, 0].numel())[None, :, None, None, None].expand_as(out)
        weight = net.conv.weight * scale[:, None, None, None, None]
        slow = torch.nn.grad.conv3d_input(x.shape, weight, guided(signal, out))
    torch.testing.assert_close(guided_backprop(net, x), slow)


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_the_copy_made_for_explaining(residual_net, images, targets, precision) -> None:
    prepared = Network(residual_net, images[:1], precision)
    exact, rough = (
        attribute(net, images, targets, ["guided_backprop"], precision=own)["guided_backprop"]
        for net, own in ((residual_net, "float32"), (prepared, precision))
    )
    assert torch.corrcoef(torch.stack([exact.flatten(), rough.flatten()]))[0, 1] > 0.98


def test_other_activations_are_refused(images) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(120, 4), nn.ReLU(), nn.Linear(4, 1), nn.SiLU())
    with pytest.raises(UnsupportedModelError, match="has a rule for ReLU only"):
        guided_backprop(net, images)
