import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from xaitools.atlas import Atlas, region_table
from xaitools.errors import DataError, ParameterError, ShapeError
from xaitools.evaluation.agreement import (
    cosine,
    mean_maps,
    mean_over_pairs,
    noise_coherence,
    pairwise_l2,
    rank_correlation,
    recovered_regions,
    top_k,
    top_k_intersection,
)

MATRICES = [pairwise_l2, cosine, rank_correlation]
SHAPES = [(5,), (4, 6), (3, 4, 5)]
LABELS = [0, 0, 0, 1, 1, 1]
PREDICTIONS = [[0, 1, 0, 1, 0, 1], [0, 0, 0, 1, 1, 1]]


def example(shape, runs=4, seed=0):
    return np.random.default_rng(seed).standard_normal((runs, *shape)).astype(np.float32)


def make_table(values, measure="sum"):
    """A row for each map and region: values (maps, regions)."""
    values = np.asarray(values, dtype=float)
    names = [f"region {index}" for index in range(values.shape[1])]
    rows = [
        (run, name, value) for run, row in enumerate(values) for name, value in zip(names, row, strict=True)
    ]
    return pd.DataFrame(rows, columns=["map", "region", measure])


# Mean maps


@pytest.mark.parametrize("label", [1, 0])
@pytest.mark.parametrize("shape", SHAPES)
def test_mean_maps_agree_with_the_definition(shape, label):
    maps = example((6, *shape), runs=2)
    for scale in (True, False):
        found = mean_maps(maps, PREDICTIONS, LABELS, label=label, scale=scale)
        for run in range(2):
            total, n = np.zeros(shape), 0
            for index in range(6):
                if LABELS[index] == label and PREDICTIONS[run][index] == label:
                    total, n = total + maps[run, index], n + 1
            expected = total / n
            expected = expected / np.abs(expected).max() if scale else expected
            np.testing.assert_allclose(found[run], expected, rtol=1e-6)


def test_scaled_mean_maps_reach_1_and_keep_their_sign():
    maps = example((6, 4, 4), runs=2)
    found = mean_maps(maps, PREDICTIONS, LABELS)
    np.testing.assert_allclose(np.abs(found).max(axis=(1, 2)), 1)
    np.testing.assert_array_equal(mean_maps(-maps, PREDICTIONS, LABELS), -found)
    np.testing.assert_allclose(mean_maps(1024 * maps, PREDICTIONS, LABELS), found, rtol=1e-12)


def test_mean_maps_take_tensors_and_generators():
    maps = example((6, 1, 4, 4), runs=2)
    expected = mean_maps(maps, PREDICTIONS, LABELS)
    tensors = (torch.from_numpy(own).requires_grad_() for own in maps)
    found = mean_maps(tensors, [torch.tensor(own) for own in PREDICTIONS], torch.tensor(LABELS))
    np.testing.assert_array_equal(found, expected)
    halves = mean_maps([torch.from_numpy(maps[0]).bfloat16()], PREDICTIONS[:1], LABELS)
    np.testing.assert_allclose(halves[0], expected[0], atol=0.02)
    booleans = mean_maps(maps, np.array(PREDICTIONS, dtype=bool), np.array(LABELS, dtype=bool))
    np.testing.assert_array_equal(booleans, expected)


@pytest.mark.parametrize(
    ("maps", "predictions", "labels", "error", "message"),
    [
        (
            np.ones((1, 6, 2)),
            [[0] * 6],
            LABELS,
            DataError,
            "run 1 of 1 predicts none of the 3 images of class 1",
        ),
        (
            np.stack([np.ones((6, 2)), np.zeros((6, 2))]),
            [LABELS] * 2,
            LABELS,
            DataError,
            "mean map of run 2 of 2 is 0 everywhere",
        ),
        (np.full((1, 6, 2), np.nan), [LABELS], LABELS, DataError, "maps of run 1 of 1 have NaN"),
        (
            np.ones((1, 6, 2)),
            [[0.2] * 6],
            LABELS,
            DataError,
            "predictions of run 1 of 1 .* turn probabilities into",
        ),
        (np.ones((1, 6, 2)), [[LABELS] * 2], LABELS, DataError, r"shape \(2, 6\)"),
        (np.ones((1, 6, 2)), [LABELS], [0.0] * 6, DataError, "labels of type float64"),
        (np.ones((1, 5, 2)), [LABELS], LABELS, ShapeError, "5 maps and 6 predictions for 6 labels"),
        (np.ones((1, 6, 2)), [LABELS[1:]], LABELS, ShapeError, "6 maps and 5 predictions"),
        (np.ones((2, 6, 2)), [LABELS], LABELS, ShapeError, "not as many runs of maps as of predictions"),
        (np.ones((1, 6, 2)), [LABELS, LABELS], LABELS, ShapeError, "not as many runs"),
        ([np.ones((6, 2)), np.ones((6, 3))], [LABELS, LABELS], LABELS, ShapeError, "different sizes"),
        ([], [], LABELS, DataError, "there is no run"),
    ],
)
def test_mean_maps_refuse_what_has_no_mean(maps, predictions, labels, error, message):
    with pytest.raises(error, match=message):
        mean_maps(maps, predictions, labels)


