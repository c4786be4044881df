"""Schematic axial chest CT slices in which only the blood tells the classes apart.

Lengths are in millimetres, x to the viewer's right (the patient's left), y down (posterior), densities in
Hounsfield units. The origin lies midway between the lungs.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from tqdm.auto import tqdm

from xaitools.data.intensity import MEDIASTINUM, apply_window
from xaitools.data.samples import Samples
from xaitools.errors import ParameterError

AIR, LUNG, FAT, SOFT_TISSUE = -1000.0, -850.0, -100.0, 52.0

# One axial level each. blood: center x, y, half axes, angle (degrees, counterclockwise), wall thickness.
# heart: the muscle around the chambers, center x, y, half axes, angle. airways: center x, y, radius.
LEVELS: dict[str, dict[str, list[tuple[float, ...]]]] = {
    "aortic arch": {
        "blood": [(12, -10, 40, 12.5, -64, 2), (-26, -28, 8, 10, 0, 1.5)],
        "heart": [],
        "airways": [(-7, 12, 9)],
    },
    "pulmonary artery": {
        "blood": [
            (-12, -36, 16, 17, 0, 2),
            (21, -38, 14, 17, 20, 2),
            (-13, -7, 33, 9, 10, 2),
            (32, -13, 18, 9.5, -55, 2),
            (-35, -24, 8.5, 10, 0, 1.5),
            (25, 34, 11.5, 11.5, 0, 2),
        ],
        "heart": [],
        "airways": [(-20, 13, 7), (17, 12, 6.5)],
    },
    "left atrium": {
        "blood": [
            (16, -58, 23, 12, -15, 4),
            (0, -33, 16, 15, 0, 3),
            (-31, -30, 13, 20, -15, 2.5),
            (2, -1, 33, 14, 0, 2.5),
            (45, -31, 16, 22, 30, 8),
            (-42, 4, 18, 5, 15, 1.5),
            (43, 5, 17, 5, -18, 1.5),
            (25, 36, 11.5, 11.5, 0, 2),
        ],
        "heart": [(12, -31, 52, 42, 15)],
        "airways": [],
    },
    "ventricles": {
        "blood": [
            (47, -18, 34, 15, 32, 10),
            (17, -47, 36, 15, 27, 4),
            (-24, -22, 19, 23, 0, 3),
            (12, 4, 24, 13, 5, 2.5),
            (24, 38, 11, 11, 0, 2),
        ],
        "heart": [(18, -23, 66, 42, 28)],
        "airways": [],
    },
}


def chest_slices(
    n: int,
    *,
    size: int = 128,
    seed: int,
    window: tuple[float, float] = MEDIASTINUM,
    progress: bool = True,
) -> Samples:
    """Make synthetic axial chest CT slices, half of them with contrast agent, one a subject.

    Body outline, fat, muscle, ribs, spine, sternum, lungs with vessels, heart and great vessels at one of four
    levels, table and correlated noise, all varying between subjects. Nothing but the density of the blood in
    the heart and the great vessels depends on the class: about 40 HU without, 110 to 330 HU with contrast
    agent. Slice `i` depends on `seed`, `i` and `size` alone, not on `n`.

    Parameters
    ----------
    n : int
        Number of slices; even positions have no contrast agent, odd positions have.
    size : int
        Height and width in pixels, at least 32.
    seed : int
        Same seed, same slices.
    window : (center, width), Hounsfield units
    progress : bool
        Show a progress bar.

    Returns
    -------
    Samples
        Images (n, 1, size, size); masks of the heart's chambers and great vessels, which is where the
        classes differ.

    Raises
    ------
    ParameterError
        `n` below 1, `size` below 32, or an impossible window.
    """
    if n < 1 or size < 32:
        raise ParameterError(f"n={n}, size={size}: expected at least one slice of at least 32 pixels")
    images = np.empty((n, 1, size, size), dtype=np.float32)
    masks = np.empty((n, 1, size, size), dtype=bool)
    labels = np.arange(n) % 2
    for i in tqdm(range(n), desc="synthetic slices", disable=not progress):
        hu, masks[i, 0] = chest_hu(size, enhanced=bool(labels[i]), seed=(seed, i))
        images[i, 0] = apply_window(hu, window)
    names = tuple(f"sub-{i + 1:03d}" for i in range(n))
    return Samples(
        images=torch.from_numpy(images),
        labels=torch.from_numpy(labels),
        subjects=names,
        names=names,
        class_names=("no contrast", "contrast"),
        masks=torch.from_numpy(masks),
        info={
            "source": "synthetic chest CT",
            "window": [float(value) for value in window],
            "size": size,
            "seed": seed,
            "mask_rule": "heart chambers and great vessels, as drawn",
        },
    )


def chest_hu(size: int, *, enhanced: bool, seed: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Draw one slice in Hounsfield units.

    Returns
    -------
    hu : array of float32, (size, size)
    blood : array of bool, (size, size)
        Heart chambers and great vessels. `enhanced` changes `hu` only where blood has a part of a pixel.
    """
    rng = np.random.default_rng(seed)
    level = LEVELS[rng.choice(list(LEVELS))]
    canvas, chest = _patient(rng, size, narrow=level is LEVELS["aortic arch"])
    _table(canvas, chest, rng)
    _chest_wall(canvas, chest, rng)
    lungs = _lungs(canvas, chest, level, rng)
    blood = _mediastinum(canvas, lungs, level, rng, enhanced=enhanced)
    _spine(canvas, rng)
    _ribs_and_sternum(canvas, chest, rng)
    hu = canvas.hu + _noise(canvas, chest, rng)
    return np.maximum(hu, -1024).astype(np.float32), blood > 0.5


