"""Every kind of layer: outputs for changed images, from the changes, against full passes in float64."""

import itertools
import random

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from xaitools.attribution import _incremental
from xaitools.attribution._boxes import Change, add, inside, reach, read, reframe, tighten
from xaitools.attribution._incremental import IncrementalNetwork
from xaitools.errors import UnsupportedModelError


def ready(net, seed=0):
    """Evaluation mode, float64, statistics of batch norm that are not those of a fresh network."""
    generator = torch.Generator().manual_seed(seed)
    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            affine = [module.bias.data, module.weight.data] if module.affine else []
            for tensor in (module.running_mean, *affine[:1]):
                tensor.copy_(0.3 * torch.randn(tensor.shape, generator=generator))
            for tensor in (module.running_var, *affine[1:]):
                tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
    return net.eval().double().requires_grad_(False)


def boxes(shape, size, stride=1):
    """Starts of all boxes of that size in a volume of that shape."""
    return torch.tensor(
        list(itertools.product(*(range(0, n - s + 1, stride) for n, s in zip(shape, size, strict=True))))
    )


def slow_outputs(net, image, change):
    """One window after the other, by full passes."""
    outputs = []
    for start, values in zip(change.start.tolist(), change.values, strict=True):
        changed = image.clone()
        box = tuple(slice(a, a + n) for a, n in zip(start, change.size, strict=True))
        changed[(0, slice(None), *box)] += values.movedim(-1, 0)
        outputs.append(net(changed) - net(image))
    return torch.cat(outputs)


def compare(net, shape, size, channels=1, n=40, batch_size=4):
    generator = torch.Generator().manual_seed(1)
    image = torch.randn(1, channels, *shape, generator=generator, dtype=torch.float64)
    start = boxes(shape, size)
    start = start[torch.randperm(len(start), generator=generator)[:n]]
    values = torch.randn(len(start), *size, channels, generator=generator, dtype=torch.float64)
    change = Change(values, start)
    engine = IncrementalNetwork(net, image, batch_size=batch_size)
    expected = slow_outputs(net, image, change)
    torch.testing.assert_close(engine.outputs(change), expected, rtol=1e-10, atol=1e-11)
    assert expected.abs().max() > 1e-6
    return engine


class Wrapped(nn.Module):
    """Layers, then a function that is traced, then a linear layer."""

    def __init__(self, function, *layers, **parts):
        super().__init__()
        self.body = nn.Sequential(*layers)
        self.parts = nn.ModuleDict(parts)
        self.function = function

    def forward(self, x):
        return self.function(self.parts, self.body(x))


def head(features, classes=3):
    return [nn.Flatten(), nn.Linear(features, classes)]


CONVOLUTIONS = {
    "plain": {"kernel_size": 3},
    "padded": {"kernel_size": 3, "padding": 1},
    "much padded": {"kernel_size": 3, "padding": 3},
    "strided": {"kernel_size": 3, "stride": 2, "padding": 1},
    "gaps": {"kernel_size": 1, "stride": 2},
    "even": {"kernel_size": 4, "padding": 1},
    "dilated": {"kernel_size": 3, "dilation": 2, "padding": 1},
    "dilated and strided": {"kernel_size": 3, "dilation": 2, "stride": 2, "padding": 2},
    "same": {"kernel_size": 4, "padding": "same"},
    "valid": {"kernel_size": 3, "padding": "valid"},
    "grouped": {"kernel_size": 3, "groups": 2, "padding": 1},
    "of unequal axes": {"kernel_size": (3, 5), "stride": (1, 2), "padding": (0, 2)},
    "mirrored": {"kernel_size": 3, "padding": 1, "padding_mode": "reflect"},
}


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("options", CONVOLUTIONS.values(), ids=CONVOLUTIONS.keys())
@pytest.mark.parametrize("size", [(1, 1), (4, 3)])
def test_convolutions(options, size):
    torch.manual_seed(0)
    layers = [nn.Conv2d(2, 4, **options), nn.ReLU(), nn.Conv2d(4, 4, **options)]
    features = nn.Sequential(*layers, nn.Flatten())(torch.zeros(1, 2, 19, 16)).shape[1]
    compare(ready(nn.Sequential(*layers, *head(features))), (19, 16), size, channels=2)


