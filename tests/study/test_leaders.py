import numpy as np
import pytest

from xaitools.study import leader

SPREAD = np.linspace(-1, 1, 20)


def test_the_best_mean_leads_and_who_is_told_apart_is_not_tied():
    found = leader({"a": 1 + SPREAD, "b": 5 + SPREAD, "c": 5 + SPREAD[::-1] - 0.01}, control=0.0)
    assert found.name == "b"
    assert found.mean == pytest.approx(5)
    assert found.tied == ("c",)
    assert found.beats_control
    assert found.control == 0
    assert found.n_others == 2


def test_smaller_can_be_better():
    random = -2 + SPREAD
    found = leader({"a": -1 + SPREAD, "b": -5 + SPREAD}, random, larger_is_better=False)
    assert (found.name, found.beats_control, found.tied) == ("b", True, ())
    assert found.control == pytest.approx(-2)


def test_the_best_may_not_beat_the_control():
    """AOPC -10.2 and a random order of -16.5: the most negative of the methods deserves no praise."""
    found = leader({"a": -10.2 + SPREAD, "b": -9 + SPREAD}, -16.5 + SPREAD, larger_is_better=False)
    assert found.name == "a"
    assert not found.beats_control


def test_a_mean_above_the_control_by_chance_does_not_beat_it():
    assert not leader({"a": 0.05 + SPREAD}, control=0.0).beats_control


def test_the_control_is_compared_image_by_image():
    """A small lead that every image shows is a lead, however much the images differ."""
    assert leader({"a": SPREAD + 0.1}, control=SPREAD).beats_control
