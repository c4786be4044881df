import json
import traceback
import unicodedata

import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK
import torch
from PIL import Image

from xaitools.data.ct import load_ct
from xaitools.data.intensity import apply_window
from xaitools.data.splits import split
from xaitools.errors import DataError, DataFileError, ParameterError, ShapeError


def load(folder, **arguments):
    return load_ct(folder, **({"size": 28, "progress": False} | arguments))


def write_labels(folder, rows, header="file,contrast"):
    path = folder / "labels.csv"
    path.write_text("\n".join([header, *rows]))
    return path


@pytest.fixture
def listed(tmp_path, write_dicom):
    """Four files of three patients, with a table."""
    for height, (name, patient) in enumerate((("a", "zoe"), ("b", "adam"), ("c", "zoe"), ("d", "mia"))):
        write_dicom(tmp_path / "scans" / f"{name}.dcm", patient=patient, height=height)
    return tmp_path / "scans", write_labels(tmp_path, ["a.dcm,1", "b.dcm,0", "c,0", "d.dcm,1"])


def test_listed_dicom_files(listed, ramp):
    folder, labels = listed
    samples = load(folder, table=labels)
    assert samples.labels.tolist() == [1, 0, 0, 1]
    assert samples.subjects == ("sub-003", "sub-001", "sub-003", "sub-002")
    assert samples.names == ("sub-003_img-1", "sub-001", "sub-003_img-2", "sub-002")
    assert [path.name for path in samples.sources] == ["a.dcm", "b.dcm", "c.dcm", "d.dcm"]
    assert samples.class_names == ("no contrast", "contrast")
    np.testing.assert_allclose(samples.images[0, 0, 4:24], apply_window(ramp, (60, 400)), atol=1e-6)
    assert samples.masks is None


def test_the_siim_layout(tmp_path, write_dicom):
    for number in range(4):
        write_dicom(tmp_path / "dicom_dir" / f"ID_{number}.dcm", patient=f"p{number}")
    rows = [f"{i},{i % 2 == 0},NONE,..\\some\\where,ID_{i}.dcm" for i in range(4)]
    (tmp_path / "overview.csv").write_text(
        "\n".join([",Contrast,ContrastTag,raw_input_path,dicom_name", *rows])
    )
    samples = load(tmp_path)
    assert samples.labels.tolist() == [1, 0, 1, 0]
    assert json.loads(json.dumps(samples.info)) == {
        "source": "CT labelled by a table",
        "window": [60.0, 400.0],
        "size": 28,
        "slice_fraction": 0.5,
    }


@pytest.fixture
def lidc(tmp_path, write_dicom, ramp):
    """Four patients in series of 5 or 7 slices (file names in another order), and a scout view of another kind."""
    for patient in range(4):
        for number, k in enumerate(np.random.default_rng(patient).permutation(5 + 2 * (patient % 2))):
            write_dicom(
                tmp_path / f"LIDC-IDRI-000{patient}" / "series" / f"1-{number:03d}.dcm",
                ramp + 10 * int(k),
                patient=f"LIDC-IDRI-000{patient}",
                series=f"1.2.{patient}",
                height=2.5 * int(k) - 100,
                ContrastBolusAgent="Omnipaque" if patient % 2 else None,
            )
        write_dicom(
            tmp_path / f"LIDC-IDRI-000{patient}" / "dx" / "1.dcm", series=f"1.3.{patient}", Modality="DX"
        )
    return tmp_path


@pytest.mark.parametrize(("fraction", "levels"), [(0.5, [2, 3, 2, 3]), (0.0, [0] * 4), (1.0, [4, 6, 4, 6])])
def test_dicom_series_labelled_by_their_header(lidc, ramp, fraction, levels):
    samples = load(lidc, slice_fraction=fraction)
    assert samples.labels.tolist() == [0, 1, 0, 1]
    assert samples.subjects == ("sub-001", "sub-002", "sub-003", "sub-004")
    for image, level in zip(samples.images, levels, strict=True):
        np.testing.assert_allclose(image[0, 4:24], apply_window(ramp + 10 * level, (60, 400)), atol=1e-6)


