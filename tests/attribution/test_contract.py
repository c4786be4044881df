"""What every method promises, over all that are registered: a new one is tested here without a line written."""

import copy
import inspect

import numpy as np
import pytest
import torch
from torch import nn

from xaitools.attribution import METHODS, attribute, parse
from xaitools.attribution.registry import KINDS, find
from xaitools.errors import TargetError, UnsupportedModelError, XaitoolsError
from xaitools.models import Network

CAPTUM = {
    "captum.Saliency": {"abs": False},
    "captum.Occlusion": {"sliding_window_shapes": (1, 4, 4), "strides": (1, 4, 4)},
}
NAMES = [*METHODS, *CAPTUM]
OPTIONS = {
    **CAPTUM,
    "occlusion": {"baseline": 0.5},
    "meaningful_perturbation": {"iterations": 3, "coarse": 4, "l1": 0.0, "l2": 0.0},
    "extremal_perturbation": {"iterations": 3, "coarse": 4},
}


def run(model, images, target, name, **more):
    """One map, with small settings."""
    settings = {"steps": 3, "draws": 2, "references": images, "options": OPTIONS, "progress": False}
    return attribute(model, images, target, [name], **{**settings, **more})[name]


def close(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-5 * float(expected.abs().max()))


class Tokens(nn.Module):
    """A vision transformer in small, for methods that need attention."""

    def __init__(self, patch, classes):
        super().__init__()
        conv = {2: nn.Conv2d, 3: nn.Conv3d}[len(patch)]
        self.patches, self.token = conv(1, 8, patch, patch), nn.Parameter(torch.randn(1, 1, 8))
        self.attention, self.relu = nn.MultiheadAttention(8, 2, batch_first=True), nn.ReLU(inplace=True)
        self.head = nn.Linear(8, classes)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1)
        for _ in range(2):
            x = x + self.attention(3 * x, 3 * x, x, need_weights=False)[0]
        return self.head(self.relu(x[:, 0]))


NEED_ATTENTION = ("attention_rollout",)


@pytest.fixture
def residual_net(request, make_residual_net):
    """A network that suits the test's method."""
    if request.node.callspec.params.get("name") in NEED_ATTENTION:
        torch.manual_seed(0)
        return Tokens((3, 2), 3)
    return make_residual_net()


@pytest.fixture
def volume_net(request, volume_net):
    if request.node.callspec.params.get("name") in NEED_ATTENTION:
        return Tokens((4, 3, 7), 1)
    return volume_net


@pytest.fixture
def volumes():
    return torch.rand(2, 1, 8, 9, 7, generator=torch.Generator().manual_seed(4))


@pytest.mark.parametrize("name", METHODS)
def test_it_says_what_it_is(name) -> None:
    method = METHODS[name]
    assert method.kind in KINDS
    assert method.idea.endswith("?") or len(method.idea) > 20
    assert method.reference.rstrip().endswith(".")
    assert method.label(method.option.default if method.option else "")
    assert inspect.getdoc(method.function).count("model\n    Network that returns") == 1
    assert "References\n----------" in method.function.__doc__
    assert list(inspect.signature(method.function).parameters)[:3] == ["model", "images", "target"]
    assert parse(name).base == name


@pytest.mark.parametrize("smoothing", ["", "+smoothgrad"])
@pytest.mark.parametrize("name", NAMES)
def test_slices(residual_net, images, targets, name, smoothing) -> None:
    maps = run(residual_net, images, targets, name + smoothing)
    assert maps.shape == images.shape
    assert maps.dtype == images.dtype
    assert maps.device == images.device
    assert torch.isfinite(maps).all()
    assert maps.any()
    assert not maps.requires_grad


@pytest.mark.parametrize("name", METHODS)
def test_volumes(volume_net, volumes, name) -> None:
    volume_net.head.weight.data.abs_()  # some signal speaks for the output
    maps = run(volume_net, volumes, None, name)
    assert maps.shape == volumes.shape
    assert maps.any()


@pytest.mark.parametrize("name", NAMES)
def test_targets_of_any_type(residual_net, images, name) -> None:
    expected = run(residual_net, images, torch.tensor([1, 1, 1]), name)
    for target in (
        1,
        np.int64(1),
        [1, 1, 1],
        np.array([1, 1, 1]),
        torch.tensor(1),
        torch.tensor([1, 1, 1]).int(),
    ):
        assert torch.equal(run(residual_net, images, target, name), expected)


@pytest.mark.parametrize("name", METHODS)
def test_alone_as_in_a_call_of_attribute(residual_net, images, targets, name) -> None:
    method = METHODS[name]
    own = {key: value for key, value in {"steps": 3, "references": images}.items() if key in method.keywords}
    alone = method.function(residual_net, images, targets, progress=False, **own, **OPTIONS.get(name, {}))
    assert torch.equal(alone, run(residual_net, images, targets, name))


@pytest.mark.parametrize("name", NAMES)
def test_an_image_does_not_depend_on_its_batch(residual_net, images, targets, name) -> None:
    together = run(residual_net, images, targets, name, references=images, batch_size=5)
    alone = run(residual_net, images[1:2], targets[1:2], name, references=images, batch_size=2)
    close(alone[0], together[1])


