"""Model randomisation of five methods, layer by layer from the top: ours against Quantus `MPRT`.

ResNet-18, one channel. Quantus: one `MPRT` call a method, which asks for maps of the original network and of each
redrawn one; they are computed as its users do, by captum. Ours: one call. Both redraw the same layers one after the
other and compare by Spearman's correlation of absolute maps. The weights that they draw differ, so equal similarities
are checked on equal maps: all of ours are given to Quantus' similarity.

Two sets of five: methods that share their gradients, and methods that share little. Both libraries pass as many
images through the network at once as is quickest for each, found by trial.

    python benchmarks/model_randomization.py
    python benchmarks/model_randomization.py --images 2 --repeats 1
"""

import warnings
from functools import partial

import numpy as np
import torch
from _harness import Bench, Size, processor_time
from captum.attr import GuidedBackprop, InputXGradient, IntegratedGradients, NoiseTunnel, Saliency

from xaitools.attribution import attribute
from xaitools.evaluation import map_similarity, model_randomization
from xaitools.models import Network, build_network
from xaitools.phantoms import chest_slices

TARGET = 1
BATCHES = (16, 32, 64)


def saliency(model, images, target, bench):
    return Saliency(model).attribute(images, target, abs=False)


def smoothing(kind):
    def explainer(model, images, target, bench):
        width = images.flatten(1).amax(1) - images.flatten(1).amin(1)
        return NoiseTunnel(Saliency(model)).attribute(
            images,
            nt_type=kind,
            nt_samples=bench.draws,
            nt_samples_batch_size=min(bench.theirs // len(images) or 1, bench.draws),
            stdevs=0.15 * float(width.mean()),
            target=target,
            abs=False,
        )

    return explainer


def integrated(model, images, target, bench):
    return IntegratedGradients(model).attribute(
        images, target=target, n_steps=bench.steps, internal_batch_size=bench.theirs
    )


def input_x_gradient(model, images, target, bench):
    return InputXGradient(model).attribute(images, target)


def guided(model, images, target, bench):
    return GuidedBackprop(model).attribute(images, target)


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
        "guided_backprop": guided,
        "integrated_gradients[black]": integrated,
        "gradient+smoothgrad": smoothing("smoothgrad"),
    },
}


def explain(explainer, bench):
    """As Quantus calls it."""

    def function(model, inputs, targets, **_):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            images, target = torch.as_tensor(inputs), torch.as_tensor(targets)
            return explainer(model.eval(), images, target, bench).sum(1, keepdim=True).detach().numpy()

    return function


def by_quantus(bench, model, images, methods):
    import quantus
    from quantus.functions.similarity_func import correlation_spearman

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
            explain_func=explain(explainer, bench),
            channel_first=True,
            softmax=False,
        )
    return scores


def by_ours(bench, model, images, methods):
    return model_randomization(
        model,
        images,
        TARGET,
        list(methods),
        similarities=["spearman"],
        absolute=[True],
        steps=bench.steps,
        draws=bench.draws,
        batch_size=bench.ours,
        progress=False,
    )


def quickest(explained):
    """The batch size with which a noisy map takes least of the processor, the second time that it is made."""
    seconds = {}
    for batch in BATCHES * 2:
        start = processor_time()
        explained(batch)
        seconds[batch] = processor_time() - start
    return min(seconds, key=seconds.get)


def set_batches(bench, model, images):
    """The best of each library, as attributes of the benchmark."""
    bench.theirs = bench.ours = BATCHES[0]
    if bench.quick:
        return
    network, target = Network(model, images[:1]), torch.full((len(images),), TARGET)

    def theirs(batch):
        bench.theirs = batch
        smoothing("smoothgrad")(model, images, target, bench)

    def ours(batch):
        attribute(
            network,
            images,
            TARGET,
            ["gradient+smoothgrad"],
            draws=bench.draws,
            batch_size=batch,
            progress=False,
        )

    bench.theirs, bench.ours = quickest(theirs), quickest(ours)


def off_by(bench, model, images, methods):
    """Between Quantus' similarity and ours, of the same maps of a network and of a redrawn one."""
    from quantus.functions.similarity_func import correlation_spearman

    network = Network(model, images[:1])
    twin = network.randomized(network.layers[-3:])
    one, other = (
        attribute(each, images, TARGET, list(methods), steps=bench.steps, draws=bench.draws, progress=False)
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


def redrawn(bench, methods):
    images = chest_slices(bench.images, size=bench.size, seed=0, progress=False).images
    model = build_network("resnet10" if bench.quick else "resnet18").eval()
    set_batches(bench, model, images)
    ways = {"Quantus": partial(by_quantus, bench, model, images, methods)} if bench.has("quantus") else {}
    turns = bench.in_turn(ways | {"ours": partial(by_ours, bench, model, images, methods)})
    table, agreement = turns.results["ours"].table, ""
    n_layers = table.k.max()
    if theirs := turns.results.get("Quantus"):
        assert n_layers == len(next(iter(theirs.values()))) - 1, "both redraw the same layers"
        averages = turns.results["ours"].verdicts().set_index("method").average
        apart = max(
            abs(np.mean([np.mean(own) for key, own in scores.items() if key != "original"]) - averages[name])
            for name, scores in theirs.items()
        )
        equal = off_by(bench, model, images, methods)
        assert equal < 1e-9, equal
        agreement = f"of equal maps {equal:.0e}; means over layers, of other weights, {apart:.2f}"
    setting = (
        f"{len(methods)} methods, {n_layers} layers, {len(images)} images of {bench.size} x {bench.size}, "
    )
    setting += f"{bench.draws} draws, batches of {bench.theirs} and {bench.ours}"
    bench.ratio(turns, "Quantus", setting=setting, agreement=agreement)


if __name__ == "__main__":
    bench = Bench(
        __doc__,
        images=Size(4, quick=1, help="images"),
        size=Size(64, quick=32, least=32, help="pixels of a side"),
        steps=Size(25, quick=2, least=2, help="path steps"),
        draws=Size(25, quick=2, least=2, help="noisy copies"),
    )
    sets = {"shared": {"gradient": saliency}} if bench.quick else SETS
    bench.run({name: partial(redrawn, methods=methods) for name, methods in sets.items()})
