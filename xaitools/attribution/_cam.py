"""Maps made of a layer's activations and of the gradients that reach them: what Grad-CAM and its relatives share.

All that one call asks for, methods and layers, is made of one forward and one backward pass, which goes back no further
than the first of the layers.
"""

from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from xaitools.attribution._stream import AT_THE_IMAGE, Batch, Passes, Plan
from xaitools.attribution.layers import checked_layer, no_way, normalised_after, users_model
from xaitools.attribution.registry import Option, Setting
from xaitools.errors import UnsupportedModelError
from xaitools.models.network import AUTOGRAD, Network, select

Weighing = Callable[[Tensor, Tensor], Tensor]
"""Weights of activations, from them and their gradients, (batch, channel, *cells); broadcasts to them."""

LAYER = Option(
    "",
    "a layer by its name in the model; none for the last with spatial extent",
    lambda text: {"layer": text or None},
)

_LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}


@dataclass(frozen=True)
class Cam:
    """A map of a layer.

    Attributes
    ----------
    layer
        The layer's name.
    weigh
        Gives the weights of its activations.
    relu
        Whether what speaks against the target is cut off.
    """

    layer: str
    weigh: Weighing
    relu: bool

    def map_of(self, activations: Tensor, gradients: Tensor, shape: torch.Size) -> Tensor:
        """The map (batch, *shape), interpolated linearly from the cells of the layer."""
        cells = (self.weigh(activations, gradients) * activations).sum(1, keepdim=True)
        cells = cells.clamp(min=0) if self.relu else cells
        return F.interpolate(cells, size=shape, mode=_LINEAR[len(shape)], align_corners=False)[:, 0]


@dataclass
class Asked:
    """The maps that one call asks for."""

    network: Network
    cams: list[Cam] = field(default_factory=list)

    def place(self, cam: Cam) -> int:
        """Where the map stands in what `maps` gives."""
        if cam not in self.cams:
            self.cams.append(cam)
        return self.cams.index(cam)

    def maps(self, images: Tensor, target: Tensor | None) -> Tensor:
        """All maps (batch, map, *spatial)."""
        found = at_layers(self.network, images, target, dict.fromkeys(cam.layer for cam in self.cams))
        return torch.stack([cam.map_of(*found[cam.layer], images.shape[2:]) for cam in self.cams], 1)


_CALLS: Any = WeakTensorKeyDictionary()
"""What each call asks for, by its images."""


def cam_plan(setting: Setting, layer: str | None, weigh: Weighing, relu: bool) -> Plan:
    """The plan of a map of a layer, in passes that all such maps of one call share."""
    asked = _CALLS.get(setting.images)
    if asked is None or asked.network is not setting.network:
        asked = _CALLS[setting.images] = Asked(setting.network)
    place = asked.place(cam_of(setting, layer, weigh, relu))
    passes = Passes("activations of layers", partial(_run, asked))
    return Plan(
        passes,
        {"image": AT_THE_IMAGE},
        lambda copy, maps: maps[place : place + 1].expand_as(copy).contiguous(),
    )


def _run(asked: Asked, batch: Batch) -> Tensor:
    return asked.maps(batch.points, batch.target)


def cam_of(setting: Setting, layer: str | None, weigh: Weighing, relu: bool) -> Cam:
    """The map asked for, of a layer that is there."""
    _refuse_rows(setting.network)
    return Cam(checked_layer(setting.network, layer), weigh, relu)


def _refuse_rows(network: Network) -> None:
    """Raise if what is explained is a table, or several inputs at once."""
    if getattr(network.model, "packed", False):
        raise UnsupportedModelError(
            f"{network.name} is asked to explain a table, or several inputs at once, whose numbers are no cells of a "
            "layer; expected one input of images: hold the others, or use gradient or integrated_gradients."
        )


def at_layers(
    network: Network, images: Tensor, target: Tensor | None, layers: Iterable[str]
) -> Mapping[str, tuple[Tensor, Tensor]]:
    """Activations of some layers, and the gradients of each image's output to explain with respect to them.

    Raises
    ------
    UnsupportedModelError
        If the output does not depend on them through differentiable operations.
    """
    layers = list(layers)
    n = len(images)
    if n == 1 and normalised_after(network, layers):
        # Batch normalisation's backward pass in PyTorch 2.14 can be wrong for one image.
        images, target = (
            images.repeat(2, *[1] * (images.ndim - 1)),
            None if target is None else target.repeat(2),
        )
    kept: dict[str, Tensor] = {}
    with ExitStack() as hooks, torch.enable_grad():
        for name in layers:
            module = users_model(network).get_submodule(name)
            hooks.enter_context(module.register_forward_hook(partial(_keep, kept, name)))
        scores = select(network.plain(images.detach().clone()), target, len(images))
        gradients = _gradients(network, scores, kept)
    return {name: (kept[name].detach()[:n], gradients[name][:n]) for name in layers}


def _keep(kept: dict[str, Tensor], name: str, module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
    """Keep a layer's output as what the rest depends on; the network goes on with a copy, as it may work in place.

    Checkpointed layers run once more on the way back, when what was kept stays.
    """
    output = output if output.requires_grad else output.detach().requires_grad_()
    kept.setdefault(name, output)
    return output.clone()


def _gradients(network: Network, scores: Tensor, kept: Mapping[str, Tensor]) -> dict[str, Tensor]:
    made: dict[str, Tensor] = {}
    if scores.requires_grad:
        try:
            found = torch.autograd.grad(scores.sum(), list(kept.values()), allow_unused=True)
        except RuntimeError as error:
            if not str(error).startswith(AUTOGRAD):
                raise
            raise UnsupportedModelError(
                f"PyTorch cannot differentiate {network.name} ({error}); expected a network that can be trained by "
                "gradients: take operations in place on values that are used again out of its forward pass."
            ) from error
        made = {name: value for name, value in zip(kept, found, strict=True) if value is not None}
    for name in kept:
        if name not in made:  # for these images, though not for the example
            raise no_way(network, name)
    return made
