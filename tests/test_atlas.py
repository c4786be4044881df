import re
from types import SimpleNamespace

import nibabel
import numpy as np
import pandas as pd
import pytest
import torch

from xaitools.atlas import (
    Atlas,
    fetch_atlas,
    load_atlas,
    mni,
    mni_regions,
    read_names,
    region_table,
    regions_touched,
)
from xaitools.errors import DataError, DataFileError, ParameterError, ShapeError

AFFINE = np.array([[2.0, 0, 0, -7], [0, 2, 0, -9], [0, 0, 2, -5], [0, 0, 0, 1]])
NAMES = {3: "third", 255: "last of a byte", 2001: "beyond a byte", 70000: "beyond a short"}
SHAPE = (7, 6, 5)


def make_atlas(seed=0, names=NAMES, affine=AFFINE):
    rng = np.random.default_rng(seed)
    return Atlas(rng.choice([0, 0, *names], SHAPE).astype(np.int32), affine, names, source="random")


def save(path, labels, affine=AFFINE):
    nibabel.save(nibabel.Nifti1Image(labels, affine), path)
    return path


def in_regions(maps, labels, names, absolute=True):
    """Sums (n, regions) in float64, voxel by voxel, from the definition."""
    sums = np.zeros((len(maps), len(names)))
    for row, values in zip(sums, maps, strict=True):
        for voxel in np.ndindex(labels.shape):
            if labels[voxel] in names:
                value = float(values[voxel])
                row[sorted(names).index(labels[voxel])] += abs(value) if absolute else value
    return sums


def column(table, name, n):
    return table[name].to_numpy().reshape(n, -1)


# Region tables


@pytest.mark.parametrize("absolute", [True, False])
def test_agrees_with_the_definitions(absolute):
    atlas = make_atlas()
    rng = np.random.default_rng(1)
    maps, controls = rng.standard_normal((3, *SHAPE)).astype(np.float32), rng.standard_normal((5, *SHAPE))
    table = region_table(maps, atlas, absolute=absolute, controls=controls, affine=AFFINE)
    sums = in_regions(maps, atlas.labels, NAMES, absolute)
    sizes = np.array([(atlas.labels == index).sum() for index in sorted(NAMES)])
    reference = in_regions(controls, atlas.labels, NAMES, absolute).sum(axis=0) / 5
    np.testing.assert_allclose(column(table, "sum", 3), sums, rtol=1e-12)
    np.testing.assert_array_equal(column(table, "n_voxels", 3), np.tile(sizes, (3, 1)))
    np.testing.assert_allclose(column(table, "density", 3), sums / sizes, rtol=1e-12)
    np.testing.assert_allclose(column(table, "gain", 3), sums / reference, rtol=1e-12)


def test_the_table_is_tidy():
    table = region_table(np.ones((2, *SHAPE)), make_atlas())
    assert list(table.columns) == ["map", "region", "index", "n_voxels", "sum", "density"]
    assert table["map"].tolist() == [0] * 4 + [1] * 4
    assert table["index"].tolist() == [3, 255, 2001, 70000] * 2
    assert table["region"].tolist() == list(NAMES.values()) * 2
    assert (table["sum"] == table["n_voxels"]).all()
    assert (table["density"] == 1).all()


def test_sums_over_all_regions_are_the_sum_inside():
    atlas, maps = make_atlas(), np.random.default_rng(2).random((1, *SHAPE))
    assert region_table(maps, atlas)["sum"].sum() == pytest.approx(maps[0][atlas.labels > 0].sum(), rel=1e-12)


@pytest.mark.parametrize(
    "form",
    [
        lambda maps: maps[:, None],
        torch.from_numpy,
        lambda maps: torch.from_numpy(maps)[:, None].requires_grad_(),
        lambda maps: np.asfortranarray(maps),
        lambda maps: maps[:, ::-1][:, ::-1],
    ],
    ids=["with a channel", "tensor", "tensor with a gradient", "Fortran order", "a view"],
)
def test_every_form_of_the_maps_gives_the_same(form):
    maps = np.random.default_rng(3).standard_normal((2, *SHAPE)).astype(np.float32)
    pd.testing.assert_frame_equal(region_table(form(maps), make_atlas()), region_table(maps, make_atlas()))


