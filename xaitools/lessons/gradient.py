"""Lesson 2: the gradient and its noise."""

from typing import Any

import torch
from torch import Tensor, nn

from xaitools.lessons.answers import array_hint, function_hint, number_hint
from xaitools.lessons.checking import Hint, checker
from xaitools.lessons.questions import Option, ask


@checker(
    "2.1",
    right="One number a pixel: by how much the output for contrast would grow if this pixel became a little brighter.",
)
def saliency(answer: Any, *, model: nn.Module, image: Tensor, target: int = 1) -> Hint:
    """The gradient of a class's output for an image, (1, channel, row, column)."""
    if answer is None:
        return (
            "Your answer is None: the gradient stands in image.grad only after backward(), and only if the image was "
            "told to keep it: image.requires_grad_()."
        )
    expected = _gradient(image, lambda x: model(x)[:, target])
    known = [
        (
            image * expected,
            "This is image times gradient, a method of its own: the exercise asks for the gradient.",
        ),
        (_gradient(image, lambda x: model(x).sum(dim=1)), "This explains the sum of both outputs: pick one."),
        (_gradient(image, lambda x: model(x)[:, 1 - target]), "This explains the other class's output."),
        (
            _gradient(image, lambda x: model(x).softmax(dim=1)[:, target]),
            "This explains the probability after the softmax. It is nearly flat where the network is sure: take the "
            "output before it.",
        ),
    ]
    for times in (2, 3, 4):
        again = "The pattern is right, but {} times too large: backward() adds to image.grad. Begin with a fresh copy."
        known.append((times * expected, again.format(times)))
    return array_hint(
        answer, expected, known=known, far="Explain model(image)[0, target], the output for contrast."
    )


def _gradient(image: Tensor, output: Any) -> Tensor:
    free = image.detach().clone().requires_grad_()
    return torch.autograd.grad(output(free).sum(), free)[0].detach()


COPIES, SIGMA = 4000, 0.5


@checker(
    "2.2",
    right="That is SmoothGrad: new noise for each copy, and the mean of the gradients, not of the images.",
)
def smoothgrad(answer: Any) -> Hint:
    """A function (gradient, image, sigma, copies): the mean gradient of noisy copies.

    It is tried with gradients whose mean is known: that of x is x, that of x squared is x squared plus sigma squared.
    """
    image = torch.linspace(0.5, 2, 12).reshape(1, 1, 3, 4)
    passes: list[Tensor] = []

    def squared(x: Tensor) -> Tensor:
        passes.append(x.detach().clone())
        return x**2

    def of_square(value: Any) -> Hint:
        if not passes:
            return "Your function never called gradient: call it on each noisy copy."
        seen = torch.cat(passes)
        passes.clear()
        if len(seen) < COPIES:
            return f"Your function took {len(seen)} copies; expected as many as copies says, {COPIES}."
        noise = seen - image
        if float(noise.abs().max()) == 0:
            return "All copies are the same: add noise, sigma * torch.randn_like(image), to each of them."
        if float(noise.std(dim=0).max()) < 0.1 * SIGMA:
            return "Every copy has the same noise: draw it anew for each one, inside the loop."
        if float(noise.mean()) > 0.3 * SIGMA:
            return "The noise makes the image brighter: torch.rand is never negative. Take torch.randn_like."
        if abs(float(noise.std()) / SIGMA - 1) > 0.1:
            return f"The noise has a standard deviation of {float(noise.std()):.2g}; expected sigma, {SIGMA}."
        known = [
            (
                COPIES * (image**2 + SIGMA**2),
                "This is the sum of all gradients: divide it by the number of copies.",
            ),
            (image**2, "This is the gradient of the mean image: average the gradients instead."),
        ]
        return array_hint(value, image**2 + SIGMA**2, tolerance=0.05, known=known)

    def of_negative(value: Any) -> Hint:
        hint = "You averaged absolute values: SmoothGrad averages the signed gradients."
        return array_hint(
            value, -torch.ones_like(image), tolerance=0.05, known=[(torch.ones_like(image), hint)]
        )

    cases = [
        ((squared, image, SIGMA, COPIES), of_square),
        ((lambda x: -torch.ones_like(x), image, SIGMA, 8), of_negative),
    ]
    return function_hint(answer, "gradient, image, sigma, copies", cases)


@checker(
    "2.3",
    right="Noise falls with the square root of the number of copies: a quarter of it costs sixteen times.",
)
def copies_needed(answer: Any) -> Hint:
    """From 10 copies to a quarter of the noise."""
    known = [
        (40, "Four times the copies halve the noise only: it falls with their square root."),
        (16, "That is how many times more; the exercise asks for the number of copies."),
        (20, "Twice the copies make the noise 1.4 times smaller: it falls with their square root."),
    ]
    return number_hint(answer, 160, known=known, far="Noise falls as 1 / sqrt(copies).")


ask(
    "2.a",
    "A vessel is bright in the image and decides the answer. Its gradient is close to zero. What can you say?",
    Option(
        "The network does not use the vessel.",
        "A small gradient says that a little more or less brightness changes little now. Made dark altogether, the "
        "vessel may change everything: the output is saturated.",
    ),
    Option(
        "A small change of it changes little; how much it matters is left open.",
        "A gradient speaks of small changes about this one image. Lesson 3 follows a whole path of changes.",
        right=True,
    ),
    Option(
        "The network speaks for the other class there.",
        "That would be a negative gradient, not one close to zero.",
    ),
    Option(
        "The gradient is noisy, so the value means nothing.",
        "Noise is a reason to average over copies, not to throw the value away. Even without noise, it would speak of "
        "small changes only.",
    ),
)
