"""Small valid inputs of every loader, which the other modules damage."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import SimpleITK
import torch
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from xaitools import load_brains, load_ct, load_fetal, load_pictures, load_volumes
from xaitools.atlas import load_atlas
from xaitools.data.lazy import CachedArray, LazyTensor
from xaitools.data.samples import Samples
from xaitools.errors import XaitoolsError
from xaitools.maps import load_map, save_map, save_maps
from xaitools.models.checkpoint import Checkpoint, TrainingState
from xaitools.models.history import History
from xaitools.models.networks import build_network
from xaitools.models.weights import WeightsInfo, load_model, load_weights, save_weights

SHAPE = (8, 9, 10)
AFFINE = np.array([[2.0, 0, 0, -7], [0, 2, 0, -8], [0, 0, 2, -9], [0, 0, 0, 1]])


@dataclass(frozen=True)
class Loader:
    """How to write what a loader reads, and how to load it.

    Parameters
    ----------
    write : callable
        Fills an empty folder.
    load : callable
        Loads the folder, looking at every value.
    targets : tuple of str
        Files in it, one of each kind, that may be damaged.
    """

    write: Callable[[Path], None]
    load: Callable[[Path], object]
    targets: tuple[str, ...]


def hu() -> np.ndarray:
    """HU, 12 x 14, growing to left and back, air in a corner."""
    values = np.add.outer(np.arange(12) * 8.0, np.arange(14) * 3.0) - 100
    values[0, 0] = -900
    return values


def dicom(path: Path, *, patient: str = "p1", agent: str = "", **tags: object) -> FileDataset:
    """Write a CT slice; tags by keyword, None leaves one out."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = "1.2.3.4"
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    stored = (hu() + 1024).astype(np.uint16)
    fields = {
        "SOPClassUID": CTImageStorage,
        "SOPInstanceUID": "1.2.3.4",
        "Modality": "CT",
        "PatientID": patient,
        "SeriesInstanceUID": f"1.2.{len(patient)}",
        "ContrastBolusAgent": agent,
        "ImagePositionPatient": [0, 0, 0],
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "PixelSpacing": [1, 1],
        "RescaleSlope": 1,
        "RescaleIntercept": -1024,
        "Rows": 12,
        "Columns": 14,
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "PixelRepresentation": 0,
        "PixelData": stored.tobytes(),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for tag, value in (fields | tags).items():
            if value is not None:
                setattr(dataset, tag, value)
        path.parent.mkdir(parents=True, exist_ok=True)
        pydicom.dcmwrite(path, dataset)
    return dataset


def nifti(path: Path, values: np.ndarray, affine: np.ndarray = AFFINE) -> None:
    """Write a volume."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(values, affine), path)


def head(number: int = 0) -> np.ndarray:
    """A bright box, int16."""
    values = np.zeros(SHAPE, dtype=np.int16)
    values[2:6, 2:7, 3 : 7 + number % 3] = 100 + np.random.default_rng(number).integers(
        0, 20, (4, 5, 4 + number % 3)
    )
    return values


def chest(number: int = 0) -> np.ndarray:
    """HU, int16, (x, y, z): air around tissue."""
    values = np.full(SHAPE, -1000, dtype=np.int16)
    values[2:7, 2:7] = np.random.default_rng(number).integers(-50, 150, (5, 5, SHAPE[2]))
    return values


def text(path: Path, content: str) -> None:
    """Write a text file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")


def picture(path: Path, mode: str = "L") -> None:
    """Write a picture of 12 x 14 pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.add.outer(np.arange(12) * 9, np.arange(14) * 7).astype(np.uint8)
    Image.fromarray(values).convert(mode).save(path)


def outline(path: Path) -> None:
    """Write a filled square of 12 x 14 pixels, white on black."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.zeros((12, 14), dtype=np.uint8)
    values[3:9, 4:10] = 255
    Image.fromarray(values).save(path)


def _ct_dicom(folder: Path) -> None:
    dicom(folder / "a.dcm", patient="p1")
    dicom(folder / "b.dcm", patient="p02", agent="Iohexol", ContrastBolusVolume=80)


def _ct_table(folder: Path) -> None:
    dicom(folder / "a.dcm", patient="p1")
    dicom(folder / "b.dcm", patient="p02")
    text(folder / "labels.csv", "file,contrast,subject\na.dcm,no,1\nb.dcm,yes,2\n")


def _ct_masks(folder: Path) -> None:
    _ct_dicom(folder / "ct")
    outline(folder / "masks" / "a.png")
    drawn = np.zeros((14, 12, 1), dtype=np.uint8)
    drawn[4:9, 4:9] = 1
    nifti(folder / "masks" / "b.nii.gz", drawn, np.diag([-1.0, -1.0, 1.0, 1.0]))


def _ct_nifti(folder: Path) -> None:
    nifti(folder / "a.nii.gz", chest(0))
    nifti(folder / "b.nii", chest(1))
    text(folder / "labels.csv", "file,contrast\na,no\nb,yes\n")


def _ct_meta(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(chest(0).T), folder / "a.mhd")
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(chest(1).T), folder / "b.mha", useCompression=True)
    text(folder / "labels.csv", "file,contrast\na,no\nb,yes\n")


