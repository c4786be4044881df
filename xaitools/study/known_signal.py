"""Known signal: networks that predict what label maps measure, and which methods point at the place it was measured."""

import copy
import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import nn

from xaitools.atlas.regions import side_of
from xaitools.checks import check_choice
from xaitools.data import Volumes, split
from xaitools.errors import DataError, ParameterError
from xaitools.evaluation import (
    AGREES,
    control_maps,
    known_signal,
    known_signal_means,
    lateral_asymmetry,
    paired_difference,
    region_volumes,
    verdict,
)
from xaitools.models import predict_values
from xaitools.models.redrawing import has_state, redraw
from xaitools.study.explaining import explain
from xaitools.study.network import Trained, train_or_load
from xaitools.study.regions import Regions, brain_regions, labels_of
from xaitools.study.run import Run
from xaitools.study.volumes import check_methods

KINDS = ("volume", "asymmetry")
UNTRAINED = "{}, untrained"
"""What the map of a method is called that explains the network with all its layers drawn anew."""


class KnownTarget(NamedTuple):
    """Something that label maps measure, as labels, and where it was measured."""

    name: str
    samples: Volumes
    relevant: tuple[int, ...]
    regions: dict[str, list[int]]


class KnownSignal(NamedTuple):
    """What :func:`known_signal_table` found.

    Attributes
    ----------
    errors
        A row for each target: ``target``, ``network``, ``unit``, ``n``, the images of the test set, ``MAE`` and that
        of the training set's mean, ``MAE of the mean``, ``R2`` against that mean, and ``learned``: whether the network
        is off by less than the mean, beyond doubt. Where it is not, its maps cannot be judged.
    scores
        Means over the test images, long: ``target``, ``method``, ``control`` (whether it is one), ``measure``,
        ``value``, ``low``, ``high``, ``n``; see :func:`xaitools.evaluation.known_signal_means`.
    images
        A row for each target, method and image; see :func:`xaitools.evaluation.known_signal`.
    pointing
        By target, the methods whose AUC is above 0.5 and above that of every control, each beyond doubt; none where the
        network has not learned the target.
    failed
        By target and method, why there are no maps.
    """

    errors: pd.DataFrame
    scores: pd.DataFrame
    images: pd.DataFrame
    pointing: dict[str, list[str]]
    failed: dict[tuple[str, str], Exception]


def known_target(
    samples: Volumes, structure: str, kind: str = "volume", *, regions: Regions | None = None
) -> KnownTarget:
    """The brains with a measure of one of their structures as labels, for a regression.

    Parameters
    ----------
    samples
        With label maps.
    structure
        A name of the label maps without its side, in any spelling: ``"lateral ventricle"``, ``"LateralVentricle"``.
    kind
        "volume", in ml, both sides together; or "asymmetry", (left - right) / (left + right) of the volumes, in %.
    regions
        Where the label maps' names come from; by default those that the samples bring.

    Raises
    ------
    ParameterError
        If the structure or the kind is unknown, or an asymmetry is asked of a structure without sides.
    DataError
        If there are no label maps, none has the structure, or fewer than three images have a value.
    """
    check_choice(kind=(kind, KINDS))
    samples.label_map(0)  # which raises if there are none
    own = brain_regions(samples) if regions is None else regions
    if own.atlas is not None:
        raise DataError(
            "regions of an atlas, the same in every image; expected label maps of each brain's own structures, since "
            "a target has to be measured: give label_maps."
        )
    sides = _sides(own, labels_of(samples, own))
    found = _spelled(structure, sides)
    left, right = (sides[found].get(side, []) for side in "lr")
    relevant = [n for numbers in sides[found].values() for n in numbers]
    if kind == "volume":
        values, unit = region_volumes(samples, {found: relevant})[found].to_numpy(), "ml"
    elif left and right:
        values, unit = 100 * lateral_asymmetry(samples, left, right), "%"
    else:
        raise ParameterError(
            f"kind='asymmetry' of {found!r}, which has no left and right in the label maps; expected a structure with "
            "two sides, or kind='volume'."
        )
    measured = np.flatnonzero(np.isfinite(values) & ((kind == "asymmetry") | (values > 0)))
    if len(measured) < 3:
        raise DataError(
            f"{len(measured)} images with {found!r}; expected at least three, to train, validate and test."
        )
    chosen = replace(
        samples[measured],
        labels=torch.from_numpy(values[measured]).float(),
        class_names=(),
        unit=unit,
        info={**samples.info, "without the structure": len(samples) - len(measured)},
    )
    others = {name: [n for numbers in own.values() for n in numbers] for name, own in sides.items()}
    return KnownTarget(f"{kind} of the {_plain(found)}", chosen, tuple(relevant), others)


