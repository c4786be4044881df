"""Multiple-choice questions: radio buttons, and what each choice is told."""

import html
import random
from dataclasses import dataclass
from typing import Any

from xaitools.errors import ParameterError
from xaitools.lessons.checking import box
from xaitools.lessons.contents import load_lesson

_STYLE = (
    "<style>.xai-question label{height:auto!important;line-height:1.45!important;padding-left:26px;white-space:normal;"
    "position:relative}.xai-question label input{position:absolute!important;left:2px;top:0;margin:0!important}"
    "</style>"
)
"""Long answers go on in a second line, which ipywidgets has no room for."""


@dataclass(frozen=True)
class Option:
    """One of the answers, and what whoever chooses it is told."""

    text: str
    feedback: str
    right: bool = False


@dataclass(frozen=True)
class Question:
    """A question with one right answer."""

    text: str
    options: tuple[Option, ...]

    def feedback(self, index: int) -> str:
        """The box for a choice, as HTML."""
        option = self.options[index]
        return box("right" if option.right else "wrong", html.escape(option.feedback))


QUESTIONS: dict[str, Question] = {}
"""By key, such as "2.a"; filled when the modules of the lessons are imported."""


def ask(key: str, text: str, *options: Option) -> None:
    """Register a question: a module of a lesson does so when it is imported.

    The options are shown in an order drawn by the key, as whoever writes them puts the right one in a usual place.
    """
    QUESTIONS[key] = Question(text, tuple(random.Random(key).sample(options, len(options))))


def find_question(key: str) -> Question:
    """The question of a key.

    Raises
    ------
    ParameterError
        If there is none.
    """
    load_lesson(key)
    if key not in QUESTIONS:
        raise ParameterError(f"there is no question {key!r}; expected one of {', '.join(sorted(QUESTIONS))}.")
    return QUESTIONS[key]


def question(key: str) -> Any:
    """A multiple-choice question with radio buttons; a choice is answered at once, and can be changed.

    Parameters
    ----------
    key
        Of the question: "2.a".

    Returns
    -------
    ipywidgets.VBox
        Displays itself as the last line of a cell.

    Raises
    ------
    ParameterError
        If there is no such question.
    """
    import ipywidgets

    asked = find_question(key)
    choices = ipywidgets.RadioButtons(
        options=[(option.text, number) for number, option in enumerate(asked.options)],
        value=None,
        layout={"width": "auto", "max_width": "48em"},
    )
    choices.add_class("xai-question")
    told = ipywidgets.HTML()

    def tell(change: dict[str, Any]) -> None:
        told.value = "" if change["new"] is None else asked.feedback(change["new"])

    choices.observe(tell, "value")
    return ipywidgets.VBox(
        [ipywidgets.HTML(f"{_STYLE}<strong>{html.escape(asked.text)}</strong>"), choices, told]
    )
