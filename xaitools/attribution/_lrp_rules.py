"""Rules of layer-wise relevance propagation: how a linear layer hands relevance down to its inputs.

Every rule shares out the relevance R of an output in proportion to *contributions* that add up to a *part*:
R_i = sum_j contribution_ij / part_j R_j. A rule for inner layers builds its parts from the layer's input, weight and
bias; one for the first layer also from images that bound the input. Rules and presets have zennit's names and
definitions.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from xaitools.errors import MethodError, UnsupportedModelError

STABILIZER = 1e-6
"""Added to the magnitude of denominators, so that none is zero; zennit's value."""

Linear = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""A convolution, dense or diagonal layer as a function of input, weight and bias."""
Parts = list[tuple[Tensor, Tensor | float]]
"""Sums of contributions, each with the fraction of the relevance that goes to it."""


@dataclass(frozen=True)
class Shared:
    """A layer's output and how its relevance is shared out.

    Attributes
    ----------
    value
        Output of the layer.
    parts
        What shares the output's relevance out.
    stabilizer
        Added to the magnitude of each part before dividing by it.
    """

    value: Tensor
    parts: Parts
    stabilizer: float = STABILIZER


LayerRule = Callable[[Linear, Tensor, Tensor, Tensor | None, bool], Shared]
"""``rule(layer, input, weight, bias, rectified)``; outputs below 0 do not matter if only ReLUs follow, `rectified`."""


@dataclass(frozen=True)
class FirstRule:
    """Rule for the first layer.

    Attributes
    ----------
    images
        Numbers or images (channel, *spatial) that go to the first layer beside the input.
    part
        ``part(layer, input, weight, *images)``.
    """

    images: tuple[Tensor | float, ...]
    part: Callable[..., Tensor]


@dataclass(frozen=True)
class Composite:
    """Which rule holds where.

    Attributes
    ----------
    convolution, dense
        Rules of the inner layers; a batch normalisation that stands alone follows `convolution`.
    first
        Rule of the first layer; None if it is like the others.
    own_sign_sums
        Whether sums and average pools share relevance out among contributions of the result's sign, or among all.
    """

    convolution: LayerRule
    dense: LayerRule
    first: FirstRule | None = None
    own_sign_sums: bool = False


def epsilon_rule(
    epsilon: float, layer: Linear, x: Tensor, weight: Tensor, bias: Tensor | None, rectified: bool
) -> Shared:
    """All contributions, with the bias in the denominator (Bach et al. 2015, equation 58)."""
    part = layer(x, weight, bias)
    return Shared(part.detach(), [(part, 1.0)], epsilon)


def alpha_beta_rule(
    alpha: float, layer: Linear, x: Tensor, weight: Tensor, bias: Tensor | None, rectified: bool
) -> Shared:
    """`alpha` times the positive minus `alpha` - 1 times the negative ones (Bach et al. 2015, equation 60)."""
    up, down = weight.clamp(min=0), weight.clamp(max=0)
    bias_up, bias_down = (None, None) if bias is None else (bias.clamp(min=0), bias.clamp(max=0))
    parts: Parts = [(_by_sign(layer, x, up, bias_up, down), alpha)]
    if alpha != 1.0:
        parts.append((_by_sign(layer, x, down, bias_down, up), 1.0 - alpha))
    return Shared(_value(layer, x, weight, bias), parts)


def z_plus_rule(layer: Linear, x: Tensor, weight: Tensor, bias: Tensor | None, rectified: bool) -> Shared:
    """Contributions of the output's own sign, the bias left out.

    For outputs above 0 this is z+ (Montavon et al. 2017, section 4.1). An output below 0 is taken as minus one above.
    """
    up, down = weight.clamp(min=0), weight.clamp(max=0)
    value = _value(layer, x, weight, bias)
    positive = _by_sign(layer, x, up, None, down)
    if rectified:
        return Shared(value, [(positive, 1.0)])
    return Shared(value, own_sign(value, positive, _by_sign(layer, x, down, None, up)))


def gamma_rule(
    gamma: float, layer: Linear, x: Tensor, weight: Tensor, bias: Tensor | None, rectified: bool
) -> Shared:
    """Contributions of the output's own sign are raised by `gamma` (Montavon et al. 2019, section 10.2.1).

    That rule is for inputs and outputs above 0; below, it is extended as by Andeol et al. 2021, arXiv:2111.14198.
    """
    up, down = weight + gamma * weight.clamp(min=0), weight + gamma * weight.clamp(max=0)
    value = _value(layer, x, weight, bias)
    positive = _by_sign(layer, x, up, None if bias is None else bias + gamma * bias.clamp(min=0), down)
    if rectified:
        return Shared(value, [(positive, 1.0)])
    negative = _by_sign(layer, x, down, None if bias is None else bias + gamma * bias.clamp(max=0), up)
    return Shared(value, own_sign(value, positive, negative))


def own_sign(value: Tensor, positive: Tensor, negative: Tensor) -> Parts:
    """`positive` for values above 0, `negative` for those below."""
    above = (value > 0).to(value.dtype)
    return [(positive, above), (negative, 1 - above)]


def _value(layer: Linear, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    with torch.no_grad():
        return layer(x, weight, bias)


def _by_sign(layer: Linear, x: Tensor, above: Tensor, bias: Tensor | None, below: Tensor) -> Tensor:
    """The layer with weight `above` for inputs above 0 and `below` for those below."""
    if bool((x >= 0).all()):  # behind a ReLU: half the work
        return layer(x, above, bias)
    return layer(x.clamp(min=0), above, bias) + layer(x.clamp(max=0), below, None)


def box_rule(low: Tensor | float, high: Tensor | float) -> FirstRule:
    """z^B: contributions counted from the bounds of the pixels (Montavon et al. 2017, section 4.2)."""

    def part(layer: Linear, x: Tensor, weight: Tensor, low: Tensor, high: Tensor) -> Tensor:
        least, most = torch.minimum(low, high), torch.maximum(low, high)  # a negative scaling swaps them
        up, down = weight.clamp(min=0), weight.clamp(max=0)
        return layer(x, weight, None) - layer(least, up, None) - layer(most, down, None)

    return FirstRule((low, high), part)


def flat_rule() -> FirstRule:
    """Equal shares for all inputs of an output (Lapuschkin et al. 2019, arXiv:1902.10178)."""

    def part(layer: Linear, x: Tensor, weight: Tensor, ones: Tensor) -> Tensor:
        if not bool((ones == 1).all()):
            raise UnsupportedModelError(
                "The network scales the image before its first layer, so the flat rule cannot give its pixels equal "
                "shares; scale the images beforehand, or choose a rule without 'flat'."
            )
        return layer(ones, torch.ones_like(weight), None)

    return FirstRule((1.0,), part)


def check_bounds(images: Tensor, low: Tensor | float, high: Tensor | float) -> None:
    """Raise MethodError unless all `images` lie from `low` to `high`, numbers or images (channel, *spatial)."""
    try:
        least, most = (torch.as_tensor(bound).to(images).expand_as(images) for bound in (low, high))
    except RuntimeError as error:
        raise MethodError(
            f"The bounds low and high do not fit images of shape {tuple(images.shape[1:])} (channel, *spatial); give "
            "numbers, or tensors that broadcast to it."
        ) from error
    if not bool((least < most).all()):
        raise MethodError("low is not below high everywhere; they bound the values that a pixel can take.")
    if bool(((images < least) | (images > most)).any()):
        raise MethodError(
            f"Images from {float(images.min()):g} to {float(images.max()):g} leave the bounds of the first layer's "
            f"rule, {float(least.min()):g} to {float(most.max()):g}; give low and high of your images."
        )


RULES = (
    "epsilon",
    "gamma",
    "alpha1_beta0",
    "alpha2_beta1",
    "epsilon_plus",
    "epsilon_plus_flat",
    "epsilon_alpha2_beta1",
    "epsilon_alpha2_beta1_flat",
    "epsilon_gamma_box",
)
"""First rules that hold in every layer, then zennit's composites: rule of dense layers, convolutions, first layer."""


