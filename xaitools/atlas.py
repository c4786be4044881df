"""Regions of the brain: label volumes with names, and tables of relevance over them."""

import csv
import io
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import nibabel
import numpy as np
import pandas as pd
import torch
from jaxtyping import Shaped
from scipy import ndimage
from torch import Tensor

from xaitools.errors import DataError, DataFileError, ParameterError, ShapeError

logger = logging.getLogger(__name__)

_TABLES = (".xml", ".tsv", ".csv", ".txt", ".lut", ".label")
_INDEX_COLUMNS = ("index", "roivalue", "value", "labelvalue", "id", "labelid", "roiid", "number", "label")
_NAME_COLUMNS = ("name", "roiname", "labelname", "regionname", "region", "structure", "structname", "label")
_SIDES = "left|right|lh|rh|l|r"

# Points "x y z radius, ..." in mm of MNI space, left side, that stand for each region of mni_regions.
_CORTEX = {
    "Precentral Gyrus": "-39 -6 51 10, -54 2 28 8, -26 -18 66 8, -6 -26 60 8",
    "Superior Frontal Gyrus": "-18 35 42 12, -5 49 31 10, -5 5 61 10, -20 10 60 9, -14 64 4 9",
    "Middle Frontal Gyrus": "-33 33 35 14, -38 14 50 10, -36 52 12 10",
    "Inferior Frontal Gyrus": "-48 13 19 10, -46 30 14 12",
    "Orbitofrontal Cortex": "-36 31 -12 12, -17 47 -13 12, -5 37 -18 10, -31 50 -10 10",
    "Rolandic Operculum": "-47 -8 14 9",
    "Insula": "-35 7 3 11, -38 -12 2 7",
    "Anterior Cingulate": "-4 35 14 10",
    "Middle Cingulate": "-5 -15 42 10, -4 8 38 7",
    "Posterior Cingulate": "-5 -43 25 10",
    "Postcentral Gyrus": "-42 -23 49 10, -58 -14 28 8, -24 -38 66 8",
    "Superior Parietal Lobule": "-23 -60 59 12",
    "Supramarginal Gyrus": "-56 -34 30 12",
    "Angular Gyrus": "-44 -61 36 12",
    "Precuneus": "-7 -56 48 11, -6 -60 32 9",
    "Lateral Occipital Cortex": "-32 -81 16 12, -36 -78 -8 11, -17 -84 28 9",
    "Medial Occipital Cortex": "-7 -79 6 12, -6 -80 27 9, -15 -68 -5 11",
    "Fusiform Gyrus": "-31 -40 -20 13, -34 -22 -28 9, -30 -64 -13 11",
    "Parahippocampal Gyrus": "-21 -16 -21 6, -23 -28 -20 8",
    "Entorhinal Cortex": "-23 -4 -32 6",
    "Superior Temporal Gyrus": "-53 -21 7 11, -60 -36 14 8, -52 0 -6 8",
    "Middle Temporal Gyrus": "-56 -34 -2 11, -58 -10 -16 9, -52 -60 8 9",
    "Inferior Temporal Gyrus": "-50 -28 -23 12, -48 -8 -34 9, -52 -56 -12 9",
    "Temporal Pole": "-40 15 -20 10, -36 15 -34 10",
}
_INNER = {
    "Hippocampus": "-25 -13 -20 7.5, -28 -20 -16 6, -29 -28 -11 5.5, -25 -35 -4 5",
    "Amygdala": "-23 -3 -18 6",
    "Thalamus": "-11 -18 8 10, -7 -10 6 7, -16 -26 6 9",
    "Caudate": "-11 14 2 7.5, -13 10 10 7, -15 0 16 6, -17 -12 20 4.5",
    "Putamen": "-22 12 0 8, -27 2 2 8, -30 -10 2 6",
    "Pallidum": "-18 -1 -1 6, -21 -7 -1 5.5",
    "Accumbens": "-9 12 -8 4",
    "Ventral Diencephalon": "-9 -15 -10 9, -4 -7 -13 7",
    "Basal Forebrain": "-6 4 -13 6, -15 4 -14 5",
    "Brain Stem": "0 -28 -14 10, 0 -27 -32 14, 0 -38 -50 9, 0 -42 -64 8",
    "Cerebellum": "-28 -62 -38 24, -12 -52 -18 11, -42 -62 -38 15, -4 -64 -28 18",
}
_VENTRICLES = {
    "Lateral Ventricle": "-8 20 8 12, -12 0 20 12, -16 -24 20 12, -24 -42 10 16, -22 -60 8 10",
    "Fourth Ventricle": "0 -46 -32 13",
}
_WHITE = "Cerebral White Matter"
_MIDLINE = ("Brain Stem", "Fourth Ventricle")


