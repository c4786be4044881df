"""Tissue of the MNI152 templates, and smooth random deformations of it."""

from functools import lru_cache

import numpy as np
from scipy import ndimage
from scipy.interpolate import BSpline

from xaitools.data.grids import Grid


def anatomy(rng: np.random.Generator, grid: Grid, strength: float) -> np.ndarray:
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
        bent += strength * np.stack([smooth_field(rng, grid, knots, sd) for _ in range(3)])
    return bent.astype(np.float32)


def smooth_field(rng: np.random.Generator, grid: Grid, knots: float, sd: float) -> np.ndarray:
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


def tissue_at(source: np.ndarray, spacing: float) -> tuple[np.ndarray, ...]:
    maps, grid = _templates(spacing)
    indices = (source - grid.affine[:3, 3, None, None, None].astype(np.float32)) / np.float32(grid.spacing[0])
    return tuple(ndimage.map_coordinates(tissue, indices, order=1) for tissue in maps)


@lru_cache(maxsize=4)
def _templates(spacing: float) -> tuple[np.ndarray, Grid]:
    """Grey matter, white matter, fluid and nearness of fluid in MNI152 space, averaged over `spacing` mm."""
    maps, grid = tissue_maps(1 if spacing < 3 else 2)
    step = grid.spacing[0]
    sigma = np.sqrt(max(spacing**2 - step**2, 0)) / np.sqrt(8 * np.log(2)) / step
    near = np.clip(2 * ndimage.gaussian_filter(maps[2], 3 / step), 0, 1) * (maps.sum(axis=0) > 0.5)
    smooth = [ndimage.gaussian_filter(tissue, sigma, truncate=3) for tissue in (*maps, near)]
    return np.stack(smooth), grid


@lru_cache(maxsize=2)
def tissue_maps(step: int) -> tuple[np.ndarray, Grid]:
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
