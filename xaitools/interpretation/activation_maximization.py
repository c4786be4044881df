"""The image that a unit of the network likes best, made by gradient ascent."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from numbers import Integral
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from xaitools.checks import check_choice, check_counts, check_positive, checked_images
from xaitools.errors import MethodError, ParameterError, TargetError, UnsupportedModelError
from xaitools.interpretation.features import as_stack, checked_module, layer_outputs
from xaitools.models import ImageStack, Network
from xaitools.models.images import batches
from xaitools.models.outputs import in_columns
from xaitools.progress import Progress, Teller

STARTS = ("noise", "mean")
BLURRED, RECORDED = 4, 8
"""Steps from one blur to the next, and from one activation in the history to the next: each follows a blur."""


@dataclass(frozen=True)
class Maximized:
    """Images that maximise units, and how much these like them.

    Attributes
    ----------
    images
        (unit, channel, *spatial), float32 on the CPU, in the unit of the network's images.
    units
        The units, in the order of the images.
    history
        A row for each eighth step, the last one and each unit: ``step`` (0 for the start), ``unit``, ``activation`` in
        standard deviations from the mean over real images, of the image as it is, without jitter.
    strongest
        The strongest activation of each unit by a real image, in the same measure: beyond it no image has ever been.
    """

    images: Float[Tensor, "unit channel *spatial"]
    units: tuple[int, ...]
    history: pd.DataFrame
    strongest: tuple[float, ...]


def activation_maximization(
    model: nn.Module | Network,
    images: Float[Tensor, "n channel *spatial"] | Float[np.ndarray, "n channel *spatial"] | ImageStack,
    units: int | np.integer | Sequence[int] = 0,
    *,
    layer: str | None = None,
    start: str = "noise",
    steps: int = 200,
    learning_rate: float = 0.05,
    l2: float = 0.1,
    total_variation: float = 0.1,
    jitter: int = 1,
    blur: float = 0.5,
    bounds: tuple[float, float] | None = None,
    seed: int = 0,
    progress: bool | Progress = True,
) -> Maximized:
    """Images that maximise classes, channels or units, by Adam under the usual regularisers.

    What is maximised for a unit is ``z - l2 * mean(d ** 2) - total_variation * mean(|differences of neighbours|)``:
    z is the unit's activation in standard deviations from its mean over `images`, d the deviation of the image from the
    mean of `images`, and intensities are counted in their standard deviation over `images`, so that the same settings
    suit every network and every unit of intensity. A class's score before the softmax is maximised, as its probability
    can be raised by lowering the other classes.

    The result is a stimulus and not an anatomy: it shows what excites the unit most, with these regularisers, not what
    it answers to in real images. Show it beside images of strong activation.

    Parameters
    ----------
    model
        The network; it stays as it is.
    images
        Real images, as those of the training set: they give shape, mean, spread and bounds.
    units
        Classes, or channels of `layer`; the images of all are made at once.
    layer
        A layer by its name in the model. Its channels count by their mean over all cells. None for the network's
        output. Behind a ReLU a unit may be off everywhere, and its image stays the start: name the layer before it.
    start
        "noise": the mean of `images` and a tenth of their standard deviation of noise; "mean": without noise.
    steps, learning_rate
        Steps of Adam; the rate in standard deviations of the intensities.
    l2, total_variation
        Weights of the penalties, 0 for none.
    jitter
        Voxels by which the image is at most rolled along each axis before each step, 0 for none.
    blur
        Standard deviation in voxels of the Gaussian by which the image is blurred after every fourth step, 0 for none.
    bounds
        Smallest and largest intensity; None for those of `images`, ``(-inf, inf)`` for none.
    seed
        Fixes noise and jitter.
    progress
        Show a bar, or a function ``progress(done, total)`` that is told of every step.

    Returns
    -------
    Maximized

    Raises
    ------
    TargetError
        If there is no such class or channel.
    MethodError
        If there is no such layer.
    ParameterError
        If a setting is out of its range.
    UnsupportedModelError
        If a unit does not depend on the image through differentiable operations.

    References
    ----------
    Simonyan et al. 2014, Deep inside convolutional networks, arXiv:1312.6034, section 2 (L2). Mahendran and Vedaldi
    2016, Visualizing deep convolutional neural networks using natural pre-images, arXiv:1512.02017 (total variation,
    jitter). Yosinski et al. 2015, Understanding neural networks through deep visualization, arXiv:1506.06579 (blur).
    """
    check_choice(start=(start, STARTS))
    check_counts(steps=steps)
    check_positive(learning_rate=learning_rate)
    _check_not_negative(l2=l2, total_variation=total_variation, jitter=jitter, blur=blur)
    stack = as_stack(images)
    network = Network.of(model, checked_images(stack[:1]))
    unit = _Units(
        network, layer, stack, (int(units),) if isinstance(units, int | np.integer) else tuple(units)
    )
    mean, deviation, low, high = _intensities(network, stack)
    low, high = (low, high) if bounds is None else bounds
    if not low < high:
        raise ParameterError(f"bounds={(low, high)}; expected the smallest intensity and a larger one.")
    random = torch.Generator().manual_seed(seed)
    n, shape = len(unit.numbers), mean.shape
    noise = (
        torch.randn(n, *shape, generator=random).to(mean)
        if start == "noise"
        else torch.zeros(n, *shape).to(mean)
    )
    image = (mean + 0.1 * deviation * noise).clamp(low, high).requires_grad_()
    optimizer = torch.optim.Adam([image], lr=learning_rate * deviation)
    recorded, curve = [0], [unit.of(image)]
    with Teller(steps, progress, "maximising", "step") as tell:
        for step in range(1, steps + 1):
            z = unit.of(_rolled(image, jitter, random), gradient=True)
            penalty = l2 * ((image - mean) / deviation).square().mean() * n
            penalty = penalty + total_variation * _variation(image / deviation) * n
            optimizer.zero_grad()
            (image.grad,) = torch.autograd.grad(penalty - z.sum(), [image])
            optimizer.step()
            with torch.no_grad():
                if blur and step % BLURRED == 0:
                    image.copy_(_blurred(image, blur))
                image.clamp_(low, high)
            if step % RECORDED == 0 or step == steps:
                recorded.append(step)
                curve.append(unit.of(image))
            tell(1)
    activations = torch.stack(curve).cpu()
    history = pd.DataFrame(
        {
            "step": np.repeat(recorded, n),
            "unit": np.tile(unit.numbers, len(recorded)),
            "activation": activations.flatten().double().numpy(),
        }
    )
    return Maximized(image.detach().float().cpu(), unit.numbers, history, unit.strongest)


class _Units:
    """Activations of units in standard deviations from their mean over real images."""

    def __init__(
        self, network: Network, layer: str | None, images: ImageStack, numbers: tuple[int, ...]
    ) -> None:
        self.network, self.layer = network, layer
        if layer is None:
            device = network.example.device
            parts = [network.place(checked_images(batch)) for batch in batches(images, 16, device)]
            with torch.no_grad():
                found = [in_columns(network.plain(part.clone()), len(part)) for part in parts]
        else:
            found = [
                _channels(outputs, layer, network.name) for outputs in layer_outputs(network, images, layer)
            ]
        real = torch.cat(found)
        if not numbers:
            raise ParameterError("units is empty; expected at least one class or channel.")
        for number in numbers:
            if (
                isinstance(number, bool)
                or not isinstance(number, Integral)
                or not 0 <= number < real.shape[1]
            ):
                raise TargetError(
                    f"unit {number!r} with {real.shape[1]} {'outputs' if layer is None else 'channels'} of "
                    f"{layer or network.name}; expected 0 to {real.shape[1] - 1}: choose one of them."
                )
        self.numbers = tuple(map(int, numbers))
        self.index = torch.tensor(self.numbers, device=real.device)
        chosen = real[:, self.index]
        self.mean = chosen.mean(0)
        spread = chosen.std(0, correction=0)
        self.spread = torch.where(spread > 0, spread, 1.0)
        self.strongest = tuple(((chosen.amax(0) - self.mean) / self.spread).tolist())

    def of(self, images: Tensor, *, gradient: bool = False) -> Tensor:
        """The activation of each unit by its own image, (unit,)."""
        with torch.set_grad_enabled(gradient):
            # Batch normalisation's backward pass in PyTorch 2.14 can be wrong for one image.
            alone = gradient and len(images) == 1
            copies = images.repeat(2, *[1] * (images.ndim - 1)) if alone else images.clone()
            outputs = self._outputs(copies)[: len(images)]
            own = outputs.gather(1, self.index[:, None])[:, 0]
            if gradient and not own.requires_grad:
                raise UnsupportedModelError(
                    f"{self.layer or 'The output'} of {self.network.name} does not depend on the image through "
                    "differentiable operations; remove torch.no_grad, detach or argmax before it."
                )
            return (own - self.mean) / self.spread

    def _outputs(self, images: Tensor) -> Tensor:
        if self.layer is None:
            return in_columns(self.network.plain(images), len(images))
        kept: list[Tensor] = []
        module = checked_module(self.network, self.layer)
        hook = module.register_forward_hook(partial(_keep, kept))
        try:
            self.network.plain(images)
        finally:
            hook.remove()
        return _channels(kept[-1], self.layer, self.network.name)


def _keep(kept: list[Tensor], module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
    """Keep the output; the network goes on with a copy, as it may work in place."""
    kept.append(output)
    return output.clone()


def _channels(outputs: Tensor, layer: str, name: str) -> Tensor:
    """Mean of each channel over its cells, (n, channel)."""
    if outputs.ndim < 2:
        raise MethodError(
            f"layer={layer!r} of {name} returns the shape {tuple(outputs.shape)}; expected (n, channel, ...): name "
            "another layer."
        )
    return outputs.flatten(2).mean(2) if outputs.ndim > 2 else outputs


def _intensities(network: Network, images: ImageStack) -> tuple[Tensor, float, float, float]:
    """Mean image, standard deviation of all intensities around their one mean, smallest and largest intensity."""
    total, squares, count = torch.zeros_like(network.example[0], dtype=torch.float64), 0.0, 0
    one, low, high = 0.0, float("inf"), float("-inf")
    for batch in batches(images, 16, network.example.device):
        values = checked_images(batch).double()
        total = total + values.sum(0)
        one, squares, count = (
            one + float(values.sum()),
            squares + float(values.square().sum()),
            count + values.numel(),
        )
        low, high = min(low, float(values.min())), max(high, float(values.max()))
    variance = squares / count - (one / count) ** 2
    deviation = variance**0.5 if variance > 0 else 1.0
    return (total / len(images)).to(network.example), deviation, low, high


def _rolled(images: Tensor, most: int, random: torch.Generator) -> Tensor:
    if not most:
        return images
    axes = tuple(range(2, images.ndim))
    shifts = torch.randint(-most, most + 1, (len(axes),), generator=random).tolist()
    return images.roll(tuple(shifts), axes)


def _variation(images: Tensor) -> Tensor:
    """Mean absolute difference of neighbours, summed over the axes."""
    return torch.stack([images.diff(dim=axis).abs().mean() for axis in range(2, images.ndim)]).sum()


def _blurred(images: Tensor, deviation: float) -> Tensor:
    """Gaussian blur of each channel, the border repeated, down to 3 standard deviations."""
    reach = max(1, round(3 * deviation))
    weights = torch.exp(-0.5 * (torch.arange(-reach, reach + 1).to(images) / deviation) ** 2)
    weights = weights / weights.sum()
    for axis in range(2, images.ndim):
        rows = images.movedim(axis, -1)
        flat = rows.reshape(-1, 1, rows.shape[-1])
        flat = F.conv1d(F.pad(flat, (reach, reach), mode="replicate"), weights.view(1, 1, -1))
        images = flat.view(rows.shape).movedim(-1, axis)
    return images


def _check_not_negative(**numbers: float) -> None:
    for name, value in numbers.items():
        if not 0 <= value < float("inf"):
            raise ParameterError(f"{name}={value!r}; expected 0 or more.")
