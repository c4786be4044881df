"""Synthetic brains with atrophy of known place and strength, made from the MNI152 tissue templates.

Lengths are in millimetres of MNI space: x to the right, y to the front, z to the head.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage
from scipy.interpolate import BSpline

from xaitools.data.grids import Grid, mni_grid
from xaitools.data.lazy import CachedArray, LazyTensor, cache_path, prepare
from xaitools.data.volume_set import Volumes
from xaitools.errors import ParameterError

VERSION = 1
MODALITIES = ("T1w", "grey-matter")
AGES = (60.0, 85.0)
# Grey values of cerebrospinal fluid, grey and white matter, about those of nilearn's T1-weighted template.
CSF, GREY, WHITE = 0.24, 0.6, 0.8


@dataclass(frozen=True)
class Region:
    """An ellipsoid in the left hemisphere and its mirror image in the right one.

    Parameters
    ----------
    center : (x, y, z), mm
    half_axes : (x, y, z), mm
    pitch : float, degrees
        How far the front end is turned down.
    grows : bool
        Filled with fluid: disease makes it larger.
    """

    center: tuple[float, float, float]
    half_axes: tuple[float, float, float]
    pitch: float = 0.0
    grows: bool = False


# Centres within a few mm of those of the AAL atlas (Tzourio-Mazoyer et al. 2002, NeuroImage 15:273-289, Table 2), for
# the ventricle of the MNI152 template itself; half axes and pitch after the shape of the structures there.
REGIONS = {
    "hippocampus": Region((-26, -21, -13), (8, 20, 7), 32),
    "amygdala": Region((-23, -3, -19), (8, 7, 8)),
    "parahippocampal gyrus": Region((-22, -18, -23), (7, 19, 6), 30),
    "inferior temporal gyrus": Region((-50, -29, -25), (9, 24, 8), 22),
    "lateral ventricle": Region((-11, -3, 18), (9, 30, 11), 0, grows=True),
    "precuneus": Region((-8, -56, 46), (8, 16, 16)),
    "thalamus": Region((-11, -18, 7), (9, 14, 9)),
    "putamen": Region((-25, 3, 1), (7, 15, 9)),
    "precentral gyrus": Region((-39, -7, 51), (12, 14, 14)),
    "calcarine cortex": Region((-8, -79, 6), (9, 17, 8)),
}
ALZHEIMER = (
    "hippocampus",
    "amygdala",
    "parahippocampal gyrus",
    "inferior temporal gyrus",
    "lateral ventricle",
)


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
        paths = [cache_path(cache_dir, "synthetic-brains", key) for key in keys]
        return [
            CachedArray(path, partial(_draw, recipe, what))
            for path, recipe in zip(paths, recipes, strict=True)
        ]

    images = items("image")
    prepare(images, n_jobs=n_jobs, desc="synthetic brains", progress=progress)
    people = [_person(recipe)[0] for recipe in recipes]
    names = tuple(f"sub-{i + 1:03d}" for i in range(n_subjects))
    return Volumes(
        images=LazyTensor(images, grid.shape, torch.float32),
        labels=torch.arange(n_subjects) % 2,
        subjects=names,
        names=names,
        class_names=("control", "patient"),
        masks=LazyTensor(items("mask"), grid.shape, torch.bool),
        affine=grid.affine,
        label_maps=LazyTensor(items("label map"), grid.shape, torch.int32),
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


def label_numbers() -> dict[str, int]:
    """Numbers of the regions in the label maps: ``{"hippocampus left": 1, "hippocampus right": 2, ...}``."""
    sides = [f"{name} {side}" for name in REGIONS for side in ("left", "right")]
    return {name: number for number, name in enumerate(sides, start=1)}


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
class _Person:
    """What is drawn of a subject before its anatomy."""

    age: float
    loss: float
    variation: dict[str, float]

    @property
    def aging(self) -> float:
        return (self.age - AGES[0]) / (AGES[1] - AGES[0])

    def loss_of(self, name: str, recipe: Recipe) -> float:
        """Share of a region's grey matter that this person lacks against the template; below 0, has more."""
        disease = self.loss if name in recipe.regions else 0.0
        return 1 - (1 - disease) * (1 - 0.07 * self.aging) * (1 - self.variation[name])


