"""Short names for the maps of a run, each of them once."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

import pandas as pd

from xaitools.attribution.names import MethodName, parse


def unique_labels(names: Iterable[str], known: Mapping[str, str] | None = None) -> dict[str, str]:
    """A short label for each method of a run, no two of them equal.

    What tells methods apart is added to the labels that would else be one: the option, and "abs" where the
    absolute value is taken.

    Parameters
    ----------
    names
        Full names of the methods.
    known
        Labels to use for some of them, such as those of a paper; one under the bare name of a method, "occlusion",
        is for all its options.

    Examples
    --------
    >>> unique_labels(["occlusion[32:16]", "occlusion[16:8]", "gradient", "gradient+absolute"])
    {'occlusion[32:16]': 'OCC 32:16', 'occlusion[16:8]': 'OCC 16:8', 'gradient': 'BP', 'gradient+absolute': 'BP abs'}
    """
    table = method_table(names, known)
    return dict(zip(table.index, table["label"], strict=True))


def method_table(names: Iterable[str], known: Mapping[str, str] | None = None) -> pd.DataFrame:
    """How the methods of a run are called in its figures and tables.

    Parameters
    ----------
    names, known
        As for :func:`unique_labels`.

    Returns
    -------
    DataFrame
        One row a method, indexed by its full name: ``label``, unique; ``base``, the label without smoothing
        and unit, unique among the maps that share both; ``smoothing``, "plain" for none; ``unit``, "pixel" or
        "region".

    Raises
    ------
    MethodError
        If a name cannot be read.
    """
    known = known or {}
    parsed = {name: parse(name) for name in names}
    bases = _distinct({own: _base_label(own, known) for own in map(_unsmoothed, parsed.values())})
    rows = {}
    for name, own in parsed.items():
        base = known.get(name) or bases[_unsmoothed(own)]
        smoothing = "" if own.smoothing_label == "plain" or name in known else f" {own.smoothing_label}"
        region = " region" if own.regions and name not in known else ""
        rows[name] = {
            "label": base + smoothing + region,
            "base": base,
            "smoothing": own.smoothing_label,
            "unit": own.unit_label,
        }
    table = pd.DataFrame.from_dict(rows, orient="index", columns=["label", "base", "smoothing", "unit"])
    for columns in (["label"], ["base", "smoothing", "unit"]):
        repeated = table.duplicated(columns, keep=False)
        table.loc[repeated, columns[0]] = table.index[repeated]
    return table


def _unsmoothed(name: MethodName) -> MethodName:
    return replace(name, smoothing="", regions="")


def _base_label(name: MethodName, known: Mapping[str, str]) -> str:
    return known.get(str(name)) or known.get(name.source) or known.get(name.base) or name.base_label


def _distinct(labels: dict[MethodName, str]) -> dict[MethodName, str]:
    """Labels with what tells methods of one label apart."""
    distinct = {}
    for name, label in labels.items():
        same = [other for other, own in labels.items() if own == label]
        option = f" {name.option}" if len({other.option for other in same}) > 1 else ""
        absolute = " abs" if name.absolute and len({other.absolute for other in same}) > 1 else ""
        distinct[name] = label + option + absolute
    return distinct
