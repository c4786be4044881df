"""Sliding windows: a large volume passed through a network of small ones, as MONAI's `sliding_window_inference` does.

The stitched prediction is the mean of the windows' predictions, weighted by an importance that may fall off towards
their edges. A sum of it over a region is a sum over windows of their predictions under weights of their own, so that
the network of the whole volume is a sum of independent branches, one a window: its gradient, and what any rule of
back-propagation gives, is the sum of theirs. One window at a time is in memory.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx.proxy import TraceError

from xaitools.attribution._rebinding import fill
from xaitools.attribution._stream import Batch, Gap, Passes, Plan
from xaitools.attribution.registry import Method, Setting
from xaitools.checks import check_choice
from xaitools.errors import ParameterError, UnsupportedModelError
from xaitools.models.network import Network, gradients_of

MODES = ("constant", "gaussian")
LEAST_IMPORTANCE = 1e-3

Box = tuple[slice, ...]
"""A part of the voxels, one slice an axis."""


def spatial(box: Box) -> Any:
    """The index of a part of the voxels in (..., *spatial)."""
    return (..., *box)


@dataclass(frozen=True)
class Windows:
    """Where the windows of an image lie and what each counts; all as in MONAI.

    Attributes
    ----------
    shape
        Voxels of the image along each axis. An axis shorter than the window is padded with 0 on both sides.
    size
        Voxels of a window along each axis.
    overlap
        Share of a window that the next one covers again, along each axis.
    mode
        "constant", or "gaussian" for an importance that falls off from the middle of a window.
    sigma_scale
        Standard deviation of that Gaussian as a share of the window.
    """

    shape: tuple[int, ...]
    size: tuple[int, ...]
    overlap: tuple[float, ...]
    mode: str
    sigma_scale: float

    @property
    def pads(self) -> list[int]:
        """Voxels to add before and after, the last axis first, as `torch.nn.functional.pad` takes them."""
        missing = [max(size - n, 0) for n, size in zip(self.shape, self.size, strict=True)]
        return [side for n in reversed(missing) for side in (n // 2, n - n // 2)]

    @property
    def inside(self) -> Box:
        """The image within the padded one."""
        starts = [max(size - n, 0) // 2 for n, size in zip(self.shape, self.size, strict=True)]
        return tuple(slice(start, start + n) for start, n in zip(starts, self.shape, strict=True))

    @property
    def padded(self) -> tuple[int, ...]:
        return tuple(map(max, self.shape, self.size))

    @cached_property
    def boxes(self) -> list[Box]:
        """The windows in the padded image; those that would reach over its border move inwards."""
        axes = []
        for n, size, overlap in zip(self.padded, self.size, self.overlap, strict=True):
            step = size if n == size else max(int(size * (1 - overlap)), 1)
            starts = [min(start, n - size) for start in range(0, n - size + step, step)]
            axes.append([slice(start, start + size) for start in starts])
        return list(product(*axes))

    @cached_property
    def importance(self) -> Tensor:
        """What each voxel of a window counts, (*size), float32."""
        weights = torch.ones(())
        for n in self.size if self.mode == "gaussian" else ():
            steps = torch.arange(n) - (n - 1) / 2
            weights = weights[..., None] * torch.exp(-(steps**2) / (2 * (self.sigma_scale * n) ** 2))
        return weights.expand(self.size).clamp(min=max(float(weights.min()), LEAST_IMPORTANCE))

    @cached_property
    def covered(self) -> Tensor:
        """Sum of the importances of the windows that cover each voxel of the padded image."""
        total = torch.zeros(self.padded)
        for box in self.boxes:
            total[box] += self.importance
        return total

    def first(self, images: Tensor) -> Tensor:
        """The first window of the images."""
        return F.pad(images, self.pads)[spatial(self.boxes[0])]

    def parts(self, region: Tensor) -> list[tuple[Box, Tensor]]:
        """The windows that see a region with weights (*shape), and the weights of each window's predictions."""
        wide = F.pad(region, self.pads)
        importance, covered = self.importance.to(region), self.covered.to(region)
        weighted = ((box, wide[box] * importance / covered[box]) for box in self.boxes)
        return [(box, weights.flatten()) for box, weights in weighted if bool((weights != 0).any())]

    def stitched(self, dense: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
        """The mean of the windows' predictions, (batch, classes, *shape)."""
        wide = F.pad(images, self.pads)
        total: Any = None
        for box in self.boxes:
            found = dense(wide[spatial(box)]) * self.importance.to(images)
            if total is None:
                total = found.new_zeros(*found.shape[:2], *self.padded)
            total[spatial(box)] += found
        return (total / self.covered.to(images))[spatial(self.inside)]


def checked_windows(
    shape: tuple[int, ...], window: Any, overlap: Any, mode: str, sigma_scale: float
) -> Windows:
    """The windows of images of that shape.

    Raises
    ------
    ParameterError
        If a setting is out of its range, or there is not one for each axis.
    """
    check_choice(mode=(mode, MODES))
    sizes = tuple(window) if isinstance(window, Sequence) else (window,) * len(shape)
    overlaps = tuple(overlap) if isinstance(overlap, Sequence) else (overlap,) * len(shape)
    if len(sizes) != len(shape) or any(not isinstance(n, int) or n < 1 for n in sizes):
        raise ParameterError(
            f"window={window!r}; expected a whole number of 1 or more, or one for each of {len(shape)} spatial axes: "
            "the size of the patches that the network was trained on."
        )
    if len(overlaps) != len(shape) or any(not 0 <= share < 1 for share in overlaps):
        raise ParameterError(
            f"overlap={overlap!r}; expected a share of the window from 0 to below 1, or one for each of {len(shape)} "
            "spatial axes."
        )
    if not sigma_scale > 0:
        raise ParameterError(f"sigma_scale={sigma_scale!r}; expected a number above 0.")
    return Windows(shape, sizes, tuple(map(float, overlaps)), mode, float(sigma_scale))


class StitchedNetwork(Network):
    """A network of whole images made of one of windows, to be explained as any other.

    Parameters
    ----------
    inner
        Network that returns (batch, classes) for a window: a sum of its predictions under the weights of a buffer.
    windows
        Where the windows lie.
    buffer
        Name of that buffer.

    Attributes
    ----------
    pulse
        Called after each window.
    """

    def __init__(self, inner: Network, windows: Windows, buffer: str):
        self.inner, self.windows, self.buffer = inner, windows, buffer
        self.name, self.precision = inner.name, inner.precision
        self.model, self.output, self.kind = inner.model, inner.output, inner.kind
        self._traceable = True  # to hear from `_Stitched` why not
        self.example, self.expected = inner.example, inner.expected
        self.plain = self.folded = self.quick = _Stitched(self)
        self.parts: list[tuple[Box, Tensor]] = []
        self.pulse: Callable[[], object] = lambda: None

    def explain(self, region: Tensor) -> None:
        """From now on the output is the sum of the stitched predictions under these weights (*shape)."""
        self.parts = self.windows.parts(region)
        fill(self.inner, **{self.buffer: torch.ones(1)})  # for which its expected outputs are

    def crops(self, images: Tensor) -> Iterator[tuple[Box, Tensor]]:
        """The windows of the images that matter, the inner network made ready for each."""
        wide = F.pad(images, self.windows.pads)
        for box, weights in self.parts:
            fill(self.inner, **{self.buffer: weights})
            yield box, wide[spatial(box)]
            self.pulse()

    def sum_of(self, images: Tensor, maps: Callable[[Tensor], Tensor]) -> Tensor:
        """Sum over the windows of the maps (batch, map, *size) that a function gives for each."""
        total = images.new_zeros(*images.shape[:2], *self.windows.padded)
        for box, crop in self.crops(images):
            found = maps(crop)
            if found.shape[1] != total.shape[1]:  # as of maps of layers, before the first window is in
                total = images.new_zeros(*found.shape[:2], *self.windows.padded)
            total[spatial(box)] += found
        return total[spatial(self.windows.inside)]

    def forward(self, images: Tensor, target: Tensor | None) -> tuple[Tensor, Tensor]:
        """The images as a leaf of the autograd graph, and their outputs, which know their gradients already."""
        found: list[Tensor] = []

        def maps(crop: Tensor) -> Tensor:
            leaf, scores = self.inner.forward(crop, target)
            found.append(scores.detach())
            return gradients_of(leaf, scores)

        gradients = self.sum_of(images, maps)
        leaf = images.detach().requires_grad_()
        with torch.enable_grad():
            return leaf, _WithGradients.apply(leaf, torch.stack(found).sum(0), gradients)

    def scores(self, images: Tensor, target: Tensor | None, batch_size: int = 16) -> Tensor:
        """The output to explain for each image, (batch,), without a gradient."""
        return torch.stack(
            [self.inner.scores(crop, target, batch_size) for _, crop in self.crops(images)]
        ).sum(0)

    def in_windows(self, passes: Passes) -> Passes:
        """Passes of the inner network as passes of this one."""

        def run(batch: Batch) -> Tensor:
            return self.sum_of(batch.points, lambda crop: passes.run(replace(batch, points=crop)))

        return Passes(passes.name, run, passes.units)


def planned(method: Method, setting: Setting, option: str, options: Mapping[str, Any]) -> Plan:
    """The plan of a method; for a rule of back-propagation, or a layer, of a stitched network, window by window."""
    network = setting.network
    if not isinstance(network, StitchedNetwork) or method.kind not in ("rule", "layer"):
        return method.plan(setting, option, **options)
    if method.name.startswith("captum."):
        raise UnsupportedModelError(
            f"{method.name} copies the network, which is a new one for each window; expected a method of ours, such as "
            "guided_backprop or lrp: or pass whole images, with window=None."
        )
    plan = method.plan(replace(setting, network=network.inner), option, **options)

    def missing(maps: Tensor) -> Tensor:
        return network.scores(setting.images, setting.target, setting.batch_size) - maps.flatten(1).sum(1)

    gap = None if plan.gap is None else Gap(plan.gap.name, missing)
    return replace(plan, passes=network.in_windows(plan.passes), gap=gap)


class _Stitched(nn.Module):
    """The sum of all windows' outputs, through which autograd passes."""

    def __init__(self, network: StitchedNetwork):
        super().__init__()
        self._network = [network]

    def forward(self, images: Any) -> Tensor:
        if not isinstance(images, Tensor):
            raise TraceError("the windows of an image pass one by one")
        (network,) = self._network
        return torch.stack([network.inner.plain(crop.clone()) for _, crop in network.crops(images)]).sum(0)


class _WithGradients(torch.autograd.Function):
    """Outputs of images, (batch,), whose gradients are known."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, outputs: Tensor, gradients: Tensor) -> Tensor:
        ctx.save_for_backward(gradients)
        return outputs.clone()

    @staticmethod
    def backward(ctx: Any, *signals: Tensor) -> Any:
        (gradients,) = ctx.saved_tensors
        return signals[0].view(-1, *[1] * (gradients.ndim - 1)) * gradients, None, None
