"""Tables of participants, and the classes or quantities that their columns give."""

import operator
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from xaitools.errors import DataError, DataFileError, ParameterError

ID_COLUMNS = ("participant_id", "subject_id", "subject", "participant", "mrid", "id", "ixi_id", "ptid")
SESSION_COLUMNS = ("session_id", "session", "visit")
MISSING = ("", "n/a", "na", "nan", "none", "null")
OPERATORS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "=": operator.eq}
CONDITION = re.compile(r"(<=|>=|==|<|>|=)\s*([+-]?\d+(?:\.\d*)?)")

# Usual names of groups, in lower case, "_" and "-" being blanks; numbers are ordered as such.
_CONTROLS = (
    "cn, con, cont, control, controls, control group, ctl, ctr, ctrl, cu, cognitively healthy, "
    "cognitively normal, cognitively unimpaired, unimpaired, hc, hcs, healthy, healthy control, healthy "
    "controls, healthy volunteer, healthy volunteers, nc, ncs, nl, normal, normal control, normal "
    "controls, non patient, nonpatient, no patient, non demented, nondemented, not demented, no dementia, "
    "0, 0.0, false, n, neg, negative, no, absent, unaffected"
)
MILD = frozenset(("mci", "emci", "lmci", "early mci", "late mci", "mild cognitive impairment"))
_PATIENTS = (
    "ad, alzheimer, alzheimers, alzheimer's, alzheimer's disease, alzheimer disease, dementia, demented, "
    "dem, dat, pmci, progressive mci, patient, patients, pat, pt, case, cases, disease, diseased, ill, "
    "affected, 1, 1.0, true, y, pos, positive, yes, present"
)
CONTROLS, PATIENTS = (frozenset(names.split(", ")) for names in (_CONTROLS, _PATIENTS))
Classes = Sequence[str] | Mapping[str, str | Sequence[str]]


@dataclass(frozen=True)
class Target:
    """What to predict of each row that has it.

    Parameters
    ----------
    rows : array of int, (k,)
        Rows of the table that have the target; the others are left out.
    labels : Tensor, (k,)
        int64 classes, or float32 quantities.
    class_names : tuple of str
        Empty for quantities.
    """

    rows: np.ndarray
    labels: Tensor
    class_names: tuple[str, ...]


def read_table(path: Path) -> pd.DataFrame:
    """Read a CSV or TSV file as text, blanks around the cells removed.

    Raises
    ------
    DataFileError
        Missing, or not text.
    DataError
        No rows.
    """
    try:
        with path.open(encoding="utf-8-sig") as file:
            header = file.readline()
        delimiter = max("\t,;", key=header.count)
        table = pd.read_csv(path, sep=delimiter, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError):
        raise DataFileError(f"{path}: no such table, or not a CSV or TSV file of text") from None
    if table.empty:
        raise DataError(f"{path}: no rows below the header; expected one a participant")
    table.columns = [str(column).strip() for column in table.columns]
    return table.apply(lambda column: column.str.strip())


def find_column(table: pd.DataFrame, wanted: str, usual: Sequence[str], where: str | Path) -> str | None:
    """The column named `wanted`, case aside, or without a wish the first of the `usual` ones, or None.

    Raises
    ------
    DataError
        `wanted` is not there; the message lists the columns.
    """
    lower = {column.lower(): column for column in reversed(list(table.columns))}
    if not wanted:
        return next((lower[name] for name in usual if name in lower), None)
    if wanted.lower() not in lower:
        raise DataError(
            f"{where}: no column {wanted!r}; its columns are {list(table.columns)}. Name one of these"
        )
    return wanted if wanted in table.columns else lower[wanted.lower()]


def ordered(values: Sequence[str]) -> list[str]:
    """The values of a column in the order of their classes: controls first, patients, the positive class, last.

    Numbers come in their own order. Of names, the usual ones of controls (:data:`CONTROLS`: CN, control, healthy, HC,
    normal, negative, no, false, 0, ...) come first, and those of patients (:data:`PATIENTS`: AD, dementia, patient,
    case, disease, positive, yes, true, 1, ...) last, case aside; of those in between, mild cognitive impairment
    (:data:`MILD`) comes after names that are none of these. All else is alphabetical.
    """
    if all(map(_is_number, values)):
        return sorted(values, key=float)
    return sorted(values, key=lambda value: (_stage(value), value))


