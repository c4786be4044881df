import numpy as np
import pytest

from xaitools.evaluation._orders import RANDOM, curve_names, inverse, ranks, share_rankings, share_sets

COUNTS = [0, 2, 3, 6]


def example() -> np.ndarray:
    """Ranks of six items: two equal orders, one that differs in its first two items, the reverses and random ones."""
    values = [
        np.array(own, dtype=float) for own in ([6, 5, 4, 3, 2, 1], [60, 50, 9, 3, 2, 1], [5, 6, 4, 3, 2, 1])
    ]
    return ranks(values, 3, (0, 1))


def test_ranks_and_their_names() -> None:
    found = example()
    assert curve_names(["a", "b", "c"], 3) == [
        *((name, order) for order in ("most", "least") for name in "abc"),
        *[RANDOM] * 3,
    ]
    assert curve_names(["a", "b"], 0) == [("a", "most"), ("b", "most")]
    np.testing.assert_array_equal(found[:3], [[0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5], [1, 0, 2, 3, 4, 5]])
    np.testing.assert_array_equal(found[3:6], 5 - found[:3])
    assert all(sorted(own) == list(range(6)) for own in found.tolist())
    np.testing.assert_array_equal(inverse(found[-1]), np.argsort(found[-1]))


@pytest.mark.parametrize("share", [share_rankings, share_sets])
def test_shared_states_are_those_of_each_order(share) -> None:
    table = example()
    states, index = share(table, COUNTS)
    asked = [frozenset(np.flatnonzero(table[row] < count)) for row, count in states]
    for row, own in enumerate(table):
        for step, count in enumerate(COUNTS):
            assert asked[index[row, step]] == frozenset(np.flatnonzero(own < count))
    distinct = {frozenset(np.flatnonzero(own < count)) for own in table for count in COUNTS}
    orders = len({own.tobytes() for own in table})
    assert len(states) == (len(distinct) if share is share_sets else 2 + orders * 2)
    assert len(distinct) < 2 + orders * 2
