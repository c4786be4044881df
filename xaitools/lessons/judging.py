"""Lesson 7: judging an explanation."""

from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from xaitools.evaluation import localization
from xaitools.lessons.answers import number_hint, set_hint
from xaitools.lessons.checking import Hint, checker
from xaitools.lessons.questions import Option, ask


@checker(
    "7.1",
    right="B is the slice itself, D its edges, F blurred noise. Who was wrong by eye is in good company.",
)
def never_saw_the_network(answer: Any) -> Hint:
    """The letters of the control maps."""
    return set_hint(answer, {"B", "D", "F"}, set("ABCDEF"))


@checker(
    "7.2",
    right="The same as localization(...)['auc'] computes, which sorts the values instead of comparing each with each.",
)
def auc(
    answer: Any, *, values: Float[np.ndarray, "row column"], mask: Bool[np.ndarray, "row column"]
) -> Hint:
    """The ROC AUC of one map against its mask."""
    expected = float(localization(values[None], mask[None])["auc"][0])
    inside, outside = values[mask], values[~mask]
    known = [
        (1 - expected, "Inside and outside are exchanged: the AUC counts where the one inside is larger."),
        (
            float((inside[:, None] > outside).sum()),
            "That is the number of pairs: take the mean, so that it becomes a probability.",
        ),
        (
            float((inside > outside.mean()).mean()),
            "You compared with the mean outside: compare each with each.",
        ),
        (
            float(np.mean(inside.mean() > outside.mean())),
            "Compare single pixels, each with each, not the means.",
        ),
        (float(inside.mean() - outside.mean()), "That is a difference of means, in the map's own unit."),
        (float(inside.mean() / outside.mean()), "That is a ratio of means: the AUC counts pairs."),
    ]
    return number_hint(
        answer, expected, tolerance=0.002, known=known, far="It is a share of all pairs, 0 to 1."
    )


@checker(
    "7.3",
    right="So far the probability lies below that of the untouched slice, on average. Compare random order.",
)
def aopc(answer: Any, *, curve: Float[np.ndarray, " step"]) -> Hint:
    """The mean of the falls, step 0 included."""
    falls = curve[0] - curve
    known = [
        (
            float(curve.mean()),
            "That is the mean probability, the area under the curve: AOPC is the area over it.",
        ),
        (
            float(falls[1:].mean()),
            "You left out k = 0. Its fall is 0, but the formula divides by L + 1, the number of all steps.",
        ),
        (float(falls.sum()), "That is the sum of the falls: divide by the number of steps."),
        (float(1 - curve.mean()), "You started at 1: the falls are counted from curve[0]."),
        (float(falls[-1]), "That is the fall of the last step alone: take the mean over all steps."),
    ]
    if getattr(answer, "shape", None) == curve.shape:
        return "That is a fall for each step: take their mean."
    return number_hint(
        answer, float(falls.mean()), tolerance=1e-3, known=known, far="curve[0] - curve, then the mean."
    )


ask(
    "7.a",
    "A Grad-CAM scores an AUC of 0.4 against the mask of the heart, worse than chance. The network is right on 99 % of "
    "the test slices. What follows?",
    Option(
        "Grad-CAM fails on this network: take another method.",
        "Perhaps. But the map may also be right, and the network uses something else than the heart, as network B of "
        "lesson 6 does.",
    ),
    Option(
        "The network is a Clever Hans.",
        "Perhaps. But the map may also be wrong: lesson 5 had AUCs of this size from cells that were too coarse.",
    ),
    Option(
        "Either the map is wrong, or the network uses something else: the mask alone cannot tell.",
        "Fidelity tells: hide what the map marks, then what the mask marks, and see which one the network misses.",
        right=True,
    ),
    Option(
        "With 99 % right the network must look at the heart, so the map is wrong.",
        "Network B of lesson 6 was right on all test slices, and looked at a letter in the corner.",
    ),
)
