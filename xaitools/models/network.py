"""A model made ready to be explained."""

import copy
import logging
import zlib
from collections.abc import Iterable
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from xaitools.checks import check_choice, check_within, checked_target
from xaitools.errors import (
    MethodError,
    ParameterError,
    ShapeError,
    TargetError,
    UnsupportedModelError,
    XaitoolsError,
)
from xaitools.models.devices import warn_of_bfloat16
from xaitools.models.outputs import Output, answering, columns_of, picked
from xaitools.models.redrawing import has_state, redraw
from xaitools.models.surgery import (
    HALVES,
    PRECISIONS,
    SwitchedGradients,
    computes_in_halves,
    folded,
    frozen_copy,
    in_precision,
    log_odds,
    outputs_of,
    refuse_own_gradients,
    same_outputs,
    trace,
    unwrapped,
    weights_of,
    without_biases,
    without_observers,
)

logger = logging.getLogger(__name__)

INDEPENDENT = 1e-5
"""Share of the largest output by which outputs may differ in company before rounding is looked at."""

REDRAWN = 0x5EED0000
"""Added to a seed, so that a model made after ``torch.manual_seed(seed)`` does not get its own weights again."""

AUTOGRAD = (
    "one of the variables needed for gradient",
    "derivative for",
    "the derivative for",
    "unsupported operation",
)
"""How messages of PyTorch begin that speak of the network, and not of memory or of a method's own code."""

ROUNDING, ROUGH = 1e-3, 0.05
"""The same if they differ as much among copies of one image, which is rounding; where half precision is used."""


