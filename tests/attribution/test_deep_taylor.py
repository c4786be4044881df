import pytest
import torch
import torch.nn.functional as F
from torch import nn

from xaitools.attribution import deep_taylor
from xaitools.errors import MethodError


def test_two_layers_by_the_equations() -> None:
    """Montavon et al. 2017: R_i = sum_j (x_i w - l w+ - h w-) / (their sum) R_j, then x_i w+ / sum x_i w+ R_j."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 1)).double()
    x = torch.rand(1, 1, 2, 3, dtype=torch.float64) * 3 - 1
    low, high = -1.0, 2.0
    w1, w2 = net[1].weight.detach(), net[3].weight.detach()[0]
    pixels, hidden = x.flatten(), net[2](net[1](x.flatten())).detach()
    out = float(net(x).detach())
    of_hidden = [float(hidden[j]) * max(float(w2[j]) * (1 if out > 0 else -1), 0) for j in range(4)]
    of_hidden = [value / sum(of_hidden) * out for value in of_hidden]
    expected = torch.zeros(6, dtype=torch.float64)
    for j in range(4):
        shares = [pixels[i] * w1[j, i] - low * max(w1[j, i], 0) - high * min(w1[j, i], 0) for i in range(6)]
        for i in range(6):
            expected[i] += shares[i] / sum(shares) * of_hidden[j]
    maps = deep_taylor(net, x, low=low, high=high)
    torch.testing.assert_close(maps.flatten(), expected, rtol=1e-5, atol=1e-8)


def test_relevance_is_positive_and_conserved(homogeneous) -> None:
    """Proposition 3; for an output below 0 the map is negative."""
    net, x, targets = homogeneous
    with torch.no_grad():
        out = net(x)[torch.arange(2), 0 if targets is None else targets]
    maps = deep_taylor(net, x, targets)
    torch.testing.assert_close(maps.flatten(1).sum(1), out, rtol=1e-3, atol=0)
    assert (maps.flatten(1) * out.sign()[:, None] >= 0).all()


def test_maps_have_the_sign_of_the_output(residual_net, images) -> None:
    for target in range(3):
        with torch.no_grad():
            out = residual_net(images)[:, target]
        maps = deep_taylor(residual_net, images, torch.full((3,), target))
        assert (maps.flatten(1) * out.sign()[:, None] >= 0).all()


def test_an_image_of_bounds(residual_net, images, targets) -> None:
    low, high = torch.zeros(1, 12, 10), torch.ones(1, 12, 10)
    same = deep_taylor(residual_net, images, targets, low=low, high=high)
    torch.testing.assert_close(same, deep_taylor(residual_net, images, targets))
    assert not torch.allclose(same, deep_taylor(residual_net, images, targets, low=-1.0), rtol=0.05)


def test_relevance_lies_where_the_network_looks(images) -> None:
    """Only the left half reaches the output."""

    class Left(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(1, 4, 3, padding=1)

        def forward(self, x):
            return F.relu(self.conv(x))[..., :5].sum((1, 2, 3))

    torch.manual_seed(1)
    maps = deep_taylor(Left(), images)
    assert (maps[..., 6:] == 0).all()
    assert (maps[..., :5] > 0).float().mean() > 0.9


def test_images_outside_the_bounds(residual_net, images, targets) -> None:
    with pytest.raises(MethodError, match="give low and high of your images"):
        deep_taylor(residual_net, 255 * images, targets)
