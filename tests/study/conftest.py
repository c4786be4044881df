import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from xaitools.atlas import Atlas
from xaitools.phantoms import synthetic_brains
from xaitools.study import Context, GroupMasks
from xaitools.study.network import Trained
from xaitools.study.regions import Regions
from xaitools.study.run import Run


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path / "out", study="test", parameters={}, seed=0)


@pytest.fixture
def recorded(run):
    """The numbers that the run has written: ``{(method, metric): value}``."""
    import csv

    def read():
        with (run.output_dir / "metrics.csv").open() as file:
            return {(row["method"], row["metric"]): float(row["value"]) for row in csv.DictReader(file)}

    def finish_and_read():
        run.finish()
        return read()

    return finish_and_read


CONTEXTS = [Context(1, 1), Context(1, 2), Context(2, 1), Context(2, 2)]
"""Trainings of two folds and two runs, of which masks are compared."""


@pytest.fixture(scope="module")
def brains(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache")
    return synthetic_brains(
        6, spacing=12, shape=[14, 16, 14], atrophy=0.5, modality="grey-matter", seed=0, cache_dir=folder,
        progress=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def masks(brains):
    rng = np.random.default_rng(0)
    values = [rng.random(brains.shape).astype(np.float32) for _ in CONTEXTS]
    return GroupMasks(dict(zip(CONTEXTS, values, strict=True)), pd.DataFrame(), pd.DataFrame())


@pytest.fixture(scope="module")
def nets(brains):
    torch.manual_seed(0)
    size = int(np.prod(brains.shape))
    return {own: Trained("net", nn.Sequential(nn.Flatten(), nn.Linear(size, 2)), "") for own in CONTEXTS}


@pytest.fixture(scope="module")
def label_maps(brains):
    names = {int(n): name for n, name in brains.info["label_names"].items()}
    return Regions("the label map of each brain", label_names=names)


@pytest.fixture(scope="module")
def halves(brains):
    labels = np.ones(brains.shape, dtype=int)
    labels[:, 8:] = 2
    return Regions("two halves", Atlas(labels, brains.affine, {1: "back", 2: "front"}))