# Matrices


def slow_l2(a, b):
    return sum((float(x) - float(y)) ** 2 for x, y in zip(a, b, strict=True)) ** 0.5


def slow_cosine(a, b):
    product = sum(float(x) * float(y) for x, y in zip(a, b, strict=True))
    return product / (slow_l2(a, 0 * a) * slow_l2(b, 0 * b))


def slow_spearman(a, b):
    return spearmanr(a.astype(float), b.astype(float)).statistic


@pytest.mark.parametrize("rounded", [False, True], ids=["distinct", "ties"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("measure", "slow"), [(pairwise_l2, slow_l2), (cosine, slow_cosine), (rank_correlation, slow_spearman)]
)
def test_matrices_agree_with_the_definitions(measure, slow, shape, rounded):
    maps = example(shape)
    maps = np.round(maps) + 0.5 * (maps > 0) if rounded else maps
    flat = maps.reshape(len(maps), -1)
    expected = [[slow(first, second) for second in flat] for first in flat]
    np.testing.assert_allclose(measure(maps), expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(measure(torch.from_numpy(maps)), measure(maps))


@pytest.mark.parametrize("measure", MATRICES)
def test_matrices_are_symmetric_and_know_a_run_again(measure):
    maps = example((4, 5), seed=1)
    maps[2] = maps[0]
    matrix = measure(maps)
    same = 0 if measure is pairwise_l2 else 1
    np.testing.assert_array_equal(matrix, matrix.T)
    np.testing.assert_array_equal(np.diag(matrix), same)
    assert matrix[0, 2] == pytest.approx(same, abs=1e-14)
    assert matrix[0, 1] != pytest.approx(same, abs=0.1)


@pytest.mark.parametrize("measure", MATRICES)
def test_matrices_follow_the_runs_and_not_the_order_of_voxels(measure):
    maps = example((4, 5), seed=2)
    matrix = measure(maps)
    order = [2, 0, 3, 1]
    np.testing.assert_allclose(measure(maps[order]), matrix[np.ix_(order, order)], atol=1e-14)
    shuffled = maps.reshape(4, -1)[:, np.random.default_rng(0).permutation(20)]
    np.testing.assert_allclose(measure(shuffled), matrix, atol=1e-14)


def test_matrices_scale_as_they_should():
    maps = example((30,), seed=3)
    np.testing.assert_allclose(pairwise_l2(4 * maps), 4 * pairwise_l2(maps))
    np.testing.assert_allclose(cosine(maps * np.array([[1], [2], [4], [8]])), cosine(maps), atol=1e-14)
    np.testing.assert_array_equal(rank_correlation(np.exp(maps)), rank_correlation(maps))
    opposite = np.stack([maps[0], -maps[0]])
    assert cosine(opposite)[0, 1] == pytest.approx(-1)
    assert rank_correlation(opposite)[0, 1] == pytest.approx(-1)


def test_values_of_any_size_keep_their_angle():
    maps = example((30,), seed=3).astype(np.float64)
    np.testing.assert_allclose(cosine(1e-200 * maps), cosine(maps), atol=1e-14)
    np.testing.assert_allclose(cosine(1e200 * maps), cosine(maps), atol=1e-14)


@pytest.mark.parametrize("measure", MATRICES)
@pytest.mark.parametrize(
    ("maps", "message"),
    [
        (np.ones((1, 4)), "number of runs: 1; agreement needs at least two runs"),
        (np.ones((0, 4)), "at least two runs"),
        (np.ones(4), "at least two runs"),
        (np.ones((2, 0)), "at least two runs"),
        (np.array([[1.0, 2], [3, np.nan]]), "run 2 of 2 has NaN or infinite values"),
        (np.array([[np.inf, 2], [3, 1]]), "run 1 of 2 has NaN or infinite values"),
    ],
)
def test_matrices_refuse_too_few_runs_and_nan(measure, maps, message):
    with pytest.raises(DataError, match=message):
        measure(maps)


def test_runs_without_direction_or_ranks_are_refused():
    with pytest.raises(DataError, match="run 2 of 2 is 0 everywhere"):
        cosine(np.array([[1.0, 2], [0, 0]]))
    with pytest.raises(DataError, match="run 2 of 2 has one value only"):
        rank_correlation(np.array([[1.0, 2], [3, 3]]))


# Regions


def test_top_k_are_the_largest_in_order():
    table = make_table([[3, 9, 1, 5], [4, 4, 8, 4]])
    assert top_k(table, 2) == [["region 1", "region 3"], ["region 2", "region 0"]]
    assert top_k(table, 4)[1] == ["region 2", "region 0", "region 1", "region 3"]
    backwards = table[::-1]
    assert top_k(backwards, 4) == top_k(table, 4)[::-1]


def test_top_k_of_another_measure_without_nan_and_with_inf():
    table = make_table([[np.nan, 2, np.inf, -1]], "gain")
    assert top_k(table, 3, measure="gain") == [["region 2", "region 1", "region 3"]]
    with pytest.raises(
        DataError, match=r"map 1 of 1 \(0 in the table\) has gain in 3 regions only; expected k=4"
    ):
        top_k(table, 4, measure="gain")


@pytest.mark.parametrize(
    ("table", "k", "error", "message"),
    [
        (make_table([[1, 2]]), 0, ParameterError, "k=0"),
        (make_table([[1, 2]]), 3, DataError, "in 2 regions only; expected k=3"),
        (make_table([[1, 2]], "density"), 1, DataError, r"no column \['sum'\]"),
        (
            pd.concat([make_table([[1, 2]])] * 2),
            1,
            DataError,
            r"'region 0' stands twice in map 1 of 1 \(0 in the table\)",
        ),
        (make_table(np.ones((0, 2))), 1, DataError, "the table is empty"),
    ],
)
def test_top_k_refuses_tables_that_rank_nothing(table, k, error, message):
    with pytest.raises(error, match=message):
        top_k(table, k)
    with pytest.raises(error, match=message):
        recovered_regions(table, ["region 0"], k)


def test_intersections_agree_with_the_definition():
    runs = [["a", "b", "c", "d"], ["d", "c", "x", "y"], ["b", "a", "d", "c"], ["p", "q", "r", "s"]]
    expected = [[100, 50, 100, 0], [50, 100, 50, 0], [100, 50, 100, 0], [0, 0, 0, 100]]
    np.testing.assert_array_equal(top_k_intersection(runs), expected)
    order = [3, 1, 0, 2]
    permuted = top_k_intersection([runs[index][::-1] for index in order])
    np.testing.assert_array_equal(permuted, np.array(expected)[np.ix_(order, order)])


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        ([], "number of runs: 0"),
        ([["a"]], "number of runs: 1; agreement needs at least two"),
        ([["a"], ["a", "b"]], r"the runs have \[1, 2\] regions"),
        ([[], []], r"the runs have \[0\] regions"),
        ([["a", "a"], ["a", "b"]], "stands twice in the list of a run"),
    ],
)
def test_intersections_refuse_uneven_runs(runs, message):
    with pytest.raises(DataError, match=message):
        top_k_intersection(runs)


