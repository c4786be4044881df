"""DICOM files: headers without identities in any message, slices in Hounsfield units."""

import math
import re
import warnings
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pydicom
from pydicom.errors import InvalidDicomError
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import apply_modality_lut
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    EnhancedCTImageStorage,
    LegacyConvertedEnhancedCTImageStorage,
    MediaStorageDirectoryStorage,
)
from tqdm.auto import tqdm

from xaitools.data.agents import agent_kind
from xaitools.data.grids import Grid
from xaitools.data.intensity import LOWEST_HU, hu_doubt
from xaitools.data.orientation import LONGEST, SHORTEST
from xaitools.data.sizes import MOST_PIXELS, check_size
from xaitools.data.slices import AIR_HU, CtSlice, stored_slice
from xaitools.data.volumes import LPS_TO_RAS
from xaitools.errors import DataError, DataFileError, XaitoolsError

SUFFIXES = {".dcm", ".dicom", ".ima"}
MODALITIES = ("CT", "")
DEFLATED = str(DeflatedExplicitVRLittleEndian).encode()
LONGEST_META, MOST_BYTES = 2**16, 2**28
FARTHEST = 1e5  # mm from the origin of a scanner to a slice
# What else than a modality or a unit stands there may be a name.
CODE = re.compile(r"[A-Z_]{1,8}")
# US: unspecified.
UNITS = ("HU", "US", "")
# What programs that remove names write in place of an id.
PLACEHOLDER = re.compile(
    r"(anon\w*|de-?identified|removed|redacted|unknown|none|null|n/?a|no ?id|patient|test|x+|0+)",
    re.IGNORECASE,
)
ENHANCED = (EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage)
HEADER_TAGS = [
    "Modality",
    "ImageType",
    "NumberOfFrames",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "SOPInstanceUID",
    "AcquisitionNumber",
    "Rows",
    "Columns",
    "PixelSpacing",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "ContrastBolusAgent",
    "ContrastBolusRoute",
    "ContrastBolusVolume",
]
STACK = ("ImageOrientationPatient", "Rows", "Columns", "PixelSpacing")


@dataclass(frozen=True)
class Header:
    """What chooses and labels a slice. `patient`, `person` and the UIDs stay in memory: they are never shown.

    `other` says what it is instead of an axial CT slice, and is empty for one. `person` is the patient's birth date and
    sex; `stack` are orientation, rows, columns and pixel spacing, which slices one above the other share.
    `contrast_kind` is that of :func:`xaitools.data.agents.agent_kind`.
    """

    path: Path
    patient: str
    person: tuple[str, str]
    study: str
    series: str
    instance: str
    acquisition: str
    stack: tuple[float, ...]
    other: str
    height: float | None
    contrast_agent: str
    contrast_kind: str


def open_dicom(path: Path, **options: Any) -> pydicom.Dataset:
    """What pydicom reads, with its `options`, of a file that fits into memory.

    Raises
    ------
    FileNotFoundError
        No such file, or no regular one, which may never end.
    DataFileError
        Larger than one image can be, as it is or when it is inflated.
    """
    if not path.is_file():
        raise FileNotFoundError(path)
    with path.open("rb") as file:
        largest = path.stat().st_size
        if DEFLATED in file.read(LONGEST_META):
            file.seek(0)
            pydicom.filereader.read_preamble(file, False)
            pydicom.filereader._read_file_meta_info(file)
            largest = max(largest, _inflated(file))
    if largest > MOST_BYTES:
        raise DataFileError(f"{path}: more than {MOST_BYTES} bytes; expected one image a file. Take it apart")
    return pydicom.dcmread(path, **options)


def _inflated(file: BinaryIO) -> int:
    """How many bytes the rest of a file is deflated from, or more than :data:`MOST_BYTES`."""
    inflater, total = zlib.decompressobj(-zlib.MAX_WBITS), 0
    while total <= MOST_BYTES and (part := inflater.unconsumed_tail or file.read(2**20)):
        total += len(inflater.decompress(part, 2**24))
        if inflater.eof:
            break
    return total


def read_pixels(dataset: pydicom.Dataset, path: Path) -> np.ndarray:
    """The stored values of a data set.

    Raises
    ------
    DataFileError
        More pixels than are read.
    """
    check_size(path, (dataset.Rows, dataset.Columns), most=MOST_PIXELS)
    return dataset.pixel_array


