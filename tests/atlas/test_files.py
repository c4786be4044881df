from types import SimpleNamespace

import nibabel
import numpy as np
import pandas as pd
import pytest

from xaitools.atlas import fetch_atlas, load_atlas, read_names, region_table
from xaitools.errors import DataError, DataFileError, ParameterError, ShapeError

AFFINE = np.array([[2.0, 0, 0, -7], [0, 2, 0, -9], [0, 0, 2, -5], [0, 0, 0, 1]])


def save(path, labels, affine=AFFINE):
    nibabel.save(nibabel.Nifti1Image(labels, affine), path)
    return path


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
    assert atlas.labels.dtype == np.int64
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


def test_a_table_of_names_that_is_not_there(tmp_path):
    with pytest.raises(DataFileError, match=r"no table of region names at dseg_labels\.csv"):
        read_names(tmp_path / "dseg_labels.csv")


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


@pytest.mark.parametrize(
    ("sform", "qform", "space"),
    [(1, 1, "own"), (0, 1, "own"), (2, 1, "mni"), (2, 0, "mni"), (4, 1, "mni"), (0, 4, "mni")],
)
def test_the_header_tells_the_space(sform, qform, space, tmp_path):
    path = with_codes(tmp_path, sform, qform)
    assert load_atlas(path, {1: "A", 300: "B"}).space == space


@pytest.mark.parametrize(
    ("sform", "qform", "words"), [(3, 1, "Talairach"), (0, 3, "Talairach"), (5, 4, "not MNI152")]
)
def test_an_atlas_of_another_template_is_not_taken_for_one_in_mni_space(sform, qform, words, tmp_path):
    path = with_codes(tmp_path, sform, qform)
    with pytest.raises(
        DataError, match=rf"labels\.nii\.gz: .*{words}.*expected an atlas in MNI space.*space='own'"
    ):
        load_atlas(path, {1: "A", 300: "B"})
    for space in ("mni", "own"):
        assert load_atlas(path, {1: "A", 300: "B"}, space=space).space == space


def test_nilearns_talairach_atlas_is_refused(tmp_path, monkeypatch):
    lut = pd.DataFrame({"index": [0, 1, 300], "name": ["Background", "Left A", "Ré B"]})
    fetched = SimpleNamespace(maps=str(two_regions(tmp_path)), lut=lut, template="Talairach")
    monkeypatch.setattr("nilearn.datasets.fetch_atlas_talairach", lambda level_name: fetched)
    with pytest.raises(DataError, match=r"'talairach' of nilearn: .*coordinates of Talairach"):
        fetch_atlas("talairach", level_name="gyrus")


def with_codes(folder, sform, qform):
    """Labels in whose header two matrices of one grid have these codes."""
    image = nibabel.Nifti1Image(np.array([0, 1, 300, 1], np.int16).reshape(4, 1, 1), AFFINE)
    image.set_sform(AFFINE, sform)
    image.set_qform(AFFINE, qform)
    nibabel.save(image, folder / "labels.nii.gz")
    return folder / "labels.nii.gz"