POOLS = {
    "max 2": lambda: nn.MaxPool2d(2),
    "max 3": lambda: nn.MaxPool2d(3),
    "max overlapping": lambda: nn.MaxPool2d(3, stride=2, padding=1),
    "max every cell": lambda: nn.MaxPool2d(3, stride=1, padding=1),
    "max with gaps": lambda: nn.MaxPool2d(2, stride=3),
    "max, ceil": lambda: nn.MaxPool2d(3, stride=2, ceil_mode=True),
    "max, unequal axes": lambda: nn.MaxPool2d((3, 2)),
    "max, dilated": lambda: nn.MaxPool2d(2, dilation=2),
    "mean 2": lambda: nn.AvgPool2d(2),
    "mean overlapping": lambda: nn.AvgPool2d(3, stride=2, padding=1),
    "mean, own divisor": lambda: nn.AvgPool2d(3, stride=2, divisor_override=4),
    "mean of what is there": lambda: nn.AvgPool2d(3, stride=2, padding=1, count_include_pad=False),
    "mean, ceil": lambda: nn.AvgPool2d(3, stride=2, ceil_mode=True),
    "adaptive": lambda: nn.AdaptiveAvgPool2d(3),
    "lp": lambda: nn.LPPool2d(2, 2),
}


@pytest.mark.parametrize("pool", POOLS.values(), ids=POOLS.keys())
@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh])
def test_pools(pool, activation):
    torch.manual_seed(0)
    body = nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1), activation(), pool(), nn.Conv2d(3, 4, 3, padding=1), nn.ReLU()
    )
    features = body(torch.zeros(1, 1, 17, 20)).flatten(1).shape[1]
    compare(ready(nn.Sequential(body, *head(features))), (17, 20), (3, 2))


ACTIVATIONS = [
    *(nn.ReLU(inplace=True), nn.LeakyReLU(0.2), nn.ELU(), nn.GELU(), nn.SiLU(), nn.Sigmoid(), nn.Tanh()),
    *(nn.Hardtanh(), nn.ReLU6(), nn.Softplus(), nn.PReLU(3), nn.Softmax(dim=1), nn.GroupNorm(1, 3)),
    *(
        nn.InstanceNorm2d(3),
        nn.BatchNorm2d(3),
        nn.BatchNorm2d(3, affine=False),
        nn.Dropout2d(),
        nn.Identity(),
    ),
]


@pytest.mark.parametrize("layer", ACTIVATIONS, ids=[type(layer).__name__ for layer in ACTIVATIONS])
def test_activations_and_normalisation(layer):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 3, 3, padding=2), layer, nn.Conv2d(3, 2, 3), nn.AdaptiveAvgPool2d(1))
    compare(ready(nn.Sequential(net, nn.Flatten(), nn.Linear(2, 3))), (11, 12), (2, 3))


