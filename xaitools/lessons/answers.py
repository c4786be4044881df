"""What checkers ask of answers: the usual ways in which a number or an array goes wrong, each with its hint."""

import math
import reprlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from xaitools.lessons.checking import Hint, OpenAnswer


def number_hint(
    answer: Any,
    expected: float,
    *,
    tolerance: float = 0.01,
    known: Sequence[tuple[float, str]] = (),
    far: str = "",
) -> Hint:
    """None if a number is `expected` to within `tolerance` (a share of it), else what is wrong with it.

    Parameters
    ----------
    known
        Foreseen wrong values, each with its hint.
    far
        Hint for any other value.
    """
    value = _as_array(answer)
    if isinstance(value, str):
        return value.format(what="a number")
    if value.size != 1:
        return f"Your answer has {value.size} values, of shape {value.shape}; expected one number."
    got = float(value.reshape(()))
    if not math.isfinite(got):
        return f"Your answer is {got}; expected a finite number. Was something divided by zero?"
    if _near(got, expected, tolerance):
        return None
    for wrong, hint in known:
        if _near(got, wrong, tolerance):
            return hint
    if _near(got, -expected, tolerance):
        return f"The size is right, the sign is not: you have {got:.4g}."
    if _near(got, 100 * expected, tolerance) or _near(100 * got, expected, tolerance):
        return f"You have {got:.4g}: a factor of 100 off. Is one of the two in percent?"
    return f"You have {got:.4g}, which is too {'large' if got > expected else 'small'}. {far}".strip()


def array_hint(
    answer: Any,
    expected: Any,
    *,
    tolerance: float = 0.01,
    known: Sequence[tuple[Any, str]] = (),
    far: str = "",
) -> Hint:
    """None if an array is `expected`, else what is wrong with it: type, shape, NaN, transposed, sign, size.

    Axes of length one may be missing or more.

    Parameters
    ----------
    tolerance
        Largest norm of the difference, as a share of the norm of `expected`.
    known
        Foreseen wrong arrays, each with its hint; looked for before the usual ones.
    far
        Hint for any other array of the right shape.
    """
    got, wanted = _as_array(answer), np.asarray(_as_array(expected), dtype=float)
    if isinstance(got, str):
        return got.format(what=f"an array or tensor of shape {wanted.shape}")
    if got.squeeze().shape != wanted.squeeze().shape:
        if sorted(got.squeeze().shape) == sorted(wanted.squeeze().shape):
            return f"Your axes are in another order: shape {got.shape}; expected {wanted.shape}."
        return f"Your answer has the shape {got.shape}; expected {wanted.shape}."
    got, wanted = got.squeeze().astype(float), wanted.squeeze()
    if not np.isfinite(got).all():
        return "Your answer holds NaN or infinity; expected finite numbers. Was something divided by zero?"
    if _close(got, wanted, tolerance):
        return None
    for wrong, hint in known:
        if np.size(_as_array(wrong)) == got.size and _close(
            got, np.reshape(_as_array(wrong), got.shape), tolerance
        ):
            return hint
    return _usual(got, wanted, tolerance) or f"The shape is right, the values are not. {far}".strip()


def _usual(got: np.ndarray, wanted: np.ndarray, tolerance: float) -> Hint:
    """The hint for a mistake that can be made with any array."""
    if not got.any():
        return "All values are zero. Was the backward pass made, and were gradients not reset after it?"
    if _close(-got, wanted, tolerance):
        return "Every value has the wrong sign."
    if _close(got, np.abs(wanted), tolerance):
        return "These are the absolute values: the sign got lost. The exercise asks for the signed map."
    if wanted.ndim == 2 and wanted.shape[0] == wanted.shape[1] and _close(got.T, wanted, tolerance):
        return "Rows and columns are exchanged: your answer is transposed."
    if wanted.ndim and _close(got[..., ::-1], wanted, tolerance):
        return "Left and right are exchanged: the last axis runs backwards."
    scale = float((got * wanted).sum() / (got * got).sum())
    if scale > 0 and _close(scale * got, wanted, tolerance):
        return f"The pattern is right, but every value is {1 / scale:.3g} times what it should be: check the scale."
    return None