class Network:
    """A model in the forms that explanations need, each made when it is first asked for; the model stays as it is.

    Whatever is made here is frozen and in evaluation mode. Weights are copied twice at most: as they are (`plain`) and
    with batch normalisation folded in (`folded`); the other forms share these. Weights of half precision are copied to
    float32.

    Parameters
    ----------
    model
        Network that returns scores, (batch, classes) or (batch,), or something that holds them. What torch.compile and
        DataParallel wrap is taken out.
    example
        An image or more (batch, channel, *spatial), on which every form is compared with the model.
    precision
        "float32", or "bf16" to compute the deeper layers of `quick` in bfloat16, which is faster on processors that
        know it.
    output
        Which tensor of what the model returns is explained: its place in a tuple or list, its key in a dict, the name
        of an attribute, or a function of what is returned. None for the only one.

    Attributes
    ----------
    name
        Name of the model's class, for messages.
    model
        Copy whose modules have their own names and places; returns what the model returns.
    plain
        The same as a module that returns the scores, and leaves its input as it is.
    example
        The first image, on the device and of the type of the weights.
    expected
        Its scores.

    Raises
    ------
    MethodError
        If `precision` has another value, or there is no tensor at `output`.
    ShapeError
        If the model is made for other channels than the images have.
    UnsupportedModelError
        If the model is no module, cannot be copied or does not run; its scores on `example` are not finite; or they
        depend on chance, on earlier calls, or on what else is in the batch.
    """

    def __init__(
        self, model: Any, example: Tensor, precision: str = "float32", output: Output = None
    ) -> None:
        check_choice(MethodError, precision=(precision, PRECISIONS))
        model = unwrapped(model)
        self.name = type(model).__name__
        self.precision = precision
        self.model = frozen_copy(model)
        self.kind = self._kind(example)
        warn_of_bfloat16(precision, self.kind.device)
        self.example = self.place(example[:1]).clone()
        image = self.example.clone()
        version = image._version
        with torch.no_grad(), SwitchedGradients() as switched:
            found = self._run(image)
        self._traceable = not switched.noticed
        without_observers(self.model, self.example.clone(), found)
        one, self.output = picked(found, output, self.name)
        self._check_numbers(one)
        company = self._company()
        with torch.no_grad():
            three = picked(self._run(company), self.output, self.name)[0]
        columns = columns_of(one, three)
        self._laid_out: dict[str, Any] = {"fresh": image._version != version, "columns": columns}
        self.plain = answering(self.model, self.output, **self._laid_out)
        self.expected = one.clone() if columns is None else one.reshape(1, columns)
        self._check_independence(three)

    @classmethod
    def of(
        cls,
        model: Any,
        example: Tensor,
        precision: str = "float32",
        output: Output = None,
    ) -> "Network":
        """`model` itself if it is prepared already, for this precision, else prepared."""
        if isinstance(model, Network):
            if model.precision != precision:
                raise MethodError(
                    f"precision={precision!r} with a Network prepared for {model.precision!r}; expected the same: "
                    "prepare it with Network(model, example, precision)."
                )
            if output is not None and output != model.output:
                raise MethodError(
                    f"output={output!r} with a Network prepared for {model.output!r}; expected the same: prepare it "
                    "with Network(model, example, output=output)."
                )
            if example.shape[1:] != model.example.shape[1:]:
                model._run(model.place(example[:1]).clone())
            return model
        return cls(model, example, precision, output)

    @classmethod
    def entered(
        cls,
        model: Any,
        images: Tensor,
        target: Any,
        precision: str = "float32",
        output: Output = None,
    ) -> "tuple[Network, Tensor, Tensor | None]":
        """A call's network, a copy of its checked images as the network takes them, and its checked targets."""
        network = cls.of(model, images[:1], precision, output)
        inputs = network.place(images).clone()
        return network, inputs, network.targets(target, len(inputs))

    def place(self, images: Tensor) -> Tensor:
        """The images on the device and of the type that the network computes in."""
        return images.to(self.kind.device, self.kind.dtype)

    def _kind(self, example: Tensor) -> Tensor:
        """An empty tensor of the device and type of images; weights of half precision are made float32 if that runs."""
        weights = next(weights_of(self.model), example)
        exact = torch.float64 if weights.dtype == torch.float64 else torch.float32
        if any(tensor.dtype in HALVES for tensor in weights_of(self.model)):
            full = copy.deepcopy(self.model).float()
            try:
                outputs_of(full, example[:1].to(weights.device, exact))
                self.model = full
            except RuntimeError as error:
                logger.info("%s stays in half precision: %s", self.name, error)
        return torch.empty(0, device=weights.device, dtype=exact)

    @cached_property
    def folded(self) -> nn.Module:
        """The same function, faster: batch normalisation folded into the layer before, weights channels-last.

        A torch.fx graph where the model can be traced. Folding is kept only if the outputs stay the same, and the
        layout only if the model does not view what it needs channel first.
        """
        return folded(self.plain, self.example, self.expected, traceable=self._traceable)

    @cached_property
    def quick(self) -> nn.Module:
        """`folded` in the precision asked for; returns float32. In float32 where a layer does not know the other."""
        if self.precision == "float32":
            return self.folded
        try:
            quick = in_precision(self.folded, self.precision)
            with torch.enable_grad():
                leaf = self.example.clone().requires_grad_()
                outputs = quick(leaf.clone())
                if outputs.requires_grad:
                    torch.autograd.grad(outputs.sum(), leaf)
            return quick
        except (RuntimeError, NotImplementedError) as error:
            logger.warning(
                "%s does not run in %s (%s), so float32 is used.", self.name, self.precision, error
            )
            return self.folded

    @cached_property
    def graph(self) -> GraphModule:
        """`folded` as a torch.fx graph, whose layers can be told apart.

        Raises
        ------
        UnsupportedModelError
            If the model cannot be traced.
        """
        if isinstance(self.folded, GraphModule):
            return self.folded
        try:
            if not self._traceable:
                raise RuntimeError("it switches gradients off or on")
            graph = trace(self.folded)
            refuse_own_gradients(self.plain, self.example)
            outputs_of(graph, self.example)
            return graph
        except (
            Exception
        ) as error:  # tracing runs the model's own code, which may raise anything on what it is given
            raise UnsupportedModelError(
                f"The forward pass of {self.name} cannot be traced by torch.fx, so its layers cannot be told apart: "
                f"{error}. Use a gradient method, or take decisions on values and custom functions out of its forward "
                "pass."
            ) from error

    @cached_property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers with a state of their own, weights or running statistics, in the order in which they run.

        Layers that do not run as modules, as within a fast path of PyTorch, stand where the module around them runs.
        """
        runs = self._first_runs()
        own = [name for name, module in self.model.named_modules() if has_state(module)]
        return tuple(sorted(own, key=lambda name: _run_of(name, runs)))

    def _first_runs(self) -> dict[str, int]:
        """When each module runs first, by name, counted from 0."""
        runs: dict[str, int] = {}

        def note(name: str, *_: Any) -> None:
            runs.setdefault(name, len(runs))

        hooks = [
            module.register_forward_pre_hook(partial(note, name))
            for name, module in self.model.named_modules()
        ]
        try:
            with torch.no_grad():
                self.model(self.example.clone())
        finally:
            for hook in hooks:
                hook.remove()
        return runs

    @property
    def n_outputs(self) -> int:
        """Number of classes, or 1 for a regression."""
        return 1 if self.expected.ndim == 1 else self.expected.shape[1]

    @property
    def first_class(self) -> Tensor | None:
        """A target that the network has, (1,): class 0, or None for a single output."""
        return None if self.n_outputs == 1 else torch.zeros(1, dtype=torch.int64, device=self.example.device)

    def targets(self, target: Any, n_images: int) -> Tensor | None:
        """The class to explain for each of n images, checked to be there; None for a single output.

        Raises
        ------
        TargetError, ShapeError
            If there are no such classes, or not one for each image.
        UnsupportedModelError
            If the network returns neither (batch, classes) nor (batch,).
        """
        classes = checked_target(target, n_images, self.example.device)
        select(self.expected.expand(n_images, *self.expected.shape[1:]), classes, n_images)
        return classes

    @cached_property
    def log_odds(self) -> "Network":
        """The network of two classes with one output, see `xaitools.models.surgery.log_odds`."""
        return Network(log_odds(self.plain, self.example), self.example, self.precision)

    @cached_property
    def without_biases(self) -> "Network":
        """The network with all biases 0, see `xaitools.models.surgery.without_biases`."""
        return Network(without_biases(self.graph, self.example), self.example, self.precision)

    def randomized(self, layers: Iterable[str], seed: int = 0) -> "Network":
        """A twin in which the weights of these layers are drawn anew, as their own `reset_parameters` does.

        What is drawn for a layer depends on the seed and its name only, so that twins of more layers agree in those
        that they share. Running statistics, as of batch normalisation, go back to mean 0 and variance 1. Parameters
        that a layer does not draw itself, such as class tokens and positions of a transformer, are drawn from a normal
        distribution of their own mean and standard deviation. How a network's constructor draws its layers on top
        of their own `reset_parameters` is not known here. What is not drawn anew is shared with this network: train a
        copy of the twin's `model`, not the model itself.

        Raises
        ------
        ParameterError
            If there is no such layer.
        """
        layers = list(layers)
        for name in layers:
            check_choice(ParameterError, layer=(name, self.layers))
        drawn = {id(tensor) for name in layers for tensor in weights_of(self.model.get_submodule(name))}
        other = frozen_copy(
            self.model, [tensor for tensor in weights_of(self.model) if id(tensor) not in drawn]
        )
        with torch.random.fork_rng():
            for name in layers:
                torch.manual_seed(REDRAWN + seed + zlib.crc32(name.encode()))
                redraw(other.get_submodule(name))
        return self._twin(other)

    def _twin(self, model: nn.Module) -> "Network":
        """A network of the same architecture with other weights: what was checked on this one is not checked again."""
        other = object.__new__(Network)
        same = ("name", "precision", "kind", "example", "output", "_traceable", "_laid_out")
        other.__dict__ |= {name: self.__dict__[name] for name in same}
        other.model = model
        other.plain = answering(model, self.output, **self._laid_out)
        other.layers = self.layers
        with torch.no_grad():
            other.expected = other.plain(self.example.clone())
        other._check_numbers(other.expected)
        return other

    def forward(self, images: Tensor, target: Tensor | None) -> tuple[Tensor, Tensor]:
        """The images as a leaf of the autograd graph, and their outputs to explain, (batch,), of `quick`.

        Raises
        ------
        UnsupportedModelError
            If the outputs do not depend on the images.
        """
        with torch.enable_grad():
            leaf = images.detach().requires_grad_()
            outputs = self.quick(leaf.clone())  # a clone, as the first layer may work in place
            scores = select(outputs, target, len(images))
        if not scores.requires_grad:
            raise UnsupportedModelError(
                f"The output of {self.name} does not depend on its input through differentiable operations, so it has "
                "no gradient. Remove torch.no_grad, detach or argmax from its forward pass."
            )
        return leaf, scores

    def gradients(self, images: Tensor, target: Tensor | None) -> Tensor:
        """Gradient of each image's output to explain with respect to that image, shaped like `images`."""
        return gradients_of(*self.forward(images, target), self.name)

    def scores(self, images: Tensor, target: Tensor | None, batch_size: int = 16) -> Tensor:
        """The output to explain for each image, (batch,), without a gradient."""
        with torch.no_grad():
            return torch.cat(
                [
                    select(self.quick(part.clone()), own, len(part))
                    for part, own in _parts(images, target, batch_size)
                ]
            )

    def _run(self, images: Tensor) -> Any:
        try:
            return self.model(images)
        except XaitoolsError:  # of a module of ours around it
            raise
        except Exception as error:
            self._check_channels(images)
            alone = "one image" if len(images) == 1 else f"{len(images)} images at once"
            raise UnsupportedModelError(
                f"The network {self.name} does not run on {alone} of shape {tuple(images.shape[1:])} "
                f"({type(error).__name__}: {error}). Give images of the channels and size that it was made for, and a "
                "network that takes any number of them as float32, without autocast or half precision inside."
            ) from error

    def _check_channels(self, images: Tensor) -> None:
        """Compare images on which the model does not run with its first layer, where that is a convolution."""
        first = next(
            (layer for layer in self.model.modules() if not any(True for _ in layer.children())), None
        )
        if not isinstance(first, nn.Conv2d | nn.Conv3d) or images.ndim != first.weight.ndim:
            return
        if images.shape[1] != first.in_channels:
            raise ShapeError(
                f"images of {images.shape[1]} channels with {self.name}, whose first layer takes {first.in_channels}; "
                f"expected {first.in_channels}: repeat a grey image with "
                f"images.expand(-1, {first.in_channels}, {', '.join(['-1'] * (images.ndim - 2))}), or adapt the layer."
            )

    def _check_numbers(self, outputs: Tensor) -> None:
        if not outputs.is_floating_point():
            raise UnsupportedModelError(
                f"The network {self.name} returns {outputs.dtype}; expected scores, real numbers: take argmax and "
                "rounding out of its forward pass."
            )
        if not torch.isfinite(outputs).all():
            raise UnsupportedModelError(
                f"The network {self.name} returns NaN or infinity on these images, so they have no explanation. Check "
                "its weights and the range of the images."
            )

    def _company(self) -> Tensor:
        """The example between two others of its own range, shifted and scaled beyond it on both sides."""
        low, high = self.example.min(), self.example.max()
        wide = (high - low).clamp(min=1e-3)
        middle = (low + high) / 2
        other = (self.example.flip(-1) - middle) * 10 + middle
        return torch.cat([other + 2 * wide, self.example, other.flip(-2) - 3 * wide])

    def _check_independence(self, three: Tensor) -> None:
        """Compare the outputs of `_company` with those of the example alone, and with those among its own copies.

        The last tell what rounding makes of a batch, which is much where a network computes in half precision.
        """
        if not three.ndim or len(three) != 3 or three[1].numel() != self.expected.numel():
            self._check_determinism()
            what = f"have the shape {tuple(three.shape)} for 3 images, so they are not one row an image"
        else:
            alone, scale = self.expected.view_as(three[1]), self.expected.abs().max()
            if (three[1] - alone).abs().max() <= INDEPENDENT * scale:
                return
            self._check_determinism()
            copies = self.example.repeat(3, *[1] * (self.example.ndim - 1))
            with torch.no_grad():
                among = picked(self._run(copies), self.output, self.name)[0]
            rounding = (among - alone).abs().max()
            most = (ROUGH if computes_in_halves(self.model, self.example) else ROUNDING) * scale
            if (three[1] - alone).abs().max() <= min(4 * rounding, most):
                return
            what = "depend on the other images of the batch, so its gradients mix images"
        raise UnsupportedModelError(
            f"The outputs of {self.name} for an image {what}. Look for normalisation by batch statistics "
            "(track_running_stats=False), and for minima, maxima and sums over the first axis."
        )

    def _check_determinism(self) -> None:
        if not same_outputs(outputs_of(self.plain, self.example), self.expected):
            raise UnsupportedModelError(
                f"The network {self.name} answers the same image differently each time, in evaluation mode: it draws "
                "random numbers, or keeps something from call to call. Look for F.dropout without "
                "training=self.training, for noise, and for counters in its forward pass."
            )


