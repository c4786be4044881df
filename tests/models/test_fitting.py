import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from xaitools.errors import ParameterError
from xaitools.models import AUGMENTATIONS, fingerprint, fit, load_model, read_info


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XAITOOLS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def sets(seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    images = torch.rand(12, 1, 64, 64, generator=torch.Generator().manual_seed(seed))
    labels = 100 * images.mean((1, 2, 3)) + torch.arange(12)
    return images[:8], labels[:8], images[8:], labels[8:]


def fitted(*data: Tensor, **changes: object):
    images, labels, val_images, val_labels = data or sets()
    training = SimpleNamespace(images=images, labels=labels, class_names=(), unit="px")
    validation = SimpleNamespace(images=val_images, labels=val_labels, class_names=(), unit="px")
    options = {"device": "cpu", "progress": False, "max_epochs": 1, "batch_size": 4}
    return fit("vgg8", training, validation, **{**options, **changes})


def test_a_second_call_takes_the_weights_from_the_cache(cache: Path) -> None:
    model, history, cached = fitted()
    again, same_history, now_cached = fitted()
    assert (cached, now_cached) == (False, True)
    assert same_history == history
    images = sets()[0]
    torch.testing.assert_close(again(images), model(images), rtol=0, atol=0)
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
    with pytest.raises(
        ParameterError, match="augment='flip' is unknown; expected one of flip_and_shift, sagittal"
    ):
        fitted(augment="flip")


OPTIONS = {"max_epochs": 4, "learning_rate": 0.01}


def stopping(stop: object, after: int):
    """The usual augmentation, which calls `stop` in the middle of an epoch of two batches."""
    flip_and_shift, calls = AUGMENTATIONS["flip_and_shift"], []

    def augment(images: Tensor, generator: torch.Generator) -> Tensor:
        calls.append(len(images))
        if len(calls) == after:
            stop()
        return flip_and_shift(images, generator)

    return augment, calls


@pytest.mark.parametrize("after", [2, 6])
def test_an_interrupted_training_goes_on(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    model, history, _ = fitted(**OPTIONS)
    monkeypatch.setenv("XAITOOLS_CACHE", str(tmp_path / "other"))
    with monkeypatch.context() as patch:
        augment, _ = stopping(lambda: signal.raise_signal(signal.SIGINT), after)
        patch.setitem(AUGMENTATIONS, "flip_and_shift", augment)
        with pytest.raises(KeyboardInterrupt):
            fitted(**OPTIONS)
    left = list((tmp_path / "other").rglob("*.*"))
    assert [path.name.partition(".")[2] for path in left] == (["checkpoint.pt"] if after > 2 else [])
    augment, calls = stopping(lambda: None, 1)
    monkeypatch.setitem(AUGMENTATIONS, "flip_and_shift", augment)
    resumed, same_history, cached = fitted(**OPTIONS)
    assert not cached
    assert len(calls) == 8 - 2 * ((after - 1) // 2)
    assert same_history == history
    assert fingerprint(resumed) == fingerprint(model)
    names = [
        sorted(path.name for path in (folder / "weights").iterdir()) for folder in (cache, tmp_path / "other")
    ]
    assert names[0] == names[1]
    assert [name.partition(".")[2] for name in names[0]] == ["json", "safetensors"]


KILLED = """
import os, signal, types
import torch
from xaitools.models import AUGMENTATIONS, fit

flip_and_shift, calls = AUGMENTATIONS["flip_and_shift"], []

def augment(images, generator):
    calls.append(1)
    if len(calls) == 6:
        os.kill(os.getpid(), signal.SIGKILL)
    return flip_and_shift(images, generator)

AUGMENTATIONS["flip_and_shift"] = augment
sets = torch.load("sets.pt", weights_only=True)
training, validation = (
    types.SimpleNamespace(images=images, labels=labels, class_names=(), unit="px") for images, labels in sets
)
torch.set_num_threads(int(os.environ["N_THREADS"]))
fit("vgg8", training, validation, device="cpu", progress=False, batch_size=4, max_epochs=4, learning_rate=0.01)
"""


def test_a_killed_process_loses_no_finished_epoch(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, labels, val_images, val_labels = sets()
    torch.save([(images, labels), (val_images, val_labels)], tmp_path / "sets.pt")
    monkeypatch.setenv("N_THREADS", str(torch.get_num_threads()))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    killed = subprocess.run([sys.executable, "-c", KILLED], cwd=tmp_path, timeout=120, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert [path.suffixes for path in (cache / "weights").iterdir()] == [[".checkpoint", ".pt"]]
    augment, calls = stopping(lambda: None, 1)
    monkeypatch.setitem(AUGMENTATIONS, "flip_and_shift", augment)
    resumed, history, _ = fitted(**OPTIONS)
    assert len(calls) == 4
    monkeypatch.setenv("XAITOOLS_CACHE", str(tmp_path / "other"))
    model, whole_history, _ = fitted(**OPTIONS)
    assert whole_history == history
    assert fingerprint(model) == fingerprint(resumed)


def test_a_kill_before_the_weights_are_kept_repeats_no_epoch(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("xaitools.models.kept.save_weights", full)
        with pytest.raises(OSError, match="No space"):
            fitted()
    augment, calls = stopping(lambda: None, 1)
    monkeypatch.setitem(AUGMENTATIONS, "flip_and_shift", augment)
    assert not fitted()[2]
    assert not calls
    assert fitted()[2]


def test_a_damaged_state_is_named_and_the_training_begins_anew(
    cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with monkeypatch.context() as patch:
        augment, _ = stopping(lambda: signal.raise_signal(signal.SIGINT), 3)
        patch.setitem(AUGMENTATIONS, "flip_and_shift", augment)
        with pytest.raises(KeyboardInterrupt):
            fitted(**OPTIONS)
    (file,) = (cache / "weights").iterdir()
    file.write_bytes(file.read_bytes()[:-500])
    augment, calls = stopping(lambda: None, 1)
    monkeypatch.setitem(AUGMENTATIONS, "flip_and_shift", augment)
    assert not fitted(**OPTIONS)[2]
    assert len(calls) == 8
    assert f"{file.name} is damaged and is made again" in caplog.text
