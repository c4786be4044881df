"""What some methods promise of the sum of a map, checked on the network that was explained."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from xaitools.attribution import Maps, attribute, parse
from xaitools.models import Network, predict_values
from xaitools.study.run import Run

PATHS = ("integrated_gradients", "blur_integrated_gradients", "idgi")


def completeness(
    run: Run,
    model: nn.Module,
    images: Float[Tensor, "n channel *spatial"],
    target: int | None,
    methods: Sequence[str],
    named: pd.DataFrame,
    *,
    steps: int,
    network: str = "",
) -> tuple[pd.DataFrame, dict[str, float]]:
    """Does a map of integrated gradients add up to the output for the image minus that for the baseline?

    Parameters
    ----------
    run
        Where the gaps are recorded.
    model, images, target, steps
        As for `xaitools.attribution.attribute`.
    methods
        Names of maps; those of :data:`PATHS` are checked, before smoothing.
    named
        As :func:`~xaitools.study.method_table` returns it.
    network
        Name of the network, where there are several.

    Returns
    -------
    table : DataFrame
        One row a path: change of the output and gap, in the unit of the output, and their quotient.
    shares : dict
        The quotients by label, for :func:`xaitools.study.words.incomplete`.
    """
    paths = {
        parse(name).source: base
        for name, base in named["base"].loc[list(methods)].items()
        if parse(name).base in PATHS
    }
    checked = attribute(model, images, target, list(paths), steps=steps, progress=False) if paths else Maps()
    rows, shares = [], {}
    for name, label in paths.items():
        gap = checked.completeness_gap[name]
        change = (checked[name].flatten(1).sum(1) - gap).abs().mean()
        share = shares[label] = float(gap.abs().mean() / change)
        whose: dict[str, Any] = {"model": network, "method": name, "n": len(gap)}
        run.record(metric="completeness gap", value=gap.abs().mean(), **whose)
        run.record(metric="completeness gap, share", value=share, **whose)
        numbers = [f"{change:.3f}", f"{gap.abs().mean():.3f}", f"{share:.1%}"]
        rows.append([network, label, *numbers])
    columns = ["network", "method", "change of the output", "gap", "gap / change"]
    table = pd.DataFrame(rows, columns=columns)
    return table if network else table.drop(columns="network"), shares


def conservation(
    run: Run,
    model: nn.Module,
    images: Float[Tensor, "n channel *spatial"],
    methods: Sequence[str],
    named: pd.DataFrame,
    *,
    network: str,
) -> pd.DataFrame:
    """Does a map of LRP or Deep Taylor add up to the number that a regression network said?

    Not quite: biases hold a part of it. So the same is asked of the network without biases.

    Parameters
    ----------
    run
        Where the missing shares are recorded.
    model, images
        Network with a single output, and images to explain.
    methods, named
        As for :func:`completeness`; unsmoothed maps of LRP and Deep Taylor are checked.
    network
        Name of the network.

    Returns
    -------
    DataFrame
        One row a network, with and without biases, and method.
    """
    sharing = [name for name in methods if parse(name).base in ("lrp", "deep_taylor") and not _changed(name)]
    rows = []
    prepared = Network(model, images[:1])
    networks = {"kept": prepared, "set to zero": prepared.without_biases} if sharing else {}
    for biases, own in networks.items():
        output = predict_values(own.plain, images)
        maps = attribute(own, images, None, sharing, progress=False)
        for name in sharing:
            total = maps[name].flatten(1).sum(1)
            share = float(((output - total).abs() / output.abs()).mean())
            metric = f"relevance not at the pixels, biases {biases}"
            run.record(metric=metric, value=share, model=network, method=name, n=len(images))
            sums = {"mean output": f"{output.mean():.4g}", "mean sum of relevance": f"{total.mean():.4g}"}
            who = {"network": network, "method": named.at[name, "label"], "biases": biases}
            rows.append({**who, **sums, "not at the pixels": f"{share:.2%}"})
    return pd.DataFrame(rows)


def correlation_of_maps(
    maps: Mapping[str, Shaped[np.ndarray, "n 1 *spatial"]], one: str, other: str
) -> float | None:
    """Mean correlation of two methods' maps over the images; None if one of them is missing."""
    if not {one, other} <= maps.keys():
        return None
    pairs = zip(maps[one], maps[other], strict=True)
    return float(np.mean([np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in pairs]))


def _changed(name: str) -> bool:
    """Whether the sum of the map is no longer that of the method: by smoothing, absolute values or regions."""
    own = parse(name)
    return bool(own.smoothing or own.absolute or own.regions)
