"""The layers of a network whose activations are maps of the image: which there are, and which is the last.

What a layer returns says nothing of its axes: (1, 7, 7, 96) may be seven channels of 7 x 96 cells. So the axes are
followed from the image on, through whatever moves them, and a layer counts only where they are known.
"""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from xaitools.attribution._run import tensors
from xaitools.errors import MethodError, UnsupportedModelError
from xaitools.models.network import Network

Axes = tuple[int, ...] | None
"""Which axis of the image each axis is, the batch being 0 and channels 1; None where that is not known."""

_CHANNEL_FIRST = (
    "conv",
    "max_pool",
    "avg_pool",
    "adaptive_",
    "lp_pool",
    "batch_norm",
    "instance_norm",
    "group_norm",
    "local_response_norm",
    "interpolate",
    "upsample",
    "pixel_",
    "prelu",
    "dropout2d",
    "dropout3d",
)
"""How functions are called that take (batch, channel, *spatial) and return it."""
_MOVING = ("permute", "transpose", "movedim", "moveaxis", "swapaxes", "swapdims")
_JOINING = ("cat", "concat", "concatenate", "linear", "pad", "__getitem__", "chunk", "split", "narrow")
"""What keeps the order of axes and may change their lengths."""
_UNCLEAR = (
    *(
        "einsum",
        "t",
        "t_",
        "adjoint",
        "transpose_",
        "swapaxes_",
        "swapdims_",
        "flip",
        "fliplr",
        "flipud",
        "rot90",
    ),
    *("roll", "grid_sample", "index_select", "gather", "take_along_dim", "sort"),
)
"""What moves cells, or may."""
_OF_TOKENS = (
    "linear",
    "conv1d",
    "layer_norm",
    "softmax",
    "scaled_dot_product_attention",
    "multi_head_attention_forward",
    "matmul",
    "__matmul__",
    "bmm",
    "baddbmm",
    "einsum",
    "lstm",
    "gru",
)
"""What a network does to cells that have become the rows of a table."""


def default_layer(network: Network) -> str:
    """The layer that Grad-CAM and its relatives look at if none is named: the last one with spatial extent.

    It is the last module to finish, of those that run once in a pass, whose output is (batch, channel, *spatial) with
    more than one cell, and through which all goes that reaches the output from the image: of a ResNet its last stage,
    not a layer in a block of it; of a VGG the pool before its classifier. Where there is no such layer, it is the last
    on the way to the output.

    Parameters
    ----------
    network
        A prepared network.

    Returns
    -------
    str
        The module's name in the user's model, as in ``model.get_submodule(name)``.

    Raises
    ------
    UnsupportedModelError
        If there is no such layer, or the cells are mixed as tokens after it, as in a transformer.
    """
    seen = _seen(network)
    if seen.default is None:
        raise UnsupportedModelError(
            f"{network.name} has no layer whose output is (batch, channel, *spatial) with more than one cell; Grad-CAM "
            "and its relatives need one. Use attention_rollout on a transformer, else gradient or integrated_gradients."
        )
    if seen.tokens_after >= seen.order.index(seen.default):
        raise UnsupportedModelError(
            f"{network.name} goes on with tokens after {seen.default!r}, the last layer with spatial extent, as "
            "transformers do, so activations there are far from its answer. Use attention_rollout on a transformer, "
            "else gradient or integrated_gradients; or name that layer in the brackets."
        )
    return seen.default


def spatial_layers(network: Network) -> list[str]:
    """Names of all layers that Grad-CAM and its relatives can look at, in the order in which they finish.

    Parameters
    ----------
    network
        A prepared network.
    """
    return _seen(network).usable


def checked_layer(network: Network, layer: str | None) -> str:
    """The layer of that name, or the default one.

    Raises
    ------
    MethodError
        If there is no such layer, or its output is no map of the image; the message lists those that are.
    UnsupportedModelError
        If there is no default, or the output does not depend on the layer.
    """
    if layer is None:
        return default_layer(network)
    seen = _seen(network)
    if (why := seen.refused(layer)) is not None:
        known = ", ".join(seen.usable) or "none, as no layer of this network has spatial extent"
        raise MethodError(f"layer={layer!r} of {network.name} {why}; expected one of {known}.")
    if layer not in seen.leading:
        seen.leading[layer] = _leads_to_the_output(network, layer)
    if not seen.leading[layer]:
        raise no_way(network, layer)
    return layer


