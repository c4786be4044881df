"""The optimisation of masks: all of a stack at once, step by step."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from xaitools.attribution._separable import along_axes, averaging, enlarging
from xaitools.attribution._stream import Tell
from xaitools.attribution.deletions import Deletion
from xaitools.attribution.mask_settings import MaskSettings, starting_mask
from xaitools.checks import check_choice
from xaitools.errors import MethodError
from xaitools.models.blocks import in_blocks
from xaitools.models.network import Network, gradients_of, select
from xaitools.models.pooling import pooled_first

SCORES: dict[str, str] = {
    "probability": "of the target after softmax",
    "logit": "the output as the network returns it",
    "log_odds": "log(p / (1 - p)) of the target's probability",
    "share": "the output's height above that of the image deleted as a whole, as a share of its fall to there",
}
"""What is to become small, by name."""

TERMS = ("objective", "score", "area_penalty", "smoothness_penalty", "share_at_0", "share_at_1")
"""What is known of a mask at each step."""

AT = 1e-3
"""How near a mask has to come to 0 or 1 to count as being there."""
DECAYS, EPSILON = (0.9, 0.999), 1e-12
"""Of Adam. Gradients of single voxels of a volume are as small as 1e-9, so its usual epsilon would stop them."""
LAST_STEPS = 30
"""Over which it is said how far a mask still moved, if nothing else says it."""
CACHED = 2**19
"""Numbers in the images of one pass. Two volumes of 61 x 73 x 61 at once take less than half the time of sixteen."""
ALIKE = 1e-4
"""Values of a mask rank as one if rounding to multiples of it makes them so: they are where Adam's first steps led."""
AREA_WEIGHTS = 1.0, 1e5
"""Weight of the constraint on the area at the first and at the last step; it grows by a constant factor."""