def test_one_map_may_come_alone_and_in_bfloat16():
    values = torch.arange(np.prod(SHAPE)).reshape(SHAPE).remainder(7).to(torch.bfloat16)
    expected = in_regions(values.float().numpy()[None], make_atlas().labels, NAMES)
    np.testing.assert_array_equal(region_table(values, make_atlas())["sum"], expected[0])


def test_small_values_are_not_lost_beside_many():
    atlas = Atlas(np.ones((200, 200, 100), np.int32), AFFINE, {1: "all"})
    maps = np.full((200, 200, 100), 0.1, np.float32)
    assert region_table(maps, atlas)["sum"][0] == pytest.approx(4e6 * float(np.float32(0.1)), rel=1e-9)


def test_a_region_without_voxels_has_sum_0_and_no_density():
    atlas = make_atlas(names=NAMES)
    empty = Atlas(np.where(atlas.labels == 255, 0, atlas.labels), AFFINE, NAMES)
    row = region_table(np.ones(SHAPE), empty).set_index("index").loc[255]
    assert (row["n_voxels"], row["sum"]) == (0, 0)
    assert np.isnan(row["density"])


def test_gain_where_controls_have_nothing():
    atlas = Atlas(np.array([1, 2, 3]).reshape(3, 1, 1), AFFINE, {1: "a", 2: "b", 3: "c"})
    maps, controls = np.array([1.0, 0, 6]).reshape(3, 1, 1), np.array([0.0, 0, 2]).reshape(3, 1, 1)
    np.testing.assert_array_equal(region_table(maps, atlas, controls=controls)["gain"], [np.inf, np.nan, 3])


@pytest.mark.parametrize(
    ("maps", "options", "error", "message"),
    [
        (np.ones((2, 6, 7, 5)), {}, ShapeError, r"maps of shape \(2, 6, 7, 5\).*atlas.on_grid"),
        (np.ones((2, 3, *SHAPE)), {}, ShapeError, "reduce their channels to one"),
        (np.ones((7, 6)), {}, ShapeError, "not on the same grid"),
        (np.ones((0, *SHAPE)), {}, DataError, "there is no map"),
        (
            np.stack([np.ones(SHAPE), np.full(SHAPE, np.nan)]),
            {},
            DataError,
            "map 2 of 2 has NaN or infinite values",
        ),
        (
            np.ones(SHAPE),
            {"affine": np.diag([-2.0, 2, 2, 1])},
            ShapeError,
            "atlas with affine.*atlas.on_grid",
        ),
        (np.ones(SHAPE), {"affine": np.eye(3)}, ShapeError, "expected an invertible 4 x 4 matrix"),
        (np.ones(SHAPE), {"controls": np.ones((2, 2, 2))}, ShapeError, "not on the same grid"),
        (np.ones(SHAPE), {"controls": np.full(SHAPE, np.inf)}, DataError, "NaN or infinite"),
    ],
)
def test_maps_that_do_not_fit_are_refused(maps, options, error, message):
    with pytest.raises(error, match=message):
        region_table(maps, make_atlas(), **options)


# Grids


def test_regions_touched_by_a_mask():
    labels = np.zeros((4, 5, 6), dtype=np.int32)
    labels[0], labels[1], labels[2, 0, 0] = 3, 7, 9
    atlas = Atlas(labels, AFFINE, {3: "a", 7: "b", 9: "c", 11: "not here"})
    mask = np.zeros(labels.shape, dtype=bool)
    mask[0, :, 0] = mask[2, 0, 0] = True
    assert regions_touched(atlas, mask) == ["a", "c"]
    assert regions_touched(atlas, mask, share=0.2) == ["c"]
    mask[1, 0, :3] = True
    assert regions_touched(atlas, mask) == ["a", "b", "c"]
    with pytest.raises(ShapeError, match="expected one grid"):
        regions_touched(atlas, mask[1:])
    with pytest.raises(ParameterError, match="share=0"):
        regions_touched(atlas, mask, share=0)


