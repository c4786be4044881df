"""Cells of a table that stand for a value that is missing: empty ones, words, and the codes of published tables."""

from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path

from xaitools.data.tables import is_number, number
from xaitools.errors import DataError

_WORDS = (
    ", ., ?, n/a, #n/a, na, <na>, nan, none, null, nil, missing, unknown, unk, not available, not applicable"
)
WORDS = frozenset(_WORDS.split(", "))
# ADNI: -1 (confirmed missing), -4 (passive missing); NACC: -4, 888, 8888; 9s, with and without a sign, everywhere.
CODES = frozenset((-1, -4, -9, -99, -999, -9999, -99999, 888, 8888, 999, 9999, 99999))
FAR = 5


def is_word(cell: str) -> bool:
    """Whether a cell is empty or has a word for "missing", case aside."""
    return cell.strip().lower() in WORDS


def is_missing_id(cell: str) -> bool:
    """Whether a cell names nobody: a word for "missing", or a code below 0."""
    return is_word(cell) or (number(cell) < 0 and number(cell) in CODES)


def without_missing(
    cells: Sequence[str],
    where: str | Path,
    *,
    wanted: Collection[str] = (),
    codes: Sequence[str | float] | None = None,
) -> tuple[list[str], dict[str, int]]:
    """A column whose cells are empty where a value is missing, and how often each code for that was met.

    Words, see :data:`WORDS`, are missing. A number of :data:`CODES` is, if it can be no value of the column: among
    names; below 0 where nothing else is; or more than :data:`FAR` times as large as all else. Within the range of the
    other numbers, or as -1 beside 1 alone, it is a value.

    Parameters
    ----------
    cells : sequence of str, n
    where : str or Path
        Names the column in messages.
    wanted : collection of str
        Values that are asked for by name, and so are none of these.
    codes : sequence of str or numbers, optional
        What stands for "missing" instead of :data:`CODES`, nothing if empty: no cell is judged by the others then.

    Returns
    -------
    cells : list of str, n
    counts : dict
        Cells by code, ``{"-4": 12}``; words are not counted.

    Raises
    ------
    DataError
        A number that may be a code or a value.
    """
    words, numbers = {value.strip().lower() for value in wanted}, set(map(number, wanted))
    cells = ["" if is_word(cell) and cell.strip().lower() not in words else cell.strip() for cell in cells]
    found = {cell for cell in cells if cell and cell.lower() not in words}
    if codes is None:
        known = {cell for cell in found if number(cell) in CODES and number(cell) not in numbers}
        others = set(filter(None, cells)) - known
        missing = {cell for cell in known if _is_missing(cell, others, where)}
    else:
        named = [str(code).strip().lower() for code in codes]
        values = set(map(number, filter(is_number, named)))
        missing = {
            cell for cell in found if cell.lower() in named or (is_number(cell) and number(cell) in values)
        }
    counts = Counter(cell for cell in cells if cell in missing)
    return ["" if cell in missing else cell for cell in cells], dict(sorted(counts.items()))


def _is_missing(code: str, others: Collection[str], where: str | Path) -> bool:
    if not all(map(is_number, others)):
        return True
    value, values = number(code), sorted(set(map(number, others)))
    if not values:
        return True
    low, high, of_two = values[0], values[-1], value == -1 and set(values) <= {0, 1}
    if low <= value <= high or (of_two and values == [1]):
        return False
    if not of_two and (value < 0 <= low or abs(value) > FAR * max(abs(low), abs(high))):
        return True
    raise DataError(
        f"{where}: {code!r} beside {low:g} to {high:g} may be a value or a code for a missing one; expected "
        f"one that is plain. Say missing=[{code!r}] if it is a code, or missing=[] if it is a value (where brains are "
        "loaded), or empty these cells"
    )
