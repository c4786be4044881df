"""Chest CT slices with or without contrast agent, from the folders in which they are published."""

import logging
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from xaitools.checks import check_counts
from xaitools.data.contrast import CLASS_NAMES, read_label_table
from xaitools.data.dicom import Header, n_mixed_series, others_in_words, read_dicom
from xaitools.data.folders import check_folder, find_files
from xaitools.data.intensity import MEDIASTINUM, apply_window
from xaitools.data.layouts import Item, find_items
from xaitools.data.masks import find_masks, heart_and_vessels, mask_doubt, read_mask
from xaitools.data.naming import called, numbered
from xaitools.data.orientation import check_orientation
from xaitools.data.samples import Samples
from xaitools.data.slices import resize, slice_of_volume, to_image
from xaitools.data.subjects import check_n_subjects, in_turn, study_names
from xaitools.data.tables import shown_values
from xaitools.data.volumes import assumed_orientation, is_volume, read_volume
from xaitools.errors import DataError, DataFileError, ParameterError

logger = logging.getLogger(__name__)

HEART_AND_VESSELS = "heart-and-vessels"


def load_ct(
    data_dir: str | Path,
    *,
    table: str | Path | None = None,
    label_column: str = "",
    file_column: str = "",
    subject_column: str = "",
    size: int = 128,
    window: tuple[float, float] = MEDIASTINUM,
    slice_fraction: float = 0.5,
    masks: str | Path | None = None,
    skip_unknown: bool = False,
    check_hu: bool = True,
    orientation: str = "",
    n_subjects: int | None = None,
    progress: bool = True,
) -> Samples:
    """Load axial CT slices labelled by contrast agent; the layout of the folder is recognised.

    - **SIIM**: ``overview.csv`` (columns ``dicom_name`` and ``Contrast``) beside ``dicom_dir/``.
    - **A folder with a label table**, given as `table`. With a column of files, each row is one sample: a
      DICOM, NIfTI or MetaImage file (path below the folder, name, or name without suffix), or the folder of a
      DICOM series. Without one, a column of subjects is matched with the DICOM ``PatientID`` or series UID,
      or with the names of volumes; LNDb's ``LNDbID`` 7 finds ``LNDb-0007.mhd``.
    - **DICOM without a table**, as LIDC-IDRI is published: the label is whether ``ContrastBolusAgent`` names an
      agent in the vessels, one slice a patient. An oral one alone is none that the heart shows. Without the tag no
      agent is assumed, nor where it is empty, though DICOM leaves it empty also where nobody knows (type 2); a warning
      is logged. ``info`` counts these, ``"n_agent_absent"``, ``"n_agent_empty"`` and ``"n_agent_oral"``.

    Of a series or volume one slice is taken, at `slice_fraction` of its height; of several CT series of one
    patient, the longest. What differs in orientation, size or spacing under one SeriesInstanceUID, or in its
    acquisition at the same positions, counts as several; ``info["n_mixed_series"]`` counts such series. Localizers,
    reformatted series and files of other modalities are left out, counted in ``info["n_left_out"]``. Only headers are
    read to choose a slice. Slices are shown as radiologists see them,
    windowed, and resized with their true proportions.

    Parameters
    ----------
    data_dir : path
        The folder.
    table : path, optional
        CSV or TSV file with a label column: True/False, 1/0, yes/no, contrast/no contrast. Empty: SIIM's, or none.
    label_column, file_column, subject_column : str, optional
        Columns of the table; where empty, usual names are tried (``contrast``, ``file``, ``subject``, ...).
        Without a column of subjects, DICOM files are grouped by ``PatientID``, and each volume is a patient.
    size : int
        Height and width of the images in pixels.
    window : (center, width), Hounsfield units
        Scaled to [0, 1]. The default shows fat, muscle and contrast agent apart.
    slice_fraction : float
        0 is the lowest slice, 1 the one nearest to the head.
    masks : path or "heart-and-vessels", optional
        Folder of PNG or NIfTI masks named like the files, see :func:`xaitools.data.masks.read_mask`, or the rule of
        :func:`xaitools.data.masks.heart_and_vessels`. A mask of more than half of the body, or of the air around it,
        is warned of. A sample for which there is no mask gets one that is all
        false; ``info["n_without_mask"]`` counts them.
    skip_unknown : bool
        Leave out patients whose ``ContrastBolusAgent`` is none of the known words and agents, instead of refusing
        them; ``info["n_agent_unknown"]`` counts them.
    check_hu : bool
        Refuse a slice or volume whose values cannot be Hounsfield units, as nothing in it is air or nothing is tissue.
        False takes values as they are; ``info["n_not_hu"]`` counts the doubtful ones.
    orientation : str
        What to take of volumes whose header does not say where its voxels lie, which are refused otherwise: "sform",
        "qform", or the letters of the axes as stored, such as "LPS"; ``info`` counts them.
    n_subjects : int, optional
        Take at most so many subjects, alternating between the classes, in the order of their ids.
    progress : bool
        Show progress bars.

    Returns
    -------
    Samples
        Classes ``("no contrast", "contrast")``; images (n, 1, size, size). Subjects are numbered in the sorted order
        of all patients, so that an id does not depend on `n_subjects`.

    Raises
    ------
    DataFileError
        The folder, a table or a file is missing, empty, truncated or cannot be decoded.
    DataError
        A column is missing, a label or the name of an agent cannot be read, there is one class only, a slice is
        constant, not finite or not in Hounsfield units, an image is no CT, a mask is all black.
    ShapeError
        A mask on another grid than its slice.
    ParameterError
        `size`, `slice_fraction` or `n_subjects` out of range.
    """
    folder = Path(data_dir)
    check_counts(size=size)
    check_orientation(orientation)
    check_n_subjects(n_subjects, least=2)
    apply_window(np.zeros(1), window)
    if not 0 <= slice_fraction <= 1:
        raise ParameterError(
            f"slice_fraction={slice_fraction}; expected 0 (lowest slice) to 1 (nearest to the head)."
        )
    check_folder(folder, "give the folder that holds the images")
    if not table and (folder / "overview.csv").is_file():
        table = folder / "overview.csv"
    labels = read_label_table(Path(table), label_column, file_column, subject_column) if table else None
    items, headers = find_items(folder, labels, slice_fraction, progress=progress)
    items, agents = (items, {}) if labels else _with_known_agent(items, folder, skip_unknown)
    subjects, names = study_names([item.patient for item in items])
    _check_two_classes(items, folder)
    chosen = in_turn(subjects, [item.label for item in items], n_subjects)
    items = [items[position] for position in chosen]
    _check_two_classes(items, folder)
    paths = [item.path for item in items]
    names = tuple(names[position] for position in chosen)
    by_rule = masks == HEART_AND_VESSELS
    mask_paths: Sequence[Path | None] = [None] * len(paths)
    if masks is not None and not by_rule:
        mask_paths = _find_masks(paths, names, folder, Path(masks))
    reading = _Reading(window, size, slice_fraction, by_rule, check_hu, orientation)
    images, drawn, n_not_hu = _read_all(paths, names, mask_paths, reading, progress=progress)
    info = {
        "source": f"CT labelled by {'a table' if labels else 'ContrastBolusAgent'}",
        "window": [float(value) for value in window],
        "size": size,
        "slice_fraction": slice_fraction,
        **agents,
        **_left_out(headers),
        **assumed_orientation(paths, orientation),
    }
    if not check_hu:
        info["n_not_hu"] = n_not_hu
    if masks is not None:
        rule = HEART_AND_VESSELS if by_rule else "drawn, from files"
        info |= {"mask_rule": rule, "n_without_mask": int((~drawn.flatten(1).any(dim=1)).sum())}
    return Samples(
        images=images,
        labels=torch.tensor([item.label for item in items]),
        subjects=tuple(subjects[position] for position in chosen),
        names=names,
        class_names=CLASS_NAMES,
        masks=None if masks is None else drawn,
        sources=tuple(paths),
        info=info,
    )