def load_ct_folder(folder: Path, **options: object) -> object:
    """Load a CT folder, with its table if it has one."""
    table = folder / "labels.csv"
    return load_ct(folder, table=table if table.exists() else None, size=16, progress=False, **options)


def _brains_flat(folder: Path) -> None:
    for number in range(2):
        nifti(folder / "t1" / f"P{number}_T1.nii.gz", head(number))
        nifti(folder / "dseg" / f"P{number}_T1_dseg.nii.gz", (head(number) > 0).astype(np.int16) * 4)
    text(folder / "participants.csv", "id,diagnosis,age\nP0,CN,70\nP1,AD,n/a\n")


def _brains_bids(folder: Path) -> None:
    for number in range(2):
        name = f"sub-{number}/ses-M0{number}/anat/sub-{number}_ses-M0{number}_T1w.nii"
        nifti(folder / name, head(number))
    text(folder / "participants.tsv", "participant_id\tdiagnosis\nsub-0\tCN\nsub-1\tAD\n")
    text(folder / "sub-0" / "sub-0_sessions.tsv", "session_id\tdiagnosis\nses-M00\tCN\n")


def _brains_caps(folder: Path) -> None:
    for number in range(2):
        name = f"sub-{number}/ses-M00/t1_linear/sub-{number}_ses-M00_desc-Crop_res-1x1x1_T1w.nii.gz"
        nifti(folder / "subjects" / name, head(number))
    text(folder / "participants.tsv", "participant_id\tdiagnosis\nsub-0\tCN\nsub-1\tAD\n")


def load_brain_folder(folder: Path, **options: object) -> object:
    """Load a brain folder, and read each of its values."""
    volumes = load_brains(
        folder,
        label_column="diagnosis",
        classes=["CN", "AD"],
        cache_dir=folder.parent / "cache",
        progress=False,
        **options,
    )
    maps = getattr(volumes, "label_maps", None)
    return volumes.images[:], None if maps is None else maps[:]


def _volumes(folder: Path) -> None:
    nifti(folder / "a.nii.gz", head(0))
    nifti(folder / "b.nii", head(1))


def load_volume_folder(folder: Path, **options: object) -> object:
    """Load a folder of volumes, and read each of their values."""
    cache_dir = folder.parent / "cache"
    return load_volumes(folder, cache_dir=cache_dir, progress=False, **options).images[:]


def _pictures(folder: Path) -> None:
    picture(folder / "a.png")
    picture(folder / "b.jpg", "RGB")
    picture(folder / "c.png", "P")
    dicom(folder / "d.dcm")