def is_dicom(path: Path) -> bool:
    """Whether a file is DICOM: by suffix, or by the marker that opens a DICOM file, as names may be UIDs."""
    return path.suffix.lower() in SUFFIXES or _has_marker(path)


def read_header(path: Path) -> Header:
    """Read the header of a DICOM file, not its pixels.

    `height` is the position along the patient's long axis in mm, growing towards the head.

    Raises
    ------
    DataFileError
        Not DICOM, or a header that cannot be read.
    DataError
        A CT with several slices in one file.
    """
    with anonymous_errors(path):
        dataset = open_dicom(path, stop_before_pixels=True, specific_tags=HEADER_TAGS)
        other = _other(dataset)
        if not other:
            _check_single_frame(dataset, path)
        return Header(
            path=path,
            patient=_text(dataset, "PatientID"),
            person=(_text(dataset, "PatientBirthDate"), _text(dataset, "PatientSex")),
            study=_text(dataset, "StudyInstanceUID"),
            series=_text(dataset, "SeriesInstanceUID"),
            instance=_text(dataset, "SOPInstanceUID"),
            acquisition=_text(dataset, "AcquisitionNumber"),
            stack=tuple(float(value) for tag in STACK for value in _values(dataset, tag)),
            other=other,
            height=_height(dataset),
            contrast_agent=_text(dataset, "ContrastBolusAgent"),
            contrast_kind=agent_kind(
                _text(dataset, "ContrastBolusAgent") if "ContrastBolusAgent" in dataset else None,
                _text(dataset, "ContrastBolusRoute"),
                _number(dataset, "ContrastBolusVolume", 0.0),
            ),
        )


def read_headers(paths: Sequence[Path], *, progress: bool) -> list[Header]:
    """Read many headers."""
    return [read_header(path) for path in tqdm(paths, desc="DICOM headers", disable=not progress)]


def axial_slices(headers: Sequence[Header], where: str | Path, *, needed: bool = True) -> list[Header]:
    """Those of axial CT slices only: no localizers, reformatted series, other modalities, DICOMDIR.

    Raises
    ------
    DataError
        There is none, though one is `needed`; says what there is, and `where`.
    """
    slices = [header for header in headers if not header.other]
    if not slices and needed:
        found = others_in_words(headers) or "no DICOM file"
        raise DataError(
            f"{where}: {found}; expected axial CT slices. Give a folder of these, or name it in the table"
        )
    return slices


def others_in_words(headers: Sequence[Header]) -> str:
    """What there is besides axial CT slices, with counts: ``"SR (2), localizer (1)"``."""
    counts = Counter(header.other for header in headers if header.other)
    return ", ".join(f"{what} ({n})" for what, n in counts.most_common())


def check_identities(headers: Sequence[Header]) -> None:
    """Raise unless each PatientID can be that of one person.

    Raises
    ------
    DataError
        A placeholder such as ``ANON`` on several studies, or one id with several birth dates or sexes.
    """
    patients = defaultdict(list)
    for header in headers:
        patients[header.patient].append(header)
    for patient, own in patients.items():
        found = ""
        if PLACEHOLDER.fullmatch(patient) and len({header.study or header.series for header in own}) > 1:
            found = f"the placeholder {patient!r} is the PatientID of several studies"
        elif any(
            len({*values} - {""}) > 1 for values in zip(*(header.person for header in own), strict=True)
        ):
            found = "one PatientID stands for several birth dates or sexes"
        if found:
            raise DataError(
                f"{own[0].path} and others: {found}, so patients cannot be told apart; give a label table with a "
                "column of files and one of subjects"
            )


def slice_of_series(headers: Sequence[Header], fraction: float) -> Header:
    """The slice at a fraction of the height of the longest stack, see :func:`stacks`: 0 the lowest, 1 nearest the head.

    Raises
    ------
    DataFileError
        A file of that stack has no position.
    DataError
        Two slices lie there.
    """
    longest = max(stacks(headers), key=lambda stack: (len(stack), stack[0].series))
    if len(longest) == 1:
        return longest[0]
    for header in longest:
        if header.height is None:
            raise DataFileError(
                f"{header.path}: no ImagePositionPatient or ImageOrientationPatient with a place, so its place "
                "in the series is unknown; remove the file or list single files in a label table"
            )
    heights = sorted({_place_in_stack(header) for header in longest})
    height = heights[round(fraction * (len(heights) - 1))]
    chosen = sorted(
        (header for header in longest if _place_in_stack(header) == height), key=lambda own: own.path
    )
    if len(chosen) > 1:
        raise DataError(
            f"{chosen[0].path} and {chosen[1].path}: {len(chosen)} slices of one series at one position; expected one, "
            "as they may differ in contrast agent. Take the others out, or list single files in a label table"
        )
    return chosen[0]


