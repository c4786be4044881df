"""Similarity of optimised masks, each number beside a slow reference."""

import numpy as np
import pytest
import torch
from torch import nn

from xaitools.errors import DataError, ParameterError, ShapeError
from xaitools.evaluation import (
    difference_mask,
    pair_means,
    prob_cnn,
    random_masks_like,
    share_outside,
)

RNG = np.random.default_rng(0)
FOLDS, RUNS = [1, 1, 2, 2, 3, 3], [1, 2, 1, 2, 1, 2]


@pytest.fixture
def networks():
    torch.manual_seed(0)
    return [nn.Sequential(nn.Flatten(), nn.Linear(24, 2)) for _ in range(2)]


@pytest.mark.parametrize("deletion", ["white", "black"])
def test_prob_cnn_is_the_mean_probability_under_each_mask(networks, deletion):
    images, masks = torch.rand(5, 1, 2, 3, 4), torch.rand(3, 2, 3, 4)
    found = prob_cnn(networks, masks, images, 1, deletion=deletion, batch_size=2)
    for i, network in enumerate(networks):
        for j, mask in enumerate(masks.double()):
            said = []
            for image in images.double():
                fill = {"white": 1.0, "black": 0.0}[deletion]
                logits = network.double()((mask * image + (1 - mask) * fill)[None])[0].detach().numpy()
                said.append(np.exp(logits[1]) / np.exp(logits).sum())
            network.float()
            assert found[i, j] == pytest.approx(np.mean(said), abs=1e-6)


def test_prob_cnn_of_masks_of_ones_is_what_the_networks_say_anyway(networks):
    images = torch.rand(3, 1, 2, 3, 4)
    found = prob_cnn(networks, torch.ones(1, 2, 3, 4), images, 0)
    expected = [network(images).softmax(1)[:, 0].mean().item() for network in networks]
    np.testing.assert_allclose(found[:, 0], expected, rtol=1e-6)


def test_prob_cnn_needs_networks_and_masks(networks):
    with pytest.raises(DataError, match="0 models and 1 masks"):
        prob_cnn([], torch.ones(1, 2, 3, 4), torch.rand(1, 1, 2, 3, 4), 0)
    with pytest.raises(ParameterError, match="within 0"):
        prob_cnn(networks, torch.full((1, 2, 3, 4), 1.5), torch.rand(1, 1, 2, 3, 4), 0)


def test_pairs_are_averaged_by_kind():
    matrix = RNG.random((6, 6))
    found = pair_means(matrix, FOLDS, RUNS, n_resamples=50).set_index("pairs")
    sums = {"own": [], "inter-run": [], "inter-fold": [], "inter-both": []}
    for i in range(6):
        for j in range(6):
            if i == j:
                sums["own"].append(matrix[i, j])
            elif FOLDS[i] == FOLDS[j]:
                sums["inter-run"].append(matrix[i, j])
            elif RUNS[i] == RUNS[j]:
                sums["inter-fold"].append(matrix[i, j])
            else:
                sums["inter-both"].append(matrix[i, j])
    for kind, values in sums.items():
        assert found.at[kind, "value"] == pytest.approx(np.mean(values))
        assert found.at[kind, "n"] == len(values)
        assert found.at[kind, "low"] <= found.at[kind, "value"] <= found.at[kind, "high"]


@pytest.mark.parametrize("kind", ["own", "inter-run", "inter-fold"])
def test_intervals_come_of_resampling_contexts(kind):
    """Once more, slowly: the contexts of each resample in a list, all pairs of places, no context with itself."""
    matrix, n = RNG.random((6, 6)), 400
    found = pair_means(matrix, FOLDS, RUNS, n_resamples=n, seed=3).set_index("pairs").loc[kind]
    counts = np.random.default_rng(3).multinomial(6, np.full(6, 1 / 6), size=n)
    means = []
    for row in counts:
        drawn, values = np.repeat(np.arange(6), row), []
        for i in drawn:
            if kind == "own":
                values.append(matrix[i, i])
                continue
            for j in drawn:
                same_fold, same_run = FOLDS[i] == FOLDS[j], RUNS[i] == RUNS[j]
                if (same_fold and not same_run) if kind == "inter-run" else (same_run and not same_fold):
                    values.append(matrix[i, j])
        if values:
            means.append(np.mean(values))
    np.testing.assert_allclose([found["low"], found["high"]], np.quantile(means, [0.025, 0.975]))


