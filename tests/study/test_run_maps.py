"""Maps by repeated trainings, written into a folder a run and averaged over who was recognised."""

import numpy as np
import pytest
import torch

from xaitools.errors import DataFileError
from xaitools.maps import load_map
from xaitools.models import build_network
from xaitools.phantoms import synthetic_brains
from xaitools.study import distances, explain_runs, method_table, run_means, run_tiles
from xaitools.study.network import Trained

METHODS = ["gradient", "input_x_gradient"]


@pytest.fixture(scope="module")
def brains(tmp_path_factory):
    folder = tmp_path_factory.mktemp("brains")
    options = {"spacing": 8.0, "shape": [20, 24, 20], "seed": 0, "cache_dir": folder, "progress": False}
    return synthetic_brains(4, **options)


@pytest.fixture(scope="module")
def nets(brains):
    made = {}
    for seed in (0, 1):
        net = build_network("eitel_cnn_small", in_channels=1, n_outputs=2, input_size=brains.shape, seed=seed)
        made[f"run {seed + 1}"] = Trained("eitel_cnn_small", net.eval(), "random weights")
    return made


@pytest.fixture(scope="module")
def explained(brains, nets, tmp_path_factory):
    folder = tmp_path_factory.mktemp("maps")
    assert explain_runs(nets, brains, METHODS, folder, progress=False) == {}
    return folder


def test_each_run_has_a_folder_of_the_maps_of_its_log_odds(brains, nets, explained):
    for number, net in enumerate(nets.values(), start=1):
        image = brains.images[[1]].requires_grad_()
        logits = net.model(image)[0]
        (expected,) = torch.autograd.grad(logits[1] - logits[0], image)
        found = load_map(explained / f"run-{number}", brains.names[1], "gradient", volume=True)
        np.testing.assert_allclose(found, expected[0, 0].numpy(), rtol=1e-3, atol=1e-7)


def test_maps_that_lie_there_are_not_made_again(brains, nets, explained):
    written = {path: path.stat().st_mtime_ns for path in explained.rglob("*.*")}
    explain_runs(nets, brains, METHODS, explained, progress=False)
    assert {path: path.stat().st_mtime_ns for path in explained.rglob("*.*")} == written


def test_a_method_that_fails_costs_only_itself(brains, nets, tmp_path):
    failed = explain_runs(nets, brains[:1], ["gradient", "expected_gradients"], tmp_path, progress=False)
    assert list(failed) == ["expected_gradients"]
    assert len(list(tmp_path.rglob("*desc-gradient_map.nii.gz"))) == 2


def test_means_are_over_those_of_a_class_that_a_run_recognised(brains, explained):
    found = {"run 1": torch.tensor([0, 1, 0, 1]), "run 2": torch.tensor([1, 1, 0, 0])}
    positives = run_means(explained, brains, METHODS, found, label=1)
    negatives = run_means(explained, brains, METHODS, found, label=0)
    maps = [load_map(explained / "run-1", name, "gradient", volume=True) for name in brains.names]
    expected = (maps[1].astype(np.float64) + maps[3]) / 2
    np.testing.assert_allclose(positives["gradient"][0], expected / abs(expected).max(), rtol=1e-5)
    only = load_map(explained / "run-2", brains.names[2], "gradient", volume=True).astype(np.float64)
    np.testing.assert_allclose(negatives["gradient"][1], only / abs(only).max(), rtol=1e-5)


def test_a_lost_map_is_named(brains, explained):
    found = {"run 3": torch.tensor([0, 1, 0, 1])}
    with pytest.raises(DataFileError, match=f"the map of {brains.names[0]} by gradient, run 3, is missing"):
        run_means(explained, brains, ["gradient"], found, label=1)


def test_distances_are_those_between_the_runs(run, recorded):
    rng = np.random.default_rng(0)
    positives, negatives = (
        {"gradient": rng.standard_normal((3, 2, 3, 2)).astype(np.float32)} for _ in range(2)
    )
    table = distances(run, positives, negatives, network="net")
    own = positives["gradient"].reshape(3, -1).astype(np.float64)
    pairs = [(0, 1), (0, 2), (1, 2)]
    expected = np.mean([np.sqrt(((own[a] - own[b]) ** 2).sum()) for a, b in pairs])
    assert table.at["gradient", "L2, true positives"] == pytest.approx(expected)
    cosines = [own[a] @ own[b] / np.linalg.norm(own[a]) / np.linalg.norm(own[b]) for a, b in pairs]
    assert table.at["gradient", "cosine, true positives"] == pytest.approx(np.mean(cosines))
    assert list(recorded()) == [("gradient", metric) for metric in table.columns]


def test_tiles_show_the_mean_and_every_run():
    slices = {"gradient": np.arange(8.0).reshape(2, 2, 2)}
    tiles = run_tiles(slices, method_table(slices), ["run 1", "run 2"])
    assert list(tiles["BP"]) == ["mean", "run 1", "run 2"]
    np.testing.assert_array_equal(tiles["BP"]["mean"], [[2, 3], [4, 5]])
