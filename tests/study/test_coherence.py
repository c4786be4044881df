import numpy as np
import pandas as pd
import pytest

from xaitools.evaluation import mean_over_pairs
from xaitools.study import between_runs, coherence_of_noise, coherence_of_runs, steadiest

REGIONS = list("abcdefgh")
SIZES = pd.Series(100, index=REGIONS)


def table(*runs):
    """Regions of each run in the order of their relevance, the most relevant first."""
    rows = [
        {"map": number, "region": region, "sum": 8 - rank, "density": 8 - rank, "gain": rank + 1}
        for number, order in enumerate(runs)
        for rank, region in enumerate(order)
    ]
    return pd.DataFrame(rows)


def test_regions_in_common_are_counted_by_method_and_measure(run, recorded):
    tables = {"gradient": table("abcdefgh", "abcdefgh"), "occlusion[3]": table("abcdefgh", "efghabcd")}
    means, matrices = coherence_of_runs(run, tables, 4, network="net")
    assert means.to_dict("index") == {
        "gradient": {"sum": 100.0, "density": 100.0, "gain": 100.0},
        "occlusion[3]": {"sum": 0.0, "density": 0.0, "gain": 0.0},
    }
    np.testing.assert_array_equal(matrices["occlusion[3]"]["sum"], [[100, 0], [0, 100]])
    assert recorded()["occlusion[3]", "top-4 coherence, gain"] == 0.0


def test_noise_agrees_as_far_as_the_sizes_of_regions_make_it(run, recorded):
    one_large = pd.Series([10_000, *[10] * 7], index=REGIONS)
    noise = coherence_of_noise(run, one_large, 1)
    assert noise["sum"] == 100
    assert noise["gain"] < 60
    assert recorded()["", "top-1 coherence of noise, sum"] == 100


def shares(**values):
    return pd.Series(values, name="density")


def test_the_steadiest_beats_noise_or_does_not():
    first = steadiest(shares(a=100.0, b=99.8, c=75.0), SIZES, 4, 50.0, n_runs=4)
    assert (first.name, first.tied, first.beats_control, first.control) == ("a", ("b",), True, 50.0)
    assert not steadiest(shares(a=50.0, b=40.0), SIZES, 4, 50.0, n_runs=4).beats_control


def test_what_two_runs_reach_by_luck_is_no_merit_but_ten_runs_do_not_reach_it():
    same = {"sizes": SIZES, "k": 4, "noise": 50.0}
    assert not steadiest(shares(a=75.0), **same, n_runs=2).beats_control
    assert steadiest(shares(a=75.0), **same, n_runs=10).beats_control


@pytest.mark.parametrize("n_runs", [2, 3, 10])
def test_the_diagonal_is_taken_out_of_a_printed_mean(n_runs):
    values = np.random.default_rng(0).uniform(0, 100, (n_runs, n_runs))
    matrix = (values + values.T) / 2
    np.fill_diagonal(matrix, 100)
    assert between_runs(mean_over_pairs(matrix, diagonal=True), n_runs) == pytest.approx(
        mean_over_pairs(matrix)
    )