def synthetic_brain(recipe: Recipe) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One brain.

    Returns
    -------
    image : array of float32, (x, y, z)
        Values in [0, 1], 0 outside the brain.
    mask : array of bool, (x, y, z)
        Where the class changes the image.
    label_map : array of int32, (x, y, z)
    """
    person, rng = _person(recipe)
    grid = recipe.grid
    origin = _anatomy(rng, grid, 1.0 if recipe.modality == "T1w" else 0.35)
    bias, contrast = _smooth(rng, grid, 60, 0.06), rng.normal(1, 0.02, size=3)
    places = list(_places(origin, grid))
    grey, white, fluid = _tissue(origin, places, person, recipe)
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
    mask, labels = _truth(places, recipe)
    return np.clip(image, 0, 1).astype(np.float32), mask, labels


def _draw(recipe: Recipe, what: str) -> np.ndarray:
    image, mask, label_map = synthetic_brain(recipe)
    return {"image": image, "mask": mask, "label map": label_map}[what]


def _check(n_subjects: int, atrophy: float, regions: Sequence[str], modality: str) -> None:
    if n_subjects < 1:
        raise ParameterError(f"n_subjects={n_subjects}: expected at least one")
    if not 0 <= atrophy <= 0.6:
        raise ParameterError(f"atrophy={atrophy}: expected 0 (none) to 0.6 of the grey matter")
    unknown = [name for name in regions if name not in REGIONS]
    if unknown or not regions or isinstance(regions, str):
        raise ParameterError(f"regions={regions!r}: expected some of {list(REGIONS)}")
    if modality not in MODALITIES:
        raise ParameterError(f"modality={modality!r}: expected one of {MODALITIES}")


def _person(recipe: Recipe) -> tuple[_Person, np.random.Generator]:
    """Age, disease and natural variation, and the generator to draw the anatomy with; the class draws nothing."""
    rng = np.random.default_rng((recipe.seed, recipe.number))
    age, severity = rng.uniform(*AGES), float(np.clip(rng.normal(1, 0.2), 0.5, 1.5))
    variation = {name: float(np.clip(rng.normal(0, 0.05), -0.15, 0.15)) for name in REGIONS}
    loss = min(severity * recipe.atrophy, 0.9) if recipe.patient else 0.0
    return _Person(float(age), loss, variation), rng


def _anatomy(rng: np.random.Generator, grid: Grid, strength: float) -> np.ndarray:
    """Where in the template each voxel of a subject comes from, mm, (3, x, y, z)."""
    axes = [
        np.arange(n) * step + start
        for n, step, start in zip(grid.shape, grid.spacing, grid.affine[:3, 3], strict=True)
    ]
    mm = np.stack(np.meshgrid(*axes, indexing="ij")).astype(np.float32)
    scale = 1 + strength * rng.normal(0, 0.012, size=3)
    turn = np.cross(np.eye(3), strength * rng.normal(0, 0.01, size=3))
    center = np.array([0, -18, 10])
    linear = np.einsum("ij,jxyz->ixyz", np.diag(scale) + turn, mm - center[:, None, None, None])
    bent = linear + center[:, None, None, None]
    for knots, sd in ((40, 3.5), (16, 1.2)):
        bent += strength * np.stack([_smooth(rng, grid, knots, sd) for _ in range(3)])
    return bent.astype(np.float32)


def _smooth(rng: np.random.Generator, grid: Grid, knots: float, sd: float) -> np.ndarray:
    """A random cubic spline with independent coefficients every `knots` mm, the same on every grid."""
    bases = []
    for n, step, start in zip(grid.shape, grid.spacing, grid.affine[:3, 3], strict=True):
        mm = np.clip(np.arange(n) * step + start, -160, 160)
        ends = np.arange(-160 - 3 * knots, 160 + 5 * knots, knots)
        bases.append(BSpline.design_matrix(mm, ends, 3).toarray())
    coefficients = rng.normal(0, sd, size=[basis.shape[1] for basis in bases])
    field = np.einsum("xa,abc->xbc", bases[0], coefficients)
    field = np.einsum("yb,xbc->xyc", bases[1], field)
    return np.einsum("zc,xyc->xyz", bases[2], field).astype(np.float32)


@dataclass(frozen=True)
class _Place:
    """One region on one side, on the box of voxels around it."""

    name: str
    number: int
    box: tuple[slice, ...]
    from_center: np.ndarray
    radius: np.ndarray

    @property
    def weight(self) -> np.ndarray:
        """1 inside, smoothly down to 0 at 1.3 times the half axes."""
        return 0.5 + 0.5 * np.cos(np.pi * np.clip((self.radius - 0.7) / 0.6, 0, 1))


def _places(origin: np.ndarray, grid: Grid) -> list[_Place]:
    places = []
    for name, number in label_numbers().items():
        region_name, side = name.rsplit(" ", 1)
        region = REGIONS[region_name]
        center = np.array(region.center) * [1 if side == "left" else -1, 1, 1]
        reach = 1.3 * max(region.half_axes) + 16
        ends = (np.array([center - reach, center + reach]) - grid.affine[:3, 3]) / grid.spacing
        low, high = np.clip(np.floor(ends[0]), 0, None), np.clip(np.ceil(ends[1]) + 1, 0, grid.shape)
        box = tuple(slice(int(first), int(last)) for first, last in zip(low, high, strict=True))
        away = origin[(slice(None), *box)] - center[:, None, None, None].astype(np.float32)
        cos, sin = np.cos(np.deg2rad(region.pitch)), np.sin(np.deg2rad(region.pitch))
        x, y, z = away[0], cos * away[1] - sin * away[2], sin * away[1] + cos * away[2]
        half = region.half_axes
        radius = np.sqrt((x / half[0]) ** 2 + (y / half[1]) ** 2 + (z / half[2]) ** 2)
        places.append(_Place(region_name, number, box, away, radius))
    return places


def _tissue(
    origin: np.ndarray, places: Sequence[_Place], person: _Person, recipe: Recipe
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Shares of grey matter, white matter and fluid in each voxel."""
    aligned = recipe.modality == "grey-matter"
    source = origin.copy()
    kept, filled = np.ones((2, *recipe.shape), dtype=np.float32)
    for place in places:
        loss = person.loss_of(place.name, recipe)
        if REGIONS[place.name].grows:
            filled[place.box] *= 1 - place.weight * np.clip(2.5 * loss + 0.3 * person.aging, 0, 1)
        else:
            shrunk = 1.0 if aligned else (1 - loss) ** 0.25
            kept[place.box] *= 1 - place.weight * (1 - (1 - loss) / shrunk)
            source[(slice(None), *place.box)] += (shrunk ** (-1 / 3) - 1) * place.weight * place.from_center
    grey, white, fluid, near_fluid = _sample(source, recipe.spacing)
    tissue = (1 - near_fluid * (1 - filled)) * np.stack([grey * (1 - 0.3 * person.aging * near_fluid), white])
    brain = grey + white + fluid
    grey, white = tissue
    grey = grey * kept if aligned else np.minimum(grey * kept, brain - white)
    return grey, white, np.maximum(brain - grey - white, 0)


