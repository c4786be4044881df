"""Occlusion from what changes in each layer, against captum, MONAI and full passes.

A brain volume of 91 x 109 x 91 voxels and the network of Eitel and Ritter, patches of 5 x 5 x 5 side by side: captum's
`Occlusion` with each of several `perturbations_per_eval`, and MONAI's `OcclusionSensitivity` with each of several
`n_batch`, are stopped after `--windows` windows, and their time for a window is taken for all windows. Ours computes
them all, with tracing, folding and checks. Then voxel by voxel, the middle slab of the volume only. Then torchvision's
ResNets, 128 x 128, patches of 8 x 8 at a stride of 4, against batched full passes of the same folded, channels-last
network. All run in turn in this process, and the outputs of common windows are compared.

    python benchmarks/occlusion.py [--windows 40] [--repeats 3] [--skip-monai]
"""

import argparse
import contextlib
import itertools
import logging
import statistics
import time

import torch
from captum.attr import Occlusion
from torch import nn

from xaitools.attribution.occlusion import occlusion
from xaitools.models import build_network
from xaitools.models.brain_cnn import eitel_cnn

SHAPE = (91, 109, 91)
PATCH = 5
BATCHES = (1, 4, 8)
TARGET = 1


class Enough(Exception):
    """Stops a library that has no way to compute a part of its windows."""


class Meter:
    """The network, with a record of outputs and of the time after each call; stops after `windows` occluded images."""

    def __init__(self, network, windows, clean_calls):
        self.network, self.windows = network, windows
        self.clean_calls = clean_calls
        self.outputs, self.times, self.counts = [], [], []

    def __call__(self, images):
        outputs = self.network(images)
        if self.clean_calls:
            self.clean_calls -= 1
            return outputs
        self.outputs.append(outputs[:, TARGET].clone())
        self.times.append(time.perf_counter())
        self.counts.append(len(images))
        if sum(self.counts) >= self.windows:
            raise Enough
        return outputs

    @property
    def seconds(self):
        """For one window, without the first call, which other work comes before."""
        return (self.times[-1] - self.times[0]) / sum(self.counts[1:])


class MeteredModule(nn.Module):
    def __init__(self, meter):
        super().__init__()
        self.meter = meter

    def forward(self, images):
        return self.meter(images)


def trained_like(network):
    """Statistics of batch norm as training leaves them: random weights alone make dull maps."""
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
            for tensor in (module.running_mean, module.bias.data):
                tensor.copy_(0.3 * torch.randn(tensor.shape, generator=generator))
            for tensor in (module.running_var, module.weight.data):
                tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
    return network.eval()


def captum_windows(network, volume, windows, batch):
    meter = Meter(network, windows, clean_calls=1)
    with contextlib.suppress(Enough):
        Occlusion(meter).attribute(
            volume,
            (1, PATCH, PATCH, PATCH),
            (1, PATCH, PATCH, PATCH),
            target=TARGET,
            perturbations_per_eval=batch,
        )
    return meter


def monai_windows(network, volume, windows, batch):
    from monai.visualize import OcclusionSensitivity

    meter = Meter(network, windows, clean_calls=0)
    tool = OcclusionSensitivity(
        MeteredModule(meter), PATCH, batch, verbose=False, mode=0.0, overlap=0.0, activate=False
    )
    with contextlib.suppress(Enough), torch.no_grad():
        tool(volume)
    return meter


def ours(network, images, **options):
    start = time.perf_counter()
    maps = occlusion(network, images, torch.tensor([TARGET]), progress=False, **options)
    return time.perf_counter() - start, maps


def spread(values, digits=3):
    return f"{statistics.median(values):.{digits}g} ({min(values):.{digits}g} to {max(values):.{digits}g})"