def stacks(headers: Sequence[Header]) -> list[list[Header]]:
    """Slices that lie one above the other, though one SeriesInstanceUID may hold several such stacks.

    Those of a stack share series, orientation, size and spacing. Where positions repeat, acquisitions are taken apart
    if that leaves none that does. A copy of a slice, with its SOPInstanceUID and position, counts once.
    """
    found: list[list[Header]] = []
    copies = {(header.series, header.instance or header.path, header.height): header for header in headers}
    for header in copies.values():
        stack = next((own for own in found if _stacked(own[0], header)), None)
        if stack is None:
            found.append([header])
        else:
            stack.append(header)
    return [part for stack in found for part in _acquisitions(stack)]


def n_mixed_series(headers: Sequence[Header]) -> int:
    """How many SeriesInstanceUIDs hold several stacks."""
    series = defaultdict(list)
    for header in headers:
        series[header.patient, header.series].append(header)
    return sum(len(stacks(own)) > 1 for own in series.values())


def _stacked(one: Header, other: Header) -> bool:
    if one.series != other.series or len(one.stack) != len(other.stack):
        return False
    pairs = zip(one.stack, other.stack, strict=True)
    return all(math.isclose(*pair, rel_tol=1e-3, abs_tol=0.01) for pair in pairs)


def _acquisitions(stack: list[Header]) -> list[list[Header]]:
    acquisitions = defaultdict(list)
    for header in stack:
        acquisitions[header.acquisition].append(header)
    parts = list(acquisitions.values())
    return parts if _repeats(stack) and not any(map(_repeats, parts)) else [stack]


def _repeats(stack: Sequence[Header]) -> bool:
    """Whether two slices lie at one position."""
    return len({_place_in_stack(header) for header in stack}) < len(stack)


def _place_in_stack(header: Header) -> float:
    """The height in whole hundredths of a millimetre; -inf where it is unknown."""
    return -math.inf if header.height is None else round(header.height * 100)


def read_dicom(path: Path) -> CtSlice:
    """Read one axial slice.

    Hounsfield units come from the Modality LUT, or from ``RescaleSlope`` and ``RescaleIntercept``; they mean
    the same under MONOCHROME1 and MONOCHROME2, which only say how a display maps them, so neither is inverted. Padding
    (``PixelPaddingValue``, and everything below -1024 HU as scanners write outside their circle) becomes air.

    Raises
    ------
    DataFileError
        Not DICOM, truncated, without pixel data, compressed in a way that no installed decoder reads, or
        without the tags that place it.
    DataError
        Not one greyscale axial slice of a CT, or in another unit.
    """
    with anonymous_errors(path):
        dataset = open_dicom(path)
        _check_is_ct(dataset, path)
        stored = _stored_values(dataset, path)
        hu = _hounsfield(dataset, stored, path)
        padding = _padding(dataset, stored)
        doubt = hu_doubt(hu[~padding])
        hu[padding | (hu < LOWEST_HU)] = AIR_HU
        if "PixelSpacing" not in dataset or "ImageOrientationPatient" not in dataset:
            raise DataFileError(
                f"{path}: no PixelSpacing or no ImageOrientationPatient; every CT image has both. Restore them"
            )
        row_spacing, column_spacing = (float(value) for value in dataset.PixelSpacing)
        axes = np.array(dataset.ImageOrientationPatient, dtype=float).reshape(2, 3)
        position = np.array(dataset.get("ImagePositionPatient") or [], dtype=float)
        _check_geometry(path, (row_spacing, column_spacing), axes, position)
    if not _is_axial(axes):
        raise DataError(f"{path}: not an axial slice; expected one across the patient's long axis. Remove it")
    grid = _grid(hu.shape, axes, row_spacing, column_spacing)
    return stored_slice(hu, grid, doubt, _place(grid, axes, position) if position.size else None)


