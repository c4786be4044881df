"""Does a map highlight what an expert's mask marks?"""

import numpy as np
from jaxtyping import Float64, Shaped
from torch import Tensor

from xaitools.errors import DataError, ShapeError
from xaitools.evaluation._maps import as_array


def localization(
    maps: Shaped[Tensor, "n *grid"] | Shaped[np.ndarray, "n *grid"],
    masks: Shaped[Tensor, "m *mask_grid"] | Shaped[np.ndarray, "m *mask_grid"],
) -> dict[str, Float64[np.ndarray, " n"]]:
    """Exact ROC AUC, and the maximum Dice coefficient over all thresholds, of each map against its mask.

    Both rank the elements (pixels or voxels) by value: those of the larger value are kept first. Elements of
    equal value are kept together or not at all, so a map that is constant over regions is judged by its
    regions, however many elements each has. Any increasing transform of a map changes nothing.

    Parameters
    ----------
    maps
        ``(n, *spatial)`` or ``(n, 1, *spatial)``; larger means more relevant, so take the absolute value
        first where the sign does not matter.
    masks
        What should be highlighted, boolean, with or without the channel axis: one for each map, or a single
        one for all, ``(1, ...)``.

    Returns
    -------
    dict
        Three arrays of length n: ``"auc"``, the probability that an element inside the mask has a larger
        value than one outside, ties counting one half (0.5 for a constant map); ``"dice"``, the largest Dice
        coefficient of the kept elements and the mask; ``"dice_fraction"``, the fraction q of the image that
        is kept there, the smallest if several reach it.

    Raises
    ------
    ShapeError
        If a mask has another size than its map, or there are neither one nor n masks.
    DataError
        If a mask is not boolean, or all black, or all white; or a map has a value that is not finite.

    References
    ----------
    Hanley and McNeil, The meaning and use of the area under a receiver operating characteristic (ROC) curve,
    Radiology 1982. Dice, Measures of the amount of ecologic association between species, Ecology 1945.
    """
    values, marked = _aligned(as_array(maps), as_array(masks))
    _check(values, marked)
    scores = [
        _score(row, marked[index if len(marked) > 1 else 0].ravel())
        for index, row in enumerate(values.reshape(len(values), -1))
    ]
    auc, dice, fraction = np.array(scores, dtype=np.float64).reshape(-1, 3).T
    return {"auc": auc, "dice": dice, "dice_fraction": fraction}


def _score(values: np.ndarray, mask: np.ndarray) -> tuple[float, float, float]:
    order = np.argsort(values)[::-1]
    ranked = values[order]
    ends = np.append(np.flatnonzero(ranked[1:] != ranked[:-1]), len(ranked) - 1)  # last element of each tie
    kept = ends + 1
    inside = np.cumsum(mask[order])[ends]
    outside = kept - inside
    n_inside, n_outside = inside[-1], outside[-1]
    below = n_inside - (inside + np.append(0, inside[:-1])) / 2  # marked elements ranked below, ties half
    auc = 1 - np.dot(np.diff(outside, prepend=0), below) / (n_inside * n_outside)
    dice = 2 * inside / (kept + n_inside)
    best = int(np.argmax(dice))
    return float(auc), float(dice[best]), float(kept[best] / len(ranked))


def _aligned(maps: np.ndarray, masks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if maps.ndim == masks.ndim + 1 and maps.shape[1] == 1:
        maps = maps[:, 0]
    if masks.ndim == maps.ndim + 1 and masks.shape[1] == 1:
        masks = masks[:, 0]
    if maps.shape[1:] != masks.shape[1:] or len(masks) not in (1, len(maps)):
        raise ShapeError(
            f"maps of shape {maps.shape} and masks of shape {masks.shape} do not fit; expected one mask for each map, "
            "or one for all, of the same size and with at most one channel: resample one to the other's grid, "
            "or reduce the channels of the maps."
        )
    return maps, masks


def _check(maps: np.ndarray, masks: np.ndarray) -> None:
    if masks.dtype != bool:
        raise DataError(
            f"masks are of type {masks.dtype}; expected bool: compare with a threshold, mask > 0.5."
        )
    for index, mask in enumerate(masks):
        if mask.all() or not mask.any():
            raise DataError(
                f"mask {index} is all {'white' if mask.all() else 'black'}; expected something marked against a rest: "
                "leave its image out, or correct it."
            )
    for index, values in enumerate(maps):
        if not np.isfinite(values).all():
            raise DataError(
                f"map {index} has NaN or infinite values; expected finite ones: its method failed there, leave it out."
            )
