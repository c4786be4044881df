"""Which training images made the network what it is."""

import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xaitools.errors import DataError, ParameterError, ShapeError, UnsupportedModelError, WeightsError
from xaitools.interpretation import (
    influence_agreement,
    influence_table,
    leave_one_out,
    training_influence,
)
from xaitools.models import build_network, epoch_files, load_epoch, train


def labelled(n: int, seed: int = 0, kind: str = "class") -> SimpleNamespace:
    """Images of which one half is brighter by their class, or by a quantity."""
    random = torch.Generator().manual_seed(seed)
    images = torch.rand(n, 1, 6, 6, generator=random)
    labels = torch.arange(n) % 2 if kind == "class" else torch.rand(n, generator=random) * 10
    images[:, :, :3] += 0.3 * labels.view(-1, 1, 1, 1)
    names = ("no", "yes") if kind == "class" else ()
    return SimpleNamespace(images=images, labels=labels, class_names=names, unit="mm")


def linear(n_outputs: int = 2) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(36, n_outputs))


def cnn(bias: bool = True) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Dropout(0.5),
        nn.Linear(16, 2, bias=bias),
    )  # fmt: skip


QUIET = {"progress": False}
SETTINGS = {"augment": "", "device": "cpu", "progress": False, "batch_size": 4, "patience": 99}


def loss_of(model: nn.Module, labelled: SimpleNamespace, number: int) -> Tensor:
    return F.cross_entropy(
        model(labelled.images[number : number + 1].double()), labelled.labels[number : number + 1]
    )


def test_one_step_of_gradient_descent_in_closed_form() -> None:
    training, test, rate = labelled(5), labelled(3, seed=1), 1e-4
    model = linear()
    found = training_influence(model, training, test, [model.state_dict()], learning_rate=rate, **QUIET)
    own = linear().double()
    for i in range(3):
        for j in range(5):
            slopes = [
                torch.autograd.grad(loss_of(own, s, k), own.parameters())
                for s, k in ((test, i), (training, j))
            ]
            expected = rate * sum((a * b).sum() for a, b in zip(*slopes, strict=True))
            assert found[i, j].item() == pytest.approx(expected.item(), rel=1e-4)
            stepped = linear().double()
            with torch.no_grad():
                for weight, slope in zip(stepped.parameters(), slopes[1], strict=True):
                    weight -= rate * slope
            fall = loss_of(own, test, i) - loss_of(stepped, test, i)  # what the step did, to first order
            assert found[i, j].item() == pytest.approx(fall.item(), rel=0.02)


