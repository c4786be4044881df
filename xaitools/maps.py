"""Maps on disk: one file a subject and method, with a JSON sidecar, so that a killed run goes on where it was.

Files are named in the manner of BIDS derivatives: ``sub-003_desc-gradientSmoothgrad_map.npz`` for images,
``.nii.gz`` with the affine for volumes. The sidecar holds the exact method name and the key under which the map was
made; a map made under another key is made again.
"""

import json
import logging
import re
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from xaitools.errors import ShapeError
from xaitools.files import replacing, write_text

logger = logging.getLogger(__name__)

Array = Float[np.ndarray, "*spatial"]


def map_path(folder: Path, name: str, method: str, *, volume: bool = False) -> Path:
    """File of one map.

    Examples
    --------
    >>> map_path(Path("maps"), "sub-003", "integrated_gradients[black+white]+absolute@xrai").name
    'sub-003_desc-integratedGradientsBlackWhiteAbsoluteXrai_map.npz'
    """
    words = re.findall(r"[A-Za-z0-9]+", method)
    label = words[0] + "".join(word[0].upper() + word[1:] for word in words[1:])
    return Path(folder) / f"{name}_desc-{label}_map{'.nii.gz' if volume else '.npz'}"


def save_map(
    folder: Path,
    name: str,
    method: str,
    array: Array,
    *,
    key: Mapping[str, Any],
    affine: np.ndarray | None = None,
) -> Path:
    """Write one map (*spatial) and its sidecar; neither is ever half written.

    Parameters
    ----------
    name
        Study id of the image, such as "sub-003"; never taken from a header.
    key
        What the map depends on (network, settings, image), JSON-able.
    affine
        4 x 4 matrix from voxel to millimetre; needed for volumes.

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
    sidecar = {"method": method, "sample": name, "shape": list(array.shape), "key": dict(key)}
    write_text(_sidecar(path), json.dumps(sidecar, indent=1, sort_keys=True))
    return path


def load_map(
    folder: Path, name: str, method: str, *, key: Mapping[str, Any] | None = None, volume: bool = False
) -> np.ndarray | None:
    """One map (*spatial), float32; None if there is none, it is damaged, or it was made under another `key`."""
    path = map_path(folder, name, method, volume=volume)
    if not (path.exists() and _sidecar(path).exists()):
        return None
    try:
        made_under = json.loads(_sidecar(path).read_text())["key"]
        if key is not None and made_under != json.loads(json.dumps(dict(key))):
            return None
        return _read(path)
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        logger.warning("%s is damaged (%s) and is made again.", path.name, error)
        return None


def load_or_compute(
    folder: Path,
    name: str,
    methods: Sequence[str],
    compute: Callable[[list[str]], Mapping[str, Array]],
    *,
    key: Mapping[str, Any],
    affine: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """Maps of one image from `folder`; those that are missing come from one call ``compute(missing)`` and are saved.

    Returns
    -------
    dict
        Map (*spatial) of each method, float32.
    """
    found = {method: load_map(folder, name, method, key=key, volume=affine is not None) for method in methods}
    missing = [method for method, array in found.items() if array is None]
    if missing:
        for method, array in compute(missing).items():
            save_map(folder, name, method, array, key=key, affine=affine)
            found[method] = np.asarray(array, dtype=np.float32)
    return {method: array for method, array in found.items() if array is not None}


def _sidecar(path: Path) -> Path:
    return path.with_name(path.name.removesuffix(".nii.gz").removesuffix(".npz") + ".json")


def _read(path: Path) -> np.ndarray:
    if path.suffix == ".npz":
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            return file["map"]
    import nibabel as nib

    return nib.Nifti1Image.from_filename(path).get_fdata(dtype=np.float32)
