"""Maps brought back to the files that their images came from."""

import nibabel
import numpy as np
import pydicom
import pytest
import torch
from PIL import Image

from xaitools import load_brains, load_ct, load_pictures, load_volumes, save_maps
from xaitools.errors import DataError, ShapeError
from xaitools.phantoms import chest_slices

SHAPE = (10, 12, 14)
STORED = np.array([[0, 0, -2.0, 11], [2, 0, 0, -13], [0, -2, 0, 9], [0, 0, 0, 1]])  # axes A, I, L


def blob(center, shape, width=2.0):
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    return np.exp(-(((grid - center) ** 2).sum(-1)) / (2 * width**2)).astype(np.float32)


def volumes(folder, count=2, **arguments):
    """Volumes of one bright place each, stored with turned axes."""
    for number in range(count):
        array = 100 * blob((4 + number, 5, 7), SHAPE)
        image = nibabel.Nifti1Image(array, STORED)
        image.set_sform(STORED, 4)
        nibabel.save(image, folder / f"MILLER_{number}.nii.gz")
    return load_volumes(folder, intensity=(0, 100), cache_dir=folder / "cache", progress=False, **arguments)


def test_maps_of_one_grid_come_back_voxel_by_voxel(tmp_path):
    samples = volumes(tmp_path)
    maps = {"gradient": samples.images[:], "lrp": -samples.images[:, 0]}
    written = save_maps(maps, samples, tmp_path / "maps")
    assert sorted(path.name for path in written) == [
        f"sub-00{number}_desc-{method}_map.nii.gz" for number in (1, 2) for method in ("gradient", "lrp")
    ]
    for number, source in enumerate(samples.sources):
        stored = nibabel.load(source)
        for method, sign in (("gradient", 1), ("lrp", -1)):
            back = nibabel.load(tmp_path / "maps" / f"sub-00{number + 1}_desc-{method}_map.nii.gz")
            np.testing.assert_allclose(back.affine, stored.affine, atol=1e-6)
            np.testing.assert_allclose(back.get_fdata(), sign * stored.get_fdata() / 100, atol=1e-5)
            assert (int(back.header["sform_code"]), back.header.get_xyzt_units()[0]) == (4, "mm")
    for path in written:
        assert b"MILLER" not in nibabel.load(path).header.binaryblock


@pytest.mark.parametrize("space", ["file", "centered"])
def test_maps_of_another_grid_come_back_to_their_place(space, tmp_path):
    """The map of a place, on the grid of the network, lies at that place of each file."""
    samples = volumes(tmp_path, space=space, spacing=1.5, shape=(16, 16, 16))[[1, 0]]
    save_maps(samples.images[:, 0] * -3, samples, tmp_path / "maps")
    for name, source in zip(samples.names, samples.sources, strict=True):
        stored = nibabel.load(source)
        back = nibabel.load(tmp_path / "maps" / f"{name}_desc-map_map.nii.gz")
        np.testing.assert_allclose(back.affine, stored.affine, atol=1e-6)
        expected, found = stored.get_fdata() / 100, back.get_fdata() / -3
        assert np.unravel_index(found.argmax(), SHAPE) == np.unravel_index(expected.argmax(), SHAPE)
        bright = expected > 0.3
        np.testing.assert_allclose(found[bright], expected[bright], atol=0.12)
        centers = [
            [(np.indices(SHAPE)[axis] * array).sum() / array.sum() for axis in range(3)]
            for array in (expected * bright, found * bright)
        ]
        np.testing.assert_allclose(*centers, atol=0.1)


def test_brains_know_the_way_back_too(tmp_path):
    volumes(tmp_path)
    (tmp_path / "participants.csv").write_text("id,sex\nMILLER_0,F\nMILLER_1,M\n")
    brains = load_brains(
        tmp_path, label_column="sex", intensity=(0, 100), progress=False, cache_dir=tmp_path / "cache"
    )
    (path,) = save_maps(brains.images[[1]], brains[[1]], tmp_path / "maps")
    np.testing.assert_allclose(
        nibabel.load(path).get_fdata(), nibabel.load(brains.sources[1]).get_fdata() / 100, atol=1e-5
    )


@pytest.fixture
def ct(tmp_path, write_dicom, ramp):
    for name in "ab":
        write_dicom(tmp_path / "scans" / f"{name}.dcm", patient=f"MILLER^{name}")
    (tmp_path / "labels.csv").write_text("file,contrast\na.dcm,1\nb.dcm,0\n")
    return load_ct(tmp_path / "scans", table=tmp_path / "labels.csv", size=28, progress=False)


