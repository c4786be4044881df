"""MetaImage files, .mhd and .mha, read without a library: what their header says is checked before it is believed.

Format: https://itk.org/Wiki/ITK/MetaIO/Documentation
"""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from xaitools.data.sizes import check_size
from xaitools.errors import DataError

TYPES = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_LONG": "i4",
    "MET_ULONG": "u4",
    "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}
LONGEST_HEADER = 2**16


@dataclass(frozen=True)
class MetaImage:
    """What a MetaImage file holds.

    Parameters
    ----------
    voxels : array, (x, y, z)
        As stored; a single slice has z = 1.
    spacing : array of float64, (3,)
        mm.
    origin : array of float64, (3,)
        The first voxel, mm towards left, back and head.
    direction : array of float64, (3, 3), optional
        Its columns are the directions of x, y and z; None where the header does not say it.
    """

    voxels: np.ndarray
    spacing: np.ndarray
    origin: np.ndarray
    direction: np.ndarray | None


def read_meta_image(path: Path) -> MetaImage:
    """Read a MetaImage file of one value a voxel in two or three dimensions.

    Raises
    ------
    DataError
        Another form: voxels as text, in several files, in a file that lies elsewhere, or of several values.
    ValueError, OSError, zlib.error
        Damaged, truncated, or its file of voxels is missing.
    """
    fields, after = _header(path)
    n_axes = int(fields["NDims"])
    shape = [int(length) for length in fields["DimSize"].split()]
    if n_axes not in (2, 3) or len(shape) != n_axes or int(fields.get("ElementNumberOfChannels", "1")) != 1:
        raise DataError(f"{path}: expected one value a voxel in two or three dimensions. Convert it")
    if not _is_true(fields, "BinaryData", "True"):
        raise DataError(f"{path}: voxels as text; expected binary ones. Convert it")
    spacing = _numbers(_first(fields, "ElementSpacing", "ElementSize"), n_axes, 1.0)
    origin = _numbers(_first(fields, "Offset", "Position", "Origin"), n_axes, 0.0)
    turn = _first(fields, "TransformMatrix", "Rotation", "Orientation")
    direction = np.eye(3)
    if turn is not None:
        direction[:n_axes, :n_axes] = np.reshape(_numbers(turn, n_axes**2), (n_axes, n_axes)).T
    if min(spacing) <= 0:
        raise ValueError("a voxel of no length")
    whole = np.ones(3), np.zeros(3)
    for values, given in zip(whole, (spacing, origin), strict=True):
        values[:n_axes] = given
    return MetaImage(
        _voxels(path, fields, after, (*shape, 1)[:3]), *whole, direction if turn is not None else None
    )


def _header(path: Path) -> tuple[dict[str, str], int]:
    """The fields of a header, and where it ends."""
    with path.open("rb") as file:
        start = file.read(LONGEST_HEADER)
    fields: dict[str, str] = {}
    end = 0
    for line in start.splitlines(keepends=True):
        end += len(line)
        name, _, value = line.decode("utf-8", "surrogateescape").partition("=")
        if name.strip() in fields:
            raise ValueError("a field twice")
        fields[name.strip()] = value.strip()
        if name.strip() == "ElementDataFile":
            return fields, end
    raise ValueError("no ElementDataFile")


def _voxels(path: Path, fields: Mapping[str, str], after: int, shape: tuple[int, ...]) -> np.ndarray:
    place, after = _place(path, fields["ElementDataFile"], after)
    big = _is_true(fields, "BinaryDataByteOrderMSB") or _is_true(fields, "ElementByteOrderMSB")
    dtype = np.dtype(TYPES[fields["ElementType"]]).newbyteorder(">" if big else "<")
    packed = _is_true(fields, "CompressedData")
    length = check_size(path, shape, dtype.itemsize, place.stat().st_size - after, packed=packed)
    with place.open("rb") as file:
        skipped = int(fields.get("HeaderSize", "0"))
        file.seek(place.stat().st_size - length if skipped == -1 else after + skipped)
        content = zlib.decompressobj().decompress(file.read(), length) if packed else file.read(length)
    if len(content) != length:
        raise ValueError("fewer voxels than the header says")
    return np.frombuffer(content, dtype).reshape(shape, order="F").astype(dtype.newbyteorder("="))


def _place(path: Path, name: str, after: int) -> tuple[Path, int]:
    """The file of the voxels, and where in it they may begin."""
    if name.upper() == "LOCAL":
        return path, after
    if name.split()[:1] == ["LIST"] or "%" in name:
        raise DataError(f"{path}: voxels in several files; expected one. Convert it")
    if not name or Path(name).is_absolute() or ".." in Path(name).parts:
        raise DataError(
            f"{path}: its ElementDataFile lies outside of its folder; expected a file beside it. Move that file there"
        )
    return path.parent / name, 0


def _first(fields: Mapping[str, str], *names: str) -> str | None:
    return next((fields[name] for name in names if name in fields), None)


def _is_true(fields: Mapping[str, str], name: str, default: str = "False") -> bool:
    return fields.get(name, default)[:1].upper() in ("T", "1")


def _numbers(text: str | None, n: int, default: float = 0.0) -> list[float]:
    """The n numbers of a field, or the usual one n times where there is no such field."""
    numbers = [default] * n if text is None else [float(word) for word in text.split()]
    if len(numbers) != n or not np.isfinite(numbers).all():
        raise ValueError("a field of other numbers")
    return numbers
