"""What fits a volume, and slices and smaller copies of it for figures."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32, Shaped
from torch import Tensor

from xaitools.attribution.names import parse
from xaitools.errors import ParameterError


def check_methods(methods: Sequence[str], shape: Sequence[int]) -> None:
    """Raise ParameterError if there is no method, or occlusion's window does not fit into images of `shape`.

    Raises
    ------
    MethodError
        If a name cannot be read.
    """
    if not methods:
        raise ParameterError("methods is empty; expected one name of a map or more")
    for own in map(parse, methods):
        length = own.option.split(":")[0]
        if own.base == "occlusion" and length.isdecimal() and int(length) > min(shape):
            raise ParameterError(
                f"{own}: a window of {length} voxels along each side is larger than an image of {tuple(shape)}; "
                "choose a smaller one"
            )


def coronal(
    volumes: Shaped[np.ndarray, "*n x y z"] | Shaped[Tensor, "*n x y z"],
    affine: Float[np.ndarray, "4 4"],
    y: float | None = None,
) -> Shaped[np.ndarray, "*n row column"]:
    """Coronal slices, the head up and left on the left.

    Parameters
    ----------
    volumes
        Axes towards right, front and head.
    affine
        From voxel indices to mm.
    y
        Where to cut, in mm from the origin; None for the middle.
    """
    return _cut(volumes, affine, 1, y)


def sagittal(
    volumes: Shaped[np.ndarray, "*n x y z"] | Shaped[Tensor, "*n x y z"],
    affine: Float[np.ndarray, "4 4"],
    x: float | None = None,
) -> Shaped[np.ndarray, "*n row column"]:
    """Sagittal slices, the head up and the nose on the right.

    Parameters
    ----------
    volumes
        Axes towards right, front and head.
    affine
        From voxel indices to mm.
    x
        Where to cut, in mm from the origin; None for the middle.
    """
    return _cut(volumes, affine, 0, x)


def _cut(
    volumes: Shaped[np.ndarray, "*n x y z"] | Shaped[Tensor, "*n x y z"],
    affine: Float[np.ndarray, "4 4"],
    axis: int,
    place: float | None,
) -> Shaped[np.ndarray, "*n row column"]:
    """Slices across an axis, the head up."""
    values = np.asarray(volumes)
    if place is None:
        at = values.shape[axis - 3] // 2
    else:
        at = round(float(np.linalg.inv(affine)[axis] @ [*(place * (k == axis) for k in range(3)), 1]))
    return np.flip(np.swapaxes(values.take(at, axis - 3), -1, -2), axis=-2)


def coarser(
    volume: Shaped[np.ndarray, "x y z"] | Shaped[Tensor, "x y z"], step: int
) -> Float32[Tensor, "1 1 X Y Z"]:
    """Means over cubes of `step` voxels, as one image of one channel; what is left over at the end is dropped."""
    return F.avg_pool3d(torch.as_tensor(volume, dtype=torch.float32)[None, None], step)


def coarser_affine(affine: Float[np.ndarray, "4 4"], step: int) -> Float[np.ndarray, "4 4"]:
    """The affine of :func:`coarser` volumes: the first voxel's centre is that of the first cube."""
    scaled = affine @ np.diag([step, step, step, 1])
    scaled[:3, 3] += affine[:3, :3] @ np.full(3, (step - 1) / 2)
    return scaled
