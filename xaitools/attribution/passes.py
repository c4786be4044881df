"""The stream of gradient passes that path methods share.

A *row* is an image or one noisy copy of it. A *path* says at which points a method takes gradients for one row,
and with which weights they add up to that row's map. Points of all paths and rows fill batches of constant
size, so the memory needed does not depend on the number of steps or of noisy copies.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from xaitools.errors import TargetError, UnsupportedModelError

Rule = Callable[[nn.Module, Tensor, Tensor | None], Tensor]
Points = Callable[[Tensor, slice, int], tuple[Tensor, Tensor]]
Progress = Callable[[int, int], object]


@dataclass(frozen=True)
class Path:
    """Weighted sum of gradients along points that belong to one row.

    Attributes
    ----------
    steps
        Number of points for one row.
    points
        ``points(row, part, key)`` gives the points (n, channel, *spatial) of the slice `part` of the steps, and
        weights that broadcast to them; `key` is the row's own random seed.
    """

    steps: int
    points: Points


@dataclass(frozen=True)
class Row:
    """Image number `image`, clean (`draw` 0) or with its noise number `draw` added."""

    image: int
    draw: int


def select(outputs: Tensor, target: Tensor | None) -> Tensor:
    """The output to explain for each image: shape (batch,).

    Raises
    ------
    TargetError
        If a target is not one of the outputs, or none is given although the network has several.
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
                f"target=None needs a network with one output, but this one has {classes}: name a class."
            )
        return outputs[:, 0]
    outside = target[(target < 0) | (target >= classes)]
    if len(outside):
        raise TargetError(
            f"Target {int(outside[0])} is not among the network's {classes} outputs, 0 to {classes - 1}."
        )
    return outputs.gather(1, target[:, None])[:, 0]


def gradients(model: nn.Module, inputs: Tensor, target: Tensor | None = None) -> Tensor:
    """Gradient of each image's selected output with respect to that image, same shape as `inputs`."""
    leaf, score = forward(model, inputs, target)
    return torch.autograd.grad(score, leaf)[0]


def forward(model: nn.Module, inputs: Tensor, target: Tensor | None) -> tuple[Tensor, Tensor]:
    """The inputs as a leaf of the autograd graph, and the sum of their selected outputs."""
    with torch.enable_grad():
        leaf = inputs.detach().requires_grad_()
        score = select(model(leaf.clone()), target).sum()  # a clone, as the first layer may work in place
    if not score.requires_grad:
        raise UnsupportedModelError(
            f"The output of {type(model).__name__} does not depend on its input through differentiable operations, "
            "so it has no gradient. Remove torch.no_grad, detach or argmax from its forward pass."
        )
    return leaf, score


def add_noise(row: Tensor, draw: int, level: float, key: int) -> Tensor:
    """`row` with Gaussian noise, sd = `level` x the image's range; draw 0 is the clean image."""
    if draw == 0:
        return row
    noise = torch.randn(row.shape, generator=torch.Generator().manual_seed(key), dtype=row.dtype)
    return row + (level * (row.max() - row.min())) * noise.to(row.device)


def seed_of(image: Tensor, seed: int) -> int:
    """Seed made from an image's content: its maps are the same alone and in any batch."""
    content = image.detach().cpu().contiguous().numpy().tobytes()
    digest = blake2b(content, digest_size=6, key=seed.to_bytes(8, "little", signed=True)).digest()
    return int.from_bytes(digest, "little")


def stream(
    model: nn.Module,
    images: Tensor,
    targets: Tensor | None,
    work: Iterable[tuple[Row, Mapping[str, Path]]],
    *,
    rule: Rule = gradients,
    noise_level: float = 0.0,
    batch_size: int = 16,
    seed: int = 0,
    bar: Any = None,
) -> Iterator[tuple[Row, Tensor, dict[str, Tensor]]]:
    """Yield each row, its image or noisy copy, and its maps, one a path, as soon as its last gradient is in.

    Parameters
    ----------
    work
        Rows in the order wanted, each with the paths to follow.
    rule
        How gradients pass back through the network; plain gradients by default.
    bar
        A tqdm progress bar that counts passes.
    """
    seeds = [seed_of(image, seed) for image in images]
    jobs = ((row, paths, name) for row, paths in work for name in paths)
    sums: dict[str, Tensor] = {}
    for batch in _batches(jobs, batch_size):
        points, weights, owners, copies = [], [], [], []
        for row, paths, name, part in batch:
            key = seeds[row.image] + (row.draw << 12)
            copy = add_noise(images[row.image], row.draw, noise_level, key)
            x, w = paths[name].points(copy, part, key + 1)
            points.append(x)
            weights.append(w)
            owners.append(row.image)
            copies.append(copy)
        counts = torch.tensor([len(x) for x in points])
        batch_targets = None if targets is None else targets[torch.tensor(owners).repeat_interleave(counts)]
        grads = rule(model, torch.cat(points), batch_targets).split(counts.tolist())
        for (row, paths, name, part), copy, weight, grad in zip(batch, copies, weights, grads, strict=True):
            share = (weight * grad).sum(0)
            sums[name] = sums[name] + share if part.start else share
            if part.stop == paths[name].steps and name == list(paths)[-1]:
                yield row, copy, {name: sums[name] for name in paths}
        if bar is not None:
            bar.update(int(counts.sum()))


def _batches(jobs: Iterable[tuple[Row, Mapping[str, Path], str]], size: int) -> Iterator[list]:
    """Cut the jobs' steps into pieces that fill batches of `size` points."""
    batch: list = []
    room = size
    for row, paths, name in jobs:
        done = 0
        while done < paths[name].steps:
            stop = min(done + room, paths[name].steps)
            batch.append((row, paths, name, slice(done, stop)))
            room -= stop - done
            done = stop
            if room == 0:
                yield batch
                batch, room = [], size
    if batch:
        yield batch


def single(
    model: nn.Module,
    inputs: Tensor,
    target: Tensor | None,
    path: Path,
    *,
    batch_size: int,
    rule: Rule = gradients,
    seed: int = 0,
) -> Tensor:
    """Maps of one path on clean images, shaped like `inputs`."""
    work = ((Row(i, 0), {"path": path}) for i in range(len(inputs)))
    rows = stream(model, inputs, target, work, rule=rule, batch_size=batch_size, seed=seed)
    return torch.stack([maps["path"] for _, _, maps in rows])


class _Report:
    """Stands in for a bar: tells a function the passes done and their total, after each batch."""

    def __init__(self, total: int, tell: Progress) -> None:
        self._done, self._total, self._tell = 0, total, tell

    def update(self, passes: int) -> None:
        self._done += passes
        self._tell(self._done, self._total)

    def __enter__(self) -> "_Report":
        self.update(0)
        return self

    def __exit__(self, *error: object) -> None:
        pass


def progress_bar(total: int, show: bool | Progress) -> Any:
    """Bar over gradient passes; it appears only if the work takes more than two seconds."""
    if callable(show):
        return _Report(total, show)
    return tqdm(total=total, desc="gradients", unit="pass", disable=not show, delay=2, leave=False)
