"""Grad-CAM of many volumes and layers: ours in one pass against MONAI's `GradCAM`, one volume and layer at a time.

MONAI's class takes one target class for a batch and one layer an instance, and its hooks stay, so it is used as its
examples do: an instance a layer, a call a volume. Both maps are compared, MONAI's before it is scaled to 0 to 1.

    python benchmarks/grad_cam.py
    python benchmarks/grad_cam.py --quick
"""

import argparse
import statistics
import time

import torch
from monai.visualize import GradCAM

from xaitools.attribution import attribute
from xaitools.models import build_network

TARGET = 1


def by_monai(model, images, layers):
    """Maps (n, 1, *spatial) by layer; nothing is scaled, and cells are interpolated as ours are."""
    found = {}
    for layer in layers:
        explain = GradCAM(nn_module=model, target_layers=layer, postprocessing=lambda maps: maps)
        cells = [explain.compute_map(one[None], class_idx=TARGET) for one in images]
        found[layer] = torch.nn.functional.interpolate(
            torch.cat(cells), size=images.shape[2:], mode="trilinear", align_corners=False
        ).detach()
    return found


def by_ours(model, images, layers):
    maps = attribute(
        model,
        images,
        TARGET,
        [f"grad_cam[{layer}]" for layer in layers],
        batch_size=len(images),
        progress=False,
    )
    return {layer: maps[f"grad_cam[{layer}]"] for layer in layers}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--size", type=int, nargs=3, default=[46, 55, 46])
    parser.add_argument(
        "--layers", nargs="+", default=["6", "10", "14"], help="names of modules of eitel_cnn_small"
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="a few small volumes, once")
    options = parser.parse_args()
    if options.quick:
        options.images, options.size, options.repeats = 4, [16, 16, 16], 1
    torch.manual_seed(0)
    images = torch.rand(options.images, 1, *options.size)
    model = build_network("eitel_cnn_small", input_size=options.size).eval()
    seconds = {"MONAI": [], "ours": []}
    for _ in range(options.repeats):
        for name, explain in (("MONAI", by_monai), ("ours", by_ours)):
            start = time.process_time()
            maps = explain(model, images, options.layers)
            seconds[name].append(time.process_time() - start)
            if name == "MONAI":
                theirs = maps
    difference = max(
        float((theirs[layer] - maps[layer]).abs().max() / maps[layer].abs().max()) for layer in maps
    )
    size = " x ".join(map(str, options.size))
    print(f"{options.images} volumes of {size}, {len(options.layers)} layers")
    print(f"largest difference, as a share of a map's maximum: {difference:.1e}")
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    print(", ".join(f"{name} {value:.2f} s" for name, value in medians.items()), "of processor time")
    print(f"{medians['MONAI'] / medians['ours']:.2f} times as fast")


if __name__ == "__main__":
    main()
