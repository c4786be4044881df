"""Optimised masks: a plain autograd loop, as published implementations have it, against one call for all settings.

The network family of Thibeau-Sutre et al. (3D convolution, batch normalisation, leaky ReLU, max pooling, dropout,
dense layers), four volumes of one group, four settings of the two penalties. The loop takes one setting after the
other; its network is in evaluation mode and else as training left it; and the blur is a convolution in each step.
Both run in turn in this process, and the objectives after the same number of steps are compared.

    python benchmarks/optimised_masks.py            # several minutes on two cores
"""

from functools import partial

import torch
import torch.nn.functional as F
from _harness import Bench, Size
from torch import nn

from xaitools.attribution import MaskSettings, optimise_masks

SIGMA, RADIUS = 0.5, 2
"""Blur of 5 voxels a side, as in public code for brains."""
TOLERANCE = 1e-4


def network(shape):
    torch.manual_seed(0)
    layers, channels = [], 1
    for block in range(4):
        width = 8 << block
        layers += [
            nn.Conv3d(channels, width, 3, padding=1),
            nn.BatchNorm3d(width),
            nn.LeakyReLU(),
            nn.MaxPool3d(2),
        ]
        channels = width
    cells = torch.tensor([n // 16 for n in shape]).prod()
    return nn.Sequential(
        *layers,
        nn.Flatten(),
        nn.Dropout(0.79),
        nn.Linear(channels * int(cells), 64),
        nn.LeakyReLU(),
        nn.Linear(64, 2),
    ).eval()


def settings(steps):
    return [
        MaskSettings(l1=l1, l2=l2, beta2=2, steps=steps, learning_rate=0.05)
        for l1 in (0.1, 0.01)
        for l2 in (0.1, 0.01)
    ]


def blurred(volumes):
    line = torch.exp(-(torch.arange(-RADIUS, RADIUS + 1.0) ** 2) / (2 * SIGMA**2))
    line = line / line.sum()
    kernel = line[:, None, None] * line[:, None] * line
    return F.conv3d(F.pad(volumes, [RADIUS] * 6, mode="replicate"), kernel[None, None])


def plain_loop(net, volumes, target, one, deletion):
    """Objective at each step."""
    mask = torch.ones(volumes.shape[2:], requires_grad=True)
    adam = torch.optim.Adam([mask], lr=one.learning_rate, eps=1e-12)
    objectives = []
    for _ in range(one.steps + 1):
        adam.zero_grad()
        net.zero_grad()
        below = blurred(volumes) if deletion == "blur" else torch.ones_like(volumes)
        score = net(mask * volumes + (1 - mask) * below).softmax(1)[:, target].mean()
        hidden = (1 - mask).sum() / mask.numel()
        rough = sum((mask.diff(dim=axis) ** 2).sum() for axis in range(3)) / mask.numel()
        objective = score + one.l1 * hidden + one.l2 * rough
        objective.backward()
        objectives.append(float(objective.detach()))
        adam.step()
        mask.data.clamp_(0, 1)
    return objectives


def by_loop(net, volumes, target, steps, deletion):
    """Objectives of all settings at their last step."""
    return [plain_loop(net, volumes, target, one, deletion)[-1] for one in settings(steps)]


def by_ours(net, volumes, target, steps, deletion):
    found = optimise_masks(
        net,
        volumes,
        target,
        groups="all",
        settings=settings(steps),
        deletion=deletion,
        sigma=SIGMA,
        patience=None,
        progress=False,
    )
    return found.history.query("iteration == @steps").objective.tolist()


def compare(bench, deletion):
    shape = (61, 73, 61) if bench.size == 61 else (bench.size,) * 3
    net = network(shape)
    volumes = torch.rand(4, 1, *shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        target = int(net(volumes[:1]).argmax())
    task = (net, volumes, target, bench.steps, deletion)
    turns = bench.in_turn(
        {"plain loop": partial(by_loop, *task), "ours": partial(by_ours, *task)}, memory={"steps": 1}
    )
    ends = zip(turns.results["plain loop"], turns.results["ours"], strict=True)
    apart = max(abs(a - b) / abs(a) for a, b in ends)
    assert apart < TOLERANCE, apart
    setting = f"four settings of {bench.steps} steps, four volumes of {' x '.join(map(str, shape))}"
    bench.ratio(turns, "plain loop", setting=setting, agreement=f"objectives {apart:.0e}")


if __name__ == "__main__":
    Bench(
        __doc__,
        size=Size(61, quick=16, least=16, help="voxels of a side"),
        steps=Size(10, quick=2, help="steps of each optimisation"),
    ).run({deletion: partial(compare, deletion=deletion) for deletion in ("white", "blur")})
