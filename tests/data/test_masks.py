import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from xaitools.data.ct import load_ct
from xaitools.data.masks import heart_and_vessels, mask_doubt
from xaitools.data.slices import CtSlice
from xaitools.phantoms.chest import chest_hu


def as_slice(hu, spacing=0.75):
    return CtSlice(hu, (spacing, spacing), lambda array: array)


@pytest.mark.parametrize("enhanced", [False, True])
def test_the_rule_finds_the_blood_of_synthetic_chests(enhanced):
    covered, precise = [], []
    for number in range(6):
        hu, blood = chest_hu(512, enhanced=enhanced, seed=(11, number))
        mask = heart_and_vessels(as_slice(hu))
        covered.append((mask & blood).sum() / blood.sum())
        precise.append((mask & blood).sum() / max(mask.sum(), 1))
    assert np.median(covered) > 0.8
    assert np.median(precise) > 0.5


def test_the_rule_gives_no_mask_without_lungs():
    hu, _ = chest_hu(256, enhanced=True, seed=(11, 0))
    for changed in (
        np.where(hu < -400, 40, hu),
        np.full_like(hu, -1000),
        np.where(np.arange(256) < 128, 40, hu),
    ):
        mask = heart_and_vessels(as_slice(changed.astype(np.float32), 1.5))
        assert mask.shape == hu.shape
        assert not mask.any()


def test_masks_of_the_body_or_of_its_complement_are_in_doubt():
    hu = np.full((20, 20), -1000, dtype=np.float32)
    hu[5:15, 4:16] = 40
    organ = np.zeros(hu.shape, dtype=bool)
    organ[6:12, 5:14] = True  # 54 of 120 pixels
    assert mask_doubt(organ, as_slice(hu)) == ""
    assert "exchanged" in mask_doubt(~organ, as_slice(hu))
    assert mask_doubt(hu > 0, as_slice(hu)) == "covers 100% of the body"
    assert mask_doubt(organ | (np.arange(20) == 5), as_slice(hu)) == ""
    organ[12:14, 5:14] = True
    assert mask_doubt(organ, as_slice(hu)) == "covers 60% of the body"


@pytest.fixture(scope="module")
def real_slices(real_data):
    return load_ct(real_data / "siim_ct", masks="heart-and-vessels", progress=False)


def test_the_rule_on_real_slices(real_slices):
    found = real_slices.has_mask
    assert real_slices.info["mask_rule"] == "heart-and-vessels"
    assert real_slices.info["n_without_mask"] == int((~found).sum())
    assert 30 <= int(found.sum()) <= 36  # the others show abdomen, pelvis, shoulders, or only one lung
    one_lung = [path.name[3:7] in ("0014", "0033", "0068") for path in real_slices.sources]
    assert sum(one_lung) == 3
    assert not found[one_lung].any()
    chests = real_slices[found]
    assert chests.labels.bincount().min() >= 12
    assert chests.masks.float().mean(dim=(1, 2, 3)).max() < 0.15
    brightness = (chests.images * chests.masks).sum(dim=(1, 2, 3)) / chests.masks.sum(dim=(1, 2, 3))
    assert roc_auc_score(chests.labels, brightness) > 0.99


def test_on_real_chests_the_spine_is_below_and_the_heart_to_the_right(real_slices):
    """Without contrast agent, so that bone is the brightest; in the second, the patient lay prone."""
    chosen = [i for i, path in enumerate(real_slices.sources) if path.name[3:7] in ("0069", "0093")]
    assert len(chosen) == 2
    rows, columns = torch.meshgrid(torch.arange(128.0), torch.arange(128.0), indexing="ij")
    for image, mask in zip(real_slices.images[chosen, 0], real_slices.masks[chosen, 0], strict=True):
        body = image > 0.1
        spine = (image > 0.85) & ((columns - columns[body].mean()).abs() < 15)
        assert rows[spine].median() > rows[body].mean() + 8
        assert rows[mask].mean() < rows[spine].median()
        assert columns[mask].mean() > columns[spine].median()
