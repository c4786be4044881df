"""Sums and means of maps in the regions of an atlas, against nilearn's NiftiLabelsMasker.

Random maps of 91 x 109 x 91 and 130 regions of a brain. nilearn gets the absolute maps, in the way that suits it
best (all as one 4D image), and one map after the other, as maps come from files; a masker for the sums and one for
the means, fitted beforehand. Ours makes both in one call, and takes the absolute values itself. They run in turn in
this process, and their numbers are compared.

    python benchmarks/atlas.py
"""

from functools import partial

import nibabel
import numpy as np
from _harness import Bench, Size
from nilearn.datasets import load_mni152_brain_mask
from nilearn.image import resample_to_img
from nilearn.maskers import NiftiLabelsMasker
from scipy.spatial import cKDTree

from xaitools.atlas import Atlas, region_table

SHAPE, REGIONS = (91, 109, 91), 130
AFFINE = np.array([[2.0, 0, 0, -90], [0, 2, 0, -126], [0, 0, 2, -72], [0, 0, 0, 1]])


def example(n_maps):
    """Maps (n, x, y, z), and an atlas: the voxels of the brain by the nearest of 130 of them."""
    grid = nibabel.Nifti1Image(np.zeros(SHAPE, np.float32), AFFINE)
    mask = load_mni152_brain_mask(resolution=2)
    brain = resample_to_img(mask, grid, interpolation="nearest", force_resample=True, copy_header=True)
    voxels = np.argwhere(np.asarray(brain.dataobj) > 0)
    rng = np.random.default_rng(0)
    centres = rng.choice(voxels, REGIONS, replace=False)
    labels = np.zeros(SHAPE, dtype=np.int32)
    labels[tuple(voxels.T)] = 1 + cKDTree(centres).query(voxels)[1]
    names = {index: f"region {index}" for index in range(1, REGIONS + 1)}
    return rng.standard_normal((n_maps, *SHAPE), dtype=np.float32), Atlas(labels, AFFINE, names)


def masker(atlas, strategy):
    image = nibabel.Nifti1Image(atlas.labels.astype(np.int32), atlas.affine)
    return NiftiLabelsMasker(image, strategy=strategy, standardize=None, resampling_target=None).fit()


def by_nilearn(maskers, stacks):
    """Sums and means (n, regions)."""
    found = [[], []]
    for stack in stacks:
        image = nibabel.Nifti1Image(np.abs(np.moveaxis(stack, 0, -1)), AFFINE)
        for values, own in zip(found, maskers, strict=True):
            values.append(np.atleast_2d(own.transform(image)))
    return [np.concatenate(values) for values in found]


def ours(maps, atlas):
    table = region_table(maps, atlas, affine=AFFINE)
    return [table[column].to_numpy().reshape(len(maps), -1) for column in ("sum", "density")]


def difference(found, expected):
    return max(np.max(np.abs(a - b) / np.abs(b)) for a, b in zip(found, expected, strict=True))


def tables(bench):
    maps, atlas = example(bench.maps)
    maskers = [masker(atlas, strategy) for strategy in ("sum", "mean")]
    peers = {
        "nilearn, one 4D image": partial(by_nilearn, maskers, [maps]),
        "nilearn, map by map": partial(by_nilearn, maskers, maps[:, None]),
    }
    turns = bench.in_turn(peers | {"ours": partial(ours, maps, atlas)}, memory={})
    for peer in peers:
        off = difference(turns.results[peer], turns.results["ours"])
        assert off < 1e-5, off
        setting = f"{bench.maps} maps of {' x '.join(map(str, SHAPE))}, {REGIONS} regions"
        bench.ratio(turns, peer, setting=setting, agreement=f"{off:.0e}")


if __name__ == "__main__":
    Bench(__doc__, maps=Size(100, quick=2, help="maps")).run({"tables": tables})
