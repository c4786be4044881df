"""Pictures of which nothing is known, for a network that one has."""

import warnings
from pathlib import Path

import numpy as np
import torch
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut, apply_voi_lut, convert_color_space
from torch import Tensor
from tqdm.auto import tqdm

from xaitools.checks import check_counts
from xaitools.data.dicom import is_dicom, open_dicom, read_pixels
from xaitools.data.folders import check_folder, find_files
from xaitools.data.naming import called, numbered
from xaitools.data.pictures import DEEPEST, brightness, is_deep, luma, read_picture, unreadable
from xaitools.data.samples import Samples
from xaitools.data.slices import resize
from xaitools.data.subjects import study_names
from xaitools.errors import DataError, DataFileError, ParameterError, XaitoolsError

PICTURES = {".png", ".jpg", ".jpeg"}


def load_pictures(
    data_dir: str | Path, *, image: str = "**/*", size: int = 224, channels: int = 1, progress: bool = True
) -> Samples:
    """Load all PNG, JPEG and DICOM pictures below a folder, without labels, to explain what a network says of them.

    Pictures are resized with their true proportions, black beside the shorter side. JPEG pictures are turned as their
    camera says. DICOM files, one frame each, are shown as a display shows them: their window applied, or without one
    from the lowest to the highest value, MONOCHROME1 inverted. For CT in Hounsfield units see
    :func:`~xaitools.load_ct`.

    Parameters
    ----------
    data_dir : path
        The folder.
    image : str
        Pattern of the paths to take, below the folder, such as ``"**/*.png"``.
    size : int
        Height and width of the images in pixels.
    channels : {1, 3}
        3 for red, green and blue; grey pictures have three equal ones. 1 for grey; of a picture in color its luma.
    progress : bool
        Show a progress bar.

    Returns
    -------
    Samples
        Images (n, channels, size, size) in [0, 1]. Their `labels` are None, and `sources` tells which file each is;
        `names` are study ids.

    Raises
    ------
    DataFileError
        No folder, no picture in it, or a file that is truncated, damaged or cannot be decoded.
    DataError
        A transparent or constant picture, several frames, or 16 bits of which 8 are used: black, or scaled wrongly?
    ParameterError
        `size` or `channels` out of range.
    """
    check_counts(size=size)
    if channels not in (1, 3):
        raise ParameterError(f"channels={channels!r}; expected 1, grey, or 3, red, green and blue.")
    folder = Path(data_dir)
    check_folder(folder, "give the folder of the pictures")
    files = find_files(folder, lambda _: True, image)
    with called(numbered(files)):
        paths = [path for path in files if path.suffix.lower() in PICTURES or is_dicom(path)]
    if not paths:
        raise DataFileError(
            f"{folder}: no PNG, JPEG or DICOM file that fits {image!r}; give the folder of some"
        )
    subjects, names = study_names([str(path) for path in paths])
    images = []
    for path, name in zip(tqdm(paths, desc="pictures", disable=not progress), names, strict=True):
        with called({path: name}):
            images.append(_to_image(*read_values(path), size, channels))
    return Samples(
        images=torch.stack(images),
        labels=None,
        subjects=subjects,
        names=names,
        sources=tuple(paths),
        info={"source": "pictures without labels", "size": size, "channels": channels},
    )


def read_values(path: Path) -> tuple[np.ndarray, tuple[float, float]]:
    """Values in [0, 1], (row, column, 1 or 3), and the lengths of a pixel along rows and columns, in any unit.

    Raises
    ------
    DataFileError, DataError
        As :func:`load_pictures` does.
    """
    values, spacing = _read_dicom(path) if is_dicom(path) else (_read_file(path), (1.0, 1.0))
    if values.min() == values.max():
        raise DataError(
            f"{path}: all pixels have the value {values.max():.3g}; expected a picture. Remove it"
        )
    return values.astype(np.float32), spacing


def _read_file(path: Path) -> np.ndarray:
    picture = read_picture(path)
    if is_deep(picture):
        low, high = np.asarray(picture).min(), np.asarray(picture).max()
        if not (low >= 0 and 256 <= high <= DEEPEST):
            raise DataError(
                f"{path}: 16 bits a pixel with values from {low} to {high}, so that white is unknown; expected values "
                "that use them. Save it with the bits that it has"
            )
    return brightness(picture, path)


def _read_dicom(path: Path) -> tuple[np.ndarray, tuple[float, float]]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom quotes header values
            return _shown(path)
    except XaitoolsError:
        raise
    except Exception as error:
        raise unreadable(path, error) from None


def _shown(path: Path) -> tuple[np.ndarray, tuple[float, float]]:
    """The pixels of a DICOM file as a display shows them, and their lengths."""
    dataset = open_dicom(path)
    if "PixelData" not in dataset or int(dataset.get("NumberOfFrames") or 1) != 1:
        raise DataError(f"{path}: no pixels, or several frames; expected one picture a file. Remove it")
    color = str(dataset.PhotometricInterpretation)
    row, column = dataset.get("PixelSpacing") or dataset.get("ImagerPixelSpacing") or (1, 1)
    spacing = (float(row), float(column))
    stored = read_pixels(dataset, path)
    if color == "PALETTE COLOR":
        lut = apply_color_lut(stored, dataset)
        return lut.astype(np.float32) / np.iinfo(lut.dtype).max, spacing
    if stored.ndim == 3:
        rgb = stored if color == "RGB" else convert_color_space(stored, color, "RGB", per_frame=True)
        return rgb.astype(np.float32) / (2 ** int(dataset.BitsStored) - 1), spacing
    shown = np.asarray(apply_voi_lut(apply_modality_lut(stored, dataset), dataset), dtype=np.float64)
    shown = (shown - shown.min()) / max(np.ptp(shown), 1e-12)
    return (1 - shown if color == "MONOCHROME1" else shown)[..., None].astype(np.float32), spacing


def _to_image(values: np.ndarray, spacing: tuple[float, float], size: int, channels: int) -> Tensor:
    """(channels, size, size) in [0, 1]."""
    values = luma(values) if channels == 1 else values
    planes = [resize(values[..., plane], spacing, size) for plane in range(values.shape[2])]
    return torch.cat(planes).expand(channels, -1, -1).clone()
