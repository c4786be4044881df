"""What a layer says of each image: the space in which examples are compared."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from xaitools.attribution.layers import default_layer, users_model
from xaitools.checks import as_tensor, check_choice, check_counts, checked_images
from xaitools.errors import MethodError, UnsupportedModelError
from xaitools.models import ImageStack, Network
from xaitools.models.images import batches


def features(
    model: nn.Module | Network,
    images: Float[Tensor, "n channel *spatial"] | Float[np.ndarray, "n channel *spatial"] | ImageStack,
    *,
    layer: str | None = None,
    batch_size: int = 16,
) -> Float[Tensor, "n feature"]:
    """Output of a layer for each image, channels averaged over their cells.

    Parameters
    ----------
    model
        The network; it stays as it is.
    images
        Images, or a stack that reads them when it is indexed.
    layer
        A layer by its name in the model. None for what the last linear layer is given, or, without one, for the last
        layer with spatial extent.
    batch_size
        Images in one forward pass.

    Returns
    -------
    Tensor
        float32 on the CPU, in the layer's own unit. Outputs (n, feature) stay as they are, of outputs
        (n, channel, *cells) each channel's mean is a feature, all others are flattened.

    Raises
    ------
    MethodError
        If there is no such layer, or it does not return one row an image.
    UnsupportedModelError
        If the network cannot be explained.
    """
    check_counts(batch_size=batch_size)
    stack = as_stack(images)
    network = Network.of(model, checked_images(stack[:1]))
    name, given = (layer, False) if layer is not None else _penultimate(network)
    found = layer_outputs(network, stack, name, batch_size, given=given)
    return torch.cat([_rows(outputs, network, name) for outputs in found])


def as_stack(images: Any) -> ImageStack:
    """An array of images as a tensor; a stack that reads from disk as it is."""
    lazy = isinstance(images, ImageStack) and not isinstance(images, np.ndarray)
    stack: ImageStack = images if lazy else as_tensor(images, "images")
    if not len(stack):
        checked_images(stack)
    return stack


def layer_outputs(
    network: Network, images: ImageStack, layer: str, batch_size: int = 16, *, given: bool = False
) -> Iterator[Tensor]:
    """What the layer returns, or what it is `given`, for the images in order, a batch at a time, without a gradient."""
    module = checked_module(network, layer)
    for batch in batches(images, batch_size, network.example.device):
        kept: list[Any] = []
        hook = module.register_forward_hook(partial(_keep, kept, given))
        try:
            with torch.no_grad():
                network.plain(network.place(checked_images(batch)).clone())
        finally:
            hook.remove()
        if not kept or not isinstance(kept[-1], Tensor):
            raise MethodError(
                f"layer={layer!r} of {network.name} {'returns no tensor' if kept else 'does not run'}; expected one "
                "that returns a tensor: name another layer."
            )
        yield kept[-1]


def checked_module(network: Network, layer: str) -> nn.Module:
    """The layer of that name in the user's model; MethodError with those that there are if there is none."""
    modules = {name: module for name, module in users_model(network).named_modules() if name}
    check_choice(MethodError, layer=(layer, modules))
    return modules[layer]


def _keep(kept: list[Any], given: bool, module: nn.Module, inputs: Any, output: Any) -> None:
    found = inputs[0] if given else output
    kept.append(found.detach().clone() if isinstance(found, Tensor) else found)  # the next may work in place


def _penultimate(network: Network) -> tuple[str, bool]:
    """The last linear layer to run, of which the input counts; or the last layer with spatial extent."""
    names: list[str] = []
    hooks = [
        module.register_forward_hook(lambda *_, name=name: names.append(name))
        for name, module in users_model(network).named_modules()
        if isinstance(module, nn.Linear)
    ]
    try:
        with torch.no_grad():
            network.plain(network.example.clone())
    finally:
        for hook in hooks:
            hook.remove()
    if names:
        return names[-1], True
    try:
        return default_layer(network), False
    except UnsupportedModelError as error:
        raise MethodError(
            f"{network.name} has neither a linear layer nor one with spatial extent, so there is no default; name the "
            "layer whose output shall be compared."
        ) from error


def _rows(outputs: Tensor, network: Network, layer: str) -> Tensor:
    if outputs.ndim < 2:
        raise MethodError(
            f"layer={layer!r} of {network.name} returns the shape {tuple(outputs.shape)}; expected a row of features "
            "for each image: name another layer."
        )
    if outputs.ndim in (4, 5):
        outputs = outputs.flatten(2).mean(2)
    return outputs.flatten(1).float().cpu()
