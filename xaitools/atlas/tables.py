"""Tables of relevance over the regions of an atlas."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Shaped
from torch import Tensor

from xaitools.atlas.regions import Atlas
from xaitools.data.grids import Grid
from xaitools.errors import DataError, ParameterError, ShapeError


def region_table(
    maps: Shaped[Tensor, "..."] | Shaped[np.ndarray, "..."] | Mapping[str, Any],
    atlas: Atlas,
    *,
    absolute: bool = True,
    controls: Shaped[Tensor, "..."] | Shaped[np.ndarray, "..."] | Mapping[str, Any] | None = None,
    affine: Shaped[np.ndarray, "..."] | None = None,
) -> pd.DataFrame:
    """Relevance in each region of an atlas.

    Parameters
    ----------
    maps
        One map ``(x, y, z)`` or several, ``(n, x, y, z)`` or ``(n, 1, x, y, z)``, of patients where `controls` are
        given. Voxels outside all regions count for nothing. Or such maps by method, as `attribute` returns them.
    atlas
        On the grid of the maps; see :meth:`Atlas.on_grid`.
    absolute
        Sum absolute values, as the paper does; False keeps the sign.
    controls
        One map or several of healthy controls, for the gain; by the same methods where `maps` are by method.
    affine
        (4, 4), of the maps. Give it wherever the maps have one: two grids can be of one shape and yet mirrored.
        By default only the shapes are compared.

    Returns
    -------
    DataFrame
        A row for each map and region, the regions in the order of their index: ``map`` (0 to n - 1), ``region``,
        ``index``, ``n_voxels``, ``sum``, ``density`` (sum / n_voxels, NaN for a region without voxels) and, with
        `controls`, ``gain``: the sum over the mean of the controls' sums. A region in which the controls have
        none has gain inf, or NaN if the map has none either. Of maps by method, ``method`` comes first.

    Raises
    ------
    ShapeError
        If a map and the atlas are not on the same grid, or a map has several channels.
    DataError
        If a value is NaN or infinite, or there is no map.
    ParameterError
        If maps come by method and controls do not, or by others.

    References
    ----------
    Eitel and Ritter, Testing the robustness of attribution methods for convolutional neural networks in MRI-based
    Alzheimer's disease classification, 2019, section 3. Gain: Böhle et al., Layer-wise relevance propagation
    for explaining deep neural network decisions in MRI-based Alzheimer's disease classification, 2019.
    """
    if isinstance(maps, Mapping) or isinstance(controls, Mapping):
        return _by_method(maps, atlas, controls, absolute=absolute, affine=affine)
    if affine is not None and not Grid(atlas.labels.shape, affine).same_as(atlas.grid):
        raise ShapeError(
            f"maps with affine {np.asarray(affine).tolist()} and an atlas with affine {atlas.affine.tolist()} are not "
            "on the same grid; call atlas.on_grid(shape, affine, image=...) with those of the maps, and their image, "
            "which must be in the space of the atlas"
        )
    voxels, region = _voxels(atlas)
    sums = _sums(maps, atlas, voxels, region, absolute)
    sizes = np.bincount(region, minlength=len(atlas.names))
    table = {
        "map": np.repeat(np.arange(len(sums)), len(atlas.names)),
        "region": np.tile(np.array(list(atlas.names.values()), dtype=object), len(sums)),
        "index": np.tile(np.array(list(atlas.names)), len(sums)),
        "n_voxels": np.tile(sizes, len(sums)),
        "sum": sums.ravel(),
    }
    with np.errstate(divide="ignore", invalid="ignore"):
        table["density"] = table["sum"] / table["n_voxels"]
        if controls is not None:
            reference = _sums(controls, atlas, voxels, region, absolute).mean(axis=0)
            table["gain"] = (sums / reference).ravel()
    return pd.DataFrame(table)


def _by_method(maps: Any, atlas: Atlas, controls: Any, **settings: Any) -> pd.DataFrame:
    """The tables of several methods in one."""
    methods, others = (list(own) if isinstance(own, Mapping) else None for own in (maps, controls))
    if not methods or (controls is not None and not set(methods) <= set(others or ())):
        raise ParameterError(
            f"maps of the methods {methods} and controls of {others}; expected both by the same methods, as "
            "region_table(maps, atlas, controls=controls), or of one, as region_table(maps['gradient'], atlas)"
        )
    tables = []
    for method in methods:
        own = None if controls is None else controls[method]
        table = region_table(maps[method], atlas, controls=own, **settings)
        table.insert(0, "method", method)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def regions_touched(atlas: Atlas, mask: Shaped[np.ndarray, "..."], *, share: float = 0.1) -> list[str]:
    """Names of the regions of which at least `share` of the voxels lie in a mask, in the order of their index.

    Parameters
    ----------
    mask
        bool, (x, y, z), on the grid of the atlas: what is known to matter, as in synthetic brains.
    share
        More than 0, at most 1.

    Raises
    ------
    ShapeError
        If mask and atlas are not on the same grid.
    ParameterError
        If `share` is out of its range.
    """
    if mask.shape != atlas.labels.shape:
        raise ShapeError(
            f"a mask of shape {mask.shape} and an atlas of shape {atlas.labels.shape}; expected one grid"
        )
    if not 0 < share <= 1:
        raise ParameterError(f"share={share}; expected more than 0 and at most 1")
    voxels, region = _voxels(atlas)
    inside = np.bincount(region, np.asarray(mask, dtype=bool).ravel()[voxels], minlength=len(atlas.names))
    sizes = np.bincount(region, minlength=len(atlas.names))
    touched = (sizes > 0) & (inside >= share * sizes)
    return [name for name, hit in zip(atlas.names.values(), touched, strict=True) if hit]


def _voxels(atlas: Atlas) -> tuple[np.ndarray, np.ndarray]:
    """Flat positions of the voxels in a region, region by region, and the rank of each one's among the atlas's."""
    flat = atlas.labels.ravel()
    voxels = np.flatnonzero(flat != 0)  # of bool it is the quicker
    region = np.searchsorted(list(atlas.names), flat[voxels])
    small = region.astype(np.min_scalar_type(len(atlas.names)))  # of 16 bits it is sorted by radix
    order = np.argsort(small, kind="stable")
    return voxels[order], region[order]


def _sums(
    maps: Tensor | np.ndarray, atlas: Atlas, voxels: np.ndarray, region: np.ndarray, absolute: bool
) -> np.ndarray:
    """Sums (n, regions) in float64."""
    if isinstance(maps, Tensor):
        maps = maps.detach().cpu()
        maps = np.asarray(maps.float() if maps.dtype is torch.bfloat16 else maps)
    stack = maps[None] if maps.ndim == 3 else maps
    if stack.ndim == 5 and stack.shape[1] == 1:
        stack = stack[:, 0]
    if stack.shape[1:] != atlas.labels.shape:
        raise ShapeError(
            f"maps of shape {maps.shape} and an atlas of shape {atlas.labels.shape} are not on the same grid; expected "
            "(x, y, z), (n, x, y, z) or (n, 1, x, y, z): call atlas.on_grid(shape, affine, image=...) with those of "
            "the maps, and their image, which must be in the space of the atlas, and reduce their channels to one"
        )
    if not len(stack):
        raise DataError("there is no map; expected at least one patient's, and one of the controls")
    present, starts = np.unique(region, return_index=True)
    sums = np.zeros((len(stack), len(atlas.names)))
    inside = np.empty(len(voxels), dtype=stack.dtype)
    for index, values in enumerate(stack):
        flat = values.ravel()
        if not _is_finite(flat):
            raise DataError(
                f"map {index + 1} of {len(stack)} has NaN or infinite values; the method that made it failed there"
            )
        np.take(flat, voxels, out=inside, mode="clip")  # they are all within; "raise" would copy `out`
        if absolute:
            np.abs(inside, out=inside)
        if len(present):
            sums[index, present] = np.add.reduceat(inside, starts, dtype=np.float64)
    return sums


def _is_finite(values: np.ndarray) -> bool:
    """By the sum of squares, which is one pass; value by value where that overflows."""
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.isfinite(values @ values) or np.isfinite(values).all())
