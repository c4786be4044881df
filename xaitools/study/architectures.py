"""The poster's random search: members of a family of networks, trained once each and judged on the validation set."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import balanced_accuracy_score

from xaitools.checks import check_counts
from xaitools.data import Samples, Volumes
from xaitools.errors import DataError, DivergedError
from xaitools.models import predict
from xaitools.study.network import train_unless_diverged
from xaitools.study.parallel import each
from xaitools.study.run import Run

FILTERS, LINEAR, DROPOUT = (4, 8, 16), (1, 2, 3), (0.0, 0.9)
LEARNING_RATE = 1e-5, 1e-3
"""Ranges from which members are drawn; the learning rate on a logarithmic scale. The poster does not print its own."""


def draw_architectures(n: int, shape: Sequence[int], *, seed: int = 0) -> list[dict[str, Any]]:
    """Members of the family ``gm_cnn`` with a learning rate each, that fit volumes of `shape`.

    Parameters
    ----------
    n
        How many, all different.
    shape
        Voxels along each axis.
    seed
        Same seed, same members.
    """
    check_counts(n=n)
    most = int(np.log2(min(shape)))
    rng = np.random.default_rng(seed)
    drawn: dict[str, dict[str, Any]] = {}
    while len(drawn) < n:
        blocks = rng.integers(max(1, most - 2), most + 1)
        dropout = round(100 * rng.uniform(*DROPOUT))
        name = f"gm_cnn_b{blocks}_f{rng.choice(FILTERS)}_l{rng.choice(LINEAR)}_d{dropout}"
        rate = float(f"{np.exp(rng.uniform(*np.log(LEARNING_RATE))):.2g}")
        drawn.setdefault(name, {"network": name, "learning_rate": rate})
    return list(drawn.values())


def search_architectures(
    run: Run,
    n: int,
    training: Samples | Volumes,
    validation: Samples | Volumes,
    *,
    seed: int = 0,
    progress: bool = True,
    **settings: Any,
) -> pd.DataFrame:
    """Train drawn members once each; the best on the validation set first.

    Each training is taken from the cache if it was made before. A member that diverges counts as a coin.

    Parameters
    ----------
    run
        Whose manifest gets the table, as ``architectures``.
    n, seed
        As for :func:`draw_architectures`; the seed is also that of the trainings.
    training, validation
        Of one fold.
    progress
        Show a bar.
    **settings
        Of the training, without the learning rate.

    Returns
    -------
    DataFrame
        ``network``, ``learning_rate``, ``balanced accuracy, validation``; the last as shares, 0 to 1.

    Raises
    ------
    DataError
        If all members diverge.
    """
    drawn, failed = draw_architectures(n, training.images.shape[2:], seed=seed), 0
    calls = [
        (
            "",
            own["network"],
            training,
            validation,
            {"seed": seed, **settings, "learning_rate": own["learning_rate"]},
        )
        for own in drawn
    ]
    done = each(train_unless_diverged, calls, what="architectures", unit="network", progress=progress)
    for own, net in zip(drawn, done, strict=True):
        own["balanced accuracy, validation"] = 0.5
        if isinstance(net, DivergedError):
            failed += 1
            continue
        said = predict(net.model, validation.images).argmax(dim=1)
        own["balanced accuracy, validation"] = float(balanced_accuracy_score(validation.labels, said))
    if failed == n:
        raise DataError(
            f"all {n} architectures diverged: look at the images, or give network and learning_rate"
        )
    table = pd.DataFrame(drawn).sort_values("balanced accuracy, validation", ascending=False, kind="stable")
    run.note(architectures=table.to_dict("records"))
    return table
