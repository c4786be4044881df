"""What a viewer sends to the browser: gzipped bytes, one level a voxel, and what the levels mean."""

import gzip
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
from plotly.colors import sample_colorscale, unlabel_rgb

from xaitools.errors import ShapeError
from xaitools.plots import DIVERGING, SEQUENTIAL

# Colour-blind safe all of them. Relevance has heavy tails, so colours follow the square root of its magnitude.
SEQUENTIAL_MAPS = {"inferno": SEQUENTIAL, "viridis": "Viridis", "cividis": "Cividis"}
DIVERGING_MAPS = {"red-blue": DIVERGING, "orange-purple": "PuOr_r", "teal-brown": "BrBG"}

# Sent as differences of neighbours modulo 256: loses nothing, and zips to a tenth less.
_SMOOTH = {"differences": True}

# One byte a voxel, in all layers together: what a browser tab holds and unpacks within seconds.
MAX_BYTES = 2**29


def encode_grid(shape: Sequence[int], affine: npt.ArrayLike | None, step: int = 1) -> dict[str, Any]:
    """Describe how voxels lie in space, on axes that run to the right, to the front and up.

    Parameters
    ----------
    shape : (row, column) or (x, y, z)
        Spatial shape of one image.
    affine : array, (4, 4), optional
        Voxel to millimetres, right-anterior-superior. Without it a volume is shown as it is indexed.
    step : int
        Only every `step`-th voxel along each axis is shown.

    Returns
    -------
    dict
        `axes` and `flips`: for each shown axis, the array's axis and whether it is reversed; `dims` and
        `spacing` (mm, or 1) of the shown axes; `shape` of the array, with three axes, and `step`; `rank`;
        `letters`: whether directions of the body are known; `affine`, or None.
    """
    if affine is not None:
        _check_affine(np.asarray(affine, dtype=float), len(shape))
    if len(shape) == 2:
        axes, flips, spacing = [1, 0, 2], [False, True, False], np.ones(3)
    else:
        matrix = np.eye(4) if affine is None else np.asarray(affine, dtype=float)
        orientation = nib.orientations.io_orientation(matrix)
        axes = np.argsort(orientation[:, 0]).tolist()
        flips = (orientation[axes, 1] < 0).tolist()
        spacing = nib.affines.voxel_sizes(matrix)
    full = [int(size) for size in (*shape, 1)[:3]]
    dims = [-(-full[axis] // step) for axis in axes]
    return {
        "rank": len(shape),
        "shape": full,
        "step": step,
        "axes": axes,
        "flips": flips,
        "dims": dims,
        "spacing": [float(spacing[axis]) * step for axis in axes],
        "letters": affine is not None,
        "affine": None if affine is None else np.asarray(affine, dtype=float).tolist(),
    }


def encode_images(images: np.ndarray, grid: dict[str, Any]) -> dict[str, Any]:
    """Encode images (n, channel, *spatial) on one scale from their smallest to their largest value.

    One channel is grey, three are red, green and blue: all images' red comes first, then their green and their blue.
    """
    low, high = float(images.min()), float(images.max())
    levels = np.rint(255 * (images - low) / ((high - low) or 1)).astype(np.uint8)
    n, channels = levels.shape[:2]
    blocks = levels.swapaxes(0, 1).reshape(channels * n, *levels.shape[2:])
    return _layer("image", "image", blocks, grid, ranges=[[low, high]] * n, channels=channels, **_SMOOTH)


def encode_map(name: str, maps: np.ndarray, grid: dict[str, Any], about: str = "") -> dict[str, Any]:
    """Encode the maps (n, *spatial) of one method, each scaled by its own largest magnitude.

    Levels 0 to 255 hold zero to the maximum where no map of the method is negative; otherwise 128 is
    zero and 1 and 255 are the extremes. `ranges` gives each map's ends; equal ends mean a constant map.
    `about` explains the method in words.
    """
    signed = bool(maps.min() < 0)
    spatial = tuple(range(1, maps.ndim))
    lowest, peaks = maps.min(axis=spatial), np.abs(maps).max(axis=spatial)
    constant = maps.max(axis=spatial) == lowest
    scaled = maps / np.where(constant, np.inf, peaks).reshape(-1, *[1] * len(spatial))
    levels = np.rint(128 + 127 * scaled if signed else 255 * scaled).astype(np.uint8)
    ranges = [
        [float(low), float(low)] if flat else [-float(peak) if signed else 0.0, float(peak)]
        for low, peak, flat in zip(lowest, peaks, constant, strict=True)
    ]
    return _layer("map", name, levels, grid, ranges=ranges, signed=signed, about=about, **_SMOOTH)


def encode_mask(masks: np.ndarray, grid: dict[str, Any], name: str = "mask") -> dict[str, Any]:
    """Encode reference masks, bool (n, *spatial), as levels 0 and 1."""
    return _layer("mask", name, masks.astype(np.uint8), grid)


def encode_labels(labels: np.ndarray, names: Mapping[int, str], grid: dict[str, Any]) -> dict[str, Any]:
    """Encode regions, int (n or 1, *spatial), as places in `values`; `names` holds each one's name, or "".

    One byte a voxel, two where there are more than 256 regions. One label image serves all images.
    """
    values, places = np.unique(labels, return_inverse=True)
    wide = len(values) > 256
    levels = places.reshape(labels.shape).astype("<u2" if wide else np.uint8)
    named = [str(names.get(int(value), "")) for value in values]
    return _layer("labels", "labels", levels, grid, wide=wide, values=values.tolist(), names=named)


@cache
def encode_colormap(name: str) -> bytes:
    """Colours of the 256 levels of a sequential or diverging map, red, green and blue after one another."""
    levels = np.arange(256)
    if name in SEQUENTIAL_MAPS:
        scale, positions = SEQUENTIAL_MAPS[name], levels / 255
        return _colors(scale, positions if isinstance(scale, list) else np.sqrt(positions))
    scale, positions = DIVERGING_MAPS[name], np.clip((levels - 128) / 127, -1, 1)
    roots = positions if isinstance(scale, list) else np.sign(positions) * np.sqrt(np.abs(positions))
    return _colors(scale, (1 + roots) / 2)


def encode_colormaps() -> dict[str, bytes]:
    """Colours for absolute maps and for signed ones: the first choice of each kind."""
    choices = {"sequential": SEQUENTIAL_MAPS, "diverging": DIVERGING_MAPS}
    return {kind: encode_colormap(next(iter(names))) for kind, names in choices.items()}


def downsampling(bytes_in_all: int, rank: int) -> int:
    """Smallest whole step along each of `rank` axes that brings the voxels sent down to the limit."""
    step = 1
    while bytes_in_all / step**rank > MAX_BYTES:
        step += 1
    return step


def _check_affine(affine: np.ndarray, rank: int) -> None:
    if rank == 2:
        raise ShapeError("Got an affine for images (n, 1, row, column); only volumes take one. Leave it out.")
    if affine.shape != (4, 4) or not np.isfinite(affine).all() or np.linalg.det(affine) == 0:
        raise ShapeError(
            f"The affine has shape {affine.shape} or is singular; expected an invertible (4, 4) matrix."
        )


def _layer(kind: str, name: str, levels: np.ndarray, grid: dict[str, Any], **meaning: Any) -> dict[str, Any]:
    step = grid["step"]
    thinned = levels[(slice(None), *[slice(None, None, step)] * (levels.ndim - 1))]
    volumes = thinned.reshape(*thinned.shape, *[1] * (4 - levels.ndim))
    shown = volumes.transpose(0, *[axis + 1 for axis in grid["axes"]])
    shown = np.flip(shown, tuple(axis + 1 for axis, flip in enumerate(grid["flips"]) if flip))
    flat = np.ascontiguousarray(shown.transpose(0, 3, 2, 1)).ravel()
    if meaning.get("differences"):
        flat = np.diff(flat, prepend=np.uint8(0))
    data = gzip.compress(flat.tobytes(), compresslevel=6, mtime=0)
    return {"kind": kind, "name": name, "data": data, **meaning}


def _colors(scale: Any, positions: np.ndarray) -> bytes:
    colors = [unlabel_rgb(color) for color in sample_colorscale(scale, positions)]
    return np.rint(colors).astype(np.uint8).tobytes()
