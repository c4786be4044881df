"""A curved array of ultrasound beams, simulated: pulse, envelope detection, scan conversion.

Lengths are in pixels of a picture of 800 x 540, as in HC18, x to the right, y down.
"""

from dataclasses import dataclass

import numpy as np
from scipy import fft, ndimage

PICTURE = (540, 800)


DEPTHS, BEAMS = 352, 144


CYCLE, PULSE = 3.6, 2.0  # carrier's wavelength and standard deviation of the pulse, in depth steps


BEAM_WIDTHS = (0.8, 1.7)  # standard deviation of the beam at the top and at the bottom, in beams


@dataclass(frozen=True)
class Fan:
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


def smooth_field(rng: np.random.Generator, n_depths: int, n_beams: int) -> np.ndarray:
    """A random field over (depth, beam), about `n` bumps along each axis, mean about 0, standard deviation about 1."""
    field = rng.standard_normal((n_depths + 2, n_beams + 2), dtype=np.float32)
    return _bumps(DEPTHS, n_depths + 2) @ field @ _bumps(BEAMS, n_beams + 2).T


def _bumps(n: int, n_bumps: int) -> np.ndarray:
    away = np.linspace(0.5, n_bumps - 1.5, n, dtype=np.float32)[:, None] - np.arange(
        n_bumps, dtype=np.float32
    )
    bump = np.exp(-(away**2))
    return bump / np.sqrt((bump**2).sum(axis=1, keepdims=True))


def scan_convert(shades: np.ndarray, fan: Fan, size: int, rng: np.random.Generator) -> np.ndarray:
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
