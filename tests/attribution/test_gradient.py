import pytest
import torch

from xaitools.attribution import gradient
from xaitools.errors import TargetError, UnsupportedModelError


def test_equals_finite_differences(residual_net, images, targets) -> None:
    net, x = residual_net.double(), images.double()
    maps = gradient(net, x, targets)
    step = 1e-6
    for row, column in [(0, 0), (5, 7), (11, 9)]:
        up, down = x.clone(), x.clone()
        up[:, 0, row, column] += step
        down[:, 0, row, column] -= step
        with torch.no_grad():
            slope = (net(up) - net(down)).gather(1, targets[:, None])[:, 0] / (2 * step)
        torch.testing.assert_close(maps[:, 0, row, column], slope, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("batch_size", [1, 2, 16])
def test_batches_do_not_matter(residual_net, images, targets, batch_size) -> None:
    alone = torch.cat(
        [gradient(residual_net, x[None], t[None]) for x, t in zip(images, targets, strict=True)]
    )
    torch.testing.assert_close(gradient(residual_net, images, targets, batch_size=batch_size), alone)


def test_a_network_whose_first_layer_works_in_place(images) -> None:
    net = torch.nn.Sequential(torch.nn.ReLU(inplace=True), torch.nn.Flatten(), torch.nn.Linear(120, 1))
    before = images.clone()
    maps = gradient(net, images)
    torch.testing.assert_close(maps.flatten(1), net[2].weight.expand(3, -1).detach())
    assert torch.equal(images, before)


def test_regression_on_volumes(volume_net) -> None:
    x = torch.rand(2, 1, 6, 5, 7)
    leaf = x.clone().requires_grad_()
    volume_net(leaf).sum().backward()
    torch.testing.assert_close(gradient(volume_net, x), leaf.grad)


@pytest.mark.parametrize("target", [3, -1])
def test_target_outside_the_classes(residual_net, images, target) -> None:
    with pytest.raises(TargetError, match=f"target {target} with a network of 3 outputs; expected 0 to 2"):
        gradient(residual_net, images, torch.full((3,), target))


def test_target_is_needed_with_several_outputs(residual_net, images) -> None:
    with pytest.raises(TargetError, match="network of 3 outputs; expected one output"):
        gradient(residual_net, images)


def test_a_network_without_gradients(images) -> None:
    class Detached(torch.nn.Module):
        def forward(self, x):
            return x.detach().mean((1, 2, 3))

    with pytest.raises(UnsupportedModelError, match="Detached does not depend on its input"):
        gradient(Detached(), images)


def test_an_output_that_is_an_image(images) -> None:
    with pytest.raises(UnsupportedModelError, match=r"outputs of shape \(3, 1, 12, 10\)"):
        gradient(torch.nn.Identity(), images)
