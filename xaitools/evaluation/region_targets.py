"""Targets whose relevant region is known, made from label maps: how large a structure is, and how unequal its sides."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float64

from xaitools.data import Volumes
from xaitools.errors import DataError, ParameterError


def region_volumes(volumes: Volumes, regions: Mapping[str, Sequence[int]]) -> pd.DataFrame:
    """Volume of regions in each image, from its label map.

    A network that predicts such a volume from the image has to look at the region: a target whose relevant place is
    known, on images that nobody altered.

    Parameters
    ----------
    volumes : Volumes
        With label maps.
    regions : mapping
        By name, the numbers in the label maps that make up the region.

    Returns
    -------
    DataFrame
        In ml, a row an image (index: its name), a column a region; 0 where the image lacks the region.

    Raises
    ------
    DataError
        The volumes have no label maps, or none of them has one of the numbers.
    ParameterError
        No regions, or one of no numbers, or of the number 0, which is outside.

    References
    ----------
    Siegel et al., 2025, arXiv 2508.02560.
    """
    if not regions:
        raise ParameterError("regions: got none; expected at least one by its name, with its numbers.")
    for name, numbers in regions.items():
        check_numbers(f"regions[{name!r}]", numbers)
    maps = (volumes.label_map(position) for position in range(len(volumes)))
    counts = [{name: np.isin(labels, list(own)).sum() for name, own in regions.items()} for labels in maps]
    found = pd.DataFrame(counts, index=list(volumes.names))
    for name, numbers in regions.items():
        if not found[name].any():
            raise DataError(
                f"region {name!r}, numbers {list(numbers)}: in none of the {len(volumes)} label maps; expected it in "
                "some: compare the numbers with the table of the label maps."
            )
    return found * abs(np.linalg.det(volumes.affine[:3, :3])) / 1000


def lateral_asymmetry(
    volumes: Volumes, left: Sequence[int], right: Sequence[int]
) -> Float64[np.ndarray, " n"]:
    """By how much a structure is larger on the left: (left - right) / (left + right) of the volumes.

    Unlike a volume it does not depend on the size of the head, which a network can see at every edge of the brain.

    Parameters
    ----------
    volumes : Volumes
        With label maps.
    left, right : sequence of int
        Numbers of the structure's two sides in the label maps.

    Returns
    -------
    array
        From -1 (right side only) to 1 (left side only), one an image; NaN where the image has neither side.

    Raises
    ------
    DataError, ParameterError
        As :func:`region_volumes` raises, or if a number is on both sides.
    """
    if both := set(left) & set(right):
        raise ParameterError(
            f"numbers {sorted(both)} are on both sides; expected different ones on the left and the right."
        )
    sides = region_volumes(volumes, {"left": left, "right": right})
    whole = sides.sum(axis=1).replace(0.0, np.nan)
    return ((sides["left"] - sides["right"]) / whole).to_numpy()


def check_numbers(what: str, numbers: Sequence[int]) -> None:
    """Raise ParameterError unless there are numbers of structures, all above 0."""
    if not len(numbers) or min(numbers) < 1:
        raise ParameterError(
            f"{what}={list(numbers)}; expected one number or more of the label maps, each above 0."
        )
