"""Numbers of a run beside the published ones, method by method."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import pandas as pd

from xaitools.attribution.names import MethodName, parse

SIZES = ("occlusion",)
"""Methods whose option is a size, to be chosen with the size of the images: with another one it is the same method."""


def counterparts(published: Iterable[str], names: Sequence[str]) -> dict[str, str]:
    """Which map of a run stands for each published method.

    It is the map of the same name or, where the option is but a size, the only one of that method.

    Parameters
    ----------
    published
        Full names of the methods of a paper.
    names
        Full names of the maps of the run.

    Returns
    -------
    dict
        Name in the run by published name; without those that the run does not have.

    Examples
    --------
    >>> counterparts(["gradient", "lrp[epsilon]", "occlusion[5]"], ["gradient", "lrp[gamma]", "occlusion[3]"])
    {'gradient': 'gradient', 'occlusion[5]': 'occlusion[3]'}
    """
    found = {}
    for own in published:
        same = [name for name in names if _sizeless(name) == _sizeless(own)]
        if own in names or len(same) == 1:
            found[own] = own if own in names else same[0]
    return found


def beside_published(
    values: pd.DataFrame,
    named: pd.DataFrame,
    published: Mapping[str, Mapping[str, float]],
    stands_for: Mapping[str, str],
    form: str = "{:.1f}",
    published_form: str = "{:g}",
) -> pd.DataFrame:
    """A table of texts: each number of this run and, where there are some, the published ones in the next column.

    Parameters
    ----------
    values
        One row a method or control, one column a metric.
    named
        As :func:`~xaitools.study.method_table` returns it.
    published
        By metric, the published value of each published method; of some metrics.
    stands_for
        As :func:`counterparts` returns it.
    form, published_form
        How the numbers are printed: ``"{:.1f} %"``.
    """
    labels = [named.label.get(name, name) for name in values.index]
    table = pd.DataFrame({"method": labels}, index=values.index)
    for metric in values.columns:
        table[metric] = values[metric].map(form.format)
        printed = {
            stands_for[own]: value for own, value in published.get(metric, {}).items() if own in stands_for
        }
        if metric in published:
            table[f"published, {metric}"] = [
                published_form.format(printed[name]) if name in printed else "" for name in values.index
            ]
    return table


def _sizeless(name: str) -> MethodName:
    own = parse(name)
    return replace(own, option="") if own.base in SIZES else own
