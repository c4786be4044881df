"""Grad-CAM of many volumes and layers: ours in one pass against MONAI's `GradCAM`, one volume and layer at a time.

MONAI's class takes one target class for a batch and one layer an instance, and its hooks stay, so it is used as its
examples do: an instance a layer, a call a volume. Both maps are compared, MONAI's before it is scaled to 0 to 1.

    python benchmarks/grad_cam.py
"""

from functools import partial

import torch
from _harness import Bench, Size, largest_difference

from xaitools.attribution import attribute
from xaitools.models import build_network

TARGET = 1
LAYERS = ("6", "10", "14")


def by_monai(model, images):
    """Maps (n, 1, *spatial) by layer; nothing is scaled, and cells are interpolated as ours are."""
    from monai.visualize import GradCAM

    found = {}
    for layer in LAYERS:
        explain = GradCAM(nn_module=model, target_layers=layer, postprocessing=lambda maps: maps)
        cells = [explain.compute_map(one[None], class_idx=TARGET) for one in images]
        found[layer] = torch.nn.functional.interpolate(
            torch.cat(cells), size=images.shape[2:], mode="trilinear", align_corners=False
        ).detach()
    return found


def by_ours(model, images):
    names = [f"grad_cam[{layer}]" for layer in LAYERS]
    maps = attribute(model, images, TARGET, names, batch_size=len(images), progress=False)
    return {layer: maps[name] for layer, name in zip(LAYERS, names, strict=True)}


def layers(bench):
    shape = (46, 55, 46) if bench.size == 46 else (bench.size,) * 3
    torch.manual_seed(0)
    images = torch.rand(bench.images, 1, *shape)
    model = build_network("eitel_cnn_small", input_size=shape).eval()
    ways = {"MONAI": partial(by_monai, model, images)} if bench.has("monai") else {}
    turns = bench.in_turn(ways | {"ours": partial(by_ours, model, images)})
    agreement = ""
    if theirs := turns.results.get("MONAI"):
        off = max(largest_difference(turns.results["ours"][layer], theirs[layer]) for layer in LAYERS)
        assert off < 1e-4, off
        agreement = f"{off:.0e}"
    setting = f"{bench.images} volumes of {' x '.join(map(str, shape))}, {len(LAYERS)} layers"
    bench.ratio(turns, "MONAI", setting=setting, agreement=agreement)


if __name__ == "__main__":
    Bench(
        __doc__,
        images=Size(16, quick=2, help="volumes"),
        size=Size(46, quick=16, least=16, help="voxels of a side"),
    ).run({"layers": layers})
