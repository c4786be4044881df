"""Images that a network takes for alike: the nearest neighbours in the space of its features."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from xaitools.checks import check_choice, check_counts
from xaitools.errors import DataError, ParameterError, ShapeError
from xaitools.interpretation.features import as_stack, features
from xaitools.models import ImageStack, Network
from xaitools.models.images import digest

METRICS = ("cosine", "euclidean")


def nearest_neighbours(
    model: nn.Module | Network,
    images: Float[Tensor, "n channel *spatial"] | Float[np.ndarray, "n channel *spatial"] | ImageStack,
    references: Float[Tensor, "m channel *spatial"]
    | Float[np.ndarray, "m channel *spatial"]
    | ImageStack
    | None = None,
    *,
    k: int = 5,
    layer: str | None = None,
    metric: str = "cosine",
    subjects: Sequence[str] = (),
    reference_subjects: Sequence[str] = (),
    batch_size: int = 16,
) -> pd.DataFrame:
    """The `k` nearest references of each image, in the space of a layer's features.

    No image is its own neighbour: a reference of the same subject, or with the same voxels, is passed over.

    Parameters
    ----------
    model, layer, batch_size
        As for :func:`~xaitools.interpretation.features.features`.
    images
        The queries.
    references
        Where to look for neighbours, as a rule the training set; None for the other queries.
    k
        Neighbours of each image.
    metric
        "cosine": 1 minus the cosine, 0 to 2, of features as they are; "euclidean": their distance in their own unit,
        in which features of large values decide.
    subjects, reference_subjects
        Study ids of both, as of Samples, where there are several images of a subject; give both or neither.

    Returns
    -------
    DataFrame
        A row for each image and neighbour, the nearest first: ``query`` and ``neighbour`` (positions), ``rank`` (from
        1), ``distance``.

    Raises
    ------
    ParameterError
        If the metric is unknown, or an image has fewer than `k` references that are not itself.
    ShapeError
        If there is not one subject for each image.
    DataError
        If subjects are given for one of the two only, or a feature vector is 0, which has no cosine.
    """
    check_choice(metric=(metric, METRICS))
    check_counts(k=k)
    queries = as_stack(images)
    others = queries if references is None else as_stack(references)
    if references is None:
        reference_subjects = subjects
    _check_subjects(subjects, len(queries), reference_subjects, len(others))
    itself = _same(queries, others, subjects, reference_subjects)
    left = len(others) - int(itself.sum(1).max())
    if k > left:
        raise ParameterError(
            f"k={k}, but an image has {left} references other than itself; expected no more than these: take a "
            "smaller k or more references."
        )
    own = features(model, queries, layer=layer, batch_size=batch_size)
    theirs = own if references is None else features(model, others, layer=layer, batch_size=batch_size)
    distances = _distances(own, theirs, metric).masked_fill(itself, torch.inf)
    nearest, found = distances.sort(dim=1, stable=True)
    n = len(own)
    return pd.DataFrame(
        {
            "query": np.repeat(np.arange(n), k),
            "rank": np.tile(np.arange(1, k + 1), n),
            "neighbour": found[:, :k].flatten().numpy(),
            "distance": nearest[:, :k].flatten().numpy(),
        }
    )


def _check_subjects(own: Sequence[str], n: int, theirs: Sequence[str], m: int) -> None:
    if bool(len(own)) != bool(len(theirs)):
        raise DataError(
            "subjects are given for the images or for the references only; expected both or neither: a subject's other "
            "images would be its neighbours."
        )
    if len(own) and (len(own), len(theirs)) != (n, m):
        raise ShapeError(
            f"{len(own)} subjects for {n} images and {len(theirs)} for {m} references; expected one each."
        )


def _same(
    queries: ImageStack, others: ImageStack, own: Sequence[str], theirs: Sequence[str]
) -> Bool[Tensor, "n m"]:
    """Which references are an image itself, or of its subject."""
    contents = [_digests(queries), _digests(others)]
    same = np.equal.outer(*(np.array(names, dtype=object) for names in contents)).astype(bool)
    if len(own):
        same |= np.equal.outer(np.array(own, dtype=object), np.array(theirs, dtype=object)).astype(bool)
    return torch.from_numpy(same)


def _digests(images: ImageStack) -> list[str]:
    return [digest(images[position : position + 1]) for position in range(len(images))]


def _distances(own: Tensor, theirs: Tensor, metric: str) -> Any:
    own, theirs = own.double(), theirs.double()
    if metric == "euclidean":
        return torch.cdist(own, theirs, compute_mode="donot_use_mm_for_euclid_dist")
    lengths = [vectors.norm(dim=1, keepdim=True) for vectors in (own, theirs)]
    if any(bool((length == 0).any()) for length in lengths):
        raise DataError(
            "the features of an image are all 0, so they have no cosine; expected features that differ: take another "
            "layer or metric='euclidean'."
        )
    return 1 - (own / lengths[0]) @ (theirs / lengths[1]).T
