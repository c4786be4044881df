"""XRAI: regions of one slice against `saliency`, given its segments, and the memory that those of a brain take.

In 2D both rank the segments that saliency makes, and their maps must be equal. saliency has no 3D, so of a brain of
2 mm only what ours adds to a process at its peak is told, segments and all.

    python benchmarks/xrai.py
"""

import numpy as np
import torch
from _harness import Bench, Size, added_memory, largest_difference

from xaitools.attribution import Segments, xrai
from xaitools.phantoms import chest_slices, synthetic_brains


def slices(bench):
    image = chest_slices(1, size=bench.size, seed=0, progress=False).images
    pixels = torch.rand(image.shape, generator=torch.Generator().manual_seed(0)).double()
    if not bench.has("saliency"):
        return
    import saliency.core as saliency

    parameters = saliency.XRAIParameters(return_xrai_segments=True)
    grey = image[0, 0].numpy()
    segments = saliency.xrai._get_segments_felzenszwalb(grey)[:: 8 if bench.quick else 1]
    ours = [Segments(segments)]

    def theirs():
        return saliency.XRAI().GetMask(
            grey, None, base_attribution=pixels[0, 0].numpy(), segments=segments, extra_parameters=parameters
        )

    ways = {"saliency": theirs, "ours": lambda: xrai(pixels, image.double(), segments=ours)[0, 0].numpy()}
    turns = bench.in_turn(ways)
    off = largest_difference(turns.results["ours"], turns.results["saliency"])
    assert off < 1e-9, off
    bench.ratio(
        turns,
        "saliency",
        setting=f"{bench.size} x {bench.size}, {len(segments)} segments given",
        agreement=f"{off:.0e}",
    )


def brain(bench):
    volume = synthetic_brains(1, spacing=bench.spacing, atrophy=0.3, seed=0, progress=False).images[:]
    maps = torch.as_tensor(np.random.default_rng(0).standard_normal(volume.shape, dtype=np.float32))
    added = added_memory(lambda: xrai(maps, torch.as_tensor(volume)))
    bench.figure([float(added)], "MiB", setting=" x ".join(map(str, volume.shape[2:])))


if __name__ == "__main__":
    Bench(
        __doc__,
        size=Size(512, quick=64, least=32, help="pixels of a side"),
        spacing=Size(2, quick=12, help="mm of a voxel"),
    ).run({"slices": slices, "brain": brain})
