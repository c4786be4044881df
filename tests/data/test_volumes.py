import nibabel
import numpy as np
import pytest
import SimpleITK

from xaitools.data.volumes import check_one_grid, read_grid, read_label_map, read_volume
from xaitools.errors import DataError, DataFileError, ShapeError

VOXELS = np.arange(5 * 6 * 7).reshape(5, 6, 7).astype(np.int16)  # x to the left, y to the back, z to the head
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def write_nifti(path, voxels, lps_affine):
    nibabel.save(nibabel.Nifti1Image(voxels, LPS_TO_RAS @ lps_affine), path)
    return path


def write_mhd(path, voxels=VOXELS, direction=(1, 0, 0, 0, 1, 0, 0, 0, 1), spacing=(1, 1, 1)):
    image = SimpleITK.GetImageFromArray(np.ascontiguousarray(voxels.T))
    image.SetDirection(direction)
    image.SetSpacing(spacing)
    SimpleITK.WriteImage(image, str(path))
    return path


@pytest.mark.parametrize(
    ("stored", "axes"),
    [
        (VOXELS, np.diag([1.0, 2, 3])),
        (VOXELS[::-1], np.diag([-1.0, 2, 3])),
        (VOXELS[::-1, ::-1], np.diag([-1.0, -2, 3])),
        (VOXELS[:, :, ::-1], np.diag([1.0, 2, -3])),
        (VOXELS.transpose(1, 2, 0), np.array([[0, 0, 1.0], [2, 0, 0], [0, 3, 0]])),
    ],
)
def test_nifti_volumes_are_turned_by_their_affine(tmp_path, stored, axes):
    affine = np.eye(4)
    affine[:3, :3] = axes
    volume = read_volume(write_nifti(tmp_path / "a.nii.gz", np.ascontiguousarray(stored), affine))
    np.testing.assert_array_equal(volume.voxels, stored)
    turned = volume.turned("LPS")
    np.testing.assert_array_equal(turned.voxels, VOXELS)
    np.testing.assert_allclose(turned.grid.spacing, [1, 2, 3])
    first = axes @ (np.array(stored.shape) - 1)  # where the last stored voxel lies
    corner = np.where(first < 0, first, 0)  # the voxel nearest to right, front and feet
    np.testing.assert_allclose(turned.grid.affine[:3, 3], LPS_TO_RAS[:3, :3] @ corner, atol=1e-5)
    np.testing.assert_array_equal(volume.turned().voxels, VOXELS[::-1, ::-1])
    assert volume.turned().turned("LPS").grid.same_as(turned.grid)


def test_nifti_scale_factors_give_hounsfield_units(tmp_path):
    image = nibabel.Nifti1Image(VOXELS, np.eye(4))
    image.header.set_slope_inter(2, -1000)
    nibabel.save(image, tmp_path / "a.nii")
    np.testing.assert_allclose(np.unique(read_volume(tmp_path / "a.nii").voxels)[:2], [-1000, -998])


def test_a_flat_nifti_image_is_one_slice(tmp_path):
    affine = np.diag([1.0, 1, 1, 1])
    volume = read_volume(write_nifti(tmp_path / "a.nii", VOXELS[:, :, 0].copy(), affine))
    np.testing.assert_array_equal(volume.turned("LPS").voxels, VOXELS[:, :, :1])


@pytest.mark.parametrize(
    ("stored", "direction"),
    [(VOXELS, (1, 0, 0, 0, 1, 0, 0, 0, 1)), (VOXELS[::-1, :, ::-1], (-1, 0, 0, 0, 1, 0, 0, 0, -1))],
)
def test_meta_images_are_turned_by_their_direction(tmp_path, stored, direction):
    volume = read_volume(write_mhd(tmp_path / "a.mhd", stored, direction, (1, 2, 3)))
    np.testing.assert_array_equal(volume.turned("LPS").voxels, VOXELS)
    np.testing.assert_array_equal(volume.turned("LPS").grid.spacing, (1, 2, 3))


def test_both_formats_place_a_volume_alike(tmp_path):
    affine = np.diag([1.0, 2, 3, 1])
    nifti = read_volume(write_nifti(tmp_path / "a.nii", VOXELS, affine))
    assert nifti.grid.same_as(read_volume(write_mhd(tmp_path / "b.mhd", spacing=(1, 2, 3))).grid)


