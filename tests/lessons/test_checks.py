"""The machinery of checks and questions; each lesson's own checks are tested beside it."""

import numpy as np
import pytest
import torch

from xaitools import lessons
from xaitools.errors import ParameterError
from xaitools.lessons.answers import array_hint, choice_hint, number_hint, set_hint
from xaitools.lessons.checking import EXERCISES, Verdict, checker, judge
from xaitools.lessons.contents import LESSONS
from xaitools.lessons.questions import find_question


@pytest.fixture
def exercise(monkeypatch):
    """An exercise of lesson 2 that only these tests have: its answer is 3."""
    judge("2.1", ...)
    monkeypatch.setattr("xaitools.lessons.checking.EXERCISES", dict(EXERCISES))

    @checker("2.99", right="Three.")
    def three(answer):
        return None if answer == 3 else f"{answer} < 3 & not right"

    return "2.99"


def test_right_wrong_and_open_differ_in_words_and_colour(exercise):
    verdicts = [judge(exercise, answer) for answer in (3, 2, ...)]
    assert [repr(verdict)[:8] for verdict in verdicts] == ["Right. T", "Not yet.", "Your tur"]
    pages = [verdict._repr_html_() for verdict in verdicts]
    assert len({page.split("border-left:5px solid ")[1][:7] for page in pages}) == 3
    assert "2 &lt; 3 &amp; not right" in pages[1]


def test_dots_are_seen_alone_and_among_others(exercise):
    for answer in (..., [1, ...], (...,), {"a": ...}):
        assert judge(exercise, answer).kind == "open"
    assert judge(exercise, np.zeros((2, 2))).kind == "wrong"


def test_a_checker_that_fails_gives_a_verdict(exercise):
    class Awkward:
        def __eq__(self, other):
            raise RuntimeError("no")

    assert "could not read your answer (RuntimeError: no)" in judge(exercise, Awkward()).text


def test_check_shows_the_verdict(exercise, monkeypatch):
    shown = []
    monkeypatch.setattr("xaitools.lessons.checking.display", shown.append)
    assert lessons.check(exercise, 3) is None
    assert shown == [Verdict("right", "Three.")]


@pytest.mark.parametrize("key", ["2.17", "9.1", "0.1", "x", ""])
def test_unknown_keys_are_errors_of_the_lesson(key):
    with pytest.raises(ParameterError, match="expected"):
        judge(key, 1)
    with pytest.raises(ParameterError, match="expected"):
        find_question(key)


def test_numbers():
    known = [(5, "five")]
    assert number_hint(torch.tensor([10.05]), 10) is None
    for answer, says in [
        (5, "five"),
        (-10, "sign"),
        (1000, "factor of 100"),
        (0.1, "factor of 100"),
        (11, "too large. far"),
        (9, "too small. far"),
        (float("inf"), "finite"),
        ([1, 2], "2 values"),
        (False, "True or False"),
    ]:
        assert says in number_hint(answer, 10, known=known, far="far")


def test_arrays():
    wanted = np.arange(6.0).reshape(2, 3) - 2
    assert array_hint(wanted[None], wanted) is None
    assert "another order: shape (3, 2)" in array_hint(wanted.T, wanted)
    assert "shape (6,)" in array_hint(wanted.ravel(), wanted)
    assert "0.5 times" in array_hint(wanted / 2, wanted)
    ragged = [torch.ones(2), torch.ones(3)]
    assert "expected an array" in array_hint(ragged, np.ones((2, 3)))
    assert array_hint(wanted + 1, wanted, known=[(wanted + 1, "one more")]) == "one more"


def test_choices_and_sets():
    assert choice_hint(" A", "a", {"b": "no"}) is None
    assert choice_hint("B", "a", {"b": "no"}) == "no"
    assert "expected one of 'a', 'b'" in choice_hint("c", "a", {"b": "no"})
    assert choice_hint(torch.tensor(2), 2, {}) is None
    assert set_hint(["a", "b"], {"a", "b"}, {"a", "b", "c"}) is None
    assert "1 more" in set_hint("a", {"a", "b"}, {"a", "b", "c"})
    assert "'c' does not" in set_hint({"c"}, {"a", "b"}, {"a", "b", "c"})
    assert "none of the names" in set_hint({"d"}, {"a"}, {"a", "b"})


def test_a_choice_is_answered_at_once_and_can_be_changed():
    asked = find_question("2.a")
    _, choices, told = lessons.question("2.a").children
    assert choices.value is None
    assert told.value == ""
    for number, option in enumerate(asked.options):
        choices.value = number
        assert ("Right." if option.right else "Not yet.") in told.value
    assert len({option.feedback for option in asked.options}) == len(asked.options)


def test_every_question_has_one_right_answer():
    places = []
    for asked in [find_question(f"{number}.a") for number in range(1, len(LESSONS) + 1)]:
        assert sum(option.right for option in asked.options) == 1
        assert len(asked.options) >= 3
        places.append([option.right for option in asked.options].index(True))
    assert max(places.count(place) for place in places) <= len(places) / 2, "no place is a good guess"