def random_grid(seed):
    """Rotated by a quarter about each of two axes and mirrored: voxel centres coincide with those of the atlas."""
    atlas = make_atlas(seed)
    turned = nibabel.Nifti1Image(atlas.labels, AFFINE).as_reoriented(np.array([[2, -1], [0, 1], [1, -1]]))
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


# Hemispheres


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


# Files

SPM = """<?xml version="1.0" encoding="ISO-8859-1"?><atlas><data>
<label><index>1</index><name>Left A</name></label><label><index>300</index><name>Ré B </name></label></data></atlas>"""
FSL = """<?xml version="1.0" encoding="ISO-8859-1"?><atlas><header><type>{}</type></header><data>
<label index="{}" x="48" y="94" z="35">Left A</label><label index="{}" x="1" y="1" z="1">Ré B</label></data></atlas>"""
TABLES = {
    "spm.xml": SPM,
    "fsl_labels.xml": FSL.format("Label", 1, 300),
    "fsl_maxprob.xml": FSL.format("Probabalistic", 0, 299),
    "bids.tsv": "index\tname\tcolor\n0\tBackground\t#000000\n1\tLeft A\t#ff0000\n300\tRé B\t#00ff00\n",
    "aal2.tsv": "roi_value\troi_name\n0\tBackground\n1\tLeft A \n300\tRé B\n",
    "muse.csv": "Index,Code,Name\n1,MUSE_1,Left A\n300,MUSE_300,Ré B\n702,MUSE_702,ICV\n",
    "labels.csv": '"Label";"Region"\n1;"Left A"\n300;"Ré B"\n',
    "name_first.csv": "region,id\nLeft A,1\nRé B,300\n",
    "label_is_name.csv": 'value,label\n1,"Left A"\n300,"Ré B"\n',
    "freesurfer.txt": "#No. Label Name: R G B A\n\n0  Unknown  0 0 0 0\n1  Left A  70 130 180 0\n300  Ré B  1 2 3 0\n",
    "bare.txt": "1 Left A\n300 Ré B\n",
    "bare.csv": "1,Left A\n300,Ré B\n",
    "itksnap.label": '# ITK\n0 0 0 0 0 0 0 "Clear"\n1 255 0 0 1 1 1 "Left A"\n300 0 255 0 1 1 1 "Ré B"\n',
}


def two_regions(folder, name="labels.nii.gz"):
    return save(folder / name, np.array([0, 1, 300, 1], np.int16).reshape(4, 1, 1))


@pytest.mark.parametrize(
    ("name", "encoding"),
    [
        (name, encoding)
        for name in TABLES
        for encoding in (("latin-1",) if name.endswith("xml") else ("utf-8", "latin-1", "utf-8-sig"))
    ],
)
def test_tables_of_names_are_recognised_by_their_content(name, encoding, tmp_path):
    if name.endswith("xml") and encoding != "latin-1":
        pytest.skip("XML says its own encoding")
    path = tmp_path / "names"
    path.write_bytes(TABLES[name].encode(encoding))
    atlas = load_atlas(two_regions(tmp_path), path)
    assert atlas.names == {1: "Left A", 300: "Ré B"}
    assert atlas.labels.ravel().tolist() == [0, 1, 300, 1]
    assert atlas.labels.dtype == np.int32
    np.testing.assert_array_equal(atlas.affine, AFFINE)
    assert atlas.source == "labels.nii.gz"


