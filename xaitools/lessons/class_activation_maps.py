"""Lesson 5: class activation maps."""

from typing import Any

from jaxtyping import Float
from torch import Tensor

from xaitools.lessons.answers import array_hint, number_hint
from xaitools.lessons.checking import Hint, checker
from xaitools.lessons.questions import Option, ask

TARGET = 1


@checker(
    "5.1",
    right="One number a cell: how much it speaks for contrast. Their mean and the bias are the network's output.",
)
def cam(
    answer: Any, *, features: Float[Tensor, "channel row column"], weights: Float[Tensor, "classes channel"]
) -> Hint:
    """Features weighed by those of a class in the last layer, (row, column)."""
    expected = _weighed(weights[TARGET], features)
    known = [
        (
            _weighed(weights[1 - TARGET], features),
            "These are the weights of the other class: take weights[1].",
        ),
        (features.mean(dim=0), "This is the mean of the features: each channel has a weight of its own."),
        (features.sum(dim=0), "This is the sum of the features: each channel has a weight of its own."),
        (
            expected.clamp(min=0),
            "Cells that speak against the class belong to a CAM too: leave the ReLU out.",
        ),
        (
            expected / len(features),
            "This is the mean over the channels: add them up, as the last layer does.",
        ),
        (_weighed(weights.sum(dim=0), features), "You added up both classes: take weights[1] alone."),
    ]
    if getattr(answer, "shape", None) == (len(weights), *features.shape[1:]):
        return "This is a map for each class: take the one of class 1."
    if getattr(answer, "shape", None) == features.shape:
        return "Every channel is still there: add them up over the first axis."
    return array_hint(
        answer, expected, known=known, far="Multiply each channel by weights[1] and add them up."
    )


@checker(
    "5.2",
    right="The same as attribute(..., 'grad_cam[features.11]') computes, before it is enlarged to the image's size.",
)
def grad_cam(
    answer: Any,
    *,
    activations: Float[Tensor, "channel row column"],
    gradients: Float[Tensor, "channel row column"],
) -> Hint:
    """Activations weighed by the mean gradient of their channel, and what is positive of the sum, (row, column)."""
    weights = gradients.mean(dim=(1, 2))
    signed = _weighed(weights, activations)
    products = (gradients * activations).sum(dim=0)
    by_cell = "You weighed each cell by its own gradient: Grad-CAM takes the mean of each channel's gradient first. "
    known = [
        (
            signed,
            "Nearly: what speaks against the class is still there. Keep the positive part: .clamp(min=0).",
        ),
        (
            signed.abs(),
            "The absolute value turns what speaks against the class into support: use .clamp(min=0).",
        ),
        (_weighed(weights, activations.clamp(min=0)).abs(), "The ReLU belongs after the sum, not before it."),
        (products, f"{by_cell}(That is HiResCAM.)"),
        (products.clamp(min=0), f"{by_cell}(That is HiResCAM.)"),
        ((gradients.clamp(min=0) * activations).sum(dim=0), f"{by_cell}(That is LayerCAM.)"),
        (
            _weighed(weights.clamp(min=0), activations),
            "The ReLU belongs after the sum over channels: negative weights count too.",
        ),
        (
            signed.clamp(min=0) * gradients[0].numel(),
            "You added the gradients of a channel up: take their mean over its cells.",
        ),
        (activations.mean(dim=0), "This is the mean of the activations, without the gradients."),
    ]
    if getattr(answer, "shape", None) == activations.shape:
        return "Every channel is still there: add them up over the first axis."
    if getattr(answer, "shape", None) == weights.shape:
        return "These are the weights of the channels. Now weigh the activations by them, and add up."
    return array_hint(answer, signed.clamp(min=0), known=known, far="First gradients.mean(dim=(1, 2)).")


def _weighed(
    weights: Float[Tensor, " channel"], maps: Float[Tensor, "channel row column"]
) -> Float[Tensor, "row column"]:
    return (weights[:, None, None] * maps).sum(dim=0)


@checker(
    "5.3",
    right="16 pixels, a quarter of the image: of a heart 20 pixels wide, such a map says where it lies, and no more.",
)
def cell_side(answer: Any) -> Hint:
    """Pixels along the side of one of 4 x 4 cells in an image of 64 x 64."""
    known = [
        (4, "That is the number of cells along a side. How many pixels does each of them cover?"),
        (256, "That is the area of a cell in pixels: the exercise asks for its side."),
        (8, "That is a cell of the layer with 8 x 8 cells."),
        (64, "That is the whole image."),
    ]
    return number_hint(answer, 16, known=known, far="Four cells share 64 pixels.")


ask(
    "5.a",
    "The Grad-CAM for 'contrast' of a slice without contrast agent glows over the heart. What do you conclude?",
    Option(
        "The network believes that there is contrast agent in the heart.",
        "Look at its output: it says no. The ReLU has taken away what speaks against the class, and the viewer has "
        "stretched what is left to full colour.",
    ),
    Option(
        "Nothing about the answer: what speaks against the class was cut off, and the map was scaled by its largest "
        "value.",
        "Look at the output first. A map says where, not whether.",
        right=True,
    ),
    Option(
        "The map was computed for the wrong class.",
        "It was not: a map can be made for any class, also for one that the network does not predict.",
    ),
    Option(
        "The network is wrong about this slice.",
        "A map explains one output. Whether the network is right stands in the outputs of all classes.",
    ),
)
