"""Optimised masks: a plain autograd loop, as published implementations have it, against one call for all settings.

The network family of Thibeau-Sutre et al. (3D convolution, batch normalisation, leaky ReLU, max pooling, dropout, dense
layers), four volumes of one group, four settings of the two penalties. The loop takes one setting after the other; its
network is in evaluation mode and else as training left it; and the blur is a convolution in each step. Both
run in turn in this process, and the objectives after the same number of steps are compared. Peak memory is that of a
process of its own.

    python benchmarks/optimised_masks.py            # several minutes on two cores
    python benchmarks/optimised_masks.py --quick    # smaller volumes
"""

import argparse
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
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


def run(which, net, volumes, target, steps, deletion):
    """Objectives of all settings at their last step."""
    if which == "plain loop":
        return [plain_loop(net, volumes, target, one, deletion)[-1] for one in settings(steps)]
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


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--quick", action="store_true", help="volumes of 32 x 40 x 32")
    parser.add_argument("--cpu", action="store_true", help="seconds of the processor, on a busy machine")
    parser.add_argument("--only", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    shape = (32, 40, 32) if options.quick else (61, 73, 61)
    net = network(shape)
    volumes = torch.rand(4, 1, *shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        target = int(net(volumes[:1]).argmax())
    if options.only:
        which, deletion = options.only
        run(which, net, volumes, target, 1, deletion)
        print(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1])
        return
    clock = time.process_time if options.cpu else time.perf_counter
    for deletion in ("white", "blur"):
        seconds, ends = {"plain loop": [], "ours": []}, {}
        for _ in range(options.repeats):
            for which, times in seconds.items():
                start = clock()
                ends[which] = run(which, net, volumes, target, options.steps, deletion)
                times.append(clock() - start)
        apart = max(abs(a - b) / abs(a) for a, b in zip(ends["plain loop"], ends["ours"], strict=True))
        if not apart < TOLERANCE:
            raise SystemExit(f"{deletion}: objectives differ by {apart:.1e} of their value")
        ratios = sorted(one / other for one, other in zip(*seconds.values(), strict=True))
        memory = {which: peak(which, deletion, options.quick) for which in seconds}
        theirs, ours = (statistics.median(times) for times in seconds.values())
        print(
            f"{deletion}: plain loop {theirs:.1f} s, ours {ours:.1f} s for {options.steps} steps, "
            f"{statistics.median(ratios):.2f} times faster (from {ratios[0]:.2f} to {ratios[-1]:.2f}), "
            f"objectives apart by {apart:.0e}; peak memory {memory['plain loop']} and {memory['ours']} MiB",
            flush=True,
        )


def peak(which, deletion, quick):
    """Peak memory in MiB of a process that does nothing else."""
    command = [sys.executable, __file__, "--only", which, deletion, *(["--quick"] if quick else [])]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout) // 1024


if __name__ == "__main__":
    main()