@pytest.mark.parametrize("name", NAMES)
def test_in_company_as_alone(residual_net, images, targets, name) -> None:
    settings = {"steps": 3, "draws": 2, "references": images, "options": OPTIONS, "progress": False}
    names = [name, "gradient", "gradient+smoothgrad", f"{name}+vargrad", "integrated_gradients[white]"]
    together = attribute(residual_net, images[:2], targets[:2], names, **settings)
    close(together[name], run(residual_net, images[:2], targets[:2], name, references=images))


@pytest.mark.parametrize("name", NAMES)
def test_same_seed_same_bits(residual_net, images, targets, name) -> None:
    one, same = (run(residual_net, images, targets, f"{name}+smoothgrad", seed=3) for _ in range(2))
    assert torch.equal(one, same)
    if name != "deconvolution":  # which, on a network without max pooling, does not depend on the image
        assert not torch.equal(one, run(residual_net, images, targets, f"{name}+smoothgrad", seed=4))


@pytest.mark.parametrize("name", NAMES)
def test_passes_are_told_until_the_last(residual_net, images, targets, name) -> None:
    heard: list[tuple[int, int]] = []
    run(residual_net, images, targets, name, progress=lambda *pair: heard.append(pair), batch_size=2)
    done, totals = zip(*heard, strict=True)
    assert list(done) == sorted(done)
    assert done[0] == 0
    assert set(totals) == {done[-1]}
    assert len(set(done)) > 2


@pytest.mark.parametrize("on_error", ["raise", "keep"])
@pytest.mark.parametrize("name", NAMES)
def test_a_cancellation_is_heard_and_nothing_is_touched(
    residual_net, images, targets, name, on_error
) -> None:
    class Cancelled(Exception):
        pass

    def tell(done, total):
        if done:
            raise Cancelled

    residual_net.train()
    state, before = copy.deepcopy(residual_net.state_dict()), images.clone()
    random = torch.random.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    with pytest.raises(Cancelled):
        run(residual_net, images, targets, name, progress=tell, batch_size=2, on_error=on_error)
    run(residual_net, images, targets, name)
    assert torch.equal(torch.random.get_rng_state(), random[0])
    assert (np.random.get_state()[1] == random[1]).all()  # noqa: NPY002
    assert torch.equal(images, before)
    assert images.grad is None
    assert residual_net.training
    assert residual_net.relu.inplace
    assert all(p.requires_grad and p.grad is None for p in residual_net.parameters())
    assert all(torch.equal(value, state[key]) for key, value in residual_net.state_dict().items())
    assert all(not m._forward_hooks and not m._backward_hooks for m in residual_net.modules())


@pytest.mark.parametrize("name", NAMES)
def test_a_class_that_is_not_there(residual_net, images, name) -> None:
    with pytest.raises(TargetError, match="target 3 with a network of 3 outputs"):
        run(residual_net, images, 3, name)


class Attention(nn.Module):
    """Has no ReLU, multiplies two activations, and cannot be traced."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 4, 3), nn.Linear(4, 3)

    def forward(self, x):
        x = self.conv(x)
        x = x * x.sigmoid()
        return self.head(x.mean((2, 3)) if float(x.detach().mean()) < 1e9 else x)


@pytest.mark.parametrize("name", NAMES)
def test_it_is_right_or_says_why_not(images, targets, name) -> None:
    """`supports` gives a reason, and then the call refuses with it; and the reason names what to do."""
    torch.manual_seed(0)
    network = Network(Attention().eval(), images[:1])
    if name in CAPTUM:
        assert run(network, images, targets, name).any()
        return
    reason = METHODS[name].supports(network)
    assert (reason is not None) == (METHODS[name].kind == "rule")
    if reason is None:
        assert run(network, images, targets, name).any()
    else:
        with pytest.raises(UnsupportedModelError, match=r"(?s)[Uu]se .*gradient") as refused:
            run(network, images, targets, name)
        assert reason in str(refused.value)


@pytest.mark.parametrize("name", METHODS)
def test_what_suits_is_supported(residual_net, images, name) -> None:
    assert METHODS[name].supports(Network(residual_net, images)) is None


def test_a_failing_method_costs_the_others_nothing(functional_net, images, targets) -> None:
    names = ["gradient", "lrp", "expected_gradients", "occlusion[4]", "deconvolution", "lrp+smoothgrad"]
    maps = attribute(functional_net, images, targets, names, on_error="keep", draws=2, progress=False)
    assert list(maps) == ["gradient", "occlusion[4]", "deconvolution"]
    assert maps.errors.keys() == {"lrp", "expected_gradients", "lrp+smoothgrad"}
    assert all(isinstance(error, XaitoolsError) for error in maps.errors.values())
    assert "lrp[epsilon]: " in str(maps.errors["lrp"])
    assert "pass references=" in str(maps.errors["expected_gradients"])
    close(maps["gradient"], run(functional_net, images, targets, "gradient"))


def test_maps_print_as_a_short_table(functional_net, images, targets) -> None:
    maps = attribute(functional_net, images, targets, ["gradient", "lrp"], on_error="keep", progress=False)
    head, first, second = repr(maps).splitlines()
    assert head == "1 maps"
    assert first.split()[:6] == ["gradient", "3", "x", "1", "x", "12"]
    assert "no rule for detach" in second


def test_captum_classes_are_found_by_name() -> None:
    assert find("captum.Saliency").label("") == "Saliency"
    assert find("captum.Occlusion").kind == "perturbation"
