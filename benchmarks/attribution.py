"""The CT study's 30 maps of one slice: one `attribute` call against captum and saliency, method by method.

ResNet-50, one channel, 128 x 128, 50 path steps, 25 noisy copies. Both run in turn in this process and their maps
are compared: deterministic ones must be equal to 1e-5 of the map's maximum; stochastic ones must differ from
captum's as much as they differ between two seeds of ours.

    python benchmarks/attribution.py             # float32 and bf16; about half an hour on two cores
    python benchmarks/attribution.py --repeats 1 --draws 4
"""

import argparse
import statistics
import subprocess
import sys
import time
import warnings

import captum.attr as ca
import saliency.core as saliency
import torch

from xaitools.attribution import attribute, combine
from xaitools.data import chest_slices
from xaitools.models.resnet import resnet

BASES = [
    "gradient",
    "integrated_gradients[black]",
    "integrated_gradients[black+white]",
    "expected_gradients",
    "deconvolution",
]
SMOOTHINGS = ["", "smoothgrad", "smoothgrad_squared"]
METHODS = combine(BASES, SMOOTHINGS, ["", "xrai"])
NOISE = 0.15


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
        batch = draws if "n_steps" not in arguments else 1
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
        return run(ca.IntegratedGradients(model), n_steps=steps, baselines=0.0)
    if smoothing:
        # The mean of the two baselines comes before the square: one captum method that does both.
        return run(BlackAndWhite(model), n_steps=steps)
    return BlackAndWhite(model).attribute(image, target=1, n_steps=steps)


class BlackAndWhite(ca.IntegratedGradients):
    """captum's integrated gradients, mean of black and white."""

    def attribute(self, inputs, target=None, n_steps=50):
        run = super().attribute
        return (run(inputs, 0.0, target, n_steps=n_steps) + run(inputs, 1.0, target, n_steps=n_steps)) / 2


def captum_table(model, image, references, steps, draws):
    grey = image[0, 0].numpy()
    maps = {}
    for base in BASES:
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


def is_stochastic(name):
    return "smoothgrad" in name or "expected" in name


def compare(captum_maps, ours, other_seed):
    """Print how the two tables agree; raise AssertionError where they do not."""
    worst, spreads = 0.0, []
    for name, reference in captum_maps.items():
        if is_stochastic(name):
            spreads.append((distance(ours[name], reference) / distance(ours[name], other_seed[name]), name))
        else:
            worst = max(worst, float((ours[name] - reference).abs().max() / reference.abs().max()))
    print(f"  deterministic maps: largest difference {worst:.1e} of the maximum")
    low, high = min(spreads), max(spreads)
    print(
        f"  stochastic maps: distance to captum / distance between two of our seeds {low[0]:.2f} to {high[0]:.2f}, "
        f"median {statistics.median(value for value, _ in spreads):.2f}"
    )
    assert worst < 1e-5, worst
    assert low[0] > 0.5, low
    assert high[0] < 2, high


def setting():
    torch.manual_seed(0)
    samples = chest_slices(51, size=128, seed=0)
    return resnet("resnet50").eval(), samples.images[:1], samples.images[1:]


def peak_memory(which):
    """Peak resident MiB of one table in a process of its own."""
    code = (
        "import resource, sys; sys.path.insert(0, 'benchmarks'); import attribution as b; import warnings;"
        "warnings.simplefilter('ignore'); s = b.setting();"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss;"
        f"b.{which}(*s, 50, 2);"
        "print(before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    output = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout.split()
    return [int(value) // 1024 for value in output[-2:]]


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
            compare(captum_maps, ours, our_table(model, image, references, steps, draws, seed=1000))
    summary("float32", ratios)
    summary("bf16", ratios_bf16)
    for which in ("captum_table", "our_table"):
        before, peak = peak_memory(which)
        print(
            f"peak memory of {which}: {peak} MiB ({peak - before} MiB above the loaded libraries and network)"
        )


if __name__ == "__main__":
    main()
