"""Maps by repeated trainings: each run's mean map, and how far the runs are apart."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float, Float32

from xaitools.data import Volumes
from xaitools.errors import DataFileError
from xaitools.evaluation import cosine, mean_maps, mean_over_pairs, pairwise_l2, rank_correlation
from xaitools.maps import load_map
from xaitools.models import log_odds
from xaitools.study.explaining import explain_each
from xaitools.study.run import Run
from xaitools.study.runs import Predicted, Runs

MeanMaps = dict[str, Float32[np.ndarray, "runs x y z"]]
"""By full name of the method, the mean map of each run."""


def explain_runs(
    nets: Runs, samples: Volumes, methods: Sequence[str], folder: Path, *, progress: bool = True
) -> dict[str, Exception]:
    """Maps of the log-odds of each run's network, written into one folder a run, or found there.

    Parameters
    ----------
    nets
        Networks of two classes by run.
    samples
        Whom to explain.
    methods
        Full names of the maps.
    folder
        Where the folders of the runs lie.
    progress
        Show a bar for each run.

    Returns
    -------
    dict
        The error of each method that failed; none of its maps is to be used.

    Raises
    ------
    XaitoolsError
        If all methods fail.
    """
    failed: dict[str, Exception] = {}
    for name, net in nets.items():
        device = next(net.model.parameters()).device
        score = log_odds(net.model, samples.images[[0]].to(device))
        key = {"weights": net.fingerprint, "score": "log-odds"}
        own = run_folder(folder, name)
        for _ in explain_each(
            score, samples, methods, own, key=key, failed=failed, what=f"brain, {name}", progress=progress
        ):
            pass  # they are read again one by one: all of them need not fit into memory
    return failed


def run_means(
    folder: Path, samples: Volumes, methods: Sequence[str], found: Predicted, *, label: int
) -> MeanMaps:
    """Mean map of each run over the samples of a class that it recognised, divided by its maximum.

    Parameters
    ----------
    folder, samples, methods
        As :func:`explain_runs` took them.
    found
        What each run says of the samples.
    label
        1 for the true positives, 0 for the true negatives.
    """
    means = {}
    for method in methods:
        maps = (maps_of_run(folder, name, samples, method) for name in found)
        mean = mean_maps(maps, found.values(), samples.labels, label=label)
        means[method] = mean.astype(np.float32)
    return means


def maps_of_run(
    folder: Path, name: str, samples: Volumes, method: str
) -> Iterator[Float32[np.ndarray, "x y z"]]:
    """The maps of one run and method, read from disk one after the other."""
    return (stored_map(folder, name, sample, method) for sample in samples.names)


def stored_map(folder: Path, name: str, sample: str, method: str) -> Float32[np.ndarray, "x y z"]:
    """One map that :func:`explain_runs` wrote.

    Raises
    ------
    DataFileError
        If it is no longer there, or damaged.
    """
    found = load_map(run_folder(folder, name), sample, method, volume=True)
    if found is None:
        raise DataFileError(
            f"the map of {sample} by {method}, {name}, is missing or damaged: explain it again."
        )
    return found


def run_folder(folder: Path, name: str) -> Path:
    """Where the maps of a run lie: "run 1" in ``run-1``."""
    return folder / name.replace(" ", "-")


def distances(run: Run, positives: MeanMaps, negatives: MeanMaps, *, network: str) -> pd.DataFrame:
    """How far the mean maps of each two runs are apart, mean over the pairs; also recorded.

    Parameters
    ----------
    run
        Where the numbers are recorded.
    positives, negatives
        As :func:`run_means` returns them, of the true positives and true negatives.
    network
        Name of the network.

    Returns
    -------
    DataFrame
        One row a method, indexed by its full name: the ``L2`` distance of both groups; ``rank correlation`` and
        ``cosine`` of the true positives.
    """
    rows = {}
    for name, own in positives.items():
        values = {
            "L2, true positives": mean_over_pairs(pairwise_l2(own)),
            "L2, true negatives": mean_over_pairs(pairwise_l2(negatives[name])),
            "rank correlation, true positives": mean_over_pairs(rank_correlation(own)),
            "cosine, true positives": mean_over_pairs(cosine(own)),
        }
        for metric, value in values.items():
            run.record(metric=metric, value=value, method=name, model=network, n=len(own))
        rows[name] = values
    return pd.DataFrame.from_dict(rows, orient="index")


def run_tiles(
    positives: Mapping[str, Float[np.ndarray, "runs row column"]], named: pd.DataFrame, runs: Sequence[str]
) -> dict[str, dict[str, Float[np.ndarray, "row column"]]]:
    """Slices of mean maps, one row a method and one column a run, their mean first: for `plots.map_panel`."""
    return {
        named.at[name, "label"]: {"mean": own.mean(axis=0), **dict(zip(runs, own, strict=True))}
        for name, own in positives.items()
    }