FUNCTIONS = {
    "relu": lambda p, x: p["head"](F.relu(x).flatten(1)),
    "relu_": lambda p, x: p["head"](torch.relu_(x).flatten(1)),
    "method relu_": lambda p, x: p["head"](x.relu_().flatten(1)),
    "in place": lambda p, x: p["head"](F.relu(x, inplace=True).flatten(1)),
    "pooled": lambda p, x: p["head"](F.interpolate(F.max_pool2d(F.relu(x), 2), (8, 8)).flatten(1)),
    "pooled by keywords": lambda p, x: p["mean"](
        F.max_pool2d(x, kernel_size=3, stride=2, padding=1).mean((2, 3))
    ),
    "numbers": lambda p, x: p["head"](((1 - 2 * x + 3) / 4).clamp(min=0).flatten(1)),
    "power": lambda p, x: p["head"]((x**2).flatten(1)),
    "sum": lambda p, x: p["head"]((x + p["conv"](x)).flatten(1)),
    "sum in place": lambda p, x: p["head"](operator_add(p["conv"](x), x).flatten(1)),
    "twice": lambda p, x: p["head"]((x + x).relu().flatten(1)),
    "sum of unlike boxes": lambda p, x: p["head"]((p["conv"](F.relu(p["conv"](x))) + x).relu().flatten(1)),
    "scaled sum": lambda p, x: p["head"](torch.add(x, p["conv"](x), alpha=2).flatten(1)),
    "difference": lambda p, x: p["head"]((x - p["conv"](x)).flatten(1)),
    "product": lambda p, x: p["head"]((x * torch.sigmoid(p["conv"](x))).flatten(1)),
    "concatenated": lambda p, x: p["wide"](torch.cat([x, p["conv"](x)], 1).flatten(1)),
    "concatenated in space": lambda p, x: p["wide"](torch.cat([x, p["conv"](x)], dim=2).flatten(1)),
    "sum with a vector": lambda p, x: p["head"]((x + x.mean((2, 3), keepdim=True)).relu().flatten(1)),
    "gate": lambda p, x: p["head"]((x * torch.sigmoid(F.adaptive_avg_pool2d(x, 1))).flatten(1)),
    "view": lambda p, x: p["head"](x.view(x.size(0), -1)),
    "view by shape": lambda p, x: p["head"](x.reshape(x.shape[0], x.shape[1] * x.shape[2] * x.shape[3])),
    "view of a gate": lambda p, x: p["head"](F.softmax(x.view(x.size(0), 3, -1), 2).reshape(x.shape[0], -1)),
    "mean": lambda p, x: p["mean"](x.mean([2, 3])),
    "mean by name": lambda p, x: p["mean"](torch.mean(x, dim=(-1, -2))),
    "mean kept": lambda p, x: p["mean"](x.mean((2, 3), keepdim=True).flatten(1)),
    "mean of one axis": lambda p, x: p["row"](x.mean(3).flatten(1)),
    "maximum": lambda p, x: p["mean"](x.amax((2, 3))),
    "split": lambda p, x: p["mean"](torch.cat(x.chunk(3, 1)[::-1], 1).mean((2, 3))),
    "activation after flattening": lambda p, x: p["head"](F.relu(x.flatten(1))),
    "dropout": lambda p, x: p["head"](F.dropout(x.flatten(1), training=False)),
    "one output": lambda p, x: p["mean"](x.mean((2, 3)))[:, 0],
    "probability": lambda p, x: F.softmax(p["head"](x.flatten(1)), 1),
    "the image again": lambda p, x: p["head"]((x - x.relu()).flatten(1)),
}


def operator_add(x, y):
    x += y
    return x


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS.keys())
def test_operations_that_are_no_layers(function):
    torch.manual_seed(0)
    parts = {
        "head": nn.Linear(192, 2),
        "wide": nn.Linear(384, 2),
        "mean": nn.Linear(3, 2),
        "row": nn.Linear(24, 2),
    }
    net = Wrapped(function, nn.Conv2d(1, 3, 3), conv=nn.Conv2d(3, 3, 3, padding=1), **parts)
    compare(ready(net), (10, 10), (2, 2))


@pytest.mark.parametrize("block", [BasicBlock, Bottleneck])
@pytest.mark.parametrize("size", [(1, 1), (5, 4)])
def test_residual_blocks(block, size):
    torch.manual_seed(0)
    width = 8 // block.expansion
    down = nn.Sequential(nn.Conv2d(8, 8, 1, stride=2), nn.BatchNorm2d(8))
    net = nn.Sequential(
        *(nn.Conv2d(1, 8, 7, stride=2, padding=3), nn.BatchNorm2d(8), nn.ReLU(inplace=True)),
        *(nn.MaxPool2d(3, 2, 1), block(8, width), block(8, width, stride=2, downsample=down)),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)),
    )
    compare(ready(net), (46, 51), size)


class Dense(nn.Module):
    """Every layer sees all those before it."""

    def __init__(self):
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv3d(1 + 2 * i, 2, 3, padding=1) for i in range(3))
        self.head = nn.Linear(7, 2)

    def forward(self, x):
        for conv in self.convs:
            x = torch.cat([x, F.relu(conv(x))], 1)
        return self.head(F.adaptive_avg_pool3d(F.max_pool3d(x, 2), 1).flatten(1))


@pytest.mark.parametrize("size", [(1, 1, 1), (2, 3, 1)])
def test_dense_volume_network(size):
    torch.manual_seed(0)
    compare(ready(Dense()), (9, 8, 7), size)


