import numpy as np
import pytest
import torch

from xaitools.errors import ParameterError, ShapeError
from xaitools.evaluation import control_maps


def test_edges_of_a_ramp_are_its_slope_and_intensity_is_absolute():
    ramp = np.broadcast_to(np.arange(7.0)[:, None, None] - 3, (7, 5, 6))
    found = control_maps(torch.from_numpy(np.stack([ramp, 2 * ramp]))[:, None])
    np.testing.assert_allclose(found["intensity"][0], np.abs(ramp))
    np.testing.assert_allclose(
        found["edges"][:, 1:-1] / 32, np.broadcast_to([[[[1]]], [[[2]]]], (2, 5, 5, 6))
    )


def test_noise_depends_on_the_seed_and_the_position_alone():
    images = np.random.default_rng(0).random((3, 2, 8, 9))
    found = control_maps(images, seed=1)
    assert list(found) == ["smooth noise", "intensity", "edges"]
    np.testing.assert_allclose(found["intensity"], images.mean(axis=1))
    noise = found["smooth noise"]
    assert (control_maps(0 * images[:2], seed=1)["smooth noise"] == noise[:2]).all()
    assert not np.allclose(control_maps(images, seed=2)["smooth noise"], noise)
    assert np.square(np.diff(noise, axis=1)).mean() < 0.5 * noise.var()


def test_images_without_a_channel_are_refused():
    with pytest.raises(ShapeError, match="add an axis for the channel"):
        control_maps(np.zeros((3, 8, 9)))
    with pytest.raises(ParameterError, match="sigma=0"):
        control_maps(np.zeros((1, 1, 8, 9)), sigma=0)
