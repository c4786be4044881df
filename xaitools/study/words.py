"""Every sentence that code writes into a report.

Names are escaped here, once, so that Markdown shows them as they are.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, SupportsFloat

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int
from torch import Tensor

from xaitools.attribution.names import parse
from xaitools.data import Samples
from xaitools.evaluation import VERDICTS, paired_difference, verdict
from xaitools.evaluation.randomization import WARNING
from xaitools.study.leaders import Leader
from xaitools.study.published import published_text

if TYPE_CHECKING:
    from xaitools.interpretation import Surrogate
    from xaitools.study.inside import InfluenceCheck

STILL_MOVED = "the mask still moved: raise steps"  # a remark on a mask, which has a sentence of its own
SAME = 0.99  # correlation from which two methods are called the same
SIMILARITIES = {"spearman": "rank correlation", "ssim": "SSIM", "hog": "HOG"}
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


def network_uses(controls: pd.DataFrame, shares: pd.DataFrame) -> str:
    """What a network seems to use after one preprocessing, as far as the numbers allow it to be said.

    Parameters
    ----------
    controls
        As `xaitools.study.volume_controls` returns them, of one preprocessing.
    shares
        As `xaitools.study.shares_table` returns them, of the same.
    """
    value, n = (controls.set_index("control")[column] for column in ("value", "n"))
    name, found = bold(str(controls["preprocessing"].iloc[0])), value["network"]
    start = f"{name}: right in {found:.0%} of {count(int(n['network']), 'head')} (mean of both classes)"
    if not _above_chance(found, int(n["network"])):
        return f"{start}, which is not told from guessing: **what it uses cannot be said**."
    return f"{start}. {_where_it_looks(shares)} {_size_says(value, n)}"


def _where_it_looks(shares: pd.DataFrame) -> str:
    """Parts of the head with more of the explanation than an even map would have."""
    names = {"face": "in the face", "other": "elsewhere outside the brain", "rim": "at the brain's rim"}
    names["inside"] = "inside the brain"
    more = shares[shares["part"].isin(list(names)) & (shares["low"] > shares["volume"])]
    if more.empty:
        return (
            "Its explanations prefer no part of the head: none has more of them than an even map would have."
        )
    told = [
        f"{names[row.part]} ({row.share:.0%} of the explanation in {row.volume:.0%} of the volume)"
        for row in more.sort_values("ratio", ascending=False).itertuples()
    ]
    places = ", ".join(told[:-1]) + " and " + told[-1] if told[1:] else told[0]
    return f"Its explanations lie {places}, more than even maps would."


def _size_says(value: pd.Series, n: pd.Series) -> str:
    """Whether size may be all that a network uses."""
    alone = value["brain volume alone"]
    said = f"The volume of the brain alone is right in {alone:.0%}"
    said += ", no less than the network" if alone >= value["network"] else ""
    matched = "network, matched heads"
    if matched not in value:
        return f"{said}; no two heads of the classes are alike in size, so what is left without it was not measured."
    heads = count(int(n[matched]), "head")
    if _above_chance(value[matched], int(n[matched])):
        still = f"the network is still right in {value[matched]:.0%}"
        return f"{said}; on {heads} matched in size {still}: **not size alone**."
    return (
        f"{said}; on {heads} matched in size the network is right in {value[matched]:.0%}, which is not told from "
        "guessing: **size may be all that it uses**."
    )


def _above_chance(share: float, n: int) -> bool:
    """Whether the lower end of Wilson's 95 % interval of a share of n is above one half."""
    z = 1.96
    middle, spread = share + z**2 / (2 * n), z * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return bool((middle - spread) / (1 + z**2 / n) > 0.5)


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


def known_signal(
    errors: Mapping[str, Any],
    pointing: Sequence[str],
    n_methods: int,
    labels: Mapping[str, str] | None = None,
) -> str:
    """Which maps point at the place that a target was measured at; none is judged of a network that did not learn it.

    Parameters
    ----------
    errors
        The target's row of `KnownSignal.errors`.
    pointing
        Its methods of `KnownSignal.pointing`.
    n_methods
        How many were tried.
    labels
        What methods are called.
    """
    network, target = bold(str(errors["network"])), escape(str(errors["target"]))
    unit = escape(str(errors["unit"]))
    off = (
        f"mean absolute error {errors['MAE']:.3g} {unit}, of the mean {errors['MAE of the mean']:.3g} {unit}"
    )
    if not errors["learned"]:
        return (
            f"{network} does not predict the {target} better than the mean does, beyond doubt ({off}): its maps cannot "
            "be judged."
        )
    said = f"{network} predicts the {target} ({off}, R² {errors['R2']:.2f})."
    among = f"of {count(n_methods, 'method')}"
    if not pointing:
        return f"{said} None {among} points at its place more than every control does, beyond doubt."
    names = listing([(labels or {}).get(name, name) for name in pointing], len(pointing))
    point = "points" if len(pointing) == 1 else "point"
    return f"{said} {len(pointing)} {among} {point} at its place more than every control does: {names}."


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