def _sample(source: np.ndarray, spacing: float) -> tuple[np.ndarray, ...]:
    maps, grid = _templates(spacing)
    indices = (source - grid.affine[:3, 3, None, None, None].astype(np.float32)) / np.float32(grid.spacing[0])
    return tuple(ndimage.map_coordinates(tissue, indices, order=1) for tissue in maps)


@lru_cache(maxsize=4)
def _templates(spacing: float) -> tuple[np.ndarray, Grid]:
    """Grey matter, white matter, fluid and nearness of fluid in MNI152 space, averaged over `spacing` mm."""
    maps, grid = _tissue_maps(1 if spacing < 3 else 2)
    step = grid.spacing[0]
    sigma = np.sqrt(max(spacing**2 - step**2, 0)) / np.sqrt(8 * np.log(2)) / step
    near = np.clip(2 * ndimage.gaussian_filter(maps[2], 3 / step), 0, 1) * (maps.sum(axis=0) > 0.5)
    smooth = [ndimage.gaussian_filter(tissue, sigma, truncate=3) for tissue in (*maps, near)]
    return np.stack(smooth), grid


@lru_cache(maxsize=2)
def _tissue_maps(step: int) -> tuple[np.ndarray, Grid]:
    """Grey matter, white matter and fluid of the MNI152 templates, averaged over cubes of `step` mm.

    The templates are means over many people; squaring the shares makes them as sharp as one person's.
    """
    from nilearn.datasets import load_mni152_gm_template, load_mni152_template, load_mni152_wm_template

    templates = [load() for load in (load_mni152_gm_template, load_mni152_wm_template, load_mni152_template)]
    grey, white, head = (np.asarray(template.dataobj, dtype=np.float32) for template in templates)
    brain = head > 0.05
    maps = np.stack([grey, white, np.clip(1 - grey - white, 0, 1)]) ** 2
    maps *= brain / np.maximum(maps.sum(axis=0), 1e-6)
    shape = [n // step for n in brain.shape]
    whole = maps[(slice(None), *(slice(n * step) for n in shape))]
    cubes = whole.reshape(3, shape[0], step, shape[1], step, shape[2], step).mean(axis=(2, 4, 6))
    affine = templates[2].affine.copy()
    affine[:3, 3] += (step - 1) / 2 * np.diag(affine)[:3]
    affine[:3, :3] *= step
    return cubes, Grid(tuple(shape), affine)


def _truth(places: Sequence[_Place], recipe: Recipe) -> tuple[np.ndarray, np.ndarray]:
    mask, labels = np.zeros(recipe.shape, dtype=bool), np.zeros(recipe.shape, dtype=np.int32)
    nearest = np.ones(recipe.shape)
    for place in places:
        inside = place.radius < nearest[place.box]
        labels[place.box][inside] = place.number
        nearest[place.box][inside] = place.radius[inside]
        if recipe.atrophy and place.name in recipe.regions:
            mask[place.box] |= place.radius < 1
    return mask, labels