@pytest.mark.parametrize("suffix", ["xml", "tsv", "csv", "txt"])
def test_the_table_beside_the_volume_is_found(suffix, tmp_path):
    (tmp_path / f"labels.{suffix}").write_text("1 Left A\n300 B\n")
    assert load_atlas(two_regions(tmp_path)).names == {1: "Left A", 300: "B"}
    with pytest.raises(DataFileError, match=r"no table of names beside it, such as other.tsv"):
        load_atlas(two_regions(tmp_path, "other.nii"))


def test_numbers_in_names_are_kept(tmp_path):
    (tmp_path / "names.txt").write_text("1 Vermis 3\n300 3rd Ventricle\n")
    assert load_atlas(two_regions(tmp_path), tmp_path / "names.txt").names == {
        1: "Vermis 3",
        300: "3rd Ventricle",
    }


def test_labels_without_a_name_are_called_by_their_number(tmp_path, caplog):
    atlas = load_atlas(two_regions(tmp_path), {1: "A", 5: "not in the volume"})
    assert atlas.names == {1: "A", 300: "label 300"}
    assert "labels [300] have no name" in caplog.text


def test_float_volumes_of_whole_numbers_with_a_fourth_axis_are_read(tmp_path):
    path = save(tmp_path / "labels.nii", np.array([0.0, 70000, 1], np.float32).reshape(3, 1, 1, 1))
    assert load_atlas(path, {1: "a", 70000: "b"}).labels.ravel().tolist() == [0, 70000, 1]


@pytest.mark.parametrize(
    ("array", "error", "message"),
    [
        (np.full((2, 2, 2), 0.5, np.float32), DataError, "not whole numbers"),
        (np.full((2, 2, 2), np.nan, np.float32), DataError, "not whole numbers"),
        (np.ones((2, 2, 2, 3), np.int16), DataError, "maximum-probability version"),
        (
            np.full((2, 2, 2), 5, np.int16),
            DataError,
            "1 of its 1 labels have no name, 5 first.*another atlas",
        ),
        (np.zeros((2, 2, 2), np.int16), DataError, "no region"),
    ],
)
def test_volumes_that_are_no_labels_are_refused(array, error, message, tmp_path):
    with pytest.raises(error, match=message):
        load_atlas(save(tmp_path / "labels.nii", array), {1: "a"})


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("", DataFileError, "no names of regions found"),
        ("colour,size\nred,1\n", DataFileError, "no names of regions found"),
        ("index,name\n", DataFileError, "no names of regions found"),
        ("<atlas><data><label>", DataFileError, "damaged XML"),
        ("<atlas><label><name>A</name></label></atlas>", DataFileError, "damaged XML"),
        ("1 A\n1 B\n", DataError, "index 1 is named 'A' and 'B'"),
        ("1 A\n300 A\n", DataError, "indices 1 and 300 are both named 'A'"),
    ],
)
def test_tables_that_name_nothing_are_refused(text, error, message, tmp_path):
    (tmp_path / "names").write_text(text)
    with pytest.raises(error, match=message):
        load_atlas(two_regions(tmp_path), tmp_path / "names")


def test_missing_and_truncated_files_are_reported(tmp_path):
    path = save(
        tmp_path / "labels.nii.gz", np.random.default_rng(0).integers(0, 9, (20, 20, 20)).astype(np.int16)
    )
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(DataFileError, match=r"labels.nii.gz: .* truncated, damaged or of another form"):
        load_atlas(path, {1: "a"})
    (tmp_path / "text.nii").write_text("no NIfTI")
    with pytest.raises(DataFileError, match=r"text.nii: .* truncated, damaged or of another form"):
        load_atlas(tmp_path / "text.nii", {1: "a"})
    with pytest.raises(DataFileError, match=r"nothing.nii: no such file; check the folder"):
        load_atlas(tmp_path / "nothing.nii", {1: "a"})
    with pytest.raises(DataFileError, match="no such file; give the table"):
        load_atlas(two_regions(tmp_path), tmp_path / "nothing.tsv")


# nilearn


