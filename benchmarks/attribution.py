"""The CT study's 30 maps of one slice: one `attribute` call against captum and saliency, method by method.

ResNet-50, one channel, 128 x 128, 50 path steps, 25 noisy copies. Both run in turn in this process and their maps
are compared: deterministic ones must be equal to 1e-5 of the map's maximum, stochastic ones must differ from captum's
as much as they differ between two seeds of ours. A network of ReLUs has a gradient that jumps, so deterministic maps
are compared in float64, as in float32 either library is off wherever rounding turns a ReLU on; and the slice gets a
little noise, as on constant areas max pooling has ties, where no gradient is the right one.

    python benchmarks/attribution.py             # float32 and bf16; about half an hour on two cores
    python benchmarks/attribution.py --repeats 1 --draws 4
"""

import argparse
import copy
import statistics
import subprocess
import sys
import time
import warnings
from functools import partial
from pathlib import Path

import captum.attr as ca
import saliency.core as saliency
import torch
from captum.log import log_usage

from xaitools.attribution import attribute, combine, xrai
from xaitools.models import build_network
from xaitools.phantoms import chest_slices

SMOOTHINGS = ["", "smoothgrad", "smoothgrad_squared"]
CT_BASES = (
    "gradient",
    "integrated_gradients[black]",
    "integrated_gradients[black+white]",
    "expected_gradients",
    "deconvolution",
)
"""The five methods of the CT study."""
METHODS = combine(CT_BASES, SMOOTHINGS, ["", "xrai"])
NOISE = 0.15
BATCH = 16  # for both; GradientShap has no such option and takes all samples at once


def captum_map(model, image, references, base, smoothing, steps, draws):
    """One pixel map as captum's documentation says."""
    sd = NOISE * float(image.max() - image.min())
    squared = smoothing == "smoothgrad_squared"

    if base == "expected_gradients":
        shap = ca.GradientShap(model)

        def explain(x):
            return shap.attribute(x, baselines=references, target=1, n_samples=steps, stdevs=0.0)

        if not smoothing:
            return explain(image)
        maps = [explain(image + sd * torch.randn_like(image)) for _ in range(draws)]
        return torch.stack([m**2 if squared else m for m in maps]).mean(0)

    def run(method, **arguments):
        if not smoothing:
            return method.attribute(image, target=1, **arguments)
        kind = "smoothgrad_sq" if squared else "smoothgrad"
        batch = min(draws, BATCH) if "n_steps" not in arguments else 1
        return ca.NoiseTunnel(method).attribute(
            image,
            nt_type=kind,
            nt_samples=draws,
            nt_samples_batch_size=batch,
            stdevs=sd,
            target=1,
            **arguments,
        )

    if base == "gradient":
        return run(ca.Saliency(model), abs=False)
    if base == "deconvolution":
        return run(ca.Deconvolution(model))
    if base == "integrated_gradients[black]":
        return run(ca.IntegratedGradients(model), n_steps=steps, baselines=0.0, internal_batch_size=BATCH)
    if smoothing:
        # The mean of the two baselines comes before the square: one captum method that does both.
        return run(BlackAndWhite(model), n_steps=steps)
    return BlackAndWhite(model).attribute(image, target=1, n_steps=steps)


class BlackAndWhite(ca.IntegratedGradients):
    """captum's integrated gradients, mean of black and white."""

    @log_usage()  # NoiseTunnel looks for the function inside this wrapper
    def attribute(self, inputs, target=None, n_steps=50):
        run = partial(super().attribute, target=target, n_steps=n_steps, internal_batch_size=BATCH)
        return (run(inputs, 0.0) + run(inputs, 1.0)) / 2


def captum_table(model, image, references, steps, draws):
    grey = image[0, 0].numpy()
    maps = {}
    for base in CT_BASES:
        for smoothing in SMOOTHINGS:
            suffix = f"+{smoothing}" if smoothing else ""
            pixels = captum_map(model, image, references, base, smoothing, steps, draws).abs().detach()
            maps[f"{base}{suffix}+absolute"] = pixels
            regions = saliency.XRAI().GetMask(grey, None, base_attribution=pixels[0, 0].double().numpy())
            maps[f"{base}{suffix}+absolute@xrai"] = torch.tensor(regions)[None, None]
    return maps


def our_table(model, image, references, steps, draws, precision="float32", seed=0):
    return attribute(
        model,
        image,
        1,
        METHODS,
        steps=steps,
        draws=draws,
        noise_level=NOISE,
        references=references,
        precision=precision,
        seed=seed,
        progress=False,
    )


def timed(function, *arguments, **options):
    start = time.perf_counter()
    result = function(*arguments, **options)
    return time.perf_counter() - start, result


