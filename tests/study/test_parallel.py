"""Trainings that joblib spreads over processes are those of one process, to the last bit."""

import joblib
import pytest
import torch

from xaitools.data import Samples
from xaitools.errors import DivergedError
from xaitools.study import repeated_trainings
from xaitools.study.parallel import each

SETTINGS = {"n_runs": 2, "max_epochs": 1, "batch_size": 4, "device": "cpu", "augment": "", "progress": False}


def samples(n, seed):
    images = torch.rand(n, 1, 32, 32, generator=torch.Generator().manual_seed(seed))
    names = tuple(f"sub-{seed + i}" for i in range(n))
    return Samples(images, torch.arange(n) % 2, names, names, class_names=("no", "yes"))


def draws(seed):
    """A number that is wrong as soon as two threads draw at the same time, as trainings do."""
    torch.manual_seed(seed)
    return sum(float(torch.rand(1)) for _ in range(200))


def diverges(number):
    if number == 2:
        raise DivergedError("never finite")
    return number


def test_processes_give_the_weights_of_one_process(monkeypatch, tmp_path):
    parts = samples(8, 0), samples(4, 100)
    weights = {}
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for jobs in (1, 2):
            monkeypatch.setenv("XAITOOLS_CACHE", str(tmp_path / str(jobs)))
            with joblib.parallel_config("loky", n_jobs=jobs, inner_max_num_threads=None if jobs == 1 else 1):
                nets, _ = repeated_trainings("", "resnet10", *parts, **SETTINGS)
            assert not any(net.cached for net in nets.values())
            weights[jobs] = {name: (net.fingerprint, net.history) for name, net in nets.items()}
    finally:
        torch.set_num_threads(before)
    assert weights[1] == weights[2]
    assert list(weights[2]) == ["run 1", "run 2"]


def test_threads_take_turns_with_the_random_numbers_of_their_process():
    expected = [draws(seed) for seed in range(8)]
    with torch.random.fork_rng(), joblib.parallel_config("threading", n_jobs=4):
        found = list(each(draws, [(seed,) for seed in range(8)], what="draws", unit="draw", progress=False))
    assert found == expected


@pytest.mark.parametrize("backend", ["loky", "threading"])
def test_results_come_one_by_one_in_order_and_so_do_errors(backend):
    with joblib.parallel_config(backend, n_jobs=1):
        results = each(diverges, [(0,), (1,), (2,), (3,)], what="", unit="", progress=False)
        assert [next(results), next(results)] == [0, 1]
        with pytest.raises(DivergedError, match="never finite"):
            next(results)
