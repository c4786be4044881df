import itertools

import numpy as np
import pytest
import saliency.core as saliency
import torch
from scipy.ndimage import gaussian_filter
from torch import nn

from xaitools.attribution import attribute
from xaitools.attribution.blur_integrated_gradients import SHARE, blur_integrated_gradients, blurred_copies
from xaitools.errors import MethodError


def slow_blur_integrated_gradients(net, image, target, max_sigma, steps):
    """Equation 4 of Xu et al. 2020, one step at a time in float64, blurred by scipy."""

    def blurred(sigma):
        return torch.from_numpy(
            np.stack([gaussian_filter(channel, sigma, mode="constant") for channel in image.numpy()])
        )[None]

    sigmas = np.linspace(max_sigma, 0, steps + 1)
    total = torch.zeros_like(image)
    for before, after in itertools.pairwise(sigmas):
        point = blurred((before + after) / 2).requires_grad_()
        net(point)[0, target].backward()
        total += (point.grad * (blurred(after) - blurred(before)))[0]
    return total


@pytest.mark.parametrize("shape", [(12, 10), (6, 5, 7)])
def test_blurs_are_scipys(shape) -> None:
    image = torch.rand(2, *shape, dtype=torch.float64)
    for sigma, copy in zip(
        (0.0, 0.3, 2.5, 40.0), blurred_copies(image, torch.tensor([0.0, 0.3, 2.5, 40.0])), strict=True
    ):
        expected = [gaussian_filter(channel, np.float32(sigma), mode="constant") for channel in image.numpy()]
        torch.testing.assert_close(copy, torch.from_numpy(np.stack(expected)), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("batch_size", [3, 16])
def test_equals_slow_reference(residual_net, images, targets, batch_size) -> None:
    net, x = residual_net.double(), images.double()
    maps = blur_integrated_gradients(net, x, targets, max_sigma=4.0, steps=7, batch_size=batch_size)
    slow = [slow_blur_integrated_gradients(net, x[i], int(targets[i]), 4.0, 7) for i in range(len(x))]
    torch.testing.assert_close(maps, torch.stack(slow), rtol=1e-6, atol=1e-9)


def test_the_authors_sum_has_the_same_limit(residual_net, images, targets) -> None:
    """Their Riemann sum needs many steps for what the middle of each step gives with few."""
    net, x = residual_net.double(), images[0].double()

    def call(batch, call_model_args=None, expected_keys=None):
        leaf = torch.from_numpy(np.asarray(batch)).movedim(-1, 1).requires_grad_()
        (grad,) = torch.autograd.grad(net(leaf)[:, targets[0]].sum(), leaf)
        return {saliency.base.INPUT_OUTPUT_GRADIENTS: grad.movedim(1, -1).numpy()}

    theirs = saliency.BlurIG().GetMask(
        x.movedim(0, -1).numpy(), call, max_sigma=4.0, steps=800, grad_step=1e-4, batch_size=100
    )
    ours = blur_integrated_gradients(net, x[None], targets[:1], max_sigma=4.0, steps=200)[0]
    difference = torch.from_numpy(theirs).movedim(-1, 0) - ours
    assert difference.abs().max() < 0.03 * ours.abs().max()


def test_completeness(residual_net, images, targets) -> None:
    net, x = residual_net.double(), images.double()
    largest = SHARE * 12
    with torch.no_grad():
        start = net(torch.cat([blurred_copies(image, torch.tensor([largest])) for image in x]))
        change = (net(x) - start).gather(1, targets[:, None])[:, 0]
    name = "blur_integrated_gradients"
    few, many = (attribute(net, x, targets, [name], steps=steps) for steps in (5, 400))
    torch.testing.assert_close(many[name].flatten(1).sum(1), change, rtol=1e-3, atol=1e-4)
    for maps in (few, many):
        torch.testing.assert_close(maps.completeness_gap[name], maps[name].flatten(1).sum(1) - change)
    assert many.completeness_gap[name].abs().max() < few.completeness_gap[name].abs().max()


def test_a_linear_network_in_closed_form() -> None:
    """The gradient is constant, so the map is the weight times what the blur took away, at any number of steps."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(30, 1)).double()
    x = torch.rand(1, 1, 5, 6, dtype=torch.float64)
    lost = x - blurred_copies(x[0], torch.tensor([2.0]))
    maps = blur_integrated_gradients(net, x, max_sigma=2.0, steps=1)
    torch.testing.assert_close(maps, net[1].weight.detach().view(1, 1, 5, 6) * lost)


@pytest.mark.parametrize(
    ("options", "message"), [({"steps": 0}, "steps=0"), ({"max_sigma": -1.0}, "max_sigma=-1.0")]
)
def test_bad_options(residual_net, images, targets, options, message) -> None:
    with pytest.raises(MethodError, match=message):
        blur_integrated_gradients(residual_net, images, targets, **options)
