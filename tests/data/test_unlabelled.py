import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image
from pydicom import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

from xaitools import Samples, load_brains, load_ct, load_pictures, load_volumes, split, two_classes
from xaitools.errors import DataError, DataFileError, ParameterError, ShapeError

AFFINE = np.array([[-2.0, 0, 0, 7], [0, 2, 0, -8], [0, 0, 2, -9], [0, 0, 0, 1]])


def save_volume(path, number, shape=(8, 9, 10)):
    path.parent.mkdir(parents=True, exist_ok=True)
    voxels = np.random.default_rng(number).random(shape).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(voxels, AFFINE), path)
    return voxels


def test_a_folder_of_volumes_without_labels(tmp_path):
    heads = [
        save_volume(tmp_path / f"deep/sub-{name}_T1w.nii.gz", i)
        for i, name in enumerate(("7_ses-1", "7_ses-2"))
    ]
    heads.append(save_volume(tmp_path / "miller.nii", 2))
    save_volume(tmp_path / "dseg" / "sub-7.nii.gz", 3)
    save_volume(tmp_path / "sub-7_mask.nii.gz", 4)
    volumes = load_volumes(tmp_path, intensity=(0, 1), cache_dir=tmp_path / "c", progress=False)
    assert volumes.labels is None
    assert [path.name for path in volumes.sources] == [
        "sub-7_ses-1_T1w.nii.gz",
        "sub-7_ses-2_T1w.nii.gz",
        "miller.nii",
    ]
    assert volumes.subjects[0] == volumes.subjects[1] != volumes.subjects[2]
    for image, head in zip(volumes.images[:], heads, strict=True):
        np.testing.assert_allclose(image[0], head[::-1], atol=1e-5)  # towards the right
    np.testing.assert_allclose(volumes.affine, [[2, 0, 0, -7], [0, 2, 0, -8], [0, 0, 2, -9], [0, 0, 0, 1]])
    told = repr(volumes) + json.dumps(volumes.info) + repr(volumes.names)
    assert "no labels" in told
    assert "miller" not in told
    assert str(tmp_path) not in told
    assert volumes[[2]].sources[0].name == "miller.nii"
    assert volumes.fingerprint() != volumes[[0, 1]].fingerprint()


def test_volumes_are_prepared_as_brains_are(tmp_path):
    for number in range(2):
        save_volume(tmp_path / f"P{number}.nii.gz", number)
    (tmp_path / "participants.csv").write_text("id,sex\nP0,F\nP1,M\n")
    asked = {"space": "centered", "spacing": 3.0, "cache_dir": tmp_path / "c", "progress": False}
    brains = load_brains(tmp_path, label_column="sex", **asked)
    volumes = load_volumes(tmp_path, **asked)
    assert torch.equal(volumes.images[:], brains.images[:])
    np.testing.assert_array_equal(volumes.affine, brains.affine)


def test_what_needs_labels_says_so(tmp_path):
    save_volume(tmp_path / "a.nii", 0)
    volumes = load_volumes(tmp_path, cache_dir=tmp_path / "c", progress=False)
    for use in (two_classes, lambda samples: split(samples, seed=0)):
        with pytest.raises(DataError, match="1 images without labels; expected one for each"):
            use(volumes)
    assert not volumes.is_regression


def test_volumes_that_cannot_be_loaded(tmp_path):
    with pytest.raises(DataFileError, match="no such folder"):
        load_volumes(tmp_path / "gone")
    with pytest.raises(DataFileError, match="no NIfTI file"):
        load_volumes(tmp_path)
    save_volume(tmp_path / "a.nii", 0)
    save_volume(tmp_path / "b.nii", 1, (5, 5, 5))
    with pytest.raises(ShapeError, match="expected one grid"):
        load_volumes(tmp_path, cache_dir=tmp_path / "c")
    for wrong in ({"space": "talairach"}, {"brain_mask": "dseg"}, {"spacing": 0}, {"orientation": "RRR"}):
        with pytest.raises(ParameterError):
            load_volumes(tmp_path, **wrong)


COLORS = np.random.default_rng(0).integers(0, 256, (12, 12, 3)).astype(np.uint8)


@pytest.mark.parametrize("kind", ["png", "palette", "opaque", "dicom"])
def test_pictures_in_color(kind, tmp_path):
    colors = COLORS if kind != "palette" else COLORS // 128 * 255
    picture = Image.fromarray(colors)
    if kind == "palette":
        picture = picture.quantize(8, dither=Image.Dither.NONE)
    elif kind == "opaque":
        picture.putalpha(255)
    if kind == "dicom":
        save_dicom(tmp_path / "a.dcm", colors)
    else:
        picture.save(tmp_path / "a.png")
    samples = load_pictures(tmp_path, size=12, channels=3, progress=False)
    np.testing.assert_allclose(samples.images[0], colors.transpose(2, 0, 1) / 255, atol=1e-6)
    grey = load_pictures(tmp_path, size=12, progress=False).images[0, 0]
    np.testing.assert_allclose(grey, colors @ [0.299, 0.587, 0.114] / 255, atol=1e-5)
    assert (samples.labels, samples.names) == (None, ("sub-001",))
    assert isinstance(samples, Samples)


