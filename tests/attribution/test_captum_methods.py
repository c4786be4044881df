import copy
import inspect
import random
from itertools import permutations

import captum.attr
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xaitools.attribution import attribute, deconvolution, guided_backprop
from xaitools.attribution._stream import Batch
from xaitools.attribution.captum_methods import KNOWN, REFUSED, _agree, _seeded
from xaitools.attribution.registry import Setting
from xaitools.errors import MethodError, ShapeError, UnsupportedModelError
from xaitools.models.network import Network

SHAPE = (8, 6)
REGIONS = (torch.arange(8)[:, None] // 4 * 2 + torch.arange(6) // 3)[None, None]
"""Four regions."""


class Net(nn.Module):
    """Two convolutions with ReLUs; `relus` says how they are spelled, `pool` what follows."""

    def __init__(self, relus: str = "modules", pool: str = ""):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.act, self.act2, self.halve = nn.ReLU(), nn.ReLU(), nn.MaxPool2d(2)
        self.in_place = nn.ReLU(inplace=True)
        self.head = nn.Linear(192, 3)
        self.relus, self.pool = relus, pool

    def forward(self, x: Tensor) -> Tensor:
        first, second = self.spelled()
        h = first(self.norm(self.first(x)))
        if self.pool == "overlapping":
            h = F.interpolate(F.max_pool2d(h, 3, 1, 1), scale_factor=1)
        if self.pool == "halves":
            h = F.interpolate(second(self.halve(self.second(h))), scale_factor=2)
            return self.head(h.flatten(1))
        return self.head(second(self.second(h)).flatten(1))

    def spelled(self):
        return {
            "modules": (self.act, self.act2),
            "reused": (self.act, self.act),
            "in place": (self.in_place, self.in_place),
            "functional": (F.relu, torch.relu_),
            "methods": (lambda h: h.relu(), lambda h: h.clamp(min=0)),
            "effects": (self.effect, lambda h: F.relu(h, inplace=True)),
            "gelu": (self.act, F.gelu),
        }[self.relus]

    @staticmethod
    def effect(h):
        F.relu_(h)
        return h


class Rescaled(torch.autograd.Function):
    """ReLU of images and of their baselines, (2, ...), that sends back change out / change in (DeepLIFT's rescale)."""

    @staticmethod
    def forward(ctx, pair):
        ctx.save_for_backward(pair)
        return pair.clamp(min=0)

    @staticmethod
    def backward(ctx, incoming):
        (pair,) = ctx.saved_tensors
        change, after = pair[0] - pair[1], pair[0].clamp(min=0) - pair[1].clamp(min=0)
        ratio = torch.where(change == 0, (pair[0] > 0).double(), after / change)
        return incoming * ratio


def slow_deep_lift(net, x, target, baseline):
    """One image (channel, *spatial) in float64."""
    net = copy.deepcopy(net).double()
    net.spelled = lambda: (Rescaled.apply, Rescaled.apply)
    pair = torch.stack([x.double(), baseline.double()]).requires_grad_()
    (gradient,) = torch.autograd.grad(net(pair)[0, target], pair)
    return (x.double() - baseline.double()) * gradient[0]


@pytest.fixture
def images():
    return torch.rand(3, 1, *SHAPE, generator=torch.Generator().manual_seed(3))


@pytest.fixture
def small(make_trained):
    return lambda *arguments: make_trained(Net(*arguments))


def explain(net, images, target, name, options=None, **more):
    given = {"options": {name.split("+")[0]: options or {}}, "progress": False, "draws": 2}
    return attribute(net, images, target, [name], **{**given, **more})[name]


def test_input_x_gradient(residual_net, images, targets) -> None:
    maps = attribute(residual_net, images, targets, ["captum.InputXGradient", "gradient"])
    torch.testing.assert_close(maps["captum.InputXGradient"], images * maps["gradient"], rtol=1e-3, atol=1e-6)


def test_options_reach_the_class_and_smoothing_works(residual_net, images, targets) -> None:
    name = "captum.Occlusion+smoothgrad"
    maps = attribute(
        residual_net,
        images,
        targets,
        [name, "captum.Occlusion"],
        draws=2,
        options={"captum.Occlusion": {"sliding_window_shapes": (1, *SHAPE)}},
    )
    assert maps[name].shape == images.shape
    with torch.no_grad():
        drop = residual_net(images) - residual_net(torch.zeros_like(images))
    torch.testing.assert_close(maps["captum.Occlusion"][:, 0, 0, 0], drop.gather(1, targets[:, None])[:, 0])


def test_unknown_names_and_options(residual_net, images, targets) -> None:
    with pytest.raises(MethodError, match=r"no attribution class 'Nonsense'; it has .*DeepLift"):
        attribute(residual_net, images, targets, ["captum.Nonsense"])
    options = {"captum.Occlusion": {"window": 3}}
    with pytest.raises(MethodError, match=r"no option 'window'; it takes .*sliding_window_shapes"):
        attribute(residual_net, images, targets, ["captum.Occlusion"], options=options)


def test_what_captum_cannot_do_is_said(residual_net, images, targets) -> None:
    with pytest.raises(UnsupportedModelError, match=r"captum.Occlusion does not run here"):
        attribute(residual_net, images, targets, ["captum.Occlusion"])


def test_every_class_is_in_the_table() -> None:
    there = {
        key
        for key, value in vars(captum.attr).items()
        if inspect.isclass(value)
        and issubclass(value, captum.attr.Attribution)
        and hasattr(value, "attribute")
    }
    assert there <= KNOWN.keys() | REFUSED.keys()
    assert not KNOWN.keys() & REFUSED.keys()


@pytest.mark.parametrize("name", REFUSED)
def test_refused_by_name(residual_net, images, targets, name) -> None:
    with pytest.raises(MethodError, match=rf"captum.{name} .*; expected one of .*DeepLift"):
        attribute(residual_net, images, targets, [f"captum.{name}"])


@pytest.mark.parametrize("relus", ["modules", "reused", "in place", "functional", "methods", "effects"])
def test_deep_lift_in_any_spelling(small, images, targets, relus) -> None:
    net = small(relus)
    baselines = torch.rand(images.shape, generator=torch.Generator().manual_seed(5))
    found = explain(net, images, targets, "captum.DeepLift", {"baselines": baselines})
    slow = [slow_deep_lift(net, *each) for each in zip(images, targets, baselines, strict=True)]
    torch.testing.assert_close(found.double(), torch.stack(slow), rtol=1e-3, atol=1e-6)


def test_deep_lift_shap_is_its_mean(small, images, targets) -> None:
    net = small("functional")
    references = torch.rand(3, 1, *SHAPE, generator=torch.Generator().manual_seed(5))
    found = explain(net, images, targets, "captum.DeepLiftShap", {"baselines": references})
    for i, (x, target) in enumerate(zip(images, targets, strict=True)):
        slow = torch.stack([slow_deep_lift(net, x, target, start) for start in references]).mean(0)
        torch.testing.assert_close(found[i].double(), slow, rtol=1e-3, atol=1e-6)


@pytest.mark.filterwarnings("ignore:Setting forward")
def test_deep_lift_adds_up_where_modules_meet(small, images, targets) -> None:
    """A max pool and a ReLU after one another, whose hooks captum would set on the same tensor."""
    net = small("modules", "halves").double()
    found = explain(net, images.double(), targets, "captum.DeepLift")
    change = (net(images.double()) - net(torch.zeros(1, 1, *SHAPE).double())).detach()
    torch.testing.assert_close(found.flatten(1).sum(1), change.gather(1, targets[:, None])[:, 0])
    stray = captum.attr.DeepLift(net.eval()).attribute(images.double().requires_grad_(), target=targets)
    assert (stray - found).norm() > 0.1 * found.norm()


def test_deep_lift_of_volumes(volume_net) -> None:
    """Functional ReLUs, and batch normalisation before them; by hand at the one layer that is not linear."""
    net, images = volume_net.double(), torch.rand(2, 1, 7, 6, 5).double()
    start = torch.rand(images.shape, generator=torch.Generator().manual_seed(5)).double()
    found = explain(net, images, None, "captum.DeepLift", {"baselines": start})
    torch.testing.assert_close(found.flatten(1).sum(1), (net(images) - net(start))[:, 0].detach())
    leaf = images.clone().requires_grad_()
    before, other = net.norm(net.conv(leaf)), net.norm(net.conv(start))
    slopes = (before.relu() - other.relu()) / (before - other)
    signal = net.head.weight.view(1, -1, 1, 1, 1) / before[0, 0].numel() * slopes.detach()
    (multipliers,) = torch.autograd.grad(before, leaf, signal.detach())
    torch.testing.assert_close(found, multipliers * (images - start))


@pytest.mark.parametrize(("relus", "pool"), [("gelu", ""), ("modules", "overlapping")])
def test_deep_lift_that_does_not_add_up(small, images, targets, relus, pool) -> None:
    with pytest.raises(
        UnsupportedModelError, match=r"captum.DeepLift missed .* of the output's change on Net"
    ):
        explain(small(relus, pool), images, targets, "captum.DeepLift")


@pytest.mark.parametrize("relus", ["modules", "reused", "in place", "functional"])
def test_rules_of_relus_are_ours(small, images, targets, relus) -> None:
    net = small(relus)
    for name, ours in [("GuidedBackprop", guided_backprop), ("Deconvolution", deconvolution)]:
        torch.testing.assert_close(
            explain(net, images, targets, f"captum.{name}"), ours(net, images, targets), rtol=1e-3, atol=1e-6
        )


def test_guided_grad_cam(small, images, targets) -> None:
    name, options = "captum.GuidedGradCam", {"layer": "second"}
    net = small("modules")
    found = explain(net, images, targets, name, options)
    h = net.act(net.norm(net.first(images.double().float())))
    a = net.second(h).detach().requires_grad_()
    score = net.head(net.act2(a).flatten(1)).gather(1, targets[:, None]).sum()
    weights = torch.autograd.grad(score, a)[0].mean((2, 3), keepdim=True)
    cam = (weights * a).sum(1, keepdim=True).clamp(min=0)
    expected = (cam * guided_backprop(net, images, targets)).detach()
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-6)
    with pytest.raises(
        UnsupportedModelError, match=r"GuidedGradCam would be wrong on Net.*Use guided_backprop"
    ):
        explain(small("functional"), images, targets, name, options)


