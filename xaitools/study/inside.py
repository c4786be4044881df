"""Looking inside a network: what the notebook shows of prototypes, neighbours and training images that mattered."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from xaitools.data import Volumes
from xaitools.errors import DataError
from xaitools.interpretation import (
    Surrogate,
    features,
    influence_agreement,
    influence_table,
    leave_one_out,
    mmd_critic,
    surrogate_tree,
    training_influence,
)
from xaitools.models import build_network, predict
from xaitools.study.network import Trained, train_or_load
from xaitools.study.regions import Regions, labels_of
from xaitools.study.run import Run


def common_regions(samples: Volumes, regions: Regions) -> dict[int, str]:
    """Numbers and names of the structures that the label maps of all these brains have.

    Raises
    ------
    DataError
        If they have no label maps, or no structure in common.
    """
    numbers = set(labels_of(samples, regions))
    for i in range(len(samples)):
        numbers &= set(np.unique(samples.label_map(i)).tolist())
    if not numbers:
        raise DataError(
            "no structure is in the label maps of all brains; expected one or more: take smaller voxels (`spacing`), "
            "in which small structures keep a voxel."
        )
    return {number: regions.label_names.get(number, f"label {number}") for number in sorted(numbers)}


def examples_by_class(
    net: Trained, samples: Volumes, n_prototypes: int = 3, n_criticisms: int = 2
) -> tuple[list[int], list[str]]:
    """Prototypes and criticisms of each class in the space of the network's features.

    Returns
    -------
    positions
        Of the samples, those of the first class first, prototypes before criticisms.
    captions
        What each is: "prototype, female", with the network's answer where that is wrong: "criticism, female (as male)".
    """
    values = features(net.model, samples.images).numpy()
    said = predict(net.model, samples.images).argmax(dim=1)
    positions, captions = [], []
    for number, name in enumerate(samples.class_names):
        own = np.flatnonzero(samples.labels.numpy() == number)
        few = min(n_prototypes, len(own) - 1)
        found = mmd_critic(values[own], few, min(n_criticisms, len(own) - few))
        for what, chosen in (("prototype", found.prototypes), ("criticism", found.criticisms)):
            for position in own[list(chosen)]:
                wrong = "" if said[position] == number else f" (as {samples.class_names[said[position]]})"
                positions.append(int(position))
                captions.append(f"{what}, {name}{wrong}")
    return positions, captions


def surrogate(
    run: Run, net: Trained, training: Volumes, held_out: Volumes, names: Mapping[int, str], **options: Any
) -> Surrogate | None:
    """The tree of `xaitools.interpretation.surrogate_tree`, its fidelity recorded; None if the network names one class.

    Parameters
    ----------
    run
        Where the fidelities are recorded.
    net
        A network of classes.
    training, held_out, names, **options
        As `xaitools.interpretation.surrogate_tree` takes them.
    """
    if len(predict(net.model, training.images).argmax(dim=1).unique()) < 2:
        return None
    tree = surrogate_tree(net.model, training, held_out, names, **options)
    for row in tree.scores.itertuples():
        run.record(metric=f"surrogate: fidelity, {row.which}", value=row.fidelity, model=net.name, n=row.n)
    return tree


@dataclass(frozen=True)
class InfluenceCheck:
    """TracIn of a small training, and whether training again without an image says the same.

    Attributes
    ----------
    table
        As `xaitools.interpretation.influence_table` returns it.
    agreement
        As `xaitools.interpretation.influence_agreement`: Spearman's correlation for each test image.
    mislabelled
        Ranks, from 1, of the training images whose labels were turned on purpose, among all by their influence on
        themselves, which is large where a label has to be learnt by heart; empty where none was turned.
    n_training
        Training images.
    n_left_out
        Of these, those without which the network was trained again.
    """

    table: pd.DataFrame
    agreement: pd.DataFrame
    mislabelled: list[int]
    n_training: int
    n_left_out: int

    @property
    def spearman(self) -> float:
        """Mean over the test images."""
        return float(self.agreement["spearman"].mean())


def influence_check(
    run: Run,
    network: str,
    training: Volumes,
    validation: Volumes,
    test: Volumes,
    folder: Path,
    *,
    n_left_out: int = 8,
    n_turned: int = 1,
    seed: int = 0,
    device: str = "auto",
    progress: bool = True,
    **settings: Any,
) -> InfluenceCheck:
    """Which training images made the network what it is, checked by training again without some, and by wrong labels.

    Parameters
    ----------
    run
        Where the correlation and the ranks are recorded.
    network
        Name of a small network.
    training, validation, test
        Two classes; `test` is what influence is on.
    folder
        Where the weights of the epochs are kept.
    n_left_out
        Training images to leave out, one at a time, those turned among them: so many more trainings.
    n_turned
        Training images that get the label of the other class.
    seed, device, **settings
        As for :func:`~xaitools.study.train_or_load`.
    progress
        Show a bar over the trainings.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(training)).tolist()
    turned = order[:n_turned]
    labels = training.labels.clone()
    labels[turned] = 1 - labels[turned]
    wrong = replace(training, labels=labels)
    same = {"seed": seed, "device": device, **settings}
    net = train_or_load("", network, wrong, validation, keep_epochs=folder, progress=False, **same)
    rate = settings.get("learning_rate", 1e-3)
    assert net.history is not None
    last = net.history.best_epoch + 1
    traced: dict[str, Any] = {"last": last, "learning_rate": rate, "progress": False}
    influence = training_influence(net.model, wrong, test, folder, **traced)
    on_itself = training_influence(net.model, wrong, wrong, folder, **traced).diagonal()
    chosen = sorted(order[: max(n_left_out, n_turned)])
    size = tuple(training.images.shape[2:])
    fresh = build_network(
        network, in_channels=training.images.shape[1], n_outputs=2, input_size=size, seed=seed
    )
    retrained = leave_one_out(fresh, wrong, validation, test, chosen, progress=progress, **same)
    agreement = influence_agreement(influence[:, chosen], retrained)
    by_heart = on_itself.argsort(descending=True).tolist()
    ranks = sorted(by_heart.index(position) + 1 for position in turned)
    table = influence_table(influence, wrong, test, k=3)
    run.record(
        metric="influence: Spearman with leaving one out",
        value=agreement["spearman"].mean(),
        model=network,
        n=len(chosen),
    )
    for rank in ranks:
        run.record(
            metric="influence: rank of a turned label by its influence on itself",
            value=rank,
            model=network,
            n=len(training),
        )
    return InfluenceCheck(table, agreement, ranks, len(training), len(chosen))
