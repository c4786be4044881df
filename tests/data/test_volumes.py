import nibabel
import numpy as np
import pytest
import SimpleITK

from xaitools.data.volumes import Volume, axial_slice, read_volume
from xaitools.errors import DataError, DataFileError

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
    np.testing.assert_array_equal(volume.voxels, VOXELS)
    np.testing.assert_allclose(np.linalg.norm(volume.affine[:3, :3], axis=0), [1, 2, 3])
    first = axes @ (np.array(stored.shape) - 1)  # where the last stored voxel lies
    corner = np.where(first < 0, first, 0)  # the voxel nearest to right, front and feet
    np.testing.assert_allclose(volume.affine[:3, 3], corner, atol=1e-5)


def test_nifti_scale_factors_give_hounsfield_units(tmp_path):
    image = nibabel.Nifti1Image(VOXELS, np.eye(4))
    image.header.set_slope_inter(2, -1000)
    nibabel.save(image, tmp_path / "a.nii")
    np.testing.assert_allclose(np.unique(read_volume(tmp_path / "a.nii").voxels)[:2], [-1000, -998])


def test_a_flat_nifti_image_is_one_slice(tmp_path):
    affine = np.diag([1.0, 1, 1, 1])
    volume = read_volume(write_nifti(tmp_path / "a.nii", VOXELS[:, :, 0].copy(), affine))
    np.testing.assert_array_equal(axial_slice(volume, 0.5).hu, VOXELS[:, :, 0].T)


@pytest.mark.parametrize(
    ("stored", "direction"),
    [(VOXELS, (1, 0, 0, 0, 1, 0, 0, 0, 1)), (VOXELS[::-1, :, ::-1], (-1, 0, 0, 0, 1, 0, 0, 0, -1))],
)
def test_meta_images_are_turned_by_their_direction(tmp_path, stored, direction):
    volume = read_volume(write_mhd(tmp_path / "a.mhd", stored, direction, (1, 2, 3)))
    np.testing.assert_array_equal(volume.voxels, VOXELS)
    middle = axial_slice(volume, 0.5)
    np.testing.assert_array_equal(middle.hu, VOXELS[:, :, 3].T)
    assert middle.spacing == (2, 1)


def test_the_fraction_counts_from_the_feet():
    volume = Volume(VOXELS.astype(np.float32), np.eye(4))
    for fraction, k in ((0, 0), (0.5, 3), (1, 6)):
        np.testing.assert_array_equal(axial_slice(volume, fraction).hu, VOXELS[:, :, k].T)


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


def test_what_is_no_axial_slice_or_volume_is_refused(tmp_path):
    with pytest.raises(DataError, match="4 dimensions"):
        read_volume(write_nifti(tmp_path / "a.nii", np.zeros((3, 3, 3, 2), dtype=np.int16), np.eye(4)))
    with pytest.raises(DataError, match="not axial"):
        read_volume(write_nifti(tmp_path / "b.nii", np.zeros((1, 3, 3), dtype=np.int16), np.eye(4)))
