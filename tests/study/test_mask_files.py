"""Masks of groups on disk: made once, read again, made anew where anything they depend on has changed."""

import json
from dataclasses import replace

import nibabel
import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import xaitools.study.mask_files as mask_files
from xaitools.attribution import MaskSettings, optimise_masks
from xaitools.errors import ParameterError
from xaitools.phantoms import synthetic_brains
from xaitools.study import (
    Context,
    GroupMasks,
    forming,
    group_masks,
    mask_grid,
    masks_of_contexts,
    setting_name,
)
from xaitools.study.network import Trained
from xaitools.study.singles import longitudinal_table, sessions, single_masks, singles_table

SETTINGS = mask_grid([0.1, 1.0], [0.1], steps=4, learning_rate=0.1)


@pytest.fixture(scope="module")
def patients(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache")
    brains = synthetic_brains(
        6, spacing=20, shape=[8, 8, 8], modality="grey-matter", seed=0, cache_dir=folder, progress=False
    )
    return brains[[1, 3, 5]]


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv3d(1, 2, 3), nn.LeakyReLU(), nn.Flatten(), nn.Linear(432, 2)).eval()
    return Trained("net", model, "random weights")


@pytest.fixture
def calls(monkeypatch):
    """How many settings each optimisation had."""
    made = []

    def counted(*args, settings, **options):
        made.append(len(settings))
        return optimise_masks(*args, settings=settings, **options)

    monkeypatch.setattr(mask_files, "optimise_masks", counted)
    return made


def make(net, patients, folder, settings=SETTINGS, **options):
    return group_masks(net, patients, settings, folder, name="fold-1_run-1", progress=False, **options)


def test_masks_are_those_of_the_optimisation_and_are_read_again(net, patients, tmp_path, calls):
    first = make(net, patients, tmp_path)
    expected = optimise_masks(
        net.model, patients.images[:], 1, groups="all", settings=list(SETTINGS.values()), progress=False
    )
    again = make(net, patients, tmp_path)
    assert calls == [2]
    for i, name in enumerate(SETTINGS):
        for found in (first, again):
            np.testing.assert_array_equal(found.masks[name], expected.masks[i, 0].numpy())
            np.testing.assert_allclose(found.hidden[name], 1 - expected.masks[i, 0].numpy())
    pd.testing.assert_frame_equal(first.report, again.report)
    pd.testing.assert_frame_equal(first.history, again.history, check_dtype=False)
    assert set(again.history["mask"]) == set(SETTINGS)
    assert again.report.loc["l1=1, l2=0.1", "score_before"] == expected.report["score_before"][0]


def test_only_what_is_missing_is_optimised(net, patients, tmp_path, calls):
    make(net, patients, tmp_path, {"l1=1, l2=0.1": SETTINGS["l1=1, l2=0.1"]})
    make(net, patients, tmp_path)
    (lost,) = tmp_path.glob("*L11L201*_course.json")
    lost.write_text("{")
    make(net, patients, tmp_path)
    assert calls == [1, 1, 1]


def test_another_network_group_or_option_is_another_mask(net, patients, tmp_path, calls):
    make(net, patients, tmp_path)
    other = Trained("net", nn.Sequential(nn.Flatten(), nn.Linear(512, 2)).eval(), "random weights")
    make(other, patients, tmp_path)
    make(other, patients[[0, 1]], tmp_path)
    make(other, patients[[0, 1]], tmp_path, deletion="black")
    make(other, patients[[0, 1]], tmp_path, mask_grid([0.1, 1.0], [0.1], steps=5))
    assert calls == [2, 2, 2, 2, 2]


def test_files_carry_the_affine_and_all_settings(net, patients, tmp_path):
    make(net, patients, tmp_path)
    (path,) = tmp_path.glob("fold-1_run-1_desc-*L11L201*_map.nii.gz")
    np.testing.assert_allclose(nibabel.load(path).affine, patients.affine)
    sidecar = json.loads(path.with_name(path.name.replace(".nii.gz", ".json")).read_text())
    settings = sidecar["key"]["settings"]
    assert settings == SETTINGS["l1=1, l2=0.1"].plain()
    assert settings["reduction"] == "mean"
    assert sidecar["key"]["deletion"] == "white"


def test_each_context_has_its_mask(net, patients, tmp_path):
    other = Trained("net", nn.Sequential(nn.Flatten(), nn.Linear(512, 2)).eval(), "random weights")
    nets = {Context(1, 1): net, Context(1, 2): other}
    setting = SETTINGS["l1=1, l2=0.1"]
    found = masks_of_contexts(nets, patients, setting, tmp_path, progress=False)
    assert list(found.masks) == list(nets)
    assert list(found.report.index) == ["fold 1, run 1", "fold 1, run 2"]
    alone = make(net, patients, tmp_path).masks[setting_name(setting)]
    np.testing.assert_array_equal(found.masks[Context(1, 1)], alone)


def test_a_grid_has_a_setting_for_each_pair_and_forming_stops_earlier():
    assert list(mask_grid([0.1, 0.001], [1, 2])) == [
        "l1=0.1, l2=1", "l1=0.001, l2=1", "l1=0.1, l2=2", "l1=0.001, l2=2",
    ]  # fmt: skip
    stopped = forming(MaskSettings(steps=50), [2, 10])
    assert {name: own.steps for name, own in stopped.items()} == {
        "after 2 steps": 2, "after 10 steps": 10, "after 50 steps": 50,
    }  # fmt: skip


@pytest.mark.parametrize(("l1", "l2"), [([1, 1.0], [1]), ([1], [2, 2]), ([], [1])])
def test_a_grid_with_a_duplicate_is_refused(l1, l2):
    with pytest.raises(ParameterError, match="one weight or more, each once"):
        mask_grid(l1, l2)


def test_single_patients_have_masks_of_their_own(net, patients, tmp_path):
    setting = SETTINGS["l1=1, l2=0.1"]
    found = single_masks(net, Context(1, 1), patients[[0, 1]], setting, tmp_path, progress=False)
    assert list(found.masks) == list(patients.names[:2])
    alone = optimise_masks(net.model, patients.images[[1]], 1, settings=setting, progress=False)
    np.testing.assert_array_equal(found.masks[patients.names[1]], alone.masks[0, 0].numpy())
    table = singles_table(found, found.masks[patients.names[0]])
    assert table["cosine with the group's mask"].iloc[0] == pytest.approx(1)
    assert list(table["mask of"]) == list(patients.names[:2])


def test_sessions_are_the_first_and_last_of_those_who_have_several(patients):
    assert sessions(patients, 1) is None
    twice = replace(
        patients,
        subjects=("sub-001", "sub-002", "sub-001"),
        names=("sub-001_img-1", "sub-002", "sub-001_img-2"),
    )
    assert sessions(twice, 1).names == ("sub-001_img-1", "sub-001_img-2")
    assert sessions(twice, 0) is None


def test_earlier_masks_are_compared_with_later_ones(run, recorded):
    masks = [
        np.array([[[a, b, c]]], dtype=np.float32) for a, b, c in ((0, 1, 1), (0, 0, 1), (1, 1, 0), (1, 1, 0))
    ]
    found = GroupMasks(dict(zip("abcd", masks, strict=True)), pd.DataFrame(), pd.DataFrame())
    table = longitudinal_table(run, found).set_index("pairs")
    assert table.loc["one participant"].tolist() == [0.0, 0.25, 2]
    assert table.loc["two participants"].tolist() == [1.0, 1.0, 2]
    assert recorded()["", "later outside earlier, one participant"] == 0.25
