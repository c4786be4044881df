"""Regions of the brain on a grid."""

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Shaped
from torch import Tensor

from xaitools.data.grids import Grid, mni_grid
from xaitools.data.mni import check_signal, likeness, warn_if_unregistered
from xaitools.data.resampling import resample
from xaitools.errors import DataError, ShapeError

logger = logging.getLogger(__name__)

SPACES = ("mni", "own")
_SIDES = "left|right|lh|rh|l|r"


@dataclass(frozen=True, eq=False)
class Atlas:
    """Regions on a grid.

    Parameters
    ----------
    labels : array of int64, (x, y, z)
        Index of the region of each voxel, 0 for none.
    affine : array of float64, (4, 4)
        From voxel indices to mm, as in NIfTI.
    names : dict
        Index to name. A region without a voxel on this grid may be among them.
    source : str
        Where the regions come from, for reports.
    space : {"own", "mni"}
        "mni" for the regions of a template in MNI space, which fit only images that are registered to it.

    Raises
    ------
    ShapeError
        If `labels` does not have three axes, or `affine` is not an invertible 4 x 4 matrix.
    DataError
        If a label has no name, or two indices have the same one, or there is no region at all.
    """

    labels: Shaped[np.ndarray, "..."]
    affine: Shaped[np.ndarray, "..."]
    names: Mapping[int, str]
    source: str = ""
    space: str = "own"

    def __post_init__(self) -> None:
        if self.labels.ndim != 3:
            raise ShapeError(f"labels of shape {self.labels.shape}; expected three axes, (x, y, z).")
        present = np.unique(self.labels)
        _check_names(self.names, present[present != 0])
        object.__setattr__(self, "labels", np.ascontiguousarray(self.labels, dtype=np.int64))
        object.__setattr__(self, "affine", Grid(self.labels.shape, self.affine).affine)
        object.__setattr__(self, "names", {int(index): self.names[index] for index in sorted(self.names)})

    @property
    def grid(self) -> Grid:
        """Where the voxels lie."""
        return Grid(self.labels.shape, self.affine)

    def on_grid(
        self,
        shape: tuple[int, ...],
        affine: Shaped[np.ndarray, "..."],
        *,
        image: Shaped[np.ndarray, "x y z"] | Shaped[Tensor, "x y z"] | None = None,
    ) -> "Atlas":
        """The same regions on another grid, each voxel taking the label of the nearest one (nilearn).

        Regions that lie outside the new grid, or between its voxels, keep their name and have no voxel. Beyond the
        centres of the outermost voxels of the atlas there is no region.

        Another grid is not another space: an atlas in MNI space fits an image that is registered to it, and none
        other. That is asked of `image` as :func:`~xaitools.load_brains` asks it of its volumes, and a warning is logged
        where the image does not look registered, or where there is none and the grid is not one of MNI space's.

        Parameters
        ----------
        shape, affine
            Of the image or its maps.
        image
            The image (x, y, z) on that grid, before any map was made of it.

        Raises
        ------
        ShapeError
            If `shape` is not three numbers, or `affine` not an invertible 4 x 4 matrix.
        DataError
            If no region lies on the grid: then one of the two affines is wrong, or the image is not in the space of
            the atlas.
        DataFileError
            If `image` has no signal in half of the brain of MNI space, in which the atlas is.
        """
        grid = Grid(tuple(shape), affine)
        if self.space == "mni" and not grid.turned().same_as(self.grid.turned()):
            self._check_registered(grid, image)
        labels = resample(self.labels, self.grid, grid, labels=True)
        if not labels.any():
            raise DataError(
                f"no region of the atlas {self.source!r} lies on the grid {tuple(shape)} with affine "
                f"{grid.affine.tolist()}; register the image to the space of the atlas, or correct an affine"
            )
        return replace(self, labels=labels, affine=grid.affine)

    def _check_registered(self, grid: Grid, image: Any) -> None:
        if image is not None:
            voxels = np.asarray(image, dtype=np.float32)
            if voxels.shape != grid.shape:
                raise ShapeError(
                    f"an image of shape {voxels.shape} for a grid of {grid.shape}; expected one shape, (x, y, z)."
                )
            check_signal(voxels, grid, "the image")
            warn_if_unregistered([likeness(voxels, grid)], ["the image of on_grid"])
        elif not grid.turned().same_as(mni_grid(float(grid.spacing[0]))):
            logger.warning(
                "the atlas %r is in MNI space; nothing tells whether the image on the grid of %s is. Regions of an "
                "image that is not registered are wrong: give the image to on_grid, which looks at it",
                self.source,
                grid,
            )

    def merge_hemispheres(self) -> "Atlas":
        """Left and right regions of the same name as one, which has the smaller of the two indices.

        The side may stand before the name (``Left Hippocampus``, ``lh.insula``, ``L G_front_sup``), after
        it (``Hippocampus_L``, ``Insula (right)``), or after FreeSurfer's tissue (``ctx-lh-fusiform``), in any case, and
        apart from the name by a space or sign. Regions without a side, and those whose other half has no region or
        another spelling, are left as they are; the latter are logged at level INFO.
        """
        halves: dict[str, list[tuple[str, int]]] = {}
        for index, name in self.names.items():
            side, bare = side_of(name)
            halves.setdefault(bare, []).extend([(side, index)] if side else [])
        names, moved = dict(self.names), {}
        for bare, found in halves.items():
            if sorted(side for side, _ in found) != ["l", "r"]:
                for _, index in found:
                    logger.info("%s is not one half of a pair and is not merged.", self.names[index])
                continue
            kept, merged = sorted(index for _, index in found)
            names[kept] = bare
            del names[merged]
            moved[merged] = kept
        old = np.array([0, *self.names])
        new = np.array([moved.get(index, index) for index in old.tolist()], dtype=np.int64)
        labels = new[np.searchsorted(old, self.labels)]
        return replace(self, labels=labels, names=names)


def _check_names(names: Mapping[int, str], labels: np.ndarray) -> None:
    if not names or not len(labels):
        raise DataError("the atlas has no region: its volume is all 0, or its table names none of the labels")
    if 0 in names:
        raise DataError(f"index 0 is named {names[0]!r}, but 0 is what lies outside all regions; drop it")
    if unnamed := [int(label) for label in labels if label not in names]:
        raise DataError(f"labels {unnamed} of the volume have no name; add them to `names`")
    seen: dict[str, int] = {}
    for index, name in names.items():
        if name in seen:
            raise DataError(
                f"indices {seen[name]} and {index} are both named {name!r}; give each region a name of its own, "
                "or one index to the voxels of both"
            )
        seen[name] = index


def side_of(name: str) -> tuple[str, str]:
    """``("l" or "r", name without it)``, or ``("", name)``."""
    before = re.fullmatch(rf"(ctx[-_]|wm[-_])?({_SIDES})[\s._-]+(.+)", name, re.IGNORECASE)
    after = re.fullmatch(rf"(.+?)(?:[\s._,-]+|\s*\()({_SIDES})\)?", name, re.IGNORECASE)
    if before:
        return before[2][0].lower(), (before[1] or "") + before[3]
    return (after[2][0].lower(), after[1]) if after else ("", name)
