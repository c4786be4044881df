"""Each similarity against a slow one written from its definition; and what must hold of all of them."""

import numpy as np
import pytest
import torch

from xaitools.errors import DataError, ParameterError, ShapeError
from xaitools.evaluation import map_similarity
from xaitools.evaluation.similarity import SIMILARITIES

SHAPES = {
    "spearman": [(1, 33, 40), (3, 20, 34), (1, 8, 9, 10)],
    "ssim": [(1, 33, 40), (3, 20, 34), (1, 15, 16, 14)],
    "hog": [(1, 33, 40), (3, 50, 66), (1, 33, 32, 37)],
}


def maps(*shape: int, seed: int = 0) -> np.ndarray:
    """Maps with structure, of both signs."""
    noise = np.random.default_rng(seed).normal(size=(2, *shape))
    return sum(np.roll(noise, shift, axis) for shift in range(4) for axis in range(2, noise.ndim))


def slow_spearman(one: np.ndarray, other: np.ndarray) -> float:
    """Pearson's correlation of mean ranks, each counted pixel by pixel."""

    def ranks(values: np.ndarray) -> np.ndarray:
        flat = values.sum(0).ravel()
        return np.array([(flat < value).sum() + ((flat == value).sum() + 1) / 2 for value in flat])

    return np.corrcoef(ranks(one), ranks(other))[0, 1]


def scaled(values: np.ndarray) -> np.ndarray:
    return (values - values.min()) / (values.max() - values.min())


def slow_ssim(one: np.ndarray, other: np.ndarray) -> float:
    """Equation 13 of Wang et al. in every window that lies within the map, by moments of its pixels."""
    offsets = np.arange(-5, 6)
    line = np.exp(-(offsets**2) / (2 * 1.5**2))
    axes = one.ndim - 1
    weight = line
    for _ in range(axes - 1):
        weight = np.multiply.outer(weight, line)
    weight = weight / weight.sum()
    sample = 11**axes / (11**axes - 1)
    c1, c2 = (0.01 * 2) ** 2, (0.03 * 2) ** 2
    found = []
    for x, y in zip(scaled(one), scaled(other), strict=True):
        for place in np.ndindex(*(size - 10 for size in x.shape)):
            window = tuple(slice(start, start + 11) for start in place)
            a, b = x[window], y[window]
            ma, mb = (weight * a).sum(), (weight * b).sum()
            va, vb = sample * (weight * (a - ma) ** 2).sum(), sample * (weight * (b - mb) ** 2).sum()
            cov = sample * (weight * (a - ma) * (b - mb)).sum()
            found.append((2 * ma * mb + c1) * (2 * cov + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2)))
    return float(np.mean(found))


