"""XRAI (Kapishnikov et al. 2019): regions of the image ranked by the attribution inside them.

The segments depend on the image alone, so one `segment` serves all maps of an image. Where segments overlap they
are cut into *cells*, sets of pixels that lie in the same segments; the greedy choice then works on a few thousand
sums instead of on pixels.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy.ndimage import find_objects
from scipy.sparse import csr_array
from skimage.segmentation import felzenszwalb, slic
from skimage.transform import resize
from torch import Tensor, as_tensor

from xaitools.errors import DataError, ShapeError

SCALES = (50, 100, 150, 250, 500, 1200)
SUPERVOXELS = (50, 100, 200, 400, 800)
SIGMA = 0.8
MIN_SEGMENT = 150
SEGMENTATION_SIZE = (224, 224)
DILATION_RADIUS = 5
MIN_NEW_PIXELS = 50


class Part(NamedTuple):
    """A segment inside a box.

    Attributes
    ----------
    box
        Where the box lies in the image.
    mask
        Which of its pixels the segment holds.
    """

    box: tuple[slice, ...]
    mask: Bool[np.ndarray, "*box"]


class Segments:
    """Overlapping segments of one image, cut into cells.

    Parameters
    ----------
    masks
        One boolean array (\\*spatial) a segment.

    Attributes
    ----------
    cells
        Cell of each pixel, integers (\\*spatial).
    sizes
        Number of pixels of each cell.
    membership
        Sparse (segment, cell) matrix of ones.
    """

    def __init__(self, masks: Sequence[Bool[np.ndarray, "*spatial"]]):
        for mask in masks:
            if mask.shape != masks[0].shape:
                raise ShapeError(
                    f"Segments have shapes {masks[0].shape} and {mask.shape}; all must have the image's."
                )
        self._cut([Part((slice(None),) * mask.ndim, mask) for mask in masks], np.shape(masks[0:1])[1:])

    @classmethod
    def of_parts(cls, parts: Sequence[Part], shape: tuple[int, ...]) -> "Segments":
        """Segments of an image of that shape, each given in a box that holds it."""
        segments = cls.__new__(cls)
        segments._cut(parts, shape)
        return segments

    def _cut(self, parts: Sequence[Part], shape: tuple[int, ...]) -> None:
        if len(parts) == 0:
            raise DataError("XRAI needs at least one segment, and none were given.")
        self.shape = shape
        tags = np.random.default_rng(0).integers(1, 2**63, len(parts), dtype=np.uint64)
        signature = np.zeros(shape, dtype=np.uint64)
        for part, tag in zip(parts, tags, strict=True):
            signature[part.box][part.mask] ^= tag
        _, first, cells, self.sizes = np.unique(
            signature, return_index=True, return_inverse=True, return_counts=True
        )
        self.cells = cells.reshape(shape).astype(np.int32)
        cell_at_its_first = np.full(shape, -1, dtype=np.int32)
        cell_at_its_first.flat[first] = np.arange(len(first))
        members = [_members(cell_at_its_first, part) for part in parts]
        pointer = np.cumsum([0, *map(len, members)])
        indices = np.concatenate(members)
        self.membership = csr_array((np.ones(len(indices)), indices, pointer), shape=(len(parts), len(first)))


def _members(cell_at_its_first: np.ndarray, part: Part) -> np.ndarray:
    """Numbers of the cells in a segment, ascending."""
    inside = cell_at_its_first[part.box][part.mask]
    return np.sort(inside[inside >= 0])


def segment(image: Float[np.ndarray, "*spatial"]) -> Segments:
    """Segment one image as XRAI's authors do.

    A slice is segmented by Felzenszwalb's graph at six scales after resampling to 224 x 224 and [-1, 1], each
    segment then grown by 5 pixels. A volume, for which the method was not defined, by supervoxels (SLIC) at five
    scales, grown alike.

    Raises
    ------
    DataError
        If the image is constant or not finite.
    """
    if not np.isfinite(image).all():
        raise DataError("The image to segment contains NaN or infinity; replace them before calling XRAI.")
    if image.max() == image.min():
        raise DataError(
            f"The image to segment is constant ({image.flat[0]:g}), so it has no regions for XRAI."
        )
    labels = _felzenszwalb_scales(image) if image.ndim == 2 else _supervoxel_scales(image)
    return Segments.of_parts([part for label in labels for part in _grown(label)], image.shape)


def _felzenszwalb_scales(image: np.ndarray) -> list[np.ndarray]:
    scaled = _to_unit_range(image)
    small = resize(
        scaled, SEGMENTATION_SIZE, order=3, mode="constant", preserve_range=True, anti_aliasing=True
    )
    labels = (felzenszwalb(small, scale=scale, sigma=SIGMA, min_size=MIN_SEGMENT) for scale in SCALES)
    return [
        resize(label, image.shape, order=0, preserve_range=True, mode="constant", anti_aliasing=False).astype(
            int
        )
        for label in labels
    ]


def _supervoxel_scales(image: np.ndarray) -> list[np.ndarray]:
    scaled = _to_unit_range(image)
    return [slic(scaled, n_segments=n, sigma=SIGMA, channel_axis=None, start_label=0) for n in SUPERVOXELS]


def _to_unit_range(image: np.ndarray) -> np.ndarray:
    return (image - image.min()) / (image.max() - image.min()) * 2.0 - 1.0


def _grown(label: np.ndarray) -> list[Part]:
    """Every label, grown by the dilation radius."""
    parts = []
    for number, box in enumerate(find_objects(label + 1)):
        if box is None:
            continue
        wide = tuple(slice(max(side.start - DILATION_RADIUS, 0), side.stop + DILATION_RADIUS) for side in box)
        parts.append(Part(wide, _dilated(label[wide] == number)))
    return parts


def _dilated(mask: Bool[np.ndarray, "*box"]) -> Bool[np.ndarray, "*box"]:
    """The mask and all within the dilation radius of it: squared distances, one axis after the other."""
    most = DILATION_RADIUS**2
    squared = np.where(mask, np.uint8(0), np.uint8(most + 1))
    for axis in range(mask.ndim):
        lines = np.moveaxis(squared, axis, 0)
        before = lines.copy()
        for step in range(1, DILATION_RADIUS + 1):
            further = before + np.uint8(step**2)
            np.minimum(lines[step:], further[:-step], out=lines[step:])
            np.minimum(lines[:-step], further[step:], out=lines[:-step])
    return squared <= most


def rank_regions(
    attribution: Float[np.ndarray, "*spatial"], segments: Segments
) -> Float[np.ndarray, "*spatial"]:
    """XRAI map of one attribution map.

    Segments are added in the order of the mean attribution of the pixels that they add; these pixels get that mean.

    Returns
    -------
    ndarray
        Mean attribution of each pixel's region, in the unit of `attribution`, float64; larger is more relevant.

    Raises
    ------
    ShapeError
        If map and segments have different shapes.

    References
    ----------
    Kapishnikov et al. 2019, arXiv:1906.02825, algorithm 1.
    """
    if attribution.shape != segments.shape:
        raise ShapeError(
            f"Map of shape {attribution.shape} and segments of shape {segments.shape}; they must agree."
        )
    sums = np.bincount(segments.cells.ravel(), weights=attribution.ravel(), minlength=len(segments.sizes))
    open_sums, open_sizes = sums, segments.sizes.astype(np.float64)
    membership = segments.membership
    holders = membership.T.tocsr()
    value = np.full(len(sums), np.nan)
    new, total = membership @ open_sizes, membership @ open_sums
    while (alive := new >= MIN_NEW_PIXELS).any():
        gains = np.where(alive, total / np.maximum(new, 1), -np.inf)
        best = int(np.argmax(gains))
        added = membership.indices[membership.indptr[best] : membership.indptr[best + 1]]
        added = added[open_sizes[added] > 0]
        value[added] = gains[best]
        open_sums[added] = open_sizes[added] = 0.0
        changed = np.unique(holders[added].indices)
        changed = changed[alive[changed]]
        part = membership[changed]
        new[changed], total[changed] = part @ open_sizes, part @ open_sums
    rest = open_sizes > 0
    if rest.any():
        value[rest] = open_sums[rest].sum() / open_sizes[rest].sum()
    return value[segments.cells]


def xrai(
    maps: Float[Tensor, "batch channel *spatial"],
    images: Float[Tensor, "batch channel *spatial"],
    *,
    segments: Sequence[Segments] | None = None,
) -> Float[Tensor, "batch channel *spatial"]:
    """XRAI on given attribution maps; a channel axis is reduced by its maximum, as the authors do.

    Parameters
    ----------
    maps
        Attribution maps, of any method.
    images
        The images that they explain.
    segments
        One `Segments` an image, to share among calls; made from the images if not given.

    Returns
    -------
    Tensor
        Same shape as `maps`, each region filled with its mean attribution.

    Raises
    ------
    DataError
        If an image is constant or not finite.
    ShapeError
        If shapes disagree.

    References
    ----------
    Kapishnikov et al. 2019, arXiv:1906.02825. Same result as the authors' package ``saliency``, faster.
    """
    if maps.shape != images.shape:
        raise ShapeError(
            f"Maps have shape {tuple(maps.shape)} and images {tuple(images.shape)}; they must agree."
        )
    if segments is None:
        segments = segment_all(images)
    if len(segments) != len(images):
        raise ShapeError(f"{len(segments)} segmentations for {len(images)} images; expected one an image.")
    greys = maps.detach().cpu().double().amax(1).numpy()
    ranked = [rank_regions(grey, part) for grey, part in zip(greys, segments, strict=True)]
    return (
        as_tensor(np.stack(ranked), dtype=maps.dtype, device=maps.device)[:, None]
        .expand_as(maps)
        .contiguous()
    )


def segment_all(
    images: Float[Tensor, "batch channel *spatial"], tell: Callable[[], object] = lambda: None
) -> list[Segments]:
    """`segment` for each image of a batch, on the mean of its channels; `tell` is called before each."""
    found = []
    for image in images:
        tell()
        found.append(segment(image.detach().cpu().double().mean(0).numpy()))
    return found