def random_network(seed):
    """A chain of random layers, with a volume that it fits."""
    rng = random.Random(seed)
    axes = rng.choice((2, 3))
    conv, pool, mean, norm = (
        (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d, nn.BatchNorm2d),
        (nn.Conv3d, nn.MaxPool3d, nn.AvgPool3d, nn.BatchNorm3d),
    )[axes - 2]
    shape = tuple(rng.randint(9, 26 if axes == 2 else 12) for _ in range(axes))
    x = torch.zeros(1, 2, *shape)
    layers = []
    for _ in range(rng.randint(2, 5)):
        k, s, p, d = rng.randint(1, 3), rng.choice((1, 1, 2)), rng.randint(0, 1), rng.choice((1, 1, 2))
        new = rng.choice(
            [
                lambda c, k=k, s=s, p=p, d=d: conv(c, 3, k, s, p, d),
                lambda c, k=k, s=s, p=p: pool(k, s, min(p, k // 2)),
                lambda c, k=k, s=s, p=p: mean(k, s, min(p, k // 2)),
                lambda c: norm(c),
                lambda c: rng.choice((nn.ReLU(), nn.Sigmoid())),
            ]
        )(x.shape[1])
        try:
            longer = new.eval()(x)
        except RuntimeError:
            continue
        if min(longer.shape[2:]) > 1:
            layers.append(new)
            x = longer
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(x[0].numel(), 2)), shape, rng


@pytest.mark.parametrize("seed", range(40))
def test_random_networks(seed):
    torch.manual_seed(seed)
    net, shape, rng = random_network(seed)
    compare(ready(net), shape, tuple(rng.randint(1, min(5, n)) for n in shape), channels=2, n=12)


def test_windows_in_groups_of_several_sizes(monkeypatch):
    """Boxes are cropped to what changed, and the groups put back in order."""
    monkeypatch.setattr(_incremental, "SMALLEST_GROUP", 2)
    monkeypatch.setattr(_incremental, "LARGEST_BATCH", 2000)
    torch.manual_seed(0)
    layers = [
        nn.Conv2d(1, 4, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(3),
        nn.Conv2d(4, 4, 3),
        nn.ReLU(),
        *head(4 * 25),
    ]
    compare(ready(nn.Sequential(*layers)), (21, 22), (2, 3), n=200)


def test_windows_that_change_nothing_end_early_and_give_exactly_zero():
    net = ready(
        nn.Sequential(nn.Conv2d(1, 1, 1), nn.ReLU(), nn.Conv2d(1, 1, 1), nn.Flatten(), nn.Linear(64, 1))
    )
    net[0].weight.fill_(1)
    net[0].bias.fill_(-1)
    net[4].weight.fill_(1)
    engine = IncrementalNetwork(net, torch.zeros(1, 1, 8, 8, dtype=torch.float64))
    values = torch.tensor([0.5, 3.0, 0.0]).double().view(3, 1, 1, 1)
    outputs = engine.outputs(Change(values, torch.tensor([[1, 1], [2, 5], [7, 7]])))
    assert outputs[0] == outputs[2] == 0
    torch.testing.assert_close(outputs[1, 0], 2 * net[2].weight[0, 0, 0, 0])


def test_work_is_less_than_a_full_pass_and_counts_the_convolutions():
    torch.manual_seed(0)
    net = ready(
        nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 64 * 64, 2))
    )
    engine = IncrementalNetwork(net, torch.rand(1, 1, 64, 64, dtype=torch.float64))
    assert engine.full_work >= 64 * 64 * 8 * 9 + 8 * 64 * 64 * 2
    engine.outputs(Change(torch.ones(1, 4, 4, 1, dtype=torch.float64), torch.tensor([[20, 20]])))
    assert 6 * 6 * 8 * 9 < engine.work < engine.full_work / 20


def test_a_network_whose_first_layer_takes_everything():
    engine = IncrementalNetwork(
        ready(nn.Sequential(nn.GroupNorm(1, 1), nn.Conv2d(1, 1, 3))), torch.rand(1, 1, 5, 5).double()
    )
    with pytest.raises(UnsupportedModelError, match=r"The layer 0 .*takes the whole image at once"):
        engine.require_local()


class Branching(nn.Module):
    def forward(self, x):
        return x.mean((1, 2, 3)) if x.sum() > 0 else x.amax((1, 2, 3))


class Reused(nn.Module):
    def forward(self, x):
        x = x - 0.5
        F.relu(x, inplace=True)
        return x.mean((1, 2, 3))


class Counting(nn.Module):
    def forward(self, x):
        return (x * x.sum().item()).mean((1, 2, 3))


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (Branching(), "cannot be traced"),
        (Reused(), "changes activations in place"),
        (Counting(), "'item' makes a number from an activation"),
    ],
)
def test_networks_that_cannot_be_followed(net, message):
    with pytest.raises(UnsupportedModelError, match=message):
        IncrementalNetwork(net, torch.rand(1, 1, 6, 6))


