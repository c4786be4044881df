"""Published numbers, to stand beside those of a run."""

import pandas as pd

from xaitools.checks import check_choice
from xaitools.errors import DataError
from xaitools.study.notebooks import notebooks_dir

COLUMNS = ("method", "metric", "network", "value", "sd", "unit", "where")
"""Of ``notebooks/published/STUDY.csv``: whose number it is (empty: of no method, of no network), the number, its
standard deviation if one is printed, and where it stands in the paper."""


def read_published(study: str) -> pd.DataFrame:
    """The published numbers of a study, one a row, from ``published/STUDY.csv`` beside the notebooks.

    They are found from wherever a notebook, or a copy of it, is run.

    Parameters
    ----------
    study
        Name of the study, such as ``"ct_contrast"``.

    Returns
    -------
    DataFrame
        With the columns :data:`COLUMNS`; texts are empty where there is none, `sd` is NaN.

    Raises
    ------
    ParameterError
        If nothing is published under this name.
    DataError
        If a column is missing.
    """
    folder = notebooks_dir() / "published"
    check_choice(study=(study, sorted(path.stem for path in folder.glob("*.csv"))))
    texts = [name for name in COLUMNS if name not in ("value", "sd")]
    table = pd.read_csv(folder / f"{study}.csv", dtype=dict.fromkeys(texts, str))
    if missing := [name for name in COLUMNS if name not in table.columns]:
        raise DataError(
            f"published/{study}.csv has no column {missing}; expected {', '.join(COLUMNS)}: add it."
        )
    return table.fillna(dict.fromkeys(texts, ""))


def published_values(table: pd.DataFrame, **of: str) -> dict[str, float]:
    """Published values by method, of the rows that hold what is asked: ``metric="AOPC", network="vgg16"``."""
    for column, wanted in of.items():
        table = table[table[column] == wanted]
    return dict(zip(table["method"], table["value"], strict=True))


def published_by_metric(table: pd.DataFrame) -> dict[str, float]:
    """Published values by metric, where a study compares no methods."""
    return dict(zip(table["metric"], table["value"], strict=True))


def published_text(table: pd.DataFrame, **of: str) -> str:
    """Published numbers with spread, network and place: "40.17 ± 40.99 px with vgg16 (table 1)"; "" for none.

    Parameters
    ----------
    table
        As :func:`read_published` returns it.
    **of
        What the rows have to hold: ``metric="MAE"``.
    """
    for column, wanted in of.items():
        table = table[table[column] == wanted]
    numbers: dict[str, list[str]] = {}
    for row in table.itertuples():
        spread = "" if pd.isna(row.sd) else f" ± {row.sd:g}"
        place = f"{f'with {row.network} ' if row.network else ''}({row.where})"
        numbers.setdefault(place, []).append(f"{row.value:g}{spread} {row.unit}".strip())
    return "; ".join(f"{', '.join(found)} {place}" for place, found in numbers.items())