def read_target(values: Sequence[str], classes: Classes | None, what: str) -> Target:
    """Turn the cells of a column into classes or quantities.

    Parameters
    ----------
    values : sequence of str
        The cells; one that is empty or ``n/a`` has no target.
    classes : mapping or sequence of str, optional
        ``{"control": "CN", "patient": ["AD", "MCI"]}`` gives a class its values, ``{"young": "< 40", "old":
        ">= 60"}`` its range (two conditions are joined by ``and``), ``["CN", "AD"]`` names both at once. Rows in no
        class are left out. The classes keep that order: the last is the positive one. By default two different
        values are two classes, as :func:`ordered` puts them, and more than two numbers a quantity.
    what : str
        Names the column in messages.

    Raises
    ------
    DataError
        One class only, a class without a row, more than two values that are not numbers, a row in two classes.
    ParameterError
        `classes` has fewer than two classes.
    """
    cells = ["" if value.strip().lower() in MISSING else value.strip() for value in values]
    found = sorted({cell for cell in cells if cell})
    if classes is None and len(found) > 2:
        return _quantities(cells, found, what)
    if classes is None:
        if len(found) < 2:
            raise DataError(f"{what}: the only value is {found}; expected two classes, or numbers")
        classes = ordered(found)
    if not isinstance(classes, Mapping):
        classes = {name: name for name in classes}
    if len(classes) < 2:
        raise ParameterError(f"classes {dict(classes)}: expected at least two")
    belongs = np.array([[_fits(cell, wanted) for wanted in classes.values()] for cell in cells])
    _check_classes(belongs, cells, classes, found, what)
    rows = np.flatnonzero(belongs.any(axis=1))
    return Target(rows, torch.from_numpy(belongs[rows].argmax(axis=1)), tuple(map(str, classes)))


def _quantities(cells: Sequence[str], found: Sequence[str], what: str) -> Target:
    if not all(map(_is_number, found)):
        shown = f"the values {found}" if len(found) <= 10 else f"{len(found)} different values"
        raise DataError(
            f"{what}: {shown}; expected two, or numbers. Name the classes to tell apart, the positive one last, as in "
            "classes={'control': 'CN', 'patient': ['AD', 'MCI']}"
        )
    rows = np.flatnonzero([bool(cell) for cell in cells])
    return Target(rows, torch.tensor([float(cells[row]) for row in rows.tolist()], dtype=torch.float32), ())


def _fits(cell: str, wanted: str | Sequence[str]) -> bool:
    """Whether a cell has one of the wanted values or lies in the wanted range."""
    if not cell:
        return False
    for value in [wanted] if isinstance(wanted, str) else wanted:
        conditions = [CONDITION.fullmatch(part.strip()) for part in str(value).split(" and ")]
        if all(conditions):
            if _is_number(cell) and all(
                OPERATORS[sign.replace("==", "=")](float(cell), float(limit))
                for sign, limit in (condition.groups() for condition in conditions if condition)
            ):
                return True
        elif cell.lower() == str(value).strip().lower() or _same_number(cell, str(value)):
            return True
    return False


def _check_classes(
    belongs: np.ndarray, cells: Sequence[str], classes: Mapping, found: Sequence[str], what: str
) -> None:
    twice = np.flatnonzero(belongs.sum(axis=1) > 1)
    if twice.size:
        raise DataError(
            f"{what}: the value {cells[twice[0]]!r} is in two of the classes {dict(classes)}; part them"
        )
    empty = [name for name, count in zip(classes, belongs.sum(axis=0), strict=True) if not count]
    if empty:
        shown = found if len(found) <= 10 else [*found[:3], "...", *found[-3:]]
        raise DataError(
            f"{what}: no row of the class {empty[0]!r} ({classes[empty[0]]!r}); the values are {shown}. Expected both "
            "classes; name other values, or a range such as '>= 60'"
        )


def _stage(value: str) -> int:
    """Place of a group's name between controls, 0, and patients, 3."""
    name = " ".join(re.split(r"[\s_-]+", value.strip().lower()))
    return 0 if name in CONTROLS else 3 if name in PATIENTS else 2 if name in MILD else 1


def _same_number(first: str, second: str) -> bool:
    return _is_number(first) and _is_number(second) and float(first) == float(second)


def _is_number(cell: str) -> bool:
    try:
        return bool(np.isfinite(float(cell)))
    except ValueError:
        return False
