"""Sanity checks of a run: every redrawn network is kept, so that a run that was stopped repeats none."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Float32
from torch import Tensor, nn

from xaitools.attribution import METHODS
from xaitools.attribution.names import parse
from xaitools.checks import check_choice
from xaitools.data import Samples, Volumes
from xaitools.evaluation import (
    DataRandomization,
    Randomization,
    data_randomization,
    model_randomization,
    smooth_model_randomization,
)
from xaitools.evaluation._checks import SAME_RANKS
from xaitools.evaluation.randomization import CONTROL, Keep, Step
from xaitools.models import Network
from xaitools.seals import read_json, tell_made_again, write_json
from xaitools.study.contexts import permuted_labels
from xaitools.study.explaining import explain
from xaitools.study.network import Trained, train_or_load
from xaitools.study.run import Run

TESTS: dict[str, Callable[..., Randomization]] = {
    "top-down": model_randomization,
    "bottom-up": partial(model_randomization, direction="bottom-up"),
    "one layer at a time": partial(model_randomization, order="independent"),
    "top-down, argmax": partial(model_randomization, explained="argmax"),
    "smooth": smooth_model_randomization,
}
"""Ways of redrawing a network, by name; "smooth" is sMPRT, from the bottom up as its authors advise."""

PERMUTED = "permuted labels"
UPPER = "top-down, upper layers"
COMPLEXITY = "complexity"

MEMORISING: dict[str, Any] = {"augment": "", "weight_decay": 0.0, "stop_at": 0.1}
"""What makes a network learn labels by heart."""


def randomization_runs(
    run: Run,
    net: Trained,
    samples: Samples | Volumes,
    methods: Sequence[str],
    *,
    tests: Sequence[str] = ("top-down",),
    target: int | None = None,
    on_error: str = "keep",
    progress: bool = True,
    **settings: Any,
) -> dict[str, Randomization]:
    """Redraw the weights of a network, in several ways, and compare its maps; what an earlier run did is read.

    The rows of each redrawn network lie in ``sanity/`` of the run's folder, with all that they depend on.

    Parameters
    ----------
    run
        Whose folder keeps them.
    net
        The network.
    samples
        Images whose maps are compared.
    methods
        Full names of the maps.
    tests
        Keys of :data:`TESTS`.
    target
        Class to explain; None for a regression. "top-down, argmax" takes each network's own instead.
    on_error
        "keep" goes on without methods that fail, "raise" stops.
    progress
        Show a bar for each test.
    **settings
        Of :func:`~xaitools.evaluation.model_randomization` and `xaitools.attribute`, plain values.

    Returns
    -------
    dict
        By name of the test.

    Raises
    ------
    ParameterError
        If a test is unknown.
    XaitoolsError
        As :func:`~xaitools.evaluation.model_randomization` raises.
    """
    for name in tests:
        check_choice(test=(name, TESTS))
    key = {"weights": net.fingerprint, "images": samples.fingerprint(), "methods": list(methods), **settings}
    found = {}
    for name in tests:
        explained = None if name.endswith("argmax") else target
        own = {**key, "test": name, "target": explained}
        found[name] = TESTS[name](
            net.model, samples.images[:], explained, methods, on_error=on_error, progress=progress,
            keep=kept(run.output_dir / "sanity", name, own), **settings,
        )  # fmt: skip
    return found


def methods_of(
    model: nn.Module, images: Float[Tensor, "n channel *spatial"]
) -> tuple[list[str], dict[str, str]]:
    """All methods that the package knows and this network can have, and why it cannot have the others, by name."""
    network = Network(model, images[:1])
    reasons = {name: method.supports(network) for name, method in METHODS.items()}
    return (
        [name for name, reason in reasons.items() if reason is None],
        {name: reason for name, reason in reasons.items() if reason is not None},
    )


def kept(folder: Path, name: str, key: Mapping[str, Any]) -> Keep:
    """What keeps steps in JSON files of a folder, ``NAME_STEP.json``; those made under another key are made again."""
    wanted = json.loads(json.dumps(dict(key)))

    def keep(step: str, make: Callable[[], Step]) -> Step:
        path = folder / f"{name.replace(', ', '-').replace(' ', '-')}_{step}.json"
        found = _read(path, wanted)
        if found is None:
            found = make()
            write_json(path, {"key": wanted, "found": found})
        return found

    return keep


def _read(path: Path, key: Mapping[str, Any]) -> Step | None:
    """What a file holds; None if there is none, it is damaged, or it was made under another key."""
    if not path.is_file():
        return None
    try:
        known = read_json(path)
        found: Step = known["found"]
        return found if known["key"] == key else None
    except (OSError, KeyError) as error:
        tell_made_again(path, error)
        return None


def permuted_network(
    run: Run,
    net: Trained,
    network: str,
    training: Samples | Volumes,
    samples: Samples | Volumes,
    methods: Sequence[str],
    *,
    target: int | None = None,
    max_epochs: int = 300,
    batch_size: int = 8,
    learning_rate: float = 0.001,
    device: str = "auto",
    seed: int = 0,
    **settings: Any,
) -> DataRandomization:
    """Compare maps with those of a network that has learned permuted labels by heart.

    It is trained, or taken from the cache, as :func:`~xaitools.study.train_or_load` does; a network that a user gave
    is redrawn and trained anew in each run.

    Parameters
    ----------
    run
        Where it is recorded how well it knows the permuted labels.
    net
        The network whose maps are in question.
    network
        Name of its architecture.
    training
        What it was trained with. Labels are permuted among participants.
    samples, methods, target
        As for :func:`randomization_runs`.
    max_epochs, batch_size, learning_rate
        Of the training, which ends when the loss on the training set falls below 0.1.
    device
        Where it is trained.
    seed
        Of the permutation and the training.
    **settings
        Of :func:`~xaitools.evaluation.data_randomization` and `xaitools.attribute`.
    """
    options: dict[str, Any] = {
        **MEMORISING,
        "max_epochs": max_epochs,
        "patience": max_epochs,
        "batch_size": batch_size,
    }
    options |= {"learning_rate": learning_rate, "seed": seed}
    permuted = permuted_labels(training, seed)
    compare = partial(data_randomization, net.model, images=samples.images[:], target=target, methods=methods)
    if net.start == "the file":
        found = compare(training=training, training_settings=options, device=device, seed=seed, **settings)
    else:
        other = train_or_load("", network, permuted, permuted, device=device, **options)
        found = compare(training=permuted, memorising=other.model, seed=seed, **settings)
    run.record(metric="permuted labels memorised", value=found.memorised, n=len(training))
    return found


def redrawn_blocks(net: Trained, samples: Samples | Volumes) -> list[list[str]]:
    """The steps in which a network is redrawn: each convolution or linear layer with the normalisation that follows."""
    blocks: list[list[str]] = []
    for name in Network(net.model, samples.images[[0]]).layers:
        norm = "norm" in type(net.model.get_submodule(name)).__name__.lower()
        if norm and blocks:
            blocks[-1].append(name)
        else:
            blocks.append([name])
    return blocks


def randomization_curves(found: Randomization, model: nn.Module, named: pd.DataFrame) -> pd.DataFrame:
    """Curves of one test as `xaitools.plots.randomization_plot` takes them: means over images with their intervals.

    Parameters
    ----------
    found
        One test.
    model
        The network, for the kinds of its layers.
    named
        As :func:`~xaitools.study.method_table` returns it.

    Returns
    -------
    DataFrame
        ``method``, its label; ``similarity``; ``values``, "absolute" or "signed"; ``k`` and ``layer``, "none" for the
        trained network, else as "21 Linear"; ``value``, ``low`` and ``high``. Points without a value or an interval,
        as of maps of one value only, are left out.
    """
    curves = found.summary().rename(columns={"mean": "value"})
    curves["method"] = [_label(name, named) for name in curves["method"]]
    curves["values"] = np.where(curves["absolute"], "absolute", "signed")
    curves["layer"] = [_layer(model, name) for name in curves["layer"]]
    columns = ["method", "similarity", "values", "k", "layer", "value", "low", "high"]
    return curves[columns].dropna().reset_index(drop=True)


def sanity_table(
    run: Run,
    tests: Mapping[str, Randomization],
    named: pd.DataFrame,
    *,
    upper: int = 0,
    rise: pd.DataFrame | None = None,
    network: str = "",
) -> pd.DataFrame:
    """What is left of each map after each test, with its verdict; also recorded.

    Parameters
    ----------
    run
        Where the similarities are recorded.
    tests
        Tests by name.
    named
        As :func:`~xaitools.study.method_table` returns it.
    upper
        Steps of the test "top-down" that are also judged by themselves, as the test :data:`UPPER`; 0 for none.
    rise
        As :func:`~xaitools.evaluation.complexity_rise` returns it.
    network
        Name of the network.

    Returns
    -------
    DataFrame
        One row a test, method, similarity, and absolute or signed values: ``test``; ``method``, its full name;
        ``label``; ``similarity``, of the rise "complexity"; ``absolute``; ``value``, with its interval ``low`` to
        ``high``; ``verdict``. The test "smooth" is listed under the map that it smooths. Methods named "random" are
        maps of noise.
    """
    tables = [
        found.verdicts().rename(columns={"randomized": "value"}).assign(test=name)
        for name, found in tests.items()
    ]
    if upper and "top-down" in tests:
        verdicts = tests["top-down"].verdicts(last=upper)
        tables.append(verdicts.rename(columns={"randomized": "value"}).assign(test=UPPER))
    if rise is not None:
        same = {"test": COMPLEXITY, "similarity": COMPLEXITY, "absolute": False}
        tables.append(rise.rename(columns={"rise": "value"}).assign(**same))
    table = pd.concat(tables, ignore_index=True)
    smooth = table["test"] == "smooth"
    table.loc[smooth, "method"] = [_unsmoothed(name, named) for name in table["method"][smooth]]
    table["label"] = [_label(name, named) for name in table["method"]]
    for row in table.itertuples():
        if np.isfinite(row.value):
            kind = "absolute" if row.absolute else "signed"
            metric = (
                "rise of complexity" if row.test == COMPLEXITY else f"{row.similarity}, {kind}, {row.test}"
            )
            run.record(metric=metric, value=row.value, method=row.method, model=network, n=row.n)
    columns = ["test", "method", "label", "similarity", "absolute", "value", "low", "high", "verdict"]
    return table[columns]


def who_passes(
    table: pd.DataFrame, *, similarity: str = "spearman", absolute: bool = True, digits: int = 2
) -> pd.DataFrame:
    """Verdicts by one similarity: a row a method, a column a test, "passes (0.12)" with what is left.

    Parameters
    ----------
    table
        As :func:`sanity_table` returns it.
    similarity, absolute
        Which rows; the rise of complexity is always among them.
    digits
        Decimal places.
    """
    chosen = table[
        ((table["similarity"] == similarity) & (table["absolute"] == absolute))
        | (table["test"] == COMPLEXITY)
    ]
    cells = chosen.assign(cell=[_cell(row, digits) for row in chosen.itertuples()])
    wide = cells.pivot_table(index="label", columns="test", values="cell", aggfunc="first", sort=False)
    wide = wide.reindex(columns=list(dict.fromkeys(chosen["test"])))
    return wide.fillna("–").rename_axis(columns=None).rename_axis("method").reset_index()


def by_similarity(table: pd.DataFrame, test: str, *, digits: int = 2) -> pd.DataFrame:
    """Verdicts of one test: a row a method, a column a similarity of absolute and of signed values."""
    own = table[table["test"] == test]
    cells = own.assign(
        way=[f"{row.similarity}, {'absolute' if row.absolute else 'signed'}" for row in own.itertuples()],
        cell=[_cell(row, digits) for row in own.itertuples()],
    )
    wide = cells.pivot_table(index="label", columns="way", values="cell", aggfunc="first", sort=False)
    wide = wide.reindex(columns=list(dict.fromkeys(cells["way"])))
    return wide.rename_axis(columns=None).rename_axis("method").reset_index()


def redrawn_maps(
    run: Run,
    net: Trained,
    samples: Samples | Volumes,
    methods: Sequence[str],
    *,
    blocks: Sequence[Sequence[str]],
    seed: int = 0,
    **options: Any,
) -> dict[str, dict[str, Float32[np.ndarray, "n 1 *spatial"]]]:
    """Maps of the network and of those whose uppermost layers are redrawn, to be looked at.

    Parameters
    ----------
    run
        Whose folder keeps them.
    net, samples, methods
        As for :func:`randomization_runs`.
    blocks
        Layers that are redrawn together, the image's first, as :func:`redrawn_blocks` returns them. Maps are made with
        none of them redrawn, the uppermost one, the upper half, and all.
    seed
        Of the weights: with the same seed those of :func:`randomization_runs`.
    **options
        Of :func:`~xaitools.study.explain`.

    Returns
    -------
    dict
        By what was redrawn, "none" or as "18 Linear and above", the maps by method.
    """
    network = Network(net.model, samples.images[[0]])
    found = {}
    for n in sorted({0, 1, len(blocks) // 2, len(blocks)}):
        upper = blocks[len(blocks) - n :]
        layers = [name for block in upper for name in block]
        model = network.randomized(layers, seed).model if layers else net.model
        name = _layer(net.model, upper[0][0]) if upper else "none"
        name = name if n < 2 else f"{name} and above"
        found[name], _ = explain(model, samples, methods, run.maps_dir / f"redrawn-{n}", seed=seed, **options)
    return found


def sanity_claims(published: pd.DataFrame, table: pd.DataFrame, named: pd.DataFrame) -> list[dict[str, str]]:
    """What was published of who passes, and what this run finds.

    Parameters
    ----------
    published
        As :func:`~xaitools.study.read_published` returns it: 1 where a method passes, 0 where it fails; the metric is
        "passes: TEST; SIMILARITY; absolute" or "signed".
    table, named
        As :func:`sanity_table` returned and took them.
    """
    rows = []
    for claim in published[published["metric"].str.startswith("passes: ")].itertuples():
        test, similarity, values = claim.metric.removeprefix("passes: ").split("; ")
        own = table[(table["method"] == claim.method) & (table["test"] == test)]
        own = own[(own["similarity"] == similarity) & (own["absolute"] == (values == "absolute"))]
        said = "passes" if claim.value else "fails"
        row = {
            "published": f"{_label(claim.method, named)} {said} ({claim.where})",
            "tested": f"{test}; {similarity}, {values}",
        }
        if own.empty:
            rows.append({**row, "this run": "", "verdict": "not tested: not among the maps of this run"})
            continue
        found = own.iloc[0]
        value, low, high = (_number(found[name]) for name in ("value", "low", "high"))
        left = f"{value} ({low} to {high}) left: {found['verdict']}"
        known = {said: "agrees", "undecided": "undecided", "noise": "undecided: the map is noise"}
        rows.append({**row, "this run": left, "verdict": known.get(found["verdict"], "differs")})
    return rows


def _unsmoothed(name: str, named: pd.DataFrame) -> str:
    """The map that the test "smooth" has smoothed, if it is among the others."""
    if name == CONTROL:
        return name
    plain = str(replace(parse(name), smoothing=""))
    return plain if plain in named.index else name


def turned_over(found: Randomization, named: pd.DataFrame, *, bound: float = SAME_RANKS) -> dict[str, float]:
    """Maps that are the same in the end but for their sign, which in some images has turned, with their likeness.

    A signed similarity would praise them as changed.

    Parameters
    ----------
    found
        One test.
    named
        As :func:`~xaitools.study.method_table` returns it.
    bound
        The likeness, the mean over images of the rank correlation regardless of its sign, from which they are the same.

    Returns
    -------
    dict
        By label.
    """
    signed = found.table[(found.table["similarity"] == "spearman") & ~found.table["absolute"].astype(bool)]
    last = signed[signed["k"] == signed["k"].max()]
    means = {
        name: (values.abs().mean(), values.mean())
        for name, values in last.groupby("method", sort=False)["value"]
    }
    return {
        _label(name, named): float(either) for name, (either, mean) in means.items() if mean < bound <= either
    }


def _cell(row: Any, digits: int) -> str:
    return f"{row.verdict} ({_number(row.value, digits)})" if np.isfinite(row.value) else str(row.verdict)


def _number(value: float, digits: int = 2) -> str:
    return f"{round(value, digits) + 0.0:.{digits}f}"  # no -0


def _label(name: str, named: pd.DataFrame) -> str:
    return named.at[name, "label"] if name in named.index else "noise" if name == CONTROL else name


def _layer(model: nn.Module, name: str) -> str:
    """A step's name with the kind of its first layer."""
    first = name.split(" + ")[0]
    return f"{first} {type(model.get_submodule(first)).__name__}" if name else "none"
