"""Which files of a folder to load, whose they are, and with which label."""

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from xaitools.data.contrast import LabelTable
from xaitools.data.dicom import (
    Header,
    axial_slices,
    check_identities,
    is_dicom,
    read_header,
    read_headers,
    slice_of_series,
)
from xaitools.data.folders import by_name, composed, find_files, find_listed, layout_error, stem
from xaitools.data.naming import called, numbered
from xaitools.data.subjects import check_spellings, check_subject_cells, spelling, without_known_words
from xaitools.data.volumes import is_volume
from xaitools.errors import DataError, DataFileError

LAYOUTS = (
    "DICOM files (.dcm, .dicom, .ima or without an ending), in any folders, labelled by their headers or a table",
    "NIfTI or MetaImage volumes and a label table",
    "SIIM's overview.csv and dicom_dir",
)


@dataclass(frozen=True)
class Item:
    """A file to load. `patient` tells patients apart in memory and is never shown.

    Where the header tells the label, `header` is that of the file.
    """

    path: Path
    patient: str
    label: int
    header: Header | None = None


def find_items(
    folder: Path, table: LabelTable | None, fraction: float, *, progress: bool
) -> tuple[list[Item], list[Header]]:
    """Find one file a sample: as a table lists them, or by the headers of DICOM series, which are returned as well.

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
        A file that belongs to several rows, a row without a subject, a DICOM file without ``PatientID`` and no column
        of subjects, or ids that look like two spellings of one person.
    """
    files = find_files(folder, lambda _: True)
    with called(numbered(files)):
        dicoms, volumes = list(filter(is_dicom, files)), list(filter(is_volume, files))
    if not dicoms and not volumes:
        remedy = "Give the folder of the images, or convert them"
        raise layout_error(folder, "no DICOM, NIfTI or MetaImage (.mhd) file", LAYOUTS, remedy)
    with called(numbered(sorted({*dicoms, *volumes}))):
        return _items(folder, dicoms, volumes, table, fraction, progress)


def _items(
    folder: Path,
    dicoms: Sequence[Path],
    volumes: Sequence[Path],
    table: LabelTable | None,
    fraction: float,
    progress: bool,
) -> tuple[list[Item], list[Header]]:
    if table is None:
        items, headers = _tagged(folder, dicoms, fraction, progress)
        _check_patients(items, folder)
        return items, headers
    if table.subjects is not None:
        check_subject_cells(table.subjects, table.path)
    if table.files is not None:
        items, headers = _listed_files(folder, [*dicoms, *volumes], table, table.files, fraction)
    else:
        subjects = table.subjects or []
        items, headers = _listed_subjects(folder, dicoms, volumes, table, subjects, fraction, progress)
    _check_unique(items, table.path)
    _check_patients(items, table.path)
    return items, headers


def _tagged(
    folder: Path, dicoms: Sequence[Path], fraction: float, progress: bool
) -> tuple[list[Item], list[Header]]:
    if not dicoms:
        raise DataError(f"{folder}: only DICOM files carry a label (ContrastBolusAgent); give a label table")
    patients = defaultdict(list)
    headers = read_headers(dicoms, progress=progress)
    slices = axial_slices(headers, folder)
    check_identities(slices)
    for header in slices:
        patients[_patient(header)].append(header)
    chosen = [(patient, slice_of_series(patients[patient], fraction)) for patient in sorted(patients)]
    items = [
        Item(header.path, patient, int(header.contrast_kind == "vessels"), header)
        for patient, header in chosen
    ]
    return items, headers


def _listed_files(
    folder: Path, files: Sequence[Path], table: LabelTable, listed: Sequence[str], fraction: float
) -> tuple[list[Item], list[Header]]:
    named = by_name(files, folder)
    items, headers, read = [], [], []
    for row, (name, label) in enumerate(zip(listed, table.labels, strict=True)):
        where = f"{table.path}, row {row + 1} below the header"
        path = find_listed(name, folder, named, where)
        header = None
        if path.is_dir():
            own = read_headers(find_files(path, is_dicom), progress=False)
            header = slice_of_series(axial_slices(own, where), fraction)
            path = header.path
            read += own
        if table.subjects is not None:
            patient = table.subjects[row]
        elif is_volume(path):
            patient = str(path)
        else:
            headers.append(header or read_header(path))
            patient = _patient(headers[-1])
        items.append(Item(path, patient, label))
    check_identities(headers)
    return items, read


def _listed_subjects(
    folder: Path,
    dicoms: Sequence[Path],
    volumes: Sequence[Path],
    table: LabelTable,
    subjects: Sequence[str],
    fraction: float,
    progress: bool,
) -> tuple[list[Item], list[Header]]:
    headers = read_headers(dicoms, progress=progress)
    slices = axial_slices(headers, folder, needed=not volumes)
    check_identities(slices)
    series = defaultdict(list)
    for header in slices:
        for key in {composed(header.patient), header.series}:
            series[key].append(header)
    named = _named(volumes, folder, subjects, table.path)
    items = []
    for row, (subject, label) in enumerate(zip(subjects, table.labels, strict=True)):
        if subject and subject in series:
            header = slice_of_series(series[subject], fraction)
            items.append(Item(header.path, header.patient or subject, label))
        elif len(matches := named[subject]) == 1:
            items.append(Item(matches[0], subject, label))
        else:
            found = f"{len(matches)} files" if matches else "no file"
            alike = spelling(subject) in map(spelling, [*series, *map(stem, volumes)])
            hint = ". One is written otherwise (zeros, case): write them alike" if alike else ""
            raise DataFileError(
                f"{table.path}: {found} for the subject in row {row + 1} below the header; expected one volume named "
                f"after it or a DICOM series with its PatientID. Add a column of files or remove the row{hint}"
            )
    return items, headers


def _named(
    volumes: Sequence[Path], folder: Path, subjects: Sequence[str], table: Path
) -> dict[str, list[Path]]:
    """The volumes that are named after each subject: ``LNDb-0007`` after 7, ``sub-01_ct`` after ``sub-01``.

    A file's name and those of its folders below `folder` count alike. A subject that is a number is any number in them
    but those of well-known words, see :func:`~xaitools.data.subjects.without_known_words`.

    Raises
    ------
    DataError
        The names have several numbers, or begin with several subjects, so that it is unknown whose it is.
    """
    numbers = {int(subject): subject for subject in subjects if re.fullmatch(r"\d{1,99}", subject)}
    words = {subject for subject in subjects if subject} - set(numbers.values())
    named = defaultdict(list)
    for path in volumes:
        names = [composed(name) for name in (stem(path), *path.relative_to(folder).parts[:-1])]
        found = {int(digits) for name in names for digits in re.findall(r"\d+", without_known_words(name))}
        candidates = {
            subject for subject in words if any(f"{name}_".startswith(f"{subject}_") for name in names)
        }
        if len(candidates) > 1 or (not candidates and len(found) > 1 and found & numbers.keys()):
            raise DataError(
                f"{path}: whose it is, is not clear: it may be named after {sorted(candidates or found)}; expected "
                f"one candidate. Add a column of files to {table}"
            )
        for subject in candidates or {numbers[number] for number in found & numbers.keys()}:
            named[subject].append(path)
    return named


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


def _check_patients(items: Sequence[Item], where: Path) -> None:
    """Check the ids of tables and headers; a volume without either is a patient of its own, by its path."""
    named = [item for item in items if item.patient != str(item.path)]
    check_spellings([item.patient for item in named], [item.path for item in named], where)
