"""The organs of a schematic chest, drawn one after the other on an axial slice.

Lengths are in millimetres, x to the viewer's right (the patient's left), y down (posterior), densities in
Hounsfield units. The origin lies midway between the lungs.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from xaitools.phantoms.canvas import Canvas, smooth_noise

AIR, LUNG, FAT, SOFT_TISSUE = -1000.0, -850.0, -100.0, 52.0


OUTLINE_STEPS = 2048


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


@dataclass
class Chest:
    """Outlines of one patient in polar coordinates, each over equal steps of the angle (0 is the left side)."""

    pleura: np.ndarray
    muscle: np.ndarray
    skin: np.ndarray
    radius: np.ndarray
    step: np.ndarray

    def beyond(self, outline: np.ndarray) -> np.ndarray:
        """Signed distance of each pixel to an outline in mm, along the radius, negative inside."""
        return self.radius - outline[self.step]


def patient(rng: np.random.Generator, size: int, level: dict) -> tuple[Canvas, Chest]:
    width, depth = (114.0, 80.0) if level is LEVELS["aortic arch"] else (128.0, 90.0)
    width, depth = width * rng.normal(1, 0.05), depth * rng.normal(1, 0.06)
    fat, strength = rng.gamma(3, 4.5) + 3, rng.uniform(0.7, 1.35)
    angle = np.arange(OUTLINE_STEPS) * 2 * np.pi / OUTLINE_STEPS
    cos, sin = np.abs(np.cos(angle)), np.abs(np.sin(angle))
    roundness = rng.uniform(2.1, 2.45)
    pleura = ((cos / width) ** roundness + (sin / depth) ** roundness) ** (-1 / roundness)
    pleura = pleura * _wobble(angle, rng) - 13 * _bump(angle, 90, 11)
    pectoral = rng.uniform(6, 17) * (_bump(angle, -50, 17) + _bump(angle, -130, 17))
    back = rng.uniform(8, 22) * (_bump(angle, 33, 17) + _bump(angle, 147, 17))
    muscle = pleura + 13 + strength * (pectoral + back) + rng.uniform(24, 34) * _bump(angle, 90, 27)
    breast = rng.choice([0, 1]) * rng.uniform(8, 34) * (_bump(angle, -48, 16) + _bump(angle, -132, 16))
    skin = muscle + (fat * (0.75 + 0.35 * cos) + breast) * _wobble(angle, rng) + 2
    lying = rng.uniform(0.86, 0.93) * (skin * np.sin(angle)).max() / np.maximum(np.sin(angle), 1e-3)
    skin = -10 * np.logaddexp(-skin / 10, -lying / 10)
    pixel = 2 * (skin * cos).max() * rng.uniform(1.03, 1.25) / size
    canvas = _bent_canvas(rng, size, pixel)
    step = np.arctan2(canvas.y, canvas.x) * (OUTLINE_STEPS / (2 * np.pi))
    radius = np.hypot(canvas.x, canvas.y)
    muscle = np.minimum(muscle, skin - 4)
    return canvas, Chest(pleura, muscle, skin, radius, step.round().astype(int) % OUTLINE_STEPS)


def _bent_canvas(rng: np.random.Generator, size: int, pixel: float) -> Canvas:
    axis = ((np.arange(size) + 0.5 - size / 2) * pixel).astype(np.float32)
    y, x = np.meshgrid(axis, axis, indexing="ij")
    turn, shift = float(np.deg2rad(rng.normal(0, 2.5))), rng.normal(0, 4, size=2)
    cos, sin = float(np.cos(turn)), float(np.sin(turn))
    turned_x, turned_y = cos * x - sin * y + float(shift[0]), sin * x + cos * y + float(shift[1])
    phase, wave = rng.uniform(0, 2 * np.pi, size=2), 2 * np.pi / rng.uniform(90, 170, size=2)
    bent_x = turned_x + rng.uniform(1, 4) * np.sin(wave[0] * turned_y + phase[0])
    bent_y = turned_y + rng.uniform(1, 4) * np.sin(wave[1] * turned_x + phase[1])
    texture = smooth_noise(rng, size, 5 / pixel)
    return Canvas(np.full_like(x, AIR), bent_x, bent_y, pixel, turn, shift, texture)


def _bump(angle: np.ndarray, center: float, width: float) -> np.ndarray:
    """Bell curve of height 1 over the angle; center and width in degrees (90 is the back)."""
    away = (np.rad2deg(angle) - center + 180) % 360 - 180
    return np.exp(-0.5 * (away / width) ** 2)


def _wobble(angle: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    phase, height = rng.uniform(0, 2 * np.pi, size=(3, 1)), rng.normal(0, 0.012, size=(3, 1))
    return 1 + (height * np.cos(np.array([[1], [2], [3]]) * angle + phase)).sum(axis=0)


def table(canvas: Canvas, chest: Chest, rng: np.random.Generator) -> None:
    angle = np.arange(OUTLINE_STEPS) * 2 * np.pi / OUTLINE_STEPS
    back = (chest.skin * np.sin(angle)).max() - canvas.shift[1] + rng.uniform(1, 8)
    y, x = (np.indices(canvas.hu.shape) - len(canvas.hu) / 2) * canvas.pixel
    bend, density = 1 / rng.uniform(350, 1500), rng.uniform(-60, 200)
    for depth in (0, rng.uniform(18, 35)):
        line = np.abs(y - back - depth + 0.5 * bend * x**2) - max(1.5, 0.8 * canvas.pixel)
        canvas.blend(..., canvas.share(line) * (np.abs(x) < 210), density)


def chest_wall(canvas: Canvas, chest: Chest, rng: np.random.Generator) -> None:
    soft_tissue, fat = SOFT_TISSUE + rng.normal(0, 7), FAT + rng.normal(0, 8)
    canvas.blend(..., canvas.share(chest.beyond(chest.skin)), 20)
    canvas.blend(..., canvas.share(chest.beyond(chest.skin) + 2.2), fat + 9 * canvas.texture)
    within = canvas.share(chest.beyond(chest.muscle))
    canvas.blend(..., within, soft_tissue + 8 * canvas.texture)
    thickness = np.maximum(chest.muscle - chest.pleura - 9, 1)[chest.step]
    sheet = np.exp(
        -0.5 * (((chest.beyond(chest.pleura) - 9) / thickness - rng.uniform(0.35, 0.6)) / 0.1) ** 2
    )
    gap = np.cos(7 * np.arange(OUTLINE_STEPS) * 2 * np.pi / OUTLINE_STEPS + rng.uniform(0, 2 * np.pi))
    canvas.blend(..., within * sheet * np.clip(0.5 + 0.6 * gap, 0, 1)[chest.step], fat)


def lungs(canvas: Canvas, chest: Chest, level: dict, rng: np.random.Generator) -> np.ndarray:
    """Fill the inside of the ribs with lung; returns the share of each pixel inside."""
    inside = canvas.share(chest.beyond(chest.pleura))
    canvas.blend(..., inside, LUNG + rng.normal(0, 35) + 30 * canvas.texture + 0.5 * canvas.y)
    for hilum in (-30, 30):
        for _ in range(18):
            away, direction = rng.uniform(8, 95), np.deg2rad(rng.normal(0, 42))
            x, y = hilum + np.sign(hilum) * away * np.cos(direction), 4 + 0.8 * away * np.sin(direction)
            thin = rng.uniform(0.5, 1) * (5.2 - 0.042 * away)
            long = thin * rng.choice([1, 1.3, 2.5])
            where, distance = canvas.distance(x, y, long, thin, -np.sign(hilum) * np.rad2deg(direction))
            canvas.blend(where, canvas.share(distance) * inside[where], 40)
    if level is LEVELS["ventricles"] and rng.random() < 0.45:
        a, x, y = rng.uniform(28, 52), -rng.uniform(62, 78), rng.uniform(0, 20)
        where, distance = canvas.distance(x, y, a, 0.85 * a, 20)
        canvas.blend(where, canvas.share(distance) * inside[where], 58 + rng.normal(0, 9))
    return inside


def mediastinum(
    canvas: Canvas, inside: np.ndarray, level: dict, rng: np.random.Generator
) -> tuple[list[tuple[float, ...]], float]:
    """Draw fat, heart muscle and airways; returns the vessels and chambers to draw and the tissue around them."""
    scale, shift = rng.normal(1, 0.07), rng.normal(0, 4, size=2)
    vessels = [_vary(vessel, scale, shift, rng) for vessel in level["blood"]]
    hearts = [_vary(heart, scale, shift, rng) for heart in level["heart"]]
    column = [
        (0, 58, 27, 34, 0),
        (2, 26, 17, 26, 0),
        (1, -64, rng.uniform(7, 20), 36, 0),
        (-3, -5, 24, 40, 0),
    ]
    solid = np.zeros_like(canvas.hu)
    for x, y, a, b, degrees, *_ in [*vessels, *hearts, *column]:
        where, distance = canvas.distance(x, y, a, b, degrees)
        solid[where] = np.maximum(solid[where], canvas.share(distance - 5))
    solid = ndimage.gaussian_filter(solid, 5.5 / canvas.pixel, truncate=2)
    solid = np.clip((solid - 0.38) * 5 + 0.5, 0, 1) * inside
    canvas.blend(..., solid, FAT + 12 + rng.normal(0, 10) + 10 * canvas.texture)
    tissue = SOFT_TISSUE - 4 + rng.normal(0, 7)
    nodes = [(*rng.normal((0, 0), (22, 26)), *rng.uniform(2, 4.5, size=2), 0) for _ in range(5)]
    for x, y, a, b, degrees in [*hearts, *nodes, (7, 28, 8, 6, 0)]:
        where, distance = canvas.distance(x, y, a, b, degrees)
        canvas.blend(where, canvas.share(distance) * solid[where], tissue)
    airways = [(x + shift[0], y + shift[1], radius) for x, y, radius in level["airways"]]
    for x, y, radius in airways:
        where, distance = canvas.distance(x, y, radius, radius)
        canvas.blend(where, canvas.share(distance - 1.5), tissue)
        canvas.blend(where, canvas.share(distance), AIR)
    return vessels, tissue


def _vary(
    shape: tuple[float, ...], scale: float, shift: np.ndarray, rng: np.random.Generator
) -> tuple[float, ...]:
    x, y, a, b, degrees, *rest = shape
    x, y = np.array([x, y]) * scale + shift + rng.normal(0, 1.8, size=2)
    a, b = np.array([a, b]) * scale * rng.normal(1, 0.06, size=2)
    return (x, y, a, b, degrees + rng.normal(0, 6), *rest)


def blood(
    canvas: Canvas,
    inside: np.ndarray,
    vessels: list[tuple[float, ...]],
    tissue: float,
    rng: np.random.Generator,
    *,
    enhanced: bool,
) -> np.ndarray:
    """Draw vessels and chambers, last so that nothing covers them; returns the share of blood in each pixel."""
    blood = np.zeros_like(canvas.hu)
    plain, contrast = rng.normal(42, 6), rng.uniform(100, 320)
    drawn = [(canvas.distance(*vessel[:5]), vessel[5]) for vessel in vessels]
    for (where, distance), wall in drawn:
        canvas.blend(where, canvas.share(distance - wall) * inside[where], tissue)
    for (where, distance), _ in drawn:
        mixing = rng.normal(1, 0.1)
        share = canvas.share(distance) * inside[where]
        canvas.blend(where, share, contrast * mixing if enhanced else plain + 8 * (mixing - 1))
        blood[where] = np.maximum(blood[where], share)
    return blood


def _bone(canvas: Canvas, cx: float, cy: float, a: float, b: float, degrees: float, marrow: float) -> None:
    where, distance = canvas.distance(cx, cy, a, b, degrees)
    canvas.blend(where, canvas.share(distance), 260 + 1.2 * marrow)
    canvas.blend(where, canvas.share(distance + 2.4), marrow)


def spine(canvas: Canvas, rng: np.random.Generator) -> None:
    marrow = rng.uniform(90, 260)
    for side in (-1, 1):
        _bone(canvas, side * 28, 73, 17, 5, side * rng.uniform(-20, 10), marrow + 60)
        _bone(canvas, side * 27, 60, 9, 5, -side * 30, marrow)
    _bone(canvas, 0, 98, 3.5, rng.uniform(10, 16), rng.normal(0, 3), marrow + 60)
    _bone(canvas, 0, 75, 16, 14, 0, marrow + 100)
    _bone(canvas, 0, 53, rng.uniform(17, 21), rng.uniform(14, 17), 0, marrow)
    where, distance = canvas.distance(0, 75, 9, 7.5)
    canvas.blend(where, canvas.share(distance), 25)


def ribs(canvas: Canvas, chest: Chest, rng: np.random.Generator) -> None:
    marrow = rng.uniform(120, 280)
    for side in (-1, 1):
        for degrees in np.linspace(-58, 66, rng.integers(5, 8)) + rng.normal(0, 5):
            angle = np.deg2rad(degrees if side > 0 else 180 - degrees)
            reach = chest.pleura[int(angle / (2 * np.pi) * OUTLINE_STEPS)] + 6.5
            tangent = -np.rad2deg(np.arctan2(-1.6 * np.cos(angle), np.sin(angle)))
            long, thin = rng.uniform(8, 25), rng.uniform(4.2, 5.8)
            _bone(canvas, reach * np.cos(angle), reach * np.sin(angle), long, thin, tangent, marrow)
    front = chest.pleura[OUTLINE_STEPS * 3 // 4] + 7
    _bone(canvas, 0, -front, rng.uniform(15, 24), rng.uniform(5.5, 7.5), rng.normal(0, 4), marrow - 20)


def noise(canvas: Canvas, chest: Chest, rng: np.random.Generator) -> np.ndarray:
    deep = np.clip(1 - chest.radius / chest.skin[chest.step], 0, 1)
    return rng.uniform(5, 16) * (0.7 + 0.8 * deep) * smooth_noise(rng, len(deep), rng.uniform(0.45, 0.9))
