"""The size of heads: measured by label maps, made equal between groups, changed."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int, Shaped
from scipy import ndimage
from scipy.optimize import linear_sum_assignment

from xaitools.checks import check_positive
from xaitools.data.grids import Grid
from xaitools.data.lazy import LazyTensor, cached
from xaitools.data.resampling import resample
from xaitools.data.volume_set import Volumes
from xaitools.errors import DataError, ParameterError, ShapeError

VERSION = 1


def check_brains(volumes: Volumes) -> None:
    """Raise DataError unless a label map tells where the brain of each volume is."""
    if volumes.label_maps is None:
        raise DataError(
            "these heads have no label maps, so it is unknown where their brains are; expected one a head, above 0 in "
            "the brain. Load them with label_maps (IXI's stand in the folder 'dseg'), or strip the skulls with a tool "
            "of your own (as HD-BET), give its masks to load_brains as label_maps, and load again."
        )


def brain_volumes(volumes: Volumes) -> Float64[np.ndarray, " n"]:
    """Volume of each brain in ml: of all voxels whose label is above 0.

    What that is depends on the label maps: IXI's name brain structures and the fluid around the cortex (CortCSF), so it
    is nearly the intracranial volume.

    Parameters
    ----------
    volumes
        With label maps.

    Raises
    ------
    DataError
        They have no label maps, or one of them is empty.
    """
    check_brains(volumes)
    voxel = abs(np.linalg.det(volumes.affine[:3, :3])) / 1000
    counts = np.array([np.count_nonzero(volumes.label_map(i)) for i in range(len(volumes))])
    if not counts.all():
        name = volumes.names[int(counts.argmin())]
        raise DataError(
            f"{name}: its label map is empty; expected a brain. Correct it, or leave the head out."
        )
    return counts * voxel


def optimal_scales(
    sizes: Float[np.ndarray, " n"] | Sequence[float],
    groups: Shaped[np.ndarray, " n"] | Sequence[Any],
    *,
    onto: Any,
    fitted_on: Bool[np.ndarray, " n"] | Sequence[bool] | None = None,
) -> Float64[np.ndarray, " n"]:
    """The factor by which each head is resized so that the sizes of all groups have one distribution.

    The sizes of each group are carried onto those of the group `onto` by optimal transport in one dimension. It pairs
    quantiles; where the numbers of heads differ, a head is coupled to several sizes, and gets their mean (the
    barycentric projection of the plan), so that the mean size of the groups becomes the same exactly. Equal sizes get
    equal factors. The factor is one of lengths, the cube root of that of volumes.

    **A factor follows from the group, which is what a network shall predict.** In training that is an augmentation. A
    head to be classified has no known group: measure accuracies on heads as they are, and if on resized ones too, name
    both, since resizing by the label may tell it (by the blur of resampling, or by a head that is too small for its
    age). Beside both belongs the accuracy from brain volume alone, which is at chance after the resizing.

    Parameters
    ----------
    sizes
        Volumes of the brains, above 0, see :func:`brain_volumes`.
    groups
        The group of each head, such as its sex.
    onto
        The group that stays as it is.
    fitted_on
        From which heads the distributions are taken, as those of a training set; the others get the size that lies
        between their neighbours'. By default all.

    Returns
    -------
    array of float64, n
        1 in the group `onto`.

    Raises
    ------
    ParameterError
        If `onto` is none of the groups.
    DataError
        If a size is not above 0, or a group has no head to be fitted on.

    References
    ----------
    Peyre and Cuturi, Computational optimal transport, 2019, section 2.6 (one dimension) and remark 4.11 (projection).
    The slides on brain MRI (Kan et al. 2020) name the idea; that it is projected is ours.
    """
    sizes, groups = _checked_sizes(sizes, groups)
    fitted = np.ones(len(sizes), dtype=bool) if fitted_on is None else np.asarray(fitted_on, dtype=bool)
    if onto not in groups:
        raise ParameterError(
            f"onto={onto!r}; expected one of the groups {', '.join(map(repr, _known(groups)))}."
        )
    factors = np.ones(len(sizes))
    for group in _known(groups):
        own = groups == group
        if not (own & fitted).any():
            raise DataError(
                f"nobody of the group {group!r} among the heads to fit on; expected one or more. Add heads."
            )
        if group != onto:
            known = np.unique(sizes[own & fitted])
            ratios = transported(sizes[own & fitted], sizes[(groups == onto) & fitted]) / known
            factors[own] = np.cbrt(np.interp(sizes[own], known, ratios))
    return factors


def transported(
    source: Float[np.ndarray, " n"], target: Float[np.ndarray, " m"]
) -> Float64[np.ndarray, " distinct"]:
    """Where optimal transport takes each distinct value of `source`, in ascending order: on average, where it splits.

    The plan pairs quantiles, so that a value that stands at the shares a to b of the source goes to the mean of the
    target's quantile function from a to b.
    """
    counts = np.unique(np.asarray(source, dtype=np.float64), return_counts=True)[1]
    target = np.sort(np.asarray(target, dtype=np.float64))
    total = np.concatenate([[0.0], np.cumsum(target)])  # integral of the quantile function, linear in between
    ends = np.concatenate([[0.0], np.cumsum(counts) / counts.sum()]) * len(target)
    integral = np.interp(ends, np.arange(len(total)), total)
    return np.diff(integral) / np.diff(ends)


def matched_subset(
    sizes: Float[np.ndarray, " n"] | Sequence[float],
    groups: Shaped[np.ndarray, " n"] | Sequence[Any],
    tolerance: float,
) -> Int[np.ndarray, "pairs 2"]:
    """Pairs of heads of two groups that are of one size: the alternative to resizing, which changes no image.

    As many pairs as there can be, each head in at most one, and of these pairings that of the least differences in all.

    Parameters
    ----------
    sizes
        Volumes of the brains, see :func:`brain_volumes`.
    groups
        The group of each head; two.
    tolerance
        Largest difference within a pair, in the unit of `sizes`.

    Returns
    -------
    array of int, (pairs, 2)
        Positions of the heads, those of the group that comes first in sorted order first; in ascending order.
        ``volumes[pairs.ravel()]`` is the subset.

    Raises
    ------
    DataError
        If there are not two groups, a size is not above 0, or no pair is that close.

    References
    ----------
    Ebel et al., Classifying sex with volume-matched brain MRI, Neuroimage: Reports, 2023.
    """
    check_positive(tolerance=tolerance)
    sizes, groups = _checked_sizes(sizes, groups)
    known = _known(groups)
    if len(known) != 2:
        raise DataError(f"groups {', '.join(map(repr, known))}; expected two of them to be matched.")
    first, second = (np.flatnonzero(groups == group) for group in known)
    differences = np.abs(sizes[first, None] - sizes[second])
    beyond = tolerance * (min(differences.shape) + 1)  # a pair too many costs more than all that are close
    rows, columns = linear_sum_assignment(np.where(differences <= tolerance, differences, beyond))
    close = differences[rows, columns] <= tolerance
    if not close.any():
        raise DataError(
            f"no two heads of {known[0]!r} and {known[1]!r} differ by {tolerance:g} or less; the closest differ by "
            f"{differences.min():.4g}. Raise tolerance, or add heads."
        )
    return np.stack([first[rows[close]], second[columns[close]]], axis=1)


def scaled(
    volumes: Volumes,
    factors: Float[np.ndarray, " n"] | Sequence[float],
    *,
    cache_dir: str | Path | None = None,
) -> Volumes:
    """The heads resized about the centres of their brains, with their masks and label maps, on the same grid.

    What comes into view from beyond the grid is 0, and what leaves it is lost. Numbers in ml grow with the heads.
    Labels are those of the nearest voxel: volumes counted in resized label maps are off by up to 3 % with voxels of
    4 mm, so that of a resized brain is better known as its own times the factor's cube.

    Parameters
    ----------
    volumes
        With label maps.
    factors
        By which lengths grow, see :func:`optimal_scales`; a head with 1 stays bit for bit.
    cache_dir
        Where resized volumes are kept, as for :func:`xaitools.data.load_brains`.

    Raises
    ------
    DataError
        They have no label maps.
    ShapeError
        If there is not one factor for each head.
    ParameterError
        If a factor is not above 0.
    """
    check_brains(volumes)
    if len(factors) != len(volumes):
        raise ShapeError(f"{len(factors)} factors for {len(volumes)} heads; expected one for each.")
    for factor in factors:
        check_positive(factor=float(factor))

    def of(lazy: LazyTensor | None, is_label: bool) -> LazyTensor | None:
        return None if lazy is None else _resized(lazy, volumes, factors, is_label, cache_dir)

    lazy: dict[str, Any] = {
        "images": of(volumes.images, False),
        "masks": of(volumes.masks, True),
        "label_maps": of(volumes.label_maps, True),
    }
    cubes = torch.as_tensor(np.asarray(factors, dtype=np.float64) ** 3)
    numbers = {
        name: (values * cubes).to(values.dtype) if name.endswith("(ml)") else values
        for name, values in volumes.numbers.items()
    }
    info = {**volumes.info, "resized": f"by factors from {min(factors):.3f} to {max(factors):.3f}"}
    return replace(volumes, **lazy, numbers=numbers, placements=(), info=info)


def skull_stripped(volumes: Volumes, *, cache_dir: str | Path | None = None) -> Volumes:
    """The heads with 0 wherever their label map is 0; the brains keep their grey values.

    Parameters
    ----------
    volumes
        With label maps.
    cache_dir
        As for :func:`scaled`.

    Raises
    ------
    DataError
        They have no label maps.
    """
    check_brains(volumes)
    assert volumes.label_maps is not None
    pairs = list(zip(volumes.images.items, volumes.label_maps.items, strict=True))
    keys = [
        {"version": VERSION, "what": "stripped", "image": image.digest(), "labels": labels.digest()}
        for image, labels in pairs
    ]
    items = cached(cache_dir, "heads", keys, [partial(_stripped, *pair) for pair in pairs])
    images = LazyTensor(items, volumes.shape, volumes.images.dtype)
    return replace(volumes, images=images, info={**volumes.info, "brain_mask": "label maps above 0"})


def _stripped(image: Any, labels: Any) -> np.ndarray:
    return image.load() * (labels.load() > 0)


def _resized(
    lazy: LazyTensor,
    volumes: Volumes,
    factors: Float[np.ndarray, " n"] | Sequence[float],
    is_label: bool,
    folder: str | Path | None,
) -> LazyTensor:
    """The items resized, those with the factor 1 as they are."""
    assert volumes.label_maps is not None
    items = list(lazy.items)
    changed = [i for i, factor in enumerate(factors) if factor != 1]
    keys, makers = [], []
    for i in changed:
        brain, factor = volumes.label_maps.items[i], float(factors[i])
        contents = [items[i].digest(), brain.digest(), np.round(volumes.affine, 5).tolist()]
        keys.append(
            {"version": VERSION, "what": "resized", "contents": contents, "factor": factor, "label": is_label}
        )
        makers.append(partial(_resize, items[i], brain, volumes.grid, factor, is_label))
    for i, item in zip(changed, cached(folder, "heads", keys, makers), strict=True):
        items[i] = item
    return LazyTensor(items, lazy.shape[2:], lazy.dtype)


def _resize(item: Any, brain: Any, grid: Grid, factor: float, is_label: bool) -> np.ndarray:
    """An array resized about the centre of a brain."""
    middle = grid.affine @ [*ndimage.center_of_mass(brain.load() > 0), 1.0]
    about = np.eye(4)
    about[:3, :3] *= factor
    about[:3, 3] = (1 - factor) * middle[:3]
    array = item.load()
    moved = resample(
        array.astype(np.int64) if is_label else array,
        Grid(grid.shape, about @ grid.affine),
        grid,
        labels=is_label,
    )
    return moved > 0 if array.dtype == bool else moved if is_label else np.clip(moved, 0, 1)


def _checked_sizes(sizes: Any, groups: Any) -> tuple[np.ndarray, np.ndarray]:
    sizes, groups = np.asarray(sizes, dtype=np.float64), np.asarray(groups)
    if sizes.ndim != 1 or sizes.shape != groups.shape:
        raise ShapeError(
            f"sizes of shape {sizes.shape} and groups of shape {groups.shape}; expected one of both for each head."
        )
    if not (np.isfinite(sizes) & (sizes > 0)).all():
        raise DataError(f"sizes from {sizes.min():.4g} to {sizes.max():.4g}; expected finite ones above 0.")
    return sizes, groups


def _known(groups: np.ndarray) -> list[Any]:
    return np.unique(groups).tolist()
