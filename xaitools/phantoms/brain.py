"""Synthetic brains with atrophy of known place and strength, made from the MNI152 tissue templates."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from xaitools.checks import check_choice, check_counts
from xaitools.data.grids import Grid, mni_grid
from xaitools.data.lazy import CachedArray, LazyTensor, cached, prepare
from xaitools.data.volume_set import Volumes
from xaitools.errors import ParameterError
from xaitools.phantoms.brain_regions import ALZHEIMER, REGIONS, Place, label_numbers, places_of
from xaitools.phantoms.brain_tissue import anatomy, smooth_field, tissue_at

VERSION = 1


MODALITIES = ("T1w", "grey-matter")


AGES = (60.0, 85.0)


# Grey values of cerebrospinal fluid, grey and white matter, about those of nilearn's T1-weighted template.
CSF, GREY, WHITE = 0.24, 0.6, 0.8


def synthetic_brains(
    n_subjects: int,
    *,
    spacing: float = 4.0,
    atrophy: float = 0.3,
    regions: Sequence[str] = ALZHEIMER,
    modality: str = "T1w",
    seed: int,
    shape: Sequence[int] | None = None,
    cache_dir: str | Path | None = None,
    n_jobs: int = 1,
    progress: bool = True,
) -> Volumes:
    """Make synthetic brains in MNI space, half of them with atrophy, one a subject.

    Each subject has an anatomy of its own (smooth random deformation of the template, ages of 60 to 85 years with
    wider ventricles and sulci), contrast, bias field and Rician noise, and regions whose volume varies by 5 %
    around the mean of its age. In patients the chosen regions have lost `atrophy` of their grey matter on average,
    between 0.5 and 1.5 times that: a quarter by a contraction of the region, the rest by grey matter that turns into
    fluid. The lateral ventricle grows instead: tissue near its fluid turns into fluid. Nothing else depends on the
    class, and subject `i` depends on the arguments and `i` alone, not on `n_subjects`. Anatomy does not depend on
    `spacing`.

    Parameters
    ----------
    n_subjects : int
        Even positions are controls, odd positions patients.
    spacing : float
        Length of a voxel in mm, on :func:`xaitools.data.grids.mni_grid`.
    atrophy : float
        Mean share of the regions' grey matter that patients have lost, 0 to 0.6.
    regions : sequence of str
        Where; keys of :data:`REGIONS`, both hemispheres each.
    modality : {"T1w", "grey-matter"}
        Skull-stripped T1-weighted volumes, or maps of grey matter as voxel-based morphometry makes them: the
        anatomies aligned, volumes modulated into the values.
    seed : int
        Same seed, same brains.
    shape : three ints, optional
        Crop or extend the grid on both sides to so many voxels.
    cache_dir, n_jobs, progress
        As for :func:`xaitools.data.brain.load_brains`.

    Returns
    -------
    Volumes
        Classes ``("control", "patient")``. `masks` are true in the chosen regions, placed as in the subject's
        anatomy (in both classes; nowhere for ``atrophy=0``); `label_maps` number all :data:`REGIONS`, left 1, 3, 5,
        ..., right 2, 4, 6, ... (names in ``info["label_names"]``). `numbers` holds ``"age (years)"`` and
        ``"atrophy"``, the share that disease took.

    Raises
    ------
    ParameterError
        A parameter out of its range, or an unknown region.
    """
    _check(n_subjects, atrophy, regions, modality)
    grid = mni_grid(spacing)
    grid = grid if shape is None else grid.resized(shape)
    recipes = [
        Recipe(seed, i, bool(i % 2), atrophy, tuple(regions), modality, spacing, grid.shape)
        for i in range(n_subjects)
    ]

    def items(what: str) -> list[CachedArray]:
        keys = [{"version": VERSION, "what": what, **vars(recipe)} for recipe in recipes]
        return cached(
            cache_dir, "synthetic-brains", keys, [partial(_draw, recipe, what) for recipe in recipes]
        )

    images = items("image")
    prepare(images, n_jobs=n_jobs, desc="synthetic brains", progress=progress)
    people = [draw_person(recipe)[0] for recipe in recipes]
    names = tuple(f"sub-{i + 1:03d}" for i in range(n_subjects))
    return Volumes(
        images=LazyTensor(images, grid.shape, torch.float32),
        labels=torch.arange(n_subjects) % 2,
        subjects=names,
        names=names,
        class_names=("control", "patient"),
        masks=LazyTensor(items("mask"), grid.shape, torch.bool),
        affine=grid.affine,
        label_maps=LazyTensor(items("label map"), grid.shape, torch.int64),
        numbers={
            "age (years)": torch.tensor([person.age for person in people]),
            "atrophy": torch.tensor([person.loss for person in people]),
        },
        info={
            "source": "synthetic brains",
            "modality": modality,
            "grid": f"mni: {grid}",
            "atrophy": atrophy,
            "regions": list(regions),
            "seed": seed,
            "label_names": {number: name for name, number in label_numbers().items()},
        },
    )


@dataclass(frozen=True)
class Recipe:
    """All that one brain depends on."""

    seed: int
    number: int
    patient: bool
    atrophy: float
    regions: tuple[str, ...]
    modality: str
    spacing: float
    shape: tuple[int, ...]

    @property
    def grid(self) -> Grid:
        """Its grid in MNI space."""
        return mni_grid(self.spacing).resized(self.shape)


@dataclass(frozen=True)
class Person:
    """What is drawn of a subject before its anatomy."""

    age: float
    loss: float
    variation: dict[str, float]

    @property
    def aging(self) -> float:
        return (self.age - AGES[0]) / (AGES[1] - AGES[0])

    def loss_of(self, place: Place, recipe: Recipe) -> float:
        """Share of a region's grey matter that this person lacks against the template; below 0, has more."""
        disease = self.loss if place.name in recipe.regions else 0.0
        return 1 - (1 - disease) * (1 - 0.07 * self.aging) * (1 - self.variation[place.name])


