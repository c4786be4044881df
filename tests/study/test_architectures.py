"""The random search: what is drawn, and who wins."""

import json

import pytest
import torch
from torch import nn

from xaitools.data import Samples
from xaitools.errors import DataError, DivergedError
from xaitools.models import build_network
from xaitools.study import draw_architectures, search_architectures
from xaitools.study.network import Trained

NAMES = ("sub-001", "sub-002")
PART = Samples(
    torch.zeros(2, 1, 9, 9, 9), torch.tensor([0, 1]), NAMES, NAMES, class_names=("control", "patient")
)
PART.images[1] = 1


def test_what_is_drawn_is_different_fits_and_repeats():
    drawn = draw_architectures(12, (9, 10, 9), seed=3)
    assert len({own["network"] for own in drawn}) == 12
    for own in drawn:
        assert 1e-5 <= own["learning_rate"] <= 1e-3
        assert build_network(own["network"], input_size=(9, 10, 9)) is not None
    assert drawn == draw_architectures(12, (9, 10, 9), seed=3)
    assert drawn != draw_architectures(12, (9, 10, 9), seed=4)


class Says(nn.Module):
    def __init__(self, right):
        super().__init__()
        self.right = right

    def forward(self, images):
        bright = images.mean((1, 2, 3, 4)) - 0.5
        return torch.stack([-bright, bright], 1) if self.right else torch.stack([bright, -bright], 1)


def test_the_best_on_the_validation_set_wins_and_stands_in_the_manifest(run, monkeypatch):
    drawn = draw_architectures(3, (9, 9, 9), seed=0)
    best = drawn[1]["network"]

    def train(model, network, training, validation, *, seed, learning_rate, **_):
        if network == drawn[2]["network"]:
            raise DivergedError("never finite")
        return Trained(network, Says(network == best), "")

    monkeypatch.setattr("xaitools.study.network.train_or_load", train)
    table = search_architectures(run, 3, PART[[0, 1]], PART, seed=0, progress=False, max_epochs=1)
    assert table["network"].iloc[0] == best
    assert table["balanced accuracy, validation"].tolist() == [1.0, 0.5, 0.0]
    manifest = json.loads((run.output_dir / "manifest.json").read_text())
    assert manifest["architectures"][0]["network"] == best


def test_a_search_in_which_all_diverge_is_refused(run, monkeypatch):
    def train(*_, **__):
        raise DivergedError("never finite")

    monkeypatch.setattr("xaitools.study.network.train_or_load", train)
    with pytest.raises(DataError, match="all 2 architectures diverged"):
        search_architectures(run, 2, PART, PART, progress=False)
