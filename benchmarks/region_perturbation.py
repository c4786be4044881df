"""Eight maps, 4 x 4 windows perturbed one after the other: ours against Quantus and the usual loop.

ResNet-50, one channel, 128 x 128. All get the same maps and the same noise, and must return the same outputs after
each of the 16 steps. Quantus: `RegionPerturbation`, the score of a class. Loop: method by method, as iNNvestigate
does: every step perturbs all windows so far anew and asks the network about all images. Ours: one call, on the network
as `Network` prepares it, in float32 and in bf16. All run in turn in this process, several times. How much one call
saves depends on how much the maps agree, so the evaluations are printed; on a busy machine trust the processor time.

    python benchmarks/region_perturbation.py
    python benchmarks/region_perturbation.py --images 2 --repeats 1
"""

import argparse
import contextlib
import io
import statistics
import time
import warnings

import numpy as np
import torch

with contextlib.redirect_stdout(io.StringIO()):
    import quantus

from xaitools.attribution import attribute
from xaitools.evaluation import perturbed_images, region_perturbation
from xaitools.models import Network, build_network
from xaitools.phantoms import chest_slices

METHODS = [
    "gradient",
    "gradient+smoothgrad",
    "gradient+smoothgrad_squared",
    "integrated_gradients[black]",
    "integrated_gradients[black+white]",
    "deconvolution",
    "deconvolution+smoothgrad",
    "deconvolution+smoothgrad_squared",
]
SIDE, SIZE, TARGET = 4, 128, 1
WINDOW = SIZE // SIDE


def example(n_images):
    """A network, images, and their maps: with few steps and noisy copies, as only their order matters here."""
    images = chest_slices(n_images, size=SIZE, seed=0, progress=False).images
    model = build_network("resnet50").eval()
    maps = attribute(model, images, TARGET, methods=METHODS, steps=5, draws=3, progress=False)
    return model, images, {name: values.abs().numpy() for name, values in maps.items()}


def by_quantus(model, images, maps, noisy):
    pixels, filler = images.numpy(), noisy.numpy().reshape(len(images), -1)
    rows = np.arange(len(images))[:, None]

    def perturb(arr, indices, **_):
        changed = arr.copy()
        changed[rows, indices] = filler[rows, indices]
        return changed

    metric = quantus.RegionPerturbation(
        patch_size=WINDOW,
        regions_evaluation=SIDE**2,
        normalise=False,
        perturb_func=perturb,
        disable_warnings=True,
        display_progressbar=False,
    )
    with torch.no_grad():
        start = model(images)[:, TARGET].numpy()
    outputs = {}
    for name, values in maps.items():
        lost = metric(
            model=model,
            x_batch=pixels,
            y_batch=np.full(len(pixels), TARGET),
            a_batch=values,
            softmax=False,
            channel_first=True,
        )
        outputs[name] = np.column_stack([start, start[:, None] - np.array(lost)])
    return outputs


def by_loop(model, images, maps, noisy):
    outputs = {}
    for name, values in maps.items():
        means = torch.nn.functional.avg_pool2d(torch.from_numpy(values), WINDOW).flatten(1)
        orders = means.argsort(dim=1, descending=True)
        steps = []
        for step in range(SIDE**2 + 1):
            perturbed = images.clone()
            for image, filler, order in zip(perturbed, noisy, orders, strict=True):
                for window in order[:step].tolist():
                    top, left = window // SIDE * WINDOW, window % SIDE * WINDOW
                    place = (slice(None), slice(top, top + WINDOW), slice(left, left + WINDOW))
                    image[place] = filler[place]
            with torch.no_grad():
                steps.append(torch.cat([model(batch)[:, TARGET] for batch in perturbed.split(32)]).numpy())
        outputs[name] = np.stack(steps, axis=1)
    return outputs


def ours(quick, images, maps):
    def predict(batch):
        with torch.inference_mode():
            return quick(batch.contiguous(memory_format=torch.channels_last))

    curves = region_perturbation(predict, images, maps, TARGET, controls=False, progress=False)
    return {name: curves.outputs[name, "most"] for name in maps}, curves.n_evaluations


def timed(function):
    wall, processor = time.perf_counter(), time.process_time()
    result = function()
    return time.perf_counter() - wall, time.process_time() - processor, result


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    warnings.simplefilter("ignore")

    model, images, maps = example(options.images)
    noisy = torch.stack(
        [perturbed_images(own, own[0], windows=(1, 1), index=i)[1] for i, own in enumerate(images)]
    )
    quick, rounded = (Network(model, images, precision).quick for precision in ("float32", "bf16"))
    ways = {
        "Quantus": lambda: (by_quantus(model, images, maps, noisy), None),
        "loop": lambda: (by_loop(model, images, maps, noisy), None),
        "ours": lambda: ours(quick, images, maps),
        "ours, bf16": lambda: ours(rounded, images, maps),
    }
    times = {name: [] for name in ways}
    outputs, evaluations = {}, {}
    for _ in range(options.repeats):
        for name, way in ways.items():
            wall, processor, (outputs[name], evaluations[name]) = timed(way)
            times[name].append((wall, processor))

    n = len(images)
    asked = n * len(maps) * (SIDE**2 + 1)
    print(f"{n} images, {len(maps)} maps, {torch.get_num_threads()} threads, {options.repeats} runs in turn")
    print(f"evaluations: {asked} one by one, {evaluations['ours']} shared")
    for name, runs in times.items():
        wall, processor = zip(*runs, strict=True)
        print(
            f"{name:12s}{statistics.median(wall):8.2f} s ({min(wall):.2f} to {max(wall):.2f}), "
            f"processor time {statistics.median(processor):.2f} s"
        )
    reach = max(np.ptp(values) for values in outputs["loop"].values())
    for name in ("ours", "ours, bf16"):
        for other in ("Quantus", "loop"):
            ratios = [theirs[0] / own[0] for theirs, own in zip(times[other], times[name], strict=True)]
            processor = statistics.median(t[1] for t in times[other]) / statistics.median(
                t[1] for t in times[name]
            )
            off = max(np.abs(outputs[name][key] - outputs[other][key]).max() for key in maps)
            print(
                f"{name}: {statistics.median(ratios):.2f} times faster than {other} "
                f"({min(ratios):.2f} to {max(ratios):.2f}), by processor time {processor:.2f}; "
                f"largest difference {off / reach:.1e} of the curves' range"
            )


if __name__ == "__main__":
    main()
