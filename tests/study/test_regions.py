"""Which regions a study takes, and what it says of them."""

from dataclasses import replace

import nibabel
import numpy as np
import pandas as pd
import pytest
import torch

from xaitools.atlas import Atlas, region_table
from xaitools.errors import DataError, DataFileError, ParameterError
from xaitools.maps import save_map
from xaitools.phantoms import synthetic_brains
from xaitools.study import (
    Regions,
    brain_regions,
    check_top,
    known_regions,
    method_table,
    recovered,
    recovered_table,
    region_shares,
    region_sizes,
    tables_by_anatomy,
    tables_by_atlas,
)

AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])


@pytest.fixture(scope="module")
def brains(tmp_path_factory):
    folder = tmp_path_factory.mktemp("brains")
    options = {"spacing": 8.0, "shape": [20, 24, 20], "seed": 0, "cache_dir": folder, "progress": False}
    return synthetic_brains(4, **options)


@pytest.fixture(scope="module")
def without_label_maps(brains):
    info = {name: value for name, value in brains.info.items() if name != "label_names"}
    return replace(brains, label_maps=None, info=info)


def test_label_maps_come_before_an_atlas_of_ours_but_not_before_yours(brains):
    own = brain_regions(brains)
    assert own.source == "the label map of each brain"
    assert own.atlas is None
    assert brain_regions(brains, "mni").atlas.labels.shape == brains.shape


def test_without_label_maps_an_atlas_of_ours_is_taken_in_mni_space_only(without_label_maps):
    assert "MNI152" in brain_regions(without_label_maps).source
    for space in ("file", "centered"):
        with pytest.raises(DataError, match="no label maps and are not in MNI space"):
            brain_regions(without_label_maps, space=space)


def test_no_atlas_fits_heads_as_scanned(brains):
    with pytest.raises(ParameterError, match="heads as scanned do not lie in the space of an atlas"):
        brain_regions(brains, "mni", space="centered")


def test_names_of_label_maps_are_read_from_the_folder_or_the_file_that_is_named(brains, tmp_path):
    unnamed = replace(brains, info={"source": "real"})
    with pytest.raises(DataFileError, match=r"dseg_labels\.csv"):
        brain_regions(unnamed, folder=str(tmp_path))
    (tmp_path / "dseg_labels.csv").write_text("index,name\n1,left thing\n2,right thing\n")
    (tmp_path / "mine.csv").write_text("index,name\n1,mine\n")
    assert brain_regions(unnamed, folder=str(tmp_path)).label_names == {1: "left thing", 2: "right thing"}
    named = brain_regions(unnamed, names=str(tmp_path / "mine.csv"), folder=str(tmp_path))
    assert named.label_names == {1: "mine"}
    assert "label 3" in named.of_brain(unnamed, 0, range(1, 21)).names.values()


def test_an_atlas_is_moved_to_the_grid_and_its_halves_are_one(brains, tmp_path):
    labels = np.zeros(brains.shape, dtype=np.int16)
    labels[:10], labels[10:] = 1, 2
    nibabel.save(nibabel.Nifti1Image(labels, brains.affine), tmp_path / "atlas.nii")
    (tmp_path / "atlas.csv").write_text("index,name\n1,Left Half\n2,Right Half\n")
    atlas = brain_regions(brains, str(tmp_path / "atlas.nii")).atlas
    assert atlas.names == {1: "Half"}
    assert (atlas.labels == 1).all()


@pytest.mark.parametrize("k", [0, 10, 11])
def test_the_top_is_a_part_of_the_regions(brains, k):
    with pytest.raises(
        ParameterError, match=f"k={k}: expected 1 or more of the 10 regions, and fewer than all"
    ):
        check_top(k, brain_regions(brains), brains)


def test_all_but_one_may_be_the_top(brains):
    check_top(9, brain_regions(brains), brains)


def atlas_of(*names):
    labels = np.zeros((4, 3, 2), dtype=np.int32)
    for number in range(len(names)):
        labels[number] = number + 1
    return Atlas(labels, AFFINE, dict(enumerate(names, start=1)))


def test_gain_is_the_sum_over_that_of_controls_in_the_mean_over_runs():
    rng = np.random.default_rng(0)
    positives, negatives = (
        {"gradient": rng.standard_normal((2, 4, 3, 2)).astype(np.float32)} for _ in range(2)
    )
    table = tables_by_atlas(atlas_of("a", "b"), positives, negatives)["gradient"]
    row = table[(table["map"] == 1) & (table["region"] == "b")].iloc[0]
    own = np.abs(positives["gradient"][1, 1]).astype(np.float64).sum()
    controls = np.abs(negatives["gradient"][:, 1]).astype(np.float64).sum() / 2
    assert row["sum"] == pytest.approx(own)
    assert row["gain"] == pytest.approx(own / controls)


