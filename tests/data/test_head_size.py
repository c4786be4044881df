"""Sizes of brains, their optimal transport between groups, heads resized, subsets of one size."""

import itertools
from functools import partial

import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.stats import wasserstein_distance

from xaitools.data import (
    Volumes,
    brain_volumes,
    matched_subset,
    optimal_scales,
    scaled,
    skull_stripped,
    transported,
)
from xaitools.data.lazy import LazyTensor, cached
from xaitools.errors import DataError, ParameterError, ShapeError

SHAPE = (30, 32, 28)
AFFINE = np.diag([3.0, 3, 3, 1])
AFFINE[:3, 3] = -38, -45, -41


def head(radius: float) -> tuple[np.ndarray, np.ndarray]:
    """A ball of brain, in mm, in a larger ball of head, and its label map of two structures."""
    place = np.moveaxis(np.indices(SHAPE), 0, -1) @ AFFINE[:3, :3] + AFFINE[:3, 3]
    distance = np.linalg.norm(place - [6.3, 4.9, -2.7], axis=-1)
    labels = (distance < radius) * (1 + (place[..., 0] > 6).astype(np.int64))
    return (0.4 * (distance < radius + 12) + 0.4 * (distance < radius)).astype(np.float32), labels


def heads(radii, tmp_path, *, with_labels=True, **options) -> Volumes:
    def lazy(which, dtype):
        keys = [{"radius": radius, "which": which} for radius in radii]
        makers = [partial(lambda radius, which: head(radius)[which], radius, which) for radius in radii]
        return LazyTensor(cached(tmp_path, "test", keys, makers), SHAPE, dtype)

    names = tuple(f"sub-{i + 1:03d}" for i in range(len(radii)))
    return Volumes(
        images=lazy(0, torch.float32),
        labels=torch.arange(len(radii)) % 2,
        subjects=names,
        names=names,
        class_names=("female", "male"),
        affine=AFFINE,
        label_maps=lazy(1, torch.int64) if with_labels else None,
        **options,
    )


def test_volume_of_a_brain_is_that_of_its_labels(tmp_path):
    found = brain_volumes(heads([20, 30], tmp_path))
    np.testing.assert_allclose(found, 4 / 3 * np.pi * np.array([2.0, 3.0]) ** 3, rtol=0.05)
    assert found[0] == pytest.approx((head(20)[1] > 0).sum() * 0.027)


def test_heads_without_label_maps_are_refused_with_both_remedies(tmp_path):
    volumes = heads([20], tmp_path, with_labels=False)
    for call in (brain_volumes, skull_stripped, lambda own: scaled(own, [1.0])):
        with pytest.raises(DataError, match=r"Load them with label_maps.*or strip the skulls with a tool"):
            call(volumes)
    with pytest.raises(DataError, match="sub-001: its label map is empty"):
        brain_volumes(heads([0], tmp_path))


def test_transport_of_equal_numbers_is_the_best_assignment():
    rng = np.random.default_rng(0)
    source, target = rng.normal(10, 1, 6), rng.normal(12, 3, 6)
    best = min(
        itertools.permutations(range(6)), key=lambda order: ((source - target[list(order)]) ** 2).sum()
    )
    expected = target[list(best)][np.argsort(source)]
    np.testing.assert_allclose(transported(source, target), expected)
    cost = np.abs(np.sort(source) - transported(source, target)).mean()
    assert cost == pytest.approx(wasserstein_distance(source, target))


@pytest.mark.parametrize(("n", "m"), [(3, 5), (5, 3), (4, 6), (1, 4), (4, 1)])
def test_transport_of_other_numbers_is_the_projection_of_the_plan(n, m):
    rng = np.random.default_rng(n)
    source, target = rng.normal(10, 1, n), rng.normal(12, 3, m)
    # all mass in parts so small that both have whole numbers of them: the plan pairs them in order
    ends = np.repeat(np.sort(target), n)
    expected = ends.reshape(n, m).mean(axis=1)
    found = transported(source, target)
    np.testing.assert_allclose(found, expected)
    assert found.mean() == pytest.approx(target.mean())
    assert (np.diff(found) > -1e-12).all()
    plan_cost = np.abs(np.repeat(np.sort(source), m) - ends).mean()
    assert plan_cost == pytest.approx(wasserstein_distance(source, target))


def test_equal_sizes_go_to_one_place():
    np.testing.assert_allclose(
        transported(np.array([2.0, 1, 2, 3]), np.array([10.0, 20, 30, 40])), [10, 25, 40]
    )


def test_factors_make_the_distributions_one():
    rng = np.random.default_rng(1)
    sizes = np.concatenate([rng.normal(1400, 100, 30), rng.normal(1600, 120, 30)])
    groups = np.repeat(["F", "M"], 30)
    factors = optimal_scales(sizes, groups, onto="F")
    assert (factors[:30] == 1).all()
    assert len(np.unique(factors[30:])) == 30
    np.testing.assert_allclose(np.sort(sizes * factors**3)[::2], np.sort(sizes[:30]), rtol=1e-12)
    fewer = optimal_scales(sizes[:50], groups[:50], onto="M")
    assert (sizes[:50] * fewer**3)[:30].mean() == pytest.approx(sizes[30:50].mean())


