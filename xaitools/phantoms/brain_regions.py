"""The regions that a synthetic disease shrinks or widens, as ellipsoids.

Lengths are in millimetres of MNI space: x to the right, y to the front, z to the head.
"""

from dataclasses import dataclass

import numpy as np

from xaitools.data.grids import Grid


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


def label_numbers() -> dict[str, int]:
    """Numbers of the regions in the label maps: ``{"hippocampus left": 1, "hippocampus right": 2, ...}``."""
    sides = [f"{name} {side}" for name in REGIONS for side in ("left", "right")]
    return {name: number for number, name in enumerate(sides, start=1)}


@dataclass(frozen=True)
class Place:
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


def places_of(origin: np.ndarray, grid: Grid) -> list[Place]:
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
        places.append(Place(region_name, number, box, away, radius))
    return places
