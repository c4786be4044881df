"""Lesson 1: what interpretability is, and why it matters in medicine."""

from typing import Any

import torch
from torch import Tensor, nn

from xaitools.lessons.answers import number_hint, set_hint
from xaitools.lessons.checking import Hint, checker
from xaitools.lessons.questions import Option, ask


@checker(
    "1.1",
    right="Compare it with the share of the slice's pixels that are blood: the map gathers there.",
)
def share_in_mask(answer: Any, *, map_: Tensor, mask: Tensor) -> Hint:
    """The share of a map's magnitude that lies inside a mask."""
    magnitude, inside = map_.abs(), mask.bool()
    expected = float(magnitude[inside].sum() / magnitude.sum())
    known = [
        (1 - expected, "This is the share outside the mask."),
        (float(inside.float().mean()), "This is the mask's share of the pixels: the map is not in it yet."),
        (
            float(magnitude[inside].mean()),
            "This is the mean inside the mask; expected a share of the sum.",
        ),
        (
            float(magnitude[inside].mean() / magnitude.mean()),
            "This compares means: how dense the map is inside. A share is a sum divided by the whole sum.",
        ),
        (
            float(magnitude[inside].sum() / magnitude[~inside].sum()),
            "You divided inside by outside; divide by the sum over the whole slice.",
        ),
        (
            float(map_[inside].sum() / map_.sum()),
            "Signed values cancel: take magnitudes, map_.abs(), first.",
        ),
        (
            float(magnitude[inside].sum()),
            "This is the sum inside the mask: divide it by the sum over the whole slice.",
        ),
    ]
    return number_hint(
        answer, expected, known=known, far="Sum of the magnitudes inside, divided by their whole sum."
    )


@checker(
    "1.2",
    right="A coin does as well. Yet it is right about all slices that it was trained with: by heart.",
)
def accuracy_on_new_slices(answer: Any, *, model: nn.Module, images: Tensor, labels: Tensor) -> Hint:
    """The share of images that a model puts into their class."""
    with torch.no_grad():
        output = model(images)
    expected = float((output.argmax(dim=1) == labels).float().mean())
    known = [
        (
            expected * len(labels),
            "This is the number of slices that are right; divide it by how many there are.",
        ),
        (
            float(labels.float().mean()),
            "This is the share with contrast agent: compare prediction and label.",
        ),
        (float(output.argmax(dim=1).float().mean()), "This is the share that the network calls contrast."),
        (1 - expected, "This is the share of errors."),
    ]
    if abs(expected - 0.5) < 0.01:  # then these are right too
        known = known[:1]
    hint = "Is it the network of the random labels, and are they the slices of the test set?"
    return number_hint(answer, expected, known=known, far=hint)


CLAIMS = {
    "A": False,  # the network is right
    "B": True,  # changing red pixels a little changes the output
    "C": False,  # the network knows what a vessel is
    "D": False,  # what is grey does not matter
    "E": True,  # a starting point
}


@checker(
    "1.3",
    right="A map describes what moves the output of this network for this slice. All else needs other evidence.",
)
def claims(answer: Any) -> Hint:
    """Which of the five claims a map supports."""
    told = {
        "A": "A says more than a map can: a network that guesses has maps as well, as you have just seen.",
        "C": "C gives the network a notion that no map shows: it shows places only.",
        "D": "D is not what the map says: together with others, or changed a lot, such a pixel may matter (lesson 2).",
    }
    chosen = {answer} if isinstance(answer, str) and len(answer) == 1 else answer
    if isinstance(chosen, str):
        chosen = set(chosen) - set(", ")
    if isinstance(chosen, (set, frozenset, list, tuple)):
        for letter, hint in told.items():
            if letter in chosen:
                return hint
    return set_hint(chosen, {letter for letter, holds in CLAIMS.items() if holds}, set(CLAIMS))


ask(
    "1.a",
    "A network finds pneumonia in chest X-rays of its own hospital, and does much worse in another one. "
    "Maps show that it looks at a corner of the picture. What is the likeliest reason?",
    Option(
        "Pneumonia can be seen in the corners of X-rays.",
        "No radiologist finds it there. What does stand in the corners are markers and signs of the device.",
    ),
    Option(
        "Something there tells the hospitals or devices apart, and how ill their patients are.",
        "A shortcut: true in the training data, worthless elsewhere. Zech et al. (2018) and DeGrave et al. (2021) "
        "found such networks by looking where they look.",
        right=True,
    ),
    Option(
        "The network is too small.",
        "A larger one would learn the same shortcut: in the training data, it works.",
    ),
    Option(
        "The map is wrong, since it does not show the lung.",
        "That a map surprises us does not make it wrong: here it agrees with the poor result elsewhere. "
        "Lessons 7 and 8 test maps.",
    ),
)