MISSING = "not tested: not measured in this run"


def context_accuracies(
    network: str, table: pd.DataFrame, n: int, data: str, diverged: Iterable[str] = ()
) -> str:
    """How good the networks of all folds and runs are on the test set that none of them has seen."""
    shares, left_out = table["test"], list(diverged)
    numbers = count(len(table), "network")
    spread = f", {shares.min():.1%} to {shares.max():.1%}" if len(table) > 1 else ""
    found = (
        f"{numbers} of the kind {bold(network)} ({escape(data)}): balanced accuracy on {count(n, 'test image')} "
        f"**{shares.mean():.1%}**{' on average' if len(table) > 1 else ''}{spread}; always naming one class: 50.0%."
    )
    missing = listing(left_out, len(left_out))
    return f"{found} Left out, since training diverged: {missing}." if left_out else found


def architecture(table: pd.DataFrame) -> str:
    """Which of the drawn architectures won; nothing if none was drawn."""
    if table.empty:
        return ""
    best = table.iloc[0]
    return (
        f"Of {count(len(table), 'drawn architecture')}, {bold(best['network'])} with a learning rate of "
        f"{best['learning_rate']:g} was best on the validation set ({best['balanced accuracy, validation']:.1%})."
    )


def masks_made(report: pd.DataFrame, positive: str, score: str = "probability") -> str:
    """What masks do to the network's answer, how much they hide, and which had not stopped moving."""
    after, moving = report["score_after"], int((report["stopped"] != "converged").sum())
    remarks = [f"{name}: {text}" for name, text in report["remark"].items() if text not in ("", STILL_MOVED)]
    found = (
        f"The mean {escape(score)} of *{escape(positive)}* falls from {_range(report['score_before'], '.2f')} to "
        f"{_range(after, '.2f')} under {count(len(report), 'mask')}, which {'hides' if len(report) == 1 else 'hide'} "
        f"{_range(100 * report['hidden'], '.2g')} % of the volume."
    )
    if moving:
        found += f" {moving} of {len(report)} had not stopped moving after the last step."
    return f"{found} To be minded: {listing(remarks, 3)}." if remarks else found


def published_accuracies(printed: Mapping[str, float]) -> str:
    """Published balanced accuracies of each set; nothing if there are none."""
    found = {
        name.removeprefix("balanced accuracy, "): v
        for name, v in printed.items()
        if name.startswith("balanced")
    }
    return (
        f"Published: {listing((f'{value:.1%} ({name})' for name, value in found.items()), 6)}."
        if found
        else ""
    )


def group_difference(table: pd.DataFrame) -> str:
    """Whether the mean maps alone, without any network, give as good a mask; nothing where it was not compared."""
    rows = table.set_index("mask")
    own, alone = "masks of the other networks", "difference of the groups"
    if alone not in rows.index or rows.loc[own].isna().any():
        return ""
    alike, asked = rows["ROI cosine"], rows["prob_CNN"]
    return (
        "The difference of the groups' mean maps, without any network, hides regions with a cosine of "
        f"{alike[alone]:.2f} with the masks (masks of other networks: {alike[own]:.2f}), and leaves the networks a "
        f"probability of {asked[alone]:.2f} (masks of other networks: {asked[own]:.2f})."
    )


def published_cosines(printed: Mapping[str, float]) -> str:
    """Published cosines of masks of two weights l1; nothing if there are none."""
    pairs = {name.removeprefix("ROI cosine, "): value for name, value in printed.items() if "l1=" in name}
    values = "; ".join(f"{value:g} of {escape(name)}" for name, value in pairs.items())
    return f"Published (table 1): {values}." if pairs else ""


def robustness(table: pd.DataFrame) -> str:
    """Whether masks work for networks of other runs and folds; nothing where there is one network only."""
    values = {(row.measure, row.pairs): row.value for row in table.itertuples()}
    others = {"inter-run": "another run", "inter-fold": "another fold"}
    asked = [
        f"{values['prob_CNN', k]:.2f} under that of {o}"
        for k, o in others.items()
        if ("prob_CNN", k) in values
    ]
    if not asked:
        return ""
    alike = [f"{values['ROI cosine', k]:.2f} between {k[6:]}s" for k in others if ("ROI cosine", k) in values]
    return (
        f"The networks give the patients a probability of {values['prob_CNN', 'own']:.2f} under their own masks, "
        f"{' and '.join(asked)}; the regions that are hidden have a cosine of {' and '.join(alike)}."
    )


