import copy
import gc

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock

from xaitools.attribution import METHODS, attribute, combine, parse
from xaitools.attribution._stream import add_noise, seed_of
from xaitools.errors import DataError, MethodError, ShapeError, TargetError, UnsupportedModelError
from xaitools.models import Network

CT_BASES = [
    "gradient",
    "integrated_gradients[black]",
    "integrated_gradients[black+white]",
    "expected_gradients",
    "deconvolution",
]
BASES = [*CT_BASES, "guided_backprop", "input_x_gradient", "lrp[epsilon]", "lrp[gamma]", "deep_taylor"]
TRACED = ("lrp[epsilon]", "lrp[gamma]", "deep_taylor")
DRAWS = range(1, 5)
SMALL = {"steps": 3, "draws": 4, "noise_level": 0.2, "progress": False}


@pytest.fixture
def big_images():
    return torch.rand(2, 1, 24, 20, generator=torch.Generator().manual_seed(5))


def one_map(net, x, target, base, references, seed):
    """A clean map of one method, by its own function."""
    name = parse(base)
    options = {
        "integrated_gradients": {"baseline": name.option, "steps": 3},
        "expected_gradients": {"references": references, "steps": 3, "seed": seed},
        "lrp": {"rule": name.option},
        "deep_taylor": {"low": -2.0, "high": 3.0},
    }
    return METHODS[name.base].function(net, x, target, **options.get(name.base, {}))


def close(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("parts", [lambda x: x, lambda x: (x,)], ids=["images", "inputs"])
def test_a_text_names_one_method(residual_net, images, targets, parts) -> None:
    one, listed = (
        attribute(residual_net, parts(images), targets, methods, progress=False)
        for methods in ("input_x_gradient", ["input_x_gradient"])
    )
    assert list(one) == list(listed) == ["input_x_gradient"]
    assert torch.equal(torch.as_tensor(one["input_x_gradient"][0]), listed["input_x_gradient"][0])


def test_shared_passes_equal_separate_ones(residual_net, images, targets) -> None:
    """All maps of one call against each method alone on noisy copies made one by one."""
    maps = attribute(
        residual_net,
        images,
        targets,
        combine(BASES, ["", "smoothgrad", "smoothgrad_squared", "vargrad"], absolute=False),
        references=images,
        options={"deep_taylor": {"low": -2.0, "high": 3.0}},
        **SMALL,
    )
    keys = [seed_of(image, 0) for image in images]
    copies = torch.stack(
        [
            add_noise(x, draw, 0.2, key + (draw << 12))
            for x, key in zip(images, keys, strict=True)
            for draw in DRAWS
        ]
    )
    for base in BASES:
        if base == "expected_gradients":  # its samples depend on the image's seed
            continue
        close(maps[base], one_map(residual_net, images, targets, base, images, 0))
        noisy = one_map(residual_net, copies, targets.repeat_interleave(len(DRAWS)), base, images, 0)
        stack = noisy.unflatten(0, (len(images), len(DRAWS)))
        close(maps[f"{base}+smoothgrad"], stack.mean(1))
        close(maps[f"{base}+smoothgrad_squared"], (stack**2).mean(1))
        close(maps[f"{base}+vargrad"], stack.var(1, correction=0))


@pytest.mark.parametrize("residual_net", [BasicBlock], indirect=True)
def test_a_method_does_not_depend_on_its_company(residual_net, images, targets) -> None:
    names = combine(BASES, ["", "smoothgrad"], absolute=False)
    images, targets = images[:1], targets[:1]
    together = attribute(residual_net, images, targets, names, references=images, **SMALL)
    for name in names:
        close(
            attribute(residual_net, images, targets, [name], references=images, **SMALL)[name], together[name]
        )


@pytest.mark.parametrize("residual_net", [BasicBlock], indirect=True)
def test_an_image_does_not_depend_on_its_batch(residual_net, images, targets) -> None:
    names = combine(BASES, ["", "smoothgrad_squared"])
    together = attribute(residual_net, images, targets, names, references=images, batch_size=5, **SMALL)
    alone = attribute(
        residual_net, images[1:2], targets[1:2], names, references=images, batch_size=3, **SMALL
    )
    for name in names:
        close(alone[name][0], together[name][1])


def test_the_table_of_the_ct_study_needs_3952_gradients() -> None:
    counted = []
    names = combine(CT_BASES, ["", "smoothgrad", "smoothgrad_squared"], ["", "xrai"])
    image = torch.rand(1, 1, 9, 8, generator=torch.Generator().manual_seed(5))

    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(84, 2))

        def forward(self, x):
            if torch.is_grad_enabled() and x.requires_grad:
                counted.append(len(x))
            if float(x.detach()[0, 0, 0, 0]) > 1e9:  # tracing stops here
                return x
            return self.net(x)

    network = Network(Counting(), image)
    assert network.quick(image).shape == (1, 2)
    counted.clear()
    maps = attribute(network, image, 1, names, references=image, progress=False, batch_size=64)
    assert list(maps) == names
    assert maps.passes == sum(counted) == 3952
    assert max(counted) == 64


