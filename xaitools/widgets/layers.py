"""What a viewer sends to the browser: gzipped bytes, one level a voxel, and what the levels mean."""

import gzip
from collections.abc import Mapping, Sequence
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
from plotly.colors import sample_colorscale, unlabel_rgb

from xaitools.errors import DataError, ParameterError, ShapeError
from xaitools.plots import DIVERGING, SEQUENTIAL


def encode_grid(shape: Sequence[int], affine: npt.ArrayLike | None) -> dict[str, Any]:
    """Describe how voxels lie in space, on axes that run to the right, to the front and up.

    Parameters
    ----------
    shape : (row, column) or (x, y, z)
        Spatial shape of one image.
    affine : array, (4, 4), optional
        Voxel to millimetres, right-anterior-superior. Without it a volume is shown as it is indexed.

    Returns
    -------
    dict
        `axes` and `flips`: for each shown axis, the array's axis and whether it is reversed; `dims` and
        `spacing` (mm, or 1) of the shown axes; `rank`; `letters`: whether directions of the body are known.
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
    dims = [(*shape, 1)[axis] for axis in axes]
    return {
        "rank": len(shape),
        "axes": axes,
        "flips": flips,
        "dims": dims,
        "spacing": [float(spacing[axis]) for axis in axes],
        "letters": affine is not None,
    }


def encode_images(images: np.ndarray, grid: dict[str, Any]) -> dict[str, Any]:
    """Encode images (n, *spatial) on one grey scale from their smallest to their largest value."""
    low, high = float(images.min()), float(images.max())
    levels = np.rint(255 * (images - low) / ((high - low) or 1)).astype(np.uint8)
    return _layer("image", "image", levels, grid, ranges=[[low, high]] * len(images))


def encode_map(name: str, maps: np.ndarray, grid: dict[str, Any]) -> dict[str, Any]:
    """Encode the maps (n, *spatial) of one method, each scaled by its own largest magnitude.

    Levels 0 to 255 hold zero to the maximum where no map of the method is negative; otherwise 128 is
    zero and 1 and 255 are the extremes. `ranges` gives each map's ends; equal ends mean a constant map.
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
    return _layer("map", name, levels, grid, ranges=ranges, signed=signed)


def encode_mask(masks: np.ndarray, grid: dict[str, Any]) -> dict[str, Any]:
    """Encode reference masks, bool (n, *spatial), as levels 0 and 1."""
    return _layer("mask", "mask", masks.astype(np.uint8), grid)


def encode_colormaps() -> dict[str, bytes]:
    """Colours of the 256 levels, red, green and blue after one another."""
    levels = np.arange(256)
    return {
        "sequential": _colors(SEQUENTIAL, levels / 255),
        "diverging": _colors(DIVERGING, np.clip((levels - 1) / 254, 0, 1)),
    }


def check_images(images: npt.ArrayLike) -> np.ndarray:
    """Return images (n, 1, *spatial) as float32 (n, *spatial), or say what is wrong with them."""
    array = _array(images, "The images")
    if array.ndim not in (4, 5) or array.shape[1] != 1 or 0 in array.shape:
        raise ShapeError(
            f"The images have shape {array.shape}; expected (n, 1, row, column) or (n, 1, x, y, z) with one "
            "channel and at least one image. Reduce several channels to one first."
        )
    return array[:, 0]


def check_maps(maps: Mapping[str, npt.ArrayLike], shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Return maps shaped like the images as float32 (n, *spatial), or say which one is wrong."""
    if not maps:
        raise ParameterError("The viewer got no map; give at least one, as {method name: maps}.")
    arrays = {name: _array(values, f"The map '{name}'") for name, values in maps.items()}
    return {name: _match(array, f"The map '{name}'", shape) for name, array in arrays.items()}


def check_masks(masks: npt.ArrayLike, shape: tuple[int, ...]) -> np.ndarray:
    """Return masks shaped like the images as bool (n, *spatial)."""
    return _match(_array(masks, "The mask"), "The mask", shape) > 0


def _check_affine(affine: np.ndarray, rank: int) -> None:
    if rank == 2:
        raise ShapeError("Got an affine for images (n, 1, row, column); only volumes take one. Leave it out.")
    if affine.shape != (4, 4) or not np.isfinite(affine).all() or np.linalg.det(affine) == 0:
        raise ShapeError(
            f"The affine has shape {affine.shape} or is singular; expected an invertible (4, 4) matrix."
        )


def _array(values: Any, what: str) -> np.ndarray:
    values = values.detach().cpu() if hasattr(values, "detach") else values
    array = np.asarray(values, dtype=np.float32)
    if not np.isfinite(array).all():
        raise DataError(f"{what} holds NaN or infinity; expected finite numbers. Check how it was computed.")
    return array


def _match(array: np.ndarray, what: str, shape: tuple[int, ...]) -> np.ndarray:
    expected = (shape[0], 1, *shape[1:])
    if array.shape != expected:
        raise ShapeError(f"{what} has shape {array.shape}; expected that of the images, {expected}.")
    return array[:, 0]


def _layer(kind: str, name: str, levels: np.ndarray, grid: dict[str, Any], **meaning: Any) -> dict[str, Any]:
    volumes = levels.reshape(*levels.shape, *[1] * (4 - levels.ndim))
    shown = volumes.transpose(0, *[axis + 1 for axis in grid["axes"]])
    shown = np.flip(shown, tuple(axis + 1 for axis, flip in enumerate(grid["flips"]) if flip))
    data = gzip.compress(shown.transpose(0, 3, 2, 1).tobytes(), compresslevel=4, mtime=0)
    return {"kind": kind, "name": name, "data": data, **meaning}


def _colors(scale: Any, positions: np.ndarray) -> bytes:
    colors = [unlabel_rgb(color) for color in sample_colorscale(scale, positions)]
    return np.rint(colors).astype(np.uint8).tobytes()
