import numpy as np
import pytest

from xaitools.data.grids import Grid, centered_grid
from xaitools.data.resampling import resample


def linear(grid):
    """10 + 0.3 x - 0.2 y + 0.1 z at the voxels, in mm."""
    indices = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), axis=-1)
    mm = indices @ grid.affine[:3, :3].T + grid.affine[:3, 3]
    return (10 + mm @ [0.3, -0.2, 0.1]).astype(np.float32)


def test_resizing_crops_and_extends_by_whole_voxels():
    grid = Grid((6, 7, 8), np.diag([2.0, 2, 2, 1]))
    voxels = np.arange(6 * 7 * 8, dtype=np.float32).reshape(6, 7, 8)
    cropped, extended = (resample(voxels, grid, grid.resized(shape)) for shape in ((4, 7, 4), (8, 7, 10)))
    np.testing.assert_array_equal(cropped, voxels[1:5, :, 2:6])
    np.testing.assert_array_equal(extended, np.pad(voxels, ((1, 1), (0, 0), (1, 1))))


@pytest.mark.parametrize("spacing", [1.5, 2.0, 4.0])
def test_resampling_keeps_a_linear_function(spacing):
    source = Grid((30, 32, 34), np.array([[2.0, 0, 0, -29], [0, 2, 0, -31], [0, 0, 2, -33], [0, 0, 0, 1]]))
    target = centered_grid([int(24 / spacing)] * 3, spacing)
    np.testing.assert_allclose(resample(linear(source), source, target), linear(target), atol=1e-3)


def test_a_coarser_grid_averages_instead_of_picking_voxels():
    source = centered_grid((40, 40, 40), 1.0)
    checkered = (np.indices(source.shape).sum(axis=0) % 2).astype(np.float32)
    middle = resample(checkered, source, centered_grid((6, 6, 6), 4.0))[1:-1, 1:-1, 1:-1]
    np.testing.assert_allclose(middle, 0.5, atol=0.01)


def test_labels_keep_their_numbers():
    source = centered_grid((10, 10, 10), 2.0)
    labels = np.random.default_rng(0).choice([0, 3, 207], source.shape).astype(np.int32)
    finer = resample(labels, source, centered_grid((20, 20, 20), 1.0), labels=True)
    expected = labels.repeat(2, 0).repeat(2, 1).repeat(2, 2)
    inner = (slice(1, -1),) * 3  # the outermost half voxel is beyond the centres of the source's voxels
    np.testing.assert_array_equal(finer[inner], expected[inner])


@pytest.mark.parametrize("mm", [-500, 500])
@pytest.mark.parametrize("labels", [False, True])
def test_a_volume_that_lies_beyond_the_grid_is_zero(mm, labels):
    source = Grid((4, 4, 4), np.diag([2.0, 2, 2, 1]))
    target = Grid((3, 4, 5), source.affine + np.array([[0, 0, 0, mm], [0] * 4, [0] * 4, [0] * 4]))
    moved = resample(1 + np.arange(64, dtype=np.float32).reshape(4, 4, 4), source, target, labels=labels)
    assert moved.shape == (3, 4, 5)
    assert not moved.any()


def test_labels_beyond_a_float_are_kept_apart():
    source = centered_grid((6, 6, 6), 2.0)
    known = np.array([0, -5, 3, 312782560, 312782564, 2**53 + 1])
    labels = np.random.default_rng(0).choice(known, source.shape)
    turned = resample(labels, source, source.turned("LPS"), labels=True)
    np.testing.assert_array_equal(turned, labels[::-1, ::-1])
    assert turned.dtype == np.int64


def test_an_image_of_zeros_and_ones_is_grey_without_a_warning():
    voxels = np.zeros((6, 6, 6), dtype=np.float32)
    voxels[2:4] = 1
    source = Grid((6, 6, 6), np.eye(4))
    moved = resample(voxels, source, Grid((5, 6, 6), np.array([[1, 0, 0, 0.5], *np.eye(4)[1:].tolist()])))
    np.testing.assert_allclose(moved[:, 3, 3], [0, 0.5, 1, 0.5, 0], atol=1e-6)
