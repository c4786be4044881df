"""Tables of masks: the regions that they hide, and how alike they are."""

import numpy as np
import pandas as pd
import pytest
import torch

from tests.study.conftest import CONTEXTS
from xaitools.errors import DataError
from xaitools.evaluation import cosine
from xaitools.study import (
    GroupMasks,
    beside_poster,
    cosines_by_weight,
    density_bars,
    mask_regions,
    masked_regions,
    robustness_table,
    similarity_matrices,
)
from xaitools.study.mask_tables import densities


def test_densities_of_an_atlas(masks, halves, brains):
    table = mask_regions(masks.masks, halves, brains)
    for number, mask in enumerate(masks.masks.values()):
        own = table[table["map"] == number].set_index("region")["density"]
        assert own["back"] == pytest.approx((1 - mask[:, :8]).mean(), rel=1e-5)
        assert own["front"] == pytest.approx((1 - mask[:, 8:]).mean(), rel=1e-5)
    assert densities(table).shape == (4, 2)


def test_densities_of_label_maps_count_each_region_where_it_is_in_each_patient(masks, label_maps, brains):
    table = mask_regions(list(masks.masks.values())[:1], label_maps, brains).set_index("region")
    (mask, *_) = masks.masks.values()
    numbers = [n for n, name in label_maps.label_names.items() if name.startswith("hippocampus")]
    places = [np.isin(brains.label_map(i), numbers) for i in range(len(brains))]
    hidden = sum((1 - mask)[place].sum() for place in places)
    assert table.loc["hippocampus", "density"] == pytest.approx(
        hidden / sum(place.sum() for place in places), rel=1e-5
    )


def test_cosines_are_recorded_pair_by_pair(run, recorded, masks, halves, brains):
    table = mask_regions(masks.masks, halves, brains)
    names = ["a", "b", "c", "d"]
    found = cosines_by_weight(run, table, names)
    np.testing.assert_allclose(found.to_numpy(), cosine(densities(table)))
    assert recorded()["b; d", "ROI cosine across weights"] == pytest.approx(found.loc["b", "d"])


def test_matrices_and_their_means_beside_the_poster(run, recorded, nets, masks, halves, brains):
    table = mask_regions(masks.masks, halves, brains)
    found = similarity_matrices(nets, masks, brains, table, deletion="white")
    mask, model = torch.from_numpy(masks.masks[CONTEXTS[2]]), nets[CONTEXTS[1]].model
    expected = model(mask * brains.images[:] + 1 - mask).softmax(1)[:, 1].mean().item()
    assert found["prob_CNN"][1, 2] == pytest.approx(expected, rel=1e-5)
    means = robustness_table(run, found, masks.masks, network="net")
    at = means.set_index(["measure", "pairs"])
    runs = [found["prob_CNN"][i, j] for i, j in ((0, 1), (1, 0), (2, 3), (3, 2))]
    assert at.loc[("prob_CNN", "inter-run"), "value"] == pytest.approx(np.mean(runs))
    assert recorded()["", "prob_CNN, inter-run"] == pytest.approx(np.mean(runs))
    beside = beside_poster(means, {"prob_CNN, inter-run": 0.82})
    assert beside["published"].tolist() == ["", "0.82", "", "", "", "", ""]
    assert ("ROI cosine", "own") not in set(zip(beside["measure"], beside["pairs"], strict=True))


def test_the_most_hidden_regions_by_name(run, masks, halves, brains):
    back = np.ones(brains.shape, np.float32)
    back[:, :8] = 0.5
    table = mask_regions([back, 1.5 - back], halves, brains)
    found = masked_regions(run, table, CONTEXTS[:2], ["back"], 1)
    assert found["most hidden regions"].tolist() == ["back", "front"]
    assert found["found"].tolist() == [1.0, 0.0]
    assert found["AUC"].tolist() == [1.0, 0.0]
    assert "AUC" not in masked_regions(run, table, CONTEXTS[:2], [], 1)
    bars = density_bars({"masks": table}).set_index("region")
    assert bars.loc["back", ["value", "low", "high"]].tolist() == [25.0, 0.0, 50.0]


def test_a_mask_that_hides_nothing_has_no_cosine(run, recorded, nets, halves, brains):
    ones = np.ones(brains.shape, np.float32)
    table = mask_regions([ones, 0.5 * ones, 0.2 * ones], halves, brains)
    found = cosines_by_weight(run, table, ["a", "b", "c"])
    assert np.isnan(found.loc["a"]).all()
    assert found.loc["b", "c"] == pytest.approx(1)
    assert {name for name, _ in recorded()} == {"b; c"}
    masks = GroupMasks({CONTEXTS[0]: ones, CONTEXTS[1]: 0.5 * ones}, pd.DataFrame(), pd.DataFrame())
    with pytest.raises(DataError, match=r"the masks of fold 1, run 1 hide nothing.*lower l1"):
        similarity_matrices(nets, masks, brains, table[table["map"] < 2])