def _run_of(name: str, runs: dict[str, int]) -> int:
    """When the module of that name runs, or else the one around it."""
    while name and name not in runs:
        name = name.rpartition(".")[0]
    return runs.get(name, 0)


def gradients_of(leaf: Tensor, scores: Tensor, name: str = "the network") -> Tensor:
    """Gradient of each score with respect to its own image, of what `Network.forward` returned.

    Raises
    ------
    UnsupportedModelError
        If autograd cannot give it.
    """
    try:
        return torch.autograd.grad(scores, leaf, torch.ones_like(scores))[0]
    except RuntimeError as error:
        if not str(error).startswith(AUTOGRAD):
            raise
        raise UnsupportedModelError(
            f"PyTorch cannot differentiate {name} ({error}); expected a network that can be trained by gradients: take "
            "operations in place on values that are used again, and on overlapping views, out of its forward pass."
        ) from error


def select(outputs: Tensor, target: Tensor | None, n_images: int | None = None) -> Tensor:
    """The output to explain for each image: shape (batch,).

    Raises
    ------
    TargetError
        If a target is not one of the outputs, or none is given although the network has several.
    UnsupportedModelError
        If the outputs are neither (batch, classes) nor (batch,), or not one row for each of the images.
    """
    if outputs.ndim == 1:
        outputs = outputs[:, None]
    if outputs.ndim != 2:
        raise UnsupportedModelError(
            f"The network returns outputs of shape {tuple(outputs.shape)}; expected (batch, classes) or (batch,). "
            "For a segmentation use attribute_segmentation, which sums a class over a region; else wrap the network so "
            "that it returns one score a class."
        )
    rows, classes = outputs.shape
    wanted = n_images if target is None else len(target)
    if wanted is not None and rows != wanted:
        raise UnsupportedModelError(
            f"The network returns {rows} rows of outputs for {wanted} images; expected one an image: look for squeeze, "
            "view and sums over the first axis in its forward pass."
        )
    if target is None:
        if classes != 1:
            raise TargetError(
                f"target=None with a network of {classes} outputs; expected one output, as of a regression: name a "
                "class."
            )
        return outputs[:, 0]
    check_within(target, classes)
    return outputs.gather(1, target[:, None])[:, 0]


def _parts(images: Tensor, target: Tensor | None, size: int) -> Iterable[tuple[Tensor, Tensor | None]]:
    for start in range(0, len(images), size):
        part = slice(start, start + size)
        yield images[part], None if target is None else target[part]