def test_captums_values_where_it_counts_all(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from captum.influence import TracInCPFast
    training, test, model = labelled(6), labelled(4, seed=1), cnn(bias=False)
    train(model, training, training, keep_epochs=tmp_path, max_epochs=3, **SETTINGS)
    found = training_influence(model, training, test, tmp_path, learning_rate=0.1, batch_size=4, **QUIET)
    other = cnn(bias=False).eval()

    def load(module: nn.Module, path: Path) -> float:
        module.load_state_dict(load_epoch(path))
        return 0.1

    captum = TracInCPFast(
        other,
        other[-1],
        torch.utils.data.TensorDataset(training.images, training.labels),
        epoch_files(tmp_path),
        load,
        nn.CrossEntropyLoss(reduction="sum"),
        batch_size=3,
    )
    expected = captum.influence((test.images, test.labels))
    torch.testing.assert_close(found.float(), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("loss", ["mean_absolute_error", "mean_squared_error", "huber"])
def test_a_regression_counts_in_standardised_labels(tmp_path: Path, loss: str) -> None:
    training, test = labelled(6, kind="quantity"), labelled(2, seed=1, kind="quantity")
    model = linear(1)
    train(model, training, training, keep_epochs=tmp_path, max_epochs=2, loss=loss, **SETTINGS)
    found = training_influence(model, training, test, tmp_path, loss=loss, learning_rate=1.0, **QUIET)
    mean, deviation = training.labels.mean(), training.labels.std(correction=0)
    criterion = {"mean_absolute_error": F.l1_loss, "mean_squared_error": F.mse_loss, "huber": F.huber_loss}[
        loss
    ]
    expected = torch.zeros(2, 6)
    for path in epoch_files(tmp_path):
        own = linear(1)
        own.load_state_dict(load_epoch(path))
        slopes = [
            [
                torch.cat(
                    [
                        slope.flatten()
                        for slope in torch.autograd.grad(
                            criterion(own(image[None])[0, 0], (label - mean) / deviation), own.parameters()
                        )
                    ]
                )
                for image, label in zip(data.images, data.labels, strict=True)
            ]
            for data in (test, training)
        ]
        expected += torch.stack(slopes[0]) @ torch.stack(slopes[1]).T
    torch.testing.assert_close(found.float(), expected, rtol=1e-4, atol=1e-4)


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory):
    """A training with a copy of the test image of class 1, right at 4 and under the wrong label at 5."""
    folder = tmp_path_factory.mktemp("epochs")
    training, test = labelled(12), labelled(1, seed=9)
    training.labels[4:6] = torch.tensor([1, 0])
    test.labels[:] = 1
    training.images[4] = training.images[5] = test.images[0]
    start = linear()
    model = linear()
    settings = {**SETTINGS, "max_epochs": 8, "learning_rate": 0.01}
    history = train(model, training, training, keep_epochs=folder, **settings)
    return start, model, training, test, folder, settings, history


def test_a_copy_of_the_test_image_comes_out_on_top_and_its_mislabelled_copy_at_the_bottom(traced) -> None:
    _, model, training, test, folder, _, history = traced
    found = training_influence(model, training, test, folder, last=history.best_epoch + 1, **QUIET)
    table = influence_table(found, training, test, k=2)
    assert table[table["rank"] == 1].training.tolist() == [4, 5]
    assert table[table["rank"] == 1].kind.tolist() == ["helpful", "harmful"]
    assert table[table["rank"] == 1].label.tolist() == ["yes", "no"]
    assert (table.test_label == "yes").all()


def test_retraining_without_an_image_says_the_same_of_the_copies(traced) -> None:
    start, model, training, test, folder, settings, _ = traced
    before = start[1].weight.clone()
    positions = [0, 3, 4, 5, 8]
    retrained = leave_one_out(start, training, training, test, positions, **settings)
    assert torch.equal(start[1].weight, before)
    assert (
        retrained[0, 2] > 0 > retrained[0, 3]
    )  # without the copy the loss rises, without the mislabelled one it falls
    assert retrained.argmax() == 2
    assert retrained.argmin() == 3
    found = training_influence(model, training, test, folder, **QUIET)[:, positions]
    agreement = influence_agreement(found, retrained)
    assert agreement.spearman.between(-1, 1).all()
    assert agreement.n.tolist() == [5]


def test_leaving_one_out_is_training_without_it() -> None:
    training, test = labelled(6, kind="quantity"), labelled(2, seed=1, kind="quantity")
    settings = {**SETTINGS, "max_epochs": 2}
    found = leave_one_out(linear(1), training, training, test, [2], **settings)
    losses = []
    for kept in (list(range(6)), [0, 1, 3, 4, 5]):
        subset = SimpleNamespace(
            **{**vars(training), "images": training.images[kept], "labels": training.labels[kept]}
        )
        model = linear(1)
        train(model, subset, training, **settings)
        with torch.no_grad():
            losses.append((model(test.images)[:, 0] - test.labels).abs() / training.labels.std(correction=0))
    torch.testing.assert_close(found[:, 0].float(), losses[1] - losses[0], rtol=1e-3, atol=1e-5)


def test_each_other_epoch_counts_back_from_the_last(traced) -> None:
    _, model, training, test, folder, *_ = traced
    states = [load_epoch(path) for path in epoch_files(folder)]
    found = training_influence(model, training, test, folder, last=6, every=2, **QUIET)
    parts = [training_influence(model, training, test, [states[n]], **QUIET) for n in (1, 3, 5)]
    torch.testing.assert_close(found, sum(parts))


def test_ranks_agree_with_retraining_where_nothing_else_changes(tmp_path: Path) -> None:
    random = torch.Generator().manual_seed(0)
    images, labels = torch.rand(16, 1, 8, 8, generator=random), torch.arange(16) % 2
    images[:, :, :4] += 0.15 * labels.view(-1, 1, 1, 1)
    training = SimpleNamespace(images=images, labels=labels, class_names=("no", "yes"), unit="")
    test = labelled(0)
    test.images, test.labels = images[:3] + 0.1, labels[:3]
    settings = {**SETTINGS, "batch_size": 16, "max_epochs": 15, "learning_rate": 0.005, "weight_decay": 0.0}

    def small() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(1, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Linear(54, 2)
        )

    model = small()
    history = train(model, training, training, keep_epochs=tmp_path, **settings)
    found = training_influence(model, training, test, tmp_path, last=history.best_epoch + 1, **QUIET)
    retrained = leave_one_out(small(), training, training, test, range(8), **settings)
    assert (influence_agreement(found[:, :8], retrained).spearman > 0.6).all()


def test_a_3d_network_and_the_order_of_batches_does_not_matter(tmp_path: Path) -> None:
    model = build_network("gm_cnn_small", input_size=(8, 8, 8))
    data = SimpleNamespace(
        images=torch.rand(5, 1, 8, 8, 8),
        labels=torch.tensor([0, 1, 0, 1, 1]),
        class_names=("a", "b"),
        unit="",
    )
    train(model, data, data, keep_epochs=tmp_path, max_epochs=1, **SETTINGS)
    one, other = (
        training_influence(model, data, data, tmp_path, batch_size=size, **QUIET) for size in (2, 5)
    )
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-9)
    assert (one.diagonal() > 0).all()  # each image helps itself


