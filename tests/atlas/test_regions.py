import re

import nibabel
import numpy as np
import pandas as pd
import pytest
import torch
from nilearn.datasets import load_mni152_template

from xaitools.atlas import Atlas, load_atlas, region_table
from xaitools.data.grids import Grid, mni_grid
from xaitools.data.resampling import resample
from xaitools.errors import DataError, DataFileError, ParameterError, ShapeError

AFFINE = np.array([[2.0, 0, 0, -7], [0, 2, 0, -9], [0, 0, 2, -5], [0, 0, 0, 1]])
NAMES = {3: "third", 255: "last of a byte", 2001: "beyond a byte", 70000: "beyond a short"}
SHAPE = (7, 6, 5)


def make_atlas(seed=0, names=NAMES, affine=AFFINE):
    rng = np.random.default_rng(seed)
    return Atlas(rng.choice([0, 0, *names], SHAPE).astype(np.int32), affine, names, source="random")


def random_grid(seed):
    """Rotated by a quarter about each of two axes and mirrored: voxel centres coincide with those of the atlas."""
    atlas = make_atlas(seed)
    turned = nibabel.Nifti1Image(atlas.labels.astype(np.int32), AFFINE).as_reoriented(
        np.array([[2, -1], [0, 1], [1, -1]])
    )
    return atlas, turned


def test_a_mirrored_and_turned_grid_gets_the_same_labels_in_space():
    atlas, turned = random_grid(4)
    moved = atlas.on_grid(turned.shape, turned.affine)
    np.testing.assert_array_equal(moved.labels, turned.get_fdata())
    assert moved.names == atlas.names
    assert moved.source == "random"
    back = moved.on_grid(SHAPE, AFFINE)
    np.testing.assert_array_equal(back.labels, atlas.labels)


def test_tables_do_not_depend_on_the_grid_of_the_storage():
    atlas, turned = random_grid(5)
    maps = np.random.default_rng(6).random(SHAPE)
    map_turned = nibabel.Nifti1Image(maps, AFFINE).as_reoriented(np.array([[2, -1], [0, 1], [1, -1]]))
    moved = atlas.on_grid(turned.shape, turned.affine)
    table = region_table(map_turned.get_fdata(), moved, affine=map_turned.affine)
    pd.testing.assert_frame_equal(table, region_table(maps, atlas))


def test_oblique_grid_takes_the_nearest_voxel():
    atlas = make_atlas(7)
    angle = 0.3
    rotation = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = 1.3 * rotation, [-3.1, -4.2, -4.1]
    moved = atlas.on_grid((6, 5, 4), affine)
    for voxel in np.ndindex(6, 5, 4):
        place = np.linalg.solve(AFFINE, affine @ [*voxel, 1])[:3]
        nearest = np.round(place).astype(int)
        inside = (place >= 0).all() and (place <= np.subtract(SHAPE, 1)).all()
        assert moved.labels[voxel] == (atlas.labels[tuple(nearest)] if inside else 0)
    assert (moved.labels > 0).mean() > 0.2


def test_regions_that_vanish_between_voxels_stay_in_the_table():
    labels = np.ones((8, 8, 8), np.int32)
    labels[3, 3, 3] = 900
    coarse = Atlas(labels, np.eye(4), {1: "rest", 900: "tiny"}).on_grid((2, 2, 2), np.diag([4.0, 4, 4, 1]))
    assert region_table(np.ones((2, 2, 2)), coarse)["n_voxels"].tolist() == [8, 0]


@pytest.mark.parametrize(
    ("shape", "affine", "error", "message"),
    [
        (
            SHAPE,
            np.diag([2.0, 2, 2, 1]) + 1000 * np.eye(4, k=3),
            DataError,
            "no region of the atlas 'random' lies on",
        ),
        ((2, *SHAPE), AFFINE, ShapeError, "expected three axes"),
        (SHAPE, np.zeros((4, 4)), ShapeError, "expected an invertible 4 x 4 matrix"),
        (SHAPE, np.eye(3), ShapeError, "expected an invertible 4 x 4 matrix"),
    ],
)
def test_grids_that_cannot_be_are_refused(shape, affine, error, message):
    with pytest.raises(error, match=message):
        make_atlas().on_grid(shape, affine)


