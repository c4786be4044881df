import itertools
import logging

import pytest
import torch
import torch.nn.functional as F
from captum.attr import Occlusion
from torch import nn

from xaitools.attribution import _incremental, attribute
from xaitools.attribution._incremental import IncrementalNetwork
from xaitools.attribution.occlusion import occlusion, share_below_rounding
from xaitools.errors import (
    DataError,
    MethodError,
    ParameterError,
    ShapeError,
    TargetError,
    UnsupportedModelError,
)
from xaitools.models.brain_cnn import eitel_cnn


def slow_occlusion(net, x, targets, patch, stride, baseline=0.0):
    """A loop over windows with a full pass for each; every voxel gets the mean over the windows that cover it."""
    filler = torch.as_tensor(baseline).to(x).expand_as(x)
    total, count = torch.zeros_like(x), torch.zeros_like(x)
    starts = [
        range(0, -(-(n - p) // s) * s + 1, s) for n, p, s in zip(x.shape[2:], patch, stride, strict=True)
    ]

    def score(images):
        with torch.no_grad():
            outputs = net(images)
        return outputs.view(len(x)) if targets is None else outputs.gather(1, targets[:, None])[:, 0]

    for start in itertools.product(*starts):
        box = (..., *(slice(a, a + p) for a, p in zip(start, patch, strict=True)))
        occluded = x.clone()
        occluded[box] = filler[box]
        fall = (score(x) - score(occluded)).view(-1, *(1 for _ in x.shape[1:]))
        total[box] += fall
        count[box] += 1
    return total / count


def captum_occlusion(net, x, targets, patch, stride, baseline=0.0):
    window, step = ((x.shape[1], *value) for value in (patch, stride))
    return Occlusion(net).attribute(
        x, window, step, baselines=baseline, target=targets, perturbations_per_eval=4
    )


@pytest.fixture
def plane_net() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(2, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 6, 3), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(6 * 5 * 4, 3)).eval()


@pytest.fixture
def planes() -> torch.Tensor:
    return torch.rand(3, 2, 14, 13, generator=torch.Generator().manual_seed(3))


@pytest.fixture
def targets() -> torch.Tensor:
    return torch.tensor([2, 0, 1])


@pytest.mark.parametrize("algorithm", ["incremental", "full", "auto"])
@pytest.mark.parametrize(
    ("patch", "stride"),
    [(4, None), (3, 2), (1, 1), ((5, 2), (3, 2)), ((14, 3), (14, 3)), (13, 4), ((14, 13), (20, 30))],
)
def test_equals_captum_and_the_loop(plane_net, planes, targets, patch, stride, algorithm) -> None:
    """Windows that stick out are cut, and overlapping windows averaged, as captum does."""
    maps = occlusion(
        plane_net, planes, targets, patch=patch, stride=stride, algorithm=algorithm, progress=False
    )
    patches = (patch,) * 2 if isinstance(patch, int) else patch
    strides = patches if stride is None else (stride,) * 2 if isinstance(stride, int) else stride
    assert maps.shape == planes.shape
    expected = slow_occlusion(plane_net.double(), planes.double(), targets, patches, strides).float()
    torch.testing.assert_close(maps, expected, rtol=1e-5, atol=1e-6)
    exact = occlusion(
        *(plane_net, planes.double(), targets),
        patch=patch,
        stride=stride,
        algorithm=algorithm,
        progress=False,
    )
    captum = captum_occlusion(plane_net, planes.double(), targets, patches, strides)
    torch.testing.assert_close(exact, captum.double(), rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(exact, slow_occlusion(plane_net, planes.double(), targets, patches, strides))


@pytest.mark.parametrize("algorithm", ["incremental", "full"])
@pytest.mark.parametrize("baseline", [0.7, "image", "images"])
def test_baselines(plane_net, planes, targets, baseline, algorithm) -> None:
    generator = torch.Generator().manual_seed(0)
    if baseline == "image":
        baseline = torch.rand(planes.shape[1:], generator=generator)
    elif baseline == "images":
        baseline = torch.rand(planes.shape, generator=generator)
    net, x = plane_net.double(), planes.double()
    maps = occlusion(
        net, x, targets, patch=4, stride=3, baseline=baseline, algorithm=algorithm, progress=False
    )
    expected = slow_occlusion(net, x, targets, (4, 4), (3, 3), baseline)
    torch.testing.assert_close(maps, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("patch", "stride"), [(5, 5), (6, 4), ((36, 9, 20), (36, 9, 20))])
def test_eitel_network(patch, stride) -> None:
    net = eitel_cnn(1, 1, (36, 39, 40))
    for module in net:
        if isinstance(module, nn.BatchNorm3d):
            module.running_mean.fill_(0.1)
            module.running_var.fill_(0.2)
    volume, noise = torch.rand(
        2, 1, 1, 36, 39, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    filler = volume.clone()
    for box in ((slice(21, 25), slice(11, 15), slice(0, 4)), (slice(32, 36), slice(36, 39), slice(36, 40))):
        filler[(..., *box)] = 9 * noise[(..., *box)]
    net = net.eval().double()
    common = {"patch": patch, "stride": stride, "baseline": filler, "progress": False}
    maps = occlusion(net, volume, algorithm="incremental", **common)
    full = occlusion(net, volume, algorithm="full", **common)
    torch.testing.assert_close(maps, full, rtol=1e-9, atol=1e-13)
    single = occlusion(net.float(), volume.float(), algorithm="incremental", **common)
    torch.testing.assert_close(single.double(), full, rtol=0, atol=1e-6)
    assert (maps != 0).any()
    if patch == 5:  # elsewhere the baseline is the image itself
        assert (maps[..., :20, :, :] == 0).all()


def test_residual_and_volume_networks(residual_net, volume_net, images, targets) -> None:
    for net, x, own in (
        (residual_net, images[:1], targets[:1]),
        (volume_net, torch.rand(2, 1, 6, 5, 7), None),
    ):
        size = (3,) * (x.ndim - 2)
        maps = occlusion(
            net.double(), x.double(), own, patch=3, stride=2, algorithm="incremental", progress=False
        )
        expected = slow_occlusion(net, x.double(), own, size, (2,) * len(size))
        torch.testing.assert_close(maps, expected, rtol=1e-9, atol=1e-12)


def test_each_image_has_its_own_map(plane_net, planes, targets) -> None:
    together = occlusion(plane_net, planes, targets, patch=4, progress=False)
    alone = occlusion(plane_net, planes[1:2], targets[1:2], patch=4, progress=False)
    torch.testing.assert_close(together[1:2], alone)


def test_completeness_of_a_linear_network(planes) -> None:
    """Where nothing interacts, the falls of windows side by side add up to the output without its bias."""
    net = nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1, bias=False), nn.Flatten(), nn.Linear(3 * 14 * 13, 1, bias=False)
    )
    maps = occlusion(net, planes, patch=1, progress=False)
    with torch.no_grad():
        torch.testing.assert_close(maps[:, 0].sum((1, 2)), net(planes)[:, 0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("algorithm", ["incremental", "full"])
def test_regions_are_hidden_one_after_the_other(plane_net, planes, targets, algorithm) -> None:
    net, x = plane_net.double(), planes.double()
    labels = torch.zeros(3, 14, 13, dtype=torch.int16)
    labels[:, 2:5, 3:9] = 7
    labels[:, 5, 3] = 7
    labels[0, 10:, 10:] = 2
    labels[1, 0, 0], labels[1, 13, 12] = 4, 4
    maps = occlusion(net, x, targets, label_map=labels, algorithm=algorithm, progress=False)
    expected = torch.zeros_like(x)
    with torch.no_grad():
        clean = net(x)
        for i, label in ((0, 7), (0, 2), (1, 7), (1, 4), (2, 7)):
            own = labels[i] == label
            fall = clean[i] - net(torch.where(own, 0.0, x[i])[None])[0]
            expected[i, :, own] = fall[targets[i]]
    torch.testing.assert_close(maps, expected, rtol=1e-9, atol=1e-12)
    shared = occlusion(net, x[:1], targets[:1], label_map=labels[0], algorithm=algorithm, progress=False)
    torch.testing.assert_close(shared, expected[:1], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(
        occlusion(net, x, targets, label_map=labels[:, None], progress=False), expected
    )


def test_what_cannot_be_traced_passes_the_whole_network(functional_net, images, targets, caplog) -> None:
    caplog.set_level(logging.INFO)
    maps = occlusion(functional_net, images, targets, patch=4, progress=False)
    torch.testing.assert_close(maps, slow_occlusion(functional_net, images, targets, (4, 4), (4, 4)))
    assert "Occlusion by full passes: The layers of FunctionalNet cannot be traced" in caplog.text
    with pytest.raises(UnsupportedModelError, match="FunctionalNet cannot be traced"):
        occlusion(functional_net, images, targets, algorithm="incremental", progress=False)


class Shortcut(nn.Module):
    """The shortcut carries what the ReLU left in place, not what the convolution gave."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 3, 3), nn.Conv2d(3, 3, 1)

    def forward(self, x):
        x = self.first(x)
        return (self.second(F.relu(x, inplace=True)) + x).mean((2, 3))


def test_activations_changed_in_place_and_used_again(images, targets, caplog) -> None:
    torch.manual_seed(0)
    caplog.set_level(logging.INFO)
    net = Shortcut()
    maps = occlusion(net, images, targets, patch=4, progress=False)
    torch.testing.assert_close(maps, slow_occlusion(net, images, targets, (4, 4), (4, 4)))
    assert "changes activations in place that it uses again" in caplog.text
    with pytest.raises(UnsupportedModelError, match=r"write x = relu\(x\)"):
        occlusion(net, images, targets, algorithm="incremental", progress=False)


def test_what_mixes_the_whole_image_passes_the_whole_network(images, targets) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.GroupNorm(1, 1), nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(160, 3))
    maps = occlusion(net, images, targets, patch=4, progress=False)
    torch.testing.assert_close(maps, slow_occlusion(net, images, targets, (4, 4), (4, 4)))
    with pytest.raises(UnsupportedModelError, match=r"The layer 0 of .* takes the whole image at once"):
        occlusion(net, images, targets, algorithm="incremental", progress=False)


def test_auto_takes_what_is_less_work(plane_net, planes, targets, caplog) -> None:
    caplog.set_level(logging.INFO)
    occlusion(plane_net, planes[:1], targets[:1], patch=2, progress=False)
    assert "Occlusion of 49 windows of 2x2 by incremental passes: a window's changes take 0." in caplog.text
    caplog.clear()
    occlusion(plane_net, planes[:1], targets[:1], patch=13, progress=False)
    assert "by full passes" in caplog.text


def test_a_wrong_rule_is_noticed(plane_net, planes, targets, monkeypatch, caplog) -> None:
    """Never a wrong map in silence: what differs from full passes is refused, or computed by full passes."""
    right = IncrementalNetwork.outputs
    monkeypatch.setattr(IncrementalNetwork, "outputs", lambda self, change: 1.01 * right(self, change))
    with pytest.raises(UnsupportedModelError, match="differ from full passes"):
        occlusion(plane_net, planes, targets, patch=2, algorithm="incremental", progress=False)
    maps = occlusion(plane_net, planes, targets, patch=4, progress=False)
    assert "occlusion goes on by full passes" in caplog.text
    torch.testing.assert_close(maps, slow_occlusion(plane_net, planes, targets, (4, 4), (4, 4)))


def test_small_groups_and_batches_change_nothing(plane_net, planes, targets, monkeypatch) -> None:
    expected = occlusion(plane_net, planes[:1], targets[:1], patch=2, stride=1, progress=False)
    monkeypatch.setattr(_incremental, "SMALLEST_GROUP", 2)
    monkeypatch.setattr(_incremental, "LARGEST_BATCH", 500)
    maps = occlusion(plane_net, planes[:1], targets[:1], patch=2, stride=1, batch_size=3, progress=False)
    torch.testing.assert_close(maps, expected, rtol=1e-4, atol=1e-6)


def test_the_network_and_the_images_stay_as_they_were(plane_net, planes, targets) -> None:
    before, x = [p.clone() for p in plane_net.parameters()], planes.clone()
    plane_net.train()
    occlusion(plane_net, planes, targets, patch=4, progress=False)
    assert plane_net.training
    assert all(
        p.requires_grad and torch.equal(p, q) for p, q in zip(plane_net.parameters(), before, strict=True)
    )
    assert torch.equal(planes, x)


def test_an_image_equal_to_the_baseline_has_a_map_of_zeros(plane_net, targets) -> None:
    assert (occlusion(plane_net, torch.zeros(3, 2, 14, 13), targets, progress=False) == 0).all()


def test_probabilities_by_a_softmax_after_the_network(plane_net, planes, targets) -> None:
    maps = occlusion(nn.Sequential(plane_net, nn.Softmax(1)), planes, targets, patch=4, progress=False)
    expected = slow_occlusion(lambda x: F.softmax(plane_net(x), 1), planes, targets, (4, 4), (4, 4))
    torch.testing.assert_close(maps, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"patch": 15}, ParameterError, r"patch=\(15, 15\) is larger than the image \(14, 13\)"),
        ({"patch": (14, 14)}, ParameterError, "larger than the image"),
        ({"patch": 0}, ParameterError, "patch=0; expected a whole number of 1 or more"),
        ({"patch": (3, 3, 3)}, ParameterError, "one for each of 2 spatial axes"),
        ({"patch": 3, "stride": 4}, ParameterError, "leaves voxels that no window covers"),
        ({"stride": 0}, ParameterError, "stride=0; expected"),
        ({"algorithm": "fast"}, ParameterError, "expected one of auto, incremental, full"),
        ({"batch_size": 0}, MethodError, "batch_size=0"),
        ({"baseline": torch.zeros(14, 13)}, ShapeError, r"Baseline of shape \(14, 13\)"),
        ({"baseline": torch.nan}, DataError, "baseline contains NaN"),
        ({"label_map": torch.ones(13, 14).long()}, ShapeError, "Resample the atlas"),
        ({"label_map": torch.ones(14, 13)}, DataError, r"convert it with .long\(\)"),
        ({"label_map": torch.zeros(14, 13).long()}, DataError, "no label other than 0"),
        ({"label_map": -torch.ones(14, 13).long()}, DataError, "contains the label -1"),
    ],
)
def test_wrong_options(plane_net, planes, targets, options, error, message) -> None:
    with pytest.raises(error, match=message):
        occlusion(plane_net, planes, targets, progress=False, **options)


def test_wrong_images_and_targets(plane_net, planes, targets) -> None:
    with pytest.raises(TargetError, match="target 3 with a network of 3"):
        occlusion(plane_net, planes, targets + 1, progress=False)
    with pytest.raises(TargetError, match="name a class"):
        occlusion(plane_net, planes, progress=False)
    with pytest.raises(ShapeError, match="one class for all, or one for each"):
        occlusion(plane_net, planes, targets[:2], progress=False)
    with pytest.raises(ShapeError, match="at least one image"):
        occlusion(plane_net, planes[:0], targets[:0], progress=False)
    planes[1, 0, 3, 3] = torch.nan
    with pytest.raises(DataError, match="number 1 of the batch contains NaN"):
        occlusion(plane_net, planes, targets, progress=False)


@pytest.mark.parametrize("before", [True, False])
def test_hooks_that_change_activations_count(plane_net, planes, targets, before) -> None:
    """In float32 and for single pixels: the error of a rule that passes by the hook is far below the output."""
    layer = plane_net[3]
    if before:
        layer.register_forward_pre_hook(lambda module, args: (args[0].clamp(max=0.3),))
    else:
        layer.register_forward_hook(lambda module, args, output: output + output.abs().sqrt() / 10)
    maps = occlusion(plane_net, planes, targets, patch=1, progress=False)
    expected = slow_occlusion(plane_net.double(), planes.double(), targets, (1, 1), (1, 1))
    torch.testing.assert_close(maps.double(), expected, rtol=0, atol=float(1e-4 * expected.abs().max()))
    with pytest.raises(UnsupportedModelError, match="has a hook"):
        occlusion(plane_net, planes, targets, algorithm="incremental", progress=False)


def test_falls_are_judged_by_their_own_size(plane_net, planes, targets, monkeypatch) -> None:
    """An output that is large against the falls hides no error: here of 2 % of the falls, 1e-7 of the output."""
    plane_net[6].bias.data += 1e3
    right = IncrementalNetwork.outputs
    options = {"patch": 1, "algorithm": "incremental", "progress": False}
    exact = occlusion(plane_net.double(), planes.double(), targets, **options)
    monkeypatch.setattr(IncrementalNetwork, "outputs", lambda self, change: 1.02 * right(self, change))
    with pytest.raises(UnsupportedModelError, match="differ from full passes"):
        occlusion(plane_net.double(), planes.double(), targets, **options)
    monkeypatch.undo()
    single = occlusion(
        plane_net.float(), planes, targets, **options
    )  # no digit of the falls is lost in the output
    torch.testing.assert_close(single.double(), exact, rtol=0, atol=float(1e-5 * exact.abs().max()))


def test_falls_below_rounding_are_told(caplog) -> None:
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 4, 3, padding=1)]
    for _ in range(12):
        layers += [nn.Tanh(), nn.Conv2d(4, 4, 3, padding=1)]
        layers[-1].weight.data *= 0.5
    net, x = nn.Sequential(*layers, nn.Flatten(), nn.Linear(4 * 64, 1)), torch.rand(2, 1, 8, 8)
    assert (share_below_rounding(net, x, patch=2) > 0.5).all()
    caplog.clear()
    occlusion(net, x, patch=2, progress=False)
    assert caplog.text.count("its map is mostly noise") == 1
    caplog.clear()
    assert (share_below_rounding(net.double(), x.double(), patch=2) < 0.1).all()
    assert not caplog.text


@pytest.mark.parametrize("algorithm", ["incremental", "full"])
def test_falls_above_rounding(plane_net, planes, targets, algorithm, caplog) -> None:
    shares = share_below_rounding(plane_net, planes, targets, patch=3, algorithm=algorithm)
    assert shares.tolist() == [0, 0, 0]
    assert not caplog.text


class Recording(nn.Module):
    """Cannot be traced, and notes how many images come at once."""

    largest = 0

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x):
        if float(x.sum()) > -1e9:
            Recording.largest = max(Recording.largest, len(x))
        return self.net(x)


@pytest.mark.parametrize("options", [{}, {"label_map": torch.arange(182).view(14, 13) // 10}])
def test_batch_size_bounds_full_passes(plane_net, planes, targets, options) -> None:
    net = Recording(plane_net)
    Recording.largest = 0
    maps = attribute(
        *(net, planes, targets, ["occlusion[4]" if not options else "occlusion"]),
        options={"occlusion": options},
        batch_size=3,
        progress=False,
    )
    assert Recording.largest == 3
    expected = occlusion(plane_net, planes, targets, **(options or {"patch": 4}), progress=False)
    torch.testing.assert_close(next(iter(maps.values())), expected, rtol=1e-4, atol=1e-6)


def test_a_stop_is_no_reason_to_go_on_by_full_passes(plane_net, planes, targets) -> None:
    class Stop(Exception):
        pass

    def progress(done, total):
        if done:
            raise Stop

    with pytest.raises(Stop):
        occlusion(plane_net, planes, targets, patch=2, progress=progress)


def test_progress_adds_up_even_if_windows_are_computed_twice(plane_net, planes, targets, monkeypatch) -> None:
    right = IncrementalNetwork.outputs
    seen = []
    checks = iter([1.0, 1.0])  # the trial is right, then no more
    monkeypatch.setattr(
        IncrementalNetwork, "outputs", lambda self, change: next(checks, 2.0) * right(self, change)
    )
    occlusion(
        *(plane_net, planes[:1], targets[:1]),
        patch=2,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen[-1] == (49, 49)
    assert seen == sorted(seen)


@pytest.mark.parametrize("seed", range(3))
def test_rounding_of_large_activations_that_cancel_is_no_disagreement(seed, caplog) -> None:
    """Activations of a thousand, a score of a tenth: incremental falls are as near to float64 as full ones are."""
    torch.manual_seed(seed)
    body = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(),
    )  # fmt: skip
    last, x = nn.Linear(128, 2), torch.rand(1, 1, 24, 24)
    with torch.no_grad():
        for layer in (body[0], body[2], body[4]):
            layer.bias.fill_(1000.0)
        last.weight *= 0.1
        last.bias.copy_(0.1 - (body(x) @ last.weight.T)[0])
    net = nn.Sequential(body, last).eval()
    with caplog.at_level("WARNING"):
        fast = occlusion(net, x, 1, patch=3, progress=False)
    assert not caplog.records
    exact = occlusion(net.double(), x.double(), 1, patch=3, algorithm="full", progress=False)
    full = occlusion(net.float(), x, 1, patch=3, algorithm="full", progress=False)
    error, usual = (float((own - exact).abs().max()) for own in (fast, full))
    assert 0 < usual < 0.2 * float(exact.abs().max())
    assert error < 2 * usual


def test_a_real_disagreement_is_told_even_where_large_activations_cancel(monkeypatch, caplog) -> None:
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten())
    last, x = nn.Linear(128, 2), torch.rand(1, 1, 24, 24)
    with torch.no_grad():
        body[0].bias.fill_(1000.0)
        last.weight *= 0.1
        last.bias.copy_(0.1 - (body(x) @ last.weight.T)[0])
    outputs = IncrementalNetwork.outputs
    monkeypatch.setattr(IncrementalNetwork, "outputs", lambda self, change: 1.5 * outputs(self, change))
    net = nn.Sequential(body, last).eval()
    with caplog.at_level("WARNING"):
        found = occlusion(net, x, 1, patch=3, progress=False)
    assert "occlusion goes on by full passes" in caplog.text
    full = occlusion(net, x, 1, patch=3, algorithm="full", progress=False)
    torch.testing.assert_close(found, full, rtol=0, atol=0.05 * float(full.abs().max()))
