"""A picture drawn organ by organ, each pixel sharing what lies in it."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import ndimage


@dataclass
class Canvas:
    """A slice being drawn: densities, and for each pixel its position in the (turned and bent) patient."""

    hu: np.ndarray
    x: np.ndarray
    y: np.ndarray
    pixel: float
    turn: float
    shift: np.ndarray
    texture: np.ndarray

    def distance(
        self, cx: float, cy: float, a: float, b: float, degrees: float = 0
    ) -> tuple[tuple[slice, slice], np.ndarray]:
        """Rows and columns near an ellipse, and there the signed distance to it in mm, negative inside."""
        where = self._near(cx, cy, max(a, b) + 14)
        dx, dy = self.x[where] - cx, self.y[where] - cy
        cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
        u, v = (dx * cos - dy * sin) / a, (dx * sin + dy * cos) / b
        radius = np.sqrt(u**2 + v**2)
        return where, radius * (radius - 1) / (np.sqrt((u / a) ** 2 + (v / b) ** 2) + 1e-6)

    def _near(self, cx: float, cy: float, reach: float) -> tuple[slice, slice]:
        cos, sin = np.cos(self.turn), np.sin(self.turn)
        dx, dy = cx - self.shift[0], cy - self.shift[1]
        center = np.array([-sin * dx + cos * dy, cos * dx + sin * dy]) / self.pixel + len(self.hu) / 2
        low = np.maximum(center - reach / self.pixel, 0).astype(int)
        high = np.maximum(center + reach / self.pixel + 1, 0).astype(int)
        return slice(low[0], high[0]), slice(low[1], high[1])

    def share(self, distance: np.ndarray) -> np.ndarray:
        """Share of each pixel on the negative side of a signed distance."""
        return np.clip(0.5 - distance / self.pixel, 0, 1)

    def blend(self, where: Any, share: np.ndarray, hu: float | np.ndarray) -> None:
        """Replace a share of each pixel by tissue of density `hu`."""
        self.hu[where] += share * (hu - self.hu[where])


def smooth_noise(rng: np.random.Generator, size: int, pixels: float) -> np.ndarray:
    """Noise with mean 0, standard deviation 1 and a correlation length in pixels."""
    noise = ndimage.gaussian_filter(
        rng.standard_normal((size, size), dtype=np.float32), pixels, mode="wrap", truncate=3
    )
    return (noise - noise.mean()) / noise.std()
