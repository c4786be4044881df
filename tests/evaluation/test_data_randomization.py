import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from xaitools.attribution import attribute
from xaitools.errors import ParameterError
from xaitools.evaluation import data_randomization, map_similarity
from xaitools.models import train


def labelled(labels: Tensor, class_names=("no", "yes")) -> SimpleNamespace:
    """Images whose brightness in one half is their label."""
    images = torch.rand(len(labels), 1, 12, 12, generator=torch.Generator().manual_seed(0))
    images[:, :, :, :6] += labels.view(-1, 1, 1, 1)
    return SimpleNamespace(images=images, labels=labels, class_names=class_names, unit="")


def net(n_outputs: int = 2) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(800, 32), nn.ReLU(),
        nn.Linear(32, n_outputs),
    )  # fmt: skip


QUICK = {"max_epochs": 80, "stop_at": 0.1}


def randomised(model, training, target=1, **options):
    options = {"similarities": ["spearman", "ssim"], "training_settings": QUICK, "progress": False, **options}
    return data_randomization(model, training, training.images[:4], target, device="cpu", **options)


@pytest.fixture(scope="module")
def training() -> SimpleNamespace:
    return labelled(torch.arange(20) % 2)


@pytest.fixture(scope="module")
def trained(training) -> nn.Module:
    model = net()
    train(model, training, training, device="cpu", progress=False, augment="", **QUICK)
    return model


@pytest.fixture(scope="module")
def found(trained, training):
    return randomised(trained, training)


def test_the_other_network_knows_permuted_labels(found, trained, training) -> None:
    order = torch.randperm(20, generator=torch.Generator().manual_seed(0))
    assert not torch.equal(training.labels[order], training.labels)
    with torch.no_grad():
        right = (found.model(training.images).argmax(1) == training.labels[order]).float().mean()
        assert (trained(training.images).argmax(1) == training.labels).all()
    assert found.memorised == pytest.approx(float(right))
    assert found.memorised >= 0.95
    assert f"memorised: {found.memorised:.3f}" in repr(found)
    assert f"memorised: {found.memorised:.3f}" in found._repr_html_()


def test_similarities_of_both_networks_maps(found, trained, training) -> None:
    one, other = (
        attribute(model, training.images[:4], 1, progress=False)["gradient"]
        for model in (trained, found.model)
    )
    table = found.table[(found.table.method == "gradient") & (found.table.k == 1)]
    for similarity in ("spearman", "ssim"):
        for absolute in (True, False):
            rows = table[(table.similarity == similarity) & (table.absolute == absolute)]
            np.testing.assert_allclose(
                rows.value, map_similarity(one, other, similarity, absolute=absolute), atol=1e-4
            )
    assert set(table.layer) == {"labels"}
    verdicts = found.verdicts().set_index(["method", "similarity", "absolute"]).verdict
    assert verdicts["gradient", "spearman", False] == "passes"
    assert (verdicts["random"] == "noise").all()


def test_the_model_stays(trained, training) -> None:
    before = copy.deepcopy(trained.state_dict())
    randomised(trained, training, training_settings={"max_epochs": 1})
    assert all(torch.equal(value, trained.state_dict()[key]) for key, value in before.items())


def test_without_memorising_there_is_no_verdict(trained, training) -> None:
    found = randomised(trained, training, training_settings={"max_epochs": 1, "learning_rate": 1e-9})
    assert found.memorised < 0.95
    assert (found.verdicts().verdict == "undecided").all()


def test_a_regression() -> None:
    training = labelled(torch.linspace(0, 10, 16), ())
    model = net(1)
    train(model, training, training, device="cpu", progress=False, augment="", max_epochs=20)
    settings = {"loss": "mean_squared_error", "max_epochs": 150, "stop_at": 0.01}
    found = randomised(model, training, None, training_settings=settings)
    order = torch.randperm(16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        correlation = np.corrcoef(found.model(training.images)[:, 0], training.labels[order])[0, 1]
    assert found.memorised == pytest.approx(correlation**2, abs=0.03)
    assert found.memorised > 0.95


def test_labels_that_cannot_be_permuted(trained) -> None:
    with pytest.raises(ParameterError, match="training has the same label for all images"):
        randomised(trained, labelled(torch.ones(4, dtype=torch.int64)))


def test_a_network_that_was_trained_before(found, trained, training) -> None:
    order = torch.randperm(20, generator=torch.Generator().manual_seed(0))
    permuted = SimpleNamespace(**{**vars(training), "labels": training.labels[order]})
    again = randomised(trained, permuted, memorising=found.model)
    assert again.memorised == found.memorised
    np.testing.assert_array_equal(again.table.value, found.table.value)
