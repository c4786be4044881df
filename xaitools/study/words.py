"""Every sentence that code writes into a report.

Names are escaped here, once, so that Markdown shows them as they are.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import SupportsFloat

import pandas as pd
from jaxtyping import Int
from torch import Tensor

from xaitools.attribution.names import parse
from xaitools.data import Samples
from xaitools.evaluation import VERDICTS
from xaitools.study.leaders import Leader
from xaitools.study.published import published_text

SAME = 0.99  # correlation from which two methods are called the same
COMPLETE = 0.05  # share of the output's change up to which a map is said to add up to it


def escape(text: str) -> str:
    r"""The text with all that Markdown takes for markup escaped.

    Examples
    --------
    >>> print(escape("I*G"))
    I\*G
    """
    return re.sub(r"([\\`*_\[\]<>|#~])", r"\\\1", text)


def bold(text: str) -> str:
    """The text, escaped and bold."""
    return f"**{escape(text)}**"


def count(n: int, one: str, many: str = "") -> str:
    """A number with its noun: "1 map", "2 maps"."""
    return f"{n} {one if n == 1 else many or one + 's'}"


def listing(items: Iterable[str], most: int = 4) -> str:
    """The items, escaped, "a, b and c"; where there are more than `most`, the first ones and the number of the rest."""
    items = [escape(item) for item in items]
    if len(items) > most:
        items = [*items[: most - 1], f"{len(items) - most + 1} others"]
    return " and ".join(filter(None, [", ".join(items[:-1]), *items[-1:]]))


def interval(
    mean: SupportsFloat, low: SupportsFloat, high: SupportsFloat, digits: str = ".3f", unit: str = ""
) -> str:
    """A mean with the bounds of its interval: "+0.12 (+0.03 to +0.20) px"."""
    numbers = f"{float(mean):{digits}} ({float(low):{digits}} to {float(high):{digits}})"
    return f"{numbers} {unit}".strip()


def p_value(p: float) -> str:
    """A p value (0 to 1) as it is printed: never as 0, since no test says so; a dash where there is none (NaN).

    Examples
    --------
    >>> p_value(0.00003), p_value(0.0449), p_value(0.31), p_value(0.999), p_value(float("nan"))
    ('< 0.001', '0.045', '0.31', '> 0.99', '–')
    """
    if math.isnan(p):
        return "–"
    if p < 0.001:
        return "< 0.001"
    if p > 0.99:
        return "> 0.99"
    return f"{p:.3f}" if p < 0.0995 else f"{p:.2f}"


def accuracy(network: str, value: float, larger_class: float, n: int, data: str) -> str:
    """How often a classifier is right, beside always naming the larger class."""
    return (
        f"{bold(network)} is right in **{value:.1%}** of {count(n, 'test image')} ({escape(data)}); always naming the "
        f"larger class would be right in {larger_class:.1%}."
    )


def origin(network: str, start: str, loss: str = "loss") -> str:
    """Where a network comes from, `start` as :class:`~xaitools.study.Trained` has it, and when a training stops."""
    if start == "the file":
        return f"{bold(network)} is the network that you gave, taken as it is: nothing is trained here."
    return (
        f"{bold(network)} starts from {escape(start)}. Training stops when the {loss} on the validation set no longer "
        "falls, and the best weights are kept."
    )


def incomplete(shares: Mapping[str, float], steps: int, network: str = "") -> str:
    """Which maps do not add up to the change of the output, and what helps; nothing if all do, but for `COMPLETE`.

    Parameters
    ----------
    shares
        Gap as a share of the change, by label of the method.
    steps
        Points on the paths.
    network
        Name of the network, where there are several.
    """
    far = {label: share for label, share in shares.items() if not share <= COMPLETE}
    if not far:
        return ""
    largest = max(far.values())
    missed = f"up to {largest:.0%} of it" if math.isfinite(largest) else "all of it"
    of = f" of {bold(network)}" if network else ""
    do = "does" if len(far) == 1 else "do"
    return (
        f"**With {count(steps, 'point')} on a path, {listing(far, len(far))} {do} not add up to the change of the "
        f"output**{of}: {missed} is missing or too much. These maps, and the numbers made of them, are rough. Run it "
        f"with more points (`steps`, for instance {max(4 * steps, 50)})."
    )


def published(table: pd.DataFrame, **of: str) -> str:
    """Published numbers with their place in the paper; nothing if there are none."""
    found = published_text(table, **of)
    return f"Published: {escape(found)}." if found else ""


def explained(n: int, what: str, n_maps: int, steps: int, draws: int, networks: Sequence[str] = ()) -> str:
    """What was explained, and how finely."""
    of = f", for each of {len(networks)} networks" if len(networks) > 1 else ""
    return (
        f"Explained: {count(n, what)}, {count(n_maps, 'map')} of each{of}; {count(steps, 'point')} on a path, "
        f"{count(draws, 'noisy copy', 'noisy copies')}."
    )


def failed(errors: Mapping[str, Exception]) -> str:
    """Which methods gave no maps, and why; nothing if all did."""
    if not errors:
        return ""
    reasons = "; ".join(f"{escape(name)}: {escape(str(error))}" for name, error in errors.items())
    return f"Without maps: {reasons}"


def signs(methods: Iterable[str]) -> str:
    """Of which maps the absolute value is taken."""
    methods = list(methods)
    absolute = [name for name in methods if parse(name).absolute]
    if len(absolute) == len(methods):
        return (
            "From all maps the absolute value is taken, since the sign means something else in each method."
        )
    signed = (
        "maps with a sign are ranked by it: what speaks for the answer comes before what speaks against it."
    )
    if not absolute:
        return f"No absolute values are taken; {signed}"
    return f"The absolute value is taken from {len(absolute)} of {count(len(methods), 'map')}; {signed}"


def not_measured(what: str, reason: str) -> str:
    """What this run does not measure, and why."""
    return f"{what} is not measured: {escape(reason)}."


def best(
    measure: str, leader: Leader, labels: Mapping[str, str], control: str = "chance", digits: int = 3
) -> str:
    """Who is best by a measure, and who cannot be told apart from it; no praise for one that beats no control."""
    mean, chance = f"{leader.mean:.{digits}f}", f"{leader.control:.{digits}f}"
    if not leader.beats_control:
        return (
            f"By {measure}, no map is better than {control} beyond doubt ({control}: {chance}; best of the maps, "
            f"{escape(labels[leader.name])}: {mean})."
        )
    if not leader.n_others:
        return f"By {measure}, {bold(labels[leader.name])} is better than {control} ({mean}; {control}: {chance})."
    return f"Best by {measure}: {bold(labels[leader.name])} ({mean}; {control}: {chance}){_tied(leader, labels)}."


def accuracies(network: str, table: pd.DataFrame, n: int, data: str, diverged: Iterable[str] = ()) -> str:
    """How often repeated trainings are right, beside always naming one class; which of them diverged."""
    shares, left_out = table["balanced accuracy"], list(diverged)
    found = (
        f"{count(len(table), 'training')} of {bold(network)} ({escape(data)}): balanced accuracy on "
        f"{count(n, 'test image')} **{shares.mean():.1%}** on average, {shares.min():.1%} to {shares.max():.1%}; "
        "always naming one class: 50.0%."
    )
    return (
        f"{found} Left out, since training diverged: {listing(left_out, len(left_out))}."
        if left_out
        else found
    )


def published_runs(table: pd.DataFrame, metric: str) -> str:
    """Published mean and range of repeated trainings, with their place; nothing if there are none."""
    rows = {
        name: table[table["metric"] == name]
        for name in (metric, f"{metric}, lowest run", f"{metric}, highest run")
    }
    if any(own.empty for own in rows.values()):
        return ""
    mean, low, high = (f"{own['value'].item():g}" for own in rows.values())
    unit, where = (escape(rows[metric][column].item()) for column in ("unit", "where"))
    return f"Published: {mean} {unit} on average, {low} to {high} {unit} ({where})."


def explained_by_runs(
    samples: Samples, found: Mapping[str, Int[Tensor, " n"]], one_sided: Sequence[str] = ()
) -> str:
    """What repeated trainings explained, of how many images their mean maps are, and which runs have none."""
    negative, positive = map(escape, samples.class_names)
    right = [int(((classes == samples.labels) & (classes == 1)).sum()) for classes in found.values()]
    numbers = f"{min(right)}" if min(right) == max(right) else f"{min(right)} to {max(right)}"
    said = (
        f"Explained: {count(len(samples), 'image')} by each of {count(len(found), 'network')}: what speaks for "
        f"*{positive}* rather than *{negative}*. Mean maps of the true positives are over {numbers} of them."
    )
    missing = listing(one_sided, len(one_sided))
    return f"{said} Left out, since they recognised none of a class: {missing}." if one_sided else said


def best_in_runs(measure: str, leader: Leader, labels: Mapping[str, str], *, n_runs: int) -> str:
    """Who is best by a measure over a few runs; no praise for one that is not better than chance in every run."""
    name, mean, chance = labels[leader.name], f"{leader.mean:.2f}", f"{leader.control:.2f}"
    if not leader.beats_control:
        return (
            f"By {measure}, no method is better than chance in all {n_runs} runs (highest mean: {escape(name)}, "
            f"{mean}; chance: {chance})."
        )
    found = f"By {measure}, {bold(name)} is better than chance in all {n_runs} runs (mean {mean}; chance: {chance})"
    if leader.tied:
        return f"{found}, but not in all of them ahead of {listing(labels[other] for other in leader.tied)}."
    return f"{found} and in each of them ahead of all others." if leader.n_others else f"{found}."


def regions_compared(k: int, n_regions: int, source: str) -> str:
    """Which regions the runs are compared by."""
    return (
        f"Top {k} of {n_regions} regions that two different runs have in common. Regions: {escape(source)}."
    )


def measured(network: str, error: float, unit: str) -> str:
    """How far a regression network is off."""
    return f"{bold(network)} measures with an error of {error:.1f} {escape(unit)}."


def error_growth(leader: Leader, labels: Mapping[str, str], unit: str) -> str:
    """In whose order disturbed windows make the error grow most; no praise where a random order does the same."""
    name, mean, chance = labels[leader.name], f"{leader.mean:.1f} {unit}", f"{leader.control:.1f} {unit}"
    if leader.mean >= 0:
        return (
            f"Its error does not grow when windows are disturbed, in whatever order (lowest AOPC: {escape(name)}, "
            f"{mean}; random order {chance})."
        )
    if not leader.beats_control:
        return (
            "In no method's order does its error grow more than in a random one, beyond doubt (lowest AOPC: "
            f"{escape(name)}, {mean}; random order {chance})."
        )
    if not leader.n_others:
        return f"Its error grows more in the order of {bold(name)} than in a random one (AOPC {mean}, random {chance})."
    return (
        f"Its error grows most when windows are disturbed in the order of {bold(name)} (AOPC {mean}, random order "
        f"{chance}){_tied(leader, labels)}."
    )


def same_method(one: str, other: str, correlations: Mapping[str, float]) -> str:
    """Whether two methods that ought to be one are one here; nothing if they were not compared."""
    if not correlations:
        return ""
    values = ", ".join(f"{value:.4f} for {escape(network)}" for network, value in correlations.items())
    found = f"The correlation of {escape(one)} and {escape(other)}, mean over the images: **{values}**."
    if min(correlations.values()) >= SAME:
        return f"{found} They are one method here, not two independent votes."
    return f"{found} That is not the same map, so here something else than the small epsilon tells the two apart."


def not_tested(field: str, measured: bool) -> str:
    """Verdict on a claim that this run cannot test."""
    if not measured:
        return "not tested: not measured in this run"
    return f"not tested: the maps it takes, alike in all but {field}, are not among those of this run"


def verdicts(claims: Iterable[Mapping[str, str]]) -> str:
    """How many published comparisons this run bears out: all four verdicts are counted."""
    found = Counter(row["verdict"].split(":")[0] for row in claims)
    if unknown := set(found) - set(VERDICTS):
        raise ValueError(f"verdict {unknown.pop()!r}; expected one of {', '.join(VERDICTS)}")
    if not found:
        return ""
    return (
        f"Of {count(found.total(), 'published comparison')} this run agrees with {found['agrees']} and differs from "
        f"{found['differs']}; {found['undecided']} undecided, {found['not tested']} not tested."
    )


def _tied(leader: Leader, labels: Mapping[str, str]) -> str:
    if leader.tied:
        return f", which cannot be told apart from {listing(labels[name] for name in leader.tied)}"
    return ", ahead of all others"
