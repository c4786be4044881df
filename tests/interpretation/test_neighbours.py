"""Nearest neighbours in the space of a layer's features."""

import numpy as np
import pytest
import torch
from torch import nn

from xaitools.errors import DataError, ParameterError, ShapeError
from xaitools.interpretation import nearest_neighbours

FLAT = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))  # the features are the voxels


def images(rows) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float32).view(-1, 1, 2, 2)


def brute_force(own: np.ndarray, theirs: np.ndarray, metric: str) -> np.ndarray:
    def distance(a, b):
        if metric == "euclidean":
            return np.sqrt(((a - b) ** 2).sum())
        return 1 - (a * b).sum() / np.sqrt((a**2).sum() * (b**2).sum())

    return np.array([[distance(a, b) for b in theirs] for a in own])


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_the_nearest_by_brute_force(metric: str) -> None:
    rng = np.random.default_rng(0)
    own, theirs = rng.random((6, 4)), rng.random((9, 4))
    found = nearest_neighbours(FLAT, images(own), images(theirs), k=3, metric=metric)
    expected = brute_force(own, theirs, metric)
    order = np.argsort(expected, axis=1)[:, :3]
    np.testing.assert_array_equal(found.neighbour.to_numpy().reshape(6, 3), order)
    np.testing.assert_allclose(
        found.distance.to_numpy().reshape(6, 3), np.take_along_axis(expected, order, 1), atol=1e-6
    )
    assert found["rank"].tolist() == [1, 2, 3] * 6


def test_the_metrics_differ_where_they_should() -> None:
    query, scaled, near = [1, 1, 0, 0], [9, 9, 0, 0], [1, 0.5, 0, 0]
    chosen = {
        metric: nearest_neighbours(FLAT, images([query]), images([scaled, near]), k=1, metric=metric)
        for metric in ("cosine", "euclidean")
    }
    assert chosen["cosine"].neighbour.tolist() == [0]
    assert chosen["euclidean"].neighbour.tolist() == [1]


def test_no_image_is_its_own_neighbour() -> None:
    rng = np.random.default_rng(1)
    stack = images(rng.random((5, 4)))
    among = nearest_neighbours(FLAT, stack, k=4)
    assert (among["query"] != among.neighbour).all()
    within = nearest_neighbours(FLAT, stack[:2], stack, k=4)
    assert (within["query"] != within.neighbour).all()
    assert (within.distance > 0).all()


def test_a_subjects_other_images_are_passed_over() -> None:
    stack = images([[1, 0, 0, 0], [1, 0.01, 0, 0], [0, 1, 0, 0]])
    ids = ("sub-1", "sub-1", "sub-2")
    assert nearest_neighbours(FLAT, stack, k=1).neighbour.tolist() == [1, 0, 1]
    assert nearest_neighbours(FLAT, stack, k=1, subjects=ids).neighbour.tolist() == [2, 2, 1]
    found = nearest_neighbours(FLAT, stack[:1], stack, k=1, subjects=ids[:1], reference_subjects=ids)
    assert found.neighbour.tolist() == [2]


def test_refusals() -> None:
    stack = images(np.eye(4)[:3])
    with pytest.raises(ParameterError, match="k=3, but an image has 2 references other than itself"):
        nearest_neighbours(FLAT, stack, k=3)
    with pytest.raises(ParameterError, match="metric='manhattan' is unknown"):
        nearest_neighbours(FLAT, stack, metric="manhattan")
    with pytest.raises(DataError, match="both or neither"):
        nearest_neighbours(FLAT, stack, stack, k=1, subjects=("a", "b", "c"))
    with pytest.raises(ShapeError, match="2 subjects for 3 images"):
        nearest_neighbours(FLAT, stack, k=1, subjects=("a", "b"))
    with pytest.raises(DataError, match="all 0, so they have no cosine"):
        nearest_neighbours(FLAT, torch.cat([stack, 0 * stack[:1]]), k=1)