@pytest.mark.parametrize(
    ("labels", "names", "error", "message"),
    [
        (np.ones((2, 2), np.int32), {1: "a"}, ShapeError, "expected three axes"),
        (np.ones((2, 2, 2), np.int32), {}, DataError, "no region"),
        (np.zeros((2, 2, 2), np.int32), {1: "a"}, DataError, "no region: its volume is all 0"),
        (np.full((2, 2, 2), 4, np.int32), {1: "a"}, DataError, r"labels \[4\] of the volume have no name"),
        (np.ones((2, 2, 2), np.int32), {1: "a", 7: "a"}, DataError, "indices 1 and 7 are both named 'a'"),
        (np.ones((2, 2, 2), np.int32), {0: "zero", 1: "a"}, DataError, "0 is what lies outside"),
    ],
)
def test_an_atlas_is_consistent(labels, names, error, message):
    with pytest.raises(error, match=message):
        Atlas(labels, AFFINE, names)


@pytest.mark.parametrize(
    ("left", "right", "both"),
    [
        ("Left Hippocampus", "Right Hippocampus", "Hippocampus"),
        ("Left-Thalamus-Proper", "Right-Thalamus-Proper", "Thalamus-Proper"),
        ("Hippocampus_L", "Hippocampus_R", "Hippocampus"),
        ("hippocampus left", "hippocampus right", "hippocampus"),
        ("Insula (left)", "Insula (right)", "Insula"),
        ("Insula, LH", "Insula, RH", "Insula"),
        ("lh.insula", "rh.insula", "insula"),
        ("L G_front_sup", "R G_front_sup", "G_front_sup"),
        ("ctx-lh-fusiform", "ctx-rh-fusiform", "ctx-fusiform"),
        ("wm_lh_fusiform", "wm_rh_fusiform", "wm_fusiform"),
    ],
)
def test_halves_are_merged(left, right, both):
    labels = np.array([4, 2, 9, 0, 4]).reshape(5, 1, 1)
    merged = Atlas(labels, AFFINE, {4: left, 2: right, 9: "Brain Stem"}).merge_hemispheres()
    assert merged.names == {2: both, 9: "Brain Stem"}
    assert merged.labels.ravel().tolist() == [2, 2, 9, 0, 2]


@pytest.mark.parametrize(
    "names",
    [
        ["Left Hippocampus", "Brain Stem"],
        ["FCmed_L", "OFCmed_R"],
        ["Vermis_1_2", "Corpus callosum"],
        ["Leftover", "Rightover"],
        ["7Networks_LH_Vis_1", "7Networks_RH_Vis_1"],
        ["Left X", "X_L", "Right X"],
    ],
)
def test_what_is_no_pair_stays(names, caplog):
    caplog.set_level("INFO", "xaitools")
    table = dict(enumerate(names, 1))
    atlas = Atlas(np.arange(len(names) + 1).reshape(-1, 1, 1), AFFINE, table).merge_hemispheres()
    assert atlas.names == table
    sided = [name for name in names if re.search(r"^Left |_[LR]$|^Right ", name)]
    assert [record.getMessage().split(" is not one half")[0] for record in caplog.records] == sided


def test_merged_sums_are_the_sums_of_the_halves():
    names = {1: "Left A", 2: "Right A", 300: "B_R", 40: "B_L"}
    atlas, maps = make_atlas(8, names), np.random.default_rng(9).random((2, *SHAPE))
    halves = region_table(maps, atlas).set_index(["map", "index"])["sum"].unstack()
    merged = region_table(maps, atlas.merge_hemispheres()).set_index(["map", "index"])["sum"].unstack()
    np.testing.assert_allclose(merged[1], halves[1] + halves[2])
    np.testing.assert_allclose(merged[40], halves[40] + halves[300])