def test_only_the_pairs_there_are():
    assert list(pair_means(np.eye(2), [1, 1], [1, 2])["pairs"]) == ["own", "inter-run"]
    two = pair_means(np.eye(2), [1, 2], [1, 1])
    assert list(two["pairs"]) == ["own", "inter-fold"]
    assert two["low"].isna().all()


@pytest.mark.parametrize(
    ("matrix", "folds", "runs", "options", "error"),
    [
        (np.eye(3), [1, 1], [1, 2], {}, ShapeError),
        (np.ones((2, 3)), [1, 1], [1, 2], {}, ShapeError),
        (np.eye(2), [1, 1], [1, 1], {}, DataError),
        (np.full((2, 2), np.nan), [1, 1], [1, 2], {}, DataError),
        (np.eye(2), [1, 1], [1, 2], {"confidence": 1.0}, ParameterError),
    ],
)
def test_contexts_that_do_not_fit(matrix, folds, runs, options, error):
    with pytest.raises(error, match="expected"):
        pair_means(matrix, folds, runs, **options)


@pytest.fixture(scope="module")
def mask():
    """A smooth ball that is hidden, in a volume."""
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in (14, 16, 12)), indexing="ij")
    return 1 - np.clip(1.5 - 2.5 * np.sqrt(sum(axis**2 for axis in axes)), 0, 1)


def roughness(mask):
    total = 0.0
    for axis in range(mask.ndim):
        total += np.mean((np.roll(mask, -1, axis) - mask).take(range(mask.shape[axis] - 1), axis) ** 2)
    return total


def test_random_masks_hide_as_much_as_smoothly(mask):
    found = random_masks_like(mask, 20, seed=1)
    for own in found:
        np.testing.assert_allclose(np.sort(own, axis=None), np.sort(mask, axis=None))
    assert np.mean([roughness(own) for own in found]) == pytest.approx(roughness(mask), rel=0.25)
    assert not np.array_equal(found[0], found[1])
    np.testing.assert_array_equal(found, random_masks_like(mask, 20, seed=1))


def test_random_masks_stay_within(mask):
    within = np.zeros(mask.shape, bool)
    within[3:-3, 3:-3, 3:-3] = True
    (own,) = random_masks_like(mask, 1, within=within)
    np.testing.assert_array_equal(own[~within], mask[~within])
    assert not np.array_equal(own[within], mask[within])
    with pytest.raises(DataError, match="true nowhere"):
        random_masks_like(mask, 1, within=np.zeros(mask.shape, bool))
    with pytest.raises(ShapeError, match="within of shape"):
        random_masks_like(mask, 1, within=np.ones((2, 2), bool))


@pytest.mark.parametrize("hidden", [0.5, 30.0, 49.0])
def test_the_mask_of_a_difference_hides_as_much(hidden):
    difference = RNG.normal(size=(5, 4, 5))
    found = difference_mask(difference, hidden)
    assert (1 - found).sum() == pytest.approx(min(hidden, (difference > 0).sum()), rel=1e-6)
    assert (found[difference <= 0] == 1).all()
    partly = (found > 0) & (found < 1)
    factors = (1 - found[partly]) / difference[partly]
    assert np.ptp(factors) < 1e-9


def test_the_mask_of_a_difference_cannot_hide_more_than_differs():
    with pytest.raises(ParameterError, match=r"hidden=3; expected a sum above 0 and up to 2"):
        difference_mask(np.array([[1.0, 2.0], [0.0, -1.0]]), 3)


def test_the_share_outside_counts_what_is_new():
    earlier, later = np.array([0.0, 1, 1, 0.5]), np.array([0.0, 0, 1, 0.25])
    assert share_outside(earlier, later) == 0
    assert share_outside(later, earlier) == pytest.approx((1 + 0.25) / 2.75)
    with pytest.raises(DataError, match="hides nothing"):
        share_outside(np.ones(3), np.zeros(3))
    with pytest.raises(ShapeError, match="one grid"):
        share_outside(np.zeros(3), np.zeros(4))
