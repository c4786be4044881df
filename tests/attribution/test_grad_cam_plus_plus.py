import pytest
import torch
import torch.nn.functional as F
from torch import nn

from xaitools.attribution import attribute, grad_cam_plus_plus


class Net(nn.Module):
    """Features, and a head that is linear in them where its ReLUs stay on or off."""

    def __init__(self, conv, outputs=3):
        super().__init__()
        self.conv, self.relu, self.hidden, self.head = (
            conv(1, 3, 2),
            nn.ReLU(),
            nn.LazyLinear(6),
            nn.Linear(6, outputs),
        )

    def forward(self, x):
        return self.after(self.relu(self.conv(x)))

    def after(self, features):
        return self.head(self.hidden(features.flatten(1)).relu())


SHAPES = {"slices": (nn.Conv2d, (4, 5)), "volumes": (nn.Conv3d, (4, 3, 3))}


def case(which, outputs=3):
    conv, shape = SHAPES[which]
    torch.manual_seed(4)
    net, images = Net(conv, outputs).double().eval(), torch.rand(2, 1, *shape, dtype=torch.float64)
    net(images)
    return net, images


def derivatives(net, features, place, target):
    """The first three of exp(output) along one cell, and exp(output)."""
    way = torch.zeros_like(features)
    way[place] = 1
    t = torch.zeros((), dtype=torch.float64, requires_grad=True)
    y = value = net.after((features + t * way)[None])[0, target].exp()
    found = []
    for _ in range(3):
        (value,) = torch.autograd.grad(value, t, create_graph=True)
        found.append(value.item())
    return *found, y.item()


def slow(net, image, target):
    """Chattopadhay et al. 2018, equations 5 and 19, a cell at a time with derivatives by autograd."""
    features = net.relu(net.conv(image[None]))[0].detach()
    total = torch.zeros(features.shape[1:], dtype=torch.float64)
    for k, channel in enumerate(features):
        weight = 0.0
        for cell in torch.cartesian_prod(*map(torch.arange, channel.shape)).tolist():
            first, second, third, y = derivatives(net, features, (k, *cell), target)
            if first > 0:
                weight += second / (2 * second + float(channel.sum()) * third) * first / y
        total += weight * channel
    mode = {2: "bilinear", 3: "trilinear"}[total.ndim]
    return F.interpolate(total.clamp(min=0)[None, None], image.shape[1:], mode=mode)[0]


@pytest.mark.parametrize("which", SHAPES)
def test_equals_slow_reference(which) -> None:
    net, images = case(which)
    maps = grad_cam_plus_plus(net, images, [2, 0])
    torch.testing.assert_close(maps, torch.stack([slow(net, images[0], 2), slow(net, images[1], 0)]))
    assert maps.any()


def test_where_no_gradient_is_positive_nothing_is_found() -> None:
    net, images = case("slices")
    net.head.weight.data, net.hidden.weight.data = -net.head.weight.data.abs(), net.hidden.weight.data.abs()
    assert not grad_cam_plus_plus(net, images, 1, relu=False).any()


def test_a_large_output_stays_finite() -> None:
    net, images = case("slices", outputs=1)
    expected = grad_cam_plus_plus(net, images)
    net.head.bias.data += 1e5
    torch.testing.assert_close(grad_cam_plus_plus(net, images), expected)
    assert torch.isfinite(expected).all()


def test_a_name_with_a_layer() -> None:
    net, images = case("slices")
    maps = attribute(
        net, images, 0, ["grad_cam_plus_plus[relu]", "grad_cam_plus_plus[conv]", "grad_cam_plus_plus"]
    )
    assert torch.equal(maps["grad_cam_plus_plus[relu]"], maps["grad_cam_plus_plus"])
    assert not torch.equal(maps["grad_cam_plus_plus[conv]"], maps["grad_cam_plus_plus"])
