"""What people's networks return, and how they treat what they get."""

from collections import namedtuple
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from xaitools.attribution import attribute
from xaitools.errors import MethodError, ShapeError, UnsupportedModelError
from xaitools.models import Network, predict, predict_values, surgery

Pair = namedtuple("Pair", "logits features")


@dataclass
class Record:
    logits: Tensor
    features: Tensor


class Returning(nn.Module):
    """Three scores, handed over by a function of scores and features."""

    def __init__(self, wrap) -> None:
        super().__init__()
        self.conv, self.head, self.wrap = nn.Conv2d(1, 4, 3), nn.Linear(4, 3), wrap

    def scores(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = torch.relu(self.conv(x)).mean((2, 3))
        return self.head(features), features

    def forward(self, x: Tensor):
        return self.wrap(*self.scores(x))


@pytest.fixture
def images() -> Tensor:
    return torch.rand(3, 1, 9, 8, generator=torch.Generator().manual_seed(1))


def reference(model: Returning, images: Tensor, target: int) -> Tensor:
    model, leaf = model.double(), images.double().requires_grad_()
    gradient = torch.autograd.grad(model.scores(leaf)[0][:, target].sum(), leaf)[0]
    model.float()
    return gradient.float()


@pytest.mark.parametrize(
    ("wrap", "output"),
    [
        (lambda s, f: s, None),
        (lambda s, f: (s,), None),
        (lambda s, f: [s], None),
        (lambda s, f: {"out": s, "name": "net"}, None),
        (lambda s, f: (f, s), 1),
        (lambda s, f: [f, s], -1),
        (lambda s, f: {"features": f, "logits": s}, "logits"),
        (Pair, "logits"),
        (Record, "logits"),
        (lambda s, f: {"deep": [f, {"scores": s}]}, lambda found: found["deep"][1]["scores"]),
        (lambda s, f: s[:, :, None, None], None),
        (lambda s, f: s.squeeze(), None),
        (lambda s, f: (s.squeeze(), f), 0),
    ],
)
def test_outputs_of_any_kind(images, wrap, output) -> None:
    torch.manual_seed(0)
    model = Returning(wrap).eval()
    expected = reference(model, images, 1)
    for part in (slice(0, 3), slice(1, 2)):
        maps = attribute(model, images[part], 1, ["gradient", "occlusion[3]"], output=output, progress=False)
        torch.testing.assert_close(maps["gradient"], expected[part], rtol=1e-4, atol=1e-8)
        assert maps["occlusion[3]"].any()
        if wrap(torch.zeros(2, 3), torch.zeros(2, 4)) is not None and "None, None" not in str(wrap):
            probabilities = torch.softmax(model.scores(images[part])[0].detach(), 1)
            found = predict(model, images[part], output=output)
            torch.testing.assert_close(found, probabilities)


@pytest.mark.parametrize(
    "wrap", [lambda s, f: s[:, 0], lambda s, f: s[:, :1].squeeze(), lambda s, f: s[:, :1]]
)
def test_a_single_output_in_any_shape(images, wrap) -> None:
    model = Returning(wrap).eval()
    expected = reference(model, images, 0)
    for part in (slice(0, 3), slice(1, 2)):
        maps = attribute(model, images[part], None, ["gradient"], progress=False)
        torch.testing.assert_close(maps["gradient"], expected[part], rtol=1e-4, atol=1e-8)


def test_values_of_a_network_that_squeezes() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 1)).eval()
    images = torch.rand(5, 1, 4, 4)
    squeezed = Returning(None)
    squeezed.forward = lambda x: (model(x).squeeze(0), None)  # type: ignore[method-assign]
    found = predict_values(squeezed, images, output=lambda pair: pair[0], batch_size=2)
    torch.testing.assert_close(found, model(images)[:, 0].detach())