def test_agreement_of_ranks() -> None:
    ranks = torch.tensor([[1.0, 2, 3, 4], [1, 2, 3, 4], [0, 0, 0, 0]])
    other = torch.tensor([[10.0, 20, 30, 90], [4, 3, 2, 1], [1, 2, 3, 4]])
    found = influence_agreement(ranks, other).spearman
    np.testing.assert_allclose(found, [1, -1, np.nan])


def test_refusals(tmp_path: Path) -> None:
    training, model = labelled(4), linear()
    with pytest.raises(WeightsError, match=r"no weights of epochs in .*train with keep_epochs=FOLDER"):
        training_influence(model, training, training, tmp_path)
    train(model, training, training, keep_epochs=tmp_path, max_epochs=1, **SETTINGS)
    with pytest.raises(WeightsError, match="do not fit Sequential; expected those of the same network"):
        training_influence(cnn(), training, training, tmp_path)
    with pytest.raises(ParameterError, match="last=2 with 1 epochs"):
        training_influence(model, training, training, tmp_path, last=2)
    with pytest.raises(WeightsError, match="epochs is empty"):
        training_influence(model, training, training, [])
    ends = nn.Sequential(nn.Flatten(), nn.Linear(36, 2), nn.ReLU())
    with pytest.raises(UnsupportedModelError, match=r"ends with nn\.Linear"):
        training_influence(ends, training, training, [ends.state_dict()])
    with pytest.raises(ParameterError, match="left_out="):
        leave_one_out(model, training, training, training, [4], **SETTINGS)
    with pytest.raises(ShapeError, match=r"expected \(4, 4\)"):
        influence_table(torch.zeros(2, 2), training, training)
    with pytest.raises(ShapeError, match="expected the same"):
        influence_agreement(torch.zeros(2, 3), torch.zeros(2, 4))
    with pytest.raises(DataError, match="three or more"):
        influence_agreement(torch.zeros(2, 2), torch.zeros(2, 2))