@dataclass
class _Canvas:
    """A slice being drawn: densities, and the position of each pixel in the patient (both bent a little)."""

    hu: np.ndarray
    x: np.ndarray
    y: np.ndarray
    pixel: float

    def near(self, cx: float, cy: float, reach: float) -> tuple[slice, slice]:
        """Rows and columns that may lie within `reach` of a point."""
        size = len(self.hu)
        low = [int((c - reach - 22) / self.pixel + size / 2) for c in (cy, cx)]
        high = [int((c + reach + 22) / self.pixel + size / 2) + 1 for c in (cy, cx)]
        rows, columns = (slice(max(a, 0), max(b, 0)) for a, b in zip(low, high, strict=True))
        return rows, columns

    def blend(self, where: Any, share: np.ndarray, hu: float | np.ndarray) -> None:
        """Replace `share` of each pixel by tissue of density `hu`."""
        self.hu[where] += share * (hu - self.hu[where])

    def ellipse(
        self, cx: float, cy: float, a: float, b: float, degrees: float = 0
    ) -> tuple[tuple[slice, slice], np.ndarray]:
        """Rows and columns near an ellipse, and the share of each pixel inside it."""
        where = self.near(cx, cy, max(a, b))
        dx, dy = self.x[where] - cx, self.y[where] - cy
        cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
        u, v = (dx * cos - dy * sin) / a, (dx * sin + dy * cos) / b
        radius = np.sqrt(u**2 + v**2)
        distance = radius * (radius - 1) / (np.sqrt((u / a) ** 2 + (v / b) ** 2) + 1e-6)
        return where, self.share(distance)

    def share(self, distance: np.ndarray) -> np.ndarray:
        """Share of each pixel on the negative side of a signed distance."""
        return np.clip(0.5 - distance / self.pixel, 0, 1)


@dataclass
class _Chest:
    """Outlines of one patient in polar coordinates: radius of each pixel and of the outlines at its angle."""

    angle: np.ndarray
    radius: np.ndarray
    pleura: np.ndarray
    muscle: np.ndarray
    skin: np.ndarray