def explained_layer(
    network: Network, method: str, options: Mapping[str, Mapping[str, Any]] | None = None
) -> str | None:
    """The layer whose activations a map of that name shows, the default made explicit; None of maps that have none.

    Parameters
    ----------
    network
        A prepared network.
    method
        Full name of a map, such as "grad_cam[layer3]+smoothgrad".
    options
        As :func:`~xaitools.attribution.attribute` takes them.

    Raises
    ------
    MethodError, UnsupportedModelError
        As the method raises.
    """
    from xaitools.attribution.names import parse  # which imports the methods, and they this file

    name, options = parse(method), options or {}
    if name.base.startswith("captum.") or "layer" not in name.method.keywords:
        return None
    given = {**options.get(name.base, {}), **options.get(name.source, {})}
    return checked_layer(network, name.option or given.get("layer"))


def no_way(network: Network, layer: str) -> UnsupportedModelError:
    """What is said of a layer that the output does not depend on."""
    return UnsupportedModelError(
        f"The output of {network.name} does not depend on its layer {layer!r} through differentiable operations; name "
        "a layer on the way to the output, or remove torch.no_grad, detach or argmax after it. Methods that need none "
        "are gradient and occlusion."
    )


def normalised_after(network: Network, layers: list[str]) -> bool:
    """Whether batch normalisation stands between one of these layers and the output."""
    seen, model = _seen(network), users_model(network)
    after = seen.order[min(seen.order.index(name) for name in layers) + 1 :]
    return any(isinstance(model.get_submodule(name), nn.modules.batchnorm._BatchNorm) for name in after)


def users_model(network: Network) -> nn.Module:
    """The user's model, taken out of our own modules around it."""
    model = network.model
    while any(kind.__module__ in _WRAPPERS for kind in type(model).__mro__):
        model = model.get_submodule("model")
    return model


_WRAPPERS = (
    "xaitools.models.outputs",
    "xaitools.attribution.segmentation",
    "xaitools.attribution.several_inputs",
)


@dataclass
class _Layers:
    """What the layers of a network returned for one image.

    Attributes
    ----------
    order
        Names of the layers in the order in which they finished, those that ran often as often.
    faults
        By name, why the output is no map of the image; None where it is one.
    tokens_after
        How many layers had finished when tokens were last worked on, less 1; -1 if that never happened.
    default
        The last layer of use through which all goes, else the last of use on the way to the output.
    leading
        By name, whether the output depends on it; of those that were asked for.
    """

    order: list[str] = field(default_factory=list)
    faults: dict[str, str | None] = field(default_factory=dict)
    tokens_after: int = -1
    default: str | None = None
    leading: dict[str, bool] = field(default_factory=dict)

    @property
    def usable(self) -> list[str]:
        return [name for name in self.order if self.refused(name) is None]

    def refused(self, name: str) -> str | None:
        """Why that layer is of no use, or None."""
        if name not in self.faults:
            return "does not exist, or is not called as a module"
        if (calls := self.order.count(name)) > 1:
            return f"is called {calls} times in a pass, so that it has {calls} outputs"
        return self.faults[name]


_SEEN: WeakKeyDictionary[Network, _Layers] = WeakKeyDictionary()


def _seen(network: Network) -> _Layers:
    """The layers of a network, asked once."""
    if network not in _SEEN:
        _SEEN[network] = _asked(network)
    return _SEEN[network]