def test_lrp_of_a_chain_only(residual_net, images, targets) -> None:
    torch.manual_seed(0)

    class Chain(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(
                nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 4, 2), nn.ReLU()
            )
            self.head = nn.Linear(8, 3)

        def forward(self, x):
            x = self.body(x)
            return self.head(x.reshape(x.size(0), -1))

    net = Chain().double()
    found = explain(net, images.double(), targets, "captum.LRP")
    leaf = images.double().requires_grad_()
    (gradient,) = torch.autograd.grad(net(leaf).gather(1, targets[:, None]).sum(), leaf)
    torch.testing.assert_close(found, (leaf * gradient).detach(), rtol=1e-5, atol=1e-8)
    with pytest.raises(
        UnsupportedModelError, match=r"ResidualNet does; expected a chain of modules.*use lrp"
    ):
        explain(residual_net, images, targets, "captum.LRP")


DRAWN = {
    "GradientShap": {"baselines": torch.rand(3, 1, *SHAPE, generator=torch.Generator().manual_seed(1))},
    "KernelShap": {"feature_mask": REGIONS, "n_samples": 5},
    "ShapleyValueSampling": {"feature_mask": REGIONS, "n_samples": 2},
    "Lime": {
        "feature_mask": REGIONS,
        "n_samples": 8,
        "interpretable_model": captum.attr._core.lime.SkLearnLasso(alpha=1e-6),
    },
}