def _patient(rng: np.random.Generator, size: int, narrow: bool) -> tuple[_Canvas, _Chest]:
    width, depth = (112, 74) if narrow else (127, 82)
    width, depth = width * rng.normal(1, 0.05), depth * rng.normal(1, 0.06)
    fat, muscle = rng.gamma(4, 3.2) + 3, rng.uniform(0.7, 1.35)
    pixel = (2 * (width + 26 * muscle + fat) * rng.uniform(1.03, 1.22)) / size
    canvas = _bent_canvas(rng, size, pixel)
    angle = np.arctan2(canvas.y, canvas.x)
    radius = np.hypot(canvas.x, canvas.y)
    cos, sin = np.abs(np.cos(angle)), np.abs(np.sin(angle))
    exponent = rng.uniform(2.15, 2.5)
    pleura = ((cos / width) ** exponent + (sin / depth) ** exponent) ** (-1 / exponent)
    pleura = pleura * _wobble(angle, rng) - 15 * _bump(angle, 90, 11)
    pectoral = rng.uniform(6, 17) * (_bump(angle, -50, 17) + _bump(angle, -130, 17))
    back = rng.uniform(8, 22) * (_bump(angle, 33, 17) + _bump(angle, 147, 17))
    paraspinal = rng.uniform(22, 32) * (_bump(angle, 72, 10) + _bump(angle, 108, 10))
    muscle_edge = pleura + 13 + muscle * (pectoral + back + paraspinal)
    breast = rng.choice([0, 1]) * rng.uniform(8, 34) * (_bump(angle, -48, 16) + _bump(angle, -132, 16))
    layer = fat * (0.75 + 0.35 * cos + 0.5 * _bump(angle, 90, 16)) + breast
    return canvas, _Chest(angle, radius, pleura, muscle_edge, muscle_edge + layer * _wobble(angle, rng))


def _bent_canvas(rng: np.random.Generator, size: int, pixel: float) -> _Canvas:
    axis = ((np.arange(size) + 0.5) - size / 2) * pixel
    y, x = np.meshgrid(axis, axis, indexing="ij")
    turn = np.deg2rad(rng.normal(0, 2.5))
    shift_x, shift_y = rng.normal(0, 4, size=2)
    x, y = np.cos(turn) * x - np.sin(turn) * y + shift_x, np.sin(turn) * x + np.cos(turn) * y + shift_y
    phase = rng.uniform(0, 2 * np.pi, size=4)
    wave = 2 * np.pi / rng.uniform(90, 170, size=4)
    amplitude = rng.uniform(0.5, 2.5, size=4)
    bent_x = x + amplitude[0] * np.sin(wave[0] * y + phase[0]) + amplitude[1] * np.sin(wave[1] * x + phase[1])
    bent_y = y + amplitude[2] * np.sin(wave[2] * x + phase[2]) + amplitude[3] * np.sin(wave[3] * y + phase[3])
    return _Canvas(np.full((size, size), AIR), bent_x, bent_y, pixel)


def _bump(angle: np.ndarray, center: float, width: float) -> np.ndarray:
    """Bell curve of height 1 over the angle; center and width in degrees (90 is posterior)."""
    away = (np.rad2deg(angle) - center + 180) % 360 - 180
    return np.exp(-0.5 * (away / width) ** 2)