def test_what_else_a_cd_holds_changes_nothing(lidc, write_dicom, ramp):
    """Localizers in the series, another modality in more files, a DICOMDIR, files named by UIDs, notes."""
    expected = load(lidc, slice_fraction=0.3)
    for patient in range(4):
        own = {"patient": f"LIDC-IDRI-000{patient}", "series": f"1.2.{patient}"}
        folder = lidc / f"LIDC-IDRI-000{patient}" / "series"
        for number, path in enumerate(sorted(folder.glob("*.dcm"))):
            path.rename(folder / f"1.3.6.1.4.{patient}.{number}") if number % 2 else None
        write_dicom(folder / "scout.dcm", height=-500, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"], **own)
        write_dicom(folder / "scout2", ImageOrientationPatient=[0, 1, 0, 0, 0, -1], **own)
        for number in range(9):
            write_dicom(folder / f"mr{number}.dcm", Modality="MR", **own)
    (lidc / "README.txt").write_text("see the viewer on this disc")
    write_directory(lidc)
    found = load(lidc, slice_fraction=0.3)
    assert found.images.equal(expected.images)
    assert found.labels.tolist() == [0, 1, 0, 1]


def write_directory(folder):
    """A DICOMDIR, as on a CD."""
    meta = pydicom.dataset.FileMetaDataset()
    meta.MediaStorageSOPClassUID = pydicom.uid.MediaStorageDirectoryStorage
    meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
    meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dataset = pydicom.dataset.FileDataset("DICOMDIR", {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.FileSetID = "CD"
    dataset.OffsetOfTheFirstDirectoryRecordOfTheRootDirectoryEntity = 0
    dataset.OffsetOfTheLastDirectoryRecordOfTheRootDirectoryEntity = 0
    dataset.FileSetConsistencyFlag = 0
    dataset.DirectoryRecordSequence = []
    pydicom.dcmwrite(folder / "DICOMDIR", dataset)


@pytest.mark.parametrize("placeholder", ["ANON", "anonymous", "Anonymized", "0000", "XXX", "unknown"])
def test_a_placeholder_for_everybody_is_refused(tmp_path, write_dicom, placeholder):
    for number in range(2):
        write_dicom(
            tmp_path / f"{number}.dcm",
            patient=placeholder,
            series=f"1.2.{number}",
            StudyInstanceUID=f"1.3.{number}",
            ContrastBolusAgent="Isovue" if number else None,
        )
    message = (
        rf"file 1 of 2 \(sorted\) and others: the placeholder '{placeholder}' is the PatientID of "
        "several studies.*of subjects"
    )
    with pytest.raises(DataError, match=message):
        load(tmp_path)
    rows = ["0.dcm,0", "1.dcm,1"]
    with pytest.raises(DataError, match=message):
        load(tmp_path, table=write_labels(tmp_path, rows))
    subjects = [f"{row},{subject}" for row, subject in zip(rows, "ab", strict=True)]
    labels = write_labels(tmp_path, subjects, "file,contrast,subject")
    assert load(tmp_path, table=labels).subjects == ("sub-001", "sub-002")


def test_one_id_of_two_persons_is_refused(tmp_path, write_dicom):
    for number, birth in enumerate(["", "19500101", "19600101"]):
        write_dicom(tmp_path / f"{number}.dcm", series=f"1.2.{number}", PatientBirthDate=birth)
    with pytest.raises(DataError, match="several birth dates or sexes") as caught:
        load(tmp_path)
    assert "1950" not in str(caught.value)
    (tmp_path / "2.dcm").unlink()
    with pytest.raises(DataError, match="all 1 samples, one a PatientID, are of one class"):
        load(tmp_path)


def test_a_folder_of_other_images_is_named(listed, write_dicom):
    folder, _ = listed
    for number in range(3):
        write_dicom(folder / "mr" / f"{number}.dcm", Modality="MR")
    with pytest.raises(DataError, match=r"mr: MR \(3\); expected axial CT"):
        load(folder / "mr")
    with pytest.raises(DataError, match=r"labels\.csv, row 2 below the header: MR \(3\); expected axial CT"):
        load(folder, table=write_labels(folder.parent, ["a.dcm,0", "mr,1"]))
    with pytest.raises(DataError, match=r"^sub-\d+: its Modality is MR; expected CT"):
        load(folder, table=write_labels(folder.parent, ["a.dcm,0", "mr/0.dcm,1"]))


def test_masks_of_files_named_by_uids(tmp_path, write_dicom):
    drawn = np.zeros((2, 20, 28), dtype=np.uint8)
    (tmp_path / "masks").mkdir()
    for number in range(2):
        write_dicom(tmp_path / "scans" / f"1.2.3.{number}", patient=f"p{number}")
        drawn[number, 3 : 5 + number, 4:9] = 1
        Image.fromarray(drawn[number]).save(tmp_path / "masks" / f"1.2.3.{number}.png")
    labels = write_labels(tmp_path, ["1.2.3.0,0", "1.2.3.1,1"])
    samples = load(tmp_path / "scans", table=labels, masks=tmp_path / "masks")
    np.testing.assert_array_equal(samples.masks[:, 0, 4:24], drawn > 0)
    write_nifti(tmp_path / "masks" / "1.2.3.0.nii", drawn[0])
    with pytest.raises(
        DataError, match=r"^file 1 of 3 \(sorted\) and file 2 of 3 \(sorted\): two masks of one image"
    ):
        load(tmp_path / "scans", table=labels, masks=tmp_path / "masks")


def test_dicom_series_labelled_by_a_table(lidc):
    rows = [f"LIDC-IDRI-000{patient},{patient // 2}" for patient in range(4)]
    samples = load(lidc, table=write_labels(lidc, rows, "PatientID,contrast"))
    assert samples.labels.tolist() == [0, 0, 1, 1]
    assert load(lidc).images.equal(samples.images)
    folders = write_labels(lidc, [f"LIDC-IDRI-000{patient}/series,{patient // 2}" for patient in range(4)])
    assert load(lidc, table=folders).images.equal(samples.images)


def test_meta_images_named_by_number_as_in_lndb(tmp_path, ramp):
    for number in (3, 12):
        voxels = np.stack([ramp + 10 * k for k in range(5)]).astype(np.int16)
        SimpleITK.WriteImage(SimpleITK.GetImageFromArray(voxels), str(tmp_path / f"LNDb-{number:04d}.mhd"))
    samples = load(tmp_path, table=write_labels(tmp_path, ["12,1", "3,0"], "LNDbID,Contrast"))
    assert samples.labels.tolist() == [1, 0]
    np.testing.assert_allclose(samples.images[0, 0, 4:24], apply_window(ramp + 20, (60, 400)), atol=1e-6)


def test_a_volume_with_several_numbers_in_its_name_is_nobodys(tmp_path, ramp):
    """Patients 1 to 4, whose files were matched by the last number: every label on the wrong one."""
    for patient, scan in ((1, 2), (2, 1), (3, 4), (4, 3)):
        write_nifti(tmp_path / f"patient{patient}_{scan}.nii.gz", ramp + patient)
    rows = [f"{patient},{patient % 2}" for patient in range(1, 5)]
    write_nifti(tmp_path / "T1_of_all.nii.gz", ramp)
    with pytest.raises(
        DataError,
        match=r"file 2 of 5 \(sorted\): whose it is.*named after \[1, 2\].*column of files to .*labels",
    ):
        load(tmp_path, table=write_labels(tmp_path, rows, "subject,contrast"))
    rows = [f"patient{patient}_{scan},{patient % 2},{patient}" for patient, scan in ((1, 2), (2, 1))]
    samples = load(tmp_path, table=write_labels(tmp_path, rows, "file,contrast,subject"))
    assert [path.name for path in samples.sources] == ["patient1_2.nii.gz", "patient2_1.nii.gz"]
    assert samples.labels.tolist() == [1, 0]


def test_a_volume_whose_name_begins_with_two_subjects_is_nobodys(tmp_path, ramp):
    write_nifti(tmp_path / "A_B_ct.nii", ramp)
    write_nifti(tmp_path / "C_3.nii", ramp)
    labels = write_labels(tmp_path, ["A,1", "A_B,0"], "subject,contrast")
    with pytest.raises(DataError, match=r"file 1 of 2 .*named after \['A', 'A_B'\]"):
        load(tmp_path, table=labels)
    labels = write_labels(tmp_path, ["A_B,1", "C,0"], "subject,contrast")
    assert [path.name for path in load(tmp_path, table=labels).sources] == ["A_B_ct.nii", "C_3.nii"]


def write_nifti(path, displayed, **arguments):
    """Store what is displayed (row, column) or (row, column, slice) in the usual NIfTI order, with a RAS affine."""
    stored = np.swapaxes(displayed, 0, 1)[::-1, ::-1]
    affine = arguments.get("affine", np.eye(4))
    nibabel.save(nibabel.Nifti1Image(np.ascontiguousarray(stored).astype(np.float32), affine), path)
    return path


def test_nifti_files_flat_and_deep(tmp_path, ramp):
    write_nifti(tmp_path / "flat.nii.gz", ramp)
    write_nifti(tmp_path / "deep.nii", np.stack([ramp - 50, ramp, ramp + 50], axis=-1))
    samples = load(tmp_path, table=write_labels(tmp_path, ["flat,0", "deep.nii,1"]))
    for image in samples.images:
        np.testing.assert_allclose(image[0, 4:24], apply_window(ramp, (60, 400)), atol=1e-6)
    rows = ["flat,0,x", "deep.nii,1,x"]
    same = load(tmp_path, table=write_labels(tmp_path, rows, "file,contrast,subject"))
    assert same.names == ("sub-001_img-1", "sub-001_img-2")


def test_fewer_subjects_are_balanced_and_keep_their_ids(tmp_path, write_dicom):
    for number in range(8):
        write_dicom(tmp_path / f"{number}.dcm", patient=f"p{number}")
    labels = write_labels(tmp_path, [f"{number}.dcm,{int(number > 4)}" for number in range(8)])
    samples = load(tmp_path, table=labels, n_subjects=4)
    assert samples.subjects == ("sub-001", "sub-002", "sub-006", "sub-007")
    assert samples.labels.tolist() == [0, 0, 1, 1]
    assert len(load(tmp_path, table=labels, n_subjects=9)) == 8
    with pytest.raises(ParameterError, match="n_subjects=1"):
        load(tmp_path, table=labels, n_subjects=1)


def test_masks_from_files_follow_the_slice(tmp_path, write_dicom, ramp):
    drawn = np.zeros((20, 28), dtype=np.uint8)
    drawn[2:6, 3:9] = 255
    masks = tmp_path / "masks"
    masks.mkdir()
    folder = tmp_path / "scans"
    write_dicom(folder / "plain.dcm", patient="a")
    write_dicom(
        folder / "turned.dcm", ramp[::-1, ::-1], patient="b", ImageOrientationPatient=[-1, 0, 0, 0, -1, 0]
    )
    write_dicom(folder / "bare.dcm", patient="c")
    Image.fromarray(drawn).save(masks / "plain.png")
    Image.fromarray(np.ascontiguousarray(drawn[::-1, ::-1])).save(masks / "turned.png")
    write_nifti(folder / "deep.nii", np.stack([ramp - 50, ramp, ramp + 50], axis=-1))
    write_nifti(masks / "deep.nii.gz", np.stack([0 * drawn, drawn, 0 * drawn], axis=-1))
    labels = write_labels(tmp_path, ["plain.dcm,0", "turned.dcm,1", "bare.dcm,1", "deep.nii,0"])
    samples = load(folder, table=labels, masks=masks)
    expected = torch.zeros(28, 28, dtype=torch.bool)
    expected[4 + 2 : 4 + 6, 3:9] = True
    for position in (0, 1, 3):
        assert samples.masks[position, 0].equal(expected), position
    assert samples.has_mask.tolist() == [True, True, False, True]
    assert samples.info["n_without_mask"] == 1


@pytest.fixture
def series_with_mask(tmp_path, write_dicom, ramp):
    """Two patients of 7 tilted slices each, and a NIfTI mask on the series' grid of the first, another box a slice."""
    axes = np.array([[1, 0, 0], [0, 0.96, -0.28]])
    normal = np.cross(*axes)
    for patient in range(2):
        for k in range(7):
            place = np.array([-30.0, 20, 100]) + 2.5 * k * normal
            write_dicom(
                tmp_path / "scans" / f"p{patient}" / f"{k}.dcm",
                ramp + 10 * k,
                patient=f"p{patient}",
                series=f"1.2.{patient}",
                ImagePositionPatient=place.tolist(),
                ImageOrientationPatient=axes.ravel().tolist(),
                PixelSpacing=[2, 1],
            )
    drawn = np.zeros((28, 20, 7), dtype=np.uint8)  # column, row, slice
    for k in range(7):
        drawn[3 + k : 9 + k, 2 : 6 + k, k] = 1
    affine = np.eye(4)
    affine[:3, :3] = np.stack([axes[0] * 1, axes[1] * 2, normal * 2.5], axis=1)
    affine[:3, 3] = [-30, 20, 100]
    return tmp_path, drawn, np.diag([-1, -1, 1, 1]) @ affine


@pytest.mark.parametrize("fraction", [0, 0.3, 1])
def test_a_mask_of_a_series_is_found_by_position_not_by_fraction(series_with_mask, fraction):
    folder, drawn, affine = series_with_mask
    (folder / "masks" / "p0").mkdir(parents=True)
    k = round(6 * fraction)
    part = drawn[::-1, :, 1 if k else 0 :]  # stored with x reversed, the lowest slice left out
    affine = affine @ np.array([[-1, 0, 0, 27], [0, 1, 0, 0], [0, 0, 1, 1 if k else 0], [0, 0, 0, 1]])
    nibabel.save(nibabel.Nifti1Image(part, affine), folder / "masks" / "p0" / f"{k}.nii.gz")
    table = write_labels(folder, ["p0,0", "p1,1"], "subject,contrast")
    samples = load(folder / "scans", table=table, masks=folder / "masks", slice_fraction=fraction, size=40)
    assert samples.sources[0].name == f"{k}.dcm"
    expected = np.zeros((40, 40), dtype=bool)
    expected[:, 6:34] = drawn[:, :, k].T.repeat(2, axis=0)
    np.testing.assert_array_equal(samples.masks[0, 0], expected)
    assert samples.has_mask.tolist() == [True, False]


@pytest.mark.parametrize("shift", [(0, 0, 0, 0.5), (5, 0, 0, 0), (0, 0, 0, 20)])
def test_a_mask_whose_grid_does_not_hold_the_slice_is_refused(series_with_mask, shift):
    folder, drawn, affine = series_with_mask
    (folder / "masks" / "p0").mkdir(parents=True)
    affine[2] += shift
    nibabel.save(nibabel.Nifti1Image(drawn, affine), folder / "masks" / "p0" / "3.nii.gz")
    table = write_labels(folder, ["p0,0", "p1,1"], "subject,contrast")
    with pytest.raises(
        ShapeError, match=r"^sub-001's mask: a mask of .* in which the DICOM slice.*grid of its series"
    ):
        load(folder / "scans", table=table, masks=folder / "masks")


def test_a_nifti_mask_for_a_slice_without_position_is_refused(listed, write_dicom):
    folder, labels = listed
    write_dicom(folder / "a.dcm", ImagePositionPatient=None)
    (folder.parent / "masks").mkdir()
    write_nifti(folder.parent / "masks" / "a.nii", np.eye(20, 28))
    with pytest.raises(
        DataError,
        match=r"^sub-003's mask: a NIfTI mask for a DICOM file without ImagePositionPatient.*PNG",
    ):
        load(folder, table=labels, masks=folder.parent / "masks")


def test_a_mask_of_most_of_the_body_is_warned_of(listed):
    drawn = np.full((20, 28), 255, dtype=np.uint8)
    drawn[2:6, 3:9] = drawn[0, 0] = 0
    with pytest.warns(
        UserWarning, match=r"^sub-003_img-1's mask covers 9\d% of the body.*Masks in doubt: 1 of 1"
    ):
        samples = bad_mask(listed, drawn)
    assert int(samples.masks[0].sum()) == 20 * 28 - 25


def test_a_mask_without_a_ground_is_refused(listed):
    with pytest.raises(DataError, match=r"^sub-003_img-1's mask: all pixels of the mask are drawn"):
        bad_mask(listed, np.full((20, 28), 7, dtype=np.uint8))


def bad_mask(listed, array, name="a.png"):
    folder, labels = listed
    masks = folder.parent / "masks"
    masks.mkdir()
    Image.fromarray(array).save(masks / name)
    return load(folder, table=labels, masks=masks)


def test_a_mask_of_another_size_is_named(listed):
    with pytest.raises(ShapeError, match=r"^sub-003_img-1's mask: .*\(28, 20\).*\(20, 28\)"):
        bad_mask(listed, np.full((28, 20), 255, dtype=np.uint8))


def test_an_all_black_mask_is_named(listed):
    with pytest.raises(DataError, match=r"^sub-003_img-1's mask: .*all black"):
        bad_mask(listed, np.zeros((20, 28), dtype=np.uint8))


def test_masks_named_like_no_image_are_refused(listed):
    with pytest.raises(DataFileError, match=r"masks: no mask is named like an image; expected PNG or NIfTI"):
        bad_mask(listed, np.ones((20, 28), dtype=np.uint8), "other.png")


@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC")])
def test_masks_are_found_whatever_the_form_of_unicode(tmp_path, ramp, forms):
    image, mask = (unicodedata.normalize(form, "Jürgen/Köln") for form in forms)
    drawn = np.zeros((20, 28), dtype=np.uint8)
    drawn[4:8, 5:9] = 255
    for folder, name in (("scans", image), ("masks", mask)):
        (tmp_path / folder / name).parent.mkdir(parents=True)
    write_nifti(tmp_path / "scans" / f"{image}.nii", ramp)
    write_nifti(tmp_path / "scans" / "other.nii", ramp)
    Image.fromarray(drawn).save(tmp_path / "masks" / f"{mask}.png")
    labels = write_labels(tmp_path, ["Köln,0", "other,1"])
    samples = load(tmp_path / "scans", table=labels, masks=tmp_path / "masks")
    np.testing.assert_array_equal(samples.masks[0, 0, 4:24], drawn > 0)
    assert samples.info["n_without_mask"] == 1
    Image.fromarray(drawn).save(tmp_path / "masks" / f"{unicodedata.normalize('NFC', 'Köln')}.png")
    Image.fromarray(drawn).save(tmp_path / "masks" / f"{unicodedata.normalize('NFD', 'Köln')}.png")
    (tmp_path / "masks" / f"{mask}.png").unlink()
    with pytest.raises(DataError, match="two masks of one image"):
        load(tmp_path / "scans", table=labels, masks=tmp_path / "masks")


def test_a_mask_of_several_images_is_refused_by_their_ids(tmp_path, ramp):
    for place in ("x", "y"):
        (tmp_path / place).mkdir()
        write_nifti(tmp_path / place / "scan.nii", ramp)
    (tmp_path / "masks").mkdir()
    Image.fromarray(np.eye(20, 28, dtype=np.uint8)).save(tmp_path / "masks" / "scan.png")
    labels = write_labels(tmp_path, ["x/scan.nii,0", "y/scan.nii,1"])
    with pytest.raises(
        DataError, match="masks: one mask is named like several images, sub-001 and sub-002; mirror"
    ):
        load(tmp_path, table=labels, masks=tmp_path / "masks")


def test_a_mask_elsewhere_in_space_is_named(tmp_path, ramp):
    masks = tmp_path / "masks"
    masks.mkdir()
    for number in range(2):
        write_nifti(tmp_path / f"{number}.nii", ramp)
    moved = np.eye(4)
    moved[0, 3] = 40
    write_nifti(masks / "1.nii", np.ones((20, 28)), affine=moved)
    with pytest.raises(ShapeError, match=r"^sub-002's mask: .*grid"):
        load(tmp_path, table=write_labels(tmp_path, ["0.nii,0", "1.nii,1"]), masks=masks)


def test_an_empty_or_missing_folder_is_named(tmp_path):
    with pytest.raises(DataFileError, match=r"no DICOM, NIfTI or MetaImage"):
        load(tmp_path)
    with pytest.raises(DataFileError, match=r"gone.*no such folder"):
        load(tmp_path / "gone")
    (tmp_path / "a.csv").write_text("")
    with pytest.raises(DataFileError, match=r"a\.csv: a file; expected a folder; give the folder"):
        load(tmp_path / "a.csv")


@pytest.mark.parametrize(
    ("rows", "header", "error", "message"),
    [
        (["a.dcm,1", "b.dcm,1"], "file,contrast", DataError, "one class, 'contrast'"),
        (
            ["a.dcm,1", "gone.dcm,0"],
            "file,contrast",
            DataFileError,
            "row 2 below the header: no image of that name",
        ),
        (["a.dcm,1", "a.dcm,0"], "file,contrast", DataError, "several rows"),
        (["zoe,1", "nobody,0"], "subject,contrast", DataFileError, "no file for the subject in row 2"),
    ],
)
def test_a_table_that_does_not_fit_the_folder(listed, rows, header, error, message):
    folder, _ = listed
    with pytest.raises(error, match=message):
        load(folder, table=write_labels(folder.parent, rows, header))


def test_a_name_that_fits_two_files_is_refused(listed, write_dicom):
    folder, labels = listed
    write_dicom(folder / "more" / "c.dcm")
    with pytest.raises(DataError, match="row 3 below the header: its file fits 2 files"):
        load(folder, table=labels)


def test_headers_without_an_agent_ask_for_a_table(listed):
    with pytest.raises(DataError, match=r"one class, 'no contrast'.*label table"):
        load(listed[0])


def test_subjects_that_lost_their_zeros_are_told_unnamed(lidc):
    rows = [f"lidc-idri-{patient},{patient // 2}" for patient in range(4)]
    with pytest.raises(
        DataFileError, match=r"row 1 below the header.*written otherwise \(zeros, case\)"
    ) as caught:
        load(lidc, table=write_labels(lidc, rows, "PatientID,contrast"))
    assert "idri" not in str(caught.value).lower().replace(str(lidc).lower(), "")


@pytest.fixture
def agents(tmp_path, write_dicom):
    """A folder of patients, one with each of these words as ContrastBolusAgent."""

    def write(*words):
        for number, agent in enumerate(words):
            path = tmp_path / "agents" / f"{number}.dcm"
            write_dicom(path, patient=f"p{number}", series=f"1.2.{number}", ContrastBolusAgent=agent)
        return tmp_path / "agents"

    return write


def test_oral_agents_and_empty_tags_are_no_contrast_and_counted(agents, caplog):
    samples = load(agents("ORAL", "Isovue 300", "", None, "W/O"))
    assert samples.labels.tolist() == [0, 1, 0, 0, 0]
    counts = {name: count for name, count in samples.info.items() if name.startswith("n_")}
    assert counts == {"n_agent_absent": 1, "n_agent_empty": 1, "n_agent_oral": 1, "n_agent_unknown": 0}
    (said,) = [record.message for record in caplog.records]
    assert said.startswith(
        "ContrastBolusAgent is absent in 1 of 5 patients and empty in 1; these 2 count as without"
    )


def test_agents_that_say_nothing_are_refused_or_left_out(agents):
    folder = agents("UNKNOWN", "Isovue 300", "NONE", "N/A", "-")
    message = (
        r"ContrastBolusAgent of 3 of 5 patients.*\['-', 'N/A', 'UNKNOWN'\].*label table.*skip_unknown=True"
    )
    with pytest.raises(DataError, match=message):
        load(folder)
    samples = load(folder, skip_unknown=True)
    assert [path.name for path in samples.sources] == ["1.dcm", "2.dcm"]
    assert samples.labels.tolist() == [1, 0]
    assert samples.info["n_agent_unknown"] == 3
    with pytest.raises(DataError, match="nothing is left"):
        load(agents(*5 * ["?"]), skip_unknown=True)


def test_files_that_are_no_axial_slices_are_left_out_and_counted(agents, write_dicom, caplog):
    folder = agents("Isovue 300", "NONE")
    for number, modality in enumerate(["SR", "SEG", "SR", "PR", "KO", "RTSTRUCT"]):
        tags = {"Modality": modality, "ImageOrientationPatient": None, "ImagePositionPatient": None}
        write_dicom(folder / f"other{number}.dcm", patient="p0", series=f"1.9.{number}", **tags)
    write_dicom(
        folder / "scout.dcm", patient="p0", series="1.2.0", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]
    )
    expected = {"KO": 1, "PR": 1, "RTSTRUCT": 1, "SEG": 1, "SR": 2, "localizer": 1}
    samples = load(folder)
    assert samples.info["n_left_out"] == expected
    assert "SR (2)" in caplog.text
    labels = write_labels(folder.parent, ["p0,1", "p1,0"], "subject,contrast")
    assert load(folder, table=labels).info["n_left_out"] == expected
    assert [path.name for path in samples.sources] == ["0.dcm", "1.dcm"]


def test_series_that_hold_several_stacks_are_taken_apart_and_counted(agents, write_dicom, ramp):
    folder = agents("Isovue 300", "NONE")
    for k in range(3):
        write_dicom(folder / "head" / f"{k}.dcm", ramp[:10], patient="p0", series="1.2.0", height=10 * k)
    samples = load(folder, table=write_labels(folder.parent, ["p0,1", "p1,0"], "subject,contrast"))
    assert samples.info["n_mixed_series"] == 1
    assert [path.relative_to(folder).as_posix() for path in samples.sources] == ["head/1.dcm", "1.dcm"]


def test_volumes_alone_ask_for_a_table(tmp_path, ramp):
    write_nifti(tmp_path / "a.nii", ramp)
    with pytest.raises(DataError, match="label table"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("subjects", "message"),
    [
        (["A", "", "B", "C"], r"labels\.csv: no subject in row 2 below the header \(1 of 4 rows\)"),
        (
            ["A", "B", "a", "C"],
            r"labels\.csv: the subjects of file 1 of 4 .* and file 3 of 4 .* are written in two ways",
        ),
        (
            ["7", "B", "7.0", "C"],
            r"the subjects of file 1 of 4 .* and file 3 of 4 .* are written in two ways",
        ),
    ],
)
def test_patients_without_an_id_or_with_two_are_refused(listed, subjects, message):
    files = zip(("a.dcm", "b.dcm", "c.dcm", "d.dcm"), subjects, strict=True)
    rows = [f"{file},{row % 2},{subject}" for row, (file, subject) in enumerate(files)]
    with pytest.raises(DataError, match=message):
        load(listed[0], table=write_labels(listed[0], rows, "file,contrast,subject"))


def test_patient_ids_of_headers_in_two_spellings_are_refused_unnamed(listed, write_dicom):
    folder, labels = listed
    write_dicom(folder / "a.dcm", patient="ZOE")
    with pytest.raises(
        DataError, match=r"file 1 of 4 .* and file 3 of 4 .* are written in two ways"
    ) as caught:
        load(folder, table=labels)
    assert "zoe" not in str(caught.value).lower()


def test_dicom_without_patient_id_asks_for_subjects(listed, write_dicom):
    folder, labels = listed
    write_dicom(folder / "a.dcm", patient="")
    with pytest.raises(DataError, match=r"file 1 of 4 .*: no PatientID.*subjects"):
        load(folder, table=labels)


@pytest.mark.parametrize(("value", "message"), [(np.nan, "NaN"), (30.0, "constant")])
def test_a_slice_of_nan_or_of_one_value_is_named(tmp_path, ramp, value, message):
    write_nifti(tmp_path / "good.nii", ramp)
    write_nifti(tmp_path / "bad.nii", np.full((20, 28), value))
    with pytest.raises(DataError, match=rf"^sub-001: .*{message}"):
        load(tmp_path, table=write_labels(tmp_path, ["good.nii,0", "bad.nii,1"]))


def scaled(folder, write_dicom, ramp, kind):
    """A file whose values are shifted by 1024, so that air is 124."""
    if kind == "dcm":
        return write_dicom(folder / "bad.dcm", RescaleSlope=None, RescaleIntercept=None)
    if kind == "nii":
        return write_nifti(folder / "bad.nii", ramp + 1024)
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray((ramp + 1024)[None]), str(folder / "bad.mhd"))
    return folder / "bad.mhd"


@pytest.mark.parametrize("kind", ["dcm", "nii", "mhd"])
def test_values_that_are_not_in_hu_are_refused_or_taken_on_request(tmp_path, write_dicom, ramp, kind):
    bad = scaled(tmp_path, write_dicom, ramp, kind)
    write_nifti(tmp_path / "good.nii", ramp)
    arguments = {"table": write_labels(tmp_path, ["good.nii,0", f"{bad.name},1"]), "window": (500, 2000)}
    with pytest.raises(
        DataError, match=rf"^sub-00{1 + (kind == 'dcm')}: values are 124 to 1157.*below -200.*check_hu=False"
    ):
        load(tmp_path, **arguments, check_hu=True)
    samples = load(tmp_path, **arguments, check_hu=False)
    np.testing.assert_allclose(
        samples.images[1, 0, 4:24], apply_window(ramp.round() + 1024, (500, 2000)), atol=1e-6
    )
    assert samples.info["n_not_hu"] == 1


def test_air_elsewhere_in_a_volume_tells_its_unit(tmp_path, ramp):
    body = np.maximum(ramp, -100)
    ramp[0, :5] = -900
    for name in ("a", "b"):
        write_nifti(tmp_path / f"{name}.nii", np.stack([ramp, body, body], axis=-1))
    samples = load(tmp_path, table=write_labels(tmp_path, ["a,0", "b,1"]))
    np.testing.assert_allclose(samples.images[0, 0, 4:24], apply_window(body, (60, 400)), atol=1e-6)


@pytest.mark.parametrize("arguments", [{"size": 0}, {"slice_fraction": 1.5}, {"window": (40, 0)}])
def test_parameters_out_of_range_are_refused(listed, arguments):
    with pytest.raises(ParameterError):
        load(listed[0], table=listed[1], **arguments)


def test_nothing_of_the_header_is_shown(listed, write_dicom, name_everything, secrets, capfd):
    folder, labels = listed
    write_dicom(folder / "a.dcm", change=name_everything, ContrastBolusAgent=secrets[0])
    samples = load(folder, table=labels, masks="heart-and-vessels", progress=True)
    shown = [repr(samples), json.dumps(samples.info), *samples.subjects, *samples.names, *samples.class_names]
    shown += capfd.readouterr()
    assert secrets[0].encode() in (folder / "a.dcm").read_bytes()
    assert not [secret for secret in secrets if any(secret in text for text in shown)]


def test_what_pydicom_warns_of_is_not_shown(listed, write_dicom, secrets, recwarn):
    folder, labels = listed
    path = write_dicom(folder / "a.dcm")
    name = secrets[1].encode()  # not a unique identifier, as pydicom says by quoting it
    raw = path.read_bytes()
    assert raw.count(b"1.2.3\x00") == 1
    path.write_bytes(raw.replace(b"1.2.3\x00", name + b" "))
    load(folder, table=labels)
    with pytest.raises(DataError, match="one class"):
        load(folder)
    assert not recwarn.list


@pytest.mark.parametrize("keyword", ["RescaleSlope", "PixelSpacing", "ImageOrientationPatient"])
def test_no_error_quotes_the_header(listed, write_dicom, name_everything, secrets, keyword):
    """The value of one element is overwritten by the patient's name."""
    folder, labels = listed
    path = write_dicom(folder / "a.dcm", change=name_everything)
    raw, tag = path.read_bytes(), pydicom.tag.Tag(keyword)
    start = raw.index(tag.group.to_bytes(2, "little") + tag.element.to_bytes(2, "little"))
    name = secrets[0].encode()
    path.write_bytes(raw[: start + 8] + name + raw[start + 8 + len(name) :])
    with pytest.raises(DataFileError, match=r"^file 1 of 4 \(sorted\): |^sub-00\d(_img-1)?: ") as caught:
        load(folder, table=labels)
    shown = "".join(traceback.format_exception(caught.value))
    assert not [secret for secret in secrets if secret in shown]


def test_real_slices(real_data):
    samples = load_ct(real_data / "siim_ct", size=64, check_hu=False, progress=False)
    assert samples.info["n_not_hu"] == 0
    assert samples.images.shape == (66, 1, 64, 64)
    assert samples.labels.bincount().tolist() == [35, 31]
    assert len(set(samples.subjects)) == 37
    for part in split(samples, seed=0):
        assert part.labels.bincount().min() >= 4


TURNED = {  # slice: from the grid of the file, prone or lying on one side, to the patient on the back
    "ID_0051": lambda stored: stored[::-1, ::-1],
    "ID_0052": lambda stored: stored[:, ::-1].T,
    "ID_0056": lambda stored: stored[::-1, ::-1],
    "ID_0089": lambda stored: stored[::-1, ::-1],
    "ID_0093": lambda stored: stored[::-1, ::-1],
}


def test_real_slices_that_are_turned_in_the_file_are_turned_back(real_data):
    samples = load_ct(real_data / "siim_ct", size=512, progress=False)
    seen = 0
    for path, image in zip(samples.sources, samples.images, strict=True):
        dataset = pydicom.dcmread(path)
        stored = dataset.pixel_array * float(dataset.RescaleSlope) + float(dataset.RescaleIntercept)
        turn = TURNED.get(path.name[:7], lambda stored: stored)
        seen += path.name[:7] in TURNED
        np.testing.assert_allclose(image[0], apply_window(turn(stored), (60, 400)), atol=1e-5)
    assert seen == len(TURNED)


def test_volumes_that_do_not_say_how_they_lie_are_refused_or_read_as_stated(tmp_path, ramp):
    write_nifti(tmp_path / "said.nii", ramp)
    said = nibabel.load(tmp_path / "said.nii")
    silent = nibabel.Nifti1Image(np.asarray(said.dataobj), None)
    silent.header.set_zooms(said.header.get_zooms())
    silent.header.set_sform(None, code=0)
    silent.header.set_qform(None, code=0)
    nibabel.save(silent, tmp_path / "silent.nii")
    labels = write_labels(tmp_path, ["said.nii,0", "silent.nii,1"])
    with pytest.raises(DataError, match="state on purpose how the axes run with orientation"):
        load(tmp_path, table=labels)
    axes = "".join(nibabel.aff2axcodes(said.affine))
    samples = load(tmp_path, table=labels, orientation=axes)
    assert torch.equal(samples.images[0], samples.images[1])
    assert samples.info["volumes_with_stated_orientation"] == 1
    turned = load(tmp_path, table=labels, orientation={"R": "L", "L": "R"}[axes[0]] + axes[1:])
    assert not torch.equal(turned.images[0], turned.images[1])
    with pytest.raises(ParameterError, match="orientation='RAP'"):
        load(tmp_path, table=labels, orientation="RAP")


@pytest.mark.parametrize(
    "name",
    ["patient{}/T1.nii", "patient{}/ct_1mm.nii", "LNDb-000{}_ses-M12_MNI152NLin6Asym_1.5T.nii", "{}/{}.nii"],
)
def test_numbers_of_well_known_words_are_no_subjects(tmp_path, ramp, name):
    for patient in (1, 2, 3):
        (tmp_path / name.format(patient, patient)).parent.mkdir(exist_ok=True)
        write_nifti(tmp_path / name.format(patient, patient), ramp + patient)
    labels = write_labels(tmp_path, [f"{patient},{patient % 2}" for patient in (1, 2, 3)], "subject,contrast")
    samples = load(tmp_path, table=labels)
    assert samples.labels.tolist() == [1, 0, 1]
    expected = [tmp_path / name.format(patient, patient) for patient in (1, 2, 3)]
    assert list(samples.sources) == expected


@pytest.mark.parametrize("name", ["patient{}/scan2.nii", "2019/patient{}.nii", "patient{}_7b.nii"])
def test_a_number_of_a_folder_beside_one_of_a_file_is_nobodys(tmp_path, ramp, name):
    for patient in (1, 3):
        (tmp_path / name.format(patient)).parent.mkdir(exist_ok=True)
        write_nifti(tmp_path / name.format(patient), ramp + patient)
    with pytest.raises(DataError, match=r"file 1 of 2 \(sorted\): whose it is.*named after \["):
        load(tmp_path, table=write_labels(tmp_path, ["1,1", "3,0"], "subject,contrast"))
