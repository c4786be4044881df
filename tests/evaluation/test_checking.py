"""Each check holds on a network and method that are right, and is seen to fail on one that was broken for it."""

import copy
import dataclasses
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import xaitools
from xaitools.attribution import METHODS
from xaitools.attribution._stream import Passes
from xaitools.errors import DataError, MethodError, TargetError
from xaitools.evaluation import check_attribution
from xaitools.evaluation._checks import CHECKS
from xaitools.evaluation._doubles import windows_over
from xaitools.models import Network

LR = "depends on the last layer"
ALL = "depends on the weights"


class Net(nn.Module):
    """Two convolutions and a linear layer; `middle` is what happens between them."""

    def __init__(self, middle=F.relu) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.middle = middle
        self.first, self.second = nn.Conv2d(1, 6, 3), nn.Conv2d(6, 8, 3)
        self.head = nn.Linear(8 * 8 * 6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.middle(self.first(x))
        return self.head(F.relu(self.second(x)).flatten(1))


class WrongBackward(torch.autograd.Function):
    """A ReLU whose gradient is half of what it should be where the value is large."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return gradient * (x > 0) * torch.where(x > 0.2, 0.5, 1.0)


class Volumes(nn.Module):
    """Three spatial axes, one output."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.head = nn.Conv3d(1, 4, 3), nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.conv(x)).mean((2, 3, 4)))


@pytest.fixture
def images() -> Tensor:
    return torch.rand(2, 1, 12, 10, generator=torch.Generator().manual_seed(3))


def checked(model, images, methods="gradient", target=1, **settings):
    return check_attribution(model, images, target, methods, progress=False, **settings)


def replaced(monkeypatch, name, change):
    """The method of that name, its maps changed on the way."""
    method = METHODS[name]

    def plan(setting, **options):
        own = method._plan(setting, **options)
        passes = Passes(setting.name, lambda batch: change(own.passes.run(batch), batch), own.passes.units)
        return dataclasses.replace(own, passes=passes)

    monkeypatch.setitem(METHODS, name, dataclasses.replace(method, _plan=plan))


def drawn(maps, batch):
    """A map that has nothing to do with the network, the same at each call."""
    return torch.randn(maps.shape[1:], generator=torch.Generator().manual_seed(1)).expand_as(maps).clone()


RIGHT = {
    "gradient": ["finite differences", "determinism", "batch independence", LR, ALL],
    "input_x_gradient": ["finite differences", "determinism", "batch independence"],
    "integrated_gradients[black]": ["completeness", "finite differences", "determinism", ALL],
    "lrp[epsilon]": ["conservation without biases", "determinism", "batch independence"],
    "occlusion[3]": ["brute force", "falls above rounding", "determinism", "batch independence", ALL],
}


@pytest.mark.parametrize("method", RIGHT)
def test_a_sound_network_and_method_hold(images, method) -> None:
    checks = checked(Net(), images, method)
    assert checks["explains the network"].verdict == "holds"
    for check in RIGHT[method]:
        assert checks[check].verdict == "holds", checks[check]


def test_a_black_background_is_no_fault_of_the_network() -> None:
    """Without biases it lies on the kinks of all ReLUs and pools, where central differences are half a slope."""
    torch.manual_seed(2)
    body = [nn.Conv2d(1, 8, 3, bias=False), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8 * 7 * 7, 3)]
    images = torch.zeros(2, 1, 16, 16)
    images[..., 6:10, 6:10] = torch.rand(2, 1, 4, 4)
    checks = checked(nn.Sequential(*body), images, ["gradient", "input_x_gradient"])
    for method in ("gradient", "input_x_gradient"):
        assert checks[method, "finite differences"].value < 1e-4


def test_rounding_is_far_from_the_bound(images) -> None:
    checks = checked(Net(), images, ["gradient", "input_x_gradient", "occlusion[3]"])
    assert checks["gradient", "finite differences"].value < 1e-4
    assert checks["input_x_gradient", "finite differences"].value < 1e-4
    assert checks["occlusion[3]", "brute force"].value < 1e-4