@dataclass(frozen=True, eq=False)
class Atlas:
    """Regions on a grid.

    Parameters
    ----------
    labels : array of int32, (x, y, z)
        Index of the region of each voxel, 0 for none.
    affine : array of float64, (4, 4)
        From voxel indices to mm, as in NIfTI.
    names : dict
        Index to name. A region without a voxel on this grid may be among them.
    source : str
        Where the regions come from, for reports.

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

    def __post_init__(self) -> None:
        if self.labels.ndim != 3:
            raise ShapeError(f"labels of shape {self.labels.shape}: expected three axes, (x, y, z)")
        affine = _affine(self.affine)
        present = np.unique(self.labels)
        _check_names(self.names, present[present != 0])
        object.__setattr__(self, "labels", np.ascontiguousarray(self.labels, dtype=np.int32))
        object.__setattr__(self, "affine", affine)
        object.__setattr__(self, "names", {int(index): self.names[index] for index in sorted(self.names)})

    def on_grid(self, shape: tuple[int, ...], affine: Shaped[np.ndarray, "..."]) -> "Atlas":
        """The same regions on another grid, each voxel taking the label of the nearest one (nilearn).

        Regions that lie outside the new grid, or between its voxels, keep their name and have no voxel. Beyond the
        centres of the outermost voxels of the atlas there is no region.

        Raises
        ------
        ShapeError
            If `shape` is not three numbers, or `affine` not an invertible 4 x 4 matrix.
        DataError
            If no region lies on the grid: then one of the two affines is wrong, or the image is not in the space of
            the atlas.
        """
        from nilearn.image import resample_img
        from nilearn.image.resampling import BoundingBoxError

        affine = _affine(affine)
        if len(shape) != 3:
            raise ShapeError(f"grid {tuple(shape)}: expected three axes, (x, y, z), such as maps.shape[-3:]")
        try:
            moved = resample_img(
                nibabel.Nifti1Image(self.labels, self.affine),
                target_affine=affine,
                target_shape=tuple(shape),
                interpolation="nearest",
                force_resample=True,
                copy_header=True,
            )
        except BoundingBoxError:
            labels = np.zeros(shape, dtype=np.int32)
        else:
            labels = np.asarray(moved.dataobj)
        if not labels.any():
            raise DataError(
                f"no region of the atlas {self.source!r} lies on the grid {tuple(shape)} with affine "
                f"{affine.tolist()}; register the image to the space of the atlas, or correct an affine"
            )
        return replace(self, labels=labels, affine=affine)

    def merge_hemispheres(self) -> "Atlas":
        """Left and right regions of the same name as one, which has the smaller of the two indices.

        The side may stand before the name (``Left Hippocampus``, ``lh.insula``, ``L G_front_sup``), after
        it (``Hippocampus_L``, ``Insula (right)``), or after FreeSurfer's tissue (``ctx-lh-fusiform``), in any case, and
        apart from the name by a space or sign. Regions without a side, and those whose other half has no region or
        another spelling, are left as they are; the latter are logged.
        """
        halves: dict[str, list[tuple[str, int]]] = {}
        for index, name in self.names.items():
            side, bare = _side(name)
            halves.setdefault(bare, []).extend([(side, index)] if side else [])
        names, moved = dict(self.names), {}
        for bare, found in halves.items():
            if sorted(side for side, _ in found) != ["l", "r"]:
                for _, index in found:
                    logger.warning("%s is not one half of a pair and is not merged.", self.names[index])
                continue
            kept, merged = sorted(index for _, index in found)
            names[kept] = bare
            del names[merged]
            moved[merged] = kept
        labels = self.labels.copy()
        for merged, kept in moved.items():
            labels[self.labels == merged] = kept
        return replace(self, labels=labels, names=names)


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


def mni_regions(resolution: int = 2) -> Atlas:
    """A coarse atlas of the whole brain in MNI space, made offline from points and the templates in nilearn.

    Each region stands for one or more points with a radius, mirrored to the right. A voxel goes to the region
    whose sphere is nearest (distance to the point less the radius), by tissue of the ICBM 2009 template: grey
    matter to a cortical region within 30 mm, or to the brain stem, cerebellum or a deep nucleus within 5 mm;
    other tissue to one of the latter if inside its sphere, else to the white matter; fluid to a ventricle if
    inside its sphere, else to none. Most points of the cortex are the centres published for the regions of the AAL
    template, rounded to mm; the others, and all radii, were set by hand and adjusted until sizes and places were near
    those in the Neuromorphometrics and AAL2 atlases, so overlap with these two is no independent test.

    It is meant for examples, teaching and synthetic brains: nuclei are about where they are, but borders between
    gyri are not anatomical. For results about real brains use a real atlas.

    Parameters
    ----------
    resolution
        Size of a voxel in mm.

    Returns
    -------
    Atlas
        Names such as ``"Left Hippocampus"``; brain stem and fourth ventricle are not divided. Voxels at x = 0
        count as left.

    References
    ----------
    Tzourio-Mazoyer et al., Automated anatomical labeling of activations in SPM using a macroscopic anatomical
    parcellation of the MNI MRI single-subject brain, NeuroImage 2002. Fonov et al., Unbiased nonlinear average
    age-appropriate brain templates from birth to adulthood, NeuroImage 2009.
    """
    from nilearn import datasets

    template = datasets.load_mni152_template(resolution=resolution)
    head = template.get_fdata() > 0.2
    grey = datasets.load_mni152_gm_template(resolution=resolution).get_fdata()
    white = datasets.load_mni152_wm_template(resolution=resolution).get_fdata()
    brain = ndimage.binary_fill_holes(ndimage.binary_closing(head, iterations=max(round(6 / resolution), 1)))
    xyz = nibabel.affines.apply_affine(template.affine, np.argwhere(brain))
    side = xyz[:, 0] > 0
    xyz[:, 0] = -np.abs(xyz[:, 0])
    is_fluid, is_grey = (grey + white < 0.5)[brain], (grey >= white)[brain]
    regions = [*_CORTEX, *_INNER, *_VENTRICLES, _WHITE]
    cortex, to_cortex = _nearest(_CORTEX, xyz)
    inner, to_inner = _nearest(_INNER, xyz)
    ventricle, to_ventricle = _nearest(_VENTRICLES, xyz)
    inner, ventricle, none = inner + len(_CORTEX), ventricle + len(_CORTEX) + len(_INNER), len(regions)
    is_inner = np.where(is_grey, (to_inner < to_cortex) & (to_inner <= 5), to_inner <= 0)
    outer = np.where(is_grey, np.where(to_cortex <= 30, cortex, none), regions.index(_WHITE))
    fluid = np.where(to_ventricle <= 0, ventricle, none)
    found = np.where(is_fluid, fluid, np.where(is_inner, inner, outer))
    names, numbers = _numbered(regions)
    labels = np.zeros(brain.shape, dtype=np.int32)
    labels[brain] = numbers[found, side.astype(int)]
    return Atlas(labels, template.affine, names, source="xaitools: points on the MNI152 templates")


def region_table(
    maps: Shaped[Tensor, "..."] | Shaped[np.ndarray, "..."],
    atlas: Atlas,
    *,
    absolute: bool = True,
    controls: Shaped[Tensor, "..."] | Shaped[np.ndarray, "..."] | None = None,
    affine: Shaped[np.ndarray, "..."] | None = None,
) -> pd.DataFrame:
    """Relevance in each region of an atlas.

    Parameters
    ----------
    maps
        One map ``(x, y, z)`` or several, ``(n, x, y, z)`` or ``(n, 1, x, y, z)``, of patients where `controls` are
        given. Voxels outside all regions count for nothing.
    atlas
        On the grid of the maps; see :meth:`Atlas.on_grid`.
    absolute
        Sum absolute values, as the paper does; False keeps the sign.
    controls
        One map or several of healthy controls, for the gain.
    affine
        (4, 4), of the maps. Give it wherever the maps have one: two grids can be of one shape and yet mirrored.
        By default only the shapes are compared.

    Returns
    -------
    DataFrame
        A row for each map and region, the regions in the order of their index: ``map`` (0 to n - 1), ``region``,
        ``index``, ``n_voxels``, ``sum``, ``density`` (sum / n_voxels, NaN for a region without voxels) and, with
        `controls`, ``gain``: the sum over the mean of the controls' sums. A region in which the controls have
        none has gain inf, or NaN if the map has none either.

    Raises
    ------
    ShapeError
        If a map and the atlas are not on the same grid, or a map has several channels.
    DataError
        If a value is NaN or infinite, or there is no map.

    References
    ----------
    Eitel and Ritter, Testing the robustness of attribution methods for convolutional neural networks in MRI-based
    Alzheimer's disease classification, 2019, section 3. Gain: Böhle et al., Layer-wise relevance propagation
    for explaining deep neural network decisions in MRI-based Alzheimer's disease classification, 2019.
    """
    if affine is not None and not _same_affine(np.asarray(affine), atlas.affine):
        raise ShapeError(
            f"maps with affine {np.asarray(affine).tolist()} and an atlas with affine {atlas.affine.tolist()} are not "
            "on the same grid; call atlas.on_grid(shape, affine) with those of the maps"
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


def _numbered(regions: list[str]) -> tuple[dict[int, str], np.ndarray]:
    """Index to name of the halves, and the indices (region, left or right), with a row of 0 for none at the end."""
    names: dict[int, str] = {}
    numbers = np.zeros((len(regions) + 1, 2), dtype=np.int32)
    for row, region in zip(numbers, regions, strict=False):
        for half, prefix in enumerate([""] if region in _MIDLINE else ["Left ", "Right "]):
            names[len(names) + 1] = prefix + region
            row[half:] = len(names)
    return names, numbers


def _nearest(points: Mapping[str, str], xyz: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rank of the region whose sphere is nearest to each position, and the distance to it, negative inside."""
    distance = np.full(len(xyz), np.inf)
    nearest = np.zeros(len(xyz), dtype=int)
    for index, text in enumerate(points.values()):
        for point in text.split(","):
            *centre, radius = map(float, point.split())
            own = np.linalg.norm(xyz - centre, axis=1) - radius
            nearest[own < distance] = index
            distance = np.minimum(distance, own)
    return nearest, distance