# --- boxes


def placed(change, shape):
    """Whole activations, window by window."""
    whole = torch.zeros(len(change), *shape, change.values.shape[-1])
    for i, start in enumerate(change.start.tolist()):
        for cell in itertools.product(*map(range, change.size)):
            at = tuple(a + c for a, c in zip(start, cell, strict=True))
            if all(0 <= a < n for a, n in zip(at, shape, strict=True)):
                whole[(i, *at)] = change.values[(i, *cell)]
    return whole


@pytest.mark.parametrize("same", [True, False])
def test_boxes_are_cut_at_the_border_and_moved_inside(same):
    generator = torch.Generator().manual_seed(0)
    start = torch.randint(-2, 6, (9, 2), generator=generator)
    start = start[:1].expand(9, 2) if same else start
    change = Change(torch.randn(9, 3, 2, 4, generator=generator), start)
    expected = placed(change, (6, 5))
    tidy = inside(change, (6, 5))
    assert ((tidy.start >= 0) & (tidy.start + torch.tensor(tidy.size) <= torch.tensor([6, 5]))).all()
    torch.testing.assert_close(placed(tidy, (6, 5)), expected)
    torch.testing.assert_close(reframe(tidy, torch.zeros_like(start), (6, 5)), expected)
    table = torch.randn(6, 5, 4, generator=generator)
    boxes = read(table, tidy.start, tidy.size)
    whole = torch.zeros(9, 2, dtype=torch.long)
    torch.testing.assert_close(add(tidy, read(table, whole, (6, 5)), whole), table + expected)
    torch.testing.assert_close(
        placed(Change(boxes, tidy.start), (6, 5))[0],
        table * (placed(Change(torch.ones_like(boxes), tidy.start), (6, 5))[0]),
    )


def test_reach_is_the_smallest_box():
    """Outputs whose kernel covers a changed input, counted one by one."""
    for kernel, stride, padding in itertools.product((1, 2, 3, 5), (1, 2, 3), (0, 1, 2)):
        shape = (20 + 2 * padding - kernel) // stride + 1
        for first, n in itertools.product(range(4, 12), (1, 2, 5)):
            seen = [
                out
                for out in range(shape)
                if set(range(out * stride - padding, out * stride - padding + kernel))
                & set(range(first, first + n))
            ]
            change = Change(torch.ones(1, n, 1), torch.tensor([[first]]))
            start, size = reach(change, (shape,), (kernel,), (stride,), (padding,))
            if seen:
                assert (start.item(), size[0]) == (seen[0], len(seen))


def test_boxes_are_cropped_to_what_changed():
    values = torch.zeros(6, 4, 5, 2)
    values[0, 1, 2, 0] = 1
    values[1, 3, 4, 1] = 2
    values[2, 0, 0, 0] = values[2, 1, 0, 0] = 3
    values[4] = 4
    values[5, 1:3, 1, 1] = 5
    change = Change(values, torch.arange(12).view(6, 2))
    parts = tighten(change, smallest=2)
    sizes = {tuple(windows.tolist()): part.size for windows, part in parts}
    assert sizes == {(0, 1): (1, 1), (2, 5): (2, 1), (4,): (4, 5)}
    for windows, part in parts:
        torch.testing.assert_close(placed(part, (20, 20)), placed(change[windows], (20, 20)))
    ((windows, part),) = tighten(change, smallest=9)  # one box for all, which stays inside the old one
    assert windows.tolist() == [0, 1, 2, 4, 5]
    assert torch.equal(part.start, change.start[windows])
    assert tighten(Change(torch.zeros(3, 2, 2, 1), torch.zeros(3, 2).long()), 1) == []