def test_conservation(images) -> None:
    bare = Net()
    for layer in (bare.first, bare.second, bare.head):
        layer.bias.data.zero_()
    assert checked(bare, images, "lrp[epsilon]")["conservation"].verdict == "holds"
    biased = Net()
    biased.head.bias.data += 1
    checks = checked(biased, images, "lrp[epsilon]")
    assert checks["conservation"].verdict == "does not hold"
    assert "biases" in checks["conservation"].meaning
    assert checks["conservation without biases"].verdict == "holds"


def test_relevance_that_is_lost_is_seen_without_biases(images, monkeypatch) -> None:
    replaced(monkeypatch, "lrp", lambda maps, batch: 0.9 * maps)
    assert checked(Net(), images, "lrp[epsilon]")["conservation without biases"].verdict == "does not hold"


def test_too_few_steps_miss_the_promised_sum(images) -> None:
    wave = Net(lambda x: torch.sin(6 * x))
    few, many = (checked(wave, images, "integrated_gradients", steps=n)["completeness"] for n in (2, 200))
    assert few.verdict == "does not hold"
    assert "more steps" in few.meaning
    assert many.verdict == "holds"
    assert few.value > 0.05 >= many.value


def test_a_wrong_backward_pass_is_named(images) -> None:
    row = checked(Net(WrongBackward.apply), images)["finite differences"]
    assert row.verdict == "does not hold"
    assert "the network's own backward pass is wrong" in row.meaning
    detached = Net(lambda x: F.relu(x) * F.relu(x).detach().mean((2, 3), keepdim=True).sigmoid())
    assert checked(detached, images)["finite differences"].verdict == "does not hold"
    row = checked(Net(WrongBackward.apply), images, "integrated_gradients")["finite differences"]
    assert row.verdict == "does not hold"
    assert row.meaning.startswith("The network's gradient, which this map is made of, is not")


@pytest.mark.parametrize(
    ("method", "check"), [("gradient", "finite differences"), ("occlusion", "brute force")]
)
def test_a_map_drawn_by_lot_is_not_the_method(images, monkeypatch, method, check) -> None:
    replaced(monkeypatch, method, drawn)
    if method == "gradient":
        monkeypatch.setattr(Network, "gradients", lambda self, points, target: drawn(points, None))
    checks = checked(Net(), images, method)
    assert checks[check].verdict == "does not hold"
    assert "own backward pass" not in checks[check].meaning
    assert checks[ALL].verdict == "does not hold"
    assert checks[ALL].value == 1
    assert checks["determinism"].verdict == "holds"


def test_falls_below_rounding_are_said(images) -> None:
    """An offset of 1e5 leaves float32 two digits behind the point, and none for falls of a small patch."""

    class Offset(Net):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + 1e5

    checks = checked(Offset(), images, "occlusion[3]", options={"occlusion": {"algorithm": "full"}})
    assert checks["brute force"].verdict == "does not hold"
    assert checks["falls above rounding"].verdict == "does not hold"
    assert checks["falls above rounding"].value > 0.3
    exact = checked(
        Offset().double(), images.double(), "occlusion[3]", options={"occlusion": {"algorithm": "full"}}
    )
    assert exact["brute force"].verdict == exact["falls above rounding"].verdict == "holds"


def test_randomness_that_passes_unnoticed_is_seen(images, monkeypatch) -> None:
    replaced(monkeypatch, "gradient", lambda maps, batch: maps * (1 + 1e-6 * torch.rand_like(maps)))
    monkeypatch.setattr(
        Network, "gradients", lambda self, points, target: torch.rand_like(points), raising=True
    )
    row = checked(Net(), images)["determinism"]
    assert row.verdict == "does not hold"
    assert row.value > 0


def test_maps_that_look_at_their_neighbours_are_seen(images, monkeypatch) -> None:
    replaced(monkeypatch, "occlusion", lambda maps, batch: maps / batch.points.sum())
    assert checked(Net(), images, "occlusion[3]")["batch independence"].verdict == "does not hold"
    monkeypatch.undo()
    assert checked(Net(), images, "occlusion[3]")["batch independence"].value == 0


