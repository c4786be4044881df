import random
import signal
import subprocess
import sys
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import tqdm.notebook
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


def labelled(*tensors: Tensor) -> list[SimpleNamespace]:
    """Images and labels, and again, as a training and a validation set."""
    pairs = zip(tensors[::2], tensors[1::2], strict=True)
    return [
        SimpleNamespace(images=images, labels=labels, class_names=(), unit="") for images, labels in pairs
    ]


def run(model: nn.Module, sets: Sets, **options: object) -> History:
    return train(model, *labelled(*sets), **{"max_epochs": 6, "device": "cpu", "progress": False, **options})


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
    history = run(model, contradictory, max_epochs=30, patience=3, augment="")
    assert len(history.val_loss) == history.best_epoch + 1 + 3 < 30
    assert validation_loss(model, contradictory) == pytest.approx(min(history.val_loss), rel=1e-4)
    assert len(history.train_loss) == len(history.val_score) == len(history.val_loss)


def test_train_loss_is_the_mean_over_images() -> None:
    images, labels = blobs(11, 0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(256, 2))
    expected = nn.functional.cross_entropy(model(images), labels).item()
    history = run(
        model, (images, labels, images, labels), max_epochs=1, batch_size=4, learning_rate=1e-12, augment=""
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
        run(model, sets, optimizer=optimizer, weight_decay=weight_decay, augment="")
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
    file = tmp_path / "own" / "state.pt"
    whole = network()
    expected = run(whole, sets, batch_size=20, augment=killing(10**6))
    model = network()
    with pytest.raises(Killed):
        run(model, sets, batch_size=20, augment=killing(after), checkpoint=file)
    assert file.exists() == (after > 2)
    model = network()
    counted = killing(10**6)
    history = run(model, sets, batch_size=20, augment=counted, checkpoint=file)
    assert history == expected
    assert torch.equal(weights(model), weights(whole))
    assert list(file.parent.iterdir()) == []
    remaining = counted.__closure__[0].cell_contents.__length_hint__()
    assert 10**6 - remaining == 2 * (6 - after // 2)


@pytest.mark.parametrize("flip_labels", [False, True], ids=["all epochs", "stopped early"])
def test_killed_just_before_the_end(
    sets: Sets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flip_labels: bool
) -> None:
    def killed(*_: object, **__: object) -> None:
        raise Killed

    own = (*sets[:3], 1 - sets[3] if flip_labels else sets[3])
    options = {"patience": 2, "learning_rate": 1e-2 if flip_labels else 1e-4}
    whole = network()
    expected = run(whole, own, augment="flip_and_shift", **options)
    assert len(expected) < 6 if flip_labels else len(expected) == 6
    file = tmp_path / "state.pt"
    with monkeypatch.context() as patch:
        patch.setattr("xaitools.models.checkpoint.Checkpoint.remove", killed)
        with pytest.raises(Killed):
            run(network(), own, checkpoint=file, **options)
    model = network()
    monkeypatch.setattr("xaitools.models.loop.Loop._train_epoch", killed)  # nothing is left to train
    assert run(model, own, checkpoint=file, **options) == expected
    assert torch.equal(weights(model), weights(whole))
    assert not file.exists()


def test_a_kill_while_the_state_is_written_costs_one_epoch(
    sets: Sets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = network()
    expected = run(whole, sets)
    file = tmp_path / "state.pt"
    save, calls = torch.save, iter(range(2))

    def half(content: object, path: Path) -> None:
        if next(calls, None) is None:
            Path(path).write_bytes(b"half")
            raise Killed
        save(content, path)

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", half)
        with pytest.raises(Killed):
            run(network(), sets, checkpoint=file)
    assert list(tmp_path.iterdir()) == [file]
    assert len(torch.load(file, weights_only=True)["history"]["val_loss"]) == 2
    model = network()
    assert run(model, sets, checkpoint=file) == expected
    assert torch.equal(weights(model), weights(whole))


def test_checkpoint_of_another_training_is_refused(sets: Sets, tmp_path: Path) -> None:
    options = {"batch_size": 20, "augment": killing(5), "checkpoint": tmp_path / "state.pt"}
    with pytest.raises(Killed):
        run(network(), sets, **options)
    with pytest.raises(
        WeightsError, match=r"state\.pt is of another training, with seed 0 instead of 9: delete it"
    ):
        run(network(), sets, seed=9, **options)
    with pytest.raises(WeightsError, match="another training, with augment augment instead of sagittal_flip"):
        run(network(), sets, **{**options, "augment": "sagittal_flip"})
    other_data = (sets[0].flip(-1), *sets[1:])
    with pytest.raises(WeightsError, match="of another training, with data"):
        run(network(), other_data, **options)
    with pytest.raises(WeightsError, match="of another training, with model"):
        run(nn.Sequential(nn.Flatten(), nn.Linear(256, 2)), sets, **options)


def test_what_is_no_checkpoint_is_not_overwritten(sets: Sets, tmp_path: Path) -> None:
    file = tmp_path / "last.ckpt"
    for content in (b"not a checkpoint", bytes(10**4)):
        file.write_bytes(content)
        with pytest.raises(
            WeightsError, match=r"last\.ckpt is damaged or no checkpoint .*, and is not overwritten"
        ):
            run(network(), sets, checkpoint=file)
        assert file.read_bytes() == content


@pytest.mark.parametrize("kept", [0, 5000, -1])
def test_a_truncated_checkpoint_is_as_good_as_none(
    sets: Sets, tmp_path: Path, kept: int, caplog: pytest.LogCaptureFixture
) -> None:
    whole = network()
    expected = run(whole, sets, batch_size=20)
    file = tmp_path / "state.pt"
    with pytest.raises(Killed):
        run(network(), sets, batch_size=20, augment=killing(5), checkpoint=file)
    file.write_bytes(file.read_bytes()[:kept])
    model = network()
    assert run(model, sets, batch_size=20, checkpoint=file) == expected
    assert torch.equal(weights(model), weights(whole))
    assert "state.pt is damaged and is made again" in caplog.text


def test_an_interrupt_reaches_the_user_and_keeps_what_was_done(sets: Sets, tmp_path: Path) -> None:
    calls = []

    def interrupted(images: Tensor, _: torch.Generator) -> Tensor:
        calls.append(len(calls))
        if len(calls) == 6:
            signal.raise_signal(signal.SIGINT)
        return images

    before = signal.getsignal(signal.SIGINT)
    file = tmp_path / "state.pt"
    with pytest.raises(KeyboardInterrupt):
        run(network(), sets, batch_size=20, augment=interrupted, checkpoint=file)
    assert len(calls) == 6
    assert signal.getsignal(signal.SIGINT) is before
    assert len(torch.load(file, weights_only=True)["history"]["val_loss"]) == 2


def test_leaves_nothing_behind(
    sets: Sets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    before = torch.get_rng_state()
    model = network()
    torch.set_rng_state(before)
    run(model, sets, max_epochs=2)
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")
    assert torch.equal(torch.get_rng_state(), before)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_progress_bar_tells_the_losses(sets: Sets, capfd: pytest.CaptureFixture) -> None:
    history = run(network(), sets, max_epochs=2, progress=True)
    shown = capfd.readouterr().err
    assert "4/4" in shown
    assert f"val_loss={history.val_loss[-1]:.3f}" in shown


@pytest.fixture
def notebook_bars(monkeypatch: pytest.MonkeyPatch) -> list:
    """The bars that a notebook shows."""
    bars = []

    def shown(**options: object) -> tqdm.notebook.tqdm:
        bars.append(tqdm.notebook.tqdm(**options, display=False))
        return bars[-1]

    monkeypatch.setattr("xaitools.models.loop.tqdm", shown)
    return bars


@pytest.mark.parametrize("patience", [2, 10], ids=["stopped early", "all epochs"])
def test_the_bar_of_a_training_that_is_done_is_full_and_green(
    sets: Sets, notebook_bars: list, patience: int
) -> None:
    contradictory = (*sets[:3], 1 - sets[3])
    history = run(
        network(), contradictory, learning_rate=1e-2, patience=patience, batch_size=20, progress=True
    )
    assert (len(history) < 6) == (patience == 2)
    (bar,) = notebook_bars
    _, widget, text = bar.container.children
    assert widget.value == widget.max == bar.n == bar.total == 2 * len(history)
    assert widget.bar_style == "success"
    assert f"{bar.n}/{bar.n}" in text.value
    assert bar.format_dict["elapsed"] > 0


def test_the_bar_of_a_training_that_failed_is_red(sets: Sets, notebook_bars: list) -> None:
    with pytest.raises(Killed):
        run(network(), sets, batch_size=20, augment=killing(5), progress=True)
    (bar,) = notebook_bars
    _, widget, _ = bar.container.children
    assert (widget.value, widget.max, widget.bar_style) == (5, 12, "danger")


def test_a_resumed_bar_goes_on_where_it_was(sets: Sets, tmp_path: Path, notebook_bars: list) -> None:
    options = {"batch_size": 20, "checkpoint": tmp_path / "state.pt", "progress": True}
    with pytest.raises(Killed):
        run(network(), sets, augment=killing(5), **options)
    run(network(), sets, augment=killing(100), **options)
    assert notebook_bars[1].initial == 4
    assert notebook_bars[1].n == notebook_bars[1].total == 12


def test_a_network_in_evaluation_mode_is_trained_all_the_same(sets: Sets) -> None:
    evaluated, trained = network().eval(), network()
    assert run(evaluated, sets) == run(trained, sets)
    assert torch.equal(weights(evaluated), weights(trained))


def test_volumes(sets: Sets) -> None:
    volumes = sets[0].unsqueeze(2).expand(-1, -1, 16, -1, -1).contiguous()
    model = nn.Sequential(nn.Conv3d(1, 2, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(686, 2))
    assert len(run(model, (volumes, sets[1], volumes, sets[1]), max_epochs=1).val_loss) == 1


class Views(nn.Module):
    """A network that flattens as many do, which a layout with the channel last forbids; or reshapes."""

    def __init__(self, volumes: bool, forbids: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        convolution = nn.Conv3d if volumes else nn.Conv2d
        self.first, self.second = convolution(1, 4, 3, stride=2), convolution(4, 6, 3, stride=2)
        self.forbids, self.last = forbids, nn.LazyLinear(2)

    def forward(self, images: Tensor) -> Tensor:
        features = torch.relu(self.second(torch.relu(self.first(images))))
        flat = features.view(len(features), -1) if self.forbids else features.flatten(1)
        return self.last(flat)


@pytest.mark.parametrize("volumes", [False, True], ids=["slices", "volumes"])
def test_a_network_that_views_its_features_is_trained_too(sets: Sets, volumes: bool) -> None:
    if volumes:
        sets = tuple(
            s.unsqueeze(2).expand(-1, -1, 16, -1, -1).contiguous() if s.ndim == 4 else s for s in sets
        )
    viewing, reshaping = Views(volumes, True), Views(volumes, False)
    viewing(sets[0][:1])  # tells the last layer its size
    reshaping.load_state_dict(viewing.state_dict())
    histories = [run(model, sets, augment="", max_epochs=3) for model in (viewing, reshaping)]
    assert histories[0].train_loss == pytest.approx(histories[1].train_loss, rel=1e-4)
    torch.testing.assert_close(weights(viewing), weights(reshaping), rtol=1e-3, atol=1e-5)
    assert torch.isfinite(viewing(sets[0])).all()
    layout = torch.channels_last_3d if volumes else torch.channels_last
    laid_out = [model.second.weight.is_contiguous(memory_format=layout) for model in (viewing, reshaping)]
    assert laid_out == [False, True]


def test_an_error_of_the_network_is_not_taken_for_its_view(sets: Sets) -> None:
    class FailsOnce(Views):
        """At the first batch, which is passed to see what layout the network takes."""

        has_failed = False

        def forward(self, images: Tensor) -> Tensor:
            if len(images) > 1 and not self.has_failed:
                self.has_failed = True
                raise RuntimeError("out of order")
            return super().forward(images)

    model = FailsOnce(False, False)
    model(sets[0][:1])  # tells the last layer its size
    with pytest.raises(RuntimeError, match="out of order"):
        run(model, sets, max_epochs=1)


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
    with pytest.raises(
        DataError, match=r"validation set has images of type Tensor and labels of type ndarray"
    ):
        run(network(), (images, labels, val_images, val_labels.numpy()))


def test_bad_options_are_named_before_work_starts(sets: Sets) -> None:
    with pytest.raises(ParameterError, match="max_epochs=0; expected"):
        run(network(), sets, max_epochs=0)
    with pytest.raises(TypeError, match="epochs"):
        run(network(), sets, epochs=3)
    with pytest.raises(DeviceError, match="'cuda:9' is not on this machine"):
        run(network(), sets, device="cuda:9")


def test_a_training_that_diverges_says_so(sets: Sets, tmp_path: Path, notebook_bars: list) -> None:
    options = {"learning_rate": 1e20, "checkpoint": tmp_path / "state.pt", "progress": True}
    model = nn.Sequential(nn.Flatten(), nn.Linear(256, 2), nn.Linear(2, 2))
    with pytest.raises(DivergedError, match=r"never finite with learning_rate 1e\+20; choose a smaller one"):
        run(model, sets, **options)
    assert list(tmp_path.iterdir()) == []
    assert notebook_bars[0].container.children[1].bar_style == "danger"


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
    options = {"max_epochs": 60, "learning_rate": 0.05, "augment": "", "progress": False}
    history = train(net, *labelled(images, labels, images, labels), stop_at=0.2, **options)
    assert len(history.val_loss) < 60
    assert history.val_loss[-1] <= 0.2 < min(history.val_loss[:-1])
