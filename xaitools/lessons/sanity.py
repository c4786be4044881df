"""Lesson 8: sanity checks, and training again."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.stats import kendalltau, pearsonr, spearmanr
from torch import Tensor

from xaitools.evaluation import Randomization
from xaitools.evaluation.randomization import CONTROL, FAILS, UNDECIDED
from xaitools.lessons.answers import choice_hint, number_hint, set_hint
from xaitools.lessons.checking import Hint, checker
from xaitools.lessons.questions import Option, ask


@checker(
    "8.1",
    right="Nearly the same order of pixels, from a network that knows contrast agent and from one that knows nothing.",
)
def similarity(answer: Any, *, first: Tensor, second: Tensor) -> Hint:
    """Spearman's correlation of two maps."""
    one, other = first.flatten().numpy().astype(float), second.flatten().numpy().astype(float)
    expected = float(spearmanr(one, other).statistic)
    if hasattr(answer, "statistic") and hasattr(answer, "pvalue"):
        return "That is the whole result: take its .statistic."
    known = [
        (
            float(pearsonr(one, other).statistic),
            "That is Pearson's correlation of the values: correlate the ranks.",
        ),
        (float(kendalltau(one, other).statistic), "That is Kendall's tau: take Spearman's correlation."),
        (float(spearmanr(one, other).pvalue), "That is the p-value: take .statistic."),
        (
            float(np.abs(one - other).mean()),
            "That is the mean difference: take the correlation of the ranks.",
        ),
    ]
    return number_hint(
        answer, expected, tolerance=2e-3, known=known, far="spearmanr(a, b).statistic, of flat maps."
    )


@checker(
    "8.2",
    right="Their maps hardly notice that the network no longer knows its classes: they cannot explain a class.",
)
def unaware(answer: Any, *, result: Randomization) -> Hint:
    """The methods whose maps stay alike beyond doubt when the output layer is redrawn."""
    verdicts = result.verdicts(last=1).set_index("method").drop(CONTROL)
    fails = set(verdicts.index[verdicts["verdict"] == FAILS])
    unclear = set(verdicts.index[verdicts["verdict"] == UNDECIDED])
    if isinstance(answer, set | frozenset | list | tuple) and (named := sorted(unclear.intersection(answer))):
        return f"{named[0]!r} is not clear: its interval reaches from one side of 0.71 to the other."
    return set_hint(answer, fails, set(verdicts.index))


@checker(
    "8.3",
    right="Its maps agree between trainings that learned the same, and differ from those of a network that learned "
    "nothing. Agreement alone would have chosen another method.",
)
def most_telling(answer: Any, *, agreement: Mapping[str, Mapping[str, float]]) -> Hint:
    """The method with the largest difference between the agreements."""
    again, nothing = (
        {method: float(value) for method, value in values.items()} for values in agreement.values()
    )
    gaps = {method: again[method] - nothing[method] for method in again}
    best = max(gaps, key=gaps.__getitem__)
    hints = {
        method: f"Its bars are {again[method]:.2f} and {nothing[method]:.2f}: the difference is {gap:.2f}. "
        "Another method has a larger one."
        for method, gap in gaps.items()
        if method != best
    }
    deaf = max(again, key=again.__getitem__)
    if deaf in hints:
        hints[deaf] = (
            f"It agrees most with itself ({again[deaf]:.2f}), and about as well with a network that learned nothing "
            f"({nothing[deaf]:.2f}): such a map is deaf, not robust."
        )
    return choice_hint(answer, best, hints)


ask(
    "8.a",
    "A new method passes model randomisation: its maps of the redrawn network have nothing in common with the original "
    "ones. What do you know?",
    Option(
        "Its maps are faithful to the network.",
        "Maps of noise, drawn anew each time, pass as well. To change is necessary, and far from sufficient.",
    ),
    Option(
        "Its maps depend on the weights, or on chance. Nothing more.",
        "Compute a map twice on the same network to rule out chance; then measure fidelity, as in lesson 7.",
        right=True,
    ),
    Option(
        "It is better than a method whose maps stayed somewhat alike.",
        "Noise in a map lowers every similarity, and activations below the redrawn layers keep honest maps alike: do "
        "not rank methods by what is left.",
    ),
    Option(
        "Its maps show the right place.",
        "The check compares maps with maps, and knows no place. Against a mask, lesson 7.",
    ),
)
