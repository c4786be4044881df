"""The order of methods by numbers over a few runs, which have no interval."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float

from xaitools.study import words
from xaitools.study.claims import FIELDS, margin_verdict
from xaitools.study.leaders import Leader


def judge_lead(
    claim: str,
    values: Mapping[str, float] | pd.Series,
    leaders: Sequence[str],
    *,
    among: Sequence[str],
    stands_for: Mapping[str, str],
    named: pd.DataFrame,
    larger: bool = True,
    tolerance: float,
    relative: bool = False,
    noise: float | None = None,
    form: str = "{:.1f}",
) -> dict[str, str]:
    """Does the last of some methods still lead all others? For numbers that have no interval.

    Parameters
    ----------
    claim
        What was published.
    values
        The number of each map of the run.
    leaders, among
        Published names of the methods that are claimed to lead, and of all methods of the paper. Of all methods
        that they lead it is claimed that their numbers are above 0.
    stands_for, named, form
        As for :func:`~xaitools.study.beside_published`.
    larger
        Whether to lead is to have the larger number.
    tolerance
        A smaller margin is too close to call.
    relative
        Whether the tolerance is a share of the smaller number.

    noise
        The number of maps of noise, where to lead is to have the larger number: nobody leads with less than that.

    Returns
    -------
    dict
        A row of the table of claims, as of :func:`~xaitools.study.judge`; "not tested" if a method is missing.
    """
    others = [name for name in among if name not in leaders]
    if not {*leaders, *others} <= stands_for.keys():
        return {"published": claim, "this run": "", "verdict": words.not_tested(FIELDS["source"], True)}
    sign = 1 if larger else -1
    first, second = (
        {stands_for[own]: float(values[stands_for[own]]) for own in part} for part in (leaders, others)
    )
    last = min(first.values(), key=lambda value: sign * value)
    nearest = max(second, key=lambda name: sign * second[name], default="")
    best = second.get(nearest, 0.0)
    margin = sign * (last - best) / (min(last, best) if relative else 1)
    found = ", ".join(f"{named.at[name, 'label']} {form.format(value)}" for name, value in first.items())
    if nearest:
        found += f"; nearest of the others: {named.at[nearest, 'label']} {form.format(best)}"
    verdict = margin_verdict(margin, tolerance)
    if noise is not None and last <= noise:
        verdict = f"undecided: not more than noise, {form.format(noise)}"
    return {"published": claim, "this run": found, "verdict": verdict}


def ahead_in_every_run(scores: Mapping[str, Float[np.ndarray, " runs"]], control: float) -> Leader:
    """The method of the best mean over a few runs: too few for an interval, so that every single one has to agree.

    Parameters
    ----------
    scores
        By full name of the method, larger where it is better.
    control
        What has to be beaten in every run, such as the value by chance.

    Returns
    -------
    Leader
        Tied are the methods that are not behind in every run.
    """
    means = {name: float(np.mean(values)) for name, values in scores.items()}
    best = max(means, key=lambda name: means[name])
    tied = tuple(name for name in scores if name != best and not (scores[best] > scores[name]).all())
    return Leader(best, means[best], tied, bool((scores[best] > control).all()), control, len(scores) - 1)
