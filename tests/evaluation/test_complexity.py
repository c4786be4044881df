import numpy as np
import pytest
import torch
from scipy.stats import entropy
from torch import nn

from xaitools.attribution import attribute
from xaitools.errors import ParameterError
from xaitools.evaluation import complexity_rise, map_complexity
from xaitools.models import Network


@pytest.fixture
def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 12 * 11, 3)).eval()


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(4, 1, 14, 13, generator=torch.Generator().manual_seed(1))


def test_complexity_is_the_entropy_of_the_histogram() -> None:
    """Counted value by value, and by scipy; the scale does not count."""
    maps = np.random.default_rng(0).normal(size=(3, 2, 9, 8)) ** 3
    found = map_complexity(maps, n_bins=12)
    for one, value in zip(maps, found, strict=True):
        edges = np.linspace(one.min(), one.max(), 13)
        counts = np.zeros(12)
        for pixel in one.ravel():
            counts[min(int(np.searchsorted(edges, pixel, side="right")) - 1, 11)] += 1
        assert value == pytest.approx(entropy(counts))
    np.testing.assert_allclose(map_complexity(7 - 3 * maps, n_bins=12), found)
    assert map_complexity(np.ones((1, 1, 4, 4)))[0] == 0
    assert map_complexity(np.arange(100.0).reshape(1, 1, 10, 10))[0] == pytest.approx(np.log(100))
    assert map_complexity(torch.from_numpy(maps)).shape == (3,)
    with pytest.raises(ParameterError, match="n_bins=0"):
        map_complexity(maps, n_bins=0)


def test_the_rise_of_maps_computed_one_by_one(net, images) -> None:
    table = complexity_rise(
        net, images, 1, ["gradient", "input_x_gradient"], n_draws=2, seed=3, progress=False
    )
    assert list(table.method) == ["gradient", "input_x_gradient", "random"]
    network = Network(net, images)
    twins = [network.randomized(network.layers, seed) for seed in (3, 4)]
    for row in table[:2].itertuples():
        before, *after = (
            map_complexity(attribute(one, images, 1, [row.method], progress=False)[row.method])
            for one in (net, *twins)
        )
        rise = (np.mean(after, axis=0) - before) / before
        assert row.n == 4
        assert row.rise == pytest.approx(rise.mean())
        assert row.low <= row.rise <= row.high
        assert row.verdict == ("passes" if row.low > 0 else "fails" if row.high < 0 else "undecided")


def test_noise_does_not_rise(net) -> None:
    images = torch.rand(8, 1, 14, 13, generator=torch.Generator().manual_seed(1))
    table = complexity_rise(net, images, 1, n_draws=4, progress=False).set_index("method")
    assert abs(table.loc["random"].rise) < 0.05
    assert table.loc["random"].verdict == "undecided"


def test_a_map_that_spreads_rises(images) -> None:
    """Weights of one pixel for each class: the trained gradient has one value that is not 0."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(14 * 13, 2)).eval()
    nn.init.zeros_(net[1].weight)
    with torch.no_grad():
        net[1].weight[:, 50] = 1
    table = complexity_rise(net, images, 0, progress=False).set_index("method")
    n = 14 * 13
    assert table.loc["gradient"].trained == pytest.approx(entropy([1, n - 1]), rel=1e-6)
    assert table.loc["gradient"].verdict == "passes"


def test_maps_of_one_value_have_no_rise(images) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(14 * 13, 2)).eval()
    nn.init.zeros_(net[1].weight)
    row = complexity_rise(net, images, 0, progress=False).set_index("method").loc["gradient"]
    assert row.n == 0
    assert np.isnan(row.rise)
    assert row.verdict == "undecided"


def test_progress_counts_networks_and_stops(net, images) -> None:
    told = []

    def stop(done: int, total: int) -> None:
        told.append((done, total))
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        complexity_rise(net, images, 1, n_draws=3, progress=stop)
    assert told[-1] == (2, 4)
