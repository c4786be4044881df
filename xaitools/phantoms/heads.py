"""Synthetic heads of two sexes that differ in size, face and brain, each as much as one says."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import torch

from xaitools.checks import check_counts, check_positive
from xaitools.data.grids import Grid
from xaitools.data.lazy import CachedArray, LazyTensor, cached, prepare
from xaitools.data.volume_set import Volumes
from xaitools.errors import ParameterError
from xaitools.phantoms.brain import (
    CSF,
    GREY,
    WHITE,
    Person,
    Recipe,
    draw_person,
    region_labels,
    tissue_shares,
)
from xaitools.phantoms.brain_regions import REGIONS, Place, label_numbers, places_of
from xaitools.phantoms.brain_tissue import anatomy, smooth_field
from xaitools.phantoms.head_anatomy import (
    BRAIN_CENTER,
    Features,
    head_grid,
    nose_and_jaw,
    paint_head,
    surfaces,
)

VERSION = 1


SEXES = ("female", "male")


DEEP_GREY = ("thalamus", "putamen")


# The template's brain is larger than those of most people: the mean length of a head, as a share of the template's.
MEAN_SIZE = 0.93


# Standard deviation of the logarithm of the head's volume within a sex, beside what the anatomies vary: with 12 %
# between the means, the volume alone tells the sexes apart with an AUC of about 0.85, as in IXI.
SIZE_SD = 0.074


LARGEST = {"size_effect": 0.5, "face_effect": 0.5, "brain_effect": 0.6}


RESTS = ("grey matter", "white matter", "fluid")
"""Structures of the label maps besides the regions: what of the brain lies in none of them."""


def synthetic_heads(
    n_subjects: int,
    *,
    spacing: float = 4.0,
    size_effect: float = 0.12,
    face_effect: float = 0.2,
    brain_effect: float = 0.2,
    regions: Sequence[str] = DEEP_GREY,
    seed: int,
    shape: Sequence[int] | None = None,
    cache_dir: str | Path | None = None,
    n_jobs: int = 1,
    progress: bool = True,
) -> Volumes:
    """Make whole heads, skull and face on, half of them female and half male, one a subject.

    Inside is a brain as :func:`~xaitools.phantoms.brain.synthetic_brains` makes it, around it fluid, skull, scalp,
    face, jaw and neck. The sexes differ in three things, each of which 0 switches off: the size of the head, with all
    that is in it; the nose and the jaw; and the grey matter of a few regions. All three vary within a sex too, so that
    the sexes overlap. The two lateral ventricles differ in each subject, whatever its sex. Subject `i` depends on the
    arguments and `i` alone, and is the same person whatever the effects are.

    Parameters
    ----------
    n_subjects : int
        Even positions are female, odd positions male.
    spacing : float
        Length of a voxel in mm.
    size_effect : float
        By what share male heads are larger, by volume and on average.
    face_effect : float
        By what share the noses and jaws of males are longer, beside the size of the head.
    brain_effect : float
        Mean share of the regions' grey matter that males lack, 0 to 0.6; of the lateral ventricle, grow.
    regions : sequence of str
        Where brains differ; keys of :data:`~xaitools.phantoms.brain_regions.REGIONS`, both hemispheres each.
    seed : int
        Same seed, same heads.
    shape : three ints, optional
        Crop or extend the grid on both sides to so many voxels.
    cache_dir, n_jobs, progress
        As for :func:`xaitools.data.brain.load_brains`.

    Returns
    -------
    Volumes
        Classes ``("female", "male")``; axes towards right, front and head, the centre of the brain at 0 mm.
        `label_maps` number all structures of the brain and are above 0 in the whole of it, fluid included: regions as
        ``synthetic_brains`` numbers them, then the rest of grey matter, white matter and fluid, left and right (names
        in ``info["label_names"]``). The lateral ventricles are where their fluid is; other regions are ellipsoids
        about their centres. `masks` are true where a difference was planted that has a place: in the regions, and in
        the nose and the jaw of a male of that size; in both sexes. `numbers` holds ``"brain volume (ml)"`` of the label
        map, ``"age (years)"``, and ``"brain difference"``, the share that the regions lack.

    Raises
    ------
    ParameterError
        A parameter out of its range, or an unknown region.

    Examples
    --------
    >>> heads = synthetic_heads(2, spacing=12, face_effect=0.0, seed=0, progress=False)  # the face tells nothing
    >>> [heads.label_map(i).shape for i in range(2)]
    [(15, 20, 19), (15, 20, 19)]
    """
    effects = {"size_effect": size_effect, "face_effect": face_effect, "brain_effect": brain_effect}
    _check(n_subjects, spacing, effects, regions)
    grid = head_grid(spacing)
    grid = grid if shape is None else grid.resized(shape)
    recipes = [
        HeadRecipe(seed, i, bool(i % 2), **effects, regions=tuple(regions), spacing=spacing, shape=grid.shape)
        for i in range(n_subjects)
    ]
    voxel = float(np.prod(grid.spacing)) / 1000

    def items(what: str) -> list[CachedArray]:
        keys = [{"version": VERSION, "what": what, **vars(recipe)} for recipe in recipes]
        makers = [partial(_draw, recipe, what) for recipe in recipes]
        measure = partial(_volume, voxel=voxel) if what == "label map" else None
        return cached(cache_dir, "synthetic-heads", keys, makers, measure)

    images, label_maps, masks = items("image"), items("label map"), items("mask")
    of_each = [item for own in zip(images, label_maps, masks, strict=True) for item in own]
    prepare(of_each, n_jobs=n_jobs, desc="synthetic heads", progress=progress)
    people = [draw_person(recipe.brain)[0] for recipe in recipes]
    names = tuple(f"sub-{i + 1:03d}" for i in range(n_subjects))
    return Volumes(
        images=LazyTensor(images, grid.shape, torch.float32),
        labels=torch.arange(n_subjects) % 2,
        subjects=names,
        names=names,
        class_names=SEXES,
        masks=LazyTensor(masks, grid.shape, torch.bool),
        affine=grid.affine,
        label_maps=LazyTensor(label_maps, grid.shape, torch.int64),
        numbers={
            "brain volume (ml)": torch.tensor([item.measured() for item in label_maps]),
            "age (years)": torch.tensor([person.age for person in people]),
            "brain difference": torch.tensor([person.loss for person in people]),
        },
        info={
            "source": "synthetic heads",
            "grid": f"centered: {grid}",
            **effects,
            "regions": list(regions),
            "seed": seed,
            "label_names": {number: name for name, number in head_label_numbers().items()},
        },
    )


def head_label_numbers() -> dict[str, int]:
    """Numbers in the label maps: those of the regions, then ``{"other grey matter left": 21, ...}``."""
    sides = [f"other {rest} {side}" for rest in RESTS for side in ("left", "right")]
    known = label_numbers()
    return known | {name: number for number, name in enumerate(sides, start=len(known) + 1)}


@dataclass(frozen=True)
class HeadRecipe:
    """All that one head depends on."""

    seed: int
    number: int
    male: bool
    size_effect: float
    face_effect: float
    brain_effect: float
    regions: tuple[str, ...]
    spacing: float
    shape: tuple[int, ...]

    @property
    def brain(self) -> Recipe:
        """That of the brain inside."""
        return Recipe(
            self.seed,
            self.number,
            self.male,
            self.brain_effect,
            self.regions,
            "T1w",
            self.spacing,
            self.shape,
        )

    def grid_of(self, size: float) -> Grid:
        """Its voxels in the space of the template, which is smaller than a head that is `size` times as long."""
        grid = head_grid(self.spacing).resized(self.shape)
        affine = grid.affine / size
        affine[:3, 3] += BRAIN_CENTER
        affine[3, 3] = 1
        return Grid(grid.shape, affine)


@dataclass(frozen=True)
class _LopsidedPerson(Person):
    """A person whose one lateral ventricle is larger than the other."""

    lopsided: float

    def loss_of(self, place: Place, recipe: Recipe) -> float:
        side = 1 if place.number % 2 else -1
        return super().loss_of(place, recipe) + side * self.lopsided * REGIONS[place.name].grows


@lru_cache(maxsize=1)
def synthetic_head(recipe: HeadRecipe) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One head.

    Returns
    -------
    image : array of float32, (x, y, z)
        Values in [0, 1], air included.
    mask : array of bool, (x, y, z)
        Where the sexes differ, but for their size.
    label_map : array of int64, (x, y, z)
    """
    person, rng = draw_person(recipe.brain)
    size, own, lopsided = draw_head(recipe, recipe.male)
    grid = recipe.grid_of(size)
    origin = anatomy(rng, grid, 1.0)
    bias, contrast = smooth_field(rng, grid, 60, 0.06), rng.normal(1, 0.02, size=3)
    places = list(places_of(origin, grid))
    person = _LopsidedPerson(**vars(person), lopsided=lopsided)
    grey, white, fluid = tissue_shares(origin, places, person, recipe.brain)
    near = surfaces(origin, own)
    brain = np.clip(grey + white + fluid, 0, 1)
    inside = CSF * contrast[0] * fluid + GREY * contrast[1] * grey + WHITE * contrast[2] * white
    clean = (paint_head(origin, near, own, recipe.spacing) * (1 - brain) + inside) * np.exp(bias)
    sigma = rng.uniform(0.015, 0.03)
    noisy = np.hypot(clean + rng.normal(0, sigma, size=grid.shape), rng.normal(0, sigma, size=grid.shape))
    mask, labels = region_labels(places, recipe.brain)
    intracranial = near.skull < 0
    mask &= intracranial
    labels = _labels(labels, places, np.stack([grey, white, fluid]), intracranial, origin[0])
    if recipe.face_effect:
        mask |= nose_and_jaw(origin, draw_head(recipe, male=True)[1]) & ~intracranial
    return np.clip(noisy, 0, 1).astype(np.float32), mask, labels


