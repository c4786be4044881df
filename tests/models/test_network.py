import copy
import logging
import threading

import pytest
import torch
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from xaitools.attribution import attribute
from xaitools.errors import MethodError, ParameterError, UnsupportedModelError
from xaitools.models import Network, build_network, predict, surgery
from xaitools.models.surgery import log_odds


@pytest.fixture
def network() -> nn.Module:
    """resnet10 whose batch statistics are not those of a fresh network."""
    model = build_network("resnet10").train()
    with torch.no_grad():
        for _ in range(3):
            model(torch.rand(8, 1, 64, 64))
    return model.eval()


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(2, 1, 64, 64, generator=torch.Generator().manual_seed(0))


def norms(model: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())


def test_same_outputs_without_batch_norm(network, images) -> None:
    quick = Network(network, images[:1]).quick
    torch.testing.assert_close(quick(images), network(images).detach(), rtol=1e-4, atol=1e-5)
    assert norms(quick) == 0
    assert not any(parameter.requires_grad for parameter in quick.parameters())
    assert quick.conv1.weight.is_contiguous(memory_format=torch.channels_last)


def test_the_original_is_not_touched(network, images) -> None:
    network.train()
    assert Network(network, images).quick(images).shape == (2, 2)
    assert network.training
    assert norms(network) > 0
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_a_network_that_cannot_be_traced_stays_whole(images, caplog) -> None:
    class Branching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.norm(self.conv(x)).mean((2, 3))
            return x if float(x.detach().sum()) > -1e9 else -x

    model = Branching().eval()
    with caplog.at_level(logging.INFO, "xaitools"):
        quick = Network(model, images).quick
    assert "is not folded" in caplog.text
    torch.testing.assert_close(quick(images), model(images).detach())


def test_folding_is_dropped_where_it_would_change_the_outputs(network, images, monkeypatch, caplog) -> None:
    monkeypatch.setattr(
        surgery, "fuse", lambda model, **_: surgery.trace(nn.Sequential(model, nn.Softplus()))
    )
    with caplog.at_level(logging.INFO, "xaitools"):
        quick = Network(network, images).quick
    assert "the outputs would differ" in caplog.text
    torch.testing.assert_close(quick(images), network(images).detach(), rtol=1e-4, atol=1e-5)


def test_batch_statistics_in_evaluation_are_refused(images) -> None:
    norm = nn.BatchNorm2d(2, track_running_stats=False)
    model = nn.Sequential(nn.Conv2d(1, 2, 3), norm, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    with pytest.raises(UnsupportedModelError, match="depend on the other images of the batch"):
        Network(model, images)


def test_bfloat16_comes_back_as_float32(network, images) -> None:
    rough = Network(network, images, "bf16").quick(images)
    assert rough.dtype == torch.float32
    torch.testing.assert_close(rough, network(images).detach(), rtol=0.05, atol=0.05)


def test_bad_precision_and_models_that_cannot_be_copied(network, images) -> None:
    with pytest.raises(MethodError, match="expected one of float32, bf16"):
        Network(network, images, "int8")
    network.stored = threading.Lock()
    with pytest.raises(UnsupportedModelError, match="ResNet cannot be copied"):
        Network(network, images)


def test_a_network_that_keeps_its_activations_is_copied_without_their_history(network, images) -> None:
    network.stored = network(images)
    expected = network(images).detach()
    torch.testing.assert_close(Network(network, images).quick(images), expected, rtol=1e-4, atol=1e-5)
    assert network.stored.grad_fn is not None


def test_bfloat16_starts_after_the_layers_next_to_the_image(network, images) -> None:
    rough = Network(network, images, "bf16").quick
    first = [module for module in rough.first.modules() if isinstance(module, nn.Conv2d)]
    rest = [module for module in rough.rest.modules() if isinstance(module, nn.Conv2d)]
    assert {module.weight.dtype for module in first} == {torch.float32}
    assert {module.weight.dtype for module in rest} == {torch.bfloat16}
    total = sum(isinstance(module, nn.Conv2d) for module in network.modules())
    assert len(first) + len(rest) == total
    assert 0.3 < len(first) / total < 0.7
    whole = torch.nn.Sequential(rough.first, rough.rest.float())
    torch.testing.assert_close(whole(images), network(images).detach(), rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("name", ["resnet10", "vgg8"])
def test_without_biases_nothing_is_added(name: str) -> None:
    torch.manual_seed(0)
    model = build_network(name, n_outputs=1).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean)
            nn.init.normal_(module.bias)
    images = torch.rand(2, 1, 64, 64)
    before = model(images).detach()
    bare = Network(model, images[:1]).without_biases.quick
    torch.testing.assert_close(bare(2.5 * images), 2.5 * bare(images))
    assert not torch.allclose(bare(images), before)
    torch.testing.assert_close(model(images), before)


def test_a_constant_that_is_no_bias_is_found() -> None:
    class Shifted(nn.Sequential):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) + 0.5

    model = Shifted(nn.Flatten(), nn.Linear(16, 1))
    with pytest.raises(UnsupportedModelError, match=r"answers a black image with 0\.5"):
        _ = Network(model, torch.rand(1, 1, 4, 4)).without_biases


