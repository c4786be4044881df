"""Maps on disk: one file a subject and method, with a JSON sidecar, so that a killed run goes on where it was.

Files are named in the manner of BIDS derivatives: ``sub-003_desc-gradient_map.npz`` for images, ``.nii.gz`` with the
affine for volumes. The sidecar holds the exact method name, the key under which the map was made, and the checksum of
the map's file. A map made under another key, or whose file is not as it was written, is made again.
"""

import json
import re
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from xaitools.errors import DataError, DataFileError, ShapeError
from xaitools.files import digest, in_use, replacing
from xaitools.seals import checksum, read_json, tell_made_again, write_json

if TYPE_CHECKING:
    from xaitools.data.returning import Returned
    from xaitools.data.samples import Samples

LONGEST_LABEL = 80

Array = Float[np.ndarray, "*spatial"]


def map_path(folder: Path, name: str, method: str, *, volume: bool = False) -> Path:
    """File of one map; no two methods have the same, also where file systems take capitals for small letters.

    The letters and digits of the method's name, as one word, are the label of the file. Where that says less than the
    name, which is wherever the name is more than small letters, eight digits of the name's SHA-256 follow.

    Examples
    --------
    >>> map_path(Path("maps"), "sub-003", "gradient").name
    'sub-003_desc-gradient_map.npz'
    >>> map_path(Path("maps"), "sub-003", "integrated_gradients[black+white]+absolute@xrai").name
    'sub-003_desc-integratedGradientsBlackWhiteAbsoluteXraic16c84b8_map.npz'
    """
    words = re.findall(r"[A-Za-z0-9]+", method)
    label = "".join(word[0].upper() + word[1:] for word in words)
    label = label[:1].lower() + label[1:]
    if not re.fullmatch(rf"[a-z]{{1,{LONGEST_LABEL}}}", method):
        label = f"{label[:LONGEST_LABEL]}{digest([method])[:8]}"
    return Path(folder) / f"{name}_desc-{label}_map{'.nii.gz' if volume else '.npz'}"


def save_map(
    folder: Path,
    name: str,
    method: str,
    array: Array,
    *,
    key: Mapping[str, Any],
    affine: np.ndarray | None = None,
    facts: Mapping[str, Any] | None = None,
) -> Path:
    """Write one map (*spatial) and its sidecar, which holds the map's checksum; neither is ever half written.

    Parameters
    ----------
    name
        Study id of the image, such as "sub-003"; never taken from a header.
    key
        What the map depends on (network, settings, image), JSON-able.
    affine
        4 x 4 matrix from voxel to millimetre; needed for volumes.
    facts
        What else the sidecar tells of the map, such as the layer that was looked at; JSON-able. It is no part of the
        key.

    Raises
    ------
    ShapeError
        If a volume comes without an affine.
    """
    path = map_path(folder, name, method, volume=array.ndim == 3)
    if array.ndim == 3 and affine is None:
        raise ShapeError(
            f"The map of {name} is a volume of shape {array.shape}; expected its affine too: "
            "pass the affine of its image."
        )
    values = array.astype(np.float32)
    with replacing(path) as temporary:
        if array.ndim == 3:
            import nibabel as nib

            nib.save(nib.Nifti1Image(values, affine), temporary)
        else:
            np.savez_compressed(temporary, map=values)
    sidecar = {
        **(facts or {}),
        "method": method,
        "sample": name,
        "shape": list(array.shape),
        "finite": bool(np.isfinite(values).all()),
        "key": dict(key),
        "file": checksum(path),
    }
    write_json(_sidecar(path), sidecar)
    in_use.add(path.resolve())
    return path