def _check_geometry(path: Path, spacing: tuple[float, float], axes: np.ndarray, position: np.ndarray) -> None:
    """Raise DataError unless the tags that place a slice can be those of one."""
    lengths = np.linalg.norm(axes, axis=1) if np.abs(axes).max() < 2 else np.inf
    if not all(SHORTEST <= length <= LONGEST for length in spacing):
        found = (
            f"PixelSpacing is {spacing[0]:g} and {spacing[1]:g} mm; expected {SHORTEST:g} to {LONGEST:g} mm"
        )
    elif not np.all(np.abs(lengths - 1) < 0.1) or abs(float(axes[0] @ axes[1])) > 0.1:
        found = "ImageOrientationPatient is not two directions at a right angle; expected these"
    elif position.size and not (position.shape == (3,) and np.isfinite(position).all()):
        found = "ImagePositionPatient is not three finite numbers; expected these"
    else:
        return
    raise DataError(f"{path}: its {found}. Correct the tag or remove the file")


def _place(grid: Grid, axes: np.ndarray, position: np.ndarray) -> Grid:
    """Where the slice lies among the patient's other ones as it is displayed, with the tilt that `grid` leaves out."""
    affine = np.eye(4)
    affine[:3, :2] = axes.T * grid.spacing[:2]
    affine[:3, 2] = np.cross(*axes)
    affine[:3, 3] = position
    turn = np.linalg.solve(grid.affine, grid.turned("LPS").affine)
    return Grid(grid.turned("LPS").shape, LPS_TO_RAS @ affine @ turn)


def _grid(shape: tuple[int, ...], axes: np.ndarray, row_spacing: float, column_spacing: float) -> Grid:
    """The grid (column, row, 1) of an axial slice, taken as level.

    `axes` are the directions in which the column and the row index grow, (2, 3), towards left, back and head.
    """
    affine = np.eye(4)
    level = axes[:, :2] / np.linalg.norm(axes[:, :2], axis=1, keepdims=True)
    affine[:2, :2] = level.T * [column_spacing, row_spacing]
    return Grid((shape[1], shape[0], 1), LPS_TO_RAS @ affine)


@contextmanager
def anonymous_errors(path: Path) -> Iterator[None]:
    """pydicom quotes header values in warnings and errors: drop the first, replace the second."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except XaitoolsError:
        raise
    except FileNotFoundError:
        raise DataFileError(f"{path}: no such file; check the folder and the label table") from None
    except InvalidDicomError:
        raise DataFileError(f"{path}: not a DICOM file; remove it or give it another suffix") from None
    except Exception as error:
        raise DataFileError(
            f"{path}: the DICOM file is truncated or has a malformed header ({type(error).__name__}); "
            "fetch it again or remove it"
        ) from None


def _has_marker(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError as error:
        raise DataFileError(
            f"{path}: cannot be opened ({type(error).__name__}); change its permissions"
        ) from None


def _other(dataset: pydicom.Dataset) -> str:
    """What a file is instead of an axial CT slice; empty for one."""
    if dataset.file_meta.get("MediaStorageSOPClassUID") == MediaStorageDirectoryStorage:
        return "DICOMDIR"
    if (modality := _text(dataset, "Modality")) not in MODALITIES:
        return modality if CODE.fullmatch(modality) else "unknown modality"
    if "LOCALIZER" in (dataset.get("ImageType") or []):
        return "localizer"
    orientation = dataset.get("ImageOrientationPatient")
    return "" if not orientation or _is_axial(np.array(orientation, dtype=float)) else "not axial"


def _is_axial(orientation: np.ndarray) -> bool:
    """Whether slices are stacked along the patient's long axis, a gantry tilted by less than 45 degrees aside."""
    return bool(abs(np.cross(*orientation.reshape(2, 3))[2]) >= 0.7)


def _check_single_frame(dataset: pydicom.Dataset, path: Path) -> None:
    frames = int(dataset.get("NumberOfFrames") or 1)
    enhanced = dataset.file_meta.get("MediaStorageSOPClassUID") in ENHANCED
    if enhanced or frames > 1:
        what = "enhanced CT" if enhanced else "multi-frame image"
        raise DataError(
            f"{path}: {what}, {frames} slices in one file; expected one slice a file. Split it (emf2sf of dcm4che "
            "does, for instance) or convert the series to NIfTI"
        )


def _text(dataset: pydicom.Dataset, tag: str) -> str:
    return str(dataset.get(tag) or "").strip()


def _values(dataset: pydicom.Dataset, tag: str) -> list[Any]:
    """All values of an element, none where it is absent or empty."""
    value = dataset.get(tag)
    if value is None or value == "":
        return []
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]


def _number(dataset: pydicom.Dataset, tag: str, default: float) -> float:
    value = dataset.get(tag)
    return default if value is None or value == "" else float(value)


