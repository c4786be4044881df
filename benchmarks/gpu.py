"""CT maps, occlusion of a brain and perturbation curves on a GPU, each with its distance from the roofline.

Every operation of a run is counted on its way through PyTorch: its floating-point operations, and the bytes of the
tensors that it reads and writes. The roofline of the run is the sum over operations of the longer of the two, at the
speed of a large matrix product and of a large copy, both measured here first. Batch sizes come from the free memory.
Without CUDA there is nothing to measure: --quick says so and succeeds, else the script fails.

    python benchmarks/gpu.py
    python benchmarks/gpu.py --device cpu --workloads maps --draws 2 --steps 2 --size 32    # tries the script itself
"""

import sys
import time
from functools import partial

import torch
from _harness import Bench, Size
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from xaitools.attribution import attribute, combine
from xaitools.evaluation import region_perturbation
from xaitools.models import Network, build_network
from xaitools.phantoms import chest_slices

BASES = (
    "gradient",
    "integrated_gradients[black]",
    "integrated_gradients[black+white]",
    "expected_gradients",
    "deconvolution",
)
SMOOTHINGS = ("", "smoothgrad", "smoothgrad_squared")
MATRIX = {"cuda": 8192, "cpu": 512}
SHARE = 0.6  # of the free memory


class Counter(TorchDispatchMode):
    """Operations of a run: floating-point operations, bytes moved, and seconds at least, each operation by itself."""

    def __init__(self, flops_a_second, bytes_a_second):
        super().__init__()
        self.speeds = flops_a_second, bytes_a_second
        self.flops = self.bytes = 0
        self.seconds = 0.0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        count = flop_registry.get(operation.overloadpacket)
        if count is None:  # inference mode hands over operations that are made of others
            with self:
                out = operation.decompose(*args, **kwargs)
            if out is not NotImplemented:
                return out
        out = operation(*args, **kwargs)
        flops = count(*args, **kwargs, out_val=out) if count else 0
        moved = 0 if operation.is_view else _bytes(args) + _bytes(out)
        self.flops += flops
        self.bytes += moved
        self.seconds += max(flops / self.speeds[0], moved / self.speeds[1])
        return out


def _bytes(values):
    return sum(
        leaf.numel() * leaf.element_size() for leaf in tree_leaves(values) if isinstance(leaf, torch.Tensor)
    )


def wait(device):
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def fastest(work, device):
    """Seconds of the quickest of five."""
    times = []
    for _ in range(6):
        wait(device)
        start = time.perf_counter()
        work()
        wait(device)
        times.append(time.perf_counter() - start)
    return min(times[1:])


def speeds(device, precision):
    """Floating-point operations and bytes a second that this device reaches."""
    side = MATRIX[device.type]
    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    matrix = torch.randn(side, side, device=device, dtype=kind)
    block, target = (torch.empty(16 * side * side // 4, device=device) for _ in range(2))
    flops = 2 * side**3 / fastest(lambda: matrix @ matrix, device)
    moved = 2 * block.numel() * block.element_size() / fastest(lambda: target.copy_(block), device)
    return flops, moved


def batch_size(model, image, target):
    """Images of a gradient pass that fill a share of the free memory; a power of two, 1024 at most."""
    device = image.device
    if device.type != "cuda":
        return 16
    used = []
    for count in (1, 9):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        images = image.expand(count, *image.shape[1:]).clone().requires_grad_()
        model(images)[:, target].sum().backward()
        used.append(torch.cuda.max_memory_allocated(device))
    free, _ = torch.cuda.mem_get_info(device)
    fitting = int(SHARE * free / max((used[1] - used[0]) / 8, 1))
    return min(1 << max(fitting.bit_length() - 1, 0), 1024)


def against_roofline(bench, work, setting, precision="float32", name=""):
    """Time a run, count another, and tell the share of the time that the roofline asks for."""
    device = torch.device(bench.options.device)
    work()
    with Counter(*speeds(device, precision)) as counted:
        work()

    def timed():
        work()
        wait(device)

    turns = bench.in_turn({"ours": timed})
    seconds = turns.wall["ours"]
    bench.figure(
        [took / counted.seconds for took in seconds],
        "x",
        name=name,
        setting=setting,
        seconds={"ours": min(seconds), "roofline": counted.seconds},
        counted={"TFLOP": counted.flops / 1e12, "GB": counted.bytes / 1e9},
        speeds={"TFLOP/s": counted.speeds[0] / 1e12, "GB/s": counted.speeds[1] / 1e9},
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
    )


def maps(bench):
    samples = chest_slices(bench.steps + 1, size=bench.size, seed=0, progress=False)
    image, references = (
        samples.images[:1].to(bench.options.device),
        samples.images[1:].to(bench.options.device),
    )
    model = build_network("resnet10" if bench.quick else "resnet50").eval().to(bench.options.device)
    batch = batch_size(model, image, 1)
    for precision in ("float32", "bf16"):
        work = partial(
            attribute,
            model,
            image,
            1,
            combine(BASES, SMOOTHINGS),  # XRAI's regions are made on the processor
            steps=bench.steps,
            draws=bench.draws,
            references=references,
            precision=precision,
            batch_size=batch,
            progress=False,
        )
        setting = (
            f"15 maps, ResNet-50, {bench.size} x {bench.size}, {bench.steps} steps, {bench.draws} draws, "
        )
        against_roofline(bench, work, setting + f"batches of {batch}", precision, name=precision)


def occlusion(bench):
    device = bench.options.device
    shape = (91, 109, 91) if device == "cuda" else (32, 32, 32)
    model = (
        build_network("eitel_cnn" if device == "cuda" else "eitel_cnn_small", input_size=shape)
        .eval()
        .to(device)
    )
    volume = torch.rand(1, 1, *shape).to(device)
    work = partial(attribute, model, volume, 1, ["occlusion[5]"], progress=False)
    against_roofline(bench, work, f"{' x '.join(map(str, shape))}, patch 5")


def curves(bench):
    device = bench.options.device
    images = chest_slices(bench.images, size=bench.size, seed=0, progress=False).images
    model = build_network("resnet10" if bench.quick else "resnet50", n_outputs=1).eval().to(device)
    batch = batch_size(model, images[:1].to(device), 0)
    values = {f"{index}": torch.rand(images.shape) for index in range(8)}
    prepared = Network(model, images.to(device)).quick

    def ask(some):
        with torch.inference_mode():
            return prepared(some.to(device).contiguous(memory_format=torch.channels_last)).cpu()

    work = partial(
        region_perturbation, ask, images, values, None, controls=False, batch_size=batch, progress=False
    )
    against_roofline(bench, work, f"{bench.images} images, 8 maps, ResNet-50, batches of {batch}")


if __name__ == "__main__":
    bench = Bench(
        __doc__,
        flags={
            "--device": {"default": "cuda", "choices": ["cuda", "cpu"], "help": "cpu tries the script (cuda)"}
        },
        size=Size(128, quick=32, least=32, help="pixels of a side"),
        steps=Size(50, quick=2, least=2, help="path steps"),
        draws=Size(25, quick=2, least=2, help="noisy copies"),
        images=Size(8, quick=1, help="images of the curves"),
    )
    if bench.options.device == "cuda" and not torch.cuda.is_available():
        print("This machine has no CUDA device (torch.cuda.is_available() is False): nothing was measured.")
        sys.exit(0 if bench.quick else 1)
    bench.run({"maps": maps, "occlusion": occlusion, "curves": curves})