def save_dicom(path, pixels, **tags):
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = SecondaryCaptureImageStorage, generate_uid()
    dataset.Rows, dataset.Columns = pixels.shape[:2]
    dataset.SamplesPerPixel = pixels.shape[2] if pixels.ndim == 3 else 1
    dataset.PhotometricInterpretation = "RGB" if pixels.ndim == 3 else "MONOCHROME2"
    dataset.PlanarConfiguration, dataset.PixelRepresentation = 0, 0
    dataset.BitsAllocated = dataset.BitsStored = 8 * pixels.dtype.itemsize
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelData = pixels.tobytes()
    for tag, value in tags.items():
        setattr(dataset, tag, value)
    dataset.save_as(path, enforce_file_format=True)


@pytest.mark.parametrize("inverted", [False, True])
def test_dicom_pictures_are_shown_as_a_display_shows_them(inverted, tmp_path):
    stored = np.arange(144, dtype=np.uint16).reshape(12, 12) * 10
    window = {"WindowCenter": 600, "WindowWidth": 401, "VOILUTFunction": "LINEAR"}
    save_dicom(tmp_path / "a.dcm", stored, PhotometricInterpretation=f"MONOCHROME{2 - inverted}", **window)
    image = load_pictures(tmp_path, size=12, progress=False).images[0, 0].numpy()
    shown = np.clip((stored - 599.5) / 400 + 0.5, 0, 1)  # PS3.3 C.11.2.1.2
    np.testing.assert_allclose(image, 1 - shown if inverted else shown, atol=1e-5)


def test_16_bits_and_the_turn_of_a_camera(tmp_path):
    stored = (np.arange(144).reshape(12, 12) * 400).astype(np.uint16)
    Image.fromarray(stored).save(tmp_path / "a.png")
    np.testing.assert_allclose(
        load_pictures(tmp_path, size=12, progress=False).images[0, 0], stored / 65535, atol=1e-6
    )
    turned = Image.fromarray(np.repeat(np.array([[0], [255]], np.uint8), 16, 1).repeat(8, 0))
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    turned.save(tmp_path / "b.jpg", exif=exif)
    (image,) = load_pictures(tmp_path, image="*.jpg", size=16, progress=False).images[:, 0]
    assert image[:7].min() > 0.9 > 0.1 > image[9:].max()


@pytest.mark.parametrize("load", [load_ct, load_pictures])
def test_a_file_that_cannot_be_opened_is_called_by_its_number(tmp_path, monkeypatch, load):
    for name in ("Jane", "John"):
        (tmp_path / name).write_text("no image")
    is_open = Path.open

    def closed(path, *arguments, **options):
        if path.name == "John":
            raise PermissionError(path)
        return is_open(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", closed)
    with pytest.raises(
        DataFileError, match=r"^file 2 of 2 \(sorted\): cannot be opened \(PermissionError\)"
    ) as caught:
        load(tmp_path, progress=False)
    assert caught.value.file == tmp_path / "John"


def test_pictures_that_cannot_be_loaded(tmp_path):
    with pytest.raises(DataFileError, match="no PNG, JPEG or DICOM file"):
        load_pictures(tmp_path)
    cases = {
        "clear": (Image.fromarray(np.dstack([COLORS, COLORS[..., :1]])), "transparent pixels"),
        "dark": (Image.fromarray(COLORS[..., 0].astype(np.uint16)), "16 bits a pixel with values from"),
        "flat": (Image.new("L", (9, 9), 7), "all pixels have the value"),
    }
    for name, (picture, words) in cases.items():
        picture.save(tmp_path / f"{name}.png")
        with pytest.raises(DataError, match=f"^sub-001: {words}"):
            load_pictures(tmp_path, image=f"{name}.png", progress=False)
    (tmp_path / "cut.png").write_bytes((tmp_path / "clear.png").read_bytes()[:90])
    (tmp_path / "text.dcm").write_text("no DICOM")
    for name in ("cut.png", "text.dcm"):
        with pytest.raises(DataFileError, match=r"^sub-001: cannot be read as a picture"):
            load_pictures(tmp_path, image=name, progress=False)
    for wrong in ({"channels": 2}, {"size": 0}):
        with pytest.raises(ParameterError):
            load_pictures(tmp_path, **wrong)
