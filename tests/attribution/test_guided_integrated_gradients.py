import numpy as np
import pytest
import saliency.core as saliency
import torch
from torch import nn

from xaitools.attribution import attribute, guided_integrated_gradients, integrated_gradients
from xaitools.errors import MethodError, ShapeError


def theirs(net, image, start, target, steps, fraction=0.25, max_dist=0.02):
    """The authors' own code, float64, one image."""

    def gradients(points, call_model_args=None, expected_keys=None):
        leaf = torch.from_numpy(points).requires_grad_()
        (found,) = torch.autograd.grad(net(leaf)[:, target].sum(), leaf)
        return {saliency.base.INPUT_OUTPUT_GRADIENTS: found.numpy()}

    settings = {"x_steps": steps, "fraction": fraction, "max_dist": max_dist}
    return torch.from_numpy(
        saliency.GuidedIG().GetMask(image.numpy(), gradients, x_baseline=start.numpy(), **settings)
    )


def case(which):
    conv, pool, shape = {
        "slices": (nn.Conv2d, nn.MaxPool2d, (10, 9)),
        "volumes": (nn.Conv3d, nn.MaxPool3d, (7, 6, 8)),
    }[which]
    torch.manual_seed(5)
    layers = [conv(2, 4, 3), nn.Tanh(), pool(2), conv(4, 3, 2), nn.Softplus(), nn.Flatten(), nn.LazyLinear(3)]
    net, images = nn.Sequential(*layers).double().eval(), torch.rand(3, 2, *shape, dtype=torch.float64)
    net(images)
    return net, images


SETTINGS = [(6, 0.25, 0.02), (10, 0.1, 0.3), (1, 0.25, 0.02), (4, 1.0, 1.0), (5, 0.01, 0.0)]


@pytest.fixture
def older_numpy(monkeypatch):
    """The authors' code calls an argument of `numpy.quantile` by its former name."""
    quantile = np.quantile
    monkeypatch.setattr(np, "quantile", lambda x, q, interpolation: quantile(x, q, method=interpolation))


@pytest.mark.usefixtures("older_numpy")
@pytest.mark.parametrize(("steps", "fraction", "max_dist"), SETTINGS)
@pytest.mark.parametrize("which", ["slices", "volumes"])
def test_it_is_that_of_the_authors(which, steps, fraction, max_dist) -> None:
    net, images = case(which)
    start = 0.3 * images.flip(0)
    start[:, 0, 2] = images[:, 0, 2]  # pixels that have no way to go
    options = {"fraction": fraction, "max_dist": max_dist}
    maps = guided_integrated_gradients(
        net, images, [0, 2, 1], baseline=start, steps=steps, batch_size=2, **options
    )
    pairs = zip(images, start, [0, 2, 1], strict=True)
    expected = torch.stack([theirs(net, x, s, t, steps, fraction, max_dist) for x, s, t in pairs])
    torch.testing.assert_close(maps, expected, rtol=1e-6, atol=1e-12)
    assert maps[:, 1].any()


def test_on_the_straight_line_it_is_integrated_gradients() -> None:
    """A pixel that may not leave the line moves by the same share as all: a sum of gradients at left ends."""
    net, images = case("slices")
    found = guided_integrated_gradients(net, images, 1, max_dist=0.0, fraction=0.5, steps=200)
    torch.testing.assert_close(found, integrated_gradients(net, images, 1), rtol=0.02, atol=2e-4)


@pytest.mark.parametrize("name", ["guided_integrated_gradients", "guided_integrated_gradients[black+white]"])
def test_the_gap_is_what_the_sum_misses_and_falls_with_the_jumps_of_pixels(name) -> None:
    net, images = case("volumes")
    gaps = []
    for steps in (15, 60):
        options = {name: {"max_dist": 0.3 / steps}}
        maps = attribute(net, images, 2, [name], steps=steps, options=options)
        (found,), (gap,) = maps.values(), maps.completeness_gap.values()
        starts = [torch.zeros_like(images), *([torch.ones_like(images)] if "white" in name else [])]
        with torch.no_grad():
            change = net(images)[:, 2] - torch.stack([net(start)[:, 2] for start in starts]).mean(0)
        torch.testing.assert_close(gap, found.flatten(1).sum(1) - change)
        gaps.append(gap.abs().max())
    assert gaps[1] < 0.5 * gaps[0]


def test_an_image_that_is_the_baseline() -> None:
    net, images = case("slices")
    assert not guided_integrated_gradients(net, images, 0, baseline=images.clone()).any()


def test_a_linear_network_in_closed_form() -> None:
    """Whatever the path, the map is the image times the weights."""
    net, x = nn.Sequential(nn.Flatten(), nn.Linear(30, 1)), torch.rand(2, 1, 5, 6)
    expected = x * net[1].weight.detach().view(1, 1, 5, 6)
    torch.testing.assert_close(guided_integrated_gradients(net, x, steps=7, max_dist=0.5), expected)


def test_bad_options() -> None:
    net, images = case("slices")
    for options, error, words in [
        ({"fraction": 0}, MethodError, "fraction=0; expected a share, from above 0 to 1"),
        ({"fraction": 1.5}, MethodError, "fraction=1.5"),
        ({"max_dist": -0.1}, MethodError, "max_dist=-0.1; expected a share, from 0 to 1"),
        ({"steps": 0}, MethodError, "steps=0"),
        ({"baseline": "grey"}, MethodError, "Unknown baseline 'grey'"),
        ({"baseline": torch.zeros(3, 3)}, ShapeError, "does not fit images"),
    ]:
        with pytest.raises(error, match=words):
            guided_integrated_gradients(net, images, 1, **options)
