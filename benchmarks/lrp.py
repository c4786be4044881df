"""Layer-wise relevance propagation: ours against zennit, on the network and rule both are right on.

ResNet-50 and the convolutions of VGG16 with one dense layer, eight images of 128 x 128, three rules. Both run in turn
in this process, each with what a user pays for a call: zennit registers its hooks, we trace and merge the network; and
once more with a network prepared beforehand, as a study has it.
Maps are compared in float64, as in float32 either library is off wherever rounding turns a ReLU on, and with eps = 0
in batch normalisation, as zennit otherwise changes the network's outputs. ResNets need zennit's canonizer, without
which relevance doubles at every residual sum.

    python benchmarks/lrp.py            # about ten minutes on two cores
"""

from functools import partial

import torch
from _harness import Bench, Size, largest_difference
from torch import nn
from torch.nn.functional import one_hot
from torchvision.models import resnet50, vgg16

from xaitools.attribution import lrp
from xaitools.models import Network

RULES = ("epsilon", "alpha1_beta0", "epsilon_gamma_box")
NETWORKS = ("ResNet-50", "VGG-16")
CLASSES = 3
TOLERANCE = 1e-6  # of the map's maximum; float64 rounding grows in the 50 layers of untrained weights


def network(name):
    torch.manual_seed(0)
    if name == "ResNet-50":
        net = resnet50(num_classes=CLASSES)
    else:
        net = nn.Sequential(*vgg16().features, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, CLASSES))
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 0.0
            nn.init.uniform_(module.weight, 0.5, 1.0)
            nn.init.normal_(module.bias, std=0.1)
    return net.eval().requires_grad_(False)


def composite(name, rule):
    """zennit's, with its canonizer for the network."""
    from zennit import rules
    from zennit.composites import EpsilonGammaBox, LayerMapComposite, layer_map_base
    from zennit.torchvision import ResNetCanonizer, VGGCanonizer
    from zennit.types import Linear

    canonizers = [ResNetCanonizer() if name == "ResNet-50" else VGGCanonizer()]
    if rule == "epsilon_gamma_box":
        return EpsilonGammaBox(low=0.0, high=1.0, canonizers=canonizers)
    everywhere = {"epsilon": rules.Epsilon(), "alpha1_beta0": rules.AlphaBeta(1, 0)}[rule]
    return LayerMapComposite([*layer_map_base(), (Linear, everywhere)], canonizers=canonizers)


def by_zennit(net, images, targets, name, rule):
    from zennit.attribution import Gradient

    with Gradient(net, composite(name, rule)) as attributor:
        return attributor(images, lambda scores: scores * one_hot(targets, CLASSES))[1].detach()


def difference(net, images, targets, name, rule):
    """Largest difference in float64, in parts of the map's maximum; the network is float32 again afterwards."""
    net.double()
    expected = by_zennit(net, images.double(), targets, name, rule)
    found = lrp(net, images.double(), targets, rule=rule)
    net.float()
    return largest_difference(found, expected)


def compare(bench, name, rule):
    torch.set_flush_denormal(True)  # relevance that fades to 1e-38 costs either library tenfold
    net = network(name)
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(bench.images, 3, bench.size, bench.size, generator=generator)
    targets = torch.arange(bench.images) % CLASSES
    ways = {"zennit": partial(by_zennit, net, images, targets, name, rule)} if bench.has("zennit") else {}
    prepared = Network(net, images[:1])
    ways |= {
        "ours": lambda: lrp(net, images, targets, rule=rule),
        "ours, prepared": lambda: lrp(prepared, images, targets, rule=rule),
    }
    turns = bench.in_turn(ways, memory={})
    agreement = ""
    if "zennit" in ways:
        off = difference(net, images[:1], targets[:1], name, rule)
        assert off < TOLERANCE, off
        agreement = f"float64 {off:.0e}"
    setting = f"{bench.images} images of {bench.size} x {bench.size}"
    bench.ratio(turns, "zennit", setting=setting, agreement=agreement)
    bench.ratio(turns, "zennit", "ours, prepared", name="prepared", setting=setting, agreement=agreement)


if __name__ == "__main__":
    bench = Bench(
        __doc__,
        images=Size(8, quick=1, help="images"),
        size=Size(128, quick=32, least=32, help="pixels of a side"),
    )
    workloads = {
        f"{name} {rule}": partial(compare, name=name, rule=rule) for name in NETWORKS for rule in RULES
    }
    if bench.quick and not bench.options.workloads:
        workloads = {"VGG-16 epsilon": workloads["VGG-16 epsilon"]}
    bench.run(workloads)