def known_signal_table(
    run: Run,
    samples: Volumes,
    methods: Sequence[str],
    *,
    network: str,
    structure: str = "lateral ventricle",
    kinds: Sequence[str] = KINDS,
    model: str = "",
    regions: Regions | None = None,
    fractions: Sequence[float] = (0.6, 0.2, 0.2),
    n_explained: int | None = None,
    k: int = 1,
    n_permutations: int = 100,
    device: str = "auto",
    seed: int = 0,
    settings: Mapping[str, Any] | None = None,
    progress: bool = True,
    **training: Any,
) -> KnownSignal:
    """Train networks to predict a structure's measures, explain them, and see which methods point at the structure.

    Every method also explains the same network with all layers drawn anew, and maps that know no network are compared
    too: smooth noise, the image's intensity and its edges. Trainings and maps that an earlier run made are taken from
    the cache and the run's folder. What was measured is recorded in ``metrics.csv``.

    Parameters
    ----------
    run
        Where numbers and maps are written.
    samples, structure, kinds, regions
        As :func:`known_target` takes them, one target for each of `kinds`.
    methods
        Names of the maps.
    network, model, device, **training
        As :func:`~xaitools.study.train_or_load` takes them. Networks are trained without augmentation unless `augment`
        is given: one that mirrors or scales images would make their labels wrong.
    fractions
        Shares of the training, validation and test set; test images are judged and explained.
    n_explained
        The first so many test images are explained; None for all.
    k, n_permutations
        As :func:`xaitools.evaluation.known_signal` takes them.
    seed
        Of the sets, the training, the layers drawn anew, the random regions and the bootstrap.
    settings
        Of `xaitools.attribution.attribute`, plain values.
    progress
        Show progress bars.

    Raises
    ------
    ParameterError, DataError, MethodError
        As :func:`known_target` raises, for an augmentation that mirrors or scales, and before any training for methods
        that cannot be read.
    """
    check_methods(methods, samples.shape)
    augment = training.setdefault("augment", "")
    if isinstance(augment, str) and re.search("flip|scal", augment):
        raise ParameterError(
            f"augment={augment!r}: it mirrors or scales images, which changes asymmetries and volumes but not the "
            "labels; expected one that does neither, or ''."
        )
    errors, tables, failed = [], [], dict[tuple[str, str], Exception]()
    for kind in kinds:
        target = known_target(samples, structure, kind, regions=regions)
        sets = split(target.samples, fractions, seed=seed)
        net = train_or_load(
            model, network, *sets[:2], device=device, seed=seed, progress=progress, **training
        )
        errors.append(
            {"target": target.name, "network": net.name, **_errors(net, sets[0], sets[2], device, seed)}
        )
        explained = sets[2][: n_explained or len(sets[2])]
        options = {"what": "volume", "progress": progress, **(settings or {})}
        maps, missing = _maps(run, net, explained, methods, kind, seed, options)
        failed |= {(target.name, name): error for name, error in missing.items()}
        found = known_signal(
            maps, explained.label_maps, target.relevant, regions=target.regions, k=k, seed=seed,
            n_permutations=n_permutations,
        )  # fmt: skip
        names = np.array(explained.names)[found["image"]]
        tables.append(
            found.assign(image=names, target=target.name, control=~found["method"].isin(list(methods)))
        )
    images = pd.concat(tables, ignore_index=True)
    scores = pd.concat(
        [
            known_signal_means(own, seed=seed).assign(target=name)
            for name, own in images.groupby("target", sort=False)
        ],
        ignore_index=True,
    ).assign(control=lambda table: ~table["method"].isin(list(methods)))
    judged = {row["target"] for row in errors if row["learned"]}
    pointing = {
        name: _pointing(own, seed) if name in judged else []
        for name, own in images.groupby("target", sort=False)
    }
    found = KnownSignal(pd.DataFrame(errors), scores, images, pointing, failed)
    _record(run, found)
    return found


def known_signal_view(found: KnownSignal, labels: Mapping[str, str] | None = None) -> pd.DataFrame:
    """The scores as a table to be read: a row for each target and method, controls last.

    Whether a method points at the region is open, "?", where the network has not learned the target.

    Parameters
    ----------
    found
        As :func:`known_signal_table` returns it.
    labels
        What methods are called.
    """
    labels = labels or {}
    learned = found.errors.set_index("target")["learned"]
    rows = []
    for (target, method), own in found.scores.groupby(["target", "method"], sort=False):
        of = own.set_index("measure")
        rows.append(
            {
                "target": target,
                "method": labels.get(method, method),
                "control": "yes" if of["control"].any() else "",
                "AUC": f"{of.loc['auc', 'value']:.2f} [{of.loc['auc', 'low']:.2f}, {of.loc['auc', 'high']:.2f}]",
                "density in the region / brain": f"{of.loc['gain', 'value']:.2f}",
                "outside the brain": f"{of.loc['outside', 'value']:.0%}",
                "rank": f"{of.loc['rank', 'value']:.1f}",
                "hits": f"{of.loc['hit', 'value']:.0%}",
                "hits by chance": f"{of.loc['chance', 'value']:.0%}",
                "points at it": ("yes" if method in found.pointing[target] else "")
                if learned[target]
                else "?",
            }
        )
    table = pd.DataFrame(rows)
    return table.sort_values(["target", "control"], kind="stable", ignore_index=True)


