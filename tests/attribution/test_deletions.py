"""What masks leave of images."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from xaitools.attribution import DELETIONS, delete
from xaitools.attribution._separable import averaging, blurring, enlarging
from xaitools.attribution.deletions import Deletion
from xaitools.errors import DataError, MethodError, ParameterError, ShapeError

SHAPES = [(9, 7), (6, 7, 5)]


def images(shape, channels=2):
    return torch.rand(3, channels, *shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def mask(shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def scipy_blur(values, sigma):
    return torch.from_numpy(
        np.stack([[gaussian_filter(one.numpy(), sigma, mode="nearest") for one in image] for image in values])
    )


@pytest.mark.parametrize("shape", SHAPES)
def test_constants_numbers_images_and_blurs_show_through(shape) -> None:
    x, m = images(shape), mask(shape)
    own = torch.rand(3, 2, *shape, dtype=torch.float64)
    baselines = {"grey": 0.3, "one": own[0], "each": own}
    for name, below in {
        "white": torch.ones_like(x),
        "black": torch.zeros_like(x),
        "grey": torch.full_like(x, 0.3),
        "one": own[:1].expand_as(x),
        "each": own,
        "blur": scipy_blur(x, 1.3),
    }.items():
        found = delete(x, m, name, baselines=baselines, sigma=1.3)
        torch.testing.assert_close(found, m * x + (1 - m) * below, rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_pyramid_blurs_by_what_the_mask_leaves(shape) -> None:
    x = images(shape)
    for level in range(8):
        found = delete(x, torch.full(shape, level / 8), "pyramid", sigma=2.0)
        torch.testing.assert_close(found, scipy_blur(x, 2.0 * (1 - level / 8)), rtol=0, atol=1e-12)
    between = delete(x, torch.full(shape, 2.25 / 8), "pyramid", sigma=2.0)
    expected = 0.75 * scipy_blur(x, 1.5) + 0.25 * scipy_blur(x, 1.25)
    torch.testing.assert_close(between, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", DELETIONS)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_mask_of_ones_changes_no_bit_and_one_of_zeros_leaves_nothing(name, shape) -> None:
    x = images(shape).float()
    assert torch.equal(delete(x, torch.ones(shape), name), x)
    other = delete(1 - x if name in ("white", "black") else x, torch.zeros(shape), name)
    assert torch.equal(other, delete(x, torch.zeros(shape), name))
    assert not torch.equal(other, x)


@pytest.mark.parametrize("name", ["blur", "pyramid"])
def test_a_constant_image_stays_itself_up_to_its_border(name) -> None:
    x = torch.full((1, 1, 6, 5), 0.7, dtype=torch.float64)
    torch.testing.assert_close(delete(x, torch.zeros(6, 5), name, sigma=3.0), x, rtol=0, atol=1e-12)


def test_noise_has_each_channels_mean_and_spread_and_is_drawn_once() -> None:
    x = torch.rand(2, 2, 40, 50) * torch.tensor([1.0, 3.0]).view(1, 2, 1, 1) + 5
    nothing = torch.zeros(40, 50)
    noise = delete(x, nothing, "noise", seed=3)
    torch.testing.assert_close(noise.mean((2, 3)), x.mean((2, 3)), rtol=0.02, atol=0)
    torch.testing.assert_close(noise.std((2, 3)), x.std((2, 3)), rtol=0.05, atol=0)
    assert torch.equal(noise, delete(x, nothing, "noise", seed=3))
    assert torch.equal(noise[1:], delete(x[1:], nothing, "noise", seed=3))
    assert not torch.equal(noise, delete(x, nothing, "noise", seed=4))


@pytest.mark.parametrize("name", DELETIONS)
def test_slopes_are_those_of_autograd(name) -> None:
    x = images((6, 7))
    m = (0.05 + 0.9 * mask((3, 6, 7))).requires_grad_()
    made, which = Deletion(x, name, sigma=1.5), torch.arange(3)
    weights = torch.randn(x.shape, dtype=torch.float64)
    (expected,) = torch.autograd.grad((made.masked(m, which) * weights).sum(), m)
    found = (made.slopes(m.detach(), which) * weights).sum(1)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_bad_input() -> None:
    x, m = images((6, 7)), mask((6, 7))
    with pytest.raises(MethodError, match="Did you mean 'blur'"):
        delete(x, m, "blurr")
    with pytest.raises(MethodError, match="sigma"):
        delete(x, m, "blur", sigma=0)
    with pytest.raises(ShapeError, match="resample"):
        delete(x, m[1:], "white")
    with pytest.raises(ShapeError, match="does not fit"):
        delete(x, m, "b", baselines={"b": torch.zeros(3, 3)})
    with pytest.raises(DataError, match="NaN"):
        delete(x, m, "b", baselines={"b": float("nan")})
    for bad in (m + 1, m - 1, m * torch.nan):
        with pytest.raises(ParameterError, match="not within 0"):
            delete(x, bad)


def test_cells_are_means_and_are_joined_by_lines() -> None:
    torch.testing.assert_close(
        averaging(5, 2) @ torch.arange(5.0).double(), torch.tensor([0.5, 2.5, 4.0]).double()
    )
    found = enlarging(8, 4) @ torch.tensor([0.0, 1.0]).double()
    torch.testing.assert_close(found, torch.tensor([0, 0, 1, 3, 5, 7, 8, 8]).double() / 8)
    for matrix in (enlarging(7, 3), enlarging(3, 8), averaging(7, 3), blurring(5, 2.0)):
        torch.testing.assert_close(matrix.sum(1), torch.ones(len(matrix), dtype=torch.float64))
        assert (matrix >= 0).all()
