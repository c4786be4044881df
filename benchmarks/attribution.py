"""The CT study's 30 maps of one slice: one `attribute` call against captum and saliency, method by method.

ResNet-50, one channel, 128 x 128, 50 path steps, 25 noisy copies; captum with the batch size that is quickest here,
found by trial. Both run in turn in this process and their maps are compared: deterministic ones must be equal to
1e-5 of the map's maximum, stochastic ones must differ from captum's as much as they differ between two seeds of
ours. A network of ReLUs has a gradient that jumps, so deterministic maps are compared in float64, as in float32
either library is off wherever rounding turns a ReLU on; and the slice gets a little noise, as on constant areas max
pooling has ties, where no gradient is the right one.

    python benchmarks/attribution.py             # float32 and bf16; about an hour on two cores
    python benchmarks/attribution.py --repeats 1 --draws 4
"""

import copy
import statistics
from functools import cached_property, partial

import captum.attr as ca
import torch
from _harness import Bench, Size, largest_difference, tuned
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
NOISE = 0.15
BATCHES = (4, 8, 16, 32)  # tried for captum; GradientShap has no such option and takes all samples at once


class BlackAndWhite(ca.IntegratedGradients):
    """captum's integrated gradients, mean of black and white."""

    @log_usage()  # NoiseTunnel looks for the function inside this wrapper
    def attribute(self, inputs, target=None, n_steps=50, internal_batch_size=None):
        run = partial(
            super().attribute, target=target, n_steps=n_steps, internal_batch_size=internal_batch_size
        )
        return (run(inputs, 0.0) + run(inputs, 1.0)) / 2


class Slice:
    """A slice, a network, and the maps of both libraries."""

    def __init__(self, bench):
        torch.manual_seed(0)
        size, self.steps, self.draws = bench.size, bench.steps, bench.draws
        samples = chest_slices(self.steps + 1, size=size, seed=0, progress=False)
        self.image = samples.images[:1] + 0.02 * torch.rand(1, 1, size, size)
        self.references = samples.images[1:]
        self.model = build_network("resnet10" if bench.quick else "resnet50").eval()
        self.bases, self.smoothings = (
            (CT_BASES[:1], SMOOTHINGS[:2]) if bench.quick else (CT_BASES, SMOOTHINGS)
        )

    @cached_property
    def batch(self):
        """captum's quickest."""
        explain = partial(ca.IntegratedGradients(self.model).attribute, self.image, target=1, n_steps=32)
        return tuned(lambda batch: explain(internal_batch_size=batch), BATCHES)

    def captum(self):
        import saliency.core as saliency

        grey = self.image[0, 0].numpy()
        maps = {}
        for base in self.bases:
            for smoothing in self.smoothings:
                suffix = f"+{smoothing}" if smoothing else ""
                pixels = self.captum_map(base, smoothing).abs().detach()
                maps[f"{base}{suffix}+absolute"] = pixels
                regions = saliency.XRAI().GetMask(grey, None, base_attribution=pixels[0, 0].double().numpy())
                maps[f"{base}{suffix}+absolute@xrai"] = torch.tensor(regions)[None, None]
        return maps

    def captum_map(self, base, smoothing="", model=None, image=None):
        """One pixel map as captum's documentation says."""
        model = self.model if model is None else model
        image = self.image if image is None else image
        sd = NOISE * float(image.max() - image.min())
        squared = smoothing == "smoothgrad_squared"

        if base == "expected_gradients":
            shap = partial(ca.GradientShap(model).attribute, target=1, n_samples=self.steps, stdevs=0.0)
            if not smoothing:
                return shap(image, baselines=self.references)
            maps = [
                shap(image + sd * torch.randn_like(image), baselines=self.references)
                for _ in range(self.draws)
            ]
            return torch.stack([m**2 if squared else m for m in maps]).mean(0)

        path = {"n_steps": self.steps, "internal_batch_size": self.batch}
        method, arguments = {
            "gradient": (ca.Saliency, {"abs": False}),
            "deconvolution": (ca.Deconvolution, {}),
            "integrated_gradients[black]": (ca.IntegratedGradients, path),
            "integrated_gradients[black+white]": (BlackAndWhite, path),
        }[base]
        if not smoothing:
            return method(model).attribute(image, target=1, **arguments)
        return ca.NoiseTunnel(method(model)).attribute(
            image,
            nt_type="smoothgrad_sq" if squared else "smoothgrad",
            nt_samples=self.draws,
            nt_samples_batch_size=1 if "n_steps" in arguments else min(self.draws, self.batch),
            stdevs=sd,
            target=1,
            **arguments,
        )

    def ours(self, precision="float32", seed=0):
        return attribute(
            self.model,
            self.image,
            1,
            combine(self.bases, self.smoothings, ["", "xrai"]),
            steps=self.steps,
            draws=self.draws,
            noise_level=NOISE,
            references=self.references,
            precision=precision,
            seed=seed,
            progress=False,
        )

    def off_in_double(self):
        """Largest difference of the deterministic maps, both libraries in float64."""
        bases = [base for base in self.bases if base != "expected_gradients"]
        exact, double = copy.deepcopy(self.model).double(), self.image.double()
        ours = attribute(exact, double, 1, bases, steps=self.steps, progress=False)
        theirs = {base: self.captum_map(base, model=exact, image=double).detach() for base in bases}
        return max(largest_difference(ours[base], theirs[base]) for base in bases)


def off_in_regions(captum_maps, image):
    """Our XRAI on captum's pixel maps against the authors'."""
    return max(
        largest_difference(xrai(captum_maps[name.removesuffix("@xrai")].double(), image.double()), theirs)
        for name, theirs in captum_maps.items()
        if name.endswith("@xrai")
    )


def distance(a, b):
    """Root mean square difference relative to the root mean square of the second map."""
    return float((a - b).double().pow(2).mean().sqrt() / b.double().pow(2).mean().sqrt())


def spread_of_seeds(captum_maps, ours, other_seed):
    """Distance to captum's stochastic maps, in distances between two of our seeds; 1 is right."""
    return statistics.median(
        distance(ours[name], theirs) / distance(ours[name], other_seed[name])
        for name, theirs in captum_maps.items()
        if "smoothgrad" in name or "expected" in name
    )


def maps(bench):
    own = Slice(bench)
    ways = {"captum + saliency": own.captum} if bench.has("saliency") else {}
    ways |= {name: partial(own.ours, precision) for name, precision in bench.precisions().items()}
    turns = bench.in_turn(ways, memory={"draws": 2})
    setting = f"{bench.size} x {bench.size}, {bench.steps} steps, {bench.draws} draws"
    agreement = ""
    if theirs := turns.results.get("captum + saliency"):
        exact, regions = own.off_in_double(), off_in_regions(theirs, own.image)
        spread = spread_of_seeds(theirs, turns.results["ours"], own.ours(seed=1000))
        agreement = f"float64 {exact:.0e}, XRAI {regions:.0e}, stochastic {spread:.2f} distances of two seeds"
        assert max(exact, regions) < 1e-5, agreement
        assert bench.quick or 0.9 < spread < 1.1, agreement
        setting += f", captum's batches of {own.batch}"
    for name in bench.precisions():
        bench.ratio(turns, "captum + saliency", name, name=name, setting=setting, agreement=agreement)


if __name__ == "__main__":
    Bench(
        __doc__,
        size=Size(128, quick=32, least=16, help="pixels of a side"),
        steps=Size(50, quick=2, least=2, help="path steps"),
        draws=Size(25, quick=2, least=2, help="noisy copies"),
    ).run({"maps": maps})