def test_a_map_of_the_image_does_not_depend_on_the_weights(images, monkeypatch) -> None:
    replaced(monkeypatch, "occlusion", lambda maps, batch: batch.points**2)
    checks = checked(Net(), images, "occlusion[3]")
    for check in (LR, ALL):
        assert checks[check].verdict == "does not hold"
        assert checks[check].value == 1


def test_guided_backpropagation_ignores_the_last_layer() -> None:
    """As published by Adebayo et al. 2018 for deep networks."""
    torch.manual_seed(1)
    widths = [1, 8, 8, 8, 32]
    body = [layer for a, b in pairwise(widths) for layer in (nn.Conv2d(a, b, 3, padding=1), nn.ReLU())]
    net = nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 2))
    images = torch.rand(1, 1, 16, 16)
    assert checked(net, images, "guided_backprop")[LR].verdict == "does not hold"


def test_maps_that_are_0_are_no_explanation(images) -> None:
    silent = Net()
    silent.second.bias.data -= 100
    checks = checked(silent, images)
    assert checks["explains the network"].verdict == "does not hold"
    assert checks["explains the network"].value == 2
    assert checks[LR].verdict == "does not apply"
    assert not checks.holds


def test_who_refuses_says_why_in_a_row(images) -> None:
    checks = checked(nn.Sequential(Net(), nn.Softmax(1)), images, ["lrp", "expected_gradients", "gradient"])
    for method, reason in {"lrp": "softmax", "expected_gradients": "reference images"}.items():
        rows = [row for row in checks.rows if row.method == method]
        assert [row.verdict for row in rows] == ["does not hold"]
        assert reason in rows[0].meaning.lower()
    assert checks["gradient", "finite differences"].verdict == "holds"


def test_a_network_that_is_refused_says_why_for_each_method(images) -> None:
    class Dropping(Net):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(F.dropout(x, 0.5, training=True))

    checks = checked(Dropping(), images, ["gradient", "occlusion"])
    assert [row.method for row in checks.rows] == ["gradient", "occlusion"]
    assert {row.verdict for row in checks.rows} == {"does not hold"}


def test_wrong_calls_raise(images) -> None:
    with pytest.raises(MethodError, match="Did you mean"):
        checked(Net(), images, "gradien")
    with pytest.raises(MethodError, match="empty"):
        checked(Net(), images, [])
    with pytest.raises(TargetError, match="target 7"):
        checked(Net(), images, target=7)
    with pytest.raises(DataError, match="NaN"):
        checked(Net(), images * float("nan"))


def test_what_is_not_checked_says_why(images) -> None:
    class Single(Net):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.float()).float()

    row = checked(Single(), images)["finite differences"]
    assert row.verdict == "does not apply"
    assert row.value is None
    assert "float64" in row.meaning


NEARLY_STRAIGHT = {"guided_integrated_gradients": {"max_dist": 0.005}}
"""A path that pixels leave by little, on which small steps add up."""


@pytest.mark.parametrize("method", [name for name in METHODS if name != "attention_rollout"])
def test_every_method_on_volumes(method) -> None:
    volumes = torch.rand(1, 1, 7, 6, 8, generator=torch.Generator().manual_seed(1))
    net = Volumes()
    net.head.weight.data.abs_()
    net.conv.bias.data.zero_()
    net.head.bias.data.zero_()
    steps = 200 if method in NEARLY_STRAIGHT else 40
    settings = {"steps": steps, "draws": 2, "references": volumes.flip(2), "options": NEARLY_STRAIGHT}
    checks = checked(net, volumes, method, None, **settings)
    assert len(checks.rows) == len(CHECKS)
    for row in checks.rows:
        if row.check not in (LR, ALL, "conservation"):
            assert row.verdict != "does not hold", row


