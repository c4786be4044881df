import numpy as np
import pytest
import torch

from xaitools.errors import DataError, ParameterError
from xaitools.evaluation import lateral_asymmetry, region_volumes
from xaitools.phantoms import synthetic_brains


@pytest.fixture(scope="module")
def brains(tmp_path_factory):
    return synthetic_brains(3, spacing=8, seed=0, cache_dir=tmp_path_factory.mktemp("cache"), progress=False)


def test_volumes_are_those_of_the_label_maps(brains):
    found = region_volumes(brains, {"hippocampus": [1, 2], "thalamus left": [13]})
    assert found.index.tolist() == list(brains.names)
    for position, name in enumerate(brains.names):
        labels = brains.label_map(position)
        assert found.loc[name, "hippocampus"] == pytest.approx(((labels == 1) | (labels == 2)).sum() * 0.512)
        assert found.loc[name, "thalamus left"] == pytest.approx((labels == 13).sum() * 0.512)


def test_asymmetry_is_the_difference_of_the_sides_over_their_sum(brains):
    found = lateral_asymmetry(brains, [17], [18])
    for value, labels in zip(found, map(brains.label_map, range(3)), strict=True):
        left, right = (labels == 17).sum(), (labels == 18).sum()
        assert value == pytest.approx((left - right) / (left + right))
    np.testing.assert_allclose(lateral_asymmetry(brains, [18], [17]), -found)


def test_an_image_without_the_structure_has_no_asymmetry(brains, monkeypatch):
    maps = [
        brains.label_map(0) * 0,
        np.where(brains.label_map(1) == 18, 0, brains.label_map(1)),
        brains.label_map(2),
    ]
    monkeypatch.setattr(type(brains), "label_map", lambda self, position: maps[position])
    found = lateral_asymmetry(brains, [17], [18])
    assert np.isnan(found[0])
    assert found[1] == 1
    assert abs(found[2]) < 1
    assert region_volumes(brains, {"hippocampus": [1, 2]}).iloc[0].tolist() == [0.0]


def test_what_cannot_be_measured_is_refused(brains):
    with pytest.raises(DataError, match="region 'insula', numbers \\[77\\]: in none of the 3 label maps"):
        region_volumes(brains, {"insula": [77]})
    with pytest.raises(ParameterError, match="regions: got none"):
        region_volumes(brains, {})
    with pytest.raises(ParameterError, match=r"regions\['x'\]=\[0\]"):
        region_volumes(brains, {"x": [0]})
    with pytest.raises(ParameterError, match=r"numbers \[17\] are on both sides"):
        lateral_asymmetry(brains, [17], [17, 18])
    from dataclasses import replace

    bare = replace(brains, label_maps=None)
    with pytest.raises(DataError, match="these volumes have no label maps"):
        lateral_asymmetry(bare, [17], [18])
    assert torch.is_tensor(bare.labels)