def test_same_seed_same_bits(residual_net, images, targets) -> None:
    def run(seed):
        return attribute(residual_net, images, targets, ["gradient+smoothgrad"], seed=seed, **SMALL)

    assert torch.equal(run(3)["gradient+smoothgrad"], run(3)["gradient+smoothgrad"])
    assert not torch.equal(run(3)["gradient+smoothgrad"], run(4)["gradient+smoothgrad"])


def test_model_and_images_stay_as_they_were(residual_net, images, targets) -> None:
    residual_net.train()
    state = copy.deepcopy(residual_net.state_dict())
    before = images.clone()
    attribute(residual_net, images, targets, combine(BASES, ["", "smoothgrad"]), references=images, **SMALL)
    assert torch.equal(images, before)
    assert images.grad is None
    assert residual_net.training
    assert all(parameter.requires_grad and parameter.grad is None for parameter in residual_net.parameters())
    assert all(torch.equal(value, state[key]) for key, value in residual_net.state_dict().items())
    assert all(not module._forward_hooks and not module._backward_hooks for module in residual_net.modules())


@pytest.mark.parametrize("residual_net", [BasicBlock], indirect=True)
@pytest.mark.parametrize(
    "method",
    [
        "gradient",
        "guided_backprop",
        "lrp[epsilon]",
        "deep_taylor",
        "occlusion[4]",
        "integrated_gradients+absolute@xrai",
    ],
)
def test_no_copy_of_the_weights_outlives_a_call(residual_net, images, targets, method) -> None:
    def tensors() -> int:
        return sum(issubclass(type(thing), Tensor) for thing in gc.get_objects())

    attribute(residual_net, images, targets, [method], steps=4)
    gc.collect()
    gc.disable()
    try:
        before = tensors()
        attribute(residual_net, images, targets, [method], steps=4)
        assert tensors() == before
    finally:
        gc.enable()


def test_functional_network_and_volumes(functional_net, volume_net, images, targets) -> None:
    names = combine([base for base in BASES if base not in TRACED], ["", "smoothgrad"])
    maps = attribute(functional_net, images, targets, names, references=images, **SMALL)
    close(
        maps["deconvolution+absolute"],
        METHODS["deconvolution"].function(functional_net, images, targets).abs(),
    )
    volumes = torch.rand(2, 1, 8, 9, 7)
    maps = attribute(
        volume_net, volumes, None, [*combine(BASES), "gradient+absolute@xrai"], references=volumes, **SMALL
    )
    assert all(value.shape == volumes.shape for value in maps.values())


def test_completeness_gap_is_told(residual_net, images, targets) -> None:
    names = ["integrated_gradients[black+white]", "integrated_gradients[grey]+absolute"]
    coarse = attribute(residual_net, images, targets, names, steps=2, baselines={"grey": 0.5})
    fine = attribute(residual_net, images, targets, names, steps=300, baselines={"grey": 0.5})
    for key in ("integrated_gradients[black+white]", "integrated_gradients[grey]"):
        assert fine.completeness_gap[key].shape == (3,)
        assert fine.completeness_gap[key].abs().max() < 2e-3
        assert coarse.completeness_gap[key].abs().max() > fine.completeness_gap[key].abs().max()


def test_relevance_gap_is_told(residual_net, images, targets) -> None:
    names = ["lrp[epsilon]+absolute", "lrp[epsilon]", "deep_taylor", "lrp[gamma]+smoothgrad", "gradient"]
    maps = attribute(residual_net, images, targets, names, **SMALL)
    assert set(maps.relevance_gap) == {"lrp[epsilon]", "deep_taylor"}
    with torch.no_grad():
        out = residual_net(images).gather(1, targets[:, None])[:, 0]
    for name, gap in maps.relevance_gap.items():
        close(gap, out - maps[name].flatten(1).sum(1))
    assert maps.relevance_gap["lrp[epsilon]"].abs().min() > 0.01


def test_input_times_gradient_costs_no_pass_beside_the_gradient(residual_net, images, targets) -> None:
    def passes(bases):
        return attribute(residual_net, images, targets, combine(bases, ["", "smoothgrad"]), **SMALL).passes

    assert (
        passes(["gradient"]) == passes(["input_x_gradient"]) == passes(["gradient", "input_x_gradient"]) == 15
    )


