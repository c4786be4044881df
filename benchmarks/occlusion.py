"""Occlusion from what changes in each layer, against captum, MONAI and full passes.

A brain of 91 x 109 x 91 voxels and the network of Eitel and Ritter, patches of 5 x 5 x 5 side by side: captum's
`Occlusion` with each of several `perturbations_per_eval`, and MONAI's `OcclusionSensitivity` with each of several
`n_batch`, are stopped after `--windows` windows, and their time for a window is taken for all windows. Ours computes
them all, with tracing, folding and checks. Then voxel by voxel, a slab of `--slab-2mm` or `--slab-1mm` slices of a
brain (hiding what is outside of a brain changes nothing, and takes no time). Then torchvision's ResNets, 224 x 224,
patches of 16 x 16 at a stride of 8, against batched full passes of the same folded, channels-last network. The
outputs of common windows are compared.

    python benchmarks/occlusion.py
    python benchmarks/occlusion.py --workloads patches --windows 40
"""

import contextlib
import itertools
from functools import partial

import torch
from _harness import Bench, Size, largest_difference, processor_time
from captum.attr import Occlusion
from torch import nn

from xaitools.attribution import occlusion
from xaitools.models import build_network
from xaitools.phantoms import synthetic_brains

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
        self.times.append(processor_time())
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
    return occlusion(network, images, torch.tensor([TARGET]), progress=False, **options)


def brain_network(bench, shape):
    return trained_like(
        build_network("eitel_cnn_small" if bench.quick else "eitel_cnn", input_size=shape)
    ).requires_grad_(False)


def patches(bench):
    shape = (16, 20, 16) if bench.quick else (91, 109, 91)
    network = brain_network(bench, shape)
    volume = torch.rand(1, 1, *shape, generator=torch.Generator().manual_seed(0))
    grid = [-(-n // PATCH) for n in shape]
    total = grid[0] * grid[1] * grid[2]
    peers = {"captum": captum_windows} | (
        {} if bench.options.skip_monai or not bench.has("monai") else {"MONAI": monai_windows}
    )
    meters = {peer: [] for peer in peers}
    best = {}

    def metered(peer):
        """One turn; the first settles how many windows at once suit the library best."""
        tried = {}
        for batch in (best[peer],) if peer in best else BATCHES:
            tried[batch] = peers[peer](network, volume, bench.windows, batch)
        best[peer] = min(tried, key=lambda batch: tried[batch].seconds)
        meters[peer].append(tried[best[peer]])

    hide = partial(ours, network, volume, patch=PATCH, algorithm="incremental")
    turns = bench.in_turn({peer: partial(metered, peer) for peer in peers} | {"ours": hide})
    theirs = torch.cat(meters["captum"][0].outputs)
    with torch.no_grad():
        clean = network(volume)[0, TARGET]
    # captum's first axis runs fastest
    starts = itertools.islice(itertools.product(*(range(n) for n in reversed(grid))), len(theirs))
    maps = turns.results["ours"]
    found = torch.stack([maps[0, 0, x * PATCH, y * PATCH, z * PATCH] for z, y, x in starts])
    off = float((found - (clean - theirs)).abs().max() / clean.abs())
    assert off < 1e-5, off
    own = [took / total for took in turns.processor["ours"]]
    for peer, turn in meters.items():
        seconds = [meter.seconds for meter in turn]
        bench.figure(
            [a / b for a, b in zip(seconds, own, strict=True)],
            "x",
            name=peer,
            peer=peer,
            setting=f"{' x '.join(map(str, shape))}, {total} windows, the library stopped after {bench.windows}, "
            f"{best[peer]} at once",
            agreement=f"{off:.0e} of the output" if peer == "captum" else "",
            processor_ms_a_window={peer: 1e3 * min(seconds), "ours": 1e3 * min(own)},
            load=turns.load,
        )


def voxels(bench, spacing, slab):
    """One voxel after the other, in the middle slices of a synthetic brain."""
    image = torch.as_tensor(synthetic_brains(1, spacing=spacing, seed=0, progress=False).images[:])
    network = brain_network(bench, image.shape[2:])
    baseline = image.clone()
    start = (image.shape[2] - slab) // 2
    baseline[:, :, max(start, 0) : start + slab] = 0  # elsewhere hiding changes nothing, and takes no time
    hidden = int((baseline != image).sum())
    hide = partial(ours, network, image, patch=1, baseline=baseline, algorithm="incremental")
    turns = bench.in_turn({"ours": hide}, memory={})
    bench.figure(
        turns.wall["ours"],
        "s",
        setting=f"{' x '.join(map(str, image.shape[2:]))}, {hidden} voxels of the brain hidden",
        processor_seconds={"ours": turns.processor["ours"]},
        memory=turns.memory,
        load=turns.load,
    )


def slices(bench, name):
    """Against batched full passes of the same prepared network."""
    images = torch.rand(1, 1, bench.size, bench.size, generator=torch.Generator().manual_seed(0))
    network = trained_like(build_network("resnet10" if bench.quick else name))
    hide = partial(ours, network, images, patch=16, stride=8)
    turns = bench.in_turn(
        {
            "full passes": partial(hide, algorithm="full"),
            "incremental": partial(hide, algorithm="incremental"),
            "ours": partial(hide, algorithm="auto"),
        }
    )
    off = largest_difference(turns.results["ours"], turns.results["full passes"])
    assert off < 1e-2, off
    for way in ("ours", "incremental"):
        bench.ratio(
            turns,
            "full passes",
            way,
            name=way,
            setting=f"{name}, {bench.size} x {bench.size}, patch 16, stride 8",
            agreement=f"{off:.0e} of the maximum",
        )


if __name__ == "__main__":
    bench = Bench(
        __doc__,
        flags={"--skip-monai": {"action": "store_true", "help": "captum alone, whose import is the quicker"}},
        windows=Size(
            40, quick=16, least=16, help="windows of the other libraries: two calls of the largest batch"
        ),
        slab_2mm=Size(91, quick=1, help="slices of 2 mm, voxel by voxel"),
        slab_1mm=Size(182, quick=1, help="slices of 1 mm, voxel by voxel"),
        size=Size(224, quick=32, least=32, help="pixels of a side, for the ResNets"),
    )
    workloads = {
        "patches": patches,
        "voxels of 2 mm": partial(voxels, spacing=12 if bench.quick else 2, slab=bench.slab_2mm),
        "voxels of 1 mm": partial(voxels, spacing=1, slab=bench.slab_1mm),
        "resnet18": partial(slices, name="resnet18"),
        "resnet50": partial(slices, name="resnet50"),
    }
    if bench.quick and not bench.options.workloads:
        workloads = {name: workloads[name] for name in ("patches", "voxels of 2 mm", "resnet18")}
    bench.run(workloads)
