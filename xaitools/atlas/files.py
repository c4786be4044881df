"""Atlases from NIfTI files and from nilearn."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from xaitools.atlas.names import read_names
from xaitools.atlas.regions import SPACES, Atlas
from xaitools.checks import check_choice
from xaitools.data.folders import stem
from xaitools.data.orientation import check_orientation
from xaitools.data.volumes import Volume, read_label_map, space_code
from xaitools.errors import DataError, DataFileError

logger = logging.getLogger(__name__)

_OTHER_TEMPLATES = {3: "Talairach and Tournoux", 5: "a template that is not MNI152"}
_TABLES = (".xml", ".tsv", ".csv", ".txt", ".lut", ".label")


def load_atlas(
    path: str | Path,
    names: str | Path | Mapping[int, str] | None = None,
    *,
    space: str = "",
    orientation: str = "",
) -> Atlas:
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
    space
        "mni" for the regions of a template in MNI space, "own" for those of one subject. By default as the file's
        header has it: "own" for coordinates of a scanner (code 1), "mni" for those of MNI152 (code 4) and where it does
        not say (0, 2). An atlas of another template (3, Talairach; 5) is refused: its regions lie elsewhere.
    orientation
        What to take of a file whose header does not say where its voxels lie, which is refused otherwise: "sform",
        "qform", or, for space "own", the letters of the axes as stored, such as "LAS", with the middle at 0 mm.

    Raises
    ------
    DataFileError
        If a file is missing, truncated or of another form.
    DataError
        If the volume has more than three dimensions, as a probabilistic atlas does, values are not whole numbers, a
        name occurs twice, more than half of the labels have no name, its header does not say where its voxels lie, or
        it is in the space of another template than MNI152.
    ParameterError
        If `space` or `orientation` is unknown.
    """
    path = Path(path)
    check_choice(space=(space, ("", *SPACES)))
    check_orientation(orientation, in_mni=space != "own")
    labels = read_label_map(path, orientation)
    space = space or _space(path)
    table = dict(names) if isinstance(names, Mapping) else read_names(_names_file(path, names))
    return _named(labels, table, path.name, path.name, space)


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
        If the atlas is probabilistic, of a surface, or in the space of Talairach.
    """
    from nilearn import datasets

    known = [
        function.removeprefix("fetch_atlas_") for function in dir(datasets) if "fetch_atlas_" in function
    ]
    check_choice(name=(name, known))
    fetched = getattr(datasets, f"fetch_atlas_{name}")(**options)
    if getattr(fetched, "lut", None) is None or not isinstance(
        fetched.maps, (str, Path, nibabel.Nifti1Image)
    ):
        raise DataError(
            f"the atlas {name!r} of nilearn is not a volume of labels with a table of names; expected a deterministic "
            'one, such as "aal", or "harvard_oxford" with atlas_name="cort-maxprob-thr25-2mm"'
        )
    if str(getattr(fetched, "template", "")).lower() == "talairach":
        raise _of_another_template(f"the atlas {name!r} of nilearn", _OTHER_TEMPLATES[3])
    table = dict(zip(map(int, fetched.lut["index"]), map(str, fetched.lut["name"]), strict=True))
    maps = Path(fetched.maps) if isinstance(fetched.maps, str) else fetched.maps
    return _named(read_label_map(maps), table, name, f"nilearn: {name}", "mni")


def _space(path: Path) -> str:
    code = space_code(path)
    if code in _OTHER_TEMPLATES:
        raise _of_another_template(str(path), f"{_OTHER_TEMPLATES[code]} (code {code} in its header)")
    return "own" if code == 1 else "mni"


def _of_another_template(what: str, template: str) -> DataError:
    return DataError(
        f"{what}: in the coordinates of {template}, where regions lie up to two centimetres from those of MNI space; "
        "expected an atlas in MNI space. Give one, or one that was moved there; where its header is wrong say "
        "space='mni' in a call of load_atlas, and space='own' for images of that very template"
    )


def _named(labels: Volume, table: Mapping[int, str], volume: str, source: str, space: str) -> Atlas:
    present = [int(label) for label in np.unique(labels.voxels) if label != 0]
    unnamed = [label for label in present if label not in table]
    if 2 * len(unnamed) > len(present):
        raise DataError(
            f"{volume}: {len(unnamed)} of its {len(present)} labels have no name, {unnamed[0]} first; "
            "the table of names seems to be another atlas's"
        )
    if unnamed:
        logger.warning("%s: labels %s have no name and are called by their number.", volume, unnamed)
    found = {label: table.get(label, f"label {label}") for label in present}
    return Atlas(labels.voxels, labels.grid.affine, found, source=source, space=space)


def _names_file(volume: Path, names: str | Path | None) -> Path:
    if names is not None:
        if not Path(names).is_file():
            raise DataFileError(f"{names}: no such file; give the table of the names of the regions")
        return Path(names)
    found = [path for suffix in _TABLES if (path := volume.with_name(stem(volume) + suffix)).is_file()]
    if not found:
        raise DataFileError(
            f"{volume}: no table of names beside it, such as {stem(volume)}.tsv; give one, or a dict, as `names`"
        )
    return found[0]
