"""Folds times runs: which networks are trained, with what, and how good they are."""

import numpy as np
import pytest
import torch
from torch import nn

from xaitools.data import Samples
from xaitools.errors import DataError, DivergedError, ParameterError
from xaitools.study import (
    Context,
    check_contexts,
    context_accuracies,
    folds_and_runs,
    group_of,
    permuted_folds,
    permuted_labels,
)
from xaitools.study.network import Trained


def samples(labels):
    names = tuple(f"sub-{i + 1:03d}" for i in range(len(labels)))
    images = torch.tensor(labels, dtype=torch.float32)[:, None, None, None].expand(-1, 1, 2, 2).clone()
    return Samples(images, torch.tensor(labels), names, names, class_names=("control", "patient"))


FOLDS = [(samples([0, 1, 0, 1]), samples([0, 1])), (samples([1, 0, 1, 0]), samples([1, 0]))]


@pytest.fixture
def made(monkeypatch):
    """What was asked for, in place of trainings; seed 11 diverges."""
    calls = []

    def train_or_load(source, network, training, validation, *, seed, progress, **settings):
        if seed == 11:
            raise DivergedError("the loss was never finite")
        calls.append((source, training, seed, settings))
        return Trained(network, nn.Identity(), "random weights")

    monkeypatch.setattr("xaitools.study.network.train_or_load", train_or_load)
    return calls


def train(model="", **options):
    return folds_and_runs(model, "net", FOLDS, **{"n_runs": 2, "seed": 5, "progress": False, **options})


def test_every_fold_is_trained_in_every_run_and_runs_differ_in_their_seed_only(made):
    nets, diverged = train(max_epochs=2)
    assert list(nets) == [Context(1, 1), Context(1, 2), Context(2, 1), Context(2, 2)]
    assert [str(own) for own in nets][:2] == ["fold 1, run 1", "fold 1, run 2"]
    assert Context(2, 1).file == "fold-2_run-1"
    assert [(training is FOLDS[0][0], seed) for _, training, seed, _ in made] == [
        (True, 5), (True, 6), (False, 5), (False, 6),
    ]  # fmt: skip
    assert {settings["max_epochs"] for *_, settings in made} == {2}
    assert diverged == {}


def test_named_networks_are_the_runs_of_the_first_fold(made):
    nets, _ = train("a.pt, package:make")
    assert list(nets) == [Context(1, 1), Context(1, 2)]
    assert [source for source, *_ in made] == ["a.pt", "package:make"]


def test_a_diverged_training_is_named_or_left_out(made):
    with pytest.raises(DivergedError, match="fold 1, run 2: the loss was never finite, or set skip_failed"):
        train(seed=10)
    nets, diverged = train(seed=10, skip_failed=True)
    assert list(nets) == [Context(1, 1), Context(2, 1)]
    assert list(diverged) == ["fold 1, run 2", "fold 2, run 2"]
    with pytest.raises(DataError, match="all 2 trainings diverged"):
        train(seed=11, n_runs=1, skip_failed=True)


@pytest.mark.parametrize(("folds", "runs"), [(1, 2), (2, 1)])
def test_one_fold_or_run_is_no_comparison_but_one_named_network_is_welcome(folds, runs):
    with pytest.raises(ParameterError, match="needs two or more of both"):
        check_contexts("", folds, runs)
    check_contexts("one.pt", folds, runs)
    check_contexts("", 2, 2)


class Means(nn.Module):
    """Calls an image a patient if it is bright; the other way round if `turned`."""

    def __init__(self, turned=False):
        super().__init__()
        self.sign = -1 if turned else 1

    def forward(self, images):
        bright = self.sign * (images.mean((1, 2, 3)) - 0.5) * 10
        return torch.stack([-bright, bright], dim=1)


def test_accuracies_are_measured_on_every_set_and_recorded(run, recorded):
    nets = {
        Context(1, 1): Trained("net", Means(), ""),
        Context(2, 1): Trained("net", Means(turned=True), ""),
    }
    table = context_accuracies(run, nets, FOLDS, samples([0, 0, 1]), network="net")
    assert table[["training", "validation", "test"]].to_numpy().tolist() == [[1, 1, 1], [0, 0, 0]]
    found = recorded()
    assert found["", "balanced accuracy, test, mean"] == 0.5


def test_permuted_labels_keep_their_number_and_a_participant_has_one():
    subjects = tuple(f"sub-{i // 2:03d}" for i in range(32))
    names = tuple(f"{subject}_img-{i % 2 + 1}" for i, subject in enumerate(subjects))
    own = Samples(
        torch.zeros(32, 1, 2, 2), torch.arange(32) // 2 % 2, subjects, names, ("control", "patient")
    )
    found = permuted_labels(own, seed=1)
    assert sorted(found.labels.tolist()) == sorted(own.labels.tolist())
    assert not torch.equal(found.labels, own.labels)
    for subject in set(own.subjects):
        assert len({int(found.labels[i]) for i, name in enumerate(own.subjects) if name == subject}) == 1
    assert torch.equal(found.images, own.images)
    assert torch.equal(found.labels, permuted_labels(own, seed=1).labels)


def test_both_sets_of_a_fold_are_permuted():
    folds = [(samples([0, 1] * 10), samples([0, 1] * 8))]
    ((training, validation),) = permuted_folds(folds, seed=0)
    assert not torch.equal(training.labels, folds[0][0].labels)
    assert not torch.equal(validation.labels, folds[0][1].labels)


def test_a_group_is_of_one_class_and_leaves_others_apart():
    every = samples([0, 1, 1, 0, 1, 1])
    group = group_of(every, 1, apart=every[[2]], n=2)
    assert group.names == ("sub-002", "sub-005")
    assert len(group_of(every, 1)) == 4
    with pytest.raises(DataError, match="nobody of class 'patient'"):
        group_of(every, 1, apart=every)
    assert np.all(group.labels.numpy() == 1)
