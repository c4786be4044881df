import pytest
import torch

from xaitools.data import Samples
from xaitools.errors import WeightsError
from xaitools.models import save_weights
from xaitools.models.weights import WeightsInfo
from xaitools.study import train_or_load, training_figure

SETTINGS = {"max_epochs": 2, "batch_size": 4, "progress": False, "device": "cpu"}


def samples(n, offset=0, size=32, **options):
    images = torch.rand(n, 1, size, size, generator=torch.Generator().manual_seed(offset))
    names = tuple(f"sub-{offset + i}" for i in range(n))
    return Samples(images, options.pop("labels", torch.arange(n) % 2), names, names, **options)


@pytest.fixture(scope="module")
def trained():
    parts = samples(8, class_names=("no", "yes")), samples(4, 100, class_names=("no", "yes"))
    return parts, train_or_load("", "resnet10", *parts, **SETTINGS)


def test_a_network_is_trained_once_and_then_taken_from_the_cache(trained):
    parts, net = trained
    again = train_or_load("", "resnet10", *parts, **SETTINGS)
    assert (net.name, net.start, net.cached) == ("resnet10", "random weights", False)
    assert again.cached
    assert again.fingerprint == net.fingerprint
    assert again.history == net.history
    assert not net.model.training
    assert net.model(parts[0].images).shape == (8, 2)


def test_the_course_of_a_training_is_drawn_and_saved(trained, run):
    figure = training_figure(run, trained[1])
    assert {trace.name for trace in figure.data} == {
        "training loss",
        "validation loss",
        "validation accuracy",
    }
    assert "cross-entropy" in figure.layout.title.subtitle.text
    assert (run.output_dir / "figures" / "training.html").exists()


def test_a_regression_is_measured_in_its_unit(run):
    parts = [samples(n, n, 64, labels=torch.linspace(1, 2, n), unit="px") for n in (8, 4)]
    net = train_or_load("", "resnet10", *parts, **SETTINGS)
    assert net.model(parts[0].images).shape == (8, 1)
    figure = training_figure(run, net, unit="px", name="training_resnet10")
    assert "validation MAE (px)" in {trace.name for trace in figure.data}
    assert "cross-entropy" not in figure.layout.title.subtitle.text


def test_a_weights_file_is_loaded_and_named_without_its_folder(trained, run, tmp_path):
    parts, net = trained
    path = tmp_path / "my weights.safetensors"
    save_weights(net.model, path, WeightsInfo("resnet10", 1, ("no", "yes"), "", (32, 32)))
    loaded = train_or_load(str(path), "resnet10", *parts, **SETTINGS)
    assert (loaded.name, loaded.start, loaded.cached) == ("my_weights_safetensors", "the file", False)
    assert loaded.fingerprint == net.fingerprint
    assert training_figure(run, loaded) is None
    assert list((run.output_dir / "figures").iterdir()) == []


FACTORIES = """
from torch import nn


def for_images_of_16():
    return nn.Sequential(nn.Flatten(), nn.Linear(256, 2))


def one_score():
    return nn.Sequential(nn.Flatten(), nn.Linear(1024, 1))
"""


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("for_images_of_16", r"stops at the first image .*images of shape \(1, 32, 32\)"),
        ("one_score", "gives 1 outputs for an image .*expected 2, one for each class"),
    ],
)
def test_a_network_that_does_not_fit_the_images_is_refused_at_once(
    factory, message, trained, tmp_path, monkeypatch
):
    (tmp_path / "odd_networks.py").write_text(FACTORIES)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(WeightsError, match=message):
        train_or_load(f"odd_networks:{factory}", "resnet10", *trained[0], **SETTINGS)