def distance(a, b):
    """Root mean square difference relative to the root mean square of the second map."""
    return float((a - b).double().pow(2).mean().sqrt() / b.double().pow(2).mean().sqrt())


def compare_deterministic(model, image, steps):
    """Both libraries in float64, where no rounding decides whether a ReLU is on; print float32's share beside it."""
    bases = [base for base in CT_BASES if base != "expected_gradients"]
    exact, double = copy.deepcopy(model).double(), image.double()
    ours = attribute(exact, double, 1, bases, steps=steps, progress=False)
    rough = attribute(model, image, 1, bases, steps=steps, progress=False)
    for base in bases:
        reference = captum_map(exact, double, None, base, "", steps, 1).detach()
        difference = largest_difference(ours[base], reference)
        in_float32 = captum_map(model, image, None, base, "", steps, 1).detach()
        print(
            f"  {base}: ours against captum {difference:.1e} of the maximum; "
            f"rounding to float32: ours {largest_difference(rough[base], reference):.1e}, "
            f"captum {largest_difference(in_float32, reference):.1e}"
        )
        assert difference < 1e-5, (base, difference)


def compare_regions(captum_maps, image):
    """Our XRAI on captum's pixel maps against the authors'."""
    worst = 0.0
    for name, reference in captum_maps.items():
        if name.endswith("@xrai"):
            ours = xrai(captum_maps[name.removesuffix("@xrai")].double(), image.double())
            worst = max(worst, largest_difference(ours, reference))
    print(f"  XRAI of captum's maps: ours against saliency {worst:.1e} of the maximum")
    assert worst < 1e-5, worst


def compare_stochastic(captum_maps, ours, other_seed):
    """Our maps must be as far from captum's as from ours with another seed."""
    spreads = [
        distance(ours[name], reference) / distance(ours[name], other_seed[name])
        for name, reference in captum_maps.items()
        if "smoothgrad" in name or "expected" in name
    ]
    print(
        f"  {len(spreads)} stochastic maps: distance to captum / distance between two of our seeds: "
        f"{min(spreads):.2f} to {max(spreads):.2f}, median {statistics.median(spreads):.2f}"
    )
    assert 0.9 < statistics.median(spreads) < 1.1, spreads


def largest_difference(maps, reference):
    return float((maps - reference).abs().max() / reference.abs().max())


def setting():
    torch.manual_seed(0)
    samples = chest_slices(51, size=128, seed=0, progress=False)
    image = samples.images[:1] + 0.02 * torch.rand(1, 1, 128, 128)
    return build_network("resnet50").eval(), image, samples.images[1:]


def peak_memory(which):
    """Resident MiB before and at the peak of one table, in a process of its own (Linux)."""
    code = (
        "import sys; sys.path.insert(0, 'benchmarks'); import attribution as b; import warnings;"
        "warnings.simplefilter('ignore'); s = b.setting(); before = b.resident_peak();"
        f"b.{which}(*s, 50, 2); print(before, b.resident_peak())"
    )
    output = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return [int(value) for value in output.stdout.split()[-2:]]


def resident_peak():
    """Highest resident memory of this process so far, MiB; ru_maxrss would count the parent's."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) // 1024


def summary(name, ratios):
    print(
        f"{name}: {statistics.median(ratios):.2f}x (from {min(ratios):.2f} to {max(ratios):.2f}, {len(ratios)} runs)"
    )


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--draws", type=int, default=25)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    steps, draws = arguments.steps, arguments.draws
    model, image, references = setting()
    our_table(model, image, references, 2, 2)  # warm up
    ratios, ratios_bf16 = [], []
    for seed in range(arguments.repeats):
        slow, captum_maps = timed(captum_table, model, image, references, steps, draws)
        quick, ours = timed(our_table, model, image, references, steps, draws, seed=seed)
        half, _ = timed(our_table, model, image, references, steps, draws, "bf16", seed=seed)
        ratios.append(slow / quick)
        ratios_bf16.append(slow / half)
        print(
            f"run {seed}: captum + saliency {slow:.1f} s, ours {quick:.1f} s, ours in bf16 {half:.1f} s",
            flush=True,
        )
        if seed == 0:
            compare_deterministic(model, image, steps)
            compare_regions(captum_maps, image)
            compare_stochastic(
                captum_maps, ours, our_table(model, image, references, steps, draws, seed=1000)
            )
    summary("float32", ratios)
    summary("bf16", ratios_bf16)
    for which in ("captum_table", "our_table"):
        before, peak = peak_memory(which)
        print(
            f"peak memory of {which}: {peak} MiB ({peak - before} MiB above the loaded libraries and network)"
        )


if __name__ == "__main__":
    main()