def function_hint(answer: Any, takes: str, cases: Sequence[tuple[tuple, Callable[[Any], Hint]]]) -> Hint:
    """None if a function gives what is expected in every case, else the first hint.

    Parameters
    ----------
    answer
        What should be a function.
    takes
        Its arguments, as the hint names them: "model, image".
    cases
        Arguments, and what judges the value that the function returns for them.
    """
    if not callable(answer):
        return f"Your answer is {_kind(answer)}; expected a function of ({takes}): give its name, without brackets."
    for arguments, judged in cases:
        try:
            value = answer(*arguments)
        except Exception as error:
            return f"Your function stopped with {type(error).__name__}: {error}"
        if value is ...:
            raise OpenAnswer
        if value is None:
            return "Your function returns None: does it end with return?"
        if hint := judged(value):
            return hint
    return None


def choice_hint(answer: Any, expected: Any, hints: dict[Any, str]) -> Hint:
    """None if the answer is `expected`, a text or a whole number; else the hint of what was chosen."""
    chosen, choices = _plain(answer), _listed([expected, *hints])
    if not isinstance(chosen, (str, int, float)) or isinstance(chosen, bool) != isinstance(expected, bool):
        return f"Your answer is {_kind(answer)}; expected one of {choices}."
    if chosen == _plain(expected):
        return None
    known = {_plain(key): hint for key, hint in hints.items()}
    return known.get(chosen, f"Your answer is {reprlib.repr(answer)}; expected one of {choices}.")


def set_hint(answer: Any, expected: set[str], among: set[str]) -> Hint:
    """None if a set of names is `expected`, else what is too much, or how many are missing."""
    if isinstance(answer, str):
        answer = {answer}
    if not isinstance(answer, (set, frozenset, list, tuple)) or not all(
        isinstance(item, str) for item in answer
    ):
        return f"Your answer is {_kind(answer)}; expected a set of names, such as {{{sorted(among)[0]!r}}}."
    got = {item.strip() for item in answer}
    if unknown := sorted(got - among):
        return f"{unknown[0]!r} is none of the names; expected some of {_listed(sorted(among))}."
    if extra := sorted(got - expected):
        return f"{extra[0]!r} does not belong to them. Look again at what it shows."
    missing = len(expected - got)
    return (
        f"So far so good, but {missing} more {'belongs' if missing == 1 else 'belong'} to them."
        if missing
        else None
    )


def _plain(value: Any) -> Any:
    """A text without spaces at its ends and in small letters; another value as it is, out of its array."""
    if isinstance(value, str):
        return value.strip().lower()
    if hasattr(value, "item") and getattr(value, "size", None) == 1:
        return value.item()
    if hasattr(value, "numel") and value.numel() == 1:
        return value.item()
    return value


def _listed(items: Sequence[Any]) -> str:
    return ", ".join(map(repr, sorted(items, key=str)))


def _as_array(answer: Any) -> Any:
    """The answer as an array of numbers, or the hint that it is none, with a place for what was expected."""
    if isinstance(answer, (str, bytes, bool)) or answer is None:
        return f"Your answer is {_kind(answer)}; expected {{what}}."
    if callable(answer):
        return "Your answer is a function; expected {what}: call it."
    if hasattr(answer, "detach"):
        answer = answer.detach().cpu().numpy()
    elif isinstance(answer, int) and abs(answer) > sys.float_info.max:
        return "Your answer has hundreds of digits; expected {what}."
    try:
        array = np.asarray(answer)
    except (ValueError, TypeError, RuntimeError):
        return f"Your answer is {_kind(answer)}; expected {{what}}."
    if array.dtype == object and array.size and all(hasattr(item, "detach") for item in array.flat):
        return "Your answer is a list of tensors; expected {what}: join them with torch.stack."
    return array if array.dtype.kind in "fiub" else f"Your answer is {_kind(answer)}; expected {{what}}."


def _kind(answer: Any) -> str:
    """What an answer is, in words."""
    words = {
        str: "a text",
        bool: "True or False",
        type(None): "None",
        dict: "a dict",
        list: "a list",
        set: "a set",
    }
    return words.get(type(answer), f"of type {type(answer).__name__}")


def _near(got: float, expected: float, tolerance: float) -> bool:
    return abs(got - expected) <= tolerance * max(abs(expected), 1e-12)


def _close(got: np.ndarray, expected: np.ndarray, tolerance: float) -> bool:
    difference = np.linalg.norm(np.asarray(got, float) - np.asarray(expected, float))
    return bool(difference <= tolerance * max(float(np.linalg.norm(expected)), 1e-12))