def _fetal(folder: Path) -> None:
    picture(folder / "training_set" / "001_HC.png")
    outline(folder / "training_set" / "001_HC_Annotation.png")
    picture(folder / "training_set" / "002_HC.png")
    rows = "filename,pixel size(mm),head circumference (mm)\n001_HC.png,0.1,60\n002_HC.png,0.2,70\n"
    text(folder / "training_set_pixel_size_and_HC.csv", rows)


def _atlas(folder: Path) -> None:
    labels = np.zeros(SHAPE, dtype=np.int16)
    labels[1:4], labels[5:7] = 1, 2
    nifti(folder / "a.nii.gz", labels)
    text(folder / "a.tsv", "index\tname\n1\tone\n2\ttwo\n")


def _atlas_xml(folder: Path) -> None:
    _atlas(folder)
    (folder / "a.tsv").unlink()
    rows = "".join(f"<label><index>{number}</index><name>n{number}</name></label>" for number in (1, 2))
    text(folder / "a.xml", f'<?xml version="1.0"?><atlas><data>{rows}</data></atlas>')


def _atlas_lines(folder: Path) -> None:
    _atlas(folder)
    (folder / "a.tsv").unlink()
    text(folder / "a.txt", "# names\n1 one 255 0 0 0\n2 two 0 255 0 0\n")


def network() -> torch.nn.Module:
    """A small network with its own initial weights."""
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.Flatten(), torch.nn.Linear(8, 2))


def _weights(folder: Path) -> None:
    save_weights(network(), folder / "a.safetensors", WeightsInfo("resnet10", 1, ("a", "b")))