@pytest.mark.parametrize("name", DRAWN)
def test_the_seed_rules(small, images, targets, name) -> None:
    net, method = small(), f"captum.{name}"
    torch.manual_seed(1)
    together = explain(net, images, targets, method, DRAWN[name], seed=3)
    torch.manual_seed(2)
    assert torch.equal(together, explain(net, images, targets, method, DRAWN[name], seed=3))
    assert not torch.equal(together, explain(net, images, targets, method, DRAWN[name], seed=4))
    for i in range(3):
        alone = explain(net, images[i : i + 1], targets[i : i + 1], method, DRAWN[name], seed=3)
        torch.testing.assert_close(alone[0], together[i])
    turned = explain(net, images.flip(0), targets.flip(0), method, DRAWN[name], seed=3, batch_size=2)
    torch.testing.assert_close(turned.flip(0), together)


@pytest.mark.parametrize("name", [*DRAWN, "DeepLift", "GuidedBackprop", "Saliency"])
def test_nothing_is_left_behind(small, images, targets, name) -> None:
    net = small()
    before = copy.deepcopy(net.state_dict())
    states = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    explain(net, images, targets, f"captum.{name}", DRAWN.get(name))
    assert torch.equal(states[0], torch.get_rng_state())
    assert np.array_equal(states[1], np.random.get_state()[1])  # noqa: NPY002
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    for module in net.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
        assert not {"input", "output", "rule"} & vars(module).keys()