def test_mean_over_pairs():
    matrix = np.array([[100.0, 20, 40], [20, 100, 60], [40, 60, 100]])
    assert mean_over_pairs(matrix) == pytest.approx(40)
    assert mean_over_pairs(matrix, diagonal=True) == pytest.approx(60)
    with pytest.raises(ShapeError, match=r"shape \(2, 3\); expected \(runs, runs\)"):
        mean_over_pairs(np.ones((2, 3)))
    with pytest.raises(DataError, match="number of runs: 1"):
        mean_over_pairs(np.ones((1, 1)))


def test_the_published_coherence_includes_the_diagonal():
    """Table 2 of the paper, ten runs and ten regions: one reading gives all its numbers, the other only 78.00."""
    published = [72.6, 69.0, 46.4, 96.6, 80.6, 68.6, 96.8, 88.4, 78.0, 84.6, 74.2, 67.8]
    fits = {True: 0, False: 0}
    for value in published:
        for diagonal, common in ((True, (10 * value - 100) / 2), (False, 45 * value / 10)):
            matrix = np.full((10, 10), 100.0)
            matrix[~np.eye(10, dtype=bool)] = (
                10 * round(common) / 45
            )  # so many regions in common over 45 pairs
            fits[diagonal] += abs(mean_over_pairs(matrix, diagonal=diagonal) - value) < 0.005
    assert fits == {True: 12, False: 1}


# Known truth


def test_recovery_agrees_with_the_definitions():
    values = np.round(np.random.default_rng(4).standard_normal((5, 12)), 1)
    table, true = make_table(values), ["region 2", "region 5", "region 11"]
    found = recovered_regions(table, true, k=4)
    assert list(found.columns) == ["map", "precision", "recall", "auc"]
    marked = np.isin(np.arange(12), [2, 5, 11])
    for row, own in zip(found.itertuples(), values, strict=True):
        hits = len(set(np.argsort(-own, kind="stable")[:4]) & {2, 5, 11})
        assert (row.precision, row.recall) == (hits / 4, hits / 3)
        assert row.auc == pytest.approx(roc_auc_score(marked, own), abs=1e-12)