def composite(
    name: str,
    *,
    epsilon: float = STABILIZER,
    gamma: float = 0.25,
    low: Tensor | float = 0.0,
    high: Tensor | float = 1.0,
) -> Composite:
    """The rules behind a name of `RULES`.

    Raises
    ------
    MethodError
        If there is no such name, or `epsilon` or `gamma` is negative.
    """
    if name not in RULES:
        raise MethodError(f"LRP has no rule {name!r}; it has {', '.join(RULES)}.")
    for key, value in {"epsilon": epsilon, "gamma": gamma}.items():
        if value < 0:
            raise MethodError(f"{key}={value}; expected 0 or more.")
    inner: dict[str, LayerRule] = {
        "epsilon": partial(epsilon_rule, epsilon),
        "gamma": partial(gamma_rule, gamma),
        "plus": partial(alpha_beta_rule, 1.0),
        "alpha1_beta0": partial(alpha_beta_rule, 1.0),
        "alpha2_beta1": partial(alpha_beta_rule, 2.0),
    }
    if name in inner:
        return Composite(inner[name], inner[name])
    first = {"flat": flat_rule(), "box": box_rule(low, high)}.get(name.rpartition("_")[2])
    convolution = name.removeprefix("epsilon_").removesuffix("_flat").removesuffix("_box")
    return Composite(inner[convolution], inner["epsilon"], first)


def deep_taylor_composite(low: Tensor | float = 0.0, high: Tensor | float = 1.0) -> Composite:
    """z+ in all layers and its like in sums and pools, z^B in the first layer."""
    return Composite(z_plus_rule, z_plus_rule, box_rule(low, high), own_sign_sums=True)
