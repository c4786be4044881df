"""The classes or quantities that a column of a table gives."""

import operator
import re
from collections.abc import Mapping, Sequence

import numpy as np

from xaitools.data.missing import without_missing
from xaitools.data.tables import is_number, number, shown_values
from xaitools.errors import DataError, ParameterError

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


def ordered(values: Sequence[str]) -> list[str]:
    """The values of a column in the order of their classes: controls first, patients, the positive class, last.

    Numbers come in their own order. Of names, the usual ones of controls (:data:`CONTROLS`: CN, control, healthy, HC,
    normal, negative, no, false, 0, ...) come first, and those of patients (:data:`PATIENTS`: AD, dementia, patient,
    case, disease, positive, yes, true, 1, ...) last, case aside; of those in between, mild cognitive impairment
    (:data:`MILD`) comes after names that are none of these. All else is alphabetical.
    """
    if all(map(is_number, values)):
        return sorted(values, key=float)
    return sorted(values, key=lambda value: (_stage(value), value))


def column_labels(
    values: Sequence[str], classes: Classes | None, what: str, missing: Sequence[str | float] | None = None
) -> tuple[np.ndarray, tuple[str, ...], dict[str, int]]:
    """Turn the cells of a column into classes or quantities.

    Parameters
    ----------
    values : sequence of str, n
        The cells; a missing one, see :func:`xaitools.data.missing.without_missing`, has no label.
    classes : mapping or sequence of str, optional
        ``{"control": "CN", "patient": ["AD", "MCI"]}`` gives a class its values, ``{"young": "< 40", "old":
        ">= 60"}`` its range (two conditions are joined by ``and``), ``["CN", "AD"]`` names both at once. Rows in no
        class are left out. The classes keep that order: the last is the positive one. By default two different
        values are two classes, as :func:`ordered` puts them, and more than two numbers a quantity.
    what : str
        Names the column in messages.
    missing : sequence of str or numbers, optional
        Codes for missing values instead of the usual ones.

    Returns
    -------
    labels : array of float64, (n,)
        Numbers of classes, or quantities; NaN where a row has no label or is in no class.
    class_names : tuple of str
        Empty for quantities.
    codes : dict
        How many cells had each code for a missing value.

    Raises
    ------
    DataError
        One class only, a class without a row, more than two values that are not numbers, a row in two classes, among
        ranges a cell that is no number, or a number that may be a code for a missing value.
    ParameterError
        `classes` has fewer than two classes.
    """
    wanted = [] if classes is None else _values(classes)
    cells, codes = without_missing(values, what, wanted=wanted, codes=missing)
    found = sorted({cell for cell in cells if cell})
    if classes is None and len(found) > 2:
        return _quantities(cells, found, what), (), codes
    if classes is None:
        if len(found) < 2:
            raise DataError(f"{what}: the only value is {found}; expected two classes, or numbers")
        classes = ordered(found)
    if not isinstance(classes, Mapping):
        classes = {name: name for name in classes}
    if len(classes) < 2:
        raise ParameterError(f"classes={dict(classes)}; expected at least two.")
    _check_numbers(found, wanted, what)
    belongs = np.array([[_fits(cell, wanted) for wanted in classes.values()] for cell in cells])
    _check_classes(belongs, cells, classes, found, what)
    return np.where(belongs.any(axis=1), belongs.argmax(axis=1), np.nan), tuple(map(str, classes)), codes


def _values(classes: Classes) -> list[str]:
    """The values and ranges that are asked for."""
    wanted = classes.values() if isinstance(classes, Mapping) else classes
    return [str(value) for values in wanted for value in ([values] if isinstance(values, str) else values)]


def _is_range(wanted: str) -> bool:
    return all(CONDITION.fullmatch(part.strip()) for part in wanted.split(" and "))


def _check_numbers(found: Sequence[str], wanted: Sequence[str], what: str) -> None:
    """Raise for a cell such as ``90+`` that would be in no class where all of them are ranges."""
    words = [cell for cell in found if not is_number(cell)]
    if wanted and words and all(map(_is_range, wanted)):
        raise DataError(
            f"{what}: {shown_values(words)} among ranges of numbers; expected numbers with a point, or empty cells. "
            "Correct them"
        )


def _quantities(cells: Sequence[str], found: Sequence[str], what: str) -> np.ndarray:
    if not all(map(is_number, found)):
        raise DataError(
            f"{what}: {shown_values(found)}; expected two, or numbers. Name the classes to tell apart, the positive "
            "one last, as in classes={'control': 'CN', 'patient': ['AD', 'MCI']}"
        )
    return np.array([number(cell) for cell in cells])


def _fits(cell: str, wanted: str | Sequence[str]) -> bool:
    """Whether a cell has one of the wanted values or lies in the wanted range."""
    if not cell:
        return False
    for value in [wanted] if isinstance(wanted, str) else wanted:
        conditions = [CONDITION.fullmatch(part.strip()) for part in str(value).split(" and ")]
        if all(conditions):
            if is_number(cell) and all(
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
    return number(first) == number(second)