def as_good_at_random(table: pd.DataFrame, n_random: int) -> str:
    """How well masks find what is known to change, and how often a random mask does as well."""
    if table.empty:
        return not_measured("How well the masks find what changes", "nobody knows where it is")
    auc, share = table["AUC"], table["as good at random"]
    return (
        f"Voxel by voxel, the AUC of the masks against what is known to change is {auc.mean():.2f} on average "
        f"({_range(auc, '.2f')}). A random mask as large and as smooth does as well in {_range(100 * share, '.0f')} % "
        f"of {count(n_random + 1, 'draw')}, the mask itself counted among them."
    )


def regions_found(table: pd.DataFrame, k: int) -> str:
    """How stably the regions that are known to matter are among the most hidden ones; nothing if none is known."""
    if "found" not in table:
        return ""
    shares = table["found"]
    return (
        f"Of the {k} most hidden regions, {shares.mean():.0%} are known to matter on average over "
        f"{count(len(table), 'mask')} ({_range(100 * shares, '.0f')} %)."
    )


def longitudinal(table: pd.DataFrame) -> str:
    """Whether the earlier mask of a participant lies inside the later one; nothing if nobody has two sessions."""
    if table.empty:
        return ""
    own = table.set_index("pairs").loc["one participant"]
    return (
        f"Of {count(int(own['n']), 'participant')} with two sessions, {own['earlier outside later']:.0%} of the "
        f"earlier mask lies outside of the later one, and {own['later outside earlier']:.0%} of the later one is new."
    )


def sizes_of_heads(sizes: Float[np.ndarray, " n"], labels: Int[Tensor, " n"], classes: Sequence[str]) -> str:
    """How large the brains of both classes are (ml), and how well that alone tells the classes apart."""
    groups = [sizes[labels.numpy() == number] for number in (0, 1)]
    means = listing(
        f"{own.mean():.0f} ± {own.std(ddof=1):.0f} ml in {name}"
        for own, name in zip(groups, classes, strict=True)
    )
    auc = (groups[1][:, None] > groups[0]).mean() + (groups[1][:, None] == groups[0]).mean() / 2
    return (
        f"Brains, as the label maps have them: {means}. The volume alone tells the classes apart with an AUC of "
        f"**{max(auc, 1 - auc):.2f}** (0.5 is chance)."
    )


def classifiers(table: pd.DataFrame, right: Mapping[str, Bool[np.ndarray, " n"]], seed: int = 0) -> str:
    """How good each classifier is on heads that it was not trained with, and whether any is ahead of the first.

    Parameters
    ----------
    table, right
        As :class:`~xaitools.study.baselines.Compared` has them; the first classifier is the network.
    seed
        Of the bootstrap.
    """
    means = table.groupby("classifier", sort=False)["validation"].mean()
    first, *others = means.index
    found = listing((f"{name} {value:.1%}" for name, value in means.items()), len(means))
    said = [f"Balanced accuracy on validation heads, mean over the folds: {found}."]
    for name in others:
        difference = paired_difference(right[name].astype(float), right[first].astype(float), seed=seed)
        size = interval(100 * difference.mean, 100 * difference.low, 100 * difference.high, "+.0f", "points")
        which = {"agrees": "better than", "differs": "worse than"}.get(
            verdict(difference), "not told apart from"
        )
        said.append(f"The {escape(name)} is {which} the {escape(first)} (right answers: {size}).")
    return " ".join(said)


def reconstruction(table: pd.DataFrame) -> str:
    """Whether the autoencoder has learnt anything; nothing if there is none."""
    if table.empty:
        return ""
    share = table["explained"].mean()
    if share <= 0:
        return (
            "**The autoencoder reconstructs heads no better than their mean image does**, so that what it hands to the "
            "network is hardly more than random weights: raise `pretrain_epochs`."
        )
    return f"The autoencoder removes {share:.0%} of the error that the mean image makes on validation heads."


def published_classifiers(printed: Mapping[str, float]) -> str:
    """The authors' own accuracies of a network and of an SVM on voxels."""
    return (
        f"The authors' paper has, over 10 folds, {printed['accuracy, 10 folds, CNN']:g} % for the network and "
        f"{printed['accuracy, 10 folds, SVM on voxels']:g} % for an SVM on voxels."
    )


def favourites(history: pd.DataFrame, strongest: Sequence[float], classes: Sequence[str]) -> str:
    """How far beyond all real images the optimised ones are."""
    last = history[history["step"] == history["step"].max()].set_index("unit")["activation"]
    found = listing(
        f"{name} {value:.1f} (strongest real head: {real:.1f})"
        for name, value, real in zip(classes, last, strongest, strict=True)
    )
    return f"Scores, in standard deviations over real heads: {found}. No real head goes beyond the strongest."


