"""A network, the same one with a pre-trained encoder, and linear classifiers, compared over the same folds."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool
from sklearn.metrics import balanced_accuracy_score
from tqdm.auto import tqdm

from xaitools.data import Samples, Volumes
from xaitools.models import linear_baseline, predict, pretrain_autoencoder
from xaitools.study.contexts import Context, Contexts, Folds
from xaitools.study.network import train_or_load
from xaitools.study.run import Run

LINEAR = {"svm": "linear SVM on voxels", "logistic": "logistic regression on voxels"}
PLAIN, PRETRAINED = "network", "pre-trained network"


@dataclass(frozen=True)
class Compared:
    """Classifiers over the folds of a cross-validation.

    Attributes
    ----------
    nets
        By name, :data:`PLAIN` and :data:`PRETRAINED`, the networks of the folds.
    accuracies
        A row for each classifier and fold: ``classifier``, ``fold``, and the balanced accuracies ``training`` and
        ``validation``, 0 to 1.
    right
        By name of the classifier, whether it is right of each sample of the validation sets, in their order.
    reconstruction
        A row a fold: mean squared ``error`` of the autoencoder, ``mean image``, that of the mean of the training
        images, and ``explained``, the share of the latter that it removes. Empty without one.
    """

    nets: dict[str, Contexts]
    accuracies: pd.DataFrame
    right: dict[str, Bool[np.ndarray, " n"]]
    reconstruction: pd.DataFrame


def compare_classifiers(
    run: Run,
    network: str,
    folds: Folds,
    *,
    linear: Sequence[str] = ("svm",),
    pretrain_epochs: int = 0,
    seed: int = 0,
    device: str = "auto",
    progress: bool = True,
    **settings: Any,
) -> Compared:
    """Train a network, the same with its encoder from an autoencoder, and linear classifiers on each fold.

    The autoencoder sees the training images of the fold, never a label. Networks come from the cache where they were
    trained before.

    Parameters
    ----------
    run
        Where the accuracies are recorded.
    network
        Name of the network.
    folds
        Training and validation set of each fold; two classes.
    linear
        Kinds of `xaitools.models.linear_baseline`.
    pretrain_epochs
        Most epochs of the autoencoder; 0 for none, and no pre-trained network.
    seed, device, **settings
        As for :func:`~xaitools.study.train_or_load`.
    progress
        Show a bar over the folds.
    """
    nets: dict[str, Contexts] = {PLAIN: {}} if not pretrain_epochs else {PLAIN: {}, PRETRAINED: {}}
    said: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    errors = []
    same: dict[str, Any] = {"seed": seed, "device": device, "progress": False}
    for number, (training, validation) in enumerate(
        tqdm(folds, desc="folds", unit="fold", disable=not progress), 1
    ):
        own = Context(number, 1)
        starts: dict[str, Any] = {PLAIN: None}
        if pretrain_epochs:
            learnt = pretrain_autoencoder(
                network,
                training.images,
                validation.images,
                **same,
                **{**settings, "max_epochs": pretrain_epochs, "patience": pretrain_epochs, "augment": ""},
            )
            starts[PRETRAINED] = learnt.encoder
            found = {
                "error": learnt.error,
                "mean image": learnt.mean_image_error,
                "explained": learnt.explained,
            }
            errors.append({"fold": number, **found})
        for name, start in starts.items():
            net = train_or_load("", network, training, validation, start=start, **same, **settings)
            nets[name][own] = net
            answers = (_classes(net.model, part) for part in (training, validation))
            said.setdefault(name, []).append((next(answers), next(answers)))
        for kind in linear:
            model = linear_baseline(training, validation, kind=kind, seed=seed)
            said.setdefault(LINEAR[kind], []).append((model.training_predicted, model.predicted))
    accuracies = _accuracies(run, said, folds)
    right = {
        name: np.concatenate(
            [
                answers == np.asarray(part.labels)
                for (_, answers), (_, part) in zip(own_said, folds, strict=True)
            ]
        )
        for name, own_said in said.items()
    }
    return Compared(nets, accuracies, right, pd.DataFrame(errors))


def classifiers_table(compared: Compared) -> pd.DataFrame:
    """Mean and standard deviation over the folds of each classifier's balanced accuracies, for a report."""
    rows = []
    for name, own in compared.accuracies.groupby("classifier", sort=False):
        spread = {
            part: f"{own[part].mean():.3f} ({own[part].std(ddof=1):.3f})"
            for part in ("training", "validation")
        }
        rows.append({"classifier": name, **spread})
    return pd.DataFrame(rows)


def _classes(model: Any, samples: Samples | Volumes) -> np.ndarray:
    return predict(model, samples.images).argmax(dim=1).cpu().numpy()


def _accuracies(run: Run, said: dict[str, list[tuple[np.ndarray, np.ndarray]]], folds: Folds) -> pd.DataFrame:
    rows = []
    for name, own in said.items():
        for number, (answers, sets) in enumerate(zip(own, folds, strict=True), 1):
            scores = {}
            for part, samples, classes in zip(("training", "validation"), sets, answers, strict=True):
                scores[part] = float(balanced_accuracy_score(samples.labels, classes))
                run.record(
                    metric=f"balanced accuracy, {part}",
                    value=scores[part],
                    model=name,
                    fold=number,
                    n=len(samples),
                )
            rows.append({"classifier": name, "fold": number, **scores})
    return pd.DataFrame(rows)