def _with_known_agent(
    items: Sequence[Item], folder: Path, skip_unknown: bool
) -> tuple[list[Item], dict[str, int]]:
    """The items whose header tells their label, and how many of all say what in other ways."""
    headers = [item.header for item in items if item.header]
    kinds = [header.contrast_kind for header in headers]
    unknown = [header.contrast_agent for header in headers if header.contrast_kind == "unknown"]
    if unknown and not skip_unknown:
        raise DataError(
            f"{folder}: ContrastBolusAgent of {len(unknown)} of {len(items)} patients does not tell whether there is "
            f"contrast agent in the vessels, {shown_values(unknown)}; expected the name of one, or words such as "
            "'NONE'. Give a label table, or leave these patients out with skip_unknown=True"
        )
    counts = {f"n_agent_{kind}": kinds.count(kind) for kind in ("absent", "empty", "oral", "unknown")}
    if unfilled := counts["n_agent_absent"] + counts["n_agent_empty"]:
        logger.warning(
            "ContrastBolusAgent is absent in %d of %d patients and empty in %d; these %d count as without contrast "
            "agent. Give a label table if some of them had one",
            counts["n_agent_absent"],
            len(items),
            counts["n_agent_empty"],
            unfilled,
        )
    return [item for item, kind in zip(items, kinds, strict=True) if kind != "unknown"], counts


