"""A fetal head with an elliptic skull, and what ultrasound meets in and about it.

Lengths are in pixels of a picture of 800 x 540, as in HC18, x to the right, y down; levels in dB below the brightest
echo.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import ellipe

from xaitools.phantoms.ultrasound import Fan, smooth_field


@dataclass(frozen=True)
class Head:
    """One view of a fetal head: the outer edge of its skull is an ellipse.

    Parameters
    ----------
    center : (x, y)
    axes : (semi-major, semi-minor)
    angle : float
        Of the major axis, radians, from x towards y.
    pixel : float
        Size of a pixel in mm.
    """

    center: tuple[float, float]
    axes: tuple[float, float]
    angle: float
    pixel: float

    @property
    def perimeter(self) -> float:
        """Exact: 4 a E(m) with the complete elliptic integral of the second kind, m = 1 - (b/a)^2."""
        major, minor = self.axes
        return float(4 * major * ellipe(1 - (minor / major) ** 2))

    def outline(self, n: int = 500) -> np.ndarray:
        """Points on the ellipse, (n, 2): row and column."""
        t = np.arange(n) * 2 * np.pi / n
        u, v = self.axes[0] * np.cos(t), self.axes[1] * np.sin(t)
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        return np.c_[self.center[1] + sin * u + cos * v, self.center[0] + cos * u - sin * v]

    def local(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Position along the major and the minor axis, in semi-axes: the skull's edge is the unit circle."""
        dx, dy = x - np.float32(self.center[0]), y - np.float32(self.center[1])
        cos, sin = np.float32(np.cos(self.angle)), np.float32(np.sin(self.angle))
        return (cos * dx + sin * dy) / np.float32(self.axes[0]), (cos * dy - sin * dx) / np.float32(
            self.axes[1]
        )


def draw_head(subject: np.random.Generator, view: np.random.Generator) -> Head:
    """Draw a head: its size and shape from `subject`, where and how large it is shown from `view`."""
    trimester = subject.choice(3, p=[0.3, 0.5, 0.2])
    mm = (subject.uniform(80, 150), subject.normal(178, 12), subject.uniform(190, 345))[trimester]
    ratio, zoom = subject.uniform(0.7, 0.85), subject.normal(0, 0.21)
    mm = float(np.clip(mm * (1 + np.clip(view.normal(0, 0.01), -0.03, 0.03)), 80, 350))
    shown = np.exp(4.95 + 0.435 * np.log(mm) + zoom + view.normal(0, 0.08))
    shown = float(np.clip(shown, 520, 1650 - view.uniform(0, 120)))
    major = shown / (4 * ellipe(1 - ratio**2))
    angle = view.uniform(-np.pi / 2, np.pi / 2) if view.random() < 0.15 else view.normal(0, 0.4)
    while _reach(major, ratio, angle)[1] > 258:
        angle *= 0.8
    room = np.maximum((380, 262) - _reach(major, ratio, angle), 0)
    x, y = np.clip(view.normal(0, (50, 40)), -room, room).tolist()
    return Head((400 + x, 270 + y), (major, major * ratio), float(angle), mm / shown)


def _reach(major: float, ratio: float, angle: float) -> np.ndarray:
    """Half the width and half the height of a turned ellipse."""
    cos, sin = np.cos(angle), np.sin(angle)
    return major * np.hypot([cos, sin], [ratio * sin, ratio * cos])


