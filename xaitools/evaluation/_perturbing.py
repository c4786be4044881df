"""Perturb images step by step in the order of their maps, and ask the model at each step: what both metrics share."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int64
from torch import Tensor

from xaitools.checks import checked_contrast, checked_images
from xaitools.evaluation._answers import Model, Question, answers, asking
from xaitools.evaluation._orders import Curve, Ranks, Sharing, curve_names, ranks
from xaitools.models.images import ImageStack
from xaitools.models.outputs import Output
from xaitools.progress import Progress

Runs = dict[Curve, Float64[np.ndarray, "order batch step"]]


@dataclass(frozen=True)
class Items:
    """The parts of the images that are perturbed one after the other.

    `relevance` of the items of image i by each map; `filler` of image i: what stands in its perturbed items, the whole
    image, perturbed; `elements` that are perturbed, given the items that are; `counts` of perturbed items at each step;
    `share` finds the perturbed images that orders have in common; `draw` gives the ranks of a random order.
    """

    relevance: Callable[[int], Sequence[Float[np.ndarray, " item"]]]
    filler: Callable[[int], Float[np.ndarray, "channel *spatial"]]
    elements: Callable[[Bool[np.ndarray, " item"]], Bool[np.ndarray, "*spatial"]]
    counts: Sequence[int]
    share: Callable[[Ranks, Sequence[int]], Sharing]
    draw: Callable[[np.random.Generator, int], Int64[np.ndarray, " item"]] = np.random.Generator.permutation


def checked_pixels(images: Any) -> Float32[np.ndarray, "batch channel *spatial"]:
    """The images, a tensor, an array or a stack of them, as an array; each is finite and not constant."""
    if isinstance(images, ImageStack):
        images = images[:]
    images = checked_images(images).detach().cpu().float()
    checked_contrast(images, "there is nothing in a constant image to perturb")
    return images.numpy()


def perturbed_runs(
    model: Model,
    pixels: Float32[np.ndarray, "batch channel *spatial"],
    maps: Sequence[str],
    items: Items,
    target: Tensor | None,
    *,
    n_random: int,
    seed: int,
    batch_size: int,
    progress: bool | Progress,
    what: str,
    softmax: bool = False,
    output: Output = None,
) -> tuple[Runs, int]:
    """Output of each perturbed image by map and order, and the number of images that the model was asked about.

    Each distinct one is made and asked about once, and only a batch of them is in memory.
    """
    names = curve_names(maps, n_random)
    state_of = np.empty((len(names), len(pixels), len(items.counts)), dtype=int)

    def questions() -> Iterator[Question]:
        """Every distinct perturbed image once; fills `state_of` on the way."""
        n_states = 0
        for i, image in enumerate(pixels):
            own = ranks(items.relevance(i), n_random, (seed, i), items.draw)
            states, shared = items.share(own, items.counts)
            state_of[:, i] = shared + n_states
            n_states += len(states)
            filler = items.filler(i)
            chosen = None if target is None else int(target[i])
            for (row, count), points in zip(states, np.bincount(shared.ravel()), strict=True):
                yield np.where(items.elements(own[row] < count), filler, image), chosen, int(points)

    with asking(model, softmax=softmax, output=output) as ask:
        outputs = answers(ask, questions(), batch_size, total=state_of.size, progress=progress, what=what)
    runs = outputs[state_of]
    rows = {name: [row for row, own in enumerate(names) if own == name] for name in names}
    return {name: runs[own] for name, own in rows.items()}, len(outputs)