def _left_out(headers: Sequence[Header]) -> dict[str, Any]:
    """How many DICOM files are no axial CT slices, by kind, and how many series hold several; both are logged."""
    counts = Counter(header.other for header in headers if header.other)
    n_mixed = n_mixed_series([header for header in headers if not header.other])
    if counts:
        logger.warning("DICOM files left out, as they are no axial CT slices: %s", others_in_words(headers))
    if n_mixed:
        logger.warning("%d series hold several stacks of slices; the longest counts", n_mixed)
    found = {"n_left_out": dict(sorted(counts.items()))} if counts else {}
    return found | ({"n_mixed_series": n_mixed} if n_mixed else {})


def _check_two_classes(items: Sequence[Item], folder: Path) -> None:
    found = {item.label for item in items}
    if not items:
        raise DataError(f"{folder}: nothing is left to load; give a label table")
    if len(found) < 2:
        one_patient = ", one a PatientID," if items[0].header else ""
        raise DataError(
            f"{folder}: all {len(items)} samples{one_patient} are of one class, {CLASS_NAMES[found.pop()]!r}; expected "
            "both. Check the label column; where ContrastBolusAgent is not filled in, give a label table"
        )


@dataclass(frozen=True)
class _Reading:
    """How slices are read, see :func:`load_ct`."""

    window: tuple[float, float]
    size: int
    fraction: float
    by_rule: bool
    check_hu: bool
    orientation: str

    def read(self, path: Path, mask_path: Path | None) -> tuple[Tensor, Tensor, str, str]:
        """Image and mask, each (1, size, size), and what speaks against its values being HU and against its mask."""
        volume = read_volume(path, self.orientation) if is_volume(path) else None
        ct_slice = read_dicom(path) if volume is None else slice_of_volume(volume, self.fraction, path)
        image = to_image(ct_slice, path, self.window, self.size)
        if ct_slice.doubt and self.check_hu:
            raise DataError(
                f"{path}: {ct_slice.doubt}; expected Hounsfield units, air at -1000. Give the files in HU, or take "
                "values as they are with check_hu=False"
            )
        mask, doubt = np.zeros(ct_slice.hu.shape, dtype=bool), ""
        if self.by_rule:
            mask = heart_and_vessels(ct_slice)
        elif mask_path:
            mask = read_mask(mask_path, ct_slice, volume, self.fraction, self.orientation)
            doubt = mask_doubt(mask, ct_slice)
        small = resize(mask.astype(np.float32), ct_slice.spacing, self.size) >= 0.5
        return image, small, ct_slice.doubt, doubt


def _read_all(
    paths: Sequence[Path],
    names: Sequence[str],
    mask_paths: Sequence[Path | None],
    reading: _Reading,
    *,
    progress: bool,
) -> tuple[Tensor, Tensor, int]:
    """Images and masks, each (n, 1, size, size), and how many are in doubt of being in HU."""
    images, masks, doubts, n_not_hu = [], [], [], 0
    files = zip(paths, names, mask_paths, strict=True)
    for path, name, mask_path in tqdm(files, desc="CT slices", total=len(paths), disable=not progress):
        with called({path: name} | ({mask_path: f"{name}'s mask"} if mask_path else {})):
            image, mask, not_hu, doubt = reading.read(path, mask_path)
        images.append(image)
        masks.append(mask)
        n_not_hu += bool(not_hu)
        doubts += [f"{name}'s mask {doubt}"] if doubt else []
    if doubts:
        n_masks = sum(path is not None for path in mask_paths)
        warnings.warn(f"{doubts[0]}. Masks in doubt: {len(doubts)} of {n_masks}", stacklevel=3)
    return torch.stack(images), torch.stack(masks), n_not_hu


def _find_masks(paths: Sequence[Path], names: Sequence[str], root: Path, folder: Path) -> list[Path | None]:
    check_folder(folder, f"give one, or {HEART_AND_VESSELS!r} for the rule", "folder of masks")
    with called(numbered(find_files(folder, lambda _: True))):
        found = find_masks(folder, paths, root)
    if not any(found):
        raise DataFileError(
            f"{folder}: no mask is named like an image; expected PNG or NIfTI files with the images' names, at the "
            "same place below it as the images below theirs, or directly in it. Rename them"
        )
    first: dict[Path, str] = {}
    for path, name in zip(found, names, strict=True):
        if path and path in first:
            raise DataError(
                f"{folder}: one mask is named like several images, {first[path]} and {name}; mirror the images' "
                "folders in the masks' folder"
            )
        if path:
            first[path] = name
    return found