def test_fetches_with_nilearn(monkeypatch, tmp_path):
    asked = {}

    def fetch(**options):
        asked.update(options)
        lut = pd.DataFrame({"index": [0, 1, 300], "name": ["Background", "A", "B"]})
        return SimpleNamespace(maps=str(two_regions(tmp_path)), lut=lut)

    monkeypatch.setattr("nilearn.datasets.fetch_atlas_harvard_oxford", fetch)
    atlas = fetch_atlas("harvard_oxford", atlas_name="cort-maxprob-thr25-2mm")
    assert asked == {"atlas_name": "cort-maxprob-thr25-2mm"}
    assert atlas.names == {1: "A", 300: "B"}
    assert atlas.source == "nilearn: harvard_oxford"
    image = nibabel.load(two_regions(tmp_path))
    lut = pd.DataFrame({"index": [1, 300], "name": ["A", "B"]})
    monkeypatch.setattr("nilearn.datasets.fetch_atlas_aal", lambda: SimpleNamespace(maps=image, lut=lut))
    np.testing.assert_array_equal(fetch_atlas("aal").labels, atlas.labels)


@pytest.mark.parametrize("fetched", [{"maps": "a.nii", "lut": None}, {"maps": ["left", "right"], "lut": 1}])
def test_other_atlases_of_nilearn_are_refused(monkeypatch, fetched):
    monkeypatch.setattr("nilearn.datasets.fetch_atlas_msdl", lambda: SimpleNamespace(**fetched))
    with pytest.raises(DataError, match=r"'msdl'.*not a volume of labels.*deterministic"):
        fetch_atlas("msdl")
    with pytest.raises(
        ParameterError, match=r"name='msld' is unknown; expected one of .*Did you mean 'msdl'"
    ):
        fetch_atlas("msld")


# The atlas of our own


@pytest.fixture(scope="module")
def own():
    return mni_regions()


def centre(atlas, index):
    return nibabel.affines.apply_affine(atlas.affine, np.argwhere(atlas.labels == index)).mean(axis=0)


def test_our_regions_cover_the_grey_matter(own):
    from nilearn.datasets import load_mni152_gm_template

    grey = load_mni152_gm_template(resolution=2)
    np.testing.assert_array_equal(grey.affine, own.affine)
    assert (own.labels[grey.get_fdata() > 0.5] > 0).mean() > 0.995
    assert region_table(np.ones(own.labels.shape), own)["n_voxels"].min() > 50


def test_our_regions_are_mirrored(own):
    off_midline = own.labels[np.arange(99) != 49]
    merged = own.merge_hemispheres()
    assert len(merged.names) == 38
    mirrored = merged.labels[np.arange(99) != 49]
    assert (mirrored == mirrored[::-1]).mean() > 0.999
    names = {name: index for index, name in own.names.items()}
    for name, index in names.items():
        if name.startswith("Left "):
            right = (off_midline == names["Right " + name[5:]]).sum()
            assert (off_midline == index).sum() == pytest.approx(right, rel=0.02)
            assert centre(own, index)[0] < 0


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("Left Hippocampus", (-25, -21, -10)),
        ("Right Amygdala", (27, 1, -18)),
        ("Left Thalamus", (-11, -18, 8)),
        ("Right Putamen", (28, 5, 2)),
        ("Left Caudate", (-11, 11, 9)),
        ("Right Pallidum", (21, 0, 0)),
        ("Left Insula", (-35, 7, 3)),
    ],
)
def test_our_nuclei_lie_where_the_aal_publication_has_them(own, name, place):
    index = next(index for index, other in own.names.items() if other == name)
    assert np.linalg.norm(centre(own, index) - place) < 8


# Real data

