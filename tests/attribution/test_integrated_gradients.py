import numpy as np
import pytest
import torch

from xaitools.attribution import attribute, integrated_gradients
from xaitools.errors import ShapeError
from xaitools.models import Network


def slow_integrated_gradients(net, x, target, baseline, steps):
    """Equation 1 of Sundararajan et al. 2017, one point at a time in float64."""
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    total = torch.zeros_like(x)
    for node, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
        point = (baseline + node * (x - baseline)).requires_grad_()
        net(point)[0, target].backward()
        total += weight * point.grad
    return (x - baseline) * total


@pytest.mark.parametrize("baseline", [0.0, 1.0, "tensor"])
@pytest.mark.parametrize("batch_size", [3, 16])
def test_equals_slow_reference(residual_net, images, targets, baseline, batch_size) -> None:
    baseline = torch.linspace(0, 1, 120).view(1, 12, 10) if baseline == "tensor" else baseline
    maps = integrated_gradients(
        residual_net, images, targets, baseline=baseline, steps=7, batch_size=batch_size
    )
    for map_, x, t in zip(maps, images, targets, strict=True):
        start = torch.as_tensor(baseline).double() * torch.ones_like(x, dtype=torch.float64)
        slow = slow_integrated_gradients(residual_net.double(), x[None].double(), int(t), start[None], 7)
        residual_net.float()
        torch.testing.assert_close(map_.double(), slow[0], rtol=1e-4, atol=1e-6)


def test_completeness(residual_net, images, targets) -> None:
    gaps = []
    for steps in (5, 200):
        maps = attribute(residual_net, images, targets, ["integrated_gradients[white]"], steps=steps)
        with torch.no_grad():
            change = residual_net(images) - residual_net(torch.ones_like(images))
        missed = (
            maps["integrated_gradients[white]"].flatten(1).sum(1) - change.gather(1, targets[:, None])[:, 0]
        )
        torch.testing.assert_close(
            maps.completeness_gap["integrated_gradients[white]"], missed, rtol=1e-2, atol=1e-5
        )
        gaps.append(missed.abs().max())
    assert gaps[1] < 1e-3
    assert gaps[1] < gaps[0]


def test_closed_form_of_the_paper() -> None:
    """f(x1, x2) = ReLU(ReLU(x1) - 1 - ReLU(x2)): x = (3, 1) has attributions 1.5 and -0.5."""

    class Net(torch.nn.Module):
        def forward(self, x):
            x = torch.relu(x.flatten(1))
            return torch.relu(x[:, 0] - 1 - x[:, 1])

    x = torch.tensor([3.0, 1.0], dtype=torch.float64).view(1, 1, 1, 2)
    maps = integrated_gradients(Net(), x, steps=2000)
    torch.testing.assert_close(maps.flatten().tolist(), [1.5, -0.5], rtol=1e-3, atol=1e-3)


def test_baseline_of_another_shape(residual_net, images, targets) -> None:
    with pytest.raises(ShapeError, match=r"\(1, 3, 3\) does not fit images of shape \(1, 12, 10\)"):
        integrated_gradients(residual_net, images, targets, baseline=torch.zeros(1, 3, 3))


@pytest.mark.parametrize("shape", [(2, 1, 12, 10), (3, 12, 10), (3, 1, 12), (1, 3, 1, 12, 10)])
def test_baselines_neither_for_one_nor_for_each(residual_net, images, targets, shape) -> None:
    with pytest.raises(ShapeError, match="or one for each of the 3 images"):
        integrated_gradients(residual_net, images, targets, baseline=torch.zeros(shape))


def test_baselines_of_each_image_and_their_gap(residual_net, images, targets) -> None:
    """With as many images in a batch as there are baselines, and with fewer."""
    baselines = torch.rand(images.shape, generator=torch.Generator().manual_seed(5)).double()
    net, x = residual_net.double(), images.double()
    slow = [slow_integrated_gradients(net, x[i][None], int(targets[i]), baselines[i], 7)[0] for i in range(3)]
    with torch.no_grad():
        change = (net(x) - net(baselines)).gather(1, targets[:, None])[:, 0]
    for batch_size in (1, 2, 3, 7, 16):
        maps = attribute(
            net,
            x,
            targets,
            ["integrated_gradients[own]"],
            steps=7,
            baselines={"own": baselines},
            batch_size=batch_size,
        )
        found = maps["integrated_gradients[own]"]
        torch.testing.assert_close(found, torch.stack(slow))
        gap = maps.completeness_gap["integrated_gradients[own]"]
        torch.testing.assert_close(gap, found.flatten(1).sum(1) - change)


@pytest.mark.parametrize("name", ["integrated_gradients", "idgi", "blur_integrated_gradients"])
def test_no_pass_is_larger_than_the_batch(residual_net, images, targets, name) -> None:
    """The passes that the completeness gap takes among them."""
    network = Network(residual_net, images[:1])
    sizes = []
    network.quick.register_forward_pre_hook(lambda module, given: sizes.append(len(given[0])))
    attribute(network, images, targets, [name], steps=3, batch_size=2)
    assert max(sizes) == 2


def test_baselines_of_one_name_are_not_mixed_up(residual_net, images, targets) -> None:
    names = ["integrated_gradients[own]", "integrated_gradients[own+white]"]
    first, second = torch.full((1, 12, 10), 0.3), torch.full((1, 12, 10), 0.9)
    options = {name: {"baselines": {"own": b}} for name, b in zip(names, (first, second), strict=True)}
    together = attribute(residual_net, images, targets, names, steps=3, options=options)
    for name in names:
        alone = attribute(residual_net, images, targets, [name], steps=3, options=options)
        torch.testing.assert_close(together[name], alone[name], rtol=1e-3, atol=1e-6)