def empty_maps(empty: Mapping[str, int], n: int) -> str:
    """Of how many of the `n` heads each network's map is 0 everywhere; nothing if that is so of none."""
    found = [f"{name}: {number} of {n}" for name, number in empty.items() if number]
    if not found:
        return ""
    return (
        f"Heads whose Grad-CAM is 0 everywhere, so that they are in no mean: {listing(found, len(found))}. There, no "
        "channel speaks for the class with its positive parts."
    )


def surrogate(tree: "Surrogate | None") -> str:
    """Whether a decision tree stands for the network, and what it asks first; no rule where it does not."""
    if tree is None:
        return not_measured(
            "How well a decision tree stands for the network", "the network names one class only"
        )
    scores, rules = tree.scores, tree.rules
    by = scores.set_index("which")
    fidelity, majority, n = by.at["tree", "fidelity"], by.at["majority", "fidelity"], int(by.at["tree", "n"])
    found = (
        f"The tree gives the network's answer for **{fidelity:.0%}** ({by.at['tree', 'low']:.0%} to "
        f"{by.at['tree', 'high']:.0%}) of {count(n, 'validation head')}; always naming "
        f"the network's most frequent answer, for {majority:.0%}."
    )
    if by.at["tree", "low"] <= majority:
        return f"{found} That is no clear lead, so its rules say little about the network."
    return f"{found} It asks first for the brightness of {bold(rules.iloc[0]['region'])}."


def influence(check: "InfluenceCheck") -> str:
    """Whether the influence of training images is borne out by training again, and by labels turned on purpose."""
    said = (
        f"Rank correlation (Spearman) of TracIn with the losses after training again without each of "
        f"{check.n_left_out} training heads: **{check.spearman:.2f}** on average over "
        f"{count(len(check.agreement), 'validation head')}."
    )
    if check.n_left_out < 10:
        said += " Of so few heads that number is rough."
    if check.mislabelled:
        ranks = listing((str(rank) for rank in check.mislabelled), len(check.mislabelled))
        said += (
            f" By its influence on itself, the head with the wrong label is number {ranks} of {check.n_training} "
            f"(by chance, {(check.n_training + 1) / 2:.0f})."
        )
    return said


def _range(values: pd.Series, digits: str) -> str:
    """One number, or from the smallest to the largest where they differ as printed."""
    low, high = f"{values.min():{digits}}", f"{values.max():{digits}}"
    return low if low == high else f"{low} to {high}"


def redrawn(table: pd.DataFrame, test: str, similarity: str, *, absolute: bool) -> str:
    """Who passes a test of `study.sanity_table`, by one similarity, and whether noise is seen through."""
    own = table[
        (table["test"] == test) & (table["similarity"] == similarity) & (table["absolute"] == absolute)
    ]
    noise, maps = own[own["method"] == "random"], own[own["method"] != "random"]
    if maps.empty:
        return ""
    values = f"{SIMILARITIES.get(similarity, similarity)} of {'absolute' if absolute else 'signed'} values"
    said = [
        f"{listing(maps['label'][maps['verdict'] == verdict], len(maps))} {ending}"
        for verdict, ending in (
            ("passes", "changed with the weights"),
            ("fails", "stayed too much alike (failed)"),
            ("noise", "changed as much when repeated on the same network (noise: raise draws)"),
            ("undecided", "undecided"),
        )
        if (maps["verdict"] == verdict).any()
    ]
    found = f"*{escape(test)}*, by {values}: {'; '.join(said)}."
    if (noise["verdict"] == "passes").any():
        return f"{found} **A map of noise passes too: these verdicts say nothing.**"
    return found


def turned_over(alike: Mapping[str, float]) -> str:
    """Which maps are the same but for their sign, which a signed similarity would praise as changed; "" for none."""
    if not alike:
        return ""
    are = "map is the same" if len(alike) == 1 else "maps are the same"
    return (
        f"Of {listing(alike, len(alike))} the {are} but for the sign, which has turned in some images "
        f"(rank correlation regardless of it: {_range(pd.Series(alike), '.2f')}): go by the absolute values."
    )


def memorised(share: float, n: int, known: float = 0.95) -> str:
    """How well a network has learned permuted labels, without which its maps are no test."""
    found = f"The second network knows {share:.0%} of the permuted labels of {count(n, 'image')} by heart."
    if share >= known:
        return found
    return (
        f"{found} That is not enough (95 %), so there are no verdicts: train it longer (`memorising_epochs`)."
    )


def warning() -> str:
    """What verdicts of sanity checks do not say."""
    return f"**Beware.** {escape(WARNING)}"


def not_tested(field: str, measured: bool) -> str:
    """Verdict on a claim that this run cannot test."""
    if not measured:
        return MISSING
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