def test_a_raw_file_that_is_short_or_missing_is_named(tmp_path):
    path = write_mhd(tmp_path / "scan.mhd")
    raw = tmp_path / "scan.raw"
    raw.write_bytes(raw.read_bytes()[:100])
    with pytest.raises(DataFileError, match=r"scan.mhd.*\.raw"):
        read_volume(path)
    raw.unlink()
    with pytest.raises(DataFileError, match=r"scan.mhd.*\.raw"):
        read_volume(path)


def test_a_truncated_or_missing_nifti_file_is_named(tmp_path):
    noise = np.random.default_rng(0).integers(-1000, 1000, (20, 20, 20)).astype(np.int16)
    for name in ("a.nii", "b.nii.gz"):
        path = write_nifti(tmp_path / name, noise, np.eye(4))
        path.write_bytes(path.read_bytes()[:3000])
        with pytest.raises(DataFileError, match=name):
            read_volume(path)
    with pytest.raises(DataFileError, match=r"gone\.nii"):
        read_volume(tmp_path / "gone.nii")


def test_a_header_whose_affine_is_singular_is_named(tmp_path):
    path = write_nifti(tmp_path / "a.nii", VOXELS, np.eye(4))
    header = bytearray(path.read_bytes())
    header[312:328] = bytes(16)  # the last row of the affine
    path.write_bytes(header)
    for read in (read_volume, read_grid):
        with pytest.raises(DataFileError, match=r"a\.nii: affine .*expected an invertible"):
            read(path)


def test_series_are_refused_and_axes_of_one_voxel_dropped(tmp_path):
    with pytest.raises(DataError, match="4 dimensions; expected one volume"):
        read_volume(write_nifti(tmp_path / "a.nii", np.zeros((3, 3, 3, 2), dtype=np.int16), np.eye(4)))
    assert (
        read_volume(write_nifti(tmp_path / "b.nii", VOXELS[..., None], np.eye(4))).voxels.shape
        == VOXELS.shape
    )


def test_label_maps_are_whole_numbers(tmp_path):
    large = VOXELS.astype(np.int32) + 2**24
    read = read_label_map(write_nifti(tmp_path / "a.nii", large, np.eye(4)))
    assert read.voxels.dtype == np.int64
    np.testing.assert_array_equal(read.voxels, large)
    with pytest.raises(DataError, match=r"b\.nii: values that are not whole numbers"):
        read_label_map(write_nifti(tmp_path / "b.nii", np.full((2, 2, 2), 0.5, np.float32), np.eye(4)))


def save(path, shape=(5, 6, 7), affine=None):
    nibabel.save(
        nibabel.Nifti1Image(np.zeros(shape, dtype=np.uint8), np.eye(4) if affine is None else affine), path
    )
    return path


def test_a_grid_is_read_turned_to_right_front_and_head(tmp_path):
    stored = np.array([[0, 0, 2.0, -90], [-3, 0, 0, 120], [0, 4, 0, -100], [0, 0, 0, 1]])
    grid = read_grid(save(tmp_path / "a.nii.gz", affine=stored)).turned()
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
            ShapeError, match=r"a\.nii has 5 x 6 x 7 .*b\.nii has 5 x 6 x [78].*space='mni'.*space='centered'"
        ):
            check_one_grid([first, second, save(tmp_path / "b.nii", **change)])


def scaled(path, stored, slope, inter=0.0):
    image = nibabel.Nifti1Image(stored, np.eye(4))
    image.header.set_slope_inter(slope, inter)
    nibabel.save(image, path)
    return path


def test_scaled_labels_are_exact_or_refused(tmp_path):
    stored = 2 * VOXELS.astype(np.int32)
    whole = read_label_map(scaled(tmp_path / "a.nii", stored, 2, 312782560)).voxels
    np.testing.assert_array_equal(whole, 2 * stored.astype(np.int64) + 312782560)
    for slope, inter in ((0.5, 0), (1, 0.25)):  # halves of even numbers are whole, but by chance
        with pytest.raises(DataError, match=r"b\.nii: scale factors .*expected labels, which are not scaled"):
            read_label_map(scaled(tmp_path / "b.nii", stored, slope, inter))


@pytest.mark.parametrize(("dtype", "largest"), [(np.float32, 2**24), (np.float64, 2**53)])
def test_labels_that_a_float_cannot_tell_apart_are_refused(dtype, largest, tmp_path):
    below = np.full((2, 2, 2), largest - 1, dtype)
    assert (read_label_map(write_nifti(tmp_path / "a.nii", below, np.eye(4))).voxels == largest - 1).all()
    with pytest.raises(DataError, match=rf"b\.nii: labels of {largest} or more as {np.dtype(dtype)}"):
        read_label_map(write_nifti(tmp_path / "b.nii", below + 1, np.eye(4)))
