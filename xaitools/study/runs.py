"""One training, repeated: the networks, how good each is, and which of them can be explained."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Int
from sklearn.metrics import balanced_accuracy_score
from torch import Tensor

from xaitools.data import Samples, Volumes
from xaitools.errors import DataError, DivergedError, ParameterError
from xaitools.models import predict
from xaitools.study.network import Trained, train_unless_diverged
from xaitools.study.parallel import each
from xaitools.study.run import Run

Runs = dict[str, Trained]
Predicted = dict[str, Int[Tensor, " n"]]


def check_runs(model: str, n_runs: int) -> None:
    """Raise ParameterError if there is nothing to compare: neither two weights files nor two trainings."""
    if not model and n_runs < 2:
        raise ParameterError(f"n_runs={n_runs}: the agreement of runs needs two or more")
    if model and len(_files(model)) < 2:
        raise ParameterError(
            f"model={model!r}: the agreement of runs needs two or more; separate files by commas"
        )


def repeated_trainings(
    model: str,
    network: str,
    training: Samples | Volumes,
    validation: Samples | Volumes,
    *,
    n_runs: int,
    seed: int = 0,
    skip_failed: bool = False,
    progress: bool = True,
    **settings: Any,
) -> tuple[Runs, dict[str, str]]:
    """The same training `n_runs` times with other random numbers, or the networks that a user names.

    ``joblib.parallel_config`` around the call spreads the trainings over processes; see :mod:`xaitools.study.parallel`.

    Parameters
    ----------
    model
        Weights files, separated by commas; "" to train.
    network, training, validation, **settings
        As for :func:`~xaitools.study.train_or_load`.
    n_runs
        How many trainings.
    seed
        Of the first; each of the others has the next number.
    skip_failed
        Leave out trainings that diverge instead of stopping.
    progress
        Show a bar over the runs.

    Returns
    -------
    nets
        The networks by run: "run 1", "run 2", ...
    diverged
        Why runs are missing.

    Raises
    ------
    DivergedError
        If a training diverges and `skip_failed` is not set.
    DataError
        If fewer than two networks are left.
    """
    sources = _files(model) if model else [""] * n_runs
    nets, diverged = Runs(), dict[str, str]()
    calls = [
        (source, network, training, validation, {"seed": seed + number, **settings})
        for number, source in enumerate(sources)
    ]
    done = each(train_unless_diverged, calls, what="trainings", unit="run", progress=progress)
    for number, net in enumerate(done, 1):
        name = f"run {number}"
        if not isinstance(net, DivergedError):
            nets[name] = net
        elif not skip_failed:
            raise DivergedError(f"{name}: {net}, or set skip_failed to leave it out") from None
        else:
            diverged[name] = str(net)
    if len(nets) < 2:
        raise DataError(
            f"{len(nets)} trained network, {len(diverged)} diverged: the agreement of runs needs two or more; lower "
            "learning_rate, or give more runs or weights files"
        )
    return nets, diverged


def predicted_classes(nets: Runs, samples: Samples | Volumes, **options: Any) -> Predicted:
    """The class that each run's network names, by run.

    Parameters
    ----------
    nets
        The networks by run.
    samples
        Whom to classify.
    **options
        Of `xaitools.models.predict`.
    """
    return {name: predict(net.model, samples.images, **options).argmax(dim=1) for name, net in nets.items()}


def run_accuracies(
    run: Run, predicted: Predicted, samples: Samples | Volumes, *, network: str
) -> pd.DataFrame:
    """Balanced accuracy of each run and the share of each class that it found; recorded, with the mean.

    Parameters
    ----------
    run
        Where they are recorded.
    predicted
        As :func:`predicted_classes` returns it.
    samples
        Who was classified; two classes, the positive one last.
    network
        Name of the network.

    Returns
    -------
    DataFrame
        One row a run: ``run``, ``balanced accuracy``, and for both classes ``CLASS found``; shares, 0 to 1.
    """
    truth, rows = samples.labels, []
    for name, classes in predicted.items():
        scores = {"balanced accuracy": float(balanced_accuracy_score(truth, classes))}
        for label in (1, 0):
            found = (classes == label)[truth == label].float().mean()
            scores[f"{samples.class_names[label]} found"] = float(found)
        for metric, value in scores.items():
            run.record(metric=metric, value=value, model=network, run=name, n=len(samples))
        rows.append({"run": name, **scores})
    table = pd.DataFrame(rows)
    mean = np.mean(table["balanced accuracy"])
    run.record(metric="balanced accuracy, mean over runs", value=mean, model=network, n=len(table))
    return table


def in_turn(labels: Int[Tensor, " n"], k: int) -> Int[Tensor, " k"]:
    """Positions, in ascending order, of the first k samples when the classes are taken in turn."""
    before = torch.stack([(labels[:i] == labels[i]).sum() for i in range(len(labels))])
    return torch.argsort(before, stable=True)[:k].sort().values


def runs_to_explain(
    nets: Runs,
    predicted: Predicted,
    labels: Int[Tensor, " n"],
    positions: Sequence[int] | Int[Tensor, " k"],
    *,
    skip_failed: bool = False,
) -> tuple[Runs, dict[str, Int[Tensor, " k"]], list[str]]:
    """The runs that recognise someone of both classes, so that they have mean maps.

    Parameters
    ----------
    nets, predicted
        Networks and predicted classes by run.
    labels
        True classes, 0 and 1.
    positions
        Which samples are explained.
    skip_failed
        Leave out runs that recognise nobody of a class instead of stopping.

    Returns
    -------
    nets
        Those that are left.
    found
        What they say of the explained samples.
    one_sided
        The runs that are left out.

    Raises
    ------
    DataError
        If a run is one-sided and `skip_failed` is not set, or fewer than two are left.
    """
    truth = labels[positions]
    found = {name: classes[positions] for name, classes in predicted.items()}
    one_sided = [name for name, own in found.items() if len(truth[own == truth].unique()) < 2]
    if one_sided and not skip_failed:
        raise DataError(
            f"{', '.join(one_sided)}: not one of the {len(truth)} explained brains of a class was recognised, so "
            "there is no mean map; raise max_epochs or n_explained, or set skip_failed to leave such runs out"
        )
    kept = [name for name in nets if name not in one_sided]
    if len(kept) < 2:
        raise DataError(
            f"{len(kept)} run is left: the agreement of runs needs two or more; raise n_runs or max_epochs"
        )
    return {name: nets[name] for name in kept}, {name: found[name] for name in kept}, one_sided


def predictions_table(samples: Samples | Volumes, predicted: Mapping[str, Int[Tensor, " n"]]) -> pd.DataFrame:
    """What each run says of each sample, one row a sample, for ``per_image.csv``."""
    names = np.array(samples.class_names)
    said = {name: names[classes.numpy()] for name, classes in predicted.items()}
    return pd.DataFrame({"sample": samples.names, "label": names[samples.labels.numpy()], **said})


def _files(model: str) -> list[str]:
    return [file.strip() for file in model.split(",") if file.strip()]