def test_options_reach_their_method(residual_net, images, targets) -> None:
    options = {"lrp[epsilon]": {"epsilon": 0.5}, "lrp": {"gamma": 3.0}}
    names = ["lrp[epsilon]", "lrp[gamma]"]
    maps = attribute(residual_net, images, targets, names, options=options, **SMALL)
    close(maps["lrp[epsilon]"], METHODS["lrp"].function(residual_net, images, targets, epsilon=0.5))
    close(maps["lrp[gamma]"], METHODS["lrp"].function(residual_net, images, targets, rule="gamma", gamma=3.0))


def test_bf16_leaves_relevance_in_float32(residual_net, images, targets) -> None:
    exact = attribute(residual_net, images, targets, ["lrp", "guided_backprop"], **SMALL)
    rough = attribute(residual_net, images, targets, ["lrp", "guided_backprop"], precision="bf16", **SMALL)
    close(rough["lrp"], exact["lrp"])
    assert not torch.equal(exact["guided_backprop"], rough["guided_backprop"])


def test_bf16_is_near_float32(residual_net, images, targets) -> None:
    names = ["gradient+smoothgrad", "integrated_gradients[black]"]
    exact = attribute(residual_net, images, targets, names, **SMALL)
    rough = attribute(residual_net, images, targets, names, precision="bf16", **SMALL)
    for name in names:
        assert rough[name].dtype == torch.float32
        assert torch.corrcoef(torch.stack([exact[name].flatten(), rough[name].flatten()]))[0, 1] > 0.99
        assert not torch.equal(exact[name], rough[name])


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"methods": []}, MethodError, "methods is empty"),
        ({"methods": ["integrated_gradients[grey]"]}, MethodError, "Unknown baseline 'grey'.*black, white"),
        ({"methods": ["expected_gradients"]}, MethodError, "pass references="),
        ({"methods": ["lrp[zeta]"]}, MethodError, "no rule 'zeta'; it has epsilon, gamma"),
        (
            {"methods": ["deep_taylor"], "options": {"deep_taylor": {"lower": 0}}},
            MethodError,
            "deep_taylor takes no option 'lower'; it takes low, high",
        ),
        ({"target": 7}, TargetError, "target 7 with a network of 3 outputs"),
        ({"target": torch.tensor([0, 1])}, ShapeError, r"shape \(2,\) for 3 images"),
        ({"steps": 0}, MethodError, "steps=0"),
        ({"precision": "fp8"}, MethodError, "'fp8' is unknown; expected one of float32, bf16"),
        ({"noise_level": 0.0, "methods": ["gradient+smoothgrad"]}, MethodError, "noise_level=0.0"),
        ({"images": torch.rand(3, 12, 10)}, ShapeError, r"\(3, 12, 10\); expected \(batch, channel"),
        ({"images": torch.full((3, 1, 12, 10), torch.nan)}, DataError, "number 0 of the batch contains NaN"),
        (
            {"images": torch.ones(3, 1, 12, 10), "methods": ["gradient+smoothgrad"]},
            DataError,
            "number 0 of the batch is constant",
        ),
    ],
)
def test_bad_input(residual_net, images, targets, change, error, message) -> None:
    request = {"model": residual_net, "images": images, "target": targets, "methods": ["gradient"], **change}
    with pytest.raises(error, match=message):
        attribute(**request)


def test_a_network_with_nan_weights(residual_net, images, targets) -> None:
    residual_net.head.bias.data[0] = torch.nan
    with pytest.raises(UnsupportedModelError, match="returns NaN or infinity"):
        attribute(residual_net, images, targets)


def test_a_function_hears_of_the_passes_and_can_stop_them(residual_net, big_images):
    heard = []
    names = ["gradient", "gradient+smoothgrad"]
    attribute(
        residual_net,
        big_images,
        1,
        names,
        **SMALL | {"batch_size": 3, "progress": lambda *pair: heard.append(pair)},
    )
    assert heard == [(0, 10), (3, 10), (6, 10), (9, 10), (10, 10)]

    def stop(done, total):
        heard.append(done)
        if done:
            raise KeyError("enough")

    with pytest.raises(KeyError, match="enough"):
        attribute(residual_net, big_images, 1, names, **SMALL | {"batch_size": 3, "progress": stop})
    assert heard[-1] == 3


@pytest.mark.parametrize(
    ("batch_size", "sizes"), [(16, [13, 13]), (10, [9, 9, 8]), (64, [26]), (1, [1] * 26)]
)
def test_points_fill_batches_evenly(images, batch_size, sizes) -> None:
    """A small batch at the end would cost more a point."""
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    network, seen = Network(net, images[:1, :1]), []
    network.quick.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    methods = ["gradient", "gradient+smoothgrad"]
    attribute(network, images[:1, :1], 1, methods, draws=25, batch_size=batch_size, progress=False)
    assert seen == sizes
