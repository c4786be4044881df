"""Controls of optimised masks: what is known to change, random masks, the difference of the groups."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from tests.study.conftest import CONTEXTS
from xaitools.evaluation import cosine, localization
from xaitools.study import (
    Context,
    GroupMasks,
    as_good_at_random,
    brain_of,
    control_table,
    group_difference,
    group_mean,
    mask_regions,
    some_random_masks,
    truth_of,
)
from xaitools.study.mask_tables import densities


def test_the_difference_of_the_groups_hides_what_patients_lack(brains):
    patients, controls = brains[[1, 3, 5]], brains[[0, 2, 4]]
    found = group_difference(controls, patients, 20.0)
    lead = controls.images[:].mean((0, 1)).numpy() - patients.images[:].mean((0, 1)).numpy()
    assert (1 - found).sum() == pytest.approx(20, rel=1e-4)
    assert (found[lead < -1e-4] == 1).all()
    more = group_difference(controls, patients, 20.0, deletion="black")
    assert (more[lead > 1e-4] == 1).all()
    either = group_difference(controls, patients, 20.0, deletion="blur")
    assert np.corrcoef((1 - either).ravel(), np.abs(lead).ravel())[0, 1] > 0.99


def test_means_brain_and_truth_of_a_group(brains):
    np.testing.assert_allclose(group_mean(brains), brains.images[:].mean((0, 1)).numpy(), atol=1e-6)
    np.testing.assert_array_equal(brain_of(brains, 0.1), group_mean(brains) > 0.1)
    np.testing.assert_array_equal(truth_of(brains), brains.masks[:].float().mean((0, 1)).numpy() > 0.5)
    assert truth_of(replace(brains, masks=None)) is None


def test_a_mask_that_knows_the_truth_beats_random_ones(run, recorded, brains):
    truth, brain = truth_of(brains), brain_of(brains)
    right = (1 - 0.9 * truth).astype(np.float32)
    wrong = (1 - 0.9 * np.roll(truth, 4, axis=1)).astype(np.float32)
    masks = GroupMasks({Context(1, 1): right, Context(1, 2): wrong}, pd.DataFrame(), pd.DataFrame())
    table = as_good_at_random(run, masks, truth, brain, n_random=19)
    assert table["AUC"].iloc[0] == pytest.approx(1)
    assert table["as good at random"].tolist()[0] == pytest.approx(1 / 20)
    assert table["as good at random"].tolist()[1] > 0.1
    expected = localization((1 - wrong[brain])[None], truth[brain][None])["auc"][0]
    assert table["AUC"].iloc[1] == pytest.approx(expected)
    assert recorded()["", "planted voxels, AUC"] == pytest.approx(table["AUC"].mean())
    assert as_good_at_random(run, masks, None, brain, n_random=19).empty


def test_controls_stand_beside_the_masks(run, recorded, nets, masks, halves, brains):
    truth, brain = truth_of(brains), brain_of(brains)
    random = some_random_masks(masks, brain, n=1)
    assert len(random) == 4
    nothing = np.ones(brains.shape, np.float32)
    nothing[0] = 0.99
    found = control_table(
        run, nets, masks, {"nearly nothing": [nothing], "random": random}, halves, brains, brains,
        truth=truth, brain=brain,
    ).set_index("mask")  # fmt: skip
    assert list(found.index) == ["masks of the other networks", "nearly nothing", "random"]
    said = [net.model(brains.images[:]).softmax(1)[:, 1].mean().item() for net in nets.values()]
    assert found.loc["nearly nothing", "prob_CNN"] == pytest.approx(np.mean(said), abs=0.02)
    table = mask_regions(masks.masks, halves, brains)
    matrix = cosine(densities(table))
    between = matrix[~np.eye(4, dtype=bool)].mean()
    assert found.loc["masks of the other networks", "ROI cosine"] == pytest.approx(between)
    assert recorded()["random", "control: AUC"] == pytest.approx(found.loc["random", "AUC"])


def test_one_network_alone_has_no_others(run, nets, masks, halves, brains):
    first = CONTEXTS[0]
    alone = GroupMasks({first: masks.masks[first]}, pd.DataFrame(), pd.DataFrame())
    found = control_table(
        run, {first: nets[first]}, alone, {}, halves, brains, brains, truth=None, brain=brain_of(brains)
    )
    assert found["ROI cosine"].isna().all()
    assert "AUC" not in found
