import time

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from xaitools.errors import ParameterError
from xaitools.phantoms.chest import chest_hu, chest_slices


@pytest.fixture(scope="module")
def slices():
    return chest_slices(160, size=96, seed=3, progress=False)


@pytest.mark.parametrize("number", range(8))
def test_only_blood_differs_between_the_classes(number):
    plain, mask = chest_hu(128, enhanced=False, seed=(5, number))
    contrast, same_mask = chest_hu(128, enhanced=True, seed=(5, number))
    assert (mask == same_mask).all()
    changed = contrast != plain
    edge = (
        np.pad(mask, 1)[:-2, 1:-1]
        | np.pad(mask, 1)[2:, 1:-1]
        | np.pad(mask, 1)[1:-1, :-2]
        | np.pad(mask, 1)[1:-1, 2:]
    )
    assert not (changed & ~mask & ~edge).any()
    assert changed[mask].all()
    assert 20 < plain[mask].mean() < 65
    assert 75 < contrast[mask].mean() < 400


def test_a_global_mean_does_not_solve_the_task_and_the_mask_does(slices):
    images, masks, labels = slices.images, slices.masks, slices.labels
    whole = images.mean(dim=(1, 2, 3))
    in_mask = (images * masks).sum(dim=(1, 2, 3)) / masks.sum(dim=(1, 2, 3))
    assert 0.5 < roc_auc_score(labels, whole) < 0.7
    assert roc_auc_score(labels, in_mask) > 0.99
    assert whole[labels == 1].min() < whole[labels == 0].median() < whole[labels == 1].median()


def test_slices_look_like_a_chest(slices):
    hu, mask = (
        np.stack([chest_hu(96, enhanced=False, seed=(3, i))[0] for i in range(24)]),
        slices.masks[:24, 0].numpy(),
    )
    shares = {
        "air and lung": (hu < -500).mean(axis=(1, 2)),
        "fat": ((hu > -150) & (hu < -50)).mean(axis=(1, 2)),
        "soft tissue": ((hu > 10) & (hu < 100)).mean(axis=(1, 2)),
        "bone": (hu > 300).mean(axis=(1, 2)),
        "blood": mask.mean(axis=(1, 2)),
    }
    low = {"air and lung": 0.4, "fat": 0.03, "soft tissue": 0.08, "bone": 0.003, "blood": 0.005}
    high = {"air and lung": 0.8, "fat": 0.4, "soft tissue": 0.4, "bone": 0.1, "blood": 0.12}
    for tissue, share in shares.items():
        assert low[tissue] < share.min() <= share.max() < high[tissue], tissue
    assert len({repr(image.tolist()) for image in slices.images[:24, 0, ::8, ::8]}) == 24


def test_a_slice_depends_on_seed_and_position_alone():
    few, many = (
        chest_slices(3, size=64, seed=1, progress=False),
        chest_slices(7, size=64, seed=1, progress=False),
    )
    assert torch.equal(few.images, many.images[:3])
    assert few.names == many.names[:3] == ("sub-001", "sub-002", "sub-003")
    assert not torch.equal(few.images, chest_slices(3, size=64, seed=2, progress=False).images)
    assert many.labels.tolist() == [0, 1, 0, 1, 0, 1, 0]


def test_the_window_maps_hounsfield_units():
    hu, _ = chest_hu(64, enhanced=False, seed=(0, 0))
    image = chest_slices(1, size=64, seed=0, window=(-600, 1500), progress=False).images[0, 0]
    expected = np.clip((hu.astype(np.float64) + 600) / 1500 + 0.5, 0, 1)
    np.testing.assert_allclose(image.numpy(), expected, atol=1e-6)


def test_three_hundred_slices_take_seconds():
    start = time.process_time()
    chest_slices(20, seed=0, progress=False)
    assert (time.process_time() - start) / 20 < 0.1


@pytest.mark.parametrize("arguments", [{"n": 0}, {"n": 2, "size": 8}, {"n": 2, "window": (40, 0)}])
def test_impossible_parameters_are_refused(arguments):
    with pytest.raises(ParameterError):
        chest_slices(**arguments, seed=0, progress=False)