def test_a_path_of_jumps_does_not_add_up_and_says_what_helps() -> None:
    volumes = torch.rand(1, 1, 7, 6, 8, generator=torch.Generator().manual_seed(1))
    jumping = {"guided_integrated_gradients": {"max_dist": 1.0}}
    checks = checked(Volumes(), volumes, "guided_integrated_gradients", None, steps=10, options=jumping)
    row = checks["completeness"]
    assert row.verdict == "does not hold"
    assert "smaller max_dist" in row.meaning


@pytest.mark.parametrize("modifiers", ["+smoothgrad", "+absolute", "@xrai"])
def test_what_is_changed_promises_no_sum(images, modifiers) -> None:
    checks = checked(Net(), images, f"integrated_gradients{modifiers}", draws=2, steps=5)
    assert checks["completeness"].verdict == "does not apply"
    for check in ("finite differences", "determinism", "batch independence"):
        assert checks[check].verdict == "holds"


class Pair(Net):
    """Returns a dict of features and logits."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"features": x.mean((2, 3)), "logits": super().forward(x)}


def test_any_output_of_the_network(images) -> None:
    methods = ["gradient", "occlusion[3]"]
    expected, found = checked(Net(), images, methods), checked(Pair(), images, methods, output="logits")
    assert [(row.check, row.value, row.verdict) for row in found.rows] == [
        (row.check, row.value, row.verdict) for row in expected.rows
    ]


def test_nothing_of_the_user_changes(images) -> None:
    net = Net().train()
    state, before, random = copy.deepcopy(net.state_dict()), images.clone(), torch.get_rng_state()
    checked(net, images, ["gradient", "occlusion[3]"])
    assert net.training
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in state.items())
    assert torch.equal(images, before)
    assert torch.equal(torch.get_rng_state(), random)


def test_the_table(images) -> None:
    checks = checked(Net(), images, ["gradient", "occlusion[3]"])
    frame = checks.frame
    assert list(frame.columns) == ["method", "check", "measured", "value", "bound", "verdict", "meaning"]
    assert len(frame) == 2 * len(CHECKS)
    assert set(frame["verdict"]) <= {"holds", "does not hold", "does not apply"}
    assert frame["meaning"].str.endswith(".").all()
    assert frame.loc[frame["verdict"] != "does not apply", "value"].notna().all()
    text = repr(checks)
    assert text.splitlines()[2] == "gradient"
    assert (
        "does not apply: completeness, conservation, conservation without biases. The map promises no" in text
    )
    assert "<table" in checks._repr_html_()
    assert (
        "<b>"
        not in dataclasses.replace(
            checks, rows=(dataclasses.replace(checks.rows[0], meaning="<b>"),)
        )._repr_html_()
    )
    assert xaitools.check_attribution is check_attribution


def test_progress_counts_checks_and_can_stop(images) -> None:
    told: list[tuple[int, int]] = []
    check_attribution(Net(), images, 1, "gradient", progress=lambda *counts: told.append(counts))
    assert told[0] == (0, len(CHECKS))
    assert told[-1] == (len(CHECKS), len(CHECKS))

    def stop(done, total):
        if done:
            raise MethodError("stopped")

    with pytest.raises(MethodError, match="stopped"):
        check_attribution(Net(), images, 1, "gradient", progress=stop)


@pytest.mark.parametrize(("shape", "patch", "stride"), [((7, 9), 3, 2), ((8, 6), 4, 4), ((5, 6, 4), 2, 1)])
def test_windows_over_a_voxel_are_those_of_the_grid(shape, patch, stride) -> None:
    starts = [[k * stride for k in range(-(-(n - patch) // stride) + 1)] for n in shape]
    corners = torch.cartesian_prod(*map(torch.tensor, starts))
    masks = torch.zeros(len(corners), *shape, dtype=torch.bool)
    for mask, corner in zip(masks, corners.tolist(), strict=True):
        mask[tuple(slice(a, a + patch) for a in corner)] = True
    for voxel in map(tuple, torch.ones(shape).nonzero().tolist()):
        expected = masks[masks[(slice(None), *voxel)]]
        assert torch.equal(windows_over(voxel, patch, stride, shape), expected)
