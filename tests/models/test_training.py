import logging
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from itertools import chain
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from xaitools.errors import (
    DataError,
    DeviceError,
    DivergedError,
    ParameterError,
    ShapeError,
    TargetError,
    WeightsError,
)
from xaitools.models import History, accuracy, predict, train

Sets = tuple[Tensor, Tensor, Tensor, Tensor]


def blobs(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Noise with a bright square in the upper or in the lower half."""
    generator = torch.Generator().manual_seed(seed)
    images = 0.3 * torch.rand(n, 1, 16, 16, generator=generator)
    labels = torch.arange(n) % 2
    for image, label in zip(images, labels, strict=True):
        image[0, 2 + 8 * label : 6 + 8 * label, 4:10] += 0.5
    return images, labels


@pytest.fixture
def sets() -> Sets:
    return (*blobs(40, 0), *blobs(20, 1))


def network(*, dropout: float = 0.2) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, stride=2),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(dropout),
        nn.Linear(392, 2),
    )


def run(model: nn.Module, sets: Sets, **options: object) -> History:
    return train(model, *sets, **{"max_epochs": 6, "device": "cpu", "progress": False, **options})


def weights(model: nn.Module) -> Tensor:
    return torch.cat([value.flatten().double() for value in model.state_dict().values()])


def validation_loss(model: nn.Module, sets: Sets) -> float:
    return nn.functional.cross_entropy(model(sets[2]), sets[3]).item()


def test_learns_and_ends_with_its_best_weights(sets: Sets) -> None:
    model = network()
    history = run(model, sets, max_epochs=25)
    assert not model.training
    assert validation_loss(model, sets) == pytest.approx(min(history.val_loss), rel=1e-4)
    assert history.val_loss[history.best_epoch] == min(history.val_loss)
    assert accuracy(predict(model, blobs(30, 2)[0], device="cpu"), blobs(30, 2)[1]) >= 0.9
    assert history.val_score[history.best_epoch] == accuracy(predict(model, sets[2], device="cpu"), sets[3])


def test_best_epoch_is_restored_even_when_it_is_an_early_one(sets: Sets) -> None:
    contradictory = (sets[0], sets[1], sets[2], 1 - sets[3])
    model = network()
    history = run(model, contradictory, max_epochs=30, patience=3, augment=None)
    assert len(history.val_loss) == history.best_epoch + 1 + 3 < 30
    assert validation_loss(model, contradictory) == pytest.approx(min(history.val_loss), rel=1e-4)
    assert len(history.train_loss) == len(history.val_score) == len(history.val_loss)


def test_train_loss_is_the_mean_over_images() -> None:
    images, labels = blobs(11, 0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(256, 2))
    expected = nn.functional.cross_entropy(model(images), labels).item()
    history = run(
        model, (images, labels, images, labels), max_epochs=1, batch_size=4, learning_rate=1e-12, augment=None
    )
    assert history.train_loss[0] == pytest.approx(expected, rel=1e-5)
    assert history.val_loss[0] == pytest.approx(expected, rel=1e-5)


def test_seed_fixes_everything(sets: Sets) -> None:
    runs = []
    for seed in (0, 0, 1):
        model = network()
        torch.rand(random.randrange(1, 9))
        runs.append((run(model, sets, seed=seed), weights(model)))
    assert runs[0][0] == runs[1][0]
    assert torch.equal(runs[0][1], runs[1][1])
    assert not torch.equal(runs[0][1], runs[2][1])


def test_optimizers_differ_by_what_weight_decay_means(sets: Sets) -> None:
    def trained(optimizer: str, weight_decay: float) -> Tensor:
        model = network(dropout=0)
        run(model, sets, optimizer=optimizer, weight_decay=weight_decay, augment=None)
        return weights(model)

    assert torch.equal(trained("adam", 0), trained("adamw", 0))
    assert (trained("adam", 0.1) - trained("adamw", 0.1)).abs().max() > 1e-3


def test_every_epoch_sees_each_image_once_in_batches_of_like_size(sets: Sets) -> None:
    numbered = torch.arange(41.0).reshape(-1, 1, 1, 1).expand(-1, 1, 16, 16).contiguous()
    seen = []

    def record(images: Tensor, _: torch.Generator) -> Tensor:
        seen.append(images[:, 0, 0, 0].tolist())
        return images

    run(network(), (numbered, torch.arange(41) % 2, *sets[2:]), max_epochs=2, batch_size=20, augment=record)
    assert [len(batch) for batch in seen] == [14, 14, 13] * 2
    epochs = [[*chain(*seen[:3])], [*chain(*seen[3:])]]
    assert epochs[0] != epochs[1]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(41))


class Killed(RuntimeError):
    pass


def killing(after: int) -> Callable[[Tensor, torch.Generator], Tensor]:
    calls = iter(range(after))

    def augment(images: Tensor, generator: torch.Generator) -> Tensor:
        if next(calls, None) is None:
            raise Killed
        return images + 0.05 * torch.rand(images.shape, generator=generator)

    return augment


@pytest.mark.parametrize("after", [1, 7, 9])
def test_killed_training_continues_to_the_same_end(sets: Sets, tmp_path: Path, after: int) -> None:
    whole = network()
    expected = run(whole, sets, batch_size=20, augment=killing(10**6))
    model = network()
    with pytest.raises(Killed):
        run(model, sets, batch_size=20, augment=killing(after), checkpoint_dir=tmp_path)
    assert (tmp_path / "last.ckpt").exists() == (after > 2)
    model = network()
    counted = killing(10**6)
    history = run(model, sets, batch_size=20, augment=counted, checkpoint_dir=tmp_path)
    assert history == expected
    assert torch.equal(weights(model), weights(whole))
    assert list(tmp_path.iterdir()) == []
    remaining = counted.__closure__[0].cell_contents.__length_hint__()
    assert 10**6 - remaining == 2 * (6 - after // 2)


@pytest.mark.parametrize("flip_labels", [False, True], ids=["all epochs", "stopped early"])
def test_killed_just_before_the_end(
    sets: Sets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flip_labels: bool
) -> None:
    def killed(*_: object, **__: object) -> None:
        raise Killed

    own = (*sets[:3], 1 - sets[3] if flip_labels else sets[3])
    options = {"patience": 2, "augment": None, "learning_rate": 1e-2 if flip_labels else 1e-4}
    whole = network()
    expected = run(whole, own, **options)
    assert len(expected.val_loss) < 6 if flip_labels else len(expected.val_loss) == 6
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", killed)
        with pytest.raises(Killed):
            run(network(), own, checkpoint_dir=tmp_path, **options)
    model = network()
    assert run(model, own, checkpoint_dir=tmp_path, **options) == expected
    assert torch.equal(weights(model), weights(whole))


def test_checkpoint_of_another_training_is_refused(sets: Sets, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        run(network(), sets, batch_size=20, augment=killing(5), checkpoint_dir=tmp_path)
    with pytest.raises(
        WeightsError, match=r"last\.ckpt is of another training, with seed 0 instead of 9; delete it"
    ):
        run(network(), sets, batch_size=20, seed=9, checkpoint_dir=tmp_path)
    other_data = (sets[0].flip(-1), *sets[1:])
    with pytest.raises(WeightsError, match="of another training, with data"):
        run(network(), other_data, batch_size=20, checkpoint_dir=tmp_path)
    with pytest.raises(WeightsError, match="of another training, with model"):
        run(nn.Sequential(nn.Flatten(), nn.Linear(256, 2)), sets, batch_size=20, checkpoint_dir=tmp_path)


@pytest.mark.parametrize("content", [b"", b"not a checkpoint"])
def test_damaged_checkpoint_is_refused(sets: Sets, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "last.ckpt").write_bytes(content)
    with pytest.raises(WeightsError, match=r"last\.ckpt is damaged or no checkpoint"):
        run(network(), sets, checkpoint_dir=tmp_path)


def test_interrupt_reaches_the_user(sets: Sets) -> None:
    def interrupt(images: Tensor, _: torch.Generator) -> Tensor:
        raise KeyboardInterrupt

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        run(network(), sets, augment=interrupt)
    assert signal.getsignal(signal.SIGINT) is before


def test_leaves_nothing_behind(
    sets: Sets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    level = logging.getLogger("lightning.pytorch").level
    before = torch.get_rng_state()
    model = network()
    torch.set_rng_state(before)
    run(model, sets, max_epochs=2)
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")
    assert logging.getLogger("lightning.pytorch").level == level
    assert torch.equal(torch.get_rng_state(), before)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_progress_bar_tells_the_losses(sets: Sets, capfd: pytest.CaptureFixture) -> None:
    history = run(network(), sets, max_epochs=2, progress=True)
    shown = capfd.readouterr().err
    assert "4/4" in shown
    assert f"val_loss={history.val_loss[-1]:.3f}" in shown


def test_volumes(sets: Sets) -> None:
    volumes = sets[0].unsqueeze(2).expand(-1, -1, 16, -1, -1).contiguous()
    model = nn.Sequential(nn.Conv3d(1, 2, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(686, 2))
    assert len(run(model, (volumes, sets[1], volumes, sets[1]), max_epochs=1).val_loss) == 1


def test_predict_is_the_softmax_in_evaluation_mode(sets: Sets) -> None:
    model = network(dropout=0.9).train()
    probabilities = predict(model, sets[0], batch_size=7, device="cpu")
    assert model.training
    assert probabilities.dtype == torch.float32
    assert not probabilities.requires_grad
    torch.testing.assert_close(probabilities, model.eval()(sets[0]).softmax(1).detach())
    probabilities.requires_grad_()


def test_accuracy_counts() -> None:
    probabilities = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]])
    assert accuracy(probabilities, torch.tensor([0, 1, 1])) == pytest.approx(2 / 3)
    with pytest.raises(DataError, match="no labels"):
        accuracy(probabilities[:0], torch.tensor([], dtype=torch.int64))


def test_bad_sets_are_named(sets: Sets) -> None:
    images, labels, val_images, val_labels = sets
    spoiled = images.clone()
    spoiled[3, 0, 0, 0] = torch.nan
    spoiled[7, 0, 0, 0] = torch.inf
    for bad, error, message in [
        ((images[:0], labels[:0], val_images, val_labels), DataError, "the training set is empty"),
        ((images, labels, val_images[:0], val_labels[:0]), DataError, "the validation set is empty"),
        (
            (spoiled, labels, val_images, val_labels),
            DataError,
            "2 images of the training set .* first index 3",
        ),
        (
            (images, labels[:-1], val_images, val_labels),
            ShapeError,
            "training set has 40 images and 39 labels",
        ),
        (
            (images, labels, val_images, val_labels + 1),
            TargetError,
            "validation set has the label 2.*2 classes.*0 to 1",
        ),
        ((images, labels - 1, val_images, val_labels), TargetError, "training set has the label -1"),
    ]:
        with pytest.raises(error, match=message):
            run(network(), bad)
    with pytest.raises(DataError, match="no images to predict"):
        predict(network(), images[:0], device="cpu")
    with pytest.raises(ShapeError, match=r"outputs of shape \(40, 2, 7, 7\), expected \(40, n_outputs\)"):
        predict(nn.Conv2d(1, 2, 3, stride=2), images, device="cpu")


def test_bad_options_are_named(sets: Sets) -> None:
    bad = {"max_epochs": 0, "patience": 0, "batch_size": 0, "learning_rate": 0.0, "seed": -1}
    for name, value in bad.items():
        with pytest.raises(ParameterError, match=f"{name} is {value}, expected"):
            run(network(), sets, **{name: value})
    with pytest.raises(ParameterError, match="unknown optimizer 'sgd'; known: adamw, adam"):
        run(network(), sets, optimizer="sgd")
    with pytest.raises(DeviceError, match="'cuda:9' is not on this machine"):
        run(network(), sets, device="cuda:9")
    with pytest.raises(DivergedError, match=r"never finite with learning_rate 1e\+20; choose a smaller one"):
        run(nn.Sequential(nn.Flatten(), nn.Linear(256, 2), nn.Linear(2, 2)), sets, learning_rate=1e20)


def test_importing_the_models_loads_neither_lightning_nor_torchvision() -> None:
    code = "import sys, xaitools.models; print({'lightning', 'torchvision', 'torch'} & set(sys.modules))"
    shown = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert shown.stdout.strip() == "{'torch'}"


def test_a_loss_that_is_good_enough_ends_the_training() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(16) % 2
    images = labels[:, None, None, None] + 0.1 * torch.rand(16, 1, 4, 4, generator=generator)
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 2))
    options = {"max_epochs": 60, "learning_rate": 0.05, "augment": None, "progress": False}
    history = train(net, images, labels, images, labels, stop_at=0.2, **options)
    assert len(history.val_loss) < 60
    assert history.val_loss[-1] <= 0.2 < min(history.val_loss[:-1])