@pytest.mark.parametrize(
    ("wrap", "output", "error", "words"),
    [
        (
            lambda s, f: (s, f),
            None,
            UnsupportedModelError,
            r"returns tuple \(0: \(1, 3\), 1: \(1, 4\)\).*output=0",
        ),
        (Record, None, UnsupportedModelError, r"Record \('logits': \(1, 3\), 'features'.*output='logits'"),
        (lambda s, f: "three", None, UnsupportedModelError, "an object of type str"),
        (lambda s, f: None, None, UnsupportedModelError, "an object of type NoneType"),
        (lambda s, f: {"a": s}, "b", MethodError, r"output='b' with Returning, which returns dict.*KeyError"),
        (lambda s, f: [s], 1, MethodError, "output=1 .*IndexError"),
        (lambda s, f: [[s]], 0, MethodError, "output=0 picks list"),
        (lambda s, f: s.argmax(1), None, UnsupportedModelError, "torch.int64; expected scores"),
        (
            lambda s, f: s.sum(0),
            None,
            UnsupportedModelError,
            r"have the shape \(3,\) for 3 images|other images",
        ),
        (lambda s, f: s.sum(), None, UnsupportedModelError, r"have the shape \(\) for 3 images"),
        (lambda s, f: s / s.max(), None, UnsupportedModelError, "depend on the other images"),
        (lambda s, f: s + torch.rand(()), None, UnsupportedModelError, "differently each time"),
        (lambda s, f: torch.dropout(s, 0.5, True), None, UnsupportedModelError, "differently each time"),
    ],
)
def test_outputs_that_cannot_be_explained(images, wrap, output, error, words) -> None:
    torch.manual_seed(1)
    with pytest.raises(error, match=f"(?s){words}"):
        attribute(Returning(wrap).eval(), images, 1, output=output, progress=False)


def test_a_prepared_network_has_its_output(images) -> None:
    model = Returning(lambda s, f: (f, s)).eval()
    network = Network(model, images, output=1)
    expected = reference(model, images, 2)
    torch.testing.assert_close(attribute(network, images, 2)["gradient"], expected, rtol=1e-4, atol=1e-8)
    assert network.layers == ("conv", "head")
    assert network.randomized(["head"]).output == 1
    with pytest.raises(MethodError, match="output=0 with a Network prepared for 1"):
        attribute(network, images, 2, output=0)