def test_a_traced_copy_has_merged_norms_and_the_names_of_its_layers(network, images) -> None:
    network.train()
    graph = Network(network, images[:1]).graph
    assert network.training
    network.eval()
    assert norms(graph) == 0
    torch.testing.assert_close(graph(images), network(images).detach(), rtol=1e-4, atol=1e-5)
    assert "layer1.0.conv1" in dict(graph.named_modules())


def test_norms_stay_where_merging_would_change_the_outputs(images) -> None:
    """The layer is used twice, so that a merge would take effect twice."""

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(1, 1, 3), nn.BatchNorm2d(1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.norm(self.conv(self.norm(self.conv(x)))).mean((2, 3))

    model = Twice().eval()
    model.norm.running_mean += 0.5
    model.norm.running_var += 3
    graph = Network(model, images).graph
    assert norms(graph) == 1
    torch.testing.assert_close(graph(images), model(images).detach())


def test_a_network_that_cannot_be_traced_is_refused(images) -> None:
    class Branching(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x if float(x.sum()) > 0 else -x

    with pytest.raises(UnsupportedModelError, match="Branching cannot be traced"):
        _ = Network(Branching(), images).graph


@pytest.mark.parametrize("bias", [True, False])
def test_log_odds_are_the_difference_of_the_logits(network, images, bias) -> None:
    network.fc = nn.Linear(network.fc.in_features, 2, bias=bias)
    logits = network(images).detach()
    model = log_odds(network, images)
    torch.testing.assert_close(model(images), logits[:, 1:] - logits[:, :1], rtol=1e-4, atol=1e-5)
    assert torch.equal(network(images).detach(), logits)


def test_log_odds_of_a_single_layer() -> None:
    layer, features = nn.Linear(3, 2), torch.rand(4, 3)
    expected = layer(features)[:, 1] - layer(features)[:, 0]
    torch.testing.assert_close(log_odds(layer, features)(features)[:, 0], expected.detach())


@pytest.mark.parametrize(
    "model",
    [
        nn.Sequential(nn.Flatten(), nn.Linear(16, 3)),
        nn.Sequential(nn.Flatten(), nn.Linear(16, 2), nn.Softmax(1)),
        nn.Sequential(nn.Flatten(), nn.Linear(16, 2), nn.ReLU(), nn.Linear(2, 3)),
        nn.Sequential(nn.Conv2d(1, 2, 4), nn.Flatten()),
    ],
    ids=["three classes", "softmax", "hidden layer of two", "no linear layer"],
)
def test_log_odds_of_other_networks_are_refused(model) -> None:
    with pytest.raises(UnsupportedModelError, match="logits"):
        log_odds(model, torch.rand(2, 1, 4, 4))


def test_the_log_odds_of_a_prepared_network(network, images) -> None:
    network.fc = nn.Linear(network.fc.in_features, 2)
    logits = network(images).detach()
    odds = Network(network, images).log_odds
    assert odds.n_outputs == 1
    torch.testing.assert_close(odds.quick(images), logits[:, 1:] - logits[:, :1], rtol=1e-4, atol=1e-5)


def test_forms_are_made_once_and_share_the_weights(network, images) -> None:
    prepared = Network(network, images)
    assert prepared.quick is prepared.folded is prepared.graph
    own = {value.data_ptr() for value in prepared.plain.state_dict().values()}
    assert prepared.plain.conv1.weight.is_contiguous()
    assert not set(prepared.folded.parameters()) & set(prepared.plain.parameters())
    twin = surgery.twin(prepared.plain)
    assert {value.data_ptr() for value in twin.state_dict().values()} == own
    assert not own & {value.data_ptr() for value in network.state_dict().values()}
    assert all(a is not b for a, b in zip(twin.modules(), prepared.plain.modules(), strict=True))


def test_a_prepared_network_is_taken_as_it_is(network, images) -> None:
    prepared = Network(network, images)
    assert Network.of(prepared, images) is prepared
    with pytest.raises(MethodError, match="prepared for 'float32'"):
        Network.of(prepared, images, "bf16")


def test_randomised_twins(network, images) -> None:
    prepared = Network(network, images)
    assert prepared.layers[0] == "conv1"
    assert prepared.layers[-1] == "fc"
    state = torch.random.get_rng_state()
    one, same, other = (prepared.randomized(["fc"], seed) for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(one.plain.fc.weight, same.plain.fc.weight)
    assert not torch.equal(one.plain.fc.weight, other.plain.fc.weight)
    assert not torch.equal(one.plain.fc.weight, network.fc.weight)
    assert torch.equal(one.plain.conv1.weight, network.conv1.weight)
    with pytest.raises(ParameterError, match="layer='head' is unknown; expected one of conv1"):
        prepared.randomized(["head"])


def test_a_layer_is_redrawn_alike_in_all_twins(images) -> None:
    layers = [nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3)]
    prepared = Network(nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()), images)
    one, more = (prepared.randomized(names, 3).model for names in (["1"], ["2", "1", "0"]))
    assert torch.equal(one[1].weight, more[1].weight)
    assert not torch.equal(more[1].weight, more[2].weight)  # of equal shape, but drawn apart


class Normed(nn.Module):
    """Defined from the last layer to the first; batch norms with and without weights, and frozen."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.frozen = nn.Linear(4, 2), FrozenBatchNorm2d(4)
        self.bare, self.norm = nn.BatchNorm2d(4, affine=False), nn.BatchNorm2d(4)
        self.conv = nn.Conv2d(1, 4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.frozen(self.bare(self.norm(self.conv(x))))
        return self.head(torch.relu(x).mean((2, 3)))


def test_batch_norm_is_redrawn_with_its_statistics(images) -> None:
    net = Normed().train()
    with torch.no_grad():
        for tensor in (*net.norm.parameters(), *net.frozen.buffers()):
            tensor.uniform_(1.5, 2)
    net(images)
    prepared = Network(net.eval(), images)
    assert prepared.layers == ("conv", "norm", "bare", "frozen", "head")
    state = copy.deepcopy(net.state_dict())
    twin = prepared.randomized(["norm", "bare", "frozen"]).model
    fresh = Normed()
    for name in ("norm", "bare", "frozen"):
        for key, value in getattr(fresh, name).state_dict().items():
            assert torch.equal(getattr(twin, name).state_dict()[key], value), (name, key)
            assert not torch.equal(state[f"{name}.{key}"], value), (name, key)
    assert torch.equal(twin.conv.weight, net.conv.weight)
    assert all(torch.equal(net.state_dict()[key], value) for key, value in state.items())


def test_only_the_layer_itself_is_redrawn(images) -> None:
    """Though its `reset_parameters` resets the layers within it, and leaves a parameter of its own."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.attention = nn.Conv2d(1, 4, 8, 8), nn.MultiheadAttention(4, 1, batch_first=True)
            self.scale, self.gain = nn.Parameter(torch.rand(4)), nn.Parameter(torch.rand(4))

        def reset_parameters(self) -> None:
            self.conv.reset_parameters()
            nn.init.ones_(self.scale)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.conv(x).flatten(2).mT * self.scale * self.gain
            return self.attention(x, x, x)[0].mean((1, 2))

    net = Block().eval()
    nn.init.ones_(net.attention.out_proj.bias)
    prepared = Network(net, images)
    assert prepared.layers == ("", "conv", "attention", "attention.out_proj")
    twin = prepared.randomized([""]).model
    assert torch.equal(twin.conv.weight, net.conv.weight)
    assert torch.equal(twin.scale, torch.ones(4))
    assert not torch.equal(twin.gain, net.gain)
    twin = prepared.randomized(["attention"]).model.attention
    assert not torch.equal(twin.in_proj_weight, net.attention.in_proj_weight)
    assert twin.in_proj_weight.abs().max() <= (6 / (4 + 12)) ** 0.5  # Glorot's bound, of its own initialiser
    assert torch.equal(twin.out_proj.bias, net.attention.out_proj.bias)


def test_a_gradient_of_its_own_is_kept(images) -> None:
    class Doubled(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, grad):
            return 2 * grad

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.function = Doubled.apply

        def forward(self, x):
            return self.function(x).mean((1, 2, 3))

    prepared, leaf = Network(Net(), images), images.clone().requires_grad_()
    prepared.quick(leaf).sum().backward()
    torch.testing.assert_close(leaf.grad, torch.full_like(images, 2 / images[0].numel()))
    with pytest.raises(UnsupportedModelError, match="Doubled has a gradient of its own"):
        _ = prepared.graph
    x = torch.ones(1, requires_grad=True)
    Doubled.apply(x).backward()
    assert x.grad == 2


class Viewing(nn.Module):
    """Flattens as most public networks do, which needs the channel first in memory."""

    def __init__(self, traceable: bool) -> None:
        super().__init__()
        self.traceable = traceable
        self.conv, self.norm, self.head = nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Linear(3 * 62 * 62, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.conv(x)))
        if not self.traceable and float(x.detach().sum()) < 0:
            return x
        return self.head(x.view(x.size(0), -1))