def slow_histogram(image: np.ndarray) -> np.ndarray:
    """Dalal and Triggs pixel by pixel: each gives its gradient's length to the bin of its direction."""
    channels, height, width = image.shape
    cells = (height // 16, width // 16)
    histogram = np.zeros((*cells, 9))
    for row in range(cells[0] * 16):
        for column in range(cells[1] * 16):
            best, direction = -1.0, 0.0
            for channel in range(channels):
                pixels = image[channel]
                dy = pixels[row + 1, column] - pixels[row - 1, column] if 0 < row < height - 1 else 0
                dx = pixels[row, column + 1] - pixels[row, column - 1] if 0 < column < width - 1 else 0
                if np.hypot(dy, dx) > best:
                    best, direction = np.hypot(dy, dx), np.degrees(np.arctan2(dy, dx)) % 180
            histogram[row // 16, column // 16, int(direction // 20) % 9] += best / 256
    block = tuple(min(3, n) for n in cells)
    parts = []
    for place in np.ndindex(cells[0] - block[0] + 1, cells[1] - block[1] + 1):
        values = histogram[place[0] : place[0] + block[0], place[1] : place[1] + block[1]].ravel()
        values = np.minimum(values / np.sqrt((values**2).sum() + 1e-10), 0.2)
        parts.append(values / np.sqrt((values**2).sum() + 1e-10))
    return np.concatenate(parts)


def slow_hog(one: np.ndarray, other: np.ndarray) -> float:
    one, other = scaled(one), scaled(other)
    if one.ndim == 3:
        return slow_spearman(slow_histogram(one)[None], slow_histogram(other)[None])
    found = []
    for axis in (1, 2, 3):
        for place in range(8, one.shape[axis], 16):
            pair = [slow_histogram(np.moveaxis(values, axis, 0)[place]) for values in (one, other)]
            if all(values.any() for values in pair):
                found.append(slow_spearman(pair[0][None], pair[1][None]))
    return float(np.mean(found))


SLOW = {"spearman": slow_spearman, "ssim": slow_ssim, "hog": slow_hog}


@pytest.mark.parametrize("absolute", [True, False])
@pytest.mark.parametrize(("name", "shape"), [(name, shape) for name in SLOW for shape in SHAPES[name]])
def test_the_slow_definition(name, absolute, shape) -> None:
    one, other = maps(*shape), maps(*shape) * 0.6 + maps(*shape, seed=1)
    if name == "spearman":
        one, other = one.round(1), other.round(1)  # ties
    found = map_similarity(one, other, name, absolute=absolute)
    change = np.abs if absolute else np.asarray
    expected = [SLOW[name](change(a), change(b)) for a, b in zip(one, other, strict=True)]
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6)
    assert np.all(np.abs(found) < 0.99)


@pytest.mark.parametrize("name", SIMILARITIES)
def test_a_map_is_like_itself_at_any_scale(name) -> None:
    values = maps(2, 32, 32)
    np.testing.assert_allclose(map_similarity(values, values, name), 1, atol=1e-12)
    again = torch.from_numpy(values * 7)
    np.testing.assert_allclose(map_similarity(values, again, name, absolute=False), 1, atol=1e-5)


@pytest.mark.parametrize("name", SIMILARITIES)
def test_the_sign_counts_only_if_asked(name) -> None:
    values = maps(1, 32, 32)
    np.testing.assert_allclose(map_similarity(values, -values, name), 1, atol=1e-12)
    signed = map_similarity(values, -values, name, absolute=False)
    # a histogram of gradients does not see it: opposite directions share a bin
    assert np.all(signed > 0.99) if name == "hog" else np.all(signed < 0.2)


@pytest.mark.parametrize("name", SIMILARITIES)
def test_a_constant_map_has_no_similarity(name) -> None:
    values, flat = maps(1, 32, 32), np.ones((2, 1, 32, 32))
    flat[1] = values[1]
    found = map_similarity(values, flat, name)
    assert np.isnan(found[0])
    assert found[1] == pytest.approx(1)


def test_slices_without_a_gradient_do_not_count() -> None:
    one, other = (np.zeros((1, 1, 40, 32, 32)) for _ in range(2))
    one[0, 0, 20:] = maps(20, 32, 32)[0]
    other[0, 0, 20:] = maps(20, 32, 32, seed=1)[0]
    (found,) = map_similarity(one, other, "hog")
    assert found == pytest.approx(slow_hog(np.abs(one[0]), np.abs(other[0])), abs=2e-6)
    other[0, 0] = np.roll(other[0, 0], 20, 0)
    other[0, 0, :, :, 16:] = other[0, 0, :, 16:] = 0
    one[0, 0, :, :, :17] = one[0, 0, :, :17] = 0
    assert np.isnan(map_similarity(one, other, "hog")).all()  # no slice shows both


@pytest.mark.parametrize(("name", "size"), [("ssim", 10), ("hog", 31)])
def test_maps_that_are_too_small(name, size) -> None:
    with pytest.raises(
        ShapeError, match=f"maps of 40 x {size} with similarity '{name}'; expected {size + 1} pixels"
    ):
        map_similarity(maps(1, 40, size), maps(1, 40, size), name)


def test_what_is_refused() -> None:
    values = maps(1, 16, 16)
    with pytest.raises(
        ParameterError, match="similarity='pearson' is unknown; expected one of spearman, ssim, hog"
    ):
        map_similarity(values, values, "pearson")
    with pytest.raises(ShapeError, match=r"others of shape \(2, 1, 16, 15\) with maps of \(2, 1, 16, 16\)"):
        map_similarity(values, values[..., 1:])
    with pytest.raises(ShapeError, match=r"maps of shape \(2, 16, 16\); expected \(n, channel, \*spatial\)"):
        map_similarity(values[:, 0], values)
    values[1, 0, 3, 3] = np.nan
    with pytest.raises(DataError, match="maps: number 1 has NaN"):
        map_similarity(values, values)
