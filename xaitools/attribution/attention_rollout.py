"""Attention rollout (Abnar and Zuidema 2020)."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from xaitools.attribution._attention_rules import DECOMPOSITIONS
from xaitools.attribution._stream import AT_THE_IMAGE, Batch, Passes, Plan
from xaitools.attribution.registry import Setting, method
from xaitools.errors import UnsupportedModelError
from xaitools.models.network import Network

_MOST_OTHER_TOKENS = 16
"""Class, distillation and register tokens that may stand in front of those of the patches."""

_LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}


@method(
    "rule",
    label="rollout",
    idea="where does attention, followed through all layers, look?",
    equation=r"R = \prod_l \tfrac{1}{2} \left( \bar{A}^l + I \right)",
    use="To see from where information can have come in a vision transformer.",
    failures=(
        "It does not depend on the class, on what is attended, or on any layer but attention: it "
        "cannot tell evidence for from evidence against.",
        "In deep networks all patches get nearly the same.",
        "Attention need not explain: other attention can give the same answer (Jain and Wallace 2019,"
        " arXiv:1902.10186).",
    ),
    reference="Abnar and Zuidema 2020, arXiv:2005.00928, section 3.",
    needs="softmax attention among all tokens of one grid, as in a vision transformer",
)
def attention_rollout(setting: Setting) -> Plan:
    """How much attention flows from each patch of the image to what the network reads its answer from.

    The attention matrices of the layers, averaged over heads, with the identity added for the residual connections and
    rows that sum to 1 again, are multiplied; what comes to the class token (or, on average, to the tokens that the
    network averages) is interpolated linearly from the grid of patches to that of the image.

    It does not depend on the target, nor on the values that attention adds up, nor on any other layer: it says where
    information may come from, not whether it speaks for a class.

    For networks with softmax attention among all tokens of one grid, such as a vision transformer in 2D or 3D.

    Returns
    -------
    Tensor
        Share of the attention that goes to a patch, at its centre: from 0 to 1, the same in all channels.

    Raises
    ------
    UnsupportedModelError
        If the network has no such attention, as convolutional networks and those that attend within windows.
    """
    rollout = _Rollout(setting.network)
    rollout(setting.network.example)
    return Plan(Passes(setting.name, lambda batch: _run(rollout, batch)), {"image": AT_THE_IMAGE})


def _run(rollout: "_Rollout", batch: Batch) -> Tensor:
    return rollout(batch.points)


class _Rollout:
    """A network, ready to be asked for its attention."""

    def __init__(self, network: Network):
        self.network = network
        seen = self._seen(network.example)
        self.grid = self._grid(seen)
        self.read = self._read(seen)

    def __call__(self, images: Tensor) -> Tensor:
        """Attention to each pixel, shaped like the images."""
        with torch.no_grad():
            flow = rolled_out(self._seen(images).attention)
        n_patches = math.prod(self.grid)
        patches = flow[:, self.read].mean(1)[:, flow.shape[-1] - n_patches :]
        shape, mode = images.shape[2:], _LINEAR[len(self.grid)]
        maps = F.interpolate(patches.reshape(len(images), 1, *self.grid), size=shape, mode=mode)
        return maps.expand_as(images).to(images.dtype)

    def _seen(self, images: Tensor) -> "_Seen":
        """What the network attends to; refused if that is not all tokens of one grid."""
        seen = _Seen()
        try:
            with seen:
                seen.outputs = self.network.plain(images)
        except NotImplementedError as error:
            raise self._refused(f"has attention {error}") from error
        if not seen.attention:
            raise self._refused("has no softmax attention, or one that is compiled")
        first = seen.attention[0]
        for attention in seen.attention:
            if attention.shape[-1] != attention.shape[-2]:
                raise self._refused(
                    f"attends from {attention.shape[-2]} tokens to {attention.shape[-1]} others"
                )
            if len(attention) != len(images) or attention.ndim > 4:
                raise self._refused(
                    f"attends within windows: its attention is {tuple(attention.shape)} for {len(images)} images"
                )
            if attention.shape[-1] != first.shape[-1]:
                raise self._refused(f"attends among {first.shape[-1]} tokens and later {attention.shape[-1]}")
        return seen

    def _grid(self, seen: "_Seen") -> tuple[int, ...]:
        """How many patches there are along each axis of the image."""
        n_tokens, shape = seen.attention[0].shape[-1], tuple(self.network.example.shape[2:])
        fitting = [grid for grid in [*seen.grids, *_even_grids(shape)] if len(grid) == len(shape)]
        fitting = [grid for grid in fitting if 0 <= n_tokens - math.prod(grid) <= _MOST_OTHER_TOKENS]
        if not fitting:
            raise self._refused(
                f"attends among {n_tokens} tokens, which are no grid of patches of images {shape}"
            )
        return min(fitting, key=lambda grid: n_tokens - math.prod(grid))

    def _read(self, seen: "_Seen") -> Tensor:
        """The tokens that the network reads its answer from: those whose last attention matters to it."""
        with torch.enable_grad():
            outputs = self._seen(self.network.example.detach().clone().requires_grad_())
            last = outputs.attention[-1]
            weights = torch.linspace(1, 2, outputs.outputs.numel()).to(outputs.outputs)
            score = (outputs.outputs.flatten() * weights).sum()
            found = torch.autograd.grad(score, last, allow_unused=True)[0] if score.requires_grad else None
        matters = torch.zeros(last.shape[-1], dtype=torch.bool) if found is None else _rows(found).cpu()
        n_others = len(matters) - math.prod(self.grid)
        if not matters.any():
            raise self._refused("gives outputs that do not depend on its last attention")
        if matters[n_others:].any() and not matters[n_others:].all():
            raise self._refused(
                "reads its answer from some tokens of patches, neither from a class token nor from all"
            )
        return matters.nonzero()[:, 0].to(last.device)

    def _refused(self, why: str) -> UnsupportedModelError:
        return UnsupportedModelError(
            f"{self.network.name} {why}; attention rollout needs softmax attention among all tokens of one grid, as in "
            "a vision transformer. Use gradient, integrated_gradients or lrp on this network."
        )


def rolled_out(attention: list[Tensor]) -> Tensor:
    """The product of the layers' attention, the last at its left: (batch, token, token it came from)."""
    flow: Tensor | None = None
    for matrix in attention:
        matrix = matrix.mean(1) if matrix.ndim == 4 else matrix
        matrix = matrix + torch.eye(matrix.shape[-1]).to(matrix)
        matrix = matrix / matrix.sum(-1, keepdim=True)
        flow = matrix if flow is None else matrix @ flow
    assert flow is not None
    return flow


