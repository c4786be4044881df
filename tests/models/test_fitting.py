from pathlib import Path

import pytest
import torch
from torch import Tensor

from xaitools.errors import ParameterError
from xaitools.models import fit, load_model, read_info


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XAITOOLS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def sets(seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    images = torch.rand(12, 1, 64, 64, generator=torch.Generator().manual_seed(seed))
    labels = 100 * images.mean((1, 2, 3)) + torch.arange(12)
    return images[:8], labels[:8], images[8:], labels[8:]


def fitted(*data: Tensor, **changes: object):
    options = {"unit": "px", "device": "cpu", "progress": False, "max_epochs": 1, "batch_size": 4}
    return fit("vgg8", *(data or sets()), **{**options, **changes})


def test_a_second_call_takes_the_weights_from_the_cache(cache: Path) -> None:
    model, history, cached = fitted()
    again, same_history, now_cached = fitted()
    assert (cached, now_cached) == (False, True)
    assert same_history == history
    images = sets()[0]
    torch.testing.assert_close(again(images), model(images))
    (file,) = (cache / "weights").glob("*.safetensors")
    info = read_info(file)
    assert (info.network, info.class_names, info.unit, info.input_size) == ("vgg8", (), "px", (64, 64))
    torch.testing.assert_close(load_model(str(file), network="", n_outputs=1)(images), model(images))


@pytest.mark.parametrize(
    "changes", [{"seed": 1}, {"max_epochs": 2}, {"augment": ""}, {"copies": 2}, {"learning_rate": 0.01}]
)
def test_other_settings_are_another_training(changes: dict) -> None:
    model, *_ = fitted()
    other, _, cached = fitted(**changes)
    assert not cached
    assert not torch.equal(other.fc.weight, model.fc.weight)


def test_other_data_are_another_training() -> None:
    fitted()
    images, labels, val_images, val_labels = sets()
    assert not fitted(images, labels + 1, val_images, val_labels)[2]
    assert not fitted(images, labels, val_images.flip(0), val_labels)[2]


def test_an_unknown_augmentation() -> None:
    with pytest.raises(ParameterError, match="unknown augmentation 'flip'; known: flip_and_shift, sagittal"):
        fitted(augment="flip")
