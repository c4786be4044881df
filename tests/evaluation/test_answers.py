"""What both perturbation metrics take: networks as they are, images and maps in any container, any target."""

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from xaitools.errors import DataError, ParameterError, ShapeError, TargetError, UnsupportedModelError
from xaitools.evaluation import fidelity_curves, region_perturbation
from xaitools.evaluation._answers import asking
from xaitools.models import build_network, predict

METRICS = [fidelity_curves, region_perturbation]


class Net(nn.Module):
    """A classifier whose batch norm is in evaluation mode while the rest is in training, as when fine-tuning."""

    def __init__(self, n_outputs: int = 3) -> None:
        super().__init__()
        self.conv, self.norm, self.drop = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout()
        self.head = nn.Linear(4, n_outputs)
        generator = torch.Generator().manual_seed(0)
        for parameter in self.parameters():
            nn.init.normal_(parameter, generator=generator)
        self.norm.eval()
        self.seen: list[tuple] = []

    def forward(self, images: Tensor) -> Tensor:
        self.seen.append((images.dtype, self.training, torch.is_grad_enabled()))
        return self.head(self.drop(self.norm(self.conv(images)).relu().mean((2, 3))))


class WithView(nn.Module):
    """Flattens by a view, as most public networks do, which needs the channel first in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 4, 3, stride=8), nn.Linear(4 * 8 * 8, 2)

    def forward(self, images: Tensor) -> Tensor:
        features = self.conv(images)
        return self.head(features.view(len(features), -1))


class Reader:
    """A stack of images that are read when they are asked for."""

    def __init__(self, images: Tensor) -> None:
        self.images, self.shape = images, tuple(images.shape)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: slice | Tensor) -> Tensor:
        return self.images[index]


def example() -> tuple[Tensor, dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(3, 1, 12, 9, generator=generator)
    return images, {name: torch.randn(3, 1, 12, 9, generator=generator) for name in ("gradient", "other")}


def runs(metric, model, *, images=None, maps=None, target=1, **options):
    first, several = example()
    images, maps = first if images is None else images, several if maps is None else maps
    found = metric(model, images, maps, target, **{"progress": False, "n_random": 2, **options})
    return found.curves if metric is fidelity_curves else found.runs


def check_equal(found, expected) -> None:
    assert found.keys() == expected.keys()
    for key, values in expected.items():
        np.testing.assert_array_equal(found[key], values)


@pytest.mark.parametrize("metric", METRICS)
def test_a_network_answers_as_the_callable_that_a_user_would_write(metric) -> None:
    net = Net()
    plain = copy.deepcopy(net).eval()

    def by_hand(batch: Tensor) -> Tensor:
        with torch.no_grad():
            return plain(batch).softmax(dim=1) if metric is fidelity_curves else plain(batch)

    found, expected = runs(metric, net), runs(metric, by_hand)
    assert found.keys() == expected.keys()
    for key, values in expected.items():
        np.testing.assert_allclose(found[key], values, rtol=1e-5)


def test_fidelity_asks_as_predict_does() -> None:
    images, maps = (torch.rand(2, 1, 64, 64, generator=torch.Generator().manual_seed(s)) for s in (0, 1))
    net = build_network("resnet10")
    given = {"images": images, "maps": maps, "fractions": (0, 0.5, 1)}
    by_predict = runs(fidelity_curves, lambda batch: predict(net, batch, device="cpu"), **given)
    check_equal(runs(fidelity_curves, net, **given), by_predict)


@pytest.mark.parametrize("metric", METRICS)
def test_views_after_convolutions_work(metric) -> None:
    images, maps = (torch.rand(2, 1, 64, 64, generator=torch.Generator().manual_seed(s)) for s in (0, 1))
    net = WithView()
    softmax = torch.softmax if metric is fidelity_curves else lambda outputs, dim: outputs
    by_hand = runs(metric, lambda batch: softmax(net(batch), 1), images=images, maps=maps)
    check_equal(runs(metric, net, images=images, maps=maps), by_hand)


@pytest.mark.parametrize("metric", METRICS)
def test_a_network_is_left_as_it_was(metric) -> None:
    net = Net().double()
    state = copy.deepcopy(net.state_dict())
    modes = [module.training for module in net.modules()]
    runs(metric, net)
    assert set(net.seen) == {(torch.float64, False, False)}
    assert [module.training for module in net.modules()] == modes
    assert modes[0]
    assert not all(modes)
    assert all(torch.equal(values, net.state_dict()[name]) for name, values in state.items())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in net.parameters())
    with pytest.raises(TargetError):
        runs(metric, net, target=7)
    assert [module.training for module in net.modules()] == modes
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("metric", METRICS)
def test_half_precision_and_networks_without_weights(metric) -> None:
    expected, rounded = runs(metric, Net()), runs(metric, Net().bfloat16())
    for key, values in expected.items():
        np.testing.assert_allclose(rounded[key], values, atol=0.2)
    mean = nn.Sequential(nn.AdaptiveAvgPool2d((1, 3)), nn.Flatten())
    by_hand = (lambda batch: mean(batch).softmax(dim=1)) if metric is fidelity_curves else mean.forward
    check_equal(runs(metric, mean), runs(metric, by_hand))


@pytest.mark.parametrize("metric", METRICS)
def test_images_maps_and_targets_in_any_container(metric) -> None:
    images, maps = example()
    expected = runs(metric, Net())
    for same in (images.numpy(), images.double().numpy(), Reader(images), images.clone().requires_grad_()):
        check_equal(runs(metric, Net(), images=same), expected)
    arrays = {name: values[:, 0].numpy() for name, values in maps.items()}
    check_equal(runs(metric, Net(), maps=arrays), expected)
    for target in ([1, 1, 1], np.int64(1), torch.tensor([1, 1, 1]), np.array(1, dtype=np.int32), (1, 1, 1)):
        check_equal(runs(metric, Net(), target=target), expected)
    for alone in (maps["other"], arrays["other"]):
        found = runs(metric, Net(), maps=alone)
        assert list(found) == [("map", "most"), ("map", "least"), ("random", "random")]
        np.testing.assert_array_equal(found["map", "most"], expected["other", "most"])


@pytest.mark.parametrize("metric", METRICS)
def test_maps_of_whole_numbers_are_ranked_by_their_value(metric) -> None:
    """The negative of an unsigned 1 is 255, and of True an error."""
    levels = torch.arange(4).repeat_interleave(27).reshape(1, 12, 9).expand(3, 12, 9)
    expected = runs(metric, Net(), maps={"m": levels.float()})
    for dtype in (torch.uint8, torch.int32):
        check_equal(runs(metric, Net(), maps={"m": levels.to(dtype)}), expected)
    check_equal(
        runs(metric, Net(), maps={"m": levels > 1}), runs(metric, Net(), maps={"m": (levels > 1).float()})
    )


@pytest.mark.parametrize("metric", METRICS)
def test_progress_tells_every_batch_and_can_cancel(metric) -> None:
    told: list[tuple[int, int]] = []
    image, maps = example()[0][:1], {name: values[:1] for name, values in example()[1].items()}
    net = Net()
    runs(
        metric,
        net,
        images=image,
        maps=maps,
        batch_size=8,
        progress=lambda done, total: told.append((done, total)),
    )
    assert len(told) - 1 == len(net.seen) > 3
    done, totals = zip(*told, strict=True)
    assert done[0] == 0
    assert list(done) == sorted(set(done))
    assert set(totals) == {done[-1]}

    def cancel(done: int, total: int) -> None:
        if done:
            raise KeyboardInterrupt

    net = Net()
    with pytest.raises(KeyboardInterrupt):
        runs(metric, net, batch_size=8, progress=cancel)
    assert len(net.seen) == 1
    assert net.training


@pytest.mark.parametrize("metric", METRICS)
def test_a_bar_appears_only_where_it_is_asked_for(metric, capsys) -> None:
    runs(metric, Net(), progress=True)
    assert capsys.readouterr().err.strip() == ""


def test_fidelity_needs_logits_of_several_classes() -> None:
    for model, error, message in [
        (Net(1), TargetError, r"shape \(\d+, 1\); expected a row of logits, one for each class"),
        (nn.Sequential(Net(), nn.Flatten(0)), TargetError, r"shape \(\d+, 1\); expected a row of logits"),
        (Net().eval().forward, DataError, "values from -.* expected probabilities, 0 to 1: take the softmax"),
    ]:
        with pytest.raises(error, match=message):
            runs(fidelity_curves, model, target=0)


@pytest.mark.parametrize("metric", METRICS)
def test_outputs_that_are_no_tensor_are_named(metric) -> None:
    class Pair(Net):
        def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
            return super().forward(images), images

    with pytest.raises(UnsupportedModelError, match="say which is to be explained, as in output=0"):
        runs(metric, Pair())
    pair = Pair().eval()
    with pytest.raises(ShapeError, match="model returned a tuple; expected a tensor"):
        runs(metric, lambda batch: pair(batch))


def test_what_is_no_model_is_named() -> None:
    with pytest.raises(ParameterError, match="model is of type str; expected a network or a callable"):
        asking("resnet").__enter__()


class Returning(Net):
    """Returns whatever is made of its logits, and works in place on its input."""

    def __init__(self, make) -> None:
        super().__init__()
        self.make = make

    def forward(self, images: Tensor):
        logits = super().forward(images.clone())
        images.zero_()
        return self.make(logits)


@pytest.mark.parametrize("batch_size", [1, 7])
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    ("make", "output"),
    [
        (lambda logits: (logits,), None),
        (lambda logits: {"logits": logits, "features": logits.exp()}, "logits"),
        (lambda logits: [logits.exp(), logits], 1),
        (lambda logits: {"deep": {"logits": logits}}, lambda found: found["deep"]["logits"]),
        (lambda logits: logits.squeeze(), None),
        (lambda logits: logits[..., None, None], None),
    ],
)
def test_whatever_a_network_returns(metric, make, output, batch_size) -> None:
    expected = runs(metric, Net(), batch_size=batch_size)
    check_equal(runs(metric, Returning(make), output=output, batch_size=batch_size), expected)


@pytest.mark.parametrize("batch_size", [1, 7])
def test_probabilities_of_a_network_are_taken_as_they_are(batch_size) -> None:
    """A softmax of probabilities would lie near one third."""
    expected = runs(fidelity_curves, Net(), batch_size=batch_size)
    found = runs(fidelity_curves, nn.Sequential(Net(), nn.Softmax(dim=1)), batch_size=batch_size)
    for key, values in expected.items():
        np.testing.assert_allclose(found[key], values, rtol=1e-5)
