"""Study ids in place of patients, and which subjects to take."""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path

import numpy as np

from xaitools.checks import check_counts
from xaitools.data.missing import is_missing_id
from xaitools.errors import DataError, ParameterError


def spelling(patient: str) -> str:
    """What the spellings of one person's id have in common: ``sub-A07``, ``a7`` and ``A7.0`` are ``a7``."""
    word = unicodedata.normalize("NFKC", patient).strip().casefold().removeprefix("sub-")
    return re.sub(r"(?<!\d)0+(?=\d)", "", re.sub(r"^(\d+)\.0+$", r"\1", word))


# Words of file names whose numbers are nobody's, see without_known_words.
_ENTITIES = (
    "ses|run|acq|ce|rec|dir|task|echo|inv|flip|mt|part|space|res|den|desc|label|hemi|split|chunk|tpl|group"
)
_KNOWN_WORDS = (
    rf"(?:{_ENTITIES})-[a-z0-9]+",
    r"t[12](?:w|map|star|starw|rho|rhow)?",
    r"mp2rage",
    r"(?:mni|icbm)\d+[a-z0-9]*|ixi549space",
    r"\d+(?:[.p]\d+)?(?:x\d+(?:[.p]\d+)?){0,2}mm",
    r"\d+(?:[.p]\d+)?x\d+(?:[.p]\d+)?x\d+(?:[.p]\d+)?",
    r"(?:1[.p]5|3|7)t",
    r"[234]d",
    r"s?m?wr?[cp][1-6]",
)
KNOWN_WORDS = re.compile(rf"(?<![^\W_])(?:{'|'.join(_KNOWN_WORDS)})(?![^\W_])", re.IGNORECASE)


def without_known_words(name: str) -> str:
    """A file's or folder's name without the words that have numbers and tell nothing of whose it is.

    These are T1, T2, T1w, T2star and their like, MP2RAGE, templates (MNI152NLin2009cAsym, ICBM152, Ixi549Space),
    lengths (1mm, 1.5mm, 1x1x1), field strengths (1.5T, 3T, 7T), 2D to 4D, SPM's warped tissues (wc1, mwp1) and BIDS'
    entities but sub- (ses-M12, run-1, space-..., desc-...); a number in any other word may be a subject's.

    Examples
    --------
    >>> without_known_words("patient3_ses-M12_T1w_1mm")
    'patient3___'
    """
    return KNOWN_WORDS.sub("", name)


def check_subject_cells(cells: Sequence[str], table: str | Path) -> None:
    """Raise DataError if a row of a table names no subject: such rows would all be of one person."""
    empty = [row for row, cell in enumerate(cells, start=1) if is_missing_id(cell)]
    if empty:
        raise DataError(
            f"{table}: no subject in row {empty[0]} below the header ({len(empty)} of {len(cells)} rows); expected one "
            "in each, since rows of one subject stay together. Fill in the cells or remove the rows"
        )


def check_spellings(patients: Sequence[str], shown: Sequence[str | Path], where: str | Path) -> None:
    """Raise DataError if one person may have two ids, and with that be in two of the sets that share none.

    Parameters
    ----------
    patients : sequence of str, n
    shown : sequence of str or Path, n
        What a message calls them.
    where : str or Path
        The table or folder, for the message.
    """
    first: dict[str, int] = {}
    for position, patient in enumerate(patients):
        before = first.setdefault(spelling(patient), position)
        if patients[before] != patient:
            raise DataError(
                f"{where}: the subjects of {shown[before]} and {shown[position]} are written in two ways but look like "
                "one person (case, zeros before a number, '.0', 'sub-' and forms of Unicode aside); expected one "
                "spelling a person. Write them alike, or rename one if they are two"
            )


def study_names(patients: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Replace patients by study ids, in sorted order, and name each of their samples.

    Parameters
    ----------
    patients : sequence of str, n
        Any key that tells patients apart; kept in memory only.

    Returns
    -------
    subjects, names : tuples of str, n
        ``sub-001`` for the first patient in sorted order; a patient with several samples gets the names
        ``sub-001_img-1``, ``sub-001_img-2`` in order of appearance.
    """
    unique = sorted(set(patients))
    width = max(3, len(str(len(unique))))
    ids = {patient: f"sub-{number:0{width}d}" for number, patient in enumerate(unique, start=1)}
    subjects = tuple(ids[patient] for patient in patients)
    total, seen = Counter(subjects), Counter[str]()
    names = []
    for subject in subjects:
        seen[subject] += 1
        names.append(f"{subject}_img-{seen[subject]}" if total[subject] > 1 else subject)
    return subjects, tuple(names)


def check_n_subjects(n_subjects: int | None, least: int = 1) -> None:
    """Raise ParameterError unless it is None or a whole number of `least` or more."""
    if n_subjects is None:
        return
    check_counts(n_subjects=n_subjects)
    if n_subjects < least:
        raise ParameterError(f"n_subjects={n_subjects}; expected at least {least}, one of each class.")


def in_turn(subjects: Sequence[str], labels: Sequence[float], n_subjects: int | None) -> list[int]:
    """Positions of the samples of the first `n_subjects`, taken in turn from each class (that of their first sample).

    Parameters
    ----------
    subjects : sequence of str, n
    labels : sequence of numbers, n
        Classes; the same number for all where there are none.
    n_subjects : int, optional
        All by default.
    """
    first_label: dict[str, float] = {}
    for subject, label in zip(subjects, labels, strict=True):
        first_label.setdefault(subject, label)
    queues = [
        [subject for subject in sorted(first_label) if first_label[subject] == label]
        for label in sorted(set(first_label.values()))
    ]
    order = [subject for turn in zip_longest(*queues) for subject in turn if subject is not None]
    return _positions(subjects, order[:n_subjects])


def evenly_spaced(subjects: Sequence[str], n_subjects: int | None) -> list[int]:
    """Positions of the samples of at most `n_subjects`, evenly spaced in the order of their ids."""
    unique = sorted(set(subjects))
    n_taken = len(unique) if n_subjects is None else min(n_subjects, len(unique))
    return _positions(
        subjects, [unique[k] for k in np.linspace(0, len(unique) - 1, n_taken).round().astype(int)]
    )


def _positions(subjects: Sequence[str], chosen: Sequence[str]) -> list[int]:
    wanted = set(chosen)
    return [position for position, subject in enumerate(subjects) if subject in wanted]
