import itertools

import pytest
import torch
from torch import nn

from xaitools.attribution import attribute
from xaitools.attribution.idgi import idgi
from xaitools.errors import MethodError, ShapeError


def slow_idgi(net, image, target, baseline, steps):
    """Algorithm 1 of Yang et al. 2023, one step at a time in float64."""
    points = [baseline + j / steps * (image - baseline) for j in range(steps + 1)]
    total = torch.zeros_like(image)
    for here, there in itertools.pairwise(points):
        leaf = here[None].clone().requires_grad_()
        value = net(leaf)[0, target]
        (g,) = torch.autograd.grad(value, leaf)
        d = (net(there[None])[0, target] - value).item()
        total += (g[0] ** 2) * d / float((g**2).sum())
    return total


@pytest.mark.parametrize("baseline", [0.0, 1.0, "tensor"])
@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_equals_slow_reference(residual_net, images, targets, baseline, batch_size) -> None:
    net, x = residual_net.double(), images.double()
    start = (
        torch.linspace(0, 1, 120, dtype=torch.float64).view(1, 12, 10) if baseline == "tensor" else baseline
    )
    maps = idgi(net, x, targets, baseline=start, steps=7, batch_size=batch_size)
    full = torch.as_tensor(start, dtype=torch.float64).expand_as(x[0])
    slow = [slow_idgi(net, x[i], int(targets[i]), full, 7) for i in range(len(x))]
    torch.testing.assert_close(maps, torch.stack(slow), rtol=1e-6, atol=1e-10)


def test_two_baselines_are_averaged(residual_net, images, targets) -> None:
    net, x = residual_net.double(), images.double()
    both = idgi(net, x, targets, baseline="black+white", steps=5)
    black, white = (idgi(net, x, targets, baseline=value, steps=5) for value in (0.0, 1.0))
    torch.testing.assert_close(both, (black + white) / 2)


@pytest.mark.parametrize("steps", [1, 6])
def test_completeness_is_exact(residual_net, images, targets, steps) -> None:
    net, x = residual_net.double(), images.double()
    maps = attribute(net, x, targets, ["idgi[white]"], steps=steps)
    with torch.no_grad():
        change = (net(x) - net(torch.ones_like(x))).gather(1, targets[:, None])[:, 0]
    torch.testing.assert_close(maps["idgi[white]"].flatten(1).sum(1), change)
    assert maps.completeness_gap["idgi[white]"].abs().max() < 1e-9


def test_a_rising_linear_network_in_closed_form() -> None:
    """All steps share one gradient w: the map is the output's rise times w**2 / sum(w**2), nowhere negative."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(6, 1)).double()
    x = net[1].weight.detach().view(1, 1, 2, 3) * 2.0
    rise = float((net(x) - net(torch.zeros_like(x))).detach())
    share = net[1].weight.detach().view(1, 1, 2, 3) ** 2
    maps = idgi(net, x, steps=4)
    torch.testing.assert_close(maps, rise * share / share.sum())
    assert (maps >= 0).all()


def test_a_step_without_a_gradient_gives_nothing() -> None:
    net = nn.Sequential(nn.Flatten(), nn.ReLU(), nn.Linear(6, 1))
    maps = idgi(net, -torch.rand(1, 1, 2, 3), steps=3)
    assert torch.equal(maps, torch.zeros_like(maps))


def test_bad_options(residual_net, images, targets) -> None:
    with pytest.raises(MethodError, match="Unknown baseline 'grey'"):
        idgi(residual_net, images, targets, baseline="grey")
    with pytest.raises(ShapeError, match=r"does not fit images of shape \(1, 12, 10\)"):
        idgi(residual_net, images, targets, baseline=torch.zeros(3, 3))
    with pytest.raises(MethodError, match="steps=0"):
        idgi(residual_net, images, targets, steps=0)
