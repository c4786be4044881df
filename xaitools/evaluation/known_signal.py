"""Does a map point at the region that a target was made from?"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.spatial import cKDTree

from xaitools.checks import check_counts
from xaitools.errors import DataError, ParameterError, ShapeError
from xaitools.evaluation._maps import as_array, checked_maps
from xaitools.evaluation.bootstrap import mean_interval
from xaitools.evaluation.localization import localization
from xaitools.evaluation.region_targets import check_numbers

MEASURES = ("auc", "share", "size", "gain", "outside", "rank", "hit", "chance")


def known_signal(
    maps: Any,
    label_maps: Any,
    relevant: Sequence[int],
    *,
    regions: Mapping[str, Sequence[int]] | None = None,
    k: int = 1,
    n_permutations: int = 100,
    seed: int = 0,
) -> pd.DataFrame:
    """Compare each map, by absolute value and within the brain, with the region that is known to matter.

    For networks that predict something whose place is known, on images that nobody altered: the volume of a structure,
    or how unequal its sides are (:func:`xaitools.evaluation.region_volumes`, ``lateral_asymmetry``). Maps of a network
    that has not learned its target say nothing: compare its error with that of the mean first.

    Parameters
    ----------
    maps
        ``(n, *spatial)`` or ``(n, 1, *spatial)``, or several by name. Signs are ignored.
    label_maps
        Whole numbers, one map for each image, or one for all ``(1, *spatial)``, with or without a channel axis; 0
        outside the brain. They are read one by one, so `Volumes.label_maps` may be given.
    relevant
        Numbers that make up the region.
    regions
        The regions to rank it among, by name; those that share a number with `relevant` are left out. By default each
        other number is a region.
    k
        A hit is a region that is among the k densest.
    n_permutations
        Random regions per image. 0 for none: `chance` is then NaN.
    seed
        Same seed, same random regions.

    Returns
    -------
    DataFrame
        A row for each map and image, with ``method`` and ``image`` (from 0), and

        - ``auc``: probability that a voxel in the region has a larger value than one elsewhere in the brain, ties one
          half; 0.5 by chance;
        - ``share`` of the map's sum in the brain that lies in the region, ``size``, the region's share of the brain's
          voxels, and ``gain``, their quotient; 1 by chance;
        - ``outside``: share of the map's sum over the image that lies outside the brain;
        - ``rank`` of the region by density (mean value), 1 the densest, ties in the middle, among ``n_regions``;
        - ``hit``: 1 if the rank is k or better, else 0; between ties, the probability if they are broken by lot;
        - ``chance``: how often a random region would be a hit, in the same map and among the same other regions: copies
          of the region, mirrored, turned by quarters and moved to random places of the brain, where what would lie
          outside is made up by the voxels nearest to it, so that all have as many. Small regions of a noisy map are
          often the densest one, which ``chance_labels``, k / n_regions, does not know: that is the rate if all regions
          were alike;
        - ``p``: share of random regions that are as dense or denser, the region itself counted as one of them.

        NaN in all of these where the image lacks the region, and in ``share`` and ``gain`` (``outside``) where the map
        is 0 in the brain (everywhere).

    Raises
    ------
    ShapeError
        If label maps are on another grid than the maps, or there are neither one nor n.
    DataError
        If label maps are no whole numbers, no image has the region or any has nothing else, or a map is not finite.
    ParameterError
        If `relevant` is empty, or `k` is not below the number of regions.

    References
    ----------
    Siegel et al., 2025, arXiv 2508.02560.
    """
    check_numbers("relevant", relevant)
    check_counts(k=k)
    if n_permutations:
        check_counts(n_permutations=n_permutations)
    named = _checked(maps, label_maps)
    rows, n = list[dict[str, Any]](), len(next(iter(named.values())))
    for image in range(n):
        labels = _label_map(label_maps, image)
        scene = _scene(labels, relevant, regions, image, k, n_permutations, seed)
        for name, values in named.items():
            found = {} if scene is None else _compared(np.abs(values[image].astype(np.float64)), scene, k)
            rows.append({"method": name, "image": image, **found})
    if not any("auc" in row for row in rows):
        raise DataError(
            f"relevant={list(relevant)}: in none of the {n} label maps; expected it in some: compare the numbers with "
            "the table of the label maps."
        )
    order = [*MEASURES[:6], "n_regions", *MEASURES[6:], "chance_labels", "p"]
    table = pd.DataFrame(rows, columns=["method", "image", *order])
    return table.sort_values(["method", "image"], key=_in_order(named), kind="stable", ignore_index=True)


def known_signal_means(table: pd.DataFrame, *, confidence: float = 0.95, seed: int = 0) -> pd.DataFrame:
    """Means over images of what :func:`known_signal` found, with bootstrap intervals.

    Parameters
    ----------
    table
        As it returns it; rows of images without the region are left out.
    confidence, seed
        Of the intervals, see :func:`xaitools.evaluation.mean_interval`.

    Returns
    -------
    DataFrame
        One row for each method and measure: ``method``, ``measure`` (each of :data:`MEASURES`, and ``"excess"``, the
        hits beyond those of random regions), ``value``, ``low``, ``high`` and ``n`` images. Intervals of fewer than two
        images are NaN; so is the mean of none.
    """
    rows = []
    for method, own in table.assign(excess=table["hit"] - table["chance"]).groupby("method", sort=False):
        for measure in (*MEASURES, "excess"):
            values = own[measure].dropna().to_numpy(dtype=np.float64)
            value, low, high = (values.mean() if len(values) else np.nan), np.nan, np.nan
            if len(values) > 1:
                found = mean_interval(values, confidence=confidence, seed=seed)
                low, high = float(found.low), float(found.high)
            rows.append((method, measure, float(value), low, high, len(values)))
    return pd.DataFrame(rows, columns=["method", "measure", "value", "low", "high", "n"])


class _Scene:
    """What a map of one image is compared with; all within the brain, voxels in a row."""

    def __init__(
        self, brain: np.ndarray, inside: np.ndarray, others: Sequence[np.ndarray], random: np.ndarray
    ) -> None:
        self.brain, self.inside, self.random = brain, inside, random
        self.weights = np.stack([own / own.sum() for own in others])
        self.n_regions = len(others) + 1


def _scene(
    labels: np.ndarray,
    relevant: Sequence[int],
    regions: Mapping[str, Sequence[int]] | None,
    image: int,
    k: int,
    n_permutations: int,
    seed: int,
) -> _Scene | None:
    """The regions of an image; None if it lacks the relevant one."""
    brain = labels > 0
    numbers = labels[brain]
    inside = np.isin(numbers, list(relevant))
    if not inside.any():
        return None
    if inside.all():
        raise DataError(
            f"label map {image}: nothing but the relevant region; expected the rest of the brain too, to compare it "
            "with."
        )
    groups = [[n] for n in np.unique(numbers)] if regions is None else list(regions.values())
    others = [np.isin(numbers, list(own)) for own in groups if not set(own) & set(relevant)]
    others = [own for own in others if own.any()]
    if k > len(others):
        raise ParameterError(
            f"k={k} among the {len(others) + 1} regions of label map {image}; expected fewer than there are."
        )
    return _Scene(brain, inside, others, _random_regions(labels, relevant, n_permutations, (seed, image)))


def _random_regions(labels: np.ndarray, relevant: Sequence[int], n: int, seed: tuple[int, int]) -> np.ndarray:
    """Copies of the relevant region at random places of the brain, bool, (n, voxel of the brain)."""
    rng = np.random.default_rng(seed)
    brain, inside = np.argwhere(labels > 0), np.argwhere(np.isin(labels, list(relevant)))
    number = np.full(labels.shape, -1)
    number[labels > 0] = np.arange(len(brain))
    shape = inside - np.rint(inside.mean(axis=0)).astype(int)
    drawn = np.zeros((n, len(brain)), dtype=bool)
    for own in drawn:
        turned = shape[:, rng.permutation(labels.ndim)] * rng.choice([-1, 1], size=labels.ndim)
        placed = turned + brain[rng.integers(len(brain))]
        within = ((placed >= 0) & (placed < labels.shape)).all(axis=1)
        own[(kept := number[tuple(placed[within].T)])[kept >= 0]] = True
        if missing := len(placed) - int(own.sum()):
            distance = cKDTree(placed).query(brain)[0]
            own[np.argsort(np.where(own, np.inf, distance), kind="stable")[:missing]] = True
    return drawn


def _compared(values: np.ndarray, scene: _Scene, k: int) -> dict[str, float]:
    own = values[scene.brain]
    total, everywhere = own.sum(), values.sum()
    size = scene.inside.mean()
    share = own[scene.inside].sum() / total if total else np.nan
    others = scene.weights @ own
    density = own[scene.inside].mean()
    drawn = scene.random @ own / scene.inside.sum()
    rank, hit = _place(np.array([density]), others, k)
    return {
        "auc": float(localization(own[None], scene.inside[None])["auc"][0]),
        "share": share,
        "size": size,
        "gain": share / size,
        "outside": 1 - total / everywhere if everywhere else np.nan,
        "rank": float(rank[0]),
        "n_regions": scene.n_regions,
        "hit": float(hit[0]),
        "chance": float(_place(drawn, others, k)[1].mean()) if len(drawn) else np.nan,
        "chance_labels": k / scene.n_regions,
        "p": float((1 + (drawn >= density * (1 - 1e-12)).sum()) / (1 + len(drawn))) if len(drawn) else np.nan,
    }


def _place(densities: np.ndarray, others: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Rank of each density among the others, and the probability that it is among the k largest, ties by lot."""
    gap = 1e-12 * np.abs(others).max()
    larger = (others > densities[:, None] + gap).sum(axis=1)
    tied = (np.abs(others - densities[:, None]) <= gap).sum(axis=1)
    return 1 + larger + tied / 2, np.clip((k - larger) / (1 + tied), 0, 1)