def eitel(windows, repeats, with_monai):
    network = trained_like(eitel_cnn(1, 2, SHAPE))
    volume = torch.rand(1, 1, *SHAPE, generator=torch.Generator().manual_seed(0))
    grid = [-(-n // PATCH) for n in SHAPE]
    total = grid[0] * grid[1] * grid[2]
    libraries = {("captum", batch): captum_windows for batch in BATCHES}
    if with_monai:
        libraries |= {("MONAI", batch): monai_windows for batch in BATCHES}
    seconds = {key: [] for key in libraries}
    own = []
    for _ in range(repeats):
        for key, run in libraries.items():
            meter = run(network, volume, windows, key[1])
            seconds[key].append(meter.seconds)
            if key == ("captum", 1):
                theirs = torch.cat(meter.outputs)
        took, maps = ours(network, volume, patch=PATCH, algorithm="incremental")
        own.append(took / total)
    with torch.no_grad():
        clean = network(volume)[0, TARGET]
    # captum's first axis runs fastest
    starts = itertools.islice(itertools.product(*(range(n) for n in reversed(grid))), len(theirs))
    found = torch.stack([maps[0, 0, x * PATCH, y * PATCH, z * PATCH] for z, y, x in starts])
    gap = (found - (clean - theirs)).abs().max() / clean.abs()
    print(f"Eitel network, {SHAPE}, patch {PATCH}: {total} windows, libraries stopped after {windows}")
    for name, batch in libraries:
        print(f"  {name}, {batch} at once: {spread([1e3 * s for s in seconds[name, batch]])} ms a window")
    print(
        f"  ours: {spread([1e3 * s for s in own])} ms a window, {statistics.median(own) * total:.2f} s in all"
    )
    for name in dict.fromkeys(name for name, _ in libraries):
        best = min(
            (key for key in libraries if key[0] == name), key=lambda key: statistics.median(seconds[key])
        )
        ratios = [a / b for a, b in zip(seconds[best], own, strict=True)]
        print(f"  {name} at its best ({best[1]} at once) / ours: {spread(ratios)}")
    print(f"  largest difference from captum's windows, relative to the output: {gap:.1e}")
    assert gap < 1e-5


def single_voxels(repeats):
    network = trained_like(eitel_cnn(1, 2, SHAPE))
    volume = torch.rand(1, 1, *SHAPE, generator=torch.Generator().manual_seed(0))
    baseline = volume.clone()
    baseline[:, :, 45:47] = 0  # elsewhere hiding changes nothing, and takes no time
    hidden = 2 * SHAPE[1] * SHAPE[2]
    own = [
        ours(network, volume, patch=1, baseline=baseline, algorithm="incremental")[0] for _ in range(repeats)
    ]
    each = [1e3 * took / hidden for took in own]
    print(f"voxel by voxel, {hidden} voxels: {spread(each)} ms a voxel")


def resnets(repeats):
    images = torch.rand(1, 1, 128, 128, generator=torch.Generator().manual_seed(0))
    for name in ("resnet18", "resnet50"):
        network = trained_like(build_network(name))
        times = {"incremental": [], "full": [], "auto": []}
        maps = {}
        for _, (algorithm, own) in itertools.product(range(repeats), times.items()):
            took, maps[algorithm] = ours(network, images, patch=8, stride=4, algorithm=algorithm)
            own.append(took)
        gap = (maps["incremental"] - maps["full"]).abs().max() / maps["full"].abs().max()
        ratios = [a / b for a, b in zip(times["full"], times["incremental"], strict=True)]
        print(f"{name}, 128 x 128, patch 8, stride 4: full passes {spread(times['full'])} s")
        print(f"  incremental {spread(times['incremental'])} s, auto {spread(times['auto'])} s")
        print(f"  full / incremental: {spread(ratios)}, largest difference {gap:.1e} of the map's maximum")


def main():
    logging.basicConfig(format="%(message)s")
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--windows", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--skip-monai", action="store_true")
    options = parser.parse_args()
    print(f"{torch.get_num_threads()} threads")
    eitel(options.windows, options.repeats, not options.skip_monai)
    single_voxels(options.repeats)
    resnets(options.repeats)


if __name__ == "__main__":
    main()
