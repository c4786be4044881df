"""The networks by name."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from xaitools.checks import check_choice
from xaitools.errors import ParameterError
from xaitools.models.brain_cnn import eitel_cnn, eitel_cnn_small
from xaitools.models.head_cnn import head_cnn, head_cnn_small
from xaitools.models.imagenet import IMAGENET_WEIGHTS
from xaitools.models.mask_cnn import gm_cnn, gm_cnn_small, spelled_options
from xaitools.models.resnet import resnet10, resnet18, resnet50
from xaitools.models.vgg import vgg8, vgg16

NETWORKS: dict[str, Callable[..., nn.Module]] = {
    network.__name__: network
    for network in (
        resnet50, resnet18, resnet10, vgg16, vgg8, eitel_cnn, eitel_cnn_small, gm_cnn, gm_cnn_small,
        head_cnn, head_cnn_small,
    )
}  # fmt: skip


def build_network(
    name: str = "resnet50",
    *,
    in_channels: int = 1,
    n_outputs: int = 2,
    input_size: Sequence[int] = (),
    pretrained: bool = False,
    seed: int = 0,
) -> nn.Module:
    """A network by name, with new weights.

    It takes images ``(batch, in_channels, *spatial)`` with values in [0, 1], slices of 64 x 64 pixels or more or
    volumes, and returns ``(batch, n_outputs)``: one logit a class, or the single output of a regression.

    Parameters
    ----------
    name
        A key of :data:`NETWORKS`. For slices: ``"resnet50"``, ``"resnet18"``, ``"vgg16"``, or ``"resnet10"`` and
        ``"vgg8"`` for quick runs on a processor; for volumes: ``"eitel_cnn"``, or
        ``"eitel_cnn_small"`` for voxels of about 4 mm; for grey-matter maps ``"gm_cnn"``, ``"gm_cnn_small"`` for
        voxels of about 5 mm, or a member of that family, such as ``"gm_cnn_b4_f8_l2_d79"``: 4 blocks, 8 filters in
        the first, 2 linear layers, dropout of 79 %. For whole heads ``"head_cnn"``, ``"head_cnn_small"`` for voxels of
        4 to 8 mm.
    in_channels, n_outputs
        Channels of the images, numbers of the output.
    input_size
        Lengths of the spatial axes; for networks of volumes, whose linear layers depend on them.
    pretrained
        Start from ImageNet weights (downloaded once by torchvision); the last layer is new all the same. The
        first kernel is summed over its three colours, then shared evenly by the channels, so a grey image
        gives what its RGB copy gives; training settles the shift and scale of the intensities.
    seed
        Fixes the random weights; the global random state stays as it was.

    Raises
    ------
    ParameterError
        If the name is unknown, ``pretrained`` is asked of a network without published weights, or `input_size` is
        missing.
    WeightsError
        If the ImageNet weights can not be downloaded.
    """
    family = spelled_options(name)
    if family is None:
        check_choice(network=(name, NETWORKS))
    make = NETWORKS[name] if family is None else gm_cnn
    options: dict[str, Any] = {"in_channels": in_channels, "n_outputs": n_outputs, **(family or {})}
    if pretrained and name not in IMAGENET_WEIGHTS:
        raise ParameterError(
            f"pretrained=True, but {name} has no ImageNet weights; expected {' or '.join(IMAGENET_WEIGHTS)}: "
            "use one of them, or set pretrained=False."
        )
    takes = inspect.signature(make).parameters
    if "pretrained" in takes:
        options["pretrained"] = pretrained
    if "input_size" in takes:
        if not input_size:
            raise ParameterError(
                f"{name} needs the size of its volumes: pass input_size, such as (91, 109, 91)"
            )
        options["input_size"] = tuple(input_size)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return make(**options)
