"""The stream of passes that methods share.

A *row* is an image or one noisy copy of it. A *path* says at which points a method looks for one row, and with which
weights the results add up to that row's map. Points of all paths and rows fill batches of constant size, so the
memory needed does not depend on the number of steps or of noisy copies.
"""

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b

import torch
from torch import Tensor

from xaitools.attribution._smoothing import SMOOTHINGS, Moments

Key = tuple[str, str]
"""Name of a method with its option, and its smoothing ("" for the clean map)."""
Tell = Callable[[int], None]
"""Called with the number of passes done since the last call; 0 only asks whether to go on."""
Points = Callable[[Tensor, slice, int, int], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Path:
    """Weighted sum of results along points that belong to one row.

    Attributes
    ----------
    steps
        Number of points for one row.
    points
        ``points(row, part, key, owner)`` gives the points (n, channel, *spatial) of the slice `part` of the steps,
        and weights that broadcast to them; `key` is the row's own random seed, `owner` the number of its image.
    """

    steps: int
    points: Points


AT_THE_IMAGE = Path(1, lambda row, part, key, owner: (row[None], torch.ones((), device=row.device)))
"""One point, the image itself."""


@dataclass(frozen=True)
class Batch:
    """What is passed through the network at once.

    Attributes
    ----------
    points
        Images (n, channel, *spatial).
    target
        Class to explain for each, (n,), or None.
    owners
        Number of the image that each belongs to.
    tell
        To be called for passes that are done before the batch is, and to hear of a cancellation.
    keys
        Random seed of each point: the same for the same image, or noisy copy, in any batch.
    """

    points: Tensor
    target: Tensor | None
    owners: list[int]
    tell: Tell
    keys: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Passes:
    """How a batch of points becomes results of their shape; those of one name are the same and are shared.

    Attributes
    ----------
    name
        For instance "gradients".
    run
        Gives the results, shaped like the batch's points.
    units
        Passes, windows or iterations that one point takes. Where it is more than 1, `run` tells of them itself.
    """

    name: str
    run: Callable[[Batch], Tensor] = field(compare=False)
    units: int = field(default=1, compare=False)


@dataclass(frozen=True)
class Gap:
    """What a map's sum misses.

    Attributes
    ----------
    name
        The attribute of `xaitools.attribution.Maps` that holds it.
    of
        Gives it for maps on clean images, one number an image.
    """

    name: str
    of: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Plan:
    """What is computed before smoothing: the mean of the results of some paths.

    Plans with the same passes that name the same path share it.

    Attributes
    ----------
    passes
        What is done at each point.
    paths
        Paths by the name under which they are shared.
    finish
        ``finish(copy, mean)`` makes the map from that mean and from the image, or noisy copy, that it belongs to.
    gap
        What the sum of the map misses, if the method promises a sum.
    """

    passes: Passes
    paths: Mapping[str, Path]
    finish: Callable[[Tensor, Tensor], Tensor] = lambda copy, mean: mean
    gap: Gap | None = None


@dataclass(frozen=True)
class Row:
    """Image number `image`, clean (`draw` 0) or with its noise number `draw` added."""

    image: int
    draw: int


@dataclass(frozen=True)
class Group:
    """Plans that share their passes, and the paths that clean images and noisy copies need."""

    passes: Passes
    plans: Mapping[str, Plan]
    clean: Mapping[str, Path]
    noisy: Mapping[str, Path]

    def count(self, n_images: int, draws: int) -> int:
        """Passes that it takes."""
        steps = sum(path.steps for path in self.clean.values())
        steps += draws * sum(path.steps for path in self.noisy.values())
        return n_images * steps * self.passes.units

    def rows(self, n_images: int, draws: int) -> Iterator[tuple[Row, Mapping[str, Path]]]:
        """The rows in their order, each with the paths to follow."""
        for image in range(n_images):
            if self.clean:
                yield Row(image, 0), self.clean
            if self.noisy:
                for draw in range(1, draws + 1):
                    yield Row(image, draw), self.noisy


@dataclass(frozen=True)
class Stream:
    """How rows are made of images and passed on.

    Attributes
    ----------
    images
        (n, channel, *spatial).
    target
        Class to explain for each, (n,), or None.
    draws
        Noisy copies.
    noise_level
        Standard deviation of the noise as a fraction of each image's range.
    batch_size
        Points in one batch.
    seed
        Of the noise, together with each image's content.
    noise_range
        What `noise_level` is a fraction of, shaped like `images`; None for each image's range.
    """

    images: Tensor
    target: Tensor | None
    draws: int = 1
    noise_level: float = 0.0
    batch_size: int = 16
    seed: int = 0
    noise_range: Tensor | None = None

    def maps(self, group: Group, wanted: Collection[Key], tell: Tell) -> dict[Key, Tensor]:
        """Maps (n, channel, *spatial) of the wanted combinations of plan and smoothing that belong to the group."""
        maps = {key: torch.empty_like(self.images) for key in wanted if key[0] in group.plans}
        moments: dict[str, Moments] = {}
        for row, copy, parts in self._results(group, tell):
            for name, plan in group.plans.items():
                if not plan.paths.keys() <= parts.keys():
                    continue
                mean = plan.finish(copy, torch.stack([parts[path] for path in plan.paths]).mean(0))
                if row.draw == 0:
                    _store(maps, (name, ""), row.image, mean)
                    continue
                if row.draw == 1:
                    moments[name] = Moments()
                moments[name].add(mean)
                if row.draw == self.draws:
                    for smoothing, moment in SMOOTHINGS.items():
                        _store(maps, (name, smoothing), row.image, moment(moments[name]))
        return maps

    def _even(self, group: Group) -> int:
        """Points in a batch, so that the last one is hardly smaller than the others: a small one costs more a point."""
        points = group.count(len(self.images), self.draws) // group.passes.units
        return math.ceil(points / max(math.ceil(points / self.batch_size), 1)) or 1

    def _results(self, group: Group, tell: Tell) -> Iterator[tuple[Row, Tensor, dict[str, Tensor]]]:
        """Yield each row, its image or noisy copy, and its results, one a path, when its last point is in."""
        seeds = [seed_of(image, self.seed) for image in self.images]
        jobs = (
            (row, paths, name) for row, paths in group.rows(len(self.images), self.draws) for name in paths
        )
        sums: dict[str, Tensor] = {}
        for batch in _batches(jobs, self._even(group)):
            points, weights, owners, copies, keys = [], [], [], [], []
            for row, paths, name, part in batch:
                key = seeds[row.image] + (row.draw << 12)
                width = None if self.noise_range is None else self.noise_range[row.image]
                copy = add_noise(self.images[row.image], row.draw, self.noise_level, key, width)
                x, w = paths[name].points(copy, part, key + 1, row.image)
                points.append(x)
                weights.append(w)
                owners += [row.image] * len(x)
                keys += [key + 2] * len(x)
                copies.append(copy)
            target = None if self.target is None else self.target[owners]
            found = group.passes.run(Batch(torch.cat(points), target, owners, tell, keys)).split(
                [len(x) for x in points]
            )
            for (row, paths, name, part), copy, weight, values in zip(
                batch, copies, weights, found, strict=True
            ):
                share = (weight * values).sum(0)
                sums[name] = sums[name] + share if part.start else share
                if part.stop == paths[name].steps and name == list(paths)[-1]:
                    yield row, copy, {name: sums[name] for name in paths}
            tell(len(owners) if group.passes.units == 1 else 0)


def grouped(plans: Mapping[str, Plan], wanted: Collection[Key]) -> list[Group]:
    """The plans by what they share, in the order in which they came."""
    groups = []
    for passes in dict.fromkeys(plan.passes for plan in plans.values()):
        own = {name: plan for name, plan in plans.items() if plan.passes == passes}
        clean: dict[str, Path] = {}
        noisy: dict[str, Path] = {}
        for name, smoothing in sorted(wanted):
            if name in own:
                (noisy if smoothing else clean).update(own[name].paths)
        groups.append(Group(passes, own, clean, noisy))
    return groups


def add_noise(row: Tensor, draw: int, level: float, key: int, width: Tensor | None = None) -> Tensor:
    """`row` with Gaussian noise, sd = `level` x `width`, or the image's range; draw 0 is the clean image."""
    if draw == 0:
        return row
    noise = torch.randn(row.shape, generator=torch.Generator().manual_seed(key), dtype=row.dtype)
    return row + (level * (row.max() - row.min() if width is None else width)) * noise.to(row.device)


def seed_of(image: Tensor, seed: int) -> int:
    """Seed made from an image's content: its maps are the same alone and in any batch."""
    content = image.detach().cpu().contiguous().numpy().tobytes()
    digest = blake2b(content, digest_size=6, key=seed.to_bytes(8, "little", signed=True)).digest()
    return int.from_bytes(digest, "little")


def _store(maps: dict[Key, Tensor], key: Key, image: int, value: Tensor) -> None:
    if key in maps:
        maps[key][image] = value


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
