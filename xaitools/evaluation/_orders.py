"""In which order the parts of an image are perturbed, and which perturbed images several orders have in common.

A rank is the position of each item (a pixel, or a window) in an order: 0 is perturbed first.
"""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float, Int64

Curve = tuple[str, str]
Ranks = Int64[np.ndarray, "order item"]
State = tuple[int, int]
"""A perturbed image: number of an order, and how many items are perturbed in it."""

Sharing = tuple[list[State], Int64[np.ndarray, "order step"]]
"""Distinct perturbed images, and which of them each order has at each step."""

RANDOM: Curve = ("random", "random")


def curve_names(maps: Sequence[str], n_random: int) -> list[Curve]:
    """Name of the map and order, for each of the :func:`ranks`."""
    most = [(name, "most") for name in maps]
    return most + [(name, "least") for name in maps] + [RANDOM] * n_random if n_random else most


def ranks(
    maps: Sequence[Float[np.ndarray, " item"]],
    n_random: int,
    seed: tuple[int, int],
    draw: Callable[[np.random.Generator, int], Int64[np.ndarray, " item"]] = np.random.Generator.permutation,
) -> Ranks:
    """Ranks of one image's items: for each map the most relevant first, then the controls.

    Items of equal relevance are ranked by one random order that all maps share. The controls are, for each map, the
    least relevant first (its exact reverse), and `n_random` random orders by `draw`; 0 leaves all of them out.
    """
    n_items = len(maps[0])
    scattered = np.random.default_rng([*seed, 0]).permutation(n_items)
    most = [inverse(scattered[np.argsort(-values[scattered], kind="stable")]) for values in maps]
    if not n_random:
        return np.array(most)
    rng = np.random.default_rng([*seed, 1])
    return np.array(
        [*most, *(n_items - 1 - own for own in most), *(draw(rng, n_items) for _ in range(n_random))]
    )


def inverse(order: Int64[np.ndarray, " item"]) -> Int64[np.ndarray, " item"]:
    """The rank of each item in an order of items, or the order of items by their ranks."""
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return rank


def share_rankings(ranks: Ranks, counts: Sequence[int]) -> Sharing:
    """What orders share that are equal throughout; all orders share the untouched and the whole perturbed image."""
    first: dict[bytes, int] = {}
    number: dict[State, int] = {}
    index = np.empty((len(ranks), len(counts)), dtype=int)
    for row, own in enumerate(ranks):
        same = first.setdefault(own.tobytes(), row)
        for step, count in enumerate(counts):
            state = (0 if count in (0, ranks.shape[1]) else same, count)
            index[row, step] = number.setdefault(state, len(number))
    return list(number), index


def share_sets(ranks: Ranks, counts: Sequence[int]) -> Sharing:
    """What orders share that reach the same set of items, in whatever order; for items of which there are few."""
    sets = ranks[:, None] < np.array(counts)[:, None]
    _, first, index = np.unique(
        sets.reshape(-1, ranks.shape[1]), axis=0, return_index=True, return_inverse=True
    )
    states = [(int(row), counts[step]) for row, step in zip(*np.divmod(first, len(counts)), strict=True)]
    return states, index.reshape(sets.shape[:2])
