"""Which files of a folder to load, whose they are, and with which label."""

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from xaitools.data.contrast import LabelTable
from xaitools.data.dicom import Header, check_identities, is_dicom, read_header, read_headers, slice_of_series
from xaitools.data.folders import by_name, find_files, find_listed, stem
from xaitools.data.volumes import is_volume
from xaitools.errors import DataError, DataFileError


@dataclass(frozen=True)
class Item:
    """A file to load. `patient` tells patients apart in memory and is never shown.

    Where the header tells the label, `header` is that of the file.
    """

    path: Path
    patient: str
    label: int
    header: Header | None = None


def find_items(folder: Path, table: LabelTable | None, fraction: float, *, progress: bool) -> list[Item]:
    """Find one file a sample: as a table lists them, or by the headers of DICOM series.

    Parameters
    ----------
    folder : path
    table : LabelTable, optional
        Without one, DICOM files are labelled by ``ContrastBolusAgent``.
    fraction : float
        Height of the slice to take from a series: 0 the lowest, 1 nearest to the head.
    progress : bool
        Show a progress bar.

    Raises
    ------
    DataFileError
        No image in the folder, or one that the table lists is missing.
    DataError
        A file that belongs to several rows, or a DICOM file without ``PatientID`` and no column of subjects.
    """
    dicoms, volumes = find_files(folder, is_dicom), find_files(folder, is_volume)
    if not dicoms and not volumes:
        raise DataFileError(
            f"{folder}: no DICOM, NIfTI or MetaImage (.mhd) file in it; give the folder of the images"
        )
    if table is None:
        return _tagged(folder, dicoms, fraction, progress)
    if table.files is not None:
        items = _listed_files(folder, [*dicoms, *volumes], table, table.files, fraction)
    else:
        items = _listed_subjects(folder, dicoms, volumes, table, table.subjects or [], fraction, progress)
    _check_unique(items, table.path)
    return items


def _tagged(folder: Path, dicoms: Sequence[Path], fraction: float, progress: bool) -> list[Item]:
    if not dicoms:
        raise DataError(f"{folder}: only DICOM files carry a label (ContrastBolusAgent); give a label table")
    patients = defaultdict(list)
    headers = read_headers(folder, dicoms, progress=progress)
    check_identities(headers)
    for header in headers:
        patients[_patient(header)].append(header)
    chosen = [(patient, slice_of_series(patients[patient], fraction)) for patient in sorted(patients)]
    return [
        Item(header.path, patient, int(header.contrast_kind == "vessels"), header)
        for patient, header in chosen
    ]


def _listed_files(
    folder: Path, files: Sequence[Path], table: LabelTable, listed: Sequence[str], fraction: float
) -> list[Item]:
    named = by_name(files)
    items, headers = [], []
    for row, (name, label) in enumerate(zip(listed, table.labels, strict=True)):
        path = find_listed(name, folder, named, table.path)
        header = None
        if path.is_dir():
            header = slice_of_series(read_headers(path, find_files(path, is_dicom), progress=False), fraction)
            path = header.path
        if table.subjects is not None:
            patient = table.subjects[row]
        elif is_volume(path):
            patient = str(path)
        else:
            headers.append(header or read_header(path))
            patient = _patient(headers[-1])
        items.append(Item(path, patient, label))
    check_identities(headers)
    return items


def _listed_subjects(
    folder: Path,
    dicoms: Sequence[Path],
    volumes: Sequence[Path],
    table: LabelTable,
    subjects: Sequence[str],
    fraction: float,
    progress: bool,
) -> list[Item]:
    headers = read_headers(folder, dicoms, progress=progress, needed=not volumes)
    check_identities(headers)
    series = defaultdict(list)
    for header in headers:
        for key in {header.patient, header.series}:
            series[key].append(header)
    items = []
    for row, (subject, label) in enumerate(zip(subjects, table.labels, strict=True)):
        if subject and subject in series:
            header = slice_of_series(series[subject], fraction)
            items.append(Item(header.path, header.patient or subject, label))
        elif len(matches := [path for path in volumes if _names(path, subject)]) == 1:
            items.append(Item(matches[0], subject, label))
        else:
            found = f"{len(matches)} files" if matches else "no file"
            raise DataFileError(
                f"{table.path}: {found} for the subject in row {row + 1} below the header; expected one volume named "
                "after it or a DICOM series with its PatientID. Add a column of files or remove the row"
            )
    return items


def _names(path: Path, subject: str) -> bool:
    """Whether a volume is named after a subject: ``LNDb-0007`` after 7, ``sub-01_ct`` after ``sub-01``."""
    name = stem(path)
    number = re.search(r"\d+$", name)
    if subject.isdigit():
        return number is not None and int(number.group()) == int(subject)
    return bool(subject) and (name == subject or name.startswith(f"{subject}_"))


def _patient(header: Header) -> str:
    if not header.patient:
        raise DataError(
            f"{header.path}: no PatientID, so slices of one patient cannot be kept together; give a label table "
            "with a column of subjects"
        )
    return header.patient


def _check_unique(items: Sequence[Item], table: Path) -> None:
    path, count = Counter(item.path for item in items).most_common(1)[0]
    if count > 1:
        raise DataError(f"{table}: {path} belongs to several rows; keep one of them")