@pytest.mark.parametrize("traceable", [True, False])
def test_a_network_that_views_its_activations(images, traceable) -> None:
    model = Viewing(traceable).eval()
    model.norm.running_mean += 0.2
    network, expected = Network(model, images), model(images).detach()
    torch.testing.assert_close(network.quick(images), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(predict(model, images), expected.softmax(1))
    leaf = images.clone().requires_grad_()
    model(leaf)[:, 1].sum().backward()
    for names in (["gradient"], ["gradient", "occlusion[16]"]):
        maps = attribute(model, images, 1, names, progress=False)
        torch.testing.assert_close(maps["gradient"], leaf.grad, rtol=1e-3, atol=1e-6)


def test_parameters_that_no_layer_draws_are_redrawn_like_themselves(images) -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(3 + 0.5 * torch.randn(1, 1, 64, 64))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (x * self.scale).mean((2, 3))

    prepared = Network(Scaled().eval(), images)
    assert prepared.layers == ("",)
    drawn = prepared.randomized([""]).model.scale
    assert not torch.allclose(drawn, prepared.model.scale)
    torch.testing.assert_close(drawn.mean(), torch.tensor(3.0), rtol=0.02, atol=0)
    torch.testing.assert_close(drawn.std(), torch.tensor(0.5), rtol=0.05, atol=0)
