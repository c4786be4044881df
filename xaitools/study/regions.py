"""Regions of the brain that a study sums relevance over: those of an atlas, or of each brain's own label map."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from xaitools.atlas import Atlas, load_atlas, mni_regions, read_names, region_table, regions_touched
from xaitools.data import Volumes
from xaitools.errors import DataError, ParameterError
from xaitools.evaluation import recovered_regions
from xaitools.study.parallel import each
from xaitools.study.run import Run
from xaitools.study.run_maps import MeanMaps, stored_map
from xaitools.study.runs import Predicted

RegionTables = dict[str, pd.DataFrame]
"""By full name of the method, a row for each run (``map``, from 0) and region, with ``sum``, ``density``, ``gain``."""


@dataclass(frozen=True)
class Regions:
    """Where relevance is added up, left and right together.

    Attributes
    ----------
    source
        Where the regions come from, for reports.
    atlas
        One for all brains, on their grid; None if each brain has a label map of its own.
    label_names
        Names of the numbers in those label maps.
    """

    source: str
    atlas: Atlas | None = None
    label_names: Mapping[int, str] = field(default_factory=dict)

    def of_brain(self, samples: Volumes, position: int, labels: Sequence[int]) -> Atlas:
        """The regions of one brain; those of `labels` that it lacks have no voxel."""
        if self.atlas is not None:
            return self.atlas
        names = {label: self.label_names.get(label, f"label {label}") for label in labels}
        return Atlas(np.asarray(samples.label_map(position)), samples.affine, names).merge_hemispheres()


def brain_regions(
    samples: Volumes, atlas: str = "", names: str = "", *, folder: str = "", space: str = "mni"
) -> Regions:
    """Which regions: of the atlas that a user names, else of the brains' label maps, else a coarse atlas of ours.

    Parameters
    ----------
    samples
        The brains, on one grid.
    atlas
        File of labels; "mni" for `xaitools.atlas.mni_regions`; "" for label maps where there are some.
    names
        Table of the names; "" for the one beside the atlas, or ``dseg_labels.csv`` in `folder`.
    folder
        Where the brains come from.
    space
        "mni"; "centered" for heads as they were scanned, or "file", which no atlas of ours fits.

    Raises
    ------
    ParameterError
        If an atlas is named for heads as scanned.
    DataError
        If there are neither label maps nor a common space.
    DataFileError
        If a file is missing or no such table.
    """
    if atlas and space == "centered":
        raise ParameterError(
            "atlas with space='centered': heads as scanned do not lie in the space of an atlas; register them to MNI "
            "space and set space to mni, or leave atlas empty and give label_maps"
        )
    if not atlas and samples.label_maps is not None:
        own = samples.info.get("label_names")
        table = own or read_names(Path(names or Path(folder) / "dseg_labels.csv"))
        return Regions("the label map of each brain", label_names=table)
    if not atlas and space != "mni":
        raise DataError(
            "these brains have no label maps and are not in MNI space: give label_maps, or register them"
        )
    found = mni_regions() if atlas in ("", "mni") else load_atlas(atlas, names or None)
    common = found.on_grid(samples.shape, samples.affine, image=samples.images[0, 0]).merge_hemispheres()
    return Regions(common.source, common)


def check_top(k: int, regions: Regions, samples: Volumes) -> None:
    """Raise ParameterError unless k is 1 or more and leaves out at least one of the regions."""
    n_regions = len(regions.of_brain(samples, 0, labels_of(samples[[0]], regions)).names)
    if not 1 <= k < n_regions:
        raise ParameterError(f"k={k}: expected 1 or more of the {n_regions} regions, and fewer than all")


def labels_of(samples: Volumes, regions: Regions) -> list[int]:
    """Numbers of the regions that the label maps of these brains have; none where all share an atlas."""
    if regions.atlas is not None:
        return []
    return sorted({int(n) for i in range(len(samples)) for n in np.unique(samples.label_map(i))} - {0})


def tables_by_atlas(atlas: Atlas, positives: MeanMaps, negatives: MeanMaps) -> RegionTables:
    """Relevance by region of the mean maps of true positives, and its gain over those of true negatives."""
    return {
        name: region_table(own, atlas, controls=negatives[name], affine=atlas.affine)
        for name, own in tqdm(positives.items(), desc="regions")
    }


def tables_by_anatomy(
    regions: Regions, samples: Volumes, methods: Sequence[str], folder: Path, found: Predicted
) -> RegionTables:
    """Relevance by region, brain by brain in its own anatomy, then averaged over those that a run recognised.

    Parameters
    ----------
    regions
        Of label maps.
    samples, methods, folder, found
        As :func:`~xaitools.study.run_means` takes them.
    """
    labels = labels_of(samples, regions)
    calls = [(regions, samples, i, labels, methods, folder, found) for i in range(len(samples))]
    brains = pd.concat(each(_brain_table, calls, what="regions", unit="brain", progress=True))
    mean = brains.groupby(["method", "map", "region", "label"], sort=False)[["sum", "n_voxels"]].mean()
    mean = mean[mean["n_voxels"] > 0]
    patients, controls = (mean.xs(label, level="label") for label in (1, 0))
    density, gain = patients["sum"] / patients["n_voxels"], patients["sum"] / controls["sum"]
    table = patients.assign(density=density, gain=gain).reset_index()
    return {name: table[table["method"] == name].drop(columns="method") for name in methods}


def region_shares(tables: RegionTables, named: pd.DataFrame, measure: str) -> pd.DataFrame:
    """Mean and range over the runs of each region's relevance, for `plots.region_plot`.

    Parameters
    ----------
    tables
        As :func:`tables_by_atlas` returns them.
    named
        As :func:`~xaitools.study.method_table` returns it.
    measure
        "sum" or "density", in percent of all regions, or "gain", as it is.
    """
    rows = []
    for name, table in tables.items():
        finite = table[np.isfinite(table[measure])]
        whole = 1 if measure == "gain" else finite.groupby("map")[measure].transform("sum") / 100
        shares = finite.assign(share=finite[measure] / whole).groupby("region", sort=False)["share"]
        summary = shares.agg(value="mean", low="min", high="max").reset_index()
        rows.append(summary.assign(method=named.at[name, "label"]))
    return pd.concat(rows, ignore_index=True)


def region_sizes(tables: RegionTables) -> pd.Series:
    """Voxels of each region that has any, by name."""
    table = next(iter(tables.values())).query("map == 0 and n_voxels > 0")
    return table.set_index("region")["n_voxels"]


def known_regions(regions: Regions, samples: Volumes, sizes: pd.Series) -> list[str]:
    """Regions that are known to matter, as in synthetic brains; none if nobody knows.

    With label maps those that were changed; with an atlas those of which a tenth or more lies where most of the
    brains were.

    Parameters
    ----------
    regions
        Of the study.
    samples
        Brains with their masks.
    sizes
        As :func:`region_sizes` returns it.
    """
    if regions.atlas is None:
        return [name for name in sizes.index if name in samples.info.get("regions", ())]
    if samples.masks is None:
        return []
    truth = np.mean([samples.masks[i][0].numpy() for i in range(len(samples))], axis=0) > 0.5
    return [name for name in regions_touched(regions.atlas, truth) if name in sizes.index]


def recovered(
    run: Run, tables: RegionTables, known: Sequence[str], k: int, *, network: str
) -> dict[str, dict[str, np.ndarray]]:
    """How well the density of relevance finds the regions that are known to matter, run by run; means are recorded.

    Returns
    -------
    dict
        ``{"auc": {method: (runs,)}, "recall": {method: (runs,)}}``; empty if no region is known.
    """
    scores: dict[str, dict[str, np.ndarray]] = {}
    for name, table in tables.items() if known else ():
        own = recovered_regions(table, known, k, measure="density")
        for measure in ("auc", "recall"):
            values = scores.setdefault(measure, {})[name] = own[measure].to_numpy()
            metric = f"planted regions, {measure}"
            run.record(metric=metric, value=values.mean(), method=name, model=network, n=len(values))
    return scores


def recovered_table(
    scores: Mapping[str, Mapping[str, np.ndarray]], named: pd.DataFrame, k: int
) -> pd.DataFrame:
    """The scores of :func:`recovered` in words: mean and range of the AUC, and the share among the top k."""
    rows = [
        {
            "method": named.at[name, "label"],
            "AUC, mean over runs": f"{auc.mean():.2f}",
            "AUC, range": f"{auc.min():.2f} to {auc.max():.2f}",
            f"changed regions among the top {k}": f"{scores['recall'][name].mean():.0%}",
        }
        for name, auc in scores.get("auc", {}).items()
    ]
    return pd.DataFrame(rows)


def _brain_table(
    regions: Regions,
    samples: Volumes,
    position: int,
    labels: Sequence[int],
    methods: Sequence[str],
    folder: Path,
    found: Predicted,
) -> pd.DataFrame:
    """Regions of one brain by run and method, for the runs that recognised it."""
    atlas, label = regions.of_brain(samples, position, labels), samples.labels[position]
    tables = [pd.DataFrame()]
    for number, (name, classes) in enumerate(found.items()):
        if classes[position] == label:
            maps = [stored_map(folder, name, samples.names[position], method) for method in methods]
            table = region_table(np.stack(maps), atlas, affine=samples.affine)
            method = np.repeat(list(methods), len(atlas.names))
            tables.append(table.assign(method=method, map=number, label=int(label)))
    return pd.concat(tables)