def _wobble(angle: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    phase = rng.uniform(0, 2 * np.pi, size=3)
    return 1 + sum(rng.normal(0, 0.012) * np.cos(k * angle + phase[k - 1]) for k in (1, 2, 3))


def _smooth_noise(rng: np.random.Generator, size: int, pixels: float) -> np.ndarray:
    """Noise with mean 0, standard deviation 1 and a correlation length in pixels."""
    noise = ndimage.gaussian_filter(rng.standard_normal((size, size)), pixels, mode="wrap", truncate=3)
    return (noise - noise.mean()) / noise.std()


def _table(canvas: _Canvas, chest: _Chest, rng: np.random.Generator) -> None:
    back = (chest.skin * np.sin(chest.angle)).max() + rng.uniform(0, 8)
    bend = 1 / rng.uniform(350, 1500)
    density = rng.uniform(-150, 150)
    for depth in (0.0, rng.uniform(18, 35)):
        line = np.abs(canvas.y - back - depth + 0.5 * bend * canvas.x**2) - 1.6
        canvas.blend(..., canvas.share(line) * (np.abs(canvas.x) < 210), density)


def _chest_wall(canvas: _Canvas, chest: _Chest, rng: np.random.Generator) -> None:
    size = len(canvas.hu)
    soft_tissue, fat = SOFT_TISSUE + rng.normal(0, 7), FAT + rng.normal(0, 8)
    canvas.blend(..., canvas.share(chest.radius - chest.skin), 20)
    canvas.blend(
        ..., canvas.share(chest.radius - chest.skin + 2.2), fat + 9 * _smooth_noise(rng, size, 9 / canvas.pixel)
    )
    within = canvas.share(chest.radius - chest.muscle)
    canvas.blend(..., within, soft_tissue + 8 * _smooth_noise(rng, size, 6 / canvas.pixel))
    depth = (chest.radius - chest.pleura - 9) / np.maximum(chest.muscle - chest.pleura - 9, 1)
    sheet = np.exp(-0.5 * ((depth - rng.uniform(0.35, 0.6)) / 0.11) ** 2)
    streaky = np.clip(0.6 + 0.6 * np.cos(7 * chest.angle + rng.uniform(0, 2 * np.pi)), 0, 1)
    canvas.blend(..., within * sheet * streaky * (depth > 0), fat)


def _lungs(canvas: _Canvas, chest: _Chest, level: dict, rng: np.random.Generator) -> np.ndarray:
    """Fill the inside of the ribs with lung; the share of each pixel in it is returned."""
    size = len(canvas.hu)
    inside = canvas.share(chest.radius - chest.pleura)
    texture = 35 * _smooth_noise(rng, size, 3 / canvas.pixel) + 0.5 * canvas.y
    canvas.blend(..., inside, LUNG + rng.normal(0, 35) + texture)
    for side in (-1, 1):
        for _ in range(26):
            away = rng.uniform(0.18, 0.92)
            x, y = side * (25 + 85 * away), rng.normal(2, 12 + 34 * away)
            thin = rng.uniform(1.0, 4.2) * (1.1 - away)
            long = thin * rng.choice([1, 1, 2, 4])
            where, share = canvas.ellipse(x, y, long + 0.3, thin + 0.3, -np.rad2deg(np.arctan2(y, x)))
            canvas.blend(where, share * inside[where], 35)
    if level is LEVELS["ventricles"] and rng.random() < 0.45:
        reach = rng.uniform(28, 52)
        where, share = canvas.ellipse(-rng.uniform(62, 78), rng.uniform(0, 20), reach, 0.85 * reach, 20)
        canvas.blend(where, share * inside[where], 58 + rng.normal(0, 9))
    return inside


def _mediastinum(
    canvas: _Canvas, inside: np.ndarray, level: dict, rng: np.random.Generator, *, enhanced: bool
) -> np.ndarray:
    """Draw fat, heart, vessels and airways; the share of blood in each pixel is returned."""
    scale, shift = rng.normal(1, 0.07), rng.normal(0, 4, size=2)
    vessels = [_vary(vessel, scale, shift, rng) for vessel in level["blood"]]
    hearts = [_vary(heart, scale, shift, rng) for heart in level["heart"]]
    solid = np.zeros_like(canvas.hu)
    column = [(0, 58, 27, 34, 0), (2, 26, 17, 26, 0), (1, -62, rng.uniform(7, 20), 34, 0), (-3, -5, 24, 40, 0)]
    for x, y, a, b, degrees, *_ in [*vessels, *hearts, *column]:
        where, share = canvas.ellipse(x, y, a + 5, b + 5, degrees)
        solid[where] = np.maximum(solid[where], share)
    solid = np.clip((ndimage.gaussian_filter(solid, 5.5 / canvas.pixel, truncate=3) - 0.38) * 5 + 0.5, 0, 1)
    fat = FAT + 12 + rng.normal(0, 10) + 10 * _smooth_noise(rng, len(solid), 4 / canvas.pixel)
    canvas.blend(..., solid * inside, fat)
    tissue = SOFT_TISSUE - 4 + rng.normal(0, 7)
    nodes = [(*rng.normal((0, 0), (22, 26)), *rng.uniform(2, 4.5, size=2), 0) for _ in range(5)]
    for x, y, a, b, degrees in [*hearts, *nodes, (7, 28, 8, 6, 0)]:
        where, share = canvas.ellipse(x, y, a, b, degrees)
        canvas.blend(where, share * solid[where] * inside[where], tissue)
    for x, y, a, b, degrees, wall in vessels:
        where, share = canvas.ellipse(x, y, a + wall, b + wall, degrees)
        canvas.blend(where, share * inside[where], tissue)
    for x, y, radius in level["airways"]:
        where, share = canvas.ellipse(x + shift[0], y + shift[1], radius + 1.5, radius + 1.5)
        canvas.blend(where, share, tissue)
        where, share = canvas.ellipse(x + shift[0], y + shift[1], radius, radius)
        canvas.blend(where, share, AIR)
    return _blood(canvas, inside, vessels, rng, enhanced=enhanced)


def _vary(
    shape: tuple[float, ...], scale: float, shift: np.ndarray, rng: np.random.Generator
) -> tuple[float, ...]:
    x, y, a, b, degrees, *rest = shape
    x, y = np.array([x, y]) * scale + shift + rng.normal(0, 1.8, size=2)
    a, b = np.array([a, b]) * scale * rng.normal(1, 0.06, size=2)
    return (x, y, a, b, degrees + rng.normal(0, 6), *rest)


def _blood(
    canvas: _Canvas, inside: np.ndarray, vessels: list, rng: np.random.Generator, *, enhanced: bool
) -> np.ndarray:
    blood = np.zeros_like(canvas.hu)
    plain, contrast = rng.normal(42, 6), rng.uniform(110, 330)
    for x, y, a, b, degrees, _ in vessels:
        mixing = rng.normal(1, 0.12)
        where, share = canvas.ellipse(x, y, a, b, degrees)
        share = share * inside[where]
        canvas.blend(where, share, contrast * mixing if enhanced else plain + 8 * (mixing - 1))
        blood[where] = np.maximum(blood[where], share)
    return blood


def _bone(canvas: _Canvas, cx: float, cy: float, a: float, b: float, degrees: float, marrow: float) -> None:
    where, share = canvas.ellipse(cx, cy, a, b, degrees)
    canvas.blend(where, share, 260 + 1.2 * marrow)
    where, share = canvas.ellipse(cx, cy, max(a - 2.4, 0.5), max(b - 2.4, 0.5), degrees)
    canvas.blend(where, share, marrow)


def _spine(canvas: _Canvas, rng: np.random.Generator) -> None:
    marrow = rng.uniform(90, 260)
    for side in (-1, 1):
        _bone(canvas, side * 28, 73, 17, 5, side * rng.uniform(5, 25), marrow + 60)
        _bone(canvas, side * 27, 60, 9, 5, -side * 30, marrow)
    _bone(canvas, 0, 98, 3.5, rng.uniform(12, 18), rng.normal(0, 3), marrow + 60)
    _bone(canvas, 0, 75, 16, 14, 0, marrow + 100)
    _bone(canvas, 0, 53, rng.uniform(17, 21), rng.uniform(14, 17), 0, marrow)
    where, share = canvas.ellipse(0, 75, 9, 7.5)
    canvas.blend(where, share, 25)


def _ribs_and_sternum(canvas: _Canvas, chest: _Chest, rng: np.random.Generator) -> None:
    marrow = rng.uniform(120, 280)
    for side in (-1, 1):
        for angle in np.linspace(-58, 66, rng.integers(5, 8)) + rng.normal(0, 5):
            at = np.deg2rad(angle if side > 0 else 180 - angle)
            pixel = np.abs(np.angle(np.exp(1j * (chest.angle - at)))).argmin()
            reach = chest.pleura.flat[pixel] + 6.5
            tangent = -np.rad2deg(np.arctan2(-np.cos(at) * 1.6, np.sin(at)))
            long, thin = rng.uniform(8, 25), rng.uniform(4.2, 5.8)
            _bone(canvas, reach * np.cos(at), reach * np.sin(at), long, thin, tangent, marrow)
    front = chest.pleura[(np.abs(np.rad2deg(chest.angle) + 90) < 4)].mean()
    _bone(canvas, 0, -front - 7, rng.uniform(15, 24), rng.uniform(5.5, 7.5), rng.normal(0, 4), marrow - 20)


def _noise(canvas: _Canvas, chest: _Chest, rng: np.random.Generator) -> np.ndarray:
    deep = np.clip(1 - chest.radius / chest.skin, 0, 1)
    return rng.uniform(5, 16) * (0.7 + 0.8 * deep) * _smooth_noise(rng, len(deep), rng.uniform(0.45, 0.9))
