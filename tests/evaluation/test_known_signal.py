"""Against slow references in float64: voxel by voxel, region by region."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import ndimage

from xaitools.errors import DataError, ParameterError, ShapeError
from xaitools.evaluation import known_signal, known_signal_means
from xaitools.evaluation.known_signal import _random_regions

SHAPE = (6, 7, 8)


def labels_of(rng):
    """Blocks of eight structures, outside them 0."""
    labels = np.zeros(SHAPE, dtype=np.int64)
    blocks = [(x, y, z) for x in (1, 3) for y in (1, 4) for z in (1, 4)]
    for number, (x, y, z) in enumerate(blocks, start=1):
        labels[x : x + 2, y : y + 2, z : z + 3] = number
    labels[rng.random(SHAPE) < 0.15] = 0
    return labels


@pytest.fixture
def scene():
    rng = np.random.default_rng(0)
    label_maps = np.stack([labels_of(rng) for _ in range(4)])
    return rng.normal(size=(4, *SHAPE)), label_maps


def slowly(values, labels, relevant, k):
    voxels = [(abs(values[place]), labels[place]) for place in np.ndindex(values.shape)]
    inside = [value for value, number in voxels if number in relevant]
    rest = [value for value, number in voxels if number and number not in relevant]
    wins = sum((one > other) + 0.5 * (one == other) for one in inside for other in rest)
    brain = sum(inside) + sum(rest)
    density = sum(inside) / len(inside)
    others = []
    for number in sorted({number for _, number in voxels} - {0, *relevant}):
        own = [value for value, found in voxels if found == number]
        others.append(sum(own) / len(own))
    rank = 1 + sum(other > density for other in others)
    size = len(inside) / (len(inside) + len(rest))
    return {
        "auc": wins / (len(inside) * len(rest)),
        "share": sum(inside) / brain,
        "size": size,
        "gain": sum(inside) / brain / size,
        "outside": 1 - brain / sum(value for value, _ in voxels),
        "rank": rank,
        "hit": float(rank <= k),
        "n_regions": len(others) + 1,
        "chance_labels": k / (len(others) + 1),
    }


@pytest.mark.parametrize("relevant", [[3], [2, 6]])
@pytest.mark.parametrize("k", [1, 3])
def test_measures_are_those_of_a_slow_reference(scene, relevant, k):
    maps, label_maps = scene
    table = known_signal({"one": maps, "two": np.roll(maps, 1)}, label_maps, relevant, k=k, n_permutations=5)
    assert table["method"].tolist() == ["one"] * 4 + ["two"] * 4
    assert table["image"].tolist() == [0, 1, 2, 3] * 2
    for _, row in table.iterrows():
        values = {"one": maps, "two": np.roll(maps, 1)}[row["method"]][row["image"]]
        for name, expected in slowly(values, label_maps[row["image"]], relevant, k).items():
            assert row[name] == pytest.approx(expected, rel=1e-12), name


def test_a_perfect_map_and_one_that_avoids_the_region(scene):
    _, label_maps = scene
    perfect = -(label_maps == 5).astype(float)  # the sign does not matter
    found = known_signal({"perfect": perfect, "avoids": 1.0 + perfect}, label_maps, [5], n_permutations=50)
    best, worst = (own.drop(columns="method") for _, own in found.groupby("method", sort=False))
    assert (best[["auc", "share", "hit", "rank"]] == 1).all(axis=None)
    assert (best["outside"] == 0).all()
    np.testing.assert_allclose(best["gain"], 1 / best["size"])
    assert (best["p"] <= 0.1).all()
    assert (worst[["auc", "share", "hit"]] == 0).all(axis=None)
    assert (worst["rank"] == worst["n_regions"]).all()
    assert (worst["p"] == 1).all()


def test_a_constant_map_is_at_chance_exactly(scene):
    _, label_maps = scene
    table = known_signal(np.full(label_maps.shape, 0.1), label_maps, [5], k=2, n_permutations=20)
    np.testing.assert_allclose(table["auc"], 0.5)
    np.testing.assert_allclose(table["gain"], 1)
    for rate in ("hit", "chance", "chance_labels"):
        np.testing.assert_allclose(table[rate], 2 / 8)
    np.testing.assert_allclose(table["rank"], 4.5)
    assert (table["p"] == 1).all()


def test_a_map_of_zeros_has_no_share_and_is_at_chance(scene):
    _, label_maps = scene
    table = known_signal(np.zeros(label_maps.shape), label_maps, [5], n_permutations=5)
    assert table[["share", "gain", "outside"]].isna().all(axis=None)
    np.testing.assert_allclose(table["auc"], 0.5)
    np.testing.assert_allclose(table["hit"], 1 / 8)


def test_chance_is_the_rate_of_hits_of_maps_that_know_nothing():
    """Small regions of noise are the densest more often than one of k by n: random regions tell how often."""
    rng = np.random.default_rng(1)
    labels = np.ones((14, 14, 14), dtype=np.int64)
    labels[:7], labels[:, :7] = 2, 3
    labels[3:6, 3:6, 8:11] = 4
    noise = np.stack(
        [ndimage.gaussian_filter(rng.normal(size=labels.shape), 0.8, mode="wrap") for _ in range(120)]
    )
    table = known_signal(noise, labels[None], [4], n_permutations=9, seed=3)
    rate = table["hit"].mean()
    assert rate > 0.3  # one of four were 0.25
    assert abs(table["chance"].mean() - rate) < 0.1
    assert abs((table["p"] <= 0.2).mean() - 0.2) < 0.1


@pytest.mark.parametrize("relevant", [[3], [2, 6], [1, 2, 3, 4, 5, 6, 7]])
def test_random_regions_are_as_large_as_the_region_and_differ(scene, relevant):
    for labels in scene[1]:
        regions = _random_regions(labels, relevant, 30, (0, 0))
        assert regions.shape == (30, (labels > 0).sum())
        assert (regions.sum(axis=1) == np.isin(labels, relevant).sum()).all()
        assert len({own.tobytes() for own in regions}) > 10


def test_random_regions_have_the_shape_of_the_region_where_there_is_room():
    labels = np.zeros((20, 20, 20), dtype=np.int64)
    labels[2:18, 2:18, 2:18] = 1
    labels[8:10, 8:12, 8:9] = 2
    for own in _random_regions(labels, [2], 40, (0, 0)):
        places = np.argwhere(labels > 0)[own]
        lengths = np.ptp(places, axis=0) + 1
        if places.min() > 2 and places.max() < 17:
            assert sorted(lengths) == [1, 2, 4]
        assert len(places) == 8
        assert np.ptp(places, axis=0).max() < 7


def test_regions_by_name_merge_numbers_and_leave_out_the_relevant_one(scene):
    maps, label_maps = scene
    regions = {"relevant too": [5, 6], "front": [1, 2], "back": [3, 4], "elsewhere": [99]}
    table = known_signal(maps, label_maps, [5], regions=regions, n_permutations=3)
    merged = np.where(np.isin(label_maps, [1, 2]), 1, np.where(np.isin(label_maps, [3, 4]), 3, label_maps))
    for image, row in table.iterrows():
        density = [np.abs(maps[image])[merged[image] == number].mean() for number in (5, 1, 3)]
        assert row["rank"] == 1 + (np.array(density[1:]) > density[0]).sum()
        assert row["n_regions"] == 3


def test_what_the_arrays_are_called_or_shaped_like_changes_nothing(scene):
    maps, label_maps = scene
    expected = known_signal(maps, label_maps, [3], seed=4)
    assert (expected["method"] == "map").all()
    for own_maps, own_labels in (
        (torch.from_numpy(maps)[:, None], torch.from_numpy(label_maps)[:, None]),
        ({"map": 3 * maps[:, None]}, label_maps.astype(np.int16)),
    ):
        pd.testing.assert_frame_equal(known_signal(own_maps, own_labels, [3], seed=4), expected)
    one = known_signal(maps[[0, 0]], label_maps[:1, None], [3], seed=4)
    first = one.loc[0, "auc":"rank"]
    assert (first == expected.loc[0, "auc":"rank"]).all()
    assert (first == one.loc[1, "auc":"rank"]).all()
    slices = known_signal(maps[:, 2:3], label_maps[:, 2], [1], n_permutations=2)
    pd.testing.assert_frame_equal(slices, known_signal(maps[:, 2], label_maps[:, 2], [1], n_permutations=2))


def test_an_image_without_the_region_has_nan_and_no_say_in_the_means(scene):
    maps, label_maps = scene
    label_maps[2][label_maps[2] == 5] = 1
    table = known_signal(maps, label_maps, [5], n_permutations=9)
    assert table.drop(columns=["method", "image"]).isna().all(axis=1).tolist() == [False, False, True, False]
    means = known_signal_means(table).set_index("measure")
    assert (means["n"] == 3).all()
    assert means.loc["auc", "value"] == pytest.approx(table["auc"].mean())


def test_means_have_intervals_and_one_image_none(scene):
    maps, label_maps = scene
    table = known_signal(maps, label_maps, [5], n_permutations=9)
    means = known_signal_means(table).set_index("measure")
    assert means.loc["excess", "value"] == pytest.approx((table["hit"] - table["chance"]).mean())
    assert (means["low"] <= means["value"]).all()
    assert (means["value"] <= means["high"]).all()
    alone = known_signal_means(known_signal(maps[:1], label_maps[:1], [5], n_permutations=9))
    assert alone[["low", "high"]].isna().all(axis=None)
    assert alone["value"].notna().all()
    without = known_signal(maps, label_maps, [5], n_permutations=0)
    assert without[["chance", "p"]].isna().all(axis=None)
    assert known_signal_means(without).set_index("measure").loc["chance", "n"] == 0


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"relevant": []}, ParameterError, r"relevant=\[\]"),
        ({"relevant": [0, 1]}, ParameterError, r"relevant=\[0, 1\]"),
        ({"relevant": [77]}, DataError, "in none of the 4 label maps"),
        ({"k": 0}, ParameterError, "k=0"),
        ({"k": 8}, ParameterError, "k=8 among the 8 regions of label map 0"),
        ({"n_permutations": -1}, ParameterError, "n_permutations=-1"),
        ({"relevant": [1, 2, 3, 4, 5, 6, 7, 8]}, DataError, "nothing but the relevant region"),
        ({"maps": np.zeros((4, 6, 7, 9))}, ShapeError, "expected one grid"),
        ({"maps": np.zeros((3, *SHAPE))}, ShapeError, "4 label maps for 3 maps"),
        ({"maps": np.zeros((4, 6))}, ShapeError, r"\(n, \*spatial\)"),
        ({"maps": np.full((4, *SHAPE), np.nan)}, DataError, "NaN"),
        ({"maps": {}}, DataError, "got none"),
        ({"label_maps": np.zeros((4, *SHAPE))}, DataError, "whole numbers"),
    ],
)
def test_what_does_not_fit_is_refused(scene, change, error, message):
    maps, label_maps = scene
    options = {"maps": maps, "label_maps": label_maps, "relevant": [1], "n_permutations": 2} | change
    with pytest.raises(error, match=message):
        known_signal(**options)