AAL_CENTRES = {
    "Precentral": "Precentral Gyrus",
    "Frontal_Inf_Oper": "Inferior Frontal Gyrus",
    "Frontal_Inf_Tri": "Inferior Frontal Gyrus",
    "Frontal_Sup_Medial": "Superior Frontal Gyrus",
    "Supp_Motor_Area": "Superior Frontal Gyrus",
    "Rectus": "Orbitofrontal Cortex",
    "Rolandic_Oper": "Rolandic Operculum",
    "Insula": "Insula",
    "Cingulate_Ant": "Anterior Cingulate",
    "Cingulate_Mid": "Middle Cingulate",
    "Cingulate_Post": "Posterior Cingulate",
    "Postcentral": "Postcentral Gyrus",
    "Parietal_Sup": "Superior Parietal Lobule",
    "SupraMarginal": "Supramarginal Gyrus",
    "Angular": "Angular Gyrus",
    "Precuneus": "Precuneus",
    "Occipital_Mid": "Lateral Occipital Cortex",
    "Occipital_Inf": "Lateral Occipital Cortex",
    "Occipital_Sup": "Lateral Occipital Cortex",
    "Calcarine": "Medial Occipital Cortex",
    "Cuneus": "Medial Occipital Cortex",
    "Lingual": "Medial Occipital Cortex",
    "Fusiform": "Fusiform Gyrus",
    "ParaHippocampal": "Parahippocampal Gyrus",
    "Temporal_Sup": "Superior Temporal Gyrus",
    "Temporal_Mid": "Middle Temporal Gyrus",
    "Temporal_Inf": "Inferior Temporal Gyrus",
    "Temporal_Pole_Sup": "Temporal Pole",
    "Temporal_Pole_Mid": "Temporal Pole",
    "Thalamus": "Thalamus",
}
AAL_PARTS = {
    "Precentral Gyrus": ("Precentral", "Paracentral"),
    "Superior Frontal Gyrus": ("Frontal_Sup", "Supp_Motor"),
    "Middle Frontal Gyrus": ("Frontal_Mid",),
    "Inferior Frontal Gyrus": ("Frontal_Inf",),
    "Orbitofrontal Cortex": ("OFC", "Rectus", "Frontal_Inf_Orb", "Frontal_Med_Orb", "Frontal_Mid"),
    "Insula": ("Insula",),
    "Middle Cingulate": ("Cingulate_Mid",),
    "Postcentral Gyrus": ("Postcentral",),
    "Precuneus": ("Precuneus",),
    "Fusiform Gyrus": ("Fusiform",),
    "Parahippocampal Gyrus": ("ParaHippocampal", "Hippocampus"),
    "Superior Temporal Gyrus": ("Temporal_Sup",),
    "Middle Temporal Gyrus": ("Temporal_Mid",),
    "Inferior Temporal Gyrus": ("Temporal_Inf",),
}


@pytest.fixture(scope="module")
def neuromorphometrics(real_data):
    return load_atlas(real_data / "atlases/neuromorphometrics_spm12/labels_Neuromorphometrics.nii.gz")


@pytest.fixture(scope="module")
def aal2(real_data):
    return load_atlas(real_data / "atlases/aal2_clinica/atlas-AAL2_dseg.nii.gz")


def test_real_atlases(neuromorphometrics, aal2, caplog):
    caplog.set_level("INFO", "xaitools")
    assert len(neuromorphometrics.names) == 136
    assert len(aal2.names) == 120
    assert aal2.names[9001] == "Cerebelum_Crus1_L"
    merged = neuromorphometrics.merge_hemispheres()
    assert len(merged.names) == 72
    assert {"Hippocampus", "3rd Ventricle", "Ent entorhinal area"} <= set(merged.names.values())
    assert not caplog.records
    assert len(aal2.merge_hemispheres().names) == 66
    assert [record.getMessage().split()[0] for record in caplog.records] == [
        "FCmed_L",
        "OFCmed_R",
        "OFCpost_L",
        "CFCpost_R",
    ]


