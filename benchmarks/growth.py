"""How time and peak memory grow with images, noisy copies, path steps, voxels and regions, doubled four times.

Every size runs in a process of its own, forked when all is loaded: once for what it adds to the memory at its peak,
once more for its time. The exponent is that of the last two doublings, where what costs the same for any size weighs
least; 1 is linear. A picture of each is written beside the rows.

    python benchmarks/growth.py
"""

import math
import multiprocessing
from collections.abc import Callable
from functools import cache, partial

import numpy as np
import torch
from _harness import Bench, Size, added_memory, processor_time

from xaitools.atlas import Atlas, region_table
from xaitools.attribution import attribute
from xaitools.models import build_network

DOUBLINGS = 4
METHODS = ["integrated_gradients[black]", "gradient+smoothgrad", "gradient+smoothgrad_squared"]
AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])


@cache
def network(name="resnet10", shape=()):
    return build_network(name, input_size=shape).eval()


def maps(images=1, draws=4, steps=4, methods=METHODS):
    """Maps of random slices."""
    values = torch.rand(images, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    return partial(
        attribute, network(), values, 1, methods, steps=steps, draws=draws, batch_size=4, progress=False
    )


def volume(length):
    """A gradient and an occlusion of a volume of 32 x 32 x `length` voxels."""
    shape = (32, 32, length)
    values = torch.rand(1, 1, *shape, generator=torch.Generator().manual_seed(0))
    net = network("eitel_cnn_small", shape)
    return partial(attribute, net, values, 1, ["gradient", "occlusion[4]"], progress=False)


def regions(count):
    """Tables of eight volumes in `count` regions."""
    rng = np.random.default_rng(0)
    labels = (1 + np.arange(64**3) * count // 64**3).reshape(64, 64, 64).astype(np.int32)
    atlas = Atlas(labels, AFFINE, {index: f"region {index}" for index in range(1, count + 1)})
    return partial(region_table, rng.standard_normal((8, 64, 64, 64), dtype=np.float32), atlas, affine=AFFINE)


QUANTITIES: dict[str, tuple[int, int, Callable[[int], Callable]]] = {
    "images": (1, 1, lambda n: maps(images=n)),
    "draws": (8, 2, lambda n: maps(draws=n, methods=METHODS[1:])),
    "steps": (8, 2, lambda n: maps(steps=n, methods=METHODS[:1])),
    "voxels": (32, 16, volume),
    "regions": (32, 8, regions),
}
"""The smallest size in full and with --quick, and what to do with a size."""


def point(prepare, size, channel):
    torch.set_num_threads(1)
    work = prepare(size)
    memory = added_memory(work)
    start = processor_time()
    work()
    channel.send((processor_time() - start, memory))


def measured(prepare, size):
    """Processor seconds and MiB of one size."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=point, args=(prepare, size, sender))
    process.start()
    sender.close()
    try:
        found = receiver.recv()
    except EOFError:
        raise SystemExit(f"the process of size {size} ended without a result") from None
    process.join()
    return found


def grow(bench, name):
    full, quick, prepare = QUANTITIES[name]
    first = quick if bench.quick else full
    sizes = [first << doubling for doubling in range(bench.doublings + 1)]
    turns = [[measured(prepare, size) for size in sizes] for _ in range(bench.repeats)]
    seconds = [min(turn[index][0] for turn in turns) for index in range(len(sizes))]
    memory = [max(turn[index][1] for turn in turns) for index in range(len(sizes))]
    for kind, values, unit in (("time", seconds, "s"), ("memory", memory, "MiB")):
        points = {f"{size}": float(f"{value:.3g}") for size, value in zip(sizes, values, strict=True)}
        bench.figure(
            [exponent(sizes, values)], "exponent", name=kind, setting=f"{name}; {unit}", points=points
        )
    if bench.folder and not bench.quick:
        picture(name, sizes, seconds, memory).write_image(bench.folder / f"growth_{name}.svg")


def exponent(sizes, values):
    """Slope of the logarithms over the last two doublings."""
    last = [(math.log(size), math.log(max(value, 1e-9))) for size, value in zip(sizes, values, strict=True)][
        -3:
    ]
    return (last[-1][1] - last[0][1]) / (last[-1][0] - last[0][0])


def picture(name, sizes, seconds, memory):
    from plotly.subplots import make_subplots

    figure = make_subplots(cols=2, subplot_titles=("processor time, s", "memory added at the peak, MiB"))
    for column, values in enumerate((seconds, memory), start=1):
        linear = [values[-1] * size / sizes[-1] for size in sizes]
        figure.add_scatter(x=sizes, y=values, row=1, col=column, line_color="#1f5fa8", showlegend=False)
        figure.add_scatter(
            x=sizes,
            y=linear,
            row=1,
            col=column,
            line={"color": "#999", "dash": "dot"},
            mode="lines",
            showlegend=False,
        )
    figure.update_xaxes(type="log", tickvals=sizes, title=name)
    figure.update_yaxes(type="log")
    return figure.update_layout(
        width=720, height=280, margin={"l": 50, "r": 20, "t": 40, "b": 50}, template="simple_white"
    )


if __name__ == "__main__":
    bench = Bench(
        __doc__,
        repeats=1,
        doublings=Size(DOUBLINGS, quick=2, least=2, help="how often a size is doubled"),
    )
    workloads = {name: partial(grow, name=name) for name in QUANTITIES}
    bench.run({"regions": workloads["regions"]} if bench.quick and not bench.options.workloads else workloads)