def test_perfect_reversed_and_constant_maps():
    table = make_table([[9, 8, 1, 2, 0], [0, 1, 9, 8, 7], [3, 3, 3, 3, 3]])
    found = recovered_regions(table, ["region 0", "region 1"], k=2)
    assert found["auc"].tolist() == [1, 0, 0.5]
    assert found["precision"].tolist()[:2] == [1, 0]
    assert found["recall"].tolist()[:2] == [1, 0]


def test_regions_without_a_value_are_left_out():
    table = make_table([[5, np.nan, 1, 7]], "density")
    assert recovered_regions(table, ["region 0"], 2, measure="density")["auc"][0] == 0.5
    tables = pd.concat([make_table([[5, 6, 1, 7]], "density").assign(map="first"), table])
    with pytest.raises(
        DataError, match=r"map 2 of 2 \(0 in the table\) has no density for .* \['region 1'\]"
    ):
        recovered_regions(tables, ["region 1"], 2, measure="density")


@pytest.mark.parametrize(
    ("true", "message"),
    [
        (["hippocampus"], r"no sum for the true regions \['hippocampus'\]"),
        ([], "0 of 2 regions are true"),
        (["region 0", "region 1"], "2 of 2 regions are true"),
    ],
)
def test_truth_that_marks_nothing_is_refused(true, message):
    with pytest.raises(DataError, match=message):
        recovered_regions(make_table([[1, 2]]), true, 1)


def test_from_maps_to_coherence():
    """Three runs that mark the planted regions 1 and 2 of nine, one of them faintly, beside noise."""
    rng = np.random.default_rng(5)
    labels = np.kron(np.arange(1, 10).reshape(3, 3, 1), np.ones((4, 4, 4), np.int32)).astype(np.int32)
    atlas = Atlas(labels, np.eye(4), {index: f"region {index}" for index in range(1, 10)})
    maps = rng.standard_normal((3, 6, *labels.shape)).astype(np.float32) / 10
    maps += np.array([1, 1, 0.05]).reshape(3, 1, 1, 1, 1) * np.isin(labels, [1, 2])
    means = mean_maps(maps, [LABELS] * 3, LABELS)
    table = region_table(means, atlas)
    assert [set(names) for names in top_k(table, 2)] == [{"region 1", "region 2"}] * 3
    assert mean_over_pairs(top_k_intersection(top_k(table, 2))) == 100
    assert (
        recovered_regions(table, ["region 1", "region 2"], 2)[["precision", "recall", "auc"]].min().min() == 1
    )
    distance = pairwise_l2(means)
    assert distance[0, 1] < distance[0, 2]
    by_region = table.pivot(index="map", columns="region", values="density").to_numpy()
    assert cosine(by_region)[0, 1] > cosine(by_region)[0, 2]
    assert rank_correlation(means)[0, 1] < 1


def test_noise_agrees_on_the_largest_regions() -> None:
    sizes = np.random.default_rng(0).integers(2, 60, size=40)
    for measure in ("sum", "density", "gain"):
        found = noise_coherence(sizes, 8, measure=measure, pairs=400)
        assert abs(found - slow_noise_coherence(sizes, 8, measure, pairs=400)) < 4
    assert noise_coherence([10**6, 10**6, 10, 10, 10], 2) == 100
    assert noise_coherence(np.full(20, 50), 5, measure="density", pairs=4000) == pytest.approx(25, abs=1)


def slow_noise_coherence(sizes: np.ndarray, k: int, measure: str, pairs: int) -> float:
    """From noise in every voxel."""
    rng = np.random.default_rng(1)

    def top() -> set[int]:
        sums = np.array([np.abs(rng.standard_normal(n)).sum() for n in sizes])
        others = np.array([np.abs(rng.standard_normal(n)).sum() for n in sizes])
        values = {"sum": sums, "density": sums / sizes, "gain": sums / others}[measure]
        return set(np.argsort(-values)[:k].tolist())

    return float(np.mean([100 * len(top() & top()) / k for _ in range(pairs)]))


@pytest.mark.parametrize(
    ("sizes", "options", "error", "message"),
    [
        ([5, 5], {"k": 3}, DataError, "2 regions, the smallest of 5 voxels; expected k=3"),
        ([5, 0, 7], {"k": 2}, DataError, "the smallest of 0 voxels"),
        ([5, 5], {"k": 0}, ParameterError, "k=0"),
        ([5, 5], {"k": 1, "measure": "volume"}, ParameterError, "measure='volume'"),
    ],
)
def test_noise_needs_regions(sizes, options, error, message) -> None:
    with pytest.raises(error, match=message):
        noise_coherence(sizes, **options)