def test_anatomies_are_averaged_over_those_that_a_run_recognised(brains, tmp_path):
    """Brain by brain once more, slowly."""
    rng = np.random.default_rng(0)
    for name in ("run-1", "run-2"):
        for sample in brains.names:
            values = rng.standard_normal(brains.shape).astype(np.float32)
            save_map(tmp_path / name, sample, "gradient", values, key={}, affine=brains.affine)
    found = {"run 1": torch.tensor([0, 1, 0, 1]), "run 2": torch.tensor([0, 0, 1, 1])}
    regions = brain_regions(brains)
    table = tables_by_anatomy(regions, brains, ["gradient"], tmp_path, found)["gradient"]

    def mean(name, positions):
        sums, sizes = [], []
        for i in positions:
            path = next((tmp_path / name).glob(f"{brains.names[i]}_*.nii.gz"))
            atlas = regions.of_brain(brains, i, range(1, 21))
            own = region_table(np.asarray(nibabel.load(path).dataobj), atlas).set_index("region")
            sums.append(own.at["hippocampus", "sum"])
            sizes.append(own.at["hippocampus", "n_voxels"])
        return np.mean(sums), np.mean(sizes)

    for number, (name, patients, controls) in enumerate([("run-1", [1, 3], [0, 2]), ("run-2", [3], [0])]):
        row = table[(table["map"] == number) & (table["region"] == "hippocampus")].iloc[0]
        total, size = mean(name, patients)
        assert row["sum"] == pytest.approx(total)
        assert row["density"] == pytest.approx(total / size)
        assert row["gain"] == pytest.approx(total / mean(name, controls)[0])


def table_of(**sums):
    """A table of two runs in which a region has these sums; each has two voxels."""
    rows = [
        {"map": number, "region": region, "n_voxels": 2, "sum": value, "density": value / 2, "gain": value}
        for number in (0, 1)
        for region, values in sums.items()
        for value in [values[number]]
    ]
    return pd.DataFrame(rows)


def test_shares_are_in_percent_of_a_run_and_gains_are_not():
    tables = {"gradient": table_of(a=(1.0, 3.0), b=(3.0, 1.0), c=(0.0, 0.0))}
    named = method_table(tables)
    shares = region_shares(tables, named, "sum").set_index("region")
    assert shares.loc["a", ["value", "low", "high"]].to_list() == [50.0, 25.0, 75.0]
    assert set(shares["method"]) == {"BP"}
    gains = region_shares(tables, named, "gain").set_index("region")
    assert gains.loc["a", ["value", "low", "high"]].to_list() == [2.0, 1.0, 3.0]


def test_a_gain_without_end_is_left_out():
    tables = {"gradient": table_of(a=(1.0, np.inf), b=(np.nan, np.inf))}
    shares = region_shares(tables, method_table(tables), "gain")
    assert shares["region"].to_list() == ["a"]
    assert shares["value"].to_list() == [1.0]


def test_sizes_leave_out_regions_without_voxels():
    tables = {"gradient": pd.DataFrame({"map": [0, 0, 1], "region": ["a", "b", "a"], "n_voxels": [4, 0, 9]})}
    assert region_sizes(tables).to_dict() == {"a": 4}


def test_synthetic_brains_know_what_was_changed(brains):
    sizes = pd.Series({"hippocampus": 5, "thalamus": 5})
    assert known_regions(brain_regions(brains), brains, sizes) == ["hippocampus"]
    by_atlas = brain_regions(brains, "mni")
    sizes = pd.Series(1, index=list(by_atlas.atlas.names.values()))
    found = known_regions(by_atlas, brains, sizes)
    assert "Amygdala" in found
    assert "Cerebellum" not in found


def test_of_real_brains_nobody_knows(brains):
    real = replace(brains, masks=None, info={"source": "real"})
    sizes = pd.Series({"hippocampus": 5})
    assert known_regions(Regions("label maps"), real, sizes) == []
    assert known_regions(Regions("an atlas", atlas_of("a")), real, sizes) == []


def test_recovery_is_counted_run_by_run(run, recorded):
    tables = {"gradient": table_of(a=(3.0, 1.0), b=(2.0, 3.0), c=(1.0, 2.0))}
    scores = recovered(run, tables, ["a"], 1, network="net")
    np.testing.assert_array_equal(scores["auc"]["gradient"], [1.0, 0.0])
    np.testing.assert_array_equal(scores["recall"]["gradient"], [1.0, 0.0])
    table = recovered_table(scores, method_table(tables), 1)
    assert table.iloc[0].to_list() == ["BP", "0.50", "0.00 to 1.00", "50%"]
    assert recorded()["gradient", "planted regions, auc"] == 0.5


def test_nothing_is_recovered_where_nothing_is_known(run, recorded):
    assert recovered(run, {"gradient": table_of(a=(1.0, 2.0))}, [], 1, network="net") == {}
    assert recorded() == {}
