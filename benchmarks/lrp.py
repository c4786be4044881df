"""Layer-wise relevance propagation: ours against zennit, on the network and rule both are right on.

ResNet-50 and the convolutions of VGG16 with one dense layer, eight images of 128 x 128, three rules. Both run in turn
in this process, each with what a user pays for a call: zennit registers its hooks, we trace and merge the network.
Maps are compared in float64, as in float32 either library is off wherever rounding turns a ReLU on, and with eps = 0
in batch normalisation, as zennit otherwise changes the network's outputs. ResNets need zennit's canonizer, without
which relevance doubles at every residual sum.

    python benchmarks/lrp.py            # about ten minutes on two cores
    python benchmarks/lrp.py --quick    # two images of 64 x 64
"""

import argparse
import statistics
import time

import torch
from torch import nn
from torch.nn.functional import one_hot
from torchvision.models import resnet50, vgg16
from zennit import rules
from zennit.attribution import Gradient
from zennit.composites import EpsilonGammaBox, LayerMapComposite, layer_map_base
from zennit.torchvision import ResNetCanonizer, VGGCanonizer
from zennit.types import Linear

from xaitools.attribution import lrp

RULES = ("epsilon", "alpha1_beta0", "epsilon_gamma_box")
CLASSES = 3
TOLERANCE = 1e-6  # of the map's maximum; float64 rounding grows in the 50 layers of untrained weights


def networks():
    """Each network with zennit's canonizer for it."""
    torch.manual_seed(0)
    vgg = nn.Sequential(*vgg16().features, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, CLASSES))
    found = {"ResNet-50": (resnet50(num_classes=CLASSES), ResNetCanonizer), "VGG16": (vgg, VGGCanonizer)}
    for net, _ in found.values():
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eps = 0.0
                nn.init.uniform_(module.weight, 0.5, 1.0)
                nn.init.normal_(module.bias, std=0.1)
        net.eval().requires_grad_(False)
    return found


def zennit_composite(rule, canonizer):
    if rule == "epsilon_gamma_box":
        return EpsilonGammaBox(low=0.0, high=1.0, canonizers=[canonizer()])
    everywhere = {"epsilon": rules.Epsilon(), "alpha1_beta0": rules.AlphaBeta(1, 0)}[rule]
    return LayerMapComposite([*layer_map_base(), (Linear, everywhere)], canonizers=[canonizer()])


def zennit_maps(net, images, targets, rule, canonizer):
    with Gradient(net, zennit_composite(rule, canonizer)) as attributor:
        return attributor(images, lambda scores: scores * one_hot(targets, CLASSES))[1].detach()


def seconds(function):
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def difference(net, images, targets, rule, canonizer):
    """Largest difference in float64, in parts of the map's maximum; the network is float32 again afterwards."""
    net.double()
    expected = zennit_maps(net, images.double(), targets, rule, canonizer)
    found = lrp(net, images.double(), targets, rule=rule)
    net.float()
    return float((found - expected).abs().max() / expected.abs().max())


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="two images of 64 x 64")
    options = parser.parse_args()
    torch.set_flush_denormal(True)  # relevance that fades to 1e-38 costs either library tenfold
    count, size = (2, 64) if options.quick else (8, 128)
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(count, 3, size, size, generator=generator)
    targets = torch.arange(count) % CLASSES

    for name, (net, canonizer) in networks().items():
        for rule in RULES:
            off = difference(net, images[:1], targets[:1], rule, canonizer)
            if not off < TOLERANCE:
                raise SystemExit(f"{name}, {rule}: maps differ by {off:.1e} of their maximum")
            theirs, ours = [], []
            for _ in range(options.repeats):
                theirs.append(seconds(lambda: zennit_maps(net, images, targets, rule, canonizer)))  # noqa: B023
                ours.append(seconds(lambda: lrp(net, images, targets, rule=rule)))  # noqa: B023
            ratios = sorted(one / other for one, other in zip(theirs, ours, strict=True))
            print(
                f"{name}, {rule}: zennit {statistics.median(theirs):.2f} s, ours {statistics.median(ours):.2f} s, "
                f"{statistics.median(ratios):.2f} times faster (from {ratios[0]:.2f} to {ratios[-1]:.2f}), "
                f"largest difference {off:.0e}",
                flush=True,
            )


if __name__ == "__main__":
    main()
