"""What surrounds the brain of a synthetic head: fluid, skull, scalp, face, jaw and neck, from signed distances.

Lengths are in millimetres of the MNI template: x to the right, y to the front, z to the head.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import ndimage

from xaitools.data.grids import Grid
from xaitools.phantoms.brain_tissue import tissue_maps

BRAIN_CENTER = np.array([0.0, -18.0, 8.0])

# The box of a head about the centre of its brain: from the neck to the air above the crown, ears and nose within.
LENGTHS, CORNER = np.array([180.0, 240.0, 228.0]), np.array([-90.0, -108.0, -138.0])

# Grey values of a T1-weighted image, beside those of the brain.
FAT, MUSCLE, MARROW, BONE, FLUID, EYE = 0.8, 0.45, 0.4, 0.08, 0.16, 0.2


def head_grid(spacing: float) -> Grid:
    """The grid of a synthetic head, the centre of its brain at 0 mm: 45 x 60 x 57 voxels at 4 mm."""
    shape = np.rint(LENGTHS / spacing).astype(int)
    affine = np.diag([spacing, spacing, spacing, 1.0])
    affine[:3, 3] = CORNER + LENGTHS / 2 - (shape - 1) / 2 * spacing
    return Grid(tuple(shape.tolist()), affine)


@dataclass(frozen=True)
class Ellipsoid:
    """Signed distance to an ellipsoid, a good one near its surface."""

    center: tuple[float, float, float]
    half_axes: tuple[float, float, float]
    pitch: float = 0.0

    def distance(self, mm: np.ndarray, larger: float = 1.0) -> np.ndarray:
        """Of places (3, x, y, z) in mm, negative inside, with half axes `larger` times as long."""
        x, y, z = (mm[axis] - np.float32(self.center[axis]) for axis in range(3))
        cos, sin = np.float32(np.cos(np.deg2rad(self.pitch))), np.float32(np.sin(np.deg2rad(self.pitch)))
        a, b, c = (np.float32(length * larger) for length in self.half_axes)
        u, v, w = x / a, (cos * y - sin * z) / b, (sin * y + cos * z) / c
        radius = np.sqrt(u * u + v * v + w * w)
        slope = np.sqrt((u / a) ** 2 + (v / b) ** 2 + (w / c) ** 2)
        return radius * (radius - 1) / (slope + np.float32(1e-6))

    def mirrored(self) -> "Ellipsoid":
        """On the other side."""
        x, y, z = self.center
        return Ellipsoid((-x, y, z), self.half_axes, self.pitch)


FACE, NOSE = Ellipsoid((0, 38, -52), (56, 46, 56)), Ellipsoid((0, 86, -56), (14, 24, 20), 25)
JAW, JAW_BONE = Ellipsoid((0, 40, -104), (46, 46, 24), 6), Ellipsoid((0, 38, -102), (38, 38, 15), 6)
MOUTH = Ellipsoid((0, 32, -98), (30, 32, 24))
NASAL_CAVITY, THROAT = Ellipsoid((0, 50, -58), (12, 30, 17)), Ellipsoid((0, 2, -86), (9, 8, 34))
SINUS, EYEBALL = Ellipsoid((27, 46, -60), (12, 14, 16)), Ellipsoid((32, 58, -36), (12, 12, 12))
ORBIT, EAR = Ellipsoid((31, 52, -36), (18, 24, 17)), Ellipsoid((80, -24, -42), (7, 13, 24))
NECK, SPINE = Ellipsoid((0, -34, -120), (58, 60, 110)), Ellipsoid((0, -48, -130), (19, 20, 66))
CORD = Ellipsoid((0, -44, -110), (6, 6, 62))


@dataclass(frozen=True)
class Features:
    """What makes a head that person's own: factors of the nose and the jaw, mm of fat, and its grey values."""

    nose: float
    jaw: float
    fat: float
    contrast: float


@dataclass(frozen=True)
class Surfaces:
    """Signed distances, mm, of each voxel to the inside of the skull and to the skin."""

    skull: np.ndarray
    skin: np.ndarray


