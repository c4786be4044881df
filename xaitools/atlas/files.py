"""Atlases from NIfTI files and from nilearn."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from xaitools.atlas.names import read_names
from xaitools.atlas.regions import Atlas
from xaitools.errors import DataError, DataFileError, ParameterError, ShapeError

logger = logging.getLogger(__name__)


_TABLES = (".xml", ".tsv", ".csv", ".txt", ".lut", ".label")


def load_atlas(path: str | Path, names: str | Path | Mapping[int, str] | None = None) -> Atlas:
    """Read a NIfTI label volume, of a template or of one subject, and the names of its regions.

    Parameters
    ----------
    path
        NIfTI file with whole numbers, 0 where there is no region.
    names
        Index to name, or a file with them. Its form is recognised by the content: XML of SPM (also of
        Neuromorphometrics and AAL) or FSL, a CSV or TSV table with a column of indices and one of names (as
        BIDS ``dseg.tsv``), or lines ``index name [R G B A]`` (FreeSurfer). By default the file of the volume's
        name with another suffix. Names of indices that the volume does not have are dropped. Indices without
        a name are called by their number, ``label 46``, and logged.

    Raises
    ------
    DataFileError
        If a file is missing, truncated or of another form.
    ShapeError
        If the volume does not have three dimensions, as a probabilistic atlas does not.
    DataError
        If values are not whole numbers, a name occurs twice, or more than half of the labels have no name.
    """
    path = Path(path)
    labels, affine = _read_labels(path)
    table = dict(names) if isinstance(names, Mapping) else read_names(_names_file(path, names))
    return Atlas(labels, affine, _name_labels(labels, table, path.name), source=path.name)


def fetch_atlas(name: str, **options: Any) -> Atlas:
    """Download an atlas with nilearn, or take it from nilearn's cache.

    Parameters
    ----------
    name
        As in nilearn's ``fetch_atlas_<name>``, such as ``"aal"``, ``"harvard_oxford"`` or ``"destrieux_2009"``;
        deterministic ones only.
    options
        For that function, such as ``atlas_name="cort-maxprob-thr25-2mm"``.

    Raises
    ------
    ParameterError
        If nilearn has no such atlas.
    DataError
        If the atlas is probabilistic, or of a surface.
    """
    from nilearn import datasets

    known = [
        function.removeprefix("fetch_atlas_") for function in dir(datasets) if "fetch_atlas_" in function
    ]
    if name not in known:
        raise ParameterError(f"nilearn has no atlas {name!r}; it has {', '.join(known)}")
    fetched = getattr(datasets, f"fetch_atlas_{name}")(**options)
    if getattr(fetched, "lut", None) is None or not isinstance(
        fetched.maps, (str, Path, nibabel.Nifti1Image)
    ):
        raise DataError(
            f"the atlas {name!r} of nilearn is not a volume of labels with a table of names; expected a deterministic "
            'one, such as "aal", or "harvard_oxford" with atlas_name="cort-maxprob-thr25-2mm"'
        )
    table = dict(zip(map(int, fetched.lut["index"]), map(str, fetched.lut["name"]), strict=True))
    labels, affine = _read_labels(fetched.maps)
    return Atlas(labels, affine, _name_labels(labels, table, name), source=f"nilearn: {name}")


def _name_labels(labels: np.ndarray, table: Mapping[int, str], volume: str) -> dict[int, str]:
    present = [int(label) for label in np.unique(labels) if label != 0]
    unnamed = [label for label in present if label not in table]
    if 2 * len(unnamed) > len(present):
        raise DataError(
            f"{volume}: {len(unnamed)} of its {len(present)} labels have no name, {unnamed[0]} first; "
            "the table of names seems to be another atlas's"
        )
    if unnamed:
        logger.warning("%s: labels %s have no name and are called by their number.", volume, unnamed)
    return {label: table.get(label, f"label {label}") for label in present}


def _read_labels(source: Any) -> tuple[np.ndarray, np.ndarray]:
    """Label volume (x, y, z) of int32 and its affine, from a path or a NIfTI image."""
    place = str(source) if isinstance(source, (str, Path)) else "the label volume"
    if isinstance(source, (str, Path)) and not Path(source).is_file():
        raise DataFileError(f"{place}: no such file; give the NIfTI file of the labels")
    try:
        image: Any = nibabel.load(source) if isinstance(source, (str, Path)) else source
        values = np.asarray(image.dataobj)
    except Exception as error:
        raise DataFileError(
            f"{place}: truncated, damaged or not a NIfTI file ({type(error).__name__}); fetch it again"
        ) from None
    values = values.reshape(values.shape[:3]) if set(values.shape[3:]) == {1} else values
    if values.ndim != 3:
        raise ShapeError(
            f"{place}: shape {values.shape}; expected one volume of labels, (x, y, z). "
            "Of a probabilistic atlas take the maximum-probability version"
        )
    labels = np.nan_to_num(values, nan=0.5).round().astype(np.int32)
    if not np.array_equal(labels, values):
        raise DataError(f"{place}: values that are not whole numbers; expected labels, not intensities")
    return labels, np.asarray(image.affine, dtype=np.float64)


def _names_file(volume: Path, names: str | Path | None) -> Path:
    if names is not None:
        if not Path(names).is_file():
            raise DataFileError(f"{names}: no such file; give the table of the names of the regions")
        return Path(names)
    stem = volume.name.removesuffix(".gz").removesuffix(".nii")
    found = [path for suffix in _TABLES if (path := volume.with_name(stem + suffix)).is_file()]
    if not found:
        raise DataFileError(
            f"{volume}: no table of names beside it, such as {stem}.tsv; give one, or a dict, as `names`"
        )
    return found[0]