class Judge:
    """What images score under masks, and how that changes with each voxel of a mask.

    Parameters
    ----------
    network
        The network to be explained.
    deletion
        The images and what is left of them.
    target
        Class of each image, (n,), or None.
    score
        A key of `SCORES`.
    batch_size
        Masked images in one pass at most.
    """

    def __init__(
        self, network: Network, deletion: Deletion, target: Tensor | None, score: str, batch_size: int
    ) -> None:
        check_choice(MethodError, score=(score, SCORES))
        if score in ("probability", "log_odds") and network.n_outputs == 1:
            raise MethodError(
                f"score={score!r} with a network of one output; expected two classes or more: use score='logit' (the "
                "output itself) or 'share', or explain Network(...).log_odds."
            )
        self.network, self.deletion, self.target = network, deletion, target
        self.score, self._size = score, _size(batch_size, deletion.images)
        self._net = in_blocks(pooled_first(network.quick))
        self._scales = self._found_scales() if score == "share" else None

    def scores(
        self, masks: Tensor, members: Sequence[Tensor], tell: Tell, shift: Sequence[int] = ()
    ) -> tuple[Tensor, Tensor]:
        """Mean score of each mask's images (k,), float64, and its slope with each voxel of the mask, shaped like it."""
        pairs = torch.tensor([(k, image) for k, own in enumerate(members) for image in own.tolist()])
        total = torch.zeros(len(masks), dtype=torch.float64, device=masks.device)
        slopes = torch.zeros_like(masks)
        for part in pairs.tensor_split(math.ceil(len(pairs) / self._size)):
            owners, index = part[:, 0].tolist(), part[:, 1].to(masks.device)
            own = masks[owners]
            scores, gradients = self._passed(self.deletion.masked(own, index), index, shift)
            found = (gradients * self.deletion.slopes(own, index)).sum(1)
            for k in dict.fromkeys(owners):
                rows = slice(owners.index(k), owners.index(k) + owners.count(k))
                total[k] += scores[rows].double().sum() / len(members[k])
                slopes[k] += found[rows].sum(0) / len(members[k])
            tell(0)
        return total, slopes

    @torch.no_grad()
    def means(self, masks: Tensor, members: Sequence[Tensor]) -> Tensor:
        """Mean score of each mask's images (k,), float64, without a slope."""
        found = []
        for mask, own in zip(masks, members, strict=True):
            scores = [
                self._judged(self._net(self.deletion.masked(mask.expand(len(part), *mask.shape), part)), part)
                for part in own.split(self._size)
            ]
            found.append(torch.cat(scores).double().mean())
        return torch.stack(found)

    def _passed(self, masked: Tensor, which: Tensor, shift: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Scores (m,) of masked images and their gradients, on a shifted grid if there is a shift."""
        with torch.enable_grad():
            leaf = masked.detach().requires_grad_()
            moved = shifted(leaf, shift)
            if self.score in ("logit", "share") and self._net is self.network.quick:
                seen, outputs = self.network.forward(moved, self._targets(which))
                scores = self._shares(outputs, which)
            else:
                seen = moved.detach().requires_grad_()
                scores = self._judged(self._net(seen.clone()), which)
            if not scores.requires_grad:
                self.network.forward(moved, self._targets(which))  # which refuses in words
            gradients = gradients_of(seen, scores, self.network.name)
            if shift:
                gradients = torch.autograd.grad(moved, leaf, gradients)[0]
        return scores.detach(), gradients

    def _judged(self, outputs: Tensor, which: Tensor) -> Tensor:
        """The scores (m,) of what the network returned for the images number `which`."""
        target = self._targets(which)
        if self.score == "probability":
            return select(outputs.softmax(1), target)
        own = select(outputs, target)
        if self.score == "log_odds" and target is not None:
            return own - outputs.scatter(1, target[:, None], -torch.inf).logsumexp(1)
        return self._shares(own, which)

    def _targets(self, which: Tensor) -> Tensor | None:
        return None if self.target is None else self.target[which]

    def _found_scales(self) -> tuple[Tensor, Tensor]:
        """The output of each image deleted as a whole, and how far its own is from there."""
        images = self.deletion.images
        every = torch.arange(len(images), device=images.device)
        gone, whole = (
            torch.cat(
                [
                    self.network.scores(
                        self.deletion.masked(keep.expand(len(part), *images.shape[2:]), part),
                        self._targets(part),
                    )
                    for part in every.split(self._size)
                ]
            )
            for keep in (images.new_zeros(()), images.new_ones(()))
        )
        fall = (whole - gone).abs()
        return gone, fall.clamp(min=torch.finfo(fall.dtype).tiny)

    def _shares(self, outputs: Tensor, which: Tensor) -> Tensor:
        if self._scales is None:
            return outputs
        low, fall = self._scales
        return (outputs - low[which]) / fall[which]


def _size(batch_size: int, images: Tensor) -> int:
    """Masked images in one pass: on a processor two or so many that the first layers stay in its cache."""
    if images.device.type != "cpu":
        return batch_size
    return min(batch_size, max(CACHED // images[0].numel(), 2))


def shifted(images: Tensor, shift: Sequence[int]) -> Tensor:
    """Images moved by so many voxels along each spatial axis; what comes in repeats the border."""
    for axis, by in enumerate(shift, images.ndim - len(shift)):
        n = images.shape[axis]
        rest = images.narrow(axis, max(-by, 0), n - abs(by))
        edge = images.narrow(axis, 0 if by > 0 else n - 1, 1)
        repeated = edge.expand([abs(by) if k == axis else size for k, size in enumerate(images.shape)])
        images = torch.cat([repeated, rest] if by > 0 else [rest, repeated], axis)
    return images


@dataclass(frozen=True)
class Stopping:
    """When a mask has stopped moving: its best objective fell, over `patience` steps, by less than `tolerance` of its
    whole fall. None for `patience` never stops."""

    tolerance: float = 1e-3
    patience: int | None = 30


@dataclass
class Optimised:
    """What became of a stack of masks.

    Attributes
    ----------
    masks
        (k, *spatial), from 0 to 1.
    history
        `TERMS` at each step, (step, k, term), float64; NaN after a mask was stopped.
    terms
        `TERMS` of the masks as they are, (k, term), float64: without jitter, and with the area's last weight.
    iterations
        Steps that each mask took.
    stopped
        Why each stopped, in words.
    """

    masks: Tensor
    history: Tensor
    terms: Tensor
    iterations: list[int]
    stopped: list[str]


class Grid:
    """The cells of which masks are made.

    Parameters
    ----------
    shape
        Voxels along each axis.
    coarse
        Voxels of a cell along each axis.
    """

    def __init__(self, shape: Sequence[int], coarse: int) -> None:
        self._enlarging = [enlarging(n, coarse) for n in shape] if coarse > 1 else []
        self._averaging = [averaging(n, coarse) for n in shape] if coarse > 1 else []

    def fine(self, cells: Tensor) -> Tensor:
        """Masks (k, *spatial) of cells (k, *cells)."""
        return along_axes(cells, self._enlarging).clamp(max=1) if self._enlarging else cells

    def slopes(self, slopes: Tensor) -> Tensor:
        """Slopes with cells (k, *cells) of slopes with voxels (k, *spatial)."""
        return along_axes(slopes, [matrix.T for matrix in self._enlarging])

    def cells(self, masks: Tensor) -> Tensor:
        """The mean of masks over each cell."""
        return along_axes(masks, self._averaging)


class Penalties:
    """Penalties of a stack of masks whose settings have the same exponents.

    Parameters
    ----------
    settings
        One for each mask.
    cells
        Their cells (k, *cells).
    """

    def __init__(self, settings: Sequence[MaskSettings], cells: Tensor) -> None:
        n = cells[0].numel()
        shares = [1.0 if one.reduction == "sum" else 1 / n for one in settings]
        pairs = list(zip(settings, shares, strict=True))
        self._l1 = cells.new_tensor([one.l1 * share for one, share in pairs])
        self._l2 = cells.new_tensor([one.l2 * share for one, share in pairs])
        self._one = settings[0]
        self._hidden = [max(round((one.area or 0) * n), 1) for one in settings]

    def of(self, cells: Tensor, which: list[int], slopes: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """Both penalties of the masks number `which`, (k,) each; `slopes` of the score order cells of one value."""
        axes = tuple(range(1, cells.ndim))
        rough = sum(power(cells.diff(dim=axis).abs(), self._one.beta2).sum(axes) for axis in axes)
        if self._one.area is not None:
            return self._misses(cells, which, slopes, step), self._l2[which] * rough
        return self._l1[which] * power(1 - cells, self._one.beta1).sum(axes), self._l2[which] * rough

    def _misses(self, cells: Tensor, which: list[int], slopes: Tensor, step: int) -> Tensor:
        """How far ranked cells are from their share of zeros and else ones, in mean squares, times the weight."""
        wanted = torch.ones_like(cells).flatten(1)
        for own, k, mask, slope in zip(wanted, which, cells.detach(), slopes, strict=True):
            order = slope.flatten().argsort(descending=True, stable=True)
            order = order[(mask / ALIKE).round().flatten()[order].argsort(stable=True)]
            own[order[: self._hidden[k]]] = 0
        low, high = AREA_WEIGHTS
        weight = low * (high / low) ** (step / self._one.steps)
        return weight * (cells.flatten(1) - wanted).square().mean(1)


def power(values: Tensor, exponent: float) -> Tensor:
    """Numbers of 0 or more to a power of 1 or more; at 0 its slope from above."""
    if exponent == 1:
        return values
    return values.square() if exponent == 2 else values.clamp(min=0) ** exponent


class _Adam:
    """Adam (Kingma and Ba 2015) with a learning rate for each mask."""

    def __init__(self, cells: Tensor, rates: Sequence[float]) -> None:
        self._first, self._second = torch.zeros_like(cells), torch.zeros_like(cells)
        self._rates = cells.new_tensor(rates).view(-1, *[1] * (cells.ndim - 1))

    def moves(self, gradients: Tensor, which: list[int], step: int) -> Tensor:
        """By how much the masks number `which` go down in step 1, 2, ..."""
        a, b = DECAYS
        first = self._first[which] = self._first[which].lerp(gradients, 1 - a)
        second = self._second[which] = self._second[which].lerp(gradients.square(), 1 - b)
        return self._rates[which] * first / (1 - a**step) / ((second / (1 - b**step)).sqrt() + EPSILON)


def optimise(
    judge: Judge,
    settings: Sequence[MaskSettings],
    members: Sequence[Tensor],
    stopping: Stopping,
    tell: Tell,
    seed: int = 0,
) -> Optimised:
    """Optimise one mask for each setting and its own images, all of one `MaskSettings.stack`.

    Of a mask whose objective is the same function in all steps, the best one seen is returned; with jitter or a
    constraint on the area, the last one.
    """
    images, one = judge.deletion.images, settings[0]
    grid = Grid(images.shape[2:], one.coarse)
    cells = grid.cells(torch.stack([starting_mask(own.start, images) for own in settings])).clamp(0, 1)
    kept, least = cells.clone(), [torch.inf] * len(settings)
    penalties, adam = Penalties(settings, cells), _Adam(cells, [own.learning_rate for own in settings])
    history = torch.full((one.steps + 1, len(settings), len(TERMS)), torch.nan, dtype=torch.float64)
    watch = _Watch(len(settings), stopping if one.area is None else Stopping(patience=None), one.steps)
    draws = torch.Generator().manual_seed(seed)
    keeps_best = one.area is None and not one.jitter
    for step in range(one.steps + 1):
        active = watch.active
        if not active:
            break
        with torch.enable_grad():
            leaf = cells[active].requires_grad_()
            masks = grid.fine(leaf.detach())
            shift = _drawn(one.jitter, images, draws)
            scores, slopes = judge.scores(masks, [members[k] for k in active], tell, shift)
            falls = grid.slopes(slopes)
            area, rough = penalties.of(leaf, active, falls, step)
            gradients = falls + torch.autograd.grad((area + rough).sum(), leaf)[0]
        history[step, active] = _terms(scores, area, rough, masks)
        finite = torch.isfinite(gradients).flatten(1).all(1).tolist()
        for k, own, fine in zip(active, leaf.detach(), finite, strict=True):
            objective = float(history[step, k, 0])
            good = fine and objective < torch.inf and objective > -torch.inf
            if good and (objective < least[k] or not keeps_best):
                kept[k], least[k] = own, min(least[k], objective)
            watch.see(k, step, objective if good else torch.nan)
        tell(len(active) + (one.steps - step) * (len(active) - len(watch.active)))
        left = [active.index(k) for k in watch.active]
        if left:
            moves = adam.moves(gradients[left], watch.active, step + 1)
            cells[watch.active] = (cells[watch.active] - moves).clamp(0, 1)
    masks = grid.fine(kept)
    scores = judge.means(masks, members)
    area, rough = penalties.of(kept, list(range(len(kept))), torch.zeros_like(kept), one.steps)
    return Optimised(masks, history, _terms(scores, area, rough, masks), watch.iterations, watch.words)


class _Watch:
    """Which masks still move.

    Attributes
    ----------
    active
        Numbers of those that do.
    iterations
        Steps that each took.
    words
        Why each stopped.
    """

    def __init__(self, n: int, stopping: Stopping, steps: int) -> None:
        self.active, self.iterations, self.words = list(range(n)), [0] * n, [""] * n
        self._stopping, self._steps = stopping, steps
        self._best: list[list[float]] = [[] for _ in range(n)]

    def see(self, k: int, step: int, objective: float) -> None:
        """Take note of a mask's objective after so many steps, NaN where it or its gradient is not finite."""
        self.iterations[k] = step
        if objective != objective:
            self._stop(k, f"NaN at iteration {step}, last good mask kept")
            return
        best = self._best[k]
        best.append(min(objective, best[-1]) if best else objective)
        patience = self._stopping.patience
        if patience is not None and step >= patience:
            fell, whole = best[-1 - patience] - best[-1], best[0] - best[-1]
            if fell <= self._stopping.tolerance * whole:
                self._stop(k, "converged")
                return
        if step == self._steps:
            self._stop(k, self._still_moving(best))

    def _still_moving(self, best: list[float]) -> str:
        last = min(self._stopping.patience or LAST_STEPS, len(best) - 1)
        return f"not yet: still moving by {best[-1 - last] - best[-1]:.2g} in {last} steps"

    def _stop(self, k: int, words: str) -> None:
        self.words[k] = words
        self.active = [other for other in self.active if other != k]


def _terms(scores: Tensor, area: Tensor, rough: Tensor, masks: Tensor) -> Tensor:
    """`TERMS` of masks (k, *spatial), (k, term)."""
    flat = masks.flatten(1)
    area, rough = area.detach().double(), rough.detach().double()
    shares = [(flat <= AT).double().mean(1), (flat >= 1 - AT).double().mean(1)]
    return torch.stack([scores + area + rough, scores, area, rough, *shares], 1).cpu()


def _drawn(jitter: int, images: Tensor, draws: torch.Generator) -> list[int]:
    """A shift along each spatial axis, or none."""
    if not jitter:
        return []
    return torch.randint(-jitter, jitter + 1, (images.ndim - 2,), generator=draws).tolist()
