"""Eight maps, 4 x 4 windows perturbed one after the other: ours against Quantus and the usual loop.

ResNet-50, one channel, eight images of 128 x 128; the score of a class, and the output of a regression. All get the
same maps and the same noise, and must return the same outputs after each of the 16 steps. Quantus:
`RegionPerturbation`. Loop: method by method, as iNNvestigate does: every step perturbs all windows so far anew and
asks the network about all images. Ours: one call, on the network as `Network` prepares it, in float32 and in bf16.
All run in turn in this process, several times. How much one call saves depends on how much the maps agree, so the
evaluations are told.

    python benchmarks/region_perturbation.py
    python benchmarks/region_perturbation.py --images 2 --repeats 1
"""

from functools import partial

import numpy as np
import torch
from _harness import Bench, Size

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
SIDE = 4


class Curves:
    """A network, images, and their maps: with few steps and noisy copies, as only their order matters here."""

    def __init__(self, bench, n_outputs):
        self.images = chest_slices(bench.images, size=bench.size, seed=0, progress=False).images
        self.model = build_network("resnet10" if bench.quick else "resnet50", n_outputs=n_outputs).eval()
        self.target = None if n_outputs == 1 else 1
        self.column = 0 if n_outputs == 1 else 1
        self.window = bench.size // SIDE
        methods = METHODS[:2] if bench.quick else METHODS
        maps = attribute(self.model, self.images, self.target, methods, steps=5, draws=3, progress=False)
        self.maps = {name: values.abs().numpy() for name, values in maps.items()}
        noisy = [
            perturbed_images(own, own[0], windows=(1, 1), index=i)[1] for i, own in enumerate(self.images)
        ]
        self.noisy = torch.stack(noisy)

    def ask(self, model, batch):
        with torch.inference_mode():
            return model(batch)[:, self.column].numpy()

    def by_quantus(self):
        import quantus

        pixels, filler = self.images.numpy(), self.noisy.numpy().reshape(len(self.images), -1)
        rows = np.arange(len(self.images))[:, None]

        def perturb(arr, indices, **_):
            changed = arr.copy()
            changed[rows, indices] = filler[rows, indices]
            return changed

        metric = quantus.RegionPerturbation(
            patch_size=self.window,
            regions_evaluation=SIDE**2,
            normalise=False,
            perturb_func=perturb,
            disable_warnings=True,
            display_progressbar=False,
        )
        start = self.ask(self.model, self.images)
        outputs = {}
        for name, values in self.maps.items():
            lost = metric(
                model=self.model,
                x_batch=pixels,
                y_batch=np.full(len(pixels), self.column),
                a_batch=values,
                softmax=False,
                channel_first=True,
            )
            outputs[name] = np.column_stack([start, start[:, None] - np.array(lost)])
        return outputs

    def by_loop(self):
        outputs = {}
        for name, values in self.maps.items():
            means = torch.nn.functional.avg_pool2d(torch.from_numpy(values), self.window).flatten(1)
            orders = means.argsort(dim=1, descending=True)
            steps = []
            for step in range(SIDE**2 + 1):
                perturbed = self.images.clone()
                for image, filler, order in zip(perturbed, self.noisy, orders, strict=True):
                    for window in order[:step].tolist():
                        top, left = (at * self.window for at in divmod(window, SIDE))
                        place = (slice(None), slice(top, top + self.window), slice(left, left + self.window))
                        image[place] = filler[place]
                steps.append(np.concatenate([self.ask(self.model, batch) for batch in perturbed.split(32)]))
            outputs[name] = np.stack(steps, axis=1)
        return outputs

    def ours(self, prepared):
        def predict(batch):
            with torch.inference_mode():
                return prepared(batch.contiguous(memory_format=torch.channels_last))

        return region_perturbation(
            predict, self.images, self.maps, self.target, controls=False, progress=False
        )


def compare(bench, n_outputs):
    own = Curves(bench, n_outputs)
    ways = {"Quantus": own.by_quantus} if bench.has("quantus") else {}
    ways |= {"loop": own.by_loop}
    for name, precision in bench.precisions().items():
        ways[name] = partial(own.ours, Network(own.model, own.images, precision).quick)
    turns = bench.in_turn(ways)
    results = turns.results
    reach = max(np.ptp(values) for values in results["loop"].values())
    asked = len(own.images) * len(own.maps) * (SIDE**2 + 1)
    setting = f"{len(own.images)} images of {bench.size} x {bench.size}, {len(own.maps)} maps, "
    setting += f"{results['ours'].n_evaluations} evaluations instead of {asked}"
    for name in bench.precisions():
        for peer in set(ways) & {"Quantus", "loop"}:
            off = max(
                np.abs(results[name].outputs[key, "most"] - results[peer][key]).max() / reach
                for key in own.maps
            )
            assert name == "ours, bf16" or off < 1e-3, off
            bench.ratio(
                turns,
                peer,
                name,
                name=f"{peer}, {name}",
                setting=setting,
                agreement=f"{off:.0e} of the curves' range",
            )


if __name__ == "__main__":
    Bench(
        __doc__,
        images=Size(8, quick=1, help="images"),
        size=Size(128, quick=32, least=32, help="pixels of a side, a multiple of four"),
    ).run({"class": partial(compare, n_outputs=2), "regression": partial(compare, n_outputs=1)})
