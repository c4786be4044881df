"""Lesson 3: integrated and expected gradients, and their baselines."""

from typing import Any

import torch
from torch import Tensor, nn

from xaitools.lessons.answers import array_hint, choice_hint, function_hint, number_hint
from xaitools.lessons.checking import Hint, checker
from xaitools.lessons.questions import Option, ask


@checker("3.1", right="That is what the map has to share out among the pixels: no more and no less.")
def total(answer: Any, *, model: nn.Module, image: Tensor, baseline: Tensor, target: int = 1) -> Hint:
    """By how much a class's output differs between an image and a baseline."""
    with torch.no_grad():
        here, there = model(image)[0], model(baseline)[0]
    expected = float(here[target] - there[target])
    known = [
        (
            float(here[target]),
            "This is the output for the slice: take off what the network says to the baseline.",
        ),
        (float(there[target]), "This is the output for the baseline alone."),
        (float(here[target] + there[target]), "You added the two outputs: subtract the baseline's."),
        (float(here[1 - target] - there[1 - target]), "This is the change of the other class's output."),
        (
            float(here.softmax(0)[target] - there.softmax(0)[target]),
            "This is the change of the probability; the map explains the output before the softmax.",
        ),
        (float((here - there).sum()), "This is the change of both outputs together: pick one, [0, 1]."),
    ]
    return number_hint(answer, expected, known=known, far="model(image)[0, 1] is the output for contrast.")


STEPS = 200


@checker(
    "3.2",
    right="Mean gradient on the path, times the way that each pixel went: integrated gradients, in five lines.",
)
def integrated_gradients(answer: Any) -> Hint:
    """A function (gradient, image, baseline, steps), tried on the gradient of the sum of x cubed.

    Its integral is known: the image cubed minus the baseline cubed.
    """
    image = torch.linspace(0.4, 1.2, 12).reshape(1, 1, 3, 4)
    baseline = torch.linspace(0.9, -0.1, 12).reshape(1, 1, 3, 4)
    points: list[Tensor] = []

    def gradient(x: Tensor) -> Tensor:
        points.append(x.detach().clone())
        return 3 * x**2

    def judged(value: Any) -> Hint:
        seen = torch.cat(points) if points else torch.zeros(0)
        points.clear()
        if not len(seen):
            return "Your function never called gradient: call it at each point of the path."
        if len(seen) < STEPS / 2:
            return f"Your function looked at {len(seen)} points; expected as many as steps says, {STEPS}."
        mean = (image**3 - baseline**3) / (image - baseline)
        known = [
            (
                mean,
                "This is the mean gradient: multiply it by the way that each pixel goes, image - baseline.",
            ),
            (
                mean * image,
                "You multiplied by the image; expected the way that each pixel goes, image - baseline.",
            ),
            (
                STEPS * (image**3 - baseline**3),
                "This is the sum over the points: divide it by their number.",
            ),
            (STEPS * mean, "This is the sum of the gradients: take their mean, times image - baseline."),
            (baseline**3 - image**3, "The sign is wrong: the way leads from the baseline to the image."),
            (
                (image - baseline) * image**2,
                "Your path starts from black, not from the baseline: baseline + a * (image - baseline).",
            ),
            (
                (image - baseline) * 3 * image**2,
                "All your points are the image itself: let a run from 0 to 1.",
            ),
        ]
        return array_hint(value, image**3 - baseline**3, tolerance=0.015, known=known)

    return function_hint(
        answer, "gradient, image, baseline, steps", [((gradient, image, baseline, STEPS), judged)]
    )


@checker(
    "3.3",
    right="From white, a white pixel has no way to go: image - baseline is zero, whatever the network does.",
)
def blind_baseline(answer: Any) -> Hint:
    """Which baseline hides what is white."""
    hints = {
        "black": "From black, a white pixel has the longest way of all. Where does a white pixel have none?",
        "other slices": "Few of the slices are white at the same place: on average there is some way to go.",
    }
    return choice_hint(answer, "white", hints)


ask(
    "3.a",
    "A network tells brains with a bleeding (bright) from others. Which baseline of integrated gradients leads astray?",
    Option(
        "Brains without a bleeding, from the training set.",
        "These answer a sensible question: what makes this brain differ from those without a bleeding?",
    ),
    Option(
        "A black image.",
        "It has its faults (dark things never get relevance), but a bleeding is bright, and has a long way from black.",
    ),
    Option(
        "An image as bright as a bleeding everywhere.",
        "Where the bleeding is, image and baseline are the same: it gets no relevance, though it decides.",
        right=True,
    ),
    Option(
        "The same brain, blurred.",
        "Blurring takes sharp edges and small things away. A large bleeding partly survives, but it is not hidden.",
    ),
)