def surfaces(mm: np.ndarray, own: Features) -> Surfaces:
    """Of the places in the template from which the voxels of a head come, (3, x, y, z)."""
    skull = distance_to_brain(mm)
    skin = skull - (11 + own.fat)
    for part in (
        FACE.distance(mm),
        JAW.distance(mm, own.jaw),
        NECK.distance(mm),
        NOSE.distance(mm, own.nose),
    ):
        skin = _union(skin, part, 10)
    for ear in (EAR, EAR.mirrored()):
        skin = _union(skin, ear.distance(mm), 3)
    return Surfaces(skull, skin)


def nose_and_jaw(mm: np.ndarray, own: Features) -> np.ndarray:
    """Where the nose and the jaw are, bool, (x, y, z)."""
    return (NOSE.distance(mm, own.nose) < 0) | (JAW.distance(mm, own.jaw) < 0)


def paint_head(mm: np.ndarray, near: Surfaces, own: Features, spacing: float) -> np.ndarray:
    """Grey values of the head around the brain, (x, y, z); fluid where the brain belongs."""
    image = np.zeros(mm.shape[1:], dtype=np.float32)

    def paint(distance: np.ndarray, value: float, within: np.ndarray | float = 1.0) -> None:
        share = within * np.clip(0.5 - distance / np.float32(spacing), 0, 1)
        image[...] += share * (np.float32(value * own.contrast) - image)

    flesh = np.clip(0.5 - (near.skin + own.fat) / np.float32(spacing), 0, 1)
    paint(near.skin, FAT)
    paint(near.skin + own.fat, MUSCLE)
    for part in (JAW_BONE, SPINE):
        paint(part.distance(mm), BONE, flesh)
        paint(part.distance(mm) + 4, MARROW, flesh)
    paint(MOUTH.distance(mm), MUSCLE * 1.15, flesh)
    for part in (ORBIT, ORBIT.mirrored()):
        paint(part.distance(mm), FAT, flesh)
    paint(near.skull - 8, BONE)
    paint(np.maximum(near.skull - 6, 2.5 - near.skull), MARROW, np.clip((mm[2] + 25) / 20, 0, 1))
    for part in (EYEBALL, EYEBALL.mirrored()):
        paint(part.distance(mm), EYE)
    for part in (NASAL_CAVITY, THROAT, SINUS, SINUS.mirrored()):
        paint(part.distance(mm), 0.0)
    paint(near.skull - 1.5, FLUID)
    paint(CORD.distance(mm) - 4, FLUID)
    paint(CORD.distance(mm), 0.65)
    return image


def distance_to_brain(mm: np.ndarray) -> np.ndarray:
    """Signed distance, mm, of places in the template, (3, x, y, z), to the surface about the brain and its folds."""
    distance, grid = _brain_surface()
    indices = (mm - grid.affine[:3, 3, None, None, None].astype(np.float32)) / np.float32(grid.spacing[0])
    return ndimage.map_coordinates(distance, indices, order=1, mode="nearest")


@lru_cache(maxsize=1)
def _brain_surface() -> tuple[np.ndarray, Grid]:
    """Signed distance to the closed brain of the template, as far as 30 mm away from it."""
    maps, fine = tissue_maps(2)
    brain = maps.sum(axis=0)[::2, ::2, ::2] > 0.5
    grid = Grid(brain.shape, fine.affine @ np.diag([2, 2, 2, 1]))
    brain = np.pad(brain, 8)
    closed = ndimage.distance_transform_edt(ndimage.distance_transform_edt(~brain) <= 2.5) > 2.5
    distance = ndimage.distance_transform_edt(~closed) - ndimage.distance_transform_edt(closed)
    return ndimage.gaussian_filter((4 * distance).astype(np.float32), 0.7), grid.resized(brain.shape)


def _union(one: np.ndarray, other: np.ndarray, blend: float) -> np.ndarray:
    """Signed distance to either of two bodies, rounded over `blend` mm where they meet."""
    near = np.clip(1 - np.abs(one - other) / np.float32(blend), 0, 1)
    return np.minimum(one, other) - near**2 * np.float32(blend / 4)