def _rows(gradient: Tensor) -> Tensor:
    """Which rows of attention matrices (1, ..., token, token) have a gradient."""
    return gradient.reshape(-1, *gradient.shape[-2:]).abs().sum((0, 2)) > 0


def _even_grids(shape: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Grids of patches of equal sides."""
    for side in range(1, min(shape) + 1):
        if all(n % side == 0 for n in shape):
            yield tuple(n // side for n in shape)


@dataclass(eq=False)
class _Seen(TorchFunctionMode):
    """Collects attention matrices, and the shapes of what convolutions return before the first of them."""

    attention: list[Tensor] = field(default_factory=list)
    grids: list[tuple[int, ...]] = field(default_factory=list)
    outputs: Any = None

    def __post_init__(self) -> None:
        super().__init__()

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: Any = None) -> Any:
        name, kwargs = getattr(func, "__name__", ""), kwargs or {}
        if name in DECOMPOSITIONS:
            with self:
                return DECOMPOSITIONS[name](*args, **kwargs)
        result = func(*args, **kwargs)
        if name in ("softmax", "special_softmax") and result.ndim > 2:
            self.attention.append(result)
        elif name.startswith("conv") and isinstance(result, Tensor) and not self.attention:
            self.grids.append(tuple(result.shape[2:]))
        return result
