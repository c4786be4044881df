from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from xaitools.errors import ParameterError, TargetError, UnsupportedModelError
from xaitools.models import LOSSES, predict_values, train
from xaitools.models.tasks import rescale_output, task_of


def widths(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Noise with a bright bar, and the bar's width in tenths of a pixel."""
    generator = torch.Generator().manual_seed(seed)
    images = 0.3 * torch.rand(n, 1, 16, 16, generator=generator)
    widths = torch.randint(2, 14, (n,), generator=generator)
    for image, width in zip(images, widths.tolist(), strict=True):
        image[0, 4:12, 1 : 1 + width] += 0.6
    return images, 10 * widths.float()


def labelled(images: object, labels: Tensor) -> SimpleNamespace:
    return SimpleNamespace(images=images, labels=labels, class_names=(), unit="px")


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 8, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(392, 1))


def run(
    model: nn.Module, images: Tensor, labels: Tensor, val_labels: Tensor | None = None, **options: object
):
    val_images, measured = widths(20, 1)
    val = measured if val_labels is None else val_labels
    options = {"max_epochs": 30, "learning_rate": 3e-3, "device": "cpu", "progress": False, **options}
    return train(model, labelled(images, labels), labelled(val_images, val), augment="", **options)


@pytest.mark.parametrize("loss", [name for name in LOSSES if name != "cross_entropy"])
def test_a_regression_learns_in_the_unit_of_its_labels(loss: str) -> None:
    model = network()
    history = run(model, *widths(60, 0), loss=loss)
    images, truth = widths(30, 2)
    error = (predict_values(model, images, device="cpu") - truth).abs().mean()
    assert error < 0.4 * (truth - truth.mean()).abs().mean()
    val_images, val_truth = widths(20, 1)
    own = (predict_values(model, val_images, device="cpu") - val_truth).abs().mean().item()
    assert history.val_score[history.best_epoch] == pytest.approx(own, rel=1e-4)


def test_the_losses_follow_their_formulas_on_standardised_labels() -> None:
    images, labels = widths(12, 3)
    model = network()
    z = (labels - labels.mean()) / labels.std(unbiased=False)
    error = (model(images)[:, 0] - z).detach().double()
    expected = {
        "mean_absolute_error": error.abs().mean(),
        "mean_squared_error": (error**2).mean(),
        "huber": torch.where(error.abs() < 1, error**2 / 2, error.abs() - 0.5).mean(),
    }
    for loss, value in expected.items():
        history = run(network(), images, labels, loss=loss, max_epochs=1, learning_rate=1e-12)
        assert history.train_loss[0] == pytest.approx(value.item(), rel=1e-5)


def test_copies_show_each_image_as_often() -> None:
    seen = []

    def record(images: Tensor, _: torch.Generator) -> Tensor:
        seen.extend(images[:, 0, 0, 0].tolist())
        return images

    numbered = torch.arange(10.0).reshape(-1, 1, 1, 1).expand(-1, 1, 16, 16).contiguous()
    labels = torch.arange(10.0)
    both = labelled(numbered, labels)
    train(network(), both, both, copies=3, max_epochs=1, augment=record, device="cpu", progress=False)
    assert sorted(seen) == sorted(3 * list(range(10)))


def test_mixed_precision_learns_the_same() -> None:
    model = network()
    run(model, *widths(60, 0), precision="bf16")
    images, truth = widths(30, 2)
    assert (predict_values(model, images, device="cpu") - truth).abs().mean() < 15
    assert next(model.parameters()).dtype == torch.float32


class FromDisk:
    """Images that come when they are asked for."""

    def __init__(self, images: Tensor) -> None:
        self.images, self.most, self.shape = images, 0, tuple(images.shape)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: slice | Tensor) -> Tensor:
        batch = self.images[index]
        self.most = max(self.most, len(batch))
        return batch


def test_images_may_be_read_batch_by_batch() -> None:
    images, labels = widths(40, 0)
    whole, lazy, stack = network(), network(), FromDisk(images)
    expected = run(whole, images, labels, max_epochs=3, batch_size=8)
    assert run(lazy, stack, labels, max_epochs=3, batch_size=8) == expected
    assert stack.most == 8
    torch.testing.assert_close(
        predict_values(lazy, stack, device="cpu"), predict_values(whole, images, device="cpu")
    )


def test_rescaling_changes_the_output_only() -> None:
    model, images = network(), widths(5, 0)[0]
    before = model(images).detach()
    rescale_output(model, images, 3.0, -20.0)
    torch.testing.assert_close(model(images), 3 * before - 20)


@pytest.mark.parametrize(
    "model",
    [
        nn.Sequential(nn.Flatten(), nn.Linear(256, 1), nn.ReLU()),
        nn.Sequential(nn.Flatten(), nn.Linear(256, 1, bias=False)),
        nn.Sequential(nn.Conv2d(1, 1, 16), nn.Flatten()),
    ],
)
def test_a_network_must_end_linearly(model: nn.Module) -> None:
    with pytest.raises(UnsupportedModelError, match=r"end with nn.Linear\(features, 1\)"):
        run(model, *widths(8, 0))


def test_bad_labels_are_refused() -> None:
    images, labels = widths(8, 0)
    classifier = nn.Sequential(nn.Flatten(), nn.Linear(256, 2))
    with pytest.raises(TargetError, match="2 outputs, as a classifier has"):
        run(classifier, images, labels)
    with pytest.raises(TargetError, match="2 outputs, as a classifier has"):
        predict_values(classifier, images, device="cpu")
    with pytest.raises(TargetError, match="labels that differ"):
        run(network(), images, torch.ones(8))
    with pytest.raises(TargetError, match="labels that differ"):
        run(network(), images, torch.where(labels == labels[0], torch.nan, labels))
    with pytest.raises(TargetError, match="validation set has labels that are not finite"):
        run(network(), images, labels, torch.full((20,), torch.inf))
    with pytest.raises(ParameterError, match="loss='mae' is unknown; expected one of auto, cross_entropy"):
        run(network(), images, labels, loss="mae")
    with pytest.raises(ParameterError, match=r"loss=.* with labels of type torch"):
        task_of(labels, "cross_entropy")
    with pytest.raises(ParameterError, match=r"loss=.* with labels of type torch"):
        task_of(labels.long(), "huber")
    with pytest.raises(ParameterError, match="precision='half' is unknown"):
        run(network(), images, labels, precision="half")
    with pytest.raises(ParameterError, match="copies=0; expected"):
        run(network(), images, labels, copies=0)
