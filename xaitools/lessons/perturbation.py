"""Lesson 6: occlusion and meaningful perturbation."""

from typing import Any

import torch
from torch import Tensor, nn

from xaitools.data.samples import Samples
from xaitools.lessons.answers import function_hint, number_hint
from xaitools.lessons.checking import Hint, checker
from xaitools.lessons.questions import Option, ask
from xaitools.models import accuracy, predict


@checker(
    "6.1",
    right="That is occlusion: one such number a patch. The score of the check was no network, and yet it worked.",
)
def fall(answer: Any) -> Hint:
    """A function (score, image, rows, columns): how far the score falls when a patch is hidden with 0.

    It is tried with a score that is linear in the image, whose fall is the sum over the patch.
    """
    image = torch.linspace(0.2, 1, 8 * 12).reshape(1, 1, 8, 12)
    weights = torch.linspace(0.5, 1.5, 8 * 12).reshape(1, 1, 8, 12)
    weights[:, :, 4:] *= -1  # hiding a patch in the lower half makes the score rise
    passed = image.clone()

    def score(images: Tensor) -> Tensor:
        return (weights * images).sum()

    def in_patch(rows: slice, columns: slice) -> Any:
        def judged(value: Any) -> Hint:
            if not torch.equal(passed, image):
                return "Your function changes the image that it was given: hide the patch in image.clone()."
            whole, part = float(score(image)), float((weights * image)[..., rows, columns].sum())
            known = [
                (abs(part), "The absolute value hides whether the score fell or rose: leave it out."),
                (
                    -part,
                    "The sign is turned: a fall is score(image) - score(hidden), above 0 if hiding lowers it.",
                ),
                (
                    whole - part,
                    "This is the score of the hidden image: how far does it lie below score(image)?",
                ),
                (whole, "All of the image was hidden: hide image[..., rows, columns] alone."),
                (
                    0.0,
                    "Nothing was hidden. Was the patch of the copy set to 0, and the copy handed to score?",
                ),
            ]
            return number_hint(value, part, tolerance=1e-3, known=known, far="score(image) - score(hidden).")

        return judged

    places = [(slice(0, 4), slice(4, 8)), (slice(4, 8), slice(0, 4))]
    cases = [((score, passed, *place), in_patch(*place)) for place in places]
    return function_hint(answer, "score, image, rows, columns", cases)


@checker(
    "6.2",
    right="Without the letter network B is no better than a coin: that is what the perfect test result was made of.",
)
def share_without_marker(answer: Any, *, model: nn.Module, without: Samples, marked: Samples) -> Hint:
    """Accuracy on the slices without the marker, 0 to 1."""
    assert without.labels is not None
    assert marked.labels is not None
    expected = accuracy(predict(model, without.images), without.labels)
    known = [
        (
            accuracy(predict(model, marked.images), marked.labels),
            "That is the share with the letter: ask for without.images.",
        ),
        (expected * len(without), "That is how many are right: divide by the number of slices."),
    ]
    return number_hint(
        answer,
        expected,
        known=known,
        far="accuracy(predict(model, images), labels) of the slices in without.",
    )


@checker(
    "6.3",
    right="256 answers for one map; a gradient takes one pass forward and one back. In a volume it would be 4,096.",
)
def hidden_copies(answer: Any) -> Hint:
    """Windows on a grid of 4 pixels in an image of 64 x 64."""
    known = [
        (64, "That is for patches side by side: here a new one begins every 4 pixels."),
        (
            225,
            "Those are the patches that fit in whole: the last of each row and column stick out, and count too.",
        ),
        (4096, "That would be a patch for each pixel."),
        (16, "That is one row of patches: there are as many rows."),
        (32, "That is one row and one column: each row goes with each column."),
    ]
    return number_hint(
        answer, 256, tolerance=1e-6, known=known, far="Count the starts along a side: 0, 4, ..., 60."
    )


ask(
    "6.a",
    "A slice shows contrast agent in two vessels, and either alone is enough for the network to be sure. What does "
    "occlusion with a patch that covers one vessel show?",
    Option(
        "Both vessels, half as strong.",
        "With one vessel hidden, the other keeps the network sure: the output hardly falls.",
    ),
    Option(
        "Almost nothing in either vessel.",
        "Each is dispensable as long as the other is there. Only a patch, or a mask, that hides both shows them.",
        right=True,
    ),
    Option(
        "The larger vessel only.",
        "Hiding the larger one leaves the smaller, which is enough by itself.",
    ),
    Option(
        "That the network does not use vessels.",
        "That would be the wrong conclusion from an empty map: hide both, and the answer changes.",
    ),
)