def native_and_registered():
    """A head as MNI space has it, and the same one moved and turned as a scanner might have it, on one grid."""
    template = load_mni152_template(resolution=4)
    grid = Grid(template.shape, template.affine)
    angle = 0.4
    moved = np.eye(4)
    moved[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    moved[:3, 3] = [12, 20, -10]
    registered = np.asarray(template.dataobj, dtype=np.float32)
    return grid, registered, resample(registered, Grid(grid.shape, moved @ grid.affine), grid)


def test_an_atlas_in_mni_space_warns_of_an_image_that_is_not(caplog):
    grid, registered, native = native_and_registered()
    atlas = Atlas(np.ones((46, 55, 46), int), mni_grid(4).affine, {1: "all"}, source="whole", space="mni")
    moved = atlas.on_grid(grid.shape, grid.affine, image=registered)
    assert not caplog.records
    with_native = atlas.on_grid(grid.shape, grid.affine, image=torch.from_numpy(native))
    assert "do not look like brains in MNI space" in caplog.text
    np.testing.assert_array_equal(with_native.labels, moved.labels)
    caplog.clear()
    atlas.on_grid(grid.shape, grid.affine)
    assert "the atlas 'whole' is in MNI space; nothing tells whether the image" in caplog.text
    caplog.clear()
    for known in (mni_grid(3), atlas.grid.turned("LPS")):
        atlas.on_grid(known.shape, known.affine)
    own = Atlas(atlas.labels, atlas.affine, atlas.names)  # of one subject
    own.on_grid(grid.shape, grid.affine)
    assert not caplog.records


def test_an_atlas_in_mni_space_refuses_an_image_that_is_elsewhere():
    grid, registered, _ = native_and_registered()
    atlas = Atlas(np.ones((46, 55, 46), int), mni_grid(4).affine, {1: "all"}, space="mni")
    with pytest.raises(DataFileError, match=r"the image: signal in .* of the brain of MNI space"):
        atlas.on_grid(
            grid.shape,
            grid.affine,
            image=np.roll(registered, 25, axis=2) * (np.arange(registered.shape[2]) > 30),
        )
    with pytest.raises(ShapeError, match="an image of shape"):
        atlas.on_grid(grid.shape, grid.affine, image=registered[1:])


def test_large_labels_are_kept_apart_from_file_to_table(tmp_path):
    labels = np.zeros((4, 4, 4), np.int32)
    labels[:2], labels[2:] = 312782560, 312782564  # of the Allen brain atlas; one float32
    assert np.float32(312782560) == np.float32(312782564)
    nibabel.save(nibabel.Nifti1Image(labels, np.eye(4)), tmp_path / "a.nii")
    atlas = load_atlas(tmp_path / "a.nii", {312782560: "one", 312782564: "other"}, space="own")
    half = np.eye(4)
    half[:3, :3] /= 2
    for moved, least in ((atlas, 32), (atlas.on_grid((7, 7, 7), half), 3 * 49)):
        table = region_table(np.ones(moved.labels.shape), moved)
        assert table["index"].tolist() == [312782560, 312782564]
        sizes = [int((moved.labels == index).sum()) for index in table["index"]]
        assert table["n_voxels"].tolist() == sizes
        assert min(sizes) >= least
    merged = load_atlas(
        tmp_path / "a.nii", {312782560: "x_L", 312782564: "x_R"}, space="own"
    ).merge_hemispheres()
    assert merged.names == {312782560: "x"}
    assert (merged.labels == 312782560).all()


def test_the_space_of_an_atlas_comes_from_its_header(tmp_path):
    for code, space in ((1, "own"), (2, "mni"), (4, "mni")):
        image = nibabel.Nifti1Image(np.ones((3, 3, 3), np.int16), np.eye(4))
        image.set_sform(np.eye(4), code)
        nibabel.save(image, tmp_path / "a.nii")
        assert load_atlas(tmp_path / "a.nii", {1: "a"}).space == space
    assert load_atlas(tmp_path / "a.nii", {1: "a"}, space="own").space == "own"
    with pytest.raises(ParameterError, match="space='talairach' is unknown; expected one of"):
        load_atlas(tmp_path / "a.nii", {1: "a"}, space="talairach")