def _asked(network: Network) -> _Layers:
    image = network.example.clone()
    found, axes = _Layers(), _FollowedAxes(image)
    axes.on_tokens = lambda: setattr(found, "tokens_after", len(found.order) - 1)

    def note(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            found.order.append(name)
            found.faults[name] = _fault(output, image, axes)

        return hook

    with ExitStack() as hooks, torch.no_grad():
        for name, module in users_model(network).named_modules():
            if name and not isinstance(module, torch.jit.ScriptModule):
                hooks.enter_context(module.register_forward_hook(note(name)))
        with axes:
            network.plain(image)
    names = found.usable
    for judge in (_passed_by_all, _leads_to_the_output):
        found.default = found.default or next(
            (name for name in reversed(names) if judge(network, name)), None
        )
    return found


def _passed_by_all(network: Network, layer: str) -> bool:
    """Whether the output depends on the image through this layer only."""
    image = network.example.detach().requires_grad_()
    module = users_model(network).get_submodule(layer)
    with module.register_forward_hook(lambda module, inputs, output: output.detach()), torch.enable_grad():
        return not network.plain(image.clone()).requires_grad


def _leads_to_the_output(network: Network, layer: str) -> bool:
    """Whether the output depends on this layer."""

    def asking(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        return output.detach().requires_grad_().clone()

    module = users_model(network).get_submodule(layer)
    with module.register_forward_hook(asking), torch.enable_grad():
        return network.plain(network.example.clone()).requires_grad


def _fault(output: Any, image: Tensor, axes: "_FollowedAxes") -> str | None:
    """Why an output is no map of the image."""
    if not isinstance(output, Tensor):
        return f"returns a {type(output).__name__}"
    shape = tuple(output.shape)
    if output.ndim != image.ndim or len(output) != 1:
        return f"returns {shape} for one image"
    if axes.known.get(output) != tuple(range(image.ndim)):
        return f"returns {shape}, whose axes are not known to be (batch, channel, *spatial)"
    return None if output.shape[2:].numel() > 1 else f"returns {shape}, one cell"


class _FollowedAxes(TorchFunctionMode):
    """Follows the axes of an image through a network.

    Attributes
    ----------
    known
        The axes of whatever depends on the image.
    on_tokens
        Called when the network works on tokens.
    """

    def __init__(self, image: Tensor) -> None:
        super().__init__()
        self.n_axes = image.ndim
        self.known: Any = WeakTensorKeyDictionary()
        self.known[image] = tuple(range(image.ndim))
        self.on_tokens: Callable[[], object] = lambda: None

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        given = [tensor for tensor in tensors((args, kwargs)) if tensor in self.known]
        if given:
            name = getattr(func, "__name__", "")
            if name in _OF_TOKENS and any(self._is_tokens(tensor) for tensor in given):
                self.on_tokens()
            for made in tensors(result):
                self.known[made] = self._axes(func, name, args, kwargs, given, made)
        return result

    def _is_tokens(self, tensor: Tensor) -> bool:
        """Whether a tensor has several rows an image, of which nothing is known."""
        return self.known[tensor] is None and tensor.ndim > 2 and tensor.shape[1:-1].numel() > 1

    def _axes(
        self, func: Any, name: str, args: tuple, kwargs: dict[str, Any], given: list[Tensor], made: Tensor
    ) -> Axes:
        first = self.known[given[0]]
        if name in _MOVING:
            return None if first is None else _moved(func, args[1:], kwargs, first)
        if name.startswith(_CHANNEL_FIRST) and made.ndim == given[0].ndim == self.n_axes:
            in_order = first is None or first[:2] == (0, 1)
            return (first or tuple(range(self.n_axes))) if in_order else None
        if name in _UNCLEAR or (name == "__get__" and func.__self__ is not Tensor.data):
            return None
        found = {
            self.known[tensor]
            for tensor in given
            if tensor.ndim == made.ndim and (name in _JOINING or tensor.shape == made.shape)
        } - {None}
        return found.pop() if len(found) == 1 else None


def _moved(func: Any, rest: tuple, kwargs: dict[str, Any], axes: tuple[int, ...]) -> Axes:
    """Where the axes are after a function that moves them, tried on a tensor whose axes tell themselves apart."""
    options = {key: value for key, value in kwargs.items() if key not in ("input", "self")}
    lengths = func(torch.empty([axis + 1 for axis in axes]), *rest, **options).shape
    return tuple(length - 1 for length in lengths)