def test_heads_that_are_not_fitted_on_lie_between_their_neighbours():
    sizes, groups = np.array([1.0, 2, 8, 16, 12, 40]), np.array([0, 0, 1, 1, 1, 1])
    fitted = np.array([True, True, True, True, False, False])
    found = optimal_scales(sizes, groups, onto=0, fitted_on=fitted)
    np.testing.assert_allclose(found[:4], optimal_scales(sizes[:4], groups[:4], onto=0))
    np.testing.assert_allclose(found**3, [1, 1, 1 / 8, 1 / 8, 1 / 8, 1 / 8])


def test_factors_of_nothing_are_refused():
    with pytest.raises(ParameterError, match="onto='X'; expected one of the groups 'F', 'M'"):
        optimal_scales([1.0, 2.0], ["F", "M"], onto="X")
    with pytest.raises(DataError, match="nobody of the group 'M' among the heads to fit on"):
        optimal_scales([1.0, 2.0], ["F", "M"], onto="F", fitted_on=[True, False])
    with pytest.raises(DataError, match="expected finite ones above 0"):
        optimal_scales([1.0, 0.0], ["F", "M"], onto="F")
    with pytest.raises(ShapeError, match="expected one of both for each head"):
        optimal_scales([1.0, 2.0], ["F"], onto="F")


def test_resized_brains_have_the_volume_asked_for(tmp_path):
    volumes = heads(
        [24, 24, 30], tmp_path, numbers={"brain (ml)": torch.tensor([58.0, 58, 113]), "age": torch.ones(3)}
    )
    found = scaled(volumes, [1.0, 0.8, 1.1], cache_dir=tmp_path)
    np.testing.assert_allclose(
        brain_volumes(found) / brain_volumes(volumes), np.array([1, 0.8, 1.1]) ** 3, rtol=0.1
    )
    assert torch.equal(found.images[0], volumes.images[0])
    assert set(np.unique(found.label_map(1))) == {0, 1, 2}
    assert found.images[1].sum() / volumes.images[1].sum() == pytest.approx(0.8**3, rel=0.01)
    for before, after in zip(volumes.label_maps[:, 0], found.label_maps[:, 0], strict=True):
        middles = [ndimage.center_of_mass(own.numpy() > 0) for own in (before, after)]
        np.testing.assert_allclose(*middles, atol=0.15)
    torch.testing.assert_close(found.numbers["brain (ml)"], torch.tensor([58, 58 * 0.512, 113 * 1.331]))
    assert torch.equal(found.numbers["age"], torch.ones(3))
    assert found.fingerprint() != volumes.fingerprint()


def test_resizing_asks_for_one_factor_above_0_for_each(tmp_path):
    volumes = heads([24], tmp_path)
    with pytest.raises(ShapeError, match="2 factors for 1 heads"):
        scaled(volumes, [1.0, 1.0])
    with pytest.raises(ParameterError, match=r"factor=0.0; expected a number above 0"):
        scaled(volumes, [0.0])


def test_stripped_heads_keep_their_brains(tmp_path):
    volumes = heads([20, 26], tmp_path)
    found = skull_stripped(volumes, cache_dir=tmp_path)
    inside = volumes.label_maps[:] > 0
    assert torch.equal(found.images[:], volumes.images[:] * inside)
    assert float((volumes.images[:] * ~inside).max()) > 0.3


def test_pairs_are_as_many_as_can_be_and_then_the_closest():
    sizes, groups = [10.0, 11, 20, 10.5, 12, 30], list("FFFMMM")
    # 10 with 10.5 and 11 with 12 are two pairs; the closest pair of all, 11 with 10.5, would leave one
    assert matched_subset(sizes, groups, 1.0).tolist() == [[0, 3], [1, 4]]
    assert matched_subset(sizes, groups, 0.6).tolist() in ([[0, 3]], [[1, 3]])
    rng = np.random.default_rng(0)
    sizes, groups = rng.normal(0, 1, 12) + 10, np.array(list("FM" * 6))
    women, men = np.flatnonzero(groups == "F"), np.flatnonzero(groups == "M")
    for tolerance in (0.1, 0.4, 1.0):
        found = matched_subset(sizes, groups, tolerance)
        gaps = [np.abs(sizes[women] - sizes[list(order)]) for order in itertools.permutations(men)]
        best = min((-(gap <= tolerance).sum(), gap[gap <= tolerance].sum()) for gap in gaps)
        own = np.abs(sizes[found[:, 0]] - sizes[found[:, 1]])
        assert (-len(found), own.sum()) == pytest.approx(best)
        assert set(groups[found[:, 0]]) == {"F"}


def test_no_pair_is_an_error():
    with pytest.raises(DataError, match="the closest differ by 9"):
        matched_subset([1.0, 10.0], ["F", "M"], 1.0)
    with pytest.raises(DataError, match="expected two of them to be matched"):
        matched_subset([1.0, 10.0], ["F", "F"], 1.0)
