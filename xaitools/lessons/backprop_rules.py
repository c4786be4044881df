"""Lesson 4: rules of back-propagation: deconvolution, guided back-propagation, LRP."""

from typing import Any

import torch
from torch import Tensor

from xaitools.lessons.answers import array_hint, function_hint, set_hint
from xaitools.lessons.checking import Hint, checker
from xaitools.lessons.questions import Option, ask


@checker(
    "4.1",
    right="Two gates: the ReLU was on, and the signal speaks for the answer. The rest is lost.",
)
def guided(answer: Any) -> Hint:
    """A function (signal, before): what guided back-propagation lets through a ReLU."""
    before = torch.tensor([[-2.0, -1.0, 1.0], [3.0, 0.5, -0.5], [2.0, 4.0, -3.0]])
    signal = torch.tensor([[1.0, -2.0, 3.0], [-4.0, 5.0, -6.0], [7.0, -8.0, 9.0]])
    on, positive = before > 0, signal > 0
    known = [
        (
            signal * on,
            "That is the gradient's rule: it passes what met a ReLU that was on, also with a minus sign.",
        ),
        (signal * positive, "That is deconvolution's rule: ask as well whether the ReLU was on, before > 0."),
        (
            signal,
            "Everything passes: close the gate where the ReLU was off, and where the signal is negative.",
        ),
        (signal.abs() * on, "The sign got lost: what is negative has to be stopped, not turned."),
        ((on & positive).float(), "These are the gates: multiply the signal by them."),
        (
            (signal * before).relu() * on,
            "The signal passes as it is: do not multiply it by what was before.",
        ),
        (signal * ~on * positive, "The gate is the wrong way round: the ReLU was on where before > 0."),
        (before * (on & positive), "What comes back is the signal, not the values before the ReLU."),
    ]

    def judged(value: Any) -> Hint:
        return array_hint(value, signal * on * positive, known=known, far="Both have to be positive.")

    return function_hint(answer, "signal, before", [((signal, before), judged)])


@checker(
    "4.2",
    right="Each output gives its relevance back in the shares in which its inputs made it.",
)
def epsilon_rule(answer: Any) -> Hint:
    """A function (weight, inputs, relevance): LRP's rule for a dense layer without bias, with a tiny epsilon."""
    weight = torch.tensor([[1.0, -0.5, 2.0], [0.5, 1.5, -1.0]])  # (outputs, inputs), as in nn.Linear
    inputs, relevance = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2.0, -1.0])
    parts = weight * inputs  # what each input gave to each output
    outputs = parts.sum(dim=1, keepdim=True)
    expected = (parts / outputs * relevance[:, None]).sum(dim=0)
    known = [
        (
            parts.T @ relevance,
            "Divide each part by its output, z = weight @ inputs: shares add up to one.",
        ),
        (
            weight.T @ relevance,
            "This is the gradient's rule: a part is weight times input, divided by the output.",
        ),
        (weight.T @ (relevance / outputs[:, 0]), "Multiply by the inputs: a part is weight times input."),
        ((parts / outputs).sum(dim=0), "The shares are right: multiply each by the relevance of its output."),
        (
            (parts.abs() / parts.abs().sum(dim=1, keepdim=True) * relevance[:, None]).sum(dim=0),
            "You took magnitudes: parts keep their signs in this rule.",
        ),
        (
            (parts.clamp(min=0) / parts.clamp(min=0).sum(dim=1, keepdim=True) * relevance[:, None]).sum(
                dim=0
            ),
            "You left out the negative parts: that is the alpha-1-beta-0 rule. The epsilon rule keeps them.",
        ),
    ]

    def judged(value: Any) -> Hint:
        if isinstance(value, Tensor) and value.squeeze().shape == relevance.shape:
            return "You returned one value an output; expected one an input: sum over the outputs."
        if isinstance(value, Tensor) and value.squeeze().shape == weight.shape:
            return "You returned a value for each pair of output and input: sum over the outputs, dim=0."
        return array_hint(
            value,
            expected,
            known=known,
            far="sum over outputs j: weight[j, i] inputs[i] / z[j] relevance[j].",
        )

    return function_hint(answer, "weight, inputs, relevance", [((weight, inputs, relevance), judged)])


METHODS = {"gradient", "deconvolution", "guided_backprop", "lrp[epsilon]"}


@checker(
    "4.3",
    right="They draw what is strong in the image, whichever class one asks about: no explanation of the decision.",
)
def blind_to_the_class(answer: Any) -> Hint:
    """Which methods give nearly the same map for both classes."""
    if isinstance(answer, str) and len(answer.split(",")) > 1:
        answer = {name.strip(" {}'\"") for name in answer.split(",")}
    names = {answer} if isinstance(answer, str) else answer
    if isinstance(names, (set, frozenset, list, tuple)):
        for name in ("gradient", "lrp[epsilon]"):
            if name in names:
                return f"{name} turns its sign with the class: its correlation is close to -1. Which are close to +1?"
    return set_hint(answer, {"deconvolution", "guided_backprop"}, METHODS)


ask(
    "4.a",
    "You explain a network of ReLUs, convolutions and dense layers without any biases by the LRP epsilon rule in every "
    "layer, with a tiny epsilon. Which simpler map do you get?",
    Option(
        "The gradient.",
        "Nearly: at each layer the rule multiplies by inputs and divides by outputs, which cancels between layers. "
        "What is left at the end?",
    ),
    Option(
        "The image times the gradient.",
        "Inputs and outputs cancel between layers; the image's own values are left (Ancona et al. 2018). Other rules "
        "(gamma, alpha-beta) do something new.",
        right=True,
    ),
    Option(
        "Guided back-propagation.",
        "That one stops what is negative; the epsilon rule keeps both signs.",
    ),
    Option(
        "Integrated gradients from white.",
        "A baseline plays no part in the rule: one backward pass at the image itself is all that it needs.",
    ),
)