def test_real_atlases_of_one_shape_are_mirrored_and_told_apart(neuromorphometrics, aal2):
    assert neuromorphometrics.labels.shape == aal2.labels.shape
    maps = np.ones(aal2.labels.shape, np.float32)
    with pytest.raises(ShapeError, match="not on the same grid"):
        region_table(maps, neuromorphometrics, affine=aal2.affine)
    moved = neuromorphometrics.on_grid(aal2.labels.shape, aal2.affine)
    np.testing.assert_array_equal(moved.labels, neuromorphometrics.labels[::-1])
    for left, right in (("Left Hippocampus", "Hippocampus_L"), ("Right Putamen", "Putamen_R")):
        ours = moved.labels == next(index for index, name in moved.names.items() if name == left)
        theirs = aal2.labels == next(index for index, name in aal2.names.items() if name == right)
        assert 2 * (ours & theirs).sum() / (ours.sum() + theirs.sum()) > 0.6


def test_real_segmentation_of_a_subject(real_data, caplog):
    path = sorted((real_data / "ixi/dseg").glob("*.nii.gz"))[0]
    atlas = load_atlas(path, real_data / "ixi/dseg_labels.csv")
    assert len(atlas.names) == 148
    assert "labels [46, 69] have no name" in caplog.text
    head = nibabel.load(next((real_data / "ixi/t1").glob(f"{path.name.split('_T1')[0]}*")))
    maps = head.get_fdata(dtype=np.float32)
    table = region_table(maps, atlas.merge_hemispheres(), affine=head.affine).set_index("region")
    assert (
        table.loc["Frontal_WM", "density"]
        > table.loc["Hippocampus", "density"]
        > table.loc["CortCSF", "density"]
    )
    assert 4 < table.loc["Hippocampus", "n_voxels"] * 0.008 < 12


def test_our_published_centres_are_those_of_the_aal_regions(aal2):
    """AAL2 keeps most regions of AAL, moved by 2 mm towards another version of the template."""
    ours = {name: [point.split()[:3] for point in text.split(",")] for name, text in mni.CORTEX.items()}
    ours |= {name: [point.split()[:3] for point in text.split(",")] for name, text in mni.INNER.items()}
    for name, region in AAL_CENTRES.items():
        index = next(index for index, other in aal2.names.items() if other == f"{name}_L")
        offsets = np.array(ours[region], dtype=float) - centre(aal2, index)
        assert np.linalg.norm(offsets - [0, 1.3, 1.5], axis=1).min() < 2, name


def test_most_of_our_points_lie_in_the_region_they_stand_for(aal2):
    inverse = np.linalg.inv(aal2.affine)
    for name, parts in AAL_PARTS.items():
        for point in mni.CORTEX[name].split(","):
            *place, _ = map(float, point.split())
            voxel = np.round(nibabel.affines.apply_affine(inverse, place)).astype(int)
            near = aal2.labels[tuple(slice(n - 2, n + 3) for n in voxel)]
            assert any(aal2.names[n].startswith(parts) for n in np.unique(near[near > 0])), (name, place)


@pytest.mark.parametrize(
    ("name", "dice"),
    [("Hippocampus", 0.55), ("Thalamus", 0.7), ("Putamen", 0.65), ("Lateral Ventricle", 0.6)],
)
def test_our_regions_overlap_with_real_ones(own, neuromorphometrics, name, dice):
    real = neuromorphometrics.on_grid(own.labels.shape, own.affine)
    for side in ("Left", "Right"):
        full = f"{side} {name}{' Proper' if name == 'Thalamus' else ''}"
        theirs = real.labels == next(index for index, other in real.names.items() if other == full)
        ours = own.labels == next(index for index, other in own.names.items() if other == f"{side} {name}")
        assert 2 * (ours & theirs).sum() / (ours.sum() + theirs.sum()) > dice


def test_a_table_of_names_that_is_not_there(tmp_path):
    with pytest.raises(DataFileError, match=r"no table of region names at dseg_labels\.csv"):
        read_names(tmp_path / "dseg_labels.csv")
