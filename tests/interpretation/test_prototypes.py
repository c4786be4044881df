"""Prototypes and criticisms by maximum mean discrepancy."""

import itertools

import numpy as np
import pytest
import torch
from scipy.spatial.distance import pdist
from torch import nn

from xaitools.errors import DataError, ParameterError, ShapeError
from xaitools.interpretation import mmd_critic, prototypes


def slow_kernel(points: np.ndarray, bandwidth: float) -> np.ndarray:
    return np.array([[np.exp(-((x - y) ** 2).sum() / (2 * bandwidth**2)) for y in points] for x in points])


def slow_mmd2(kernel: np.ndarray, chosen) -> float:
    """Equation 1 with both samples, sum by sum."""
    n, m = len(kernel), len(chosen)
    own = sum(kernel[i, j] for i in range(n) for j in range(n)) / n**2
    cross = sum(kernel[i, j] for i in range(n) for j in chosen) / (n * m)
    among = sum(kernel[i, j] for i in chosen for j in chosen) / m**2
    return own - 2 * cross + among


def slow_prototypes(kernel: np.ndarray, count: int) -> list[int]:
    chosen = []
    for _ in range(count):
        rest = [i for i in range(len(kernel)) if i not in chosen]
        chosen.append(min(rest, key=lambda i: slow_mmd2(kernel, [*chosen, i])))
    return chosen


def slow_criticisms(kernel: np.ndarray, chosen: list[int], count: int) -> list[int]:
    witness = [abs(kernel[i].mean() - kernel[i, chosen].mean()) for i in range(len(kernel))]

    def worth(picked) -> float:
        return sum(witness[i] for i in picked) + np.linalg.slogdet(kernel[np.ix_(picked, picked)])[1]

    found = []
    for _ in range(count):
        rest = [i for i in range(len(kernel)) if i not in chosen and i not in found]
        found.append(max(rest, key=lambda i: worth([*found, i])))
    return found


@pytest.fixture(scope="module")
def points() -> np.ndarray:
    rng = np.random.default_rng(0)
    clusters = [rng.normal(center, 0.3, (n, 2)) for center, n in ((0, 8), (4, 8), (9, 2))]
    return np.concatenate(clusters)


def test_the_slow_reference_chooses_the_same(points: np.ndarray) -> None:
    found = mmd_critic(points, 4, 3)
    assert found.bandwidth == pytest.approx(np.median(pdist(points)))
    kernel = slow_kernel(points, found.bandwidth)
    assert list(found.prototypes) == slow_prototypes(kernel, 4)
    assert list(found.criticisms) == slow_criticisms(kernel, list(found.prototypes), 3)
    expected = [slow_mmd2(kernel, found.prototypes[:m]) for m in range(1, 5)]
    np.testing.assert_allclose(found.mmd2, expected, atol=1e-12)
    witness = kernel.mean(0) - kernel[list(found.prototypes)].mean(0)
    np.testing.assert_allclose(found.witness, witness, atol=1e-12)


def test_greedy_reaches_what_submodularity_promises(points: np.ndarray) -> None:
    few = points[::2]
    found = mmd_critic(few, 3, 0)
    kernel = slow_kernel(few, found.bandwidth)
    best = min(slow_mmd2(kernel, chosen) for chosen in itertools.combinations(range(len(few)), 3))
    whole = kernel.mean()  # J(S) = mean(K) - MMD²; greedy has at least 1 - 1/e of the best J
    assert whole - found.mmd2[-1] >= (1 - 1 / np.e) * (whole - best)
    assert found.mmd2[-1] <= 1.5 * best


def test_prototypes_lie_in_the_clusters_and_the_small_group_is_criticised(points: np.ndarray) -> None:
    found = mmd_critic(points, 2, 1, bandwidth=1.0)
    assert {position < 8 for position in found.prototypes} == {True, False}
    assert found.criticisms[0] in (16, 17)


def test_all_examples_tell_all() -> None:
    points = np.random.default_rng(1).normal(size=(5, 3))
    found = mmd_critic(points, 5, 0)
    assert sorted(found.prototypes) == list(range(5))
    assert found.mmd2[-1] == pytest.approx(0, abs=1e-12)
    np.testing.assert_allclose(found.witness, 0, atol=1e-12)


def test_copies_are_no_criticisms_of_each_other() -> None:
    points = np.array([[0.0], [0.1], [0.2], [9.0], [9.0], [-7.0]])
    found = mmd_critic(points, 1, 3, bandwidth=1.0)
    assert found.witness[3] == found.witness[4] > found.witness[5]
    assert len({3, 4} & set(found.criticisms)) == 1
    assert 5 in found.criticisms


def test_of_a_networks_features() -> None:
    images = torch.rand(8, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    model = nn.Sequential(nn.Flatten(), nn.Linear(9, 2))  # the features are the pixels
    assert (
        prototypes(model, images, 3, 2).prototypes == mmd_critic(images.flatten(1).numpy(), 3, 2).prototypes
    )


def test_refusals(points: np.ndarray) -> None:
    with pytest.raises(ParameterError, match=r"n_prototypes=14 and n_criticisms=5 of 18 examples"):
        mmd_critic(points, 14, 5)
    with pytest.raises(ParameterError, match="n_prototypes=0"):
        mmd_critic(points, 0)
    with pytest.raises(ParameterError, match="n_criticisms=-1"):
        mmd_critic(points, 1, -1)
    with pytest.raises(ParameterError, match="bandwidth=0"):
        mmd_critic(points, bandwidth=0)
    with pytest.raises(DataError, match="all examples have the same features"):
        mmd_critic(np.ones((9, 2)))
    with pytest.raises(DataError, match="NaN or infinite"):
        mmd_critic(np.full((9, 2), np.nan))
    with pytest.raises(ShapeError, match=r"points of shape \(1, 2\)"):
        mmd_critic(points[:1])