def synthetic_brain(recipe: Recipe) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One brain.

    Returns
    -------
    image : array of float32, (x, y, z)
        Values in [0, 1], 0 outside the brain.
    mask : array of bool, (x, y, z)
        Where the class changes the image.
    label_map : array of int64, (x, y, z)
    """
    person, rng = draw_person(recipe)
    grid = recipe.grid
    origin = anatomy(rng, grid, 1.0 if recipe.modality == "T1w" else 0.35)
    bias, contrast = smooth_field(rng, grid, 60, 0.06), rng.normal(1, 0.02, size=3)
    places = list(places_of(origin, grid))
    grey, white, fluid = tissue_shares(origin, places, person, recipe)
    if recipe.modality == "grey-matter":
        image = 0.8 * grey * np.exp(0.5 * bias) + (grey > 0.02) * rng.normal(0, 0.03, size=grid.shape)
    else:
        brain = np.clip(grey + white + fluid, 0, 1)
        clean = (
            CSF * contrast[0] * fluid + GREY * contrast[1] * grey + WHITE * contrast[2] * white
        ) * np.exp(bias)
        sigma = rng.uniform(0.015, 0.03)
        noisy = np.hypot(clean + rng.normal(0, sigma, size=grid.shape), rng.normal(0, sigma, size=grid.shape))
        image = noisy * np.clip(brain / 0.3, 0, 1)
    mask, labels = region_labels(places, recipe)
    return np.clip(image, 0, 1).astype(np.float32), mask, labels


def _draw(recipe: Recipe, what: str) -> np.ndarray:
    image, mask, label_map = synthetic_brain(recipe)
    return {"image": image, "mask": mask, "label map": label_map}[what]


def _check(n_subjects: int, atrophy: float, regions: Sequence[str], modality: str) -> None:
    check_counts(n_subjects=n_subjects)
    check_choice(modality=(modality, MODALITIES))
    if not 0 <= atrophy <= 0.6:
        raise ParameterError(f"atrophy={atrophy}; expected 0 (none) to 0.6 of the grey matter.")
    unknown = [name for name in regions if name not in REGIONS]
    if unknown or not regions or isinstance(regions, str):
        raise ParameterError(f"regions={regions!r}; expected some of {list(REGIONS)}.")


def draw_person(recipe: Recipe) -> tuple[Person, np.random.Generator]:
    """Age, disease and natural variation, and the generator to draw the anatomy with; the class draws nothing."""
    rng = np.random.default_rng((recipe.seed, recipe.number))
    age, severity = rng.uniform(*AGES), float(np.clip(rng.normal(1, 0.2), 0.5, 1.5))
    variation = {name: float(np.clip(rng.normal(0, 0.05), -0.15, 0.15)) for name in REGIONS}
    loss = min(severity * recipe.atrophy, 0.9) if recipe.patient else 0.0
    return Person(float(age), loss, variation), rng


def tissue_shares(
    origin: np.ndarray, places: Sequence[Place], person: Person, recipe: Recipe
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Shares of grey matter, white matter and fluid in each voxel."""
    aligned = recipe.modality == "grey-matter"
    source = origin.copy()
    kept, filled = np.ones((2, *recipe.shape), dtype=np.float32)
    for place in places:
        loss = person.loss_of(place, recipe)
        if REGIONS[place.name].grows:
            filled[place.box] *= 1 - place.weight * np.clip(2.5 * loss + 0.3 * person.aging, 0, 1)
        else:
            shrunk = 1.0 if aligned else (1 - loss) ** 0.25
            kept[place.box] *= 1 - place.weight * (1 - (1 - loss) / shrunk)
            source[(slice(None), *place.box)] += (shrunk ** (-1 / 3) - 1) * place.weight * place.from_center
    grey, white, fluid, near_fluid = tissue_at(source, recipe.spacing)
    tissue = (1 - near_fluid * (1 - filled)) * np.stack([grey * (1 - 0.3 * person.aging * near_fluid), white])
    brain = grey + white + fluid
    grey, white = tissue
    grey = grey * kept if aligned else np.minimum(grey * kept, brain - white)
    return grey, white, np.maximum(brain - grey - white, 0)


def region_labels(places: Sequence[Place], recipe: Recipe) -> tuple[np.ndarray, np.ndarray]:
    mask, labels = np.zeros(recipe.shape, dtype=bool), np.zeros(recipe.shape, dtype=np.int64)
    nearest = np.ones(recipe.shape)
    for place in places:
        inside = place.radius < nearest[place.box]
        labels[place.box][inside] = place.number
        nearest[place.box][inside] = place.radius[inside]
        if recipe.atrophy and place.name in recipe.regions:
            mask[place.box] |= place.radius < 1
    return mask, labels
