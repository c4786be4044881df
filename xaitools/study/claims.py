"""What a paper claims, tested on the maps of a run."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from xaitools.attribution.names import MethodName, parse
from xaitools.evaluation import paired_difference, verdict
from xaitools.study import words
from xaitools.study.run import Run
from xaitools.study.scores import Scores

FIELDS = {
    "source": "the method",
    "smoothing": "the smoothing",
    "absolute": "the absolute value",
    "regions": "pixels or regions",
}
"""What maps can differ in, and how that is called."""


def matched(names: Sequence[str], field: str, values: Sequence[Any], **only: Any) -> list[list[str]]:
    """Maps that differ in nothing but `field`: one list for each of `values`, the counterparts in the same place.

    Parameters
    ----------
    names
        Full names of the maps of a run.
    field
        A key of :data:`FIELDS`; "source" is the method with its option, before smoothing.
    values
        What the field has in each list. A map counts only if its counterpart under every other value is there.
    **only
        What the other fields have to be.

    Examples
    --------
    >>> matched(["gradient", "gradient+smoothgrad", "deconvolution+smoothgrad"], "smoothing", ["smoothgrad", ""])
    [['gradient+smoothgrad'], ['gradient']]
    """
    by_fields: dict[tuple, dict[str | bool, str]] = {}
    for name in names:
        own = _fields(parse(name))
        if all(own[other] == wanted for other, wanted in only.items()):
            value = own.pop(field)
            by_fields.setdefault(tuple(own.items()), {})[value] = name
    complete = [found for found in by_fields.values() if all(value in found for value in values)]
    return [[found[value] for found in complete] for value in values]


def judge(
    run: Run,
    scores: Scores,
    claim: str,
    field: str,
    values: Sequence[Any],
    difference: str,
    *,
    metric: str = "difference: {}",
    network: str = "",
    unit: str = "",
    digits: int = 3,
    seed: int = 0,
    **only: Any,
) -> dict[str, str]:
    """Does this run bear a claim out? Tested only between maps that differ in nothing but what it is about.

    Parameters
    ----------
    run
        Where the difference and its bounds are recorded.
    scores
        ``(n,)`` by full name of the map, larger where the map is better.
    claim
        What was published.
    field, values, **only
        As for :func:`matched`. The claim is that maps with the first value (or with all but the last, each of
        the same weight) have larger scores than their counterparts with the last value.
    difference
        What is subtracted from what, in words.
    metric
        Name of the difference in ``metrics.csv``, with "{}" for `difference`.
    network
        The network that the maps explain.
    unit, digits
        Unit of the scores, and decimal places to print.
    seed
        Of the bootstrap.

    Returns
    -------
    dict
        A row of the table of claims: ``published``, ``network``, ``this run`` and ``verdict``: "agrees", "differs",
        "undecided" or "not tested", and where it helps the reason after a colon.
    """
    row = {"published": claim, "network": network}
    groups = matched(list(scores), field, values, **only)
    if not groups[0]:
        return {**row, "this run": "", "verdict": words.not_tested(FIELDS[field], bool(scores))}
    *better, worse = ([scores[name] for name in names] for names in groups)
    lead = np.mean([np.mean(group, axis=0) for group in better], axis=0)
    found = paired_difference(lead, np.mean(worse, axis=0), seed=seed)
    run.record_interval(found, metric=metric.format(difference), model=network, n=len(lead))
    size = words.interval(found.mean, found.low, found.high, f"+.{digits}f", unit)
    pairs = f", mean of {len(worse)} pairs" if len(worse) > 1 else ""
    return {**row, "this run": f"{difference}: {size}{pairs}", "verdict": verdict(found)}


def margin_verdict(margin: float, tolerance: float) -> str:
    """Verdict on a claim that holds by `margin` where there is no interval: undecided within the tolerance."""
    if abs(margin) <= tolerance:
        return "undecided: too close to call"
    return "agrees" if margin > 0 else "differs"


def _fields(name: MethodName) -> dict[str, str | bool]:
    """What a map is made of, by the keys of :data:`FIELDS`."""
    return {
        "source": name.source,
        "smoothing": name.smoothing,
        "absolute": name.absolute,
        "regions": name.regions,
    }
