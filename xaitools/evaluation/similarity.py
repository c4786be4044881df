"""How alike two maps of an image are, as sanity checks of explanations measure it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Float64, Shaped
from scipy.stats import rankdata
from skimage.feature import hog
from skimage.metrics import structural_similarity
from torch import Tensor

from xaitools.checks import check_choice
from xaitools.errors import DataError, ShapeError
from xaitools.evaluation._maps import as_array

CELL = 16
"""Pixels along a side of a cell of the histograms of gradients."""

BLOCK = 3
"""Cells along a side of the blocks in which they are normalised; 2 where the image has no more.

In a block of one cell nearly all numbers would be cut off at the 0.2 of L2-Hys, which leaves nothing to rank.
"""

WINDOW = 11
"""Pixels along a side of the gaussian window of SSIM: a standard deviation of 1.5, cut off at 3.5 of them."""

SSIM_RANGE = 2.0
"""Range of values that SSIM is told: that of images of real numbers, -1 to 1, which Adebayo et al. left standing."""

Map = Shaped[np.ndarray, "channel *spatial"]
Prepared = Any
"""What a similarity keeps of a map, made once; None of a map that has one value only."""


@dataclass(frozen=True)
class Similarity:
    """A measure, cut in two, so that a map that is compared with many is prepared once.

    Attributes
    ----------
    prepare
        What is compared of a map (channel, *spatial), signed or absolute.
    compare
        The similarity of two that are so prepared, both not None.
    least
        The fewest pixels that each spatial axis has to have.
    """

    prepare: Callable[[Map], Prepared]
    compare: Callable[[Prepared, Prepared], float]
    least: int


def map_similarity(
    maps: Shaped[Tensor, "n channel *spatial"] | Shaped[np.ndarray, "n channel *spatial"],
    others: Shaped[Tensor, "..."] | Shaped[np.ndarray, "..."],
    similarity: str = "spearman",
    *,
    absolute: bool = True,
) -> Float64[np.ndarray, " n"]:
    """Similarity of each two maps of the same image, as in the sanity checks of Adebayo et al.

    - ``"spearman"``: Spearman's correlation of the pixels' values, ties at their mean rank; channels are added first
      (their absolute values with `absolute`). -1 to 1, 0 for unrelated maps.
    - ``"ssim"``: mean structural similarity index (Wang et al., equation 13, K1 = 0.01, K2 = 0.03) in gaussian windows
      of standard deviation 1.5 and 11 pixels, of maps scaled to 0 to 1 by their minimum and maximum; channel by
      channel, in 3D in windows of three axes. The range L is 2, as scikit-image assumed it for real numbers when
      Adebayo et al. published their code. At most 1.
    - ``"hog"``: Spearman's correlation of histograms of oriented gradients (Dalal and Triggs; 9 orientations, cells of
      16 x 16 pixels, blocks of 3 x 3 cells, or 2 where the image has no more, L2-Hys) of maps scaled to 0 to 1. Of
      several channels each pixel takes that of the strongest gradient. In 3D the mean over slices of all three
      planes, every 16th from the 8th on, of those that are not constant in either map. Maps of noise are alike by 0.2
      to 0.5, the more the smaller they are.

    Parameters
    ----------
    maps, others
        Maps of the same n images.
    similarity
        One of these.
    absolute
        Compare absolute values. The public code does both for ``"spearman"``, and compares signed values by the others.

    Returns
    -------
    array (n,)
        NaN where a map has one value only, which has neither ranks nor a range.

    Raises
    ------
    ParameterError
        If there is no such similarity.
    ShapeError
        If the maps do not fit together, or are too small: 11 pixels along each axis for SSIM, 32 for HOG.
    DataError
        If a value is not finite.

    References
    ----------
    Adebayo et al. 2018, Sanity checks for saliency maps, arXiv:1810.03292, section 3, and its public notebook
    inceptionv3_cascading_randomization. Wang et al. 2004, Image quality assessment, IEEE Transactions on Image
    Processing 13. Dalal and Triggs 2005, Histograms of oriented gradients for human detection.

    Examples
    --------
    >>> ramp = np.arange(4.0).reshape(1, 1, 2, 2)
    >>> map_similarity(ramp, -ramp, absolute=False)
    array([-1.])
    """
    check_choice(similarity=(similarity, SIMILARITIES))
    one, other = (_checked(values, name) for values, name in ((maps, "maps"), (others, "others")))
    if one.shape != other.shape:
        raise ShapeError(
            f"others of shape {other.shape} with maps of {one.shape}; expected maps of the same images: "
            "bring both to one grid."
        )
    check_size(similarity, one.shape[2:])
    measure = SIMILARITIES[similarity]
    return np.array(
        [
            compared(measure, prepared(measure, a, absolute), prepared(measure, b, absolute))
            for a, b in zip(one, other, strict=True)
        ]
    )


def prepared(measure: Similarity, values: Map, absolute: bool) -> Prepared:
    """What the measure compares of a map, or of its absolute value; None if the map has one value only."""
    return measure.prepare(np.abs(values) if absolute else values)


def compared(measure: Similarity, one: Prepared, other: Prepared) -> float:
    """The similarity; NaN if one of the maps has one value only."""
    return float("nan") if one is None or other is None else measure.compare(one, other)


def check_size(similarity: str, spatial: tuple[int, ...]) -> None:
    """Raise ShapeError if maps of this size are too small for the similarity."""
    least = SIMILARITIES[similarity].least
    if min(spatial) < least:
        raise ShapeError(
            f"maps of {' x '.join(map(str, spatial))} with similarity {similarity!r}; expected {least} pixels or more "
            "along each axis: leave it out."
        )


def _checked(values: Any, name: str) -> Float[np.ndarray, "n channel *spatial"]:
    array = as_array(values)
    if array.ndim not in (4, 5) or 0 in array.shape:
        raise ShapeError(
            f"{name} of shape {array.shape}; expected (n, channel, *spatial) with two or three spatial axes: add a "
            "missing axis with maps[:, None]."
        )
    array = array.astype(np.float64)
    if len(bad := np.flatnonzero(~np.isfinite(array.reshape(len(array), -1)).all(axis=1))):
        raise DataError(
            f"{name}: number {bad[0]} has NaN or infinite values; expected finite ones: its method failed there."
        )
    return array


def _ranks(values: np.ndarray) -> np.ndarray | None:
    """Ranks of all values, centred and of length 1."""
    flat = values.ravel()
    if flat.min() == flat.max():
        return None
    ranks = rankdata(flat)
    ranks -= ranks.mean()
    return ranks / np.linalg.norm(ranks)


def _product(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.clip(one @ other, -1, 1))


def _pixel_ranks(values: Map) -> np.ndarray | None:
    return _ranks(values.sum(axis=0, dtype=np.float64))


def _scaled(values: Map) -> np.ndarray | None:
    """The map from 0 to 1, in float32 as the public code has it."""
    low, high = values.min(), values.max()
    return None if low == high else ((values - low) / (high - low)).astype(np.float32)


def _ssim(one: np.ndarray, other: np.ndarray) -> float:
    return float(
        structural_similarity(
            one.astype(np.float64),
            other.astype(np.float64),
            gaussian_weights=True,
            data_range=SSIM_RANGE,
            channel_axis=0,
        )
    )


def _histograms(values: Map) -> list[np.ndarray | None] | None:
    """Ranks of the histograms of gradients of an image, or of slices through a volume."""
    scaled = _scaled(values)
    return None if scaled is None else [_ranks(_histogram(part)) for part in _slices(scaled)]


def _slices(scaled: np.ndarray) -> list[np.ndarray]:
    if scaled.ndim == 3:
        return [scaled]
    return [
        scaled.take(place, axis)
        for axis in range(1, scaled.ndim)
        for place in range(CELL // 2, scaled.shape[axis], CELL)
    ]


def _histogram(image: Float[np.ndarray, "channel height width"]) -> np.ndarray:
    cells = tuple(min(BLOCK, size // CELL) for size in image.shape[1:])
    return hog(image, pixels_per_cell=(CELL, CELL), cells_per_block=cells, channel_axis=0)


def _mean_product(one: list[np.ndarray | None], other: list[np.ndarray | None]) -> float:
    both = [(a, b) for a, b in zip(one, other, strict=True) if a is not None and b is not None]
    return float(np.mean([_product(a, b) for a, b in both])) if both else float("nan")


SIMILARITIES: dict[str, Similarity] = {
    "spearman": Similarity(_pixel_ranks, _product, 1),
    "ssim": Similarity(_scaled, _ssim, WINDOW),
    "hog": Similarity(_histograms, _mean_product, 2 * CELL),
}
"""All similarities by name."""