class InPlace(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(72, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x.clamp_(0, 1).mul_(2).flatten(1))


@pytest.mark.parametrize("name", ["gradient", "occlusion[2]", "integrated_gradients", "gradient+smoothgrad"])
def test_a_forward_pass_that_works_in_place_on_its_input(images, name) -> None:
    images = 2 * images - 0.5
    images[2] = images[0]
    before, model = images.clone(), InPlace().eval()
    maps = attribute(model, images, 1, [name], draws=2, steps=3, progress=False)[name]
    predict(model, images)
    network = Network(model, images)
    torch.testing.assert_close(network.plain(images), network.quick(images))
    assert torch.equal(images, before)
    torch.testing.assert_close(maps[2], maps[0], rtol=1e-5, atol=1e-8)
    if name == "occlusion[2]":
        hidden = before[:1].clone()
        hidden[..., :2, :2] = 0
        fall = model(before[:1].clone()) - model(hidden)
        torch.testing.assert_close(maps[0, 0, 0, 0], fall[0, 1].detach(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("shift", [0.0, -1000.0, 300.0])
@pytest.mark.parametrize("scale", [1.0, 2000.0])
@pytest.mark.parametrize(
    "mix",
    [
        lambda x: x / x.max(),
        lambda x: x - x.min(),
        lambda x: x / x.abs().mean(),
        lambda x: (x - x.mean()) / x.std(),
        lambda x: x - x[:1],
        lambda x: x - x[-1:],
        lambda x: x - x.mean(0),
        lambda x: x / x.norm(),
        lambda x: x - x.median(),
    ],
)
def test_images_that_depend_on_each_other_in_any_range(images, mix, scale, shift) -> None:
    class Mixing(Returning):
        def forward(self, x: Tensor) -> Tensor:
            return self.scores(mix(x))[0]

    torch.manual_seed(0)
    with pytest.raises(UnsupportedModelError, match="depend on the other images"):
        attribute(Mixing(None).eval(), scale * images + shift, 1, progress=False)


def test_each_image_by_its_own_range_is_no_dependence(images) -> None:
    class Own(Returning):
        def forward(self, x: Tensor) -> Tensor:
            return self.scores(x / x.amax((1, 2, 3), keepdim=True))[0]

    assert attribute(Own(None).eval(), 2000 * images - 1000, 1, progress=False)["gradient"].any()


def test_autocast_is_not_taken_for_dependence(images) -> None:
    class Rough(Returning):
        def forward(self, x: Tensor) -> Tensor:
            with torch.autocast("cpu", torch.bfloat16):
                return self.scores(x)[0].float()

    torch.manual_seed(0)
    model = Rough(None).eval()
    found = attribute(model, images, 1, progress=False)["gradient"]
    expected = reference(model, images, 1)
    assert (found - expected).abs().max() < 0.05 * expected.abs().max()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_weights_and_images_of_any_precision(images, dtype, kind) -> None:
    torch.manual_seed(0)
    model = Returning(lambda s, f: s).eval().to(dtype)
    images = images.to(kind)
    expected = reference(Returning(lambda s, f: s).eval(), images, 1)
    exact = Returning(lambda s, f: s).eval()
    exact.load_state_dict({key: value.double() for key, value in model.state_dict().items()})
    expected = reference(exact, images.double(), 1)
    found = attribute(model, images, 1, ["gradient", "gradient+smoothgrad"], progress=False)["gradient"]
    torch.testing.assert_close(found.float(), expected, rtol=1e-4, atol=1e-7)
    assert next(model.parameters()).dtype == dtype
    probabilities = predict(model, images)
    torch.testing.assert_close(probabilities.sum(1), torch.ones(3), rtol=0, atol=1e-2)


@pytest.mark.parametrize("wrapper", [nn.DataParallel, lambda m: torch.compile(m, backend="eager")])
def test_what_wraps_a_network_is_taken_off(images, wrapper) -> None:
    torch.manual_seed(0)
    model = Returning(lambda s, f: s).eval()
    names = ["gradient", "lrp", "guided_backprop", "occlusion[3]"]
    found, expected = (attribute(m, images, 1, names, progress=False) for m in (wrapper(model), model))
    assert Network(wrapper(model), images).name == "Returning"
    for name in names:
        assert torch.equal(found[name], expected[name])


@pytest.mark.filterwarnings("ignore:.*torch.jit.*")
@pytest.mark.parametrize("kind", ["script", "trace"])
def test_scripted_networks(images, kind) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(168, 3)).eval()
    scripted = torch.jit.script(model) if kind == "script" else torch.jit.trace(model, images)
    for name in ("gradient", "integrated_gradients"):
        found, expected = (attribute(m, images, 1, [name], progress=False)[name] for m in (scripted, model))
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-7)
    with pytest.raises(UnsupportedModelError, match="is compiled, in the forward pass"):
        attribute(scripted, images, 1, ["lrp"], progress=False)


def test_functions_are_no_networks(images) -> None:
    for function in (lambda x: x.mean((2, 3)), torch.sigmoid, 3):
        with pytest.raises(UnsupportedModelError, match=r"expected a torch\.nn\.Module"):
            surgery.unwrapped(function)


def old_weight_norm(layer):
    with pytest.warns(FutureWarning):
        return nn.utils.weight_norm(layer)


@pytest.mark.parametrize(
    "normed",
    [
        old_weight_norm,
        nn.utils.spectral_norm,
        nn.utils.parametrizations.weight_norm,
        nn.utils.parametrizations.spectral_norm,
        nn.utils.parametrizations.orthogonal,
    ],
)
def test_weights_that_are_computed_at_every_pass(images, normed) -> None:
    torch.manual_seed(0)
    model = Returning(lambda s, f: s)
    model.conv = normed(model.conv)
    model(images)
    model.eval()
    expected = reference(model, images, 1)
    maps = attribute(model, images, 1, ["gradient", "lrp", "occlusion[3]"], progress=False)
    torch.testing.assert_close(maps["gradient"], expected, rtol=1e-4, atol=1e-7)
    gap = model(images)[:, 1].detach() - maps["lrp"].sum((1, 2, 3))
    torch.testing.assert_close(maps.relevance_gap["lrp[epsilon]"], gap, rtol=1e-4, atol=1e-5)


def test_parameters_and_buffers_of_other_ranks() -> None:
    class Mixed(nn.Module):
        """Slices of a volume, one after the other, and what belongs to all of them."""

        def __init__(self) -> None:
            super().__init__()
            self.deep, self.flat = nn.Conv3d(1, 2, 3), nn.Conv2d(12, 4, 3)
            self.register_buffer("mean", torch.rand(2, 1, 1, 1))
            self.scale = nn.Parameter(torch.rand(2, 1, 1, 1, 1)[:, 0])

        def forward(self, x: Tensor) -> Tensor:
            x = torch.relu(self.deep(x) - self.mean) * self.scale
            return self.flat(x.view(x.size(0), -1, *x.shape[3:])).mean((2, 3))

    torch.manual_seed(0)
    model, volumes = Mixed().eval(), torch.rand(2, 1, 8, 8, 8)
    leaf = volumes.clone().requires_grad_()
    model(leaf)[:, 1].sum().backward()
    maps = attribute(model, volumes, 1, ["gradient", "occlusion[4]"], progress=False)
    torch.testing.assert_close(maps["gradient"], leaf.grad, rtol=1e-4, atol=1e-7)


class Strided(torch.autograd.Function):
    """Right only on gradients whose channel comes first in memory."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        return grad.as_strided(grad.shape, torch.empty(grad.shape).stride())


def test_a_backward_pass_that_depends_on_the_layout(images) -> None:
    class Net(Returning):
        def forward(self, x: Tensor) -> Tensor:
            return self.head(torch.relu(self.second(Strided.apply(self.conv(x)))).mean((2, 3)))

    torch.manual_seed(0)
    model = Net(None).eval()
    model.second = nn.Conv2d(4, 4, 3)
    leaf = images.clone().requires_grad_()
    model(leaf)[:, 1].sum().backward()
    found = attribute(model, images, 1, progress=False)["gradient"]
    torch.testing.assert_close(found, leaf.grad, rtol=1e-4, atol=1e-7)


def test_images_with_a_history_and_images_that_are_no_tensors(images) -> None:
    model = Returning(lambda s, f: s).eval()
    names = ["gradient", "input_x_gradient", "integrated_gradients", "occlusion[3]", "lrp"]
    expected = attribute(model, images, 1, names, progress=False)
    for given in (
        images.clone().requires_grad_(),
        (2 * images.clone().requires_grad_()) / 2,
        images.numpy(),
        images.numpy()[:, :, ::-1][:, :, ::-1],
        images.numpy().astype(">f4"),
        list(images),
        images.tolist(),
    ):
        maps = attribute(model, given, 1, names, progress=False)
        for name in names:
            assert not maps[name].requires_grad
            torch.testing.assert_close(maps[name].float(), expected[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("channels", [3, 2])
def test_images_of_other_channels(channels) -> None:
    with pytest.raises(ShapeError, match=f"images of {channels} channels with Returning.*takes 1"):
        attribute(Returning(lambda s, f: s).eval(), torch.rand(1, channels, 9, 9), 1, progress=False)


def test_images_of_another_size(images) -> None:
    with pytest.raises(UnsupportedModelError, match="InPlace does not run on one image of shape"):
        attribute(InPlace().eval(), torch.rand(1, 1, 9, 9), 1, progress=False)


def test_a_network_that_takes_one_image_at_a_time(images) -> None:
    class Alone(InPlace):
        def forward(self, x: Tensor) -> Tensor:
            return self.head(x.reshape(1, 72))

    with pytest.raises(UnsupportedModelError, match="does not run on 3 images at once"):
        attribute(Alone().eval(), images[:1], 1, progress=False)


@pytest.mark.parametrize("layer", [nn.AvgPool3d(2), nn.PReLU(4), nn.AdaptiveMaxPool3d(2)])
def test_layers_that_may_not_know_bfloat16(layer) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv3d(1, 4, 3), layer, nn.Conv3d(4, 4, 1), layer, nn.Flatten(), nn.LazyLinear(2)
    ).eval()
    volumes = torch.rand(2, 1, 10, 10, 10)
    model(volumes)
    leaf = volumes.clone().requires_grad_()
    model(leaf)[:, 1].sum().backward()
    found = attribute(model, volumes, 1, precision="bf16", progress=False)["gradient"]
    both = torch.stack([found.flatten(), leaf.grad.flatten()])
    assert torch.corrcoef(both)[0, 1] > 0.98


def test_probabilities_are_not_made_probabilities_again(images) -> None:
    model = Returning(lambda s, f: s).eval()
    ended = nn.Sequential(model, nn.Softmax(1))
    torch.testing.assert_close(predict(ended, images), predict(model, images))


def test_weights_that_hold_no_numbers(images) -> None:
    lazy = nn.Sequential(nn.LazyConv2d(4, 3), nn.Flatten(), nn.LazyLinear(3))
    for model in (lazy, Returning(lambda s, f: s).to("meta")):
        with pytest.raises(UnsupportedModelError, match="hold no numbers yet; expected a trained network"):
            attribute(model, images, 1, progress=False)


class Switching(Returning):
    """Autograd sees half of the network: torch.fx would see all of it."""

    def __init__(self, off) -> None:
        super().__init__(None)
        self.off = off

    def forward(self, x: Tensor) -> Tensor:
        with self.off():
            known = self.scores(x)[0].clone()
        return known + self.scores(2 * x)[0] if self.off is torch.no_grad else known


def test_gradients_that_are_switched_off_in_a_part(images) -> None:
    torch.manual_seed(0)
    model = Switching(torch.no_grad).eval()
    leaf = images.clone().requires_grad_()
    model(leaf)[:, 1].sum().backward()
    found = attribute(model, images, 1, progress=False)["gradient"]
    torch.testing.assert_close(found, leaf.grad, rtol=1e-4, atol=1e-7)
    with pytest.raises(UnsupportedModelError, match="switches gradients off or on"):
        _ = Network(model, images).graph
    with pytest.raises(UnsupportedModelError, match=r"Remove torch\.no_grad"):
        attribute(Switching(torch.inference_mode).eval(), images, 1, progress=False)


def test_arguments_besides_the_images_stay_at_their_defaults(images) -> None:
    class Masked(Returning):
        def forward(self, x: Tensor, mask: Tensor | None = None, *, scale: float = 2.0) -> Tensor:
            return self.scores(x if mask is None else x * mask)[0] * scale

    torch.manual_seed(0)
    model = Masked(None).eval()
    network = Network(model, images)
    torch.testing.assert_close(network.graph(images), model(images).detach())


def test_hooks_that_look_on_hear_nothing_of_explanations(images) -> None:
    torch.manual_seed(0)
    model, seen = Returning(lambda s, f: s).eval(), []
    model.conv.register_forward_hook(lambda module, given, result: seen.append(result))
    model(images)
    attribute(model, images, 1, ["gradient", "occlusion[3]", "lrp"], progress=False)
    assert len(seen) == 2  # one pass, to learn whether it changes anything
    model(images)
    assert len(seen) == 3


def test_hooks_that_change_something_stay(images) -> None:
    torch.manual_seed(0)
    model = Returning(lambda s, f: s).eval()
    model.conv.register_forward_hook(lambda module, given, result: result * 3)
    leaf = images.clone().requires_grad_()
    model(leaf)[:, 1].sum().backward()
    found = attribute(model, images, 1, progress=False)["gradient"]
    torch.testing.assert_close(found, leaf.grad, rtol=1e-4, atol=1e-7)


def test_half_precision_inside_the_forward_pass(images) -> None:
    class Half(Returning):
        def forward(self, x: Tensor) -> Tensor:
            return self.scores(x.bfloat16())[0].float()

    torch.manual_seed(0)
    model = Half(None).bfloat16().eval()
    leaf = images.clone().requires_grad_()
    model(leaf)[:, 1].sum().backward()
    found = attribute(model, images, 1, progress=False)["gradient"]
    assert (found - leaf.grad).abs().max() < 0.05 * leaf.grad.abs().max()


def test_a_network_that_cannot_be_differentiated(images) -> None:
    class Overwriting(Returning):
        def forward(self, x: Tensor) -> Tensor:
            h = torch.sigmoid(self.conv(x))
            squares = h * h
            h.mul_(2)
            return self.head((squares + h).mean((2, 3)))

    with pytest.raises(UnsupportedModelError, match=r"cannot differentiate Overwriting.*in place"):
        attribute(Overwriting(None).eval(), images, 1, progress=False)


@pytest.mark.parametrize("place", ["conv", "norm", ""])
def test_hooks_are_not_folded_away(images, place) -> None:
    class Normed(Returning):
        def __init__(self) -> None:
            super().__init__(None)
            self.norm = nn.BatchNorm2d(4)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(torch.relu(self.norm(self.conv(x))).mean((2, 3)))

    torch.manual_seed(0)
    model = Normed().eval()
    model.norm.running_mean += 0.3
    module = model.get_submodule(place)
    module.register_forward_hook(
        lambda module, given, result: torch.where(result > 0.05, 1.5 * result, result)
    )
    leaf = images.clone().requires_grad_()
    model(leaf)[:, 1].sum().backward()
    network = Network(model, images)
    torch.testing.assert_close(network.quick(images), model(images).detach(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(
        network.gradients(images, torch.tensor([1, 1, 1])), leaf.grad, rtol=1e-4, atol=1e-7
    )