def save_maps(
    maps: Mapping[str, Any] | Any, like: "Samples", folder: str | Path, *, dicom: bool = False
) -> list[Path]:
    """Write the maps of images beside one another, each on the grid of the file that its image came from.

    The image of a network is resampled, turned, cropped and moved; its map is brought back by resampling it linearly
    onto the source's own voxels, as they are stored, so that any viewer lays the two over each other. Where the image
    showed nothing of the source the map is 0. Maps of CT slices are NIfTI files too: of a DICOM file one slice, of a
    volume the whole grid with the one slice that was looked at; those of PNG and JPEG pictures, which lie in no space,
    are TIFF files of floating-point pixels. Signs and sizes are kept.

    Parameters
    ----------
    maps
        (n, *spatial) or (n, 1, *spatial), or such of each method by its name, as
        :func:`~xaitools.attribute` returns them.
    like
        The samples whose maps these are, in the same order, from a loader.
    folder
        Where to write. Files are named by study id and method; nothing in a NIfTI or TIFF file tells whose it is.
    dicom
        For slices of DICOM files write, beside NIfTI, secondary captures that carry the patient's tags, study and
        frame of reference of the source, so that an archive files them with it: such a file identifies the
        patient as the source does. Keep it where the source is kept.

    Returns
    -------
    list of Path
        The files written.

    Raises
    ------
    ShapeError
        Maps that are not one for each image, or of another size.
    DataError
        A map with NaN, samples that do not know their files, or `dicom` for images that are not of DICOM files.
    DataFileError
        A source that is gone or damaged.
    """
    from xaitools.data.returning import is_dicom_slice, to_source

    named = maps if isinstance(maps, Mapping) else {"map": maps}
    stacks = {method: _stack(values, like, method) for method, values in named.items()}
    if dicom and not all(is_dicom_slice(like, position) for position in range(len(like))):
        raise DataError(
            "dicom=True for images that are not slices of DICOM files; expected samples of load_ct from DICOM. "
            "Leave it out for NIfTI files"
        )
    written = []
    for method, stack in stacks.items():
        for position, name in enumerate(like.names):
            returned = to_source(stack[position], like, position)
            path = map_path(Path(folder), name, method, volume=True)
            written.append(_write_returned(path, returned))
            if dicom:
                from xaitools.data.capture import write_capture

                place = path.with_name(path.name.removesuffix(".nii.gz") + ".dcm")
                written.append(write_capture(place, returned.values, like.sources[position], method))
    return written


def _stack(values: Any, like: "Samples", method: str) -> np.ndarray:
    """Maps (n, *spatial) as float32, checked against their images."""
    array = np.asarray(values.detach().cpu() if hasattr(values, "detach") else values, dtype=np.float32)
    spatial = tuple(like.images.shape[2:])
    if array.shape == (len(like), 1, *spatial):
        array = array[:, 0]
    if array.shape != (len(like), *spatial):
        raise ShapeError(
            f"maps {method!r} of shape {array.shape} for {len(like)} images of {spatial}; expected "
            f"{(len(like), *spatial)}: one map for each image, its channels reduced to one"
        )
    if not np.isfinite(array).all():
        raise DataError(
            f"maps {method!r} with NaN or infinite values; expected finite ones. Leave such maps out"
        )
    return array


def _write_returned(path: Path, returned: "Returned") -> Path:
    if returned.grid is None:
        from PIL import Image

        path = path.with_name(path.name.removesuffix(".nii.gz") + ".tiff")
        with replacing(path) as temporary:
            Image.fromarray(returned.values).save(temporary)
        return path
    import nibabel as nib

    values = returned.values if returned.values.ndim == 3 else returned.values.T[..., None]
    image = nib.Nifti1Image(values, returned.grid.affine)
    image.set_sform(returned.grid.affine, returned.code)
    image.set_qform(returned.grid.affine, returned.code)
    image.header.set_xyzt_units("mm")
    with replacing(path) as temporary:
        nib.save(image, temporary)
    return path


