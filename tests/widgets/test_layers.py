import gzip

import numpy as np
import pytest

from xaitools.widgets.layers import encode_grid, encode_map


def levels(layer):
    sent = np.frombuffer(gzip.decompress(layer["data"]), np.uint8)
    return np.cumsum(sent, dtype=np.uint8) if layer.get("differences") else sent


@pytest.mark.parametrize("sign", [1, -1])
def test_a_map_comes_back_within_half_a_level(sign, rng):
    maps = rng.random((2, 4, 4)) * [[[3.0]], [[0.01]]]
    maps[:, 0, 0] *= sign
    layer = encode_map("map", maps, encode_grid((4, 4), None))
    assert layer["signed"] == (sign < 0)
    shown = levels(layer).reshape(2, 4, 4)[:, ::-1]  # rows run upwards in what is sent
    for found, values, (_, peak) in zip(shown, maps, layer["ranges"], strict=True):
        decoded = (found - 128.0) / 127 * peak if sign < 0 else found / 255.0 * peak
        np.testing.assert_allclose(decoded, values, atol=peak / 127 / 2 * 1.01)


def test_zero_is_level_128_of_signed_maps_and_extremes_are_symmetric():
    layer = encode_map("map", np.array([[[-2.0, 0.0, 2.0, 1.0]]]), encode_grid((1, 4), None))
    assert levels(layer).tolist() == [1, 128, 255, 192]
    assert layer["ranges"] == [[-2.0, 2.0]]


def test_constant_maps_have_equal_ends():
    maps = np.stack([np.full((2, 2), 0.5), np.zeros((2, 2)), np.eye(2)])
    layer = encode_map("map", maps, encode_grid((2, 2), None))
    assert layer["ranges"] == [[0.5, 0.5], [0.0, 0.0], [0.0, 1.0]]


def test_a_brain_with_one_map_is_at_most_3_mb():
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in (182, 218, 182)], indexing="ij"))
    inside = (grid**2).sum(axis=0) < 0.8
    noise = np.random.default_rng(0).random((182, 218, 182), dtype=np.float32) ** 3 * inside
    layer = encode_map("map", noise[None], encode_grid((182, 218, 182), np.eye(4)))
    assert len(layer["data"]) < 3e6