def _voxels(atlas: Atlas) -> tuple[np.ndarray, np.ndarray]:
    """Flat positions of the voxels in a region, and the rank of that region among the atlas's."""
    flat = atlas.labels.ravel()
    voxels = np.flatnonzero(flat)
    return voxels, np.searchsorted(list(atlas.names), flat[voxels])


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
            "(x, y, z), (n, x, y, z) or (n, 1, x, y, z): call atlas.on_grid(shape, affine) with those of the maps, "
            "and reduce their channels to one"
        )
    if not len(stack):
        raise DataError("there is no map: expected at least one patient's, and one of the controls")
    sums = np.empty((len(stack), len(atlas.names)))
    for index, values in enumerate(stack):
        if not np.isfinite(values).all():
            raise DataError(
                f"map {index + 1} of {len(stack)} has NaN or infinite values; the method that made it failed there"
            )
        inside = values.ravel()[voxels]
        weights = np.abs(inside) if absolute else inside
        sums[index] = np.bincount(region, weights, minlength=len(atlas.names))
    return sums


def _affine(values: np.ndarray) -> np.ndarray:
    affine = np.asarray(values, dtype=np.float64)
    if affine.shape != (4, 4) or not np.isfinite(affine).all() or np.linalg.det(affine) == 0:
        raise ShapeError(f"affine {affine.tolist()}: expected an invertible 4 x 4 matrix, in mm")
    return affine