def scene(head: Head, fan: Fan, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Level of the scatterers in dB and what is absorbed in dB a pixel, each (depth, beam)."""
    u, v = head.local(*fan.positions())
    level = _outside(u, v, rng)
    absorption = np.full_like(level, rng.uniform(-0.004, 0.006))
    where = _near_head(u, v)
    u, v = u[where], v[where]
    radius = np.hypot(u, v) + np.float32(1e-6)
    gradient = np.hypot(u / np.float32(head.axes[0]), v / np.float32(head.axes[1])) + np.float32(1e-9)
    distance = radius * (radius - 1) / gradient  # signed, in pixels, negative inside
    inside = np.where(distance < 0, _brain(u, v, where, rng), level[where])
    thickness = head.axes[1] * rng.uniform(0.08, 0.13)
    shell = np.exp(-0.5 * ((distance + 0.6 * thickness) / (0.3 * thickness)) ** 2)
    angle = fan.beams[:, where[1]] + np.float32(head.angle)
    normal = u * (np.sin(angle) / np.float32(head.axes[0])) + v * (np.cos(angle) / np.float32(head.axes[1]))
    bone = _skull(np.abs(normal) / gradient, np.arctan2(v, u), rng) + 20 * np.log10(shell + np.float32(1e-4))
    level[where] = np.maximum(inside, bone)
    absorption[where] += shell * np.float32(rng.uniform(0.05, 0.16))
    return level, absorption


def _near_head(u: np.ndarray, v: np.ndarray) -> tuple[slice, slice]:
    """Depths and beams that meet the head."""
    near = u**2 + v**2 < 1.15
    rows, columns = np.flatnonzero(near.any(axis=1)), np.flatnonzero(near.any(axis=0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def _skull(cosine: np.ndarray, turn: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Level of the skull's echo: highest where the beam meets it at a right angle, with random gaps.

    `cosine` is that of the angle between beam and normal, `turn` the position along the skull, from -pi to pi.
    """
    steps = np.arange(-256, 257, dtype=np.float32) * np.float32(np.pi / 256)
    gaps = np.full_like(steps, rng.uniform(-9, 1))
    for _ in range(rng.integers(4, 10)):
        away = np.angle(np.exp(1j * (steps - rng.uniform(-np.pi, np.pi))))
        gaps -= rng.uniform(3, 20) * np.exp(-0.5 * (away / rng.uniform(0.04, 0.2)) ** 2)
    fading = rng.uniform(18, 36) * (1 - np.minimum(cosine, 1)) ** np.float32(rng.uniform(0.7, 1.4))
    return gaps[np.rint(turn * np.float32(256 / np.pi)).astype(int) + 256] - fading


def _outside(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Tissue, and a pocket of amniotic fluid about the head."""
    tissue = rng.uniform(-41, -24) + 3.5 * smooth_field(rng, 7, 5) + 2.5 * smooth_field(rng, 22, 4)
    shift, stretch = rng.normal(0, 0.3, size=2).tolist(), rng.uniform(0.95, 1.6, size=2).tolist()
    pocket = np.hypot((u - shift[0]) / stretch[0], (v - shift[1]) / stretch[1]) + 0.06 * smooth_field(
        rng, 4, 4
    )
    share = 1 / (1 + np.exp(np.clip((pocket - 1) * 30, -30, 30)))
    return tissue + share * (rng.uniform(-58, -36) - tissue) + 6 * np.exp(-(((pocket - 1.03) / 0.03) ** 2))


def _brain(u: np.ndarray, v: np.ndarray, where: tuple[slice, slice], rng: np.random.Generator) -> np.ndarray:
    """Brain with falx, cavum, thalami, a ventricle and its choroid plexus, in semi-axes of the head."""
    side, front = rng.choice([-1, 1], size=2).tolist()
    level = (rng.uniform(-46, -33) + 3.5 * smooth_field(rng, 14, 10) + 2 * smooth_field(rng, 30, 20))[where]
    u, v = u * front, v * side
    for sign in (-1, 1):
        _blob(level, u, v, (-0.02, sign * 0.17), (0.2, 0.12), rng.uniform(-12, -2))
    _blob(level, u, v, (-0.35, 0.42), (0.34, 0.15), rng.uniform(-16, -6))
    _blob(level, u, v, (-0.45, 0.42), (0.22, 0.1), rng.uniform(10, 30))
    _blob(level, u, v, (-0.62, 0.0), (0.14, 0.3), rng.uniform(0, 12))
    for _ in range(rng.integers(6, 16)):  # folds and vessels, mostly across the beam
        at = (rng.uniform(-0.8, 0.8), rng.normal(0, 0.35))
        _blob(level, u, v, at, (rng.uniform(0.04, 0.16), rng.uniform(0.015, 0.035)), rng.uniform(6, 20))
    broken = rng.uniform(0.2, 1, size=48).astype(np.float32)[np.clip(u * 24 + 24, 0, 47).astype(int)]
    falx = np.exp(-0.5 * ((v - 0.02 * np.sin(3 * u)) / np.float32(rng.uniform(0.012, 0.025))) ** 2)
    level += falx * broken * (np.abs(u) < 0.88) * np.float32(rng.uniform(4, 26))
    for edge in (-0.09, 0.09):
        _blob(level, u, v, (0.38, edge), (0.12, 0.018), rng.uniform(4, 18))
    _blob(level, u, v, (0.38, 0.0), (0.12, 0.06), rng.uniform(-26, -10))
    return level


def _blob(
    level: np.ndarray,
    u: np.ndarray,
    v: np.ndarray,
    at: tuple[float, float],
    reach: tuple[float, float],
    change: float,
) -> None:
    """Change the level inside an ellipse with a soft edge."""
    square = ((u - at[0]) * (1 / reach[0])) ** 2 + ((v - at[1]) * (1 / reach[1])) ** 2
    inside = np.nonzero(square < 2)
    level[inside] += np.float32(change) * np.exp(-(square[inside] ** 2))