def test_all_generators_start_from_the_key_and_are_put_back() -> None:
    """Python's by itself, as the type checks that run with the tests draw from it too."""
    random.seed(7)
    expected = random.random()
    random.seed(7)
    drawn = []
    for _ in range(2):
        with _seeded(5, torch.device("cpu")):
            drawn.append((random.random(), np.random.rand(), float(torch.rand(()))))  # noqa: NPY002
    assert drawn[0] == drawn[1]
    assert random.random() == expected


def test_shapley_values_are_exact(small, images, targets) -> None:
    """Against the mean over all orders; sampling and the kernel's regression come close to it."""
    net = small().double()
    x = images[:1].double()

    def score(shown):
        mask = sum((region == REGIONS).double() for region in shown) if shown else torch.zeros(1, 1, *SHAPE)
        with torch.no_grad():
            return float(net(x * mask)[0, targets[0]])

    values = np.zeros(4)
    for order in permutations(range(4)):
        for i, region in enumerate(order):
            values[region] += (score(order[: i + 1]) - score(order[:i])) / 24
    expected = torch.from_numpy(values)[REGIONS]
    for name, more, bound in [
        ("ShapleyValues", {}, 1e-6),
        ("ShapleyValueSampling", {"n_samples": 40}, 0.1),
        ("KernelShap", {"n_samples": 200}, 0.1),
    ]:
        found = explain(net, x, targets[:1], f"captum.{name}", {"feature_mask": REGIONS, **more})
        assert (found - expected).abs().max() < bound * expected.abs().max(), name


PER_IMAGE = {
    "captum.IntegratedGradients": {"n_steps": 3},
    "captum.DeepLift": {},
    "captum.FeatureAblation": {"feature_mask": REGIONS},
    "captum.Occlusion": {"sliding_window_shapes": (1, 4, 3), "strides": (1, 4, 3)},
    "captum.ShapleyValueSampling": {"feature_mask": REGIONS, "n_samples": 2},
    "captum.LayerIntegratedGradients": {"layer": "norm"},
    "integrated_gradients": {"steps": 3},
    "idgi": {"steps": 3},
    "occlusion": {},
}


