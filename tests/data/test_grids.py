import nibabel
import numpy as np
import pytest

from xaitools.data.grids import Grid, centered_grid, check_one_grid, mni_grid, read_grid, resample
from xaitools.errors import DataError, DataFileError, ParameterError, ShapeError


def linear(grid):
    """10 + 0.3 x - 0.2 y + 0.1 z at the voxels, in mm."""
    indices = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), axis=-1)
    mm = indices @ grid.affine[:3, :3].T + grid.affine[:3, 3]
    return (10 + mm @ [0.3, -0.2, 0.1]).astype(np.float32)


@pytest.mark.parametrize(
    ("spacing", "shape"),
    [(1, (181, 217, 181)), (2, (91, 109, 91)), (3, (61, 73, 61)), (4, (46, 55, 46)), (8, (23, 28, 23))],
)
def test_mni_grids_are_the_usual_ones_and_symmetric(spacing, shape):
    grid = mni_grid(spacing)
    assert grid.shape == shape
    assert grid.affine[0, 3] == -(grid.affine @ [shape[0] - 1, 0, 0, 1])[0]
    assert grid.affine[1:3, 3].tolist() == [-126, -72]
    np.testing.assert_allclose(grid.spacing, spacing)


@pytest.mark.parametrize("spacing", [0, -1, float("nan")])
def test_impossible_spacings_are_refused(spacing):
    with pytest.raises(ParameterError, match="spacing"):
        mni_grid(spacing)


def test_a_centered_grid_has_its_middle_at_0():
    grid = centered_grid((5, 6, 7), 2)
    np.testing.assert_allclose(grid.affine @ [2, 2.5, 3, 1], [0, 0, 0, 1])


@pytest.mark.parametrize("spacing", [1.0, 3.0, 5.0])
def test_a_respaced_grid_fills_the_same_box(spacing):
    turn = np.array([[0.96, -0.28, 0], [0.28, 0.96, 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = turn * [2, 2, 3], [5, 6, 7]
    grid = Grid((30, 30, 20), affine)
    new = grid.respaced(spacing)
    assert new.shape == (60 / spacing,) * 3
    corners = [np.array([-0.5, -0.5, -0.5, 1]), np.array([*(np.array(grid.shape) - 0.5), 1])]
    for corner, same in zip(corners, [corners[0], np.array([*(np.array(new.shape) - 0.5), 1])], strict=True):
        np.testing.assert_allclose(grid.affine @ corner, new.affine @ same, atol=1e-9)


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


def save(path, shape=(5, 6, 7), affine=None):
    nibabel.save(
        nibabel.Nifti1Image(np.zeros(shape, dtype=np.uint8), np.eye(4) if affine is None else affine), path
    )
    return path


def test_a_grid_is_read_turned_to_right_front_and_head(tmp_path):
    stored = np.array([[0, 0, 2.0, -90], [-3, 0, 0, 120], [0, 4, 0, -100], [0, 0, 0, 1]])
    grid = read_grid(save(tmp_path / "a.nii.gz", affine=stored))
    turned = nibabel.as_closest_canonical(nibabel.load(tmp_path / "a.nii.gz"))
    assert grid.shape == turned.shape == (7, 5, 6)
    np.testing.assert_allclose(grid.affine, turned.affine)


def test_series_slices_and_damaged_files_are_refused(tmp_path):
    for name, shape in (("a.nii", (4, 4, 4, 2)), ("b.nii", (4, 4, 1)), ("c.nii", (4, 4))):
        with pytest.raises(DataError, match="expected one volume"):
            read_grid(save(tmp_path / name, shape))
    assert read_grid(save(tmp_path / "d.nii", (4, 4, 4, 1))).shape == (4, 4, 4)
    (tmp_path / "e.nii.gz").write_bytes(b"no")
    with pytest.raises(DataFileError, match=r"e\.nii\.gz"):
        read_grid(tmp_path / "e.nii.gz")


def test_volumes_on_different_grids_are_both_named(tmp_path):
    first, second = save(tmp_path / "a.nii"), save(tmp_path / "b.nii")
    assert check_one_grid([first, second]).shape == (5, 6, 7)
    moved = np.eye(4)
    moved[2, 3] = 0.5
    for change in ({"affine": moved}, {"shape": (5, 6, 8)}):
        with pytest.raises(
            ShapeError, match=r"a\.nii has 5 x 6 x 7 .*b\.nii has 5 x 6 x [78].*'mni'.*'centered'.*grid="
        ):
            check_one_grid([first, second, save(tmp_path / "b.nii", **change)])


@pytest.mark.parametrize("mm", [-500, 500])
@pytest.mark.parametrize("labels", [False, True])
def test_a_volume_that_lies_beyond_the_grid_is_zero(mm, labels):
    source = Grid((4, 4, 4), np.diag([2.0, 2, 2, 1]))
    target = Grid((3, 4, 5), source.affine + np.array([[0, 0, 0, mm], [0] * 4, [0] * 4, [0] * 4]))
    moved = resample(1 + np.arange(64, dtype=np.float32).reshape(4, 4, 4), source, target, labels=labels)
    assert moved.shape == (3, 4, 5)
    assert not moved.any()