def untrained(model: nn.Module, seed: int = 0) -> nn.Module:
    """A copy of a network with every layer drawn anew; the global random state stays as it was."""
    drawn = copy.deepcopy(model)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        for layer in drawn.modules():
            if has_state(layer):
                redraw(layer)
    return drawn.eval()


def _maps(
    run: Run,
    net: Trained,
    samples: Volumes,
    methods: Sequence[str],
    kind: str,
    seed: int,
    settings: dict[str, Any],
) -> tuple[dict[str, np.ndarray], dict[str, Exception]]:
    """Maps of the network, then of one untrained, then those without a network."""
    folder = run.maps_dir / "known_signal" / kind
    maps, failed = explain(net.model, samples, methods, folder, target=None, **settings)
    bare = untrained(net.model, seed + 1)
    own = [name for name in methods if name in maps]
    random, _ = explain(bare, samples, own, folder / "untrained", target=None, **settings)
    maps |= {UNTRAINED.format(name): values for name, values in random.items()}
    return maps | control_maps(samples.images[:], seed=seed), failed


def _errors(net: Trained, training: Volumes, test: Volumes, device: str, seed: int) -> dict[str, Any]:
    truth, mean = test.labels.double().numpy(), float(training.labels.double().mean())
    said = predict_values(net.model, test.images, device=device).double().numpy()
    off, off_mean = np.abs(said - truth), np.abs(mean - truth)
    gained = verdict(paired_difference(off_mean, off, seed=seed)) if len(test) > 1 else ""
    return {
        "unit": test.unit,
        "n": len(test),
        "MAE": float(off.mean()),
        "MAE of the mean": float(off_mean.mean()),
        "R2": float(1 - np.square(off).sum() / np.square(off_mean).sum()),
        "learned": gained == AGREES,
    }


def _pointing(images: pd.DataFrame, seed: int) -> list[str]:
    """Methods whose AUC is above 0.5 and above that of each control."""
    auc = images.pivot(index="image", columns="method", values="auc").dropna()
    controls = images.loc[images["control"], "method"].unique()
    if len(auc) < 2:
        return []

    def beats(name: str, other: np.ndarray) -> bool:
        return verdict(paired_difference(auc[name].to_numpy(), other, seed=seed)) == AGREES

    methods = images.loc[~images["control"], "method"].unique()
    half = np.full(len(auc), 0.5)
    return [
        name
        for name in methods
        if beats(name, half) and all(beats(name, auc[other].to_numpy()) for other in controls)
    ]


def _record(run: Run, found: KnownSignal) -> None:
    for row in found.errors.to_dict("records"):
        for metric in ("MAE", "MAE of the mean", "R2"):
            run.record(
                metric=f"{row['target']}: {metric}", value=row[metric], model=row["network"], n=row["n"]
            )
    network = found.errors.set_index("target")["network"]
    for row in found.scores.to_dict("records"):
        of = {"method": row["method"], "model": network[row["target"]], "n": row["n"]}
        for column, ending in (("value", ""), ("low", ", lower 95 %"), ("high", ", upper 95 %")):
            if np.isfinite(row[column]):
                run.record(metric=f"{row['target']}: {row['measure']}{ending}", value=row[column], **of)


def _sides(regions: Regions, labels: Sequence[int]) -> dict[str, dict[str, list[int]]]:
    """Numbers of the structures in the label maps, by name without side and then by side: "l", "r" or ""."""
    sides: dict[str, dict[str, list[int]]] = {}
    for number in labels:
        side, bare = side_of(regions.label_names.get(number, f"label {number}"))
        sides.setdefault(bare, {}).setdefault(side, []).append(number)
    return sides


def _spelled(structure: str, names: Mapping[str, Any]) -> str:
    """The name among `names` that is `structure` but for case, spaces and signs."""
    alike = {_letters(name): name for name in names}
    if (wanted := _letters(structure)) in alike:
        return alike[wanted]
    close = difflib.get_close_matches(wanted, alike, n=3)
    near = ", ".join(repr(alike[own]) for own in close) or ", ".join(map(repr, list(names)[:8]))
    raise ParameterError(
        f"structure={structure!r} is in none of the label maps; expected one such as {near}."
    )


def _letters(name: str) -> str:
    return re.sub(r"[\W_]+", "", name).lower()


def _plain(name: str) -> str:
    """``"LateralVentricle"`` as words: ``"lateral ventricle"``."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])|_+", " ", name).lower()
