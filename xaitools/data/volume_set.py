"""Volumes on disk with their labels and subjects: what every loader of brains returns."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int, Shaped
from torch import Tensor

from xaitools.data.grids import Grid
from xaitools.data.lazy import LazyTensor
from xaitools.data.samples import Samples, check_labels, check_names, check_shapes, contents
from xaitools.errors import DataError, ShapeError
from xaitools.files import digest


@dataclass(frozen=True, eq=False, repr=False)
class Volumes(Samples):
    """Samples whose volumes stay on disk: memory does not grow with the number of subjects.

    As :class:`~xaitools.data.samples.Samples`, except that `images` and `masks` are read when they are indexed,
    ``volumes.images[[3, 8]]``, and that all volumes lie on one grid. Indexing the collection itself gives another
    one, and reads nothing.

    Parameters
    ----------
    images : LazyTensor, float32, (n, 1, x, y, z)
        Axes towards right, front and head; values in [0, 1].
    masks : LazyTensor, bool, (n, 1, x, y, z), optional
    affine : array of float64, (4, 4)
        From voxel indices to mm towards right, front and head.
    label_maps : LazyTensor, int64, (n, 1, x, y, z), optional
        A number for each brain structure, 0 outside, on the grid of the images.
    placements : tuple of callables, n or empty
        The grid of each source as stored, and where in the space of the images it lies: the way back for maps.

    Raises
    ------
    ShapeError
        The lengths, or the shapes of images, masks and label maps, do not fit together.
    DataError
        No volumes, a label without a class or not finite, a repeated name, or a subject that is not a study id.
    """

    images: LazyTensor  # type: ignore[assignment]  # indexed as a tensor is
    masks: LazyTensor | None = None  # type: ignore[assignment]
    affine: Shaped[np.ndarray, "..."] = field(default_factory=lambda: np.eye(4))
    label_maps: LazyTensor | None = None
    placements: tuple[Callable[[], tuple[Grid, Grid]], ...] = ()

    def __post_init__(self) -> None:
        check_shapes(self)
        if self.images.ndim != 5 or self.affine.shape != (4, 4):
            raise ShapeError(
                f"volumes of shape {tuple(self.images.shape)} with an affine of shape {self.affine.shape}; expected "
                "(n, 1, x, y, z) and (4, 4)"
            )
        if self.label_maps is not None and self.label_maps.shape != self.images.shape:
            raise ShapeError(
                f"label maps of shape {tuple(self.label_maps.shape)}: volumes of shape "
                f"{tuple(self.images.shape)} need maps of that shape; resample the maps to the volumes first"
            )
        check_names(self)
        if not len(self):
            raise DataError("no volumes; expected at least one; check what was selected")
        check_labels(self)

    def __getitem__(self, index: slice | Sequence[int] | np.ndarray | Tensor) -> "Volumes":
        chosen = self._positions(index)
        lazy: dict[str, Any] = {
            name: None if (tensor := getattr(self, name)) is None else tensor.take(chosen.tolist())
            for name in ("images", "masks", "label_maps")
        }
        placements = (
            tuple(self.placements[position] for position in chosen.tolist()) if self.placements else ()
        )
        return replace(self, **lazy, placements=placements, **self._aligned(chosen))

    def __repr__(self) -> str:
        shape = " x ".join(str(length) for length in self.shape)
        spacing = " x ".join(f"{length:.4g}" for length in self.spacing)
        subjects = f"{len(set(self.subjects))} subjects"
        return f"Volumes({len(self)} of {shape} voxels of {spacing} mm, {subjects}, {self._label_words()})"

    @property
    def grid(self) -> Grid:
        """Where the voxels of all volumes lie."""
        return Grid(self.shape, self.affine)

    @property
    def shape(self) -> tuple[int, ...]:
        """Voxels along x, y and z."""
        return tuple(self.images.shape[2:])

    @property
    def spacing(self) -> tuple[float, ...]:
        """Length of a voxel along x, y and z in mm."""
        return tuple(self.grid.spacing.tolist())

    @property
    def has_mask(self) -> Bool[Tensor, " n"]:
        """Which volumes have a mask with at least one true element, (n,)."""
        if self.masks is None:
            return torch.zeros(len(self), dtype=torch.bool)
        return torch.tensor([bool(self.masks[position].any()) for position in range(len(self))])

    def label_map(self, position: int) -> Int[np.ndarray, "x y z"]:
        """The map of brain structures of one volume, on its grid.

        Raises
        ------
        DataError
            These volumes came without label maps.
        """
        if self.label_maps is None:
            raise DataError(
                "these volumes have no label maps; load them with a folder 'dseg' of label maps beside their "
                "folder 't1', or name one elsewhere with label_maps"
            )
        return self.label_maps[position, 0].numpy()

    def fingerprint(self) -> str:
        """Hexadecimal digest of the contents, the affine among them: same contents, same digest."""
        parts: list[str | bytes] = [np.round(self.affine, 4).astype(np.float64).tobytes()]
        parts += [repr(None if lazy is None else lazy.digests()) for lazy in (self.images, self.masks)]
        return digest(
            [
                *parts,
                *(
                    part
                    for values in (self.labels, *self.numbers.values())
                    if values is not None
                    for part in contents(values)
                ),
            ]
        )
