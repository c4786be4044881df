import tracemalloc

import numpy as np
import pytest
import torch
from scipy.ndimage import distance_transform_edt, gaussian_filter
from scipy.sparse import csr_array
from skimage.morphology import ball, dilation, disk

from xaitools.attribution.xrai import (
    Segments,
    _felzenszwalb_scales,
    _grown,
    _supervoxel_scales,
    rank_regions,
    segment,
    xrai,
)
from xaitools.errors import DataError, ShapeError


def slice_and_map(size: int = 64, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    image = gaussian_filter(rng.random((size, size)), 3) + 0.05 * rng.random((size, size))
    return image, gaussian_filter(rng.standard_normal((size, size)), 2)


def slow_masks(label, radius=5):
    """A full mask of every label, grown by distance."""
    return [distance_transform_edt(label != number) <= radius for number in np.unique(label)]


def dense_xrai(attribution, masks, min_new=50):
    """The same with cells, from full masks and the dense matrix of which cell is in which: every sum in its order."""
    tags = np.random.default_rng(0).integers(1, 2**63, len(masks), dtype=np.uint64)
    signature = np.zeros(attribution.shape, dtype=np.uint64)
    for mask, tag in zip(masks, tags, strict=True):
        signature[mask] ^= tag
    _, first, cells, sizes = np.unique(signature, return_index=True, return_inverse=True, return_counts=True)
    membership = csr_array(np.stack([mask.ravel()[first] for mask in masks]).astype(float))
    open_sums = np.bincount(cells.ravel(), weights=attribution.ravel())
    open_sizes, value = sizes.astype(float), np.full(len(sizes), np.nan)
    while len((enough := (membership @ open_sizes >= min_new).nonzero())[0]):
        membership = membership[enough[0]]
        gains = (membership @ open_sums) / (membership @ open_sizes)
        best = int(np.argmax(gains))
        added = membership.indices[membership.indptr[best] : membership.indptr[best + 1]]
        added = added[open_sizes[added] > 0]
        value[added] = gains[best]
        open_sums[added] = open_sizes[added] = 0.0
    rest = open_sizes > 0
    if rest.any():
        value[rest] = open_sums[rest].sum() / open_sizes[rest].sum()
    return value[cells.reshape(attribution.shape)]


def slow_xrai(attribution, masks, min_new=50):
    """Algorithm 1 of Kapishnikov et al. 2019, every remaining mask measured again in every round."""
    covered = np.zeros(attribution.shape, bool)
    result = np.full(attribution.shape, np.nan)
    remaining = list(masks)
    while remaining := [mask for mask in remaining if (mask & ~covered).sum() >= min_new]:
        gains = [attribution[mask & ~covered].mean() for mask in remaining]
        best = int(np.argmax(gains))
        new = remaining[best] & ~covered
        result[new] = gains[best]
        covered |= new
    if not covered.all():
        result[~covered] = attribution[~covered].mean()
    return result


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("absolute", [False, True])
def test_equals_slow_reference(seed, absolute) -> None:
    image, attribution = slice_and_map(seed=seed)
    attribution = np.abs(attribution) if absolute else attribution
    masks = [mask for label in _felzenszwalb_scales(image) for mask in slow_masks(label)]
    np.testing.assert_allclose(
        rank_regions(attribution, segment(image)), slow_xrai(attribution, masks), atol=1e-14
    )


def test_zero_regions_tie_as_in_the_reference() -> None:
    image, attribution = slice_and_map()
    attribution[:, 20:] = 0.0
    masks = [mask for label in _felzenszwalb_scales(image) for mask in slow_masks(label)]
    np.testing.assert_allclose(
        rank_regions(attribution, segment(image)), slow_xrai(attribution, masks), atol=1e-14
    )


def test_segments_grow_as_by_dilation_with_a_disk() -> None:
    image, _ = slice_and_map()
    label = _felzenszwalb_scales(image)[0]
    expected = [dilation(label == number, disk(5)) for number in np.unique(label)]
    assert len(expected) > 3
    np.testing.assert_array_equal([filled(part, label.shape) for part in _grown(label)], expected)


def test_supervoxels_grow_as_by_dilation_with_a_ball() -> None:
    """Also on axes shorter than the radius."""
    for shape in [(14, 9, 11), (3, 20, 4)]:
        label = np.random.default_rng(0).integers(0, 40, shape)
        label[label > 2] = 3
        expected = [dilation(label == number, ball(5)) for number in range(4)]
        np.testing.assert_array_equal([filled(part, shape) for part in _grown(label)], expected)


def filled(part, shape):
    mask = np.zeros(shape, bool)
    mask[part.box] = part.mask
    return mask


@pytest.mark.parametrize("shape", [(48, 41), (18, 20, 14), (7, 20, 16)])
def test_boxes_and_sparse_cells_change_no_bit(shape) -> None:
    rng = np.random.default_rng(len(shape))
    image = gaussian_filter(rng.random(shape), 2)
    attribution = gaussian_filter(rng.standard_normal(shape), 1)
    labels = _felzenszwalb_scales(image) if len(shape) == 2 else _supervoxel_scales(image)
    masks = [mask for label in labels for mask in slow_masks(label)]
    segments = segment(image)
    expected = dense_xrai(attribution, masks)
    np.testing.assert_array_equal(rank_regions(attribution, segments), expected)
    np.testing.assert_array_equal(rank_regions(attribution, Segments(masks)), expected)
    assert segments.membership.nnz < 0.8 * np.prod(segments.membership.shape)


def test_a_volume_takes_little_memory() -> None:
    """Full masks of these 512 segments would take 14 MB, and the dense matrix of their cells 96 MB."""
    place = np.indices((30, 30, 30)) * 8 // 30
    label = place[0] * 64 + place[1] * 8 + place[2]
    attribution = np.random.default_rng(0).random(label.shape)
    tracemalloc.start()
    rank_regions(attribution, Segments.of_parts(_grown(label), label.shape))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3e7


def test_equals_the_authors_package() -> None:
    saliency = pytest.importorskip("saliency.core", reason="needs the authors' package: pip install saliency")
    image, attribution = slice_and_map(size=96)
    expected = saliency.XRAI().GetMask(image, None, base_attribution=attribution)
    np.testing.assert_allclose(rank_regions(attribution, segment(image)), expected, atol=1e-12)


def test_order_of_the_greedy_choice_by_hand() -> None:
    left, right, middle = (np.zeros((10, 30), bool) for _ in range(3))
    left[:, :10], middle[:, 5:20], right[:, 20:] = True, True, True
    attribution = np.zeros((10, 30))
    attribution[:, 5:10], attribution[:, 10:20], attribution[:, 20:] = 3.0, 1.2, 1.0
    ranked = rank_regions(attribution, Segments([left, middle, right]))
    # The middle is densest (1.8); what it leaves of the left adds 50 pixels of 0, the right 100 of 1.
    np.testing.assert_allclose(ranked[0], [0.0] * 5 + [1.8] * 15 + [1.0] * 10)


def test_completeness_over_any_segments() -> None:
    """Every pixel is in one region, so the sum of a map is kept."""
    image, attribution = slice_and_map()
    assert rank_regions(attribution, segment(image)).sum() == pytest.approx(attribution.sum())


def test_volumes_have_supervoxels() -> None:
    rng = np.random.default_rng(0)
    volume = gaussian_filter(rng.random((20, 24, 16)), 2)
    attribution = gaussian_filter(rng.random(volume.shape), 1)
    maps = torch.tensor(attribution)[None, None]
    ranked = xrai(maps, torch.tensor(volume)[None, None])
    assert ranked.shape == maps.shape
    assert 1 < len(np.unique(ranked)) < 500
    assert ranked.sum() == pytest.approx(attribution.sum())


def test_bad_images() -> None:
    with pytest.raises(DataError, match=r"constant \(0.5\)"):
        segment(np.full((64, 64), 0.5))
    image, attribution = slice_and_map()
    image[3, 3] = np.nan
    with pytest.raises(DataError, match="NaN"):
        segment(image)
    with pytest.raises(ShapeError, match=r"\(64, 64\) and segments of shape \(8, 8\)"):
        rank_regions(attribution, Segments([np.ones((8, 8), bool)]))
    with pytest.raises(DataError, match="at least one segment"):
        Segments([])