def _in_order(named: Mapping[str, Any]) -> Any:
    position = {name: number for number, name in enumerate(named)}
    return lambda column: column.map(position) if column.name == "method" else column


def _checked(maps: Any, label_maps: Any) -> dict[str, np.ndarray]:
    """The maps by name, without a channel axis, on the grid of the label maps."""
    if isinstance(maps, Mapping) and not maps:
        raise DataError("maps: got none; expected at least one by its name: add one.")
    first = as_array(next(iter(maps.values())) if isinstance(maps, Mapping) else maps)
    if first.ndim < 3:
        raise ShapeError(
            f"maps of shape {first.shape}; expected (n, *spatial) with two or three spatial axes."
        )
    if len(label_maps) not in (1, len(first)):
        raise ShapeError(
            f"{len(label_maps)} label maps for {len(first)} maps; expected one for each, or one for all."
        )
    spatial = _without_channel(first.shape[1:])
    if _without_channel(label_maps.shape[1:]) != spatial:
        raise ShapeError(
            f"label maps of shape {tuple(label_maps.shape)} and maps of {spatial} pixels or voxels; expected one grid: "
            "resample one to the other's, labels by nearest neighbour."
        )
    return checked_maps(maps, np.broadcast_to(np.int8(0), (len(first), 1, *spatial)))


def _without_channel(shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(shape[1:] if len(shape) > 2 and shape[0] == 1 else shape)


def _label_map(label_maps: Any, image: int) -> np.ndarray:
    labels = as_array(label_maps[image if len(label_maps) > 1 else 0])
    if not np.issubdtype(labels.dtype, np.integer):
        raise DataError(
            f"label maps of type {labels.dtype}; expected whole numbers, one for each structure: convert them to int64."
        )
    return labels.reshape(_without_channel(labels.shape))
