"""The weights of each epoch that a training keeps."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from xaitools.errors import WeightsError
from xaitools.models import AUGMENTATIONS, epoch_files, fit, load_epoch, train


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XAITOOLS_CACHE", str(tmp_path / "cache"))


def labelled(n: int = 8) -> SimpleNamespace:
    images = torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(n) % 2
    images[:, :, :4] += labels.view(-1, 1, 1, 1)
    return SimpleNamespace(images=images, labels=labels, class_names=("no", "yes"), unit="")


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 2))


OPTIONS = {"device": "cpu", "progress": False, "augment": "", "batch_size": 4, "patience": 9}


def trained(folder: Path | None, max_epochs: int = 3, **options: object) -> nn.Module:
    model = net()
    train(model, labelled(), labelled(), keep_epochs=folder, max_epochs=max_epochs, **OPTIONS, **options)
    return model


def test_each_epoch_is_the_training_that_ends_there(tmp_path: Path) -> None:
    model = trained(tmp_path / "epochs")
    files = epoch_files(tmp_path / "epochs")
    assert [path.name for path in files] == [f"epoch-000{n}.safetensors" for n in (1, 2, 3)]
    for n, path in enumerate(files, start=1):
        shorter = trained(None, n)  # the loss falls from epoch to epoch, so the last one is the best
        for name, value in load_epoch(path).items():
            torch.testing.assert_close(value, shorter.state_dict()[name], rtol=0, atol=0)
    assert torch.equal(load_epoch(files[-1])["1.weight"], model[1].weight)


def test_epochs_of_an_earlier_training_are_gone(tmp_path: Path) -> None:
    trained(tmp_path, 4)
    other = tmp_path / "epoch-notes.txt"
    other.write_text("the user's")
    trained(tmp_path, 2)
    assert len(epoch_files(tmp_path)) == 2
    assert other.exists()


def test_a_resumed_training_has_all_its_epochs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def interrupted(images, generator):
        calls.append(1)
        if len(calls) == 6:  # in the third epoch of two batches
            raise KeyboardInterrupt
        return images

    for change in (interrupted, lambda images, generator: images):
        monkeypatch.setitem(AUGMENTATIONS, "flip_and_shift", change)
        options = {**OPTIONS, "augment": "flip_and_shift"}
        model, file = net(), tmp_path / "state.pt"
        arguments = {"keep_epochs": tmp_path / "epochs", "checkpoint": file, "max_epochs": 4, **options}
        if change is interrupted:
            with pytest.raises(KeyboardInterrupt):
                train(model, labelled(), labelled(), **arguments)
            assert len(epoch_files(tmp_path / "epochs")) == 2
        else:
            train(model, labelled(), labelled(), **arguments)
    whole = [load_epoch(path)["1.weight"] for path in epoch_files(tmp_path / "epochs")]
    trained(tmp_path / "once", 4)
    once = [load_epoch(path)["1.weight"] for path in epoch_files(tmp_path / "once")]
    torch.testing.assert_close(whole, once, rtol=0, atol=0)


def fitted(folder: Path | None, seed: int = 0) -> bool:
    images = torch.rand(8, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    data = SimpleNamespace(images=images, labels=images.mean((1, 2, 3)), class_names=(), unit="px")
    options = {**OPTIONS, "max_epochs": 2, "seed": seed}
    return fit("vgg8", data, data, keep_epochs=folder, **options)[2]


def test_a_network_in_the_cache_is_trained_anew_only_where_epochs_are_missing(tmp_path: Path) -> None:
    assert not fitted(None)
    assert not fitted(tmp_path)
    assert fitted(tmp_path)
    epoch_files(tmp_path)[1].unlink()
    assert not fitted(tmp_path)
    assert not fitted(tmp_path, seed=1)
    assert not fitted(tmp_path)  # the folder has the epochs of another training
    assert fitted(None)


def test_epochs_that_are_missing(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"no weights of epochs in .*train with keep_epochs=FOLDER"):
        epoch_files(tmp_path / "nowhere")
    trained(tmp_path)
    (tmp_path / "epoch-0002.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"up to epoch 3, but none of epoch 2; .*Delete its checkpoint"):
        epoch_files(tmp_path)
    (tmp_path / "epoch-0001.safetensors").write_bytes(b"no weights")
    with pytest.raises(WeightsError, match="damaged"):
        load_epoch(tmp_path / "epoch-0001.safetensors")
