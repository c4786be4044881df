"""A model made ready to be explained."""

from collections.abc import Iterable
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from xaitools.checks import check_choice, check_within, checked_target
from xaitools.errors import MethodError, ParameterError, TargetError, UnsupportedModelError
from xaitools.models.surgery import (
    NOT_TRACED,
    PRECISIONS,
    folded,
    frozen_copy,
    in_precision,
    log_odds,
    outputs_of,
    refuse_own_gradients,
    same_outputs,
    trace,
    without_biases,
)


class Network:
    """A model in the forms that explanations need, each made when it is first asked for; the model stays as it is.

    Whatever is made here is frozen and in evaluation mode. Weights are copied twice at most: as they are (`plain`) and
    with batch normalisation folded in (`folded`); the other forms share these.

    Parameters
    ----------
    model
        Network that returns (batch, classes) or (batch,).
    example
        An image or more (batch, channel, *spatial), on which every form is compared with the model.
    precision
        "float32", or "bf16" to compute the deeper layers of `quick` in bfloat16, which is faster on processors that
        know it.

    Attributes
    ----------
    name
        Name of the model's class, for messages.
    plain
        Copy whose modules have their own names and places.
    example
        The first image, on the device and of the type of the weights.
    expected
        What the model returns for it.

    Raises
    ------
    MethodError
        If `precision` has another value.
    UnsupportedModelError
        If the model cannot be copied, its outputs on `example` are not finite, or they depend on what else is in the
        batch.
    """

    def __init__(self, model: nn.Module, example: Tensor, precision: str = "float32"):
        check_choice(MethodError, precision=(precision, PRECISIONS))
        self.name = type(model).__name__
        self.precision = precision
        self.plain = frozen_copy(model)
        self.example = self.place(example[:1])
        self.expected = outputs_of(self.plain, self.example)
        self._check_finite()
        self._check_independence()

    @classmethod
    def of(cls, model: "nn.Module | Network", example: Tensor, precision: str = "float32") -> "Network":
        """`model` itself if it is prepared already, for this precision, else prepared."""
        if isinstance(model, Network):
            if model.precision != precision:
                raise MethodError(
                    f"precision={precision!r} with a Network prepared for {model.precision!r}; expected the same: "
                    "prepare it with Network(model, example, precision)."
                )
            return model
        return cls(model, example, precision)

    def place(self, images: Tensor) -> Tensor:
        """The images on the device and of the type of the weights."""
        return images.to(next(self.plain.parameters(), images))

    @cached_property
    def folded(self) -> nn.Module:
        """The same function, faster: batch normalisation folded into the layer before, weights channels-last.

        A torch.fx graph where the model can be traced. Folding is kept only if the outputs stay the same, and the
        layout only if the model does not view what it needs channel first.
        """
        return folded(self.plain, self.example, self.expected)

    @cached_property
    def quick(self) -> nn.Module:
        """`folded` in the precision asked for; returns float32."""
        return self.folded if self.precision == "float32" else in_precision(self.folded, self.precision)

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
            graph = trace(self.folded)
            refuse_own_gradients(self.plain, self.example)
            return graph
        except NOT_TRACED as error:
            raise UnsupportedModelError(
                f"The forward pass of {self.name} cannot be traced by torch.fx, so its layers cannot be told apart: "
                f"{error}. Use a gradient method, or take decisions on values and custom functions out of its forward "
                "pass."
            ) from error

    @cached_property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers with weights of their own, in the order in which they were defined."""
        return tuple(
            name
            for name, module in self.plain.named_modules()
            if any(True for _ in module.parameters(recurse=False))
        )

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
        select(self.expected.expand(n_images, *self.expected.shape[1:]), classes)
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

        Raises
        ------
        ParameterError
            If there is no such layer, or it does not say how its weights are drawn.
        """
        layers = list(layers)
        for name in layers:
            check_choice(ParameterError, layer=(name, self.layers))
        other = frozen_copy(self.plain)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            for name in layers:
                layer = other.get_submodule(name)
                if not callable(reset := getattr(layer, "reset_parameters", None)):
                    raise ParameterError(
                        f"layer={name!r} is a {type(layer).__name__}, which has no reset_parameters; expected a layer "
                        "that draws its own weights: name the layers inside it."
                    )
                reset()
        return Network(other, self.example, self.precision)

    def forward(self, images: Tensor, target: Tensor | None) -> tuple[Tensor, Tensor]:
        """The images as a leaf of the autograd graph, and their outputs to explain, (batch,), of `quick`.

        Raises
        ------
        UnsupportedModelError
            If the outputs do not depend on the images.
        """
        with torch.enable_grad():
            leaf = images.detach().requires_grad_()
            scores = select(self.quick(leaf.clone()), target)  # a clone, as the first layer may work in place
        if not scores.requires_grad:
            raise UnsupportedModelError(
                f"The output of {self.name} does not depend on its input through differentiable operations, so it has "
                "no gradient. Remove torch.no_grad, detach or argmax from its forward pass."
            )
        return leaf, scores

    def gradients(self, images: Tensor, target: Tensor | None) -> Tensor:
        """Gradient of each image's output to explain with respect to that image, shaped like `images`."""
        return gradients_of(*self.forward(images, target))

    def scores(self, images: Tensor, target: Tensor | None, batch_size: int = 16) -> Tensor:
        """The output to explain for each image, (batch,), without a gradient."""
        with torch.no_grad():
            return torch.cat(
                [select(self.quick(part), own) for part, own in _parts(images, target, batch_size)]
            )

    def _check_finite(self) -> None:
        if not torch.isfinite(self.expected).all():
            raise UnsupportedModelError(
                f"The network {self.name} returns NaN or infinity on these images, so they have no explanation. Check "
                "its weights and the range of the images."
            )

    def _check_independence(self) -> None:
        company = torch.cat([self.example, 1 - self.example.flip(-1)])
        if not same_outputs(outputs_of(self.plain, company)[:1], self.expected):
            raise UnsupportedModelError(
                f"The outputs of {self.name} for an image depend on the other images of the batch, so its gradients "
                "mix images. Look for normalisation by batch statistics (track_running_stats=False)."
            )


def gradients_of(leaf: Tensor, scores: Tensor) -> Tensor:
    """Gradient of each score with respect to its own image, of what `Network.forward` returned."""
    return torch.autograd.grad(scores, leaf, torch.ones_like(scores))[0]


def select(outputs: Tensor, target: Tensor | None) -> Tensor:
    """The output to explain for each image: shape (batch,).

    Raises
    ------
    TargetError
        If a target is not one of the outputs, or none is given although the network has several.
    UnsupportedModelError
        If the outputs are neither (batch, classes) nor (batch,).
    """
    if outputs.ndim == 1:
        outputs = outputs[:, None]
    if outputs.ndim != 2:
        raise UnsupportedModelError(
            f"The network returns outputs of shape {tuple(outputs.shape)}; expected (batch, classes) or (batch,). "
            "Wrap it so that it returns one score a class, for example by averaging over the remaining axes."
        )
    classes = outputs.shape[1]
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
