"""Who leads a ranking, and whether that is worth a word."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from xaitools.evaluation import paired_difference, verdict
from xaitools.study.scores import Scores


@dataclass(frozen=True)
class Leader:
    """The method of the best mean score.

    Attributes
    ----------
    name, mean
        Its full name and its mean score.
    tied
        The methods that cannot be told apart from it on these images.
    beats_control
        Whether it is better than the control beyond doubt.
    control
        Mean score of the control.
    n_others
        How many other methods there are.
    """

    name: str
    mean: float
    tied: tuple[str, ...]
    beats_control: bool
    control: float
    n_others: int


def leader(
    scores: Scores,
    control: Float[np.ndarray, " n"] | float,
    *,
    larger_is_better: bool = True,
    seed: int = 0,
) -> Leader:
    """Who leads, whether beyond doubt, and whether that is worth a word.

    Parameters
    ----------
    scores
        ``(n,)`` by full name of the method.
    control
        What a method has to beat: scores of a control on the same images, or the value by chance.
    larger_is_better
        False where smaller scores are better.
    seed
        Of the bootstrap of the paired differences.
    """
    sign = 1 if larger_is_better else -1
    means = {name: float(np.mean(values)) for name, values in scores.items()}
    best = max(means, key=lambda name: sign * means[name])

    def ahead_of(other: np.ndarray) -> bool:
        return verdict(paired_difference(sign * scores[best], sign * other, seed=seed)) == "agrees"

    chance = np.broadcast_to(np.asarray(control, dtype=np.float64), scores[best].shape)
    tied = tuple(name for name in scores if name != best and not ahead_of(scores[name]))
    return Leader(best, means[best], tied, ahead_of(chance), float(chance.mean()), len(scores) - 1)
