"""Model randomisation of five methods, layer by layer from the top: ours against Quantus `MPRT`.

ResNet-18, one channel. Quantus: one `MPRT` call a method, which asks for maps of the original network and of each
redrawn one; they are computed as its users do, by captum. Ours: one call. Both redraw the same layers one after the
other and compare by Spearman's correlation of absolute maps. The weights that they draw differ, so equal similarities
are checked on equal maps: all of ours are given to Quantus' similarity.

    python benchmarks/model_randomization.py
    python benchmarks/model_randomization.py --images 2 --repeats 1
"""

import argparse
import contextlib
import io
import statistics
import time
import warnings

import numpy as np
import torch
from captum.attr import GuidedBackprop, InputXGradient, IntegratedGradients, NoiseTunnel, Saliency

with contextlib.redirect_stdout(io.StringIO()):
    import quantus
    from quantus.functions.similarity_func import correlation_spearman

from xaitools.attribution import attribute
from xaitools.evaluation import map_similarity, model_randomization
from xaitools.models import Network, build_network
from xaitools.phantoms import chest_slices

STEPS, DRAWS, TARGET, BATCH = 25, 25, 1, 16


def saliency(model, images, target):
    return Saliency(model).attribute(images, target, abs=False)


def smoothing(kind):
    def explainer(model, images, target):
        width = images.flatten(1).amax(1) - images.flatten(1).amin(1)
        return NoiseTunnel(Saliency(model)).attribute(
            images,
            nt_type=kind,
            nt_samples=DRAWS,
            nt_samples_batch_size=BATCH // len(images) or 1,
            stdevs=0.15 * float(width.mean()),
            target=target,
            abs=False,
        )

    return explainer


def integrated(model, images, target):
    return IntegratedGradients(model).attribute(
        images, target=target, n_steps=STEPS, internal_batch_size=BATCH
    )


def input_x_gradient(model, images, target):
    return InputXGradient(model).attribute(images, target)


SETS = {
    "shared": {
        "gradient": saliency,
        "input_x_gradient": input_x_gradient,
        "gradient+smoothgrad": smoothing("smoothgrad"),
        "gradient+smoothgrad_squared": smoothing("smoothgrad_sq"),
        "gradient+vargrad": smoothing("vargrad"),
    },
    "mixed": {
        "gradient": saliency,
        "input_x_gradient": input_x_gradient,
        "guided_backprop": lambda model, images, target: GuidedBackprop(model).attribute(images, target),
        "integrated_gradients[black]": integrated,
        "gradient+smoothgrad": smoothing("smoothgrad"),
    },
}


def explain(explainer):
    """As Quantus calls it."""

    def function(model, inputs, targets, **_):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            images, target = torch.as_tensor(inputs), torch.as_tensor(targets)
            return explainer(model.eval(), images, target).sum(1, keepdim=True).detach().numpy()

    return function


def by_quantus(model, images, methods):
    scores = {}
    for name, explainer in methods.items():
        metric = quantus.MPRT(
            layer_order="top_down",
            similarity_func=correlation_spearman,
            normalise=False,
            abs=True,
            disable_warnings=True,
        )
        scores[name] = metric(
            model=model,
            x_batch=images.numpy(),
            y_batch=np.full(len(images), TARGET),
            explain_func=explain(explainer),
            channel_first=True,
            softmax=False,
        )
    return scores


def by_ours(model, images, methods):
    return model_randomization(
        model,
        images,
        TARGET,
        list(methods),
        similarities=["spearman"],
        absolute=[True],
        steps=STEPS,
        draws=DRAWS,
        progress=False,
    )


def largest_difference(model, images, methods):
    """Between Quantus' similarity and ours, of the same maps of a network and of a redrawn one."""
    network = Network(model, images[:1])
    twin = network.randomized(network.layers[-3:])
    one, other = (
        attribute(each, images, TARGET, list(methods), steps=STEPS, draws=DRAWS, progress=False)
        for each in (network, twin)
    )
    rows = [
        (
            map_similarity(one[name], other[name]),
            correlation_spearman(
                *(maps[name].abs().flatten(1).double().numpy() for maps in (one, other)), batched=True
            ),
        )
        for name in methods
    ]
    return max(np.abs(ours - theirs).max() for ours, theirs in rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--set", choices=SETS, default="shared")
    options = parser.parse_args()
    methods = SETS[options.set]
    images = chest_slices(options.images, size=options.size, seed=0, progress=False).images
    model = build_network("resnet18").eval()
    seconds = {"quantus": [], "ours": []}
    for _ in range(options.repeats):
        start = time.process_time()
        theirs = by_quantus(model, images, methods)
        seconds["quantus"].append(time.process_time() - start)
        start = time.process_time()
        ours = by_ours(model, images, methods)
        seconds["ours"].append(time.process_time() - start)
        theirs_s, ours_s = seconds["quantus"][-1], seconds["ours"][-1]
        print(f"Quantus {theirs_s:.1f} s, ours {ours_s:.1f} s of processor time: {theirs_s / ours_s:.2f}")
    n_layers = ours.table.k.max()
    assert n_layers == len(next(iter(theirs.values()))) - 1, "both redraw the same layers"
    print(
        f"{len(methods)} methods, {n_layers} layers, {len(images)} images of {options.size} x {options.size}"
    )
    print(
        f"largest difference of similarities of equal maps: {largest_difference(model, images, methods):.1e}"
    )
    averages = ours.verdicts().set_index("method").average
    for name, scores in theirs.items():
        layers = [np.mean(values) for key, values in scores.items() if key != "original"]
        print(f"{name:30} mean over layers: Quantus {np.mean(layers):.3f}, ours {averages[name]:.3f}")
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    print(f"median: {medians['quantus'] / medians['ours']:.2f} times as fast")


if __name__ == "__main__":
    main()