def _same_affine(first: np.ndarray, second: np.ndarray) -> bool:
    return first.shape == second.shape and np.allclose(first, second, rtol=0, atol=1e-3)


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


def _side(name: str) -> tuple[str, str]:
    """``("l" or "r", name without it)``, or ``("", name)``."""
    before = re.fullmatch(rf"(ctx[-_]|wm[-_])?({_SIDES})[\s._-]+(.+)", name, re.IGNORECASE)
    after = re.fullmatch(rf"(.+?)(?:[\s._,-]+|\s*\()({_SIDES})\)?", name, re.IGNORECASE)
    if before:
        return before[2][0].lower(), (before[1] or "") + before[3]
    return (after[2][0].lower(), after[1]) if after else ("", name)


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


def read_names(path: Path) -> dict[int, str]:
    """Names of labels from a table, by index, without 0; in any form that `load_atlas` reads.

    Raises
    ------
    DataFileError
        If the file is missing, or no such table.
    """
    if not path.is_file():
        raise DataFileError(
            f"no table of region names at {path.name}: give a CSV, TSV, XML or text file with them"
        )
    data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    if text.lstrip().startswith("<"):
        rows = _xml_rows(path, data)
    else:
        rows = _text_rows([line for line in text.splitlines() if line.strip() and line.lstrip()[0] != "#"])
    table: dict[int, str] = {}
    for index, name in rows:
        if name and table.setdefault(index, name) != name:
            raise DataError(
                f"{path}: index {index} is named {table[index]!r} and {name!r}; correct the table"
            )
    if not table:
        raise DataFileError(
            f"{path}: no names of regions found; expected XML of SPM or FSL, a table with columns of indices and names "
            "such as index, name, or lines of an index and a name"
        )
    return {index: name for index, name in table.items() if index != 0}


