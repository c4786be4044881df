"""Repeated trainings: which are made, which are left out, and what is written of them."""

import pytest
import torch

from xaitools.data import Samples
from xaitools.errors import DataError, DivergedError, ParameterError
from xaitools.study import (
    check_runs,
    in_turn,
    predictions_table,
    repeated_trainings,
    run_accuracies,
    runs_to_explain,
)
from xaitools.study.network import Trained

TRUTH = torch.tensor([0, 1, 0, 1])
NAMES = ("sub-001", "sub-002", "sub-003", "sub-004")
PART = Samples(torch.zeros(4, 1, 2, 2), TRUTH, NAMES, NAMES, class_names=("no", "yes"))
NET = Trained("net", torch.nn.Identity(), "random weights")
SAID = {"run 1": torch.tensor([0, 1, 1, 1]), "run 2": torch.tensor([0, 0, 0, 1])}


@pytest.fixture
def made(monkeypatch):
    """What was asked for, in place of trainings; seed 11 diverges."""
    calls = []

    def train_or_load(source, network, training, validation, *, seed, progress, **settings):
        if seed == 11:
            raise DivergedError("the loss was never finite")
        calls.append((source, seed, settings))
        return Trained(f"{source or network} {seed}", torch.nn.Identity(), "random weights")

    monkeypatch.setattr("xaitools.study.network.train_or_load", train_or_load)
    return calls


def train(model="", **options):
    options = {"n_runs": 3, "seed": 0, "progress": False, **options}
    return repeated_trainings(model, "net", PART, PART, **options)


def test_runs_differ_in_their_seed_only(made):
    nets, diverged = train(max_epochs=2)
    assert {name: net.name for name, net in nets.items()} == {
        "run 1": "net 0",
        "run 2": "net 1",
        "run 3": "net 2",
    }
    assert made == [("", seed, {"max_epochs": 2}) for seed in range(3)]
    assert diverged == {}


def test_named_networks_take_the_place_of_trainings(made):
    nets, _ = train("a.pt, package:make")
    assert list(nets) == ["run 1", "run 2"]
    assert [source for source, _, _ in made] == ["a.pt", "package:make"]


def test_a_diverged_training_is_named_or_left_out_but_keeps_its_number(made):
    with pytest.raises(DivergedError, match="run 2: the loss was never finite, or set skip_failed"):
        train(seed=10)
    nets, diverged = train(seed=10, skip_failed=True)
    assert list(nets) == ["run 1", "run 3"]
    assert diverged == {"run 2": "the loss was never finite"}
    with pytest.raises(DataError, match="1 trained network, 1 diverged: the agreement of runs needs two"):
        train(seed=10, n_runs=2, skip_failed=True)


@pytest.mark.parametrize(("model", "n_runs"), [("", 1), ("one.pt", 3), ("one.pt,", 3)])
def test_one_run_is_no_comparison(model, n_runs):
    with pytest.raises(ParameterError, match="the agreement of runs needs two or more"):
        check_runs(model, n_runs)


def test_two_runs_or_two_files_are_enough():
    check_runs("", 2)
    check_runs("one.pt,two.pt", 1)


def test_accuracies_are_shares_of_each_class(run, recorded):
    table = run_accuracies(run, SAID, PART, network="net").set_index("run")
    assert list(table.columns) == ["balanced accuracy", "yes found", "no found"]
    assert table.loc["run 1"].to_list() == [0.75, 1.0, 0.5]
    assert table.loc["run 2"].to_list() == [0.75, 0.5, 1.0]
    assert recorded()["", "balanced accuracy, mean over runs"] == 0.75


def test_samples_are_taken_from_both_classes_in_turn():
    labels = torch.tensor([0, 0, 0, 1, 0, 1])
    assert in_turn(labels, 4).tolist() == [0, 1, 3, 5]
    assert in_turn(labels, 99).tolist() == list(range(6))


def test_runs_that_recognise_both_classes_are_explained():
    nets = dict.fromkeys(SAID, NET)
    kept, found, one_sided = runs_to_explain(nets, SAID, TRUTH, torch.tensor([0, 1, 3]))
    assert list(kept) == ["run 1", "run 2"]
    assert found["run 2"].tolist() == [0, 0, 1]
    assert one_sided == []


def test_runs_that_miss_a_class_are_named_or_left_out():
    said = {**SAID, "run 3": torch.tensor([0, 0, 0, 0])}
    nets = dict.fromkeys(said, NET)
    with pytest.raises(DataError, match="run 3: not one of the 4 explained brains of a class was recognised"):
        runs_to_explain(nets, said, TRUTH, range(4))
    kept, found, one_sided = runs_to_explain(nets, said, TRUTH, range(4), skip_failed=True)
    assert list(kept) == list(found) == ["run 1", "run 2"]
    assert one_sided == ["run 3"]
    with pytest.raises(DataError, match="1 run is left"):
        runs_to_explain(nets, said, TRUTH, [0, 1], skip_failed=True)


def test_predictions_stand_by_their_names():
    table = predictions_table(PART, SAID)
    assert table.to_dict("list") == {
        "sample": list(NAMES),
        "label": ["no", "yes", "no", "yes"],
        "run 1": ["no", "yes", "yes", "yes"],
        "run 2": ["no", "no", "no", "yes"],
    }