@pytest.mark.parametrize("smoothing", ["", "+smoothgrad"])
@pytest.mark.parametrize("name", PER_IMAGE)
def test_one_baseline_for_each_image(small, images, targets, name, smoothing) -> None:
    net = small("functional")
    if "Layer" in name:  # its maps have the layer's shape
        net.first, net.norm = nn.Conv2d(1, 1, 3, padding=1), nn.BatchNorm2d(1).eval()
        net.second = nn.Conv2d(1, 4, 3, padding=1)
    baselines = torch.rand(images.shape, generator=torch.Generator().manual_seed(5))
    key = "baselines" if name.startswith("captum.") else "baseline"
    if name == "integrated_gradients" or name == "idgi":
        options = [{"baselines": {"own": b}, **PER_IMAGE[name]} for b in (baselines, *baselines)]
        text = f"{name}[own]"
    else:
        options = [{key: b, **PER_IMAGE[name]} for b in (baselines, *baselines)]
        text = name

    def maps(x, target, own, batch_size):
        given = {"steps": own.get("steps", 3), "batch_size": batch_size, "draws": 2, "progress": False}
        own = {option: value for option, value in own.items() if option != "steps"}
        return attribute(net, x, target, [text + smoothing], options={name: own}, **given)[text + smoothing]

    alone = [maps(images[i : i + 1], targets[i : i + 1], options[i + 1], 1)[0] for i in range(3)]
    for batch_size in (1, 2, 3, 4):
        torch.testing.assert_close(
            maps(images, targets, options[0], batch_size), torch.stack(alone), rtol=1e-3, atol=1e-6
        )


def test_one_mask_for_each_image(small, images, targets) -> None:
    net, masks = small(), torch.cat([REGIONS, REGIONS.flip(-1), (REGIONS > 1).long()])
    for name in ("captum.FeatureAblation+smoothgrad", "captum.KernelShap"):
        together = explain(net, images, targets, name, {"feature_mask": masks})
        for i in range(3):
            one = slice(i, i + 1)
            alone = explain(net, images[one], targets[one], name, {"feature_mask": masks[one]})
            torch.testing.assert_close(alone[0], together[i])


@pytest.mark.parametrize(
    "options",
    [
        {"baselines": torch.zeros(2, 1, *SHAPE)},
        {"baselines": torch.zeros(3, *SHAPE)},
        {"baselines": torch.zeros(3, 1)},
    ],
)
def test_baselines_that_fit_neither_way(small, images, targets, options) -> None:
    with pytest.raises(ShapeError, match=r"expected one for all images, .*, or one for each"):
        explain(small(), images, targets, "captum.IntegratedGradients", options)


def test_layers_by_name(small, images, targets) -> None:
    with pytest.raises(
        MethodError, match=r"layer='last'; expected the name of one of the modules of Net: first"
    ):
        explain(small(), images, targets, "captum.LayerGradCam", {"layer": "last"})
    with pytest.raises(MethodError, match=r"layer='Conv2d'"):
        explain(small(), images, targets, "captum.LayerGradCam", {"layer": nn.Conv2d(1, 1, 1)})
    with pytest.raises(UnsupportedModelError, match=r"'act' of Net is called 2 times"):
        explain(small("reused"), images, targets, "captum.LayerGradCam", {"layer": "act"})
    assert explain(small(), images, targets, "captum.LayerGradCam", {"layer": "second"}).any()


def test_a_model_that_explains_nothing_is_refused(small, images, targets) -> None:
    net = small()
    net.head.weight.data *= 1e-3
    with pytest.raises(UnsupportedModelError, match=r"gives every region the weight 0.*alpha below 0.01"):
        explain(net, images, targets, "captum.Lime", {"feature_mask": REGIONS})


def test_a_difference_of_rounding_is_settled_in_float64(small, images, targets) -> None:
    """Near-equal maxima make it: float32 maps that differ say nothing where those of float64 agree."""
    for relus in ("modules", "functional"):
        network = Network(small(relus), images[:1])
        setting = Setting(network, images, targets, "captum.GuidedBackprop")
        batch = Batch(images, targets, list(range(len(images))), lambda done: None, list(range(len(images))))
        rounded = 1.05 * guided_backprop(network, images, targets)
        given = (setting, batch, rounded, "guided_backprop", captum.attr.GuidedBackprop)
        if relus == "modules":
            _agree(*given, network.plain)
        else:
            with pytest.raises(UnsupportedModelError, match=r"would be wrong on Net: its map differs by"):
                _agree(*given, network.plain)
        weights = next(network.plain.parameters())
        assert weights.dtype == torch.float32