def _height(dataset: pydicom.Dataset) -> float | None:
    position, orientation = dataset.get("ImagePositionPatient"), dataset.get("ImageOrientationPatient")
    if not position or not orientation:
        return None
    axes = np.array(orientation, dtype=float).reshape(2, 3)
    with np.errstate(all="ignore"):
        normal = np.cross(*axes)
        height = float(np.dot(np.array(position, dtype=float), normal) * np.sign(normal[2]))
    return height if abs(height) < FARTHEST else None


def _check_is_ct(dataset: pydicom.Dataset, path: Path) -> None:
    if (modality := _text(dataset, "Modality")) not in MODALITIES:
        what = modality if CODE.fullmatch(modality) else "unknown"
        raise DataError(f"{path}: its Modality is {what}; expected CT. Remove it from the folder or table")
    if "PixelData" not in dataset:
        raise DataFileError(f"{path}: no pixel data; expected a CT image. Remove it from the folder or table")
    _check_single_frame(dataset, path)
    colors = _text(dataset, "PhotometricInterpretation")
    if colors not in ("MONOCHROME1", "MONOCHROME2") or dataset.get("SamplesPerPixel", 1) != 1:
        what = "PALETTE COLOR" if colors == "PALETTE COLOR" else "a colour"
        raise DataError(
            f"{path}: {what} image; its numbers are no measured values. Expected MONOCHROME1 or MONOCHROME2; "
            "export the slice as it was measured"
        )


def _hounsfield(dataset: pydicom.Dataset, stored: np.ndarray, path: Path) -> np.ndarray:
    """Stored values in HU, float64, by the file's table or by its slope and intercept."""
    tables = dataset.get("ModalityLUTSequence")
    unit = _text(tables[0], "ModalityLUTType") if tables else _text(dataset, "RescaleType")
    if unit.upper() not in UNITS:
        what = unit if CODE.fullmatch(unit) else "another"
        raise DataError(
            f"{path}: its unit (RescaleType or ModalityLUTType) is {what}; expected HU. Give the images in HU"
        )
    if not tables:
        return stored * _number(dataset, "RescaleSlope", 1.0) + _number(dataset, "RescaleIntercept", 0.0)
    looked_up = apply_modality_lut(stored, dataset)
    # The table's numbers have no sign, and no HU lies above 32767.
    return (looked_up.astype(np.int16) if looked_up.dtype == np.uint16 else looked_up).astype(np.float64)


def _stored_values(dataset: pydicom.Dataset, path: Path) -> np.ndarray:
    _check_decodable(dataset.file_meta.TransferSyntaxUID, path)
    try:
        stored = read_pixels(dataset, path)
    except XaitoolsError:
        raise
    except Exception:
        raise DataFileError(
            f"{path}: its pixel data cannot be decoded, most likely truncated; fetch the file again"
        ) from None
    if stored.ndim != 2:
        raise DataFileError(
            f"{path}: its pixel data are {' x '.join(map(str, stored.shape))} values; expected one slice of Rows and "
            "Columns. Fetch the file again"
        )
    return stored


def _check_decodable(syntax: Any, path: Path) -> None:
    name = (
        syntax.name if syntax.is_transfer_syntax and not syntax.is_private else "an unknown transfer syntax"
    )
    try:
        available = not syntax.is_compressed or get_decoder(syntax).is_available
    except (NotImplementedError, ValueError):
        available = False
    if not available:
        raise DataFileError(
            f"{path}: compressed as {name}, which no installed decoder reads; install one "
            "(pip install pylibjpeg[all]) or decompress the file (gdcmconv --raw IN OUT)"
        )


def _padding(dataset: pydicom.Dataset, stored: np.ndarray) -> np.ndarray:
    """Which pixels are padding: the value, often written without its sign, or a range of values."""
    if dataset.get("PixelPaddingValue") is None:
        return np.zeros(stored.shape, dtype=bool)
    first = _same_bits(dataset.PixelPaddingValue, stored.dtype)
    last = _same_bits(dataset.get("PixelPaddingRangeLimit") or dataset.PixelPaddingValue, stored.dtype)
    return (stored >= min(first, last)) & (stored <= max(first, last))


def _same_bits(value: Any, dtype: np.dtype) -> int:
    number = int.from_bytes(value, "little") if isinstance(value, bytes) else int(value)
    return int(np.array(number, dtype=np.int64).astype(dtype))