def _xml_rows(path: Path, data: bytes) -> list[tuple[int, str]]:
    try:
        root = ElementTree.fromstring(data)
        entries = list(root.iter("label"))
        if entries and "index" in entries[0].attrib:  # FSL: the volumes of a probabilistic atlas count from 0
            kind = (root.findtext("header/type") or "").strip().lower()
            first = 0 if kind == "label" else 1
            return [(int(entry.attrib["index"]) + first, (entry.text or "").strip()) for entry in entries]
        return [
            (int(entry.findtext("index") or ""), (entry.findtext("name") or "").strip()) for entry in entries
        ]
    except (ElementTree.ParseError, ValueError) as error:
        raise DataFileError(
            f"{path}: damaged XML ({error}); expected labels with an index and a name"
        ) from None


def _text_rows(lines: list[str]) -> list[tuple[int, str]]:
    bare = [re.fullmatch(r"\s*(\d+)[\s,;]+(.+?)((?:[\s,;]+\d+){4})?\s*", line) for line in lines]
    if lines and bare[0]:  # ITK-SNAP writes the name last, in quotes
        quoted = [re.search(r'"(.+)"', line) for line in lines]
        return [
            (int(row[1]), end[1] if end else row[2]) for row, end in zip(bare, quoted, strict=True) if row
        ]
    sign = next((sign for sign in "\t,;" if lines and sign in lines[0]), " ")
    rows = list(csv.reader(io.StringIO("\n".join(lines)), delimiter=sign, skipinitialspace=True))
    columns = [re.sub("[^a-z]", "", title.lower()) for title in rows[0]] if rows else []
    rows = [row for row in rows[1:] if len(row) >= len(columns)]

    def pick(known: tuple[str, ...], numbers: bool) -> int | None:
        fitting = [
            column
            for column in range(len(columns))
            if rows and all(row[column].strip().lstrip("-").isdigit() for row in rows) == numbers
        ]
        return next((column for title in known for column in fitting if columns[column] == title), None)

    index, name = pick(_INDEX_COLUMNS, True), pick(_NAME_COLUMNS, False)
    if index is None or name is None:
        return []
    return [(int(row[index]), row[name].strip()) for row in rows]
