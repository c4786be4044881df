"""Synthetic ultrasound of the fetal head, with the circumference of the skull's ellipse as the truth.

The picture is simulated as a curved array makes it: scatterers in beam space (depth along a beam, beam), a pulse,
envelope detection, log compression, scan conversion. Lengths are in pixels of a picture of 800 x 540, as in HC18,
x to the right, y down; levels in dB below the brightest echo.
"""

from dataclasses import dataclass

import numpy as np
import torch
from scipy import fft, ndimage
from scipy.special import ellipe
from tqdm.auto import tqdm

from xaitools.data.fetal import CIRCUMFERENCE, CONTOUR_WIDTH, PIXEL_SIZE, check_options, contour_band
from xaitools.data.samples import Samples
from xaitools.errors import ParameterError

PICTURE = (540, 800)
DEPTHS, BEAMS = 352, 144
CYCLE, PULSE = 3.6, 2.0  # carrier's wavelength and standard deviation of the pulse, in depth steps
BEAM_WIDTHS = (0.8, 1.7)  # standard deviation of the beam at the top and at the bottom, in beams


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


def fetal_heads(
    n_subjects: int,
    *,
    size: int = 128,
    unit: str = "px",
    contour_width: float = CONTOUR_WIDTH,
    images_per_subject: int = 1,
    seed: int,
    progress: bool = True,
) -> Samples:
    """Make synthetic ultrasound images of fetal heads labelled with the head circumference, in the terms of HC18.

    A fan of beams through tissue, amniotic fluid and a head: fully developed speckle, a skull that is bright where
    the beam meets it at a right angle and fades where it is tangential, with gaps and with shadows behind, falx,
    cavum, thalami, ventricle and choroid plexus inside, attenuation with imperfect gain compensation, noise. The
    label is the exact perimeter of the ellipse that is the skull's outer edge. Circumferences of 80 to 350 mm and
    pixels of 0.05 to 0.3 mm grow together as in the table of HC18, so that large heads fill more of the picture.

    Image `k` of subject `i` depends on `seed`, `i`, `k` and `size` alone.

    Parameters
    ----------
    n_subjects : int
    size : int
        Height and width in pixels, at least 32.
    unit : "px" or "mm"
        Unit of the labels: pixels of the simulated 800 x 540 picture, or mm.
    contour_width : float
        Width of the masks' band about the skull's outer edge, see :func:`xaitools.data.load_fetal`.
    images_per_subject : int
        Views of the same head: another position, angle, zoom and speckle, the circumference in mm within 3 %.
    seed : int
        Same seed, same images.
    progress : bool
        Show a progress bar.

    Returns
    -------
    Samples
        Images (n, 1, size, size), labels in `unit`, masks of the skull's band, numbers ``"pixel size (mm)"`` and
        ``"head circumference (mm)"``.

    Raises
    ------
    ParameterError
        An argument out of its range.
    """
    check_options(size, unit, contour_width)
    if n_subjects < 1 or images_per_subject < 1 or size < 32:
        raise ParameterError(
            f"n_subjects={n_subjects}, images_per_subject={images_per_subject}, size={size}: expected at least one "
            "subject, one image and 32 pixels"
        )
    views = [(i, k) for i in range(n_subjects) for k in range(images_per_subject)]
    images = np.empty((len(views), 1, size, size), dtype=np.float32)
    masks = np.empty(images.shape, dtype=bool)
    heads = []
    for n, (i, k) in enumerate(tqdm(views, desc="synthetic heads", disable=not progress)):
        rng = np.random.default_rng((seed, i, k))
        head = draw_head(np.random.default_rng((seed, i)), rng)
        images[n, 0] = render(head, size, rng)
        masks[n, 0] = contour_band(head.outline(), PICTURE, size, contour_width)
        heads.append(head)
    pixel = torch.tensor([head.pixel for head in heads], dtype=torch.float64)
    perimeter = torch.tensor([head.perimeter for head in heads], dtype=torch.float64)
    subjects = tuple(f"sub-{i + 1:03d}" for i, _ in views)
    names = tuple(f"sub-{i + 1:03d}_img-{k + 1}" for i, k in views)
    return Samples(
        images=torch.from_numpy(images),
        labels=(perimeter if unit == "px" else perimeter * pixel).float(),
        subjects=subjects,
        names=subjects if images_per_subject == 1 else names,
        masks=torch.from_numpy(masks),
        unit=unit,
        numbers={PIXEL_SIZE: pixel.float(), CIRCUMFERENCE: (perimeter * pixel).float()},
        info={
            "source": "synthetic fetal head ultrasound",
            "size": size,
            "unit": "pixels of the simulated 800 x 540 picture" if unit == "px" else "mm",
            "contour_width": float(contour_width),
            "contour": "outer edge of the skull, as drawn",
            "seed": seed,
        },
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


@dataclass(frozen=True)
class _Fan:
    """A sector of beams, and where each of its samples (depth, beam) lies in the picture."""

    apex: tuple[float, float]
    half: float
    near: float
    far: float

    @property
    def depths(self) -> np.ndarray:
        return np.linspace(self.near, self.far, DEPTHS, dtype=np.float32)[:, None]

    @property
    def beams(self) -> np.ndarray:
        return np.linspace(-self.half, self.half, BEAMS, dtype=np.float32)[None]

    def positions(self) -> tuple[np.ndarray, np.ndarray]:
        return (
            np.float32(self.apex[0]) + self.depths * np.sin(self.beams),
            np.float32(self.apex[1]) + self.depths * np.cos(self.beams),
        )


def render(head: Head, size: int, rng: np.random.Generator) -> np.ndarray:
    """Simulate the picture of a head, (size, size) in [0, 1]."""
    fan = _draw_fan(head, rng)
    tissue, absorption = _scene(head, fan, rng)
    step = (fan.far - fan.near) / (DEPTHS - 1)
    gain = -2 * step * np.cumsum(absorption, axis=0) + 7 * _smooth(rng, 3, 2)
    amplitude = 10 ** ((tissue + gain) / 20)
    echo = envelope(amplitude * rng.standard_normal(amplitude.shape, dtype=np.float32))
    noise = 10 ** (rng.uniform(-75, -55) / 10) * rng.standard_exponential(echo.shape, dtype=np.float32)
    level = 10 * np.log10(echo**2 + noise)
    shades = np.clip(1 + (level + rng.uniform(-2, 3)) / rng.uniform(46, 60), 0, 1)
    return _scan_convert(shades, fan, size, rng)


def envelope(scatterers: np.ndarray) -> np.ndarray:
    """What a beam sees of point scatterers: the magnitude of their sum under a pulse and a beam profile.

    The pulse is a Gaussian times a carrier along depth (as an analytic signal), the beam a Gaussian that widens with
    depth; both have unit energy, so that dense scatterers of variance 1 give an envelope with mean square 1.

    Parameters
    ----------
    scatterers : array, (depth, beam)
        Real amplitudes.

    Returns
    -------
    array, (depth, beam)
    """
    n_depths, n_beams = scatterers.shape
    widths = np.linspace(*BEAM_WIDTHS, n_depths, dtype=np.float32)[:, None]
    offsets = np.arange(-5, 6)
    profile = np.exp(-0.5 * (offsets / widths) ** 2)
    profile = profile / np.sqrt((profile**2).sum(axis=1, keepdims=True))
    padded = np.pad(scatterers, ((0, 0), (5, 5)))
    blurred = sum(profile[:, [k]] * padded[:, k : k + n_beams] for k in range(len(offsets)))
    time = np.arange(-7, 8)
    pulse = np.exp(-0.5 * (time / PULSE) ** 2 + 2j * np.pi * time / CYCLE)
    pulse = pulse / np.sqrt((np.abs(pulse) ** 2).sum())
    length = fft.next_fast_len(n_depths + len(pulse) - 1)
    spectrum = fft.fft(blurred, length, axis=0) * fft.fft(pulse.astype(np.complex64), length)[:, None]
    return np.abs(fft.ifft(spectrum, axis=0)[7 : 7 + n_depths])


def _draw_fan(head: Head, rng: np.random.Generator) -> _Fan:
    """A fan whose apex is above the picture and which shows nearly all of the head."""
    apex = np.array([400 + rng.normal(0, 25), -rng.uniform(130, 480)])
    rows, columns = head.outline(60).T
    needed = np.abs(np.arctan2(columns - apex[0], rows - apex[1])).max()
    half = max(needed * rng.uniform(0.97, 1.2), np.arctan2(rng.uniform(330, 560), 540 - apex[1]))
    near = (
        max(rows.min() - rng.uniform(15, 60), rng.uniform(-40, 15))
        if rng.random() < 0.2
        else rng.uniform(-60, 8)
    )
    far = max(540, rows.max()) + rng.uniform(0, 60)
    return _Fan((float(apex[0]), float(apex[1])), float(half), float(near - apex[1]), float(far - apex[1]))


def _smooth(rng: np.random.Generator, n_depths: int, n_beams: int) -> np.ndarray:
    """A random field over (depth, beam), about `n` bumps along each axis, mean about 0, standard deviation about 1."""
    field = rng.standard_normal((n_depths + 2, n_beams + 2), dtype=np.float32)
    return _bumps(DEPTHS, n_depths + 2) @ field @ _bumps(BEAMS, n_beams + 2).T


def _bumps(n: int, n_bumps: int) -> np.ndarray:
    away = np.linspace(0.5, n_bumps - 1.5, n, dtype=np.float32)[:, None] - np.arange(
        n_bumps, dtype=np.float32
    )
    bump = np.exp(-(away**2))
    return bump / np.sqrt((bump**2).sum(axis=1, keepdims=True))


def _scene(head: Head, fan: _Fan, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
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
    tissue = rng.uniform(-41, -24) + 3.5 * _smooth(rng, 7, 5) + 2.5 * _smooth(rng, 22, 4)
    shift, stretch = rng.normal(0, 0.3, size=2).tolist(), rng.uniform(0.95, 1.6, size=2).tolist()
    pocket = np.hypot((u - shift[0]) / stretch[0], (v - shift[1]) / stretch[1]) + 0.06 * _smooth(rng, 4, 4)
    share = 1 / (1 + np.exp(np.clip((pocket - 1) * 30, -30, 30)))
    return tissue + share * (rng.uniform(-58, -36) - tissue) + 6 * np.exp(-(((pocket - 1.03) / 0.03) ** 2))


def _brain(u: np.ndarray, v: np.ndarray, where: tuple[slice, slice], rng: np.random.Generator) -> np.ndarray:
    """Brain with falx, cavum, thalami, a ventricle and its choroid plexus, in semi-axes of the head."""
    side, front = rng.choice([-1, 1], size=2).tolist()
    level = (rng.uniform(-46, -33) + 3.5 * _smooth(rng, 14, 10) + 2 * _smooth(rng, 30, 20))[where]
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


def _scan_convert(shades: np.ndarray, fan: _Fan, size: int, rng: np.random.Generator) -> np.ndarray:
    """Bring beams to the square grid that covers the picture, black outside the fan."""
    finer = max(1, -(-256 // size))
    y, x = ((np.arange(size * finer, dtype=np.float32) + 0.5) * length / (size * finer) for length in PICTURE)
    dx, dy = np.float32(x[None] - fan.apex[0]), np.float32(y[:, None] - fan.apex[1])
    depth = (np.hypot(dx, dy) - fan.near) * ((DEPTHS - 1) / (fan.far - fan.near))
    beam = (np.arctan2(dx, dy) + fan.half) * ((BEAMS - 1) / (2 * fan.half))
    picture = ndimage.map_coordinates(shades, [depth, beam], order=1, prefilter=False, cval=0)
    if rng.random() < 0.6:  # HC18 blackens the corner that names the scanner
        height, width = rng.uniform((0.08, 0.12), (0.2, 0.3))
        picture[int((1 - height) * len(picture)) :, int((1 - width) * len(picture)) :] = 0
    return picture.reshape(size, finer, size, finer).mean(axis=(1, 3))