def load_map(
    folder: Path, name: str, method: str, *, key: Mapping[str, Any] | None = None, volume: bool = False
) -> np.ndarray | None:
    """One map (*spatial), float32; None if there is none, it is damaged, or it was made under another `key`.

    Damaged is what is not as :func:`save_map` wrote it, and a map of another shape than its sidecar says, or with NaN
    or infinite values where its method gave none. The log says so by the file's name.
    """
    path = map_path(folder, name, method, volume=volume)
    reading = _sidecar(path)
    if not (path.is_file() and reading.is_file()):
        return None
    try:
        sidecar = read_json(reading)
        same_key = key is None or sidecar["key"] == json.loads(json.dumps(dict(key)))
        if not (same_key and (sidecar["method"], sidecar["sample"]) == (method, name)):
            return None
        reading = path
        array = _read(path, sidecar)
    except Exception as error:  # numpy's and nibabel's readers raise whatever a damaged file leads them to
        tell_made_again(reading, error)
        return None
    in_use.add(path.resolve())
    return array


def load_or_compute(
    folder: Path,
    name: str,
    methods: Sequence[str],
    compute: Callable[[list[str]], Mapping[str, Array]],
    *,
    key: Mapping[str, Any],
    affine: np.ndarray | None = None,
    facts: Callable[[str], Mapping[str, Any]] | None = None,
) -> dict[str, np.ndarray]:
    """Maps of one image from `folder`; those that are missing come from one call ``compute(missing)`` and are saved.

    Parameters
    ----------
    facts
        What else is to be told of a map that was made, by its method; see :func:`save_map`.

    Returns
    -------
    dict
        Map (*spatial) of each method, float32, in C order whether it was made or read, as the last bits of sums depend
        on the order.
    """
    found = {method: load_map(folder, name, method, key=key, volume=affine is not None) for method in methods}
    missing = [method for method, array in found.items() if array is None]
    if missing:
        for method, array in compute(missing).items():
            told = facts(method) if facts else None
            save_map(folder, name, method, array, key=key, affine=affine, facts=told)
            found[method] = np.ascontiguousarray(array, dtype=np.float32)
    return {method: array for method, array in found.items() if array is not None}


def _sidecar(path: Path) -> Path:
    return path.with_name(path.name.removesuffix(".nii.gz").removesuffix(".npz") + ".json")


def _read(path: Path, sidecar: Mapping[str, Any]) -> np.ndarray:
    """The map that a sidecar tells of; nothing is unpacked before file and shape are known to be those it names."""
    if checksum(path) != sidecar["file"]:
        raise DataFileError(f"{path} is not the file that its sidecar tells of")
    read = _read_npz if path.suffix == ".npz" else _read_nifti
    array = read(path, tuple(sidecar["shape"]))
    if not np.isfinite(array).all() and sidecar["finite"]:
        raise DataFileError(f"{path} has NaN or infinite values; expected finite ones")
    return np.ascontiguousarray(array)


def _read_npz(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    from xaitools.data.sizes import check_size

    with path.open("rb") as stream, zipfile.ZipFile(stream) as archive, archive.open("map.npy") as entry:
        version = np.lib.format.read_magic(entry)
        read_header = getattr(np.lib.format, f"read_array_header_{version[0]}_{version[1]}")
        found, _, dtype = read_header(entry)
        _check_shape(path, found, shape)
        size = check_size(path, found, dtype.itemsize, path.stat().st_size, packed=True)
        if dtype != np.float32 or archive.getinfo("map.npy").file_size != entry.tell() + size:
            raise DataFileError(f"{path} unpacks to something else than its header says")
        entry.seek(0)
        return np.lib.format.read_array(entry, allow_pickle=False)


def _read_nifti(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    from xaitools.data.volumes import load_nifti

    image = load_nifti(path)
    _check_shape(path, image.shape, shape)
    return image.get_fdata(dtype=np.float32)


def _check_shape(path: Path, found: Sequence[int], expected: Sequence[int]) -> None:
    if tuple(found) != tuple(expected):
        raise DataFileError(f"{path} has the shape {tuple(found)}; its sidecar says {tuple(expected)}")
