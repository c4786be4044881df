"""What may be given to a viewer: arrays, tensors, volumes and files of volumes, as arrays of one form."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from nibabel.spatialimages import SpatialImage

from xaitools.data.grids import Grid
from xaitools.data.volumes import is_volume, read_volume
from xaitools.errors import DataError, DataFileError, ParameterError, ShapeError

Array: TypeAlias = npt.ArrayLike | SpatialImage | str | Path | Sequence[Any]

CHANNELS = (1, 3)
FORMS = "an array or tensor, a NIfTI volume, the path of one, or a list of these"


@dataclass(frozen=True)
class Given:
    """Values (n, channel, *spatial), or fewer axes as they came, and the affine of volumes that brought one."""

    values: np.ndarray
    affine: np.ndarray | None = None


def opened(values: Any, what: str) -> Given:
    """Read what was given, or say why it cannot be read; `what` names it, such as "The images"."""
    if isinstance(values, Given):
        return values
    if isinstance(values, str | Path):
        return _opened_file(Path(values), what)
    if hasattr(values, "dataobj"):
        if len(values.shape) != 3:
            raise ShapeError(f"{what} is a volume of shape {values.shape}; expected one volume, (x, y, z).")
        return Given(np.asarray(values.dataobj)[None, None], np.asarray(values.affine, dtype=float))
    if isinstance(values, list | tuple) and any(_is_volume(value) for value in values):
        return _together([opened(value, f"{what}, number {k + 1},") for k, value in enumerate(values)], what)
    if isinstance(values, list | tuple):
        values = [_detached(value) for value in values]
    try:
        array = np.asarray(_detached(values))
    except ValueError:
        raise ShapeError(f"{what} are arrays of several shapes; expected one shape for all.") from None
    if array.dtype.kind not in "biuf":
        raise ParameterError(f"{what} came as {type(values).__name__}; expected {FORMS}.")
    return Given(array)


def check_images(images: Any) -> np.ndarray:
    """Return images (n, channel, *spatial) of one or three channels as float32, or say what is wrong."""
    array = _finite(opened(images, "The images"), "The images")
    if array.ndim not in (4, 5) or array.shape[1] not in CHANNELS or 0 in array.shape:
        raise ShapeError(
            f"The images have shape {array.shape}; expected (n, channel, row, column) or (n, channel, x, y, z) with "
            "one channel, or three of red, green and blue, and at least one image. Reduce other channels to one first."
        )
    return array


def opened_maps(maps: Any) -> dict[str, Given]:
    """Read what was given as maps: a mapping of names, not empty, or None."""
    if maps is None:
        return {}
    if not isinstance(maps, Mapping):
        raise ParameterError(
            f"The maps came as {type(maps).__name__}; expected {{method name: maps}}, as {{'gradient': maps}}."
        )
    if not maps:
        raise ParameterError(
            "The viewer got no map; give at least one, as {method name: maps}, or leave maps out."
        )
    return {name: opened(values, f"The map '{name}'") for name, values in maps.items()}


def check_maps(maps: Mapping[str, Given], images: np.ndarray) -> dict[str, np.ndarray]:
    """Return maps of the images as float32 (n, *spatial), added up over channels, or say which one is wrong."""
    arrays = {name: _finite(values, f"The map '{name}'") for name, values in maps.items()}
    return {
        name: _match(array, f"The map '{name}'", images.shape, summed=True) for name, array in arrays.items()
    }


def check_masks(masks: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Return masks of images of that shape as bool (n, *spatial)."""
    return _match(_finite(opened(masks, "The mask"), "The mask"), "The mask", shape) > 0


def check_labels(labels: Any, images: np.ndarray) -> np.ndarray:
    """Return regions, one label image for all (*spatial) or one an image, as int (n or 1, *spatial)."""
    given = opened(labels, "The label image")
    array = given.values
    if not (np.issubdtype(array.dtype, np.integer) or (array == np.rint(array)).all()):
        raise DataError(
            "The labels are not whole numbers; expected one integer a voxel. Resample by nearest."
        )
    shape = images.shape[2:]
    if array.shape == shape or (given.affine is not None and array.shape == (1, 1, *shape)):
        return array.reshape(1, *shape).astype(np.int64)
    return _match(array, "The label image", images.shape).astype(np.int64)


def check_affines(affine: Any, volumes: Mapping[str, Given | None]) -> npt.ArrayLike | None:
    """Return the affine that all given and read volumes share, or say which volume has another one."""
    read = {
        what: volume for what, volume in volumes.items() if volume is not None and volume.affine is not None
    }
    own = {what: volume.affine for what, volume in read.items() if volume.affine is not None}
    if affine is None and "The image" in own:
        affine = own["The image"]
    expected = None if affine is None else np.round(np.asarray(affine, dtype=float), 3).tolist()
    for what, other in own.items():
        shape = read[what].values.shape[-3:]
        if affine is None or not Grid(shape, other).same_as(Grid(shape, np.asarray(affine))):
            raise ShapeError(
                f"{what} has the affine {np.round(other, 3).tolist()}, expected that of the images, {expected}. "
                "Resample it onto their grid."
            )
    return affine


def _is_volume(value: Any) -> bool:
    return isinstance(value, str | Path) or hasattr(value, "dataobj")


def _opened_file(path: Path, what: str) -> Given:
    if not is_volume(path):
        raise DataFileError(
            f"{path}: {what} can be read from NIfTI and MetaImage files (.nii, .nii.gz, .mhd, .mha); read others with "
            "xaitools.data, and give arrays."
        )
    volume = read_volume(path)
    return Given(volume.voxels[None, None], volume.grid.affine)


def _together(several: Sequence[Given], what: str) -> Given:
    """Volumes that share a grid, one after another."""
    first = several[0]
    for number, other in enumerate(several, 1):
        if (first.affine is None) != (other.affine is None) or other.values.ndim != 5:
            raise ShapeError(
                f"{what} are files or NIfTI volumes and arrays; expected one kind, with one affine."
            )
        if first.affine is None or other.affine is None:
            continue
        one, another = Grid(first.values.shape[2:], first.affine), Grid(other.values.shape[2:], other.affine)
        if not another.same_as(one):
            raise ShapeError(
                f"{what}: volume {number} lies on another grid ({another.shape}) than the first ({one.shape}); "
                "resample them onto one."
            )
    return Given(np.concatenate([volume.values for volume in several]), first.affine)


def _detached(values: Any) -> Any:
    """A tensor off its graph and device, of a type that numpy has; this module does not load torch."""
    if not hasattr(values, "detach"):
        return values
    values = values.detach().cpu()
    return values.float() if str(values.dtype) == "torch.bfloat16" else values


def _finite(given: Given, what: str) -> np.ndarray:
    array = np.asarray(given.values, dtype=np.float32)
    if not np.isfinite(array).all():
        raise DataError(f"{what} holds NaN or infinity; expected finite numbers. Check how it was computed.")
    return array


def _match(array: np.ndarray, what: str, images: tuple[int, ...], *, summed: bool = False) -> np.ndarray:
    """The array as (n, *spatial), of images of that shape; axes of one image and one channel may be left out."""
    n, channels, *shape = images
    if summed and array.shape == images:
        return array.sum(axis=1)
    if array.shape in [(n, 1, *shape), (n, *shape)] or (n == 1 and array.shape == tuple(shape)):
        return array.reshape(n, *shape)
    more = f", or {images}" if summed and channels > 1 else ""
    raise ShapeError(f"{what} has shape {array.shape}; expected that of the images, {(n, 1, *shape)}{more}.")
