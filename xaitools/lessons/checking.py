"""Checks of exercises: right, or a hint that speaks to what was tried."""

import html
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from IPython.display import display

from xaitools.errors import ParameterError
from xaitools.lessons.contents import load_lesson

Hint = str | None
"""What a checker returns: None where the answer is right, else the hint."""

DOTS = "Replace the dots (...) by your answer, then run the cell again."

_STYLES = {
    "right": ("Right.", "#00794a", "#e8f6ef"),
    "wrong": ("Not yet.", "#b04a00", "#fdf1e7"),
    "open": ("Your turn.", "#0062a3", "#e8f2fa"),
}


@dataclass(frozen=True)
class Verdict:
    """What a check found; shown in a notebook as a box whose first words say the same as its colour.

    Attributes
    ----------
    kind : {"right", "wrong", "open"}
        "open" where the dots have not been replaced.
    text : str
        What the answer shows, or the hint.
    """

    kind: str
    text: str

    @property
    def is_right(self) -> bool:
        """Whether the answer is right."""
        return self.kind == "right"

    def __repr__(self) -> str:
        return f"{_STYLES[self.kind][0]} {self.text}"

    def _repr_html_(self) -> str:
        return box(self.kind, html.escape(self.text))


@dataclass(frozen=True)
class Exercise:
    """A checker with what is said when it is content."""

    checker: Callable[..., Hint]
    right: str


EXERCISES: dict[str, Exercise] = {}
"""By key, such as "2.1"; filled when the modules of the lessons are imported."""


def checker(key: str, *, right: str) -> Callable[[Callable[..., Hint]], Callable[..., Hint]]:
    """Register ``check(answer, **given)`` as the checker of an exercise: it returns None, or a hint.

    Parameters
    ----------
    key
        Lesson and exercise: "2.1".
    right
        What a right answer is told: what it shows, in one or two sentences.
    """

    def register(check: Callable[..., Hint]) -> Callable[..., Hint]:
        EXERCISES[key] = Exercise(check, right)
        return check

    return register


def check(key: str, answer: Any, **given: Any) -> None:
    """Show whether an answer is right, or a hint, in a box below the cell.

    Parameters
    ----------
    key
        Of the exercise: "2.1".
    answer
        Anything; ``...`` is told to replace the dots.
    **given
        What the exercise worked on, such as ``model=model, image=image``, as its cell hands it over.

    Raises
    ------
    ParameterError
        If there is no such exercise.
    """
    display(judge(key, answer, **given))


def judge(key: str, answer: Any, **given: Any) -> Verdict:
    """The verdict that :func:`check` shows; an answer of whatever type gets one.

    Raises
    ------
    ParameterError
        If there is no such exercise.
    """
    load_lesson(key)
    if key not in EXERCISES:
        raise ParameterError(f"there is no exercise {key!r}; expected one of {', '.join(sorted(EXERCISES))}.")
    if _is_open(answer):
        return Verdict("open", DOTS)
    exercise = EXERCISES[key]
    try:
        hint = exercise.checker(answer, **given)
    except OpenAnswer:
        return Verdict("open", DOTS)
    except Exception as error:  # whatever a student hands over gets a verdict
        hint = (
            f"The check could not read your answer ({type(error).__name__}: {error}). "
            "Compare its type and shape with what the exercise asks for."
        )
    return Verdict("right", exercise.right) if hint is None else Verdict("wrong", hint)


class OpenAnswer(Exception):
    """A checker met dots inside an answer: a function that returns them, say."""


def _is_open(answer: Any) -> bool:
    """Whether dots were left, alone or among the items of a list, a tuple or a dict."""
    items = (
        answer.values() if isinstance(answer, dict) else answer if isinstance(answer, (list, tuple)) else ()
    )
    return answer is ... or any(item is ... for item in items)


def box(kind: str, inner: str) -> str:
    """HTML of a box; `inner` is HTML too."""
    head, colour, background = _STYLES[kind]
    return (
        f'<div role="status" class="xai-lesson-{kind}" style="border-left:5px solid {colour};background:{background};'
        'color:#222;padding:.6em .9em;margin:.3em 0;max-width:46em;line-height:1.45">'
        f'<strong style="color:{colour}">{head}</strong> {inner}</div>'
    )
