"""Scores of many methods on the same images: their means, how sure these are, and where they are written."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float, Shaped

from xaitools.evaluation import mean_interval
from xaitools.study.run import Run

Scores = Mapping[str, Float[np.ndarray, " n"]]
Curve = tuple[str, str]


def mean_scores(
    run: Run, scores: Scores, named: pd.DataFrame, *, metric: str, network: str = "", seed: int = 0
) -> pd.DataFrame:
    """Mean of each method over the images with its 95 % bootstrap interval, also recorded in ``metrics.csv``.

    Parameters
    ----------
    run
        Where the means and bounds are recorded.
    scores
        ``(n,)`` by full name of the method; one that is not among `named`, as "random", is a control.
    named
        As :func:`~xaitools.study.method_table` returns it.
    metric
        What the scores are, as ``metrics.csv`` has it.
    network
        The network that the maps explain.
    seed
        Of the bootstrap.

    Returns
    -------
    DataFrame
        One row a method, in the order of `scores`: ``method``, its full name; ``label``, ``base``,
        ``smoothing`` and ``unit`` as in `named`; ``network``; ``value``, ``low`` and ``high``; ``n``.
    """
    rows = []
    for name, values in scores.items():
        interval = mean_interval(values, seed=seed)
        run.record_interval(interval, metric=metric, method=name, model=network, n=len(values))
        bounds = {"value": float(interval.mean), "low": float(interval.low), "high": float(interval.high)}
        rows.append({**_names(name, named), "network": network, **bounds, "n": len(values)})
    columns = ["method", "label", "base", "smoothing", "unit", "network", "value", "low", "high", "n"]
    return pd.DataFrame(rows, columns=columns)


def mean_curves(
    curves: Mapping[str, Shaped[np.ndarray, "..."]],
    named: pd.DataFrame,
    along: Mapping[str, Sequence[float] | np.ndarray],
    *,
    network: str = "",
    seed: int = 0,
) -> pd.DataFrame:
    """Mean curve of each method over the images with its 95 % bootstrap interval, point by point.

    Parameters
    ----------
    curves
        ``(n, points)`` by full name of the method or control.
    named, network, seed
        As for :func:`mean_scores`.
    along
        Name of the horizontal axis and its points, ``{"fraction": (0, 0.1, ...)}``.

    Returns
    -------
    DataFrame
        One row a point: the columns of :func:`mean_scores` but `n`, and that of `along`.
    """
    tables = []
    for name, values in curves.items():
        interval = mean_interval(values, seed=seed)
        bounds = {"value": interval.mean, "low": interval.low, "high": interval.high}
        tables.append(pd.DataFrame({**_names(name, named), "network": network, **along, **bounds}))
    return pd.concat(tables, ignore_index=True)


def without_least(values: Mapping[Curve, Shaped[np.ndarray, "..."]]) -> dict[str, np.ndarray]:
    """What belongs to the most relevant first, by full name of the method, and to "random" order.

    Parameters
    ----------
    values
        By method and order, as `xaitools.evaluation.RegionCurves` has them.
    """
    return {name: own for (name, order), own in values.items() if order != "least"}


def per_image(
    samples: Sequence[str], scores: Mapping[str, Scores], **same: str | Shaped[np.ndarray, " n"]
) -> pd.DataFrame:
    """Every score of every image, one row an image and method, for ``per_image.csv``.

    Parameters
    ----------
    samples
        Study ids of the images, n.
    scores
        ``(n,)`` by full name of the method, by name of the score.
    **same
        More columns, the same for all methods.
    """
    methods = dict.fromkeys(name for by_method in scores.values() for name in by_method)
    tables = [
        pd.DataFrame(
            {
                "sample": samples,
                "method": name,
                **same,
                **{score: values[name] for score, values in scores.items() if name in values},
            }
        )
        for name in methods
    ]
    return pd.concat(tables, ignore_index=True)


def _names(name: str, named: pd.DataFrame) -> dict[str, str]:
    control = {"label": name, "base": name, "smoothing": "", "unit": ""}
    return {"method": name, **(named.loc[name].to_dict() if name in named.index else control)}