def draw_head(recipe: HeadRecipe, male: bool) -> tuple[float, Features, float]:
    """How many times as long as the template the head is, its features, and by how much its ventricles differ."""
    rng = np.random.default_rng((recipe.seed, recipe.number, 1))
    side = 0.5 if male else -0.5
    size = MEAN_SIZE * np.exp((rng.normal(0, SIZE_SD) + side * np.log1p(recipe.size_effect)) / 3)
    nose, jaw = np.exp(rng.normal(0, 0.06, size=2))
    factor = 1 + side * recipe.face_effect
    features = Features(nose * factor, jaw * factor, rng.uniform(3, 7), rng.normal(1, 0.04))
    return float(size), features, float(np.clip(rng.normal(0, 0.2), -0.4, 0.4))


def _labels(
    regions: np.ndarray, places: Sequence[Place], tissue: np.ndarray, brain: np.ndarray, x: np.ndarray
) -> np.ndarray:
    """Numbers of the structures in a brain whose regions are known; what grows is where its fluid is."""
    kind, right = tissue.argmax(axis=0), x > 0
    kind[tissue.sum(axis=0) < 0.5] = RESTS.index("fluid")
    rest = len(label_numbers()) + 1 + 2 * kind + right
    is_fluid = kind == RESTS.index("fluid")
    filled = {place.number for place in places if REGIONS[place.name].grows}
    labels = np.where((regions == 0) | (np.isin(regions, list(filled)) & ~is_fluid), rest, regions)
    for place in places:
        if place.number in filled:
            own = is_fluid[place.box] & (place.radius < 1.3) & (right[place.box] == (place.number % 2 == 0))
            labels[place.box][own & (labels[place.box] > len(label_numbers()))] = place.number
    return np.where(brain, labels, 0)


def _draw(recipe: HeadRecipe, what: str) -> np.ndarray:
    image, mask, label_map = synthetic_head(recipe)
    return {"image": image, "mask": mask, "label map": label_map}[what]


def _volume(label_map: np.ndarray, voxel: float) -> float:
    return float((label_map > 0).sum()) * voxel


def _check(n_subjects: int, spacing: float, effects: Mapping[str, float], regions: Sequence[str]) -> None:
    check_counts(n_subjects=n_subjects)
    check_positive(spacing=spacing)
    for name, value in effects.items():
        if not 0 <= value <= LARGEST[name]:
            raise ParameterError(f"{name}={value}; expected 0 (none) to {LARGEST[name]}.")
    unknown = [name for name in regions if name not in REGIONS]
    if unknown or not regions or isinstance(regions, str):
        raise ParameterError(f"regions={regions!r}; expected some of {list(REGIONS)}.")