@pytest.mark.parametrize(("axes", "turn"), [([1, 0, 0, 0, 1, 0], 1), ([-1, 0, 0, 0, -1, 0], -1)])
def test_maps_of_dicom_slices_are_turned_as_they_are_stored(ct, axes, turn, tmp_path):
    for path in ct.sources:
        header = pydicom.dcmread(path)
        header.ImageOrientationPatient, header.ImagePositionPatient = axes, [3, 4, 5]
        header.save_as(path)
    rows, columns = np.mgrid[:28, :28]
    maps = np.stack([columns + 30.0 * rows, -(columns + 30.0 * rows)])
    written = save_maps(maps, ct, tmp_path / "maps")
    for path, expected in zip(written, maps, strict=True):
        image = nibabel.load(path)
        np.testing.assert_allclose(image.get_fdata()[..., 0].T, expected[4:24][::turn, ::turn])
        np.testing.assert_allclose(image.affine @ [2, 1, 0, 1], [-3 - 2 * turn, -4 - turn, 5, 1])
        assert b"MILLER" not in image.header.binaryblock


def test_secondary_captures_belong_to_the_study_and_tell_no_more_than_the_source(ct, tmp_path):
    source = pydicom.dcmread(ct.sources[0])
    source.StudyInstanceUID, source.FrameOfReferenceUID = "1.2.3", "1.2.4"
    source.OtherPatientNames, source.InstitutionName, source.StationName = "SECRET", "HOSPITAL", "ROOM 7"
    source.save_as(ct.sources[0])
    maps = np.random.default_rng(0).standard_normal((2, 28, 28)).astype(np.float32)
    assert all(path.suffix == ".gz" for path in save_maps(maps, ct, tmp_path / "without"))
    nifti, capture, *_ = save_maps({"lrp": maps}, ct, tmp_path / "maps", dicom=True)
    assert capture.name == "sub-001_desc-lrp_map.dcm"
    read = pydicom.dcmread(capture)
    assert (read.StudyInstanceUID, read.FrameOfReferenceUID) == ("1.2.3", "1.2.4")
    assert read.PatientID == source.PatientID
    assert read.SeriesInstanceUID != source.SeriesInstanceUID
    assert read.SOPClassUID.name == "Secondary Capture Image Storage"
    values = read.pixel_array * float(read.RescaleSlope) + float(read.RescaleIntercept)
    np.testing.assert_allclose(values, nibabel.load(nifti).get_fdata()[..., 0].T, atol=1e-4)
    for secret in (b"SECRET", b"HOSPITAL", b"ROOM 7"):
        assert secret not in capture.read_bytes()
    own = {element.keyword for element in read}
    assert not {"OtherPatientNames", "InstitutionName", "StationName"} & own


def test_an_invalid_tag_of_the_source_is_not_quoted(ct, tmp_path):
    content = ct.sources[0].read_bytes()
    uid = str(pydicom.dcmread(ct.sources[0]).SOPClassUID).encode()
    ct.sources[0].write_bytes(content.replace(uid, uid.replace(b"1.2.840.1", b"JANE DOE\x86")))
    maps = np.zeros((2, 28, 28), dtype=np.float32)
    assert len(save_maps(maps, ct, tmp_path / "maps", dicom=True)) == 4


def test_maps_of_slices_of_a_volume(tmp_path):
    rng = np.random.default_rng(0)
    for name in "ab":
        array = rng.uniform(-900, 400, (16, 16, 9)).astype(np.float32)
        nibabel.save(nibabel.Nifti1Image(array, np.diag([2.0, 2, 3, 1])), tmp_path / f"{name}.nii")
    (tmp_path / "labels.csv").write_text("file,contrast\na.nii,1\nb.nii,0\n")
    asked = {"window": (-250, 1300), "slice_fraction": 0.25, "size": 16, "progress": False}
    ct = load_ct(tmp_path, table=tmp_path / "labels.csv", **asked)
    (first, _) = save_maps(ct.images, ct, tmp_path / "maps")
    back = nibabel.load(first).get_fdata()
    stored = nibabel.load(ct.sources[0]).get_fdata()
    np.testing.assert_allclose(back[:, :, 2] * 1300 - 900, stored[:, :, 2], atol=0.01)
    assert not np.delete(back, 2, axis=2).any()
    with pytest.raises(DataError, match="dicom=True for images that are not slices of DICOM files"):
        save_maps(ct.images, ct, tmp_path / "maps", dicom=True)


def test_maps_of_pictures(tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (12, 20)).astype(np.uint8)
    Image.fromarray(picture).save(tmp_path / "a.png")
    samples = load_pictures(tmp_path, size=20, progress=False)
    (path,) = save_maps(-samples.images, samples, tmp_path / "maps")
    assert path.name == "sub-001_desc-map_map.tiff"
    np.testing.assert_allclose(np.asarray(Image.open(path)), picture / -255.0, atol=1e-6)


def test_maps_that_do_not_fit(tmp_path):
    samples = volumes(tmp_path)
    with pytest.raises(ShapeError, match=r"maps 'map' of shape \(1, 10, 14, 12\)|maps 'map' of shape"):
        save_maps(samples.images[[0]], samples, tmp_path)
    with pytest.raises(DataError, match="maps 'x' with NaN or infinite values"):
        save_maps({"x": samples.images[:] * torch.nan}, samples, tmp_path)
    chest = chest_slices(2, size=32, seed=0)
    with pytest.raises(DataError, match="do not know the files that they came from"):
        save_maps(chest.images, chest, tmp_path)