def _torch_weights(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(build_network("vgg8").state_dict(), folder / "a.pt")


def _load_torch_weights(folder: Path) -> object:
    return load_model(str(folder / "a.pt"), network="vgg8")


def _state() -> TrainingState:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    return TrainingState(model, optimizer, History((1.0,), (1.0,), (0.5,)), dict(model.state_dict()))


def _checkpoint(folder: Path) -> None:
    Checkpoint(folder / "a.pt", {"seed": 0}).save(_state())


def _load_checkpoint(folder: Path) -> object:
    return Checkpoint(folder / "a.pt", {"seed": 0}).restore(_state())


def _maps(folder: Path) -> None:
    save_map(folder, "sub-001", "gradient", np.ones((6, 7)), key={"a": 1})
    save_map(folder, "sub-002", "gradient", np.ones(SHAPE), key={"a": 1}, affine=AFFINE)


def _load_maps(folder: Path) -> object:
    key = {"a": 1}
    return load_map(folder, "sub-001", "gradient", key=key), load_map(
        folder, "sub-002", "gradient", key=key, volume=True
    )


def _made() -> np.ndarray:
    return np.linspace(0, 1, 60).reshape(3, 4, 5)


def _cache(folder: Path) -> None:
    CachedArray(folder / "a.safetensors", _made, np.mean).prepare()


def _load_cache(folder: Path) -> object:
    lazy = LazyTensor([CachedArray(folder / "a.safetensors", _made, np.mean)], (3, 4, 5), torch.float32)
    return lazy[:], lazy.digests(), lazy.items[0].measured()


def _returned(folder: Path) -> None:
    _ct_dicom(folder / "ct")
    _volumes(folder / "brain")
    _pictures(folder / "pictures")


@cache
def _sources(folder: Path) -> tuple[Samples, ...]:
    """Samples of the files before they were damaged."""
    return (
        load_ct_folder(folder / "ct"),
        load_volumes(folder / "brain", cache_dir=folder.parent / "cache", progress=False),
        load_pictures(folder / "pictures", size=16, progress=False),
    )


def _write_returned(folder: Path) -> None:
    _returned(folder)
    _sources(folder)


def _save_maps(folder: Path) -> object:
    errors = []
    for samples in _sources(folder):
        maps = np.ones((len(samples), *samples.images.shape[2:]), dtype=np.float32)
        try:
            save_maps(maps, samples, folder.parent / "out", dicom="agent" in str(samples.info))
        except XaitoolsError as error:
            errors.append(error)
    if errors:
        raise errors[0]
    return None


LOADERS = {
    "ct_dicom": Loader(_ct_dicom, load_ct_folder, ("b.dcm",)),
    "ct_table": Loader(_ct_table, load_ct_folder, ("labels.csv", "b.dcm")),
    "ct_masks": Loader(
        _ct_masks,
        lambda folder: load_ct(folder / "ct", masks=folder / "masks", size=16, progress=False),
        ("masks/a.png", "masks/b.nii.gz", "ct/b.dcm"),
    ),
    "ct_rule": Loader(
        _ct_dicom,
        lambda folder: load_ct_folder(folder, masks="heart-and-vessels", check_hu=False),
        ("b.dcm",),
    ),
    "ct_nifti": Loader(_ct_nifti, load_ct_folder, ("a.nii.gz", "b.nii", "labels.csv")),
    "ct_meta": Loader(_ct_meta, load_ct_folder, ("a.mhd", "a.raw", "b.mha")),
    "brains_flat": Loader(
        _brains_flat,
        lambda folder: load_brain_folder(folder, numbers=["age"], brain_mask="dseg"),
        ("t1/P1_T1.nii.gz", "dseg/P0_T1_dseg.nii.gz", "participants.csv"),
    ),
    "brains_bids": Loader(
        _brains_bids,
        load_brain_folder,
        (
            "participants.tsv",
            "sub-0/sub-0_sessions.tsv",
            "sub-0/ses-M00/anat/sub-0_ses-M00_T1w.nii",
        ),
    ),
    "brains_caps": Loader(
        _brains_caps,
        load_brain_folder,
        (
            "participants.tsv",
            "subjects/sub-1/ses-M00/t1_linear/sub-1_ses-M00_desc-Crop_res-1x1x1_T1w.nii.gz",
        ),
    ),
    "volumes": Loader(_volumes, load_volume_folder, ("a.nii.gz", "b.nii")),
    "volumes_centered": Loader(
        _volumes,
        lambda folder: load_volume_folder(folder, space="centered", orientation="LAS"),
        ("a.nii.gz", "b.nii"),
    ),
    "pictures": Loader(
        _pictures,
        lambda folder: load_pictures(folder, size=16, channels=3, progress=False),
        ("a.png", "b.jpg", "c.png", "d.dcm"),
    ),
    "fetal": Loader(
        _fetal,
        lambda folder: load_fetal(folder, size=16, contour_width=1, progress=False),
        (
            "training_set/001_HC.png",
            "training_set/001_HC_Annotation.png",
            "training_set_pixel_size_and_HC.csv",
        ),
    ),
    "atlas": Loader(_atlas, lambda folder: load_atlas(folder / "a.nii.gz"), ("a.nii.gz", "a.tsv")),
    "atlas_xml": Loader(_atlas_xml, lambda folder: load_atlas(folder / "a.nii.gz"), ("a.xml",)),
    "atlas_lines": Loader(_atlas_lines, lambda folder: load_atlas(folder / "a.nii.gz"), ("a.txt",)),
    "weights": Loader(
        _weights, lambda folder: load_weights(network(), folder / "a.safetensors"), ("a.safetensors",)
    ),
    "torch_weights": Loader(_torch_weights, _load_torch_weights, ("a.pt",)),
    "checkpoint": Loader(_checkpoint, _load_checkpoint, ("a.pt",)),
    "maps": Loader(
        _maps,
        _load_maps,
        (
            "sub-001_desc-gradient_map.npz",
            "sub-001_desc-gradient_map.json",
            "sub-002_desc-gradient_map.nii.gz",
        ),
    ),
    "cache": Loader(_cache, _load_cache, ("a.safetensors",)),
    "save_maps": Loader(
        _write_returned, _save_maps, ("ct/b.dcm", "brain/a.nii.gz", "brain/b.nii", "pictures/a.png")
    ),
}
