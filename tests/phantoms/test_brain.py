import json

import numpy as np
import pytest
import torch

from xaitools.data.grids import mni_grid
from xaitools.data.samples import Samples
from xaitools.data.splits import split
from xaitools.errors import ParameterError
from xaitools.phantoms.brain import Recipe, synthetic_brain, synthetic_brains
from xaitools.phantoms.brain_regions import ALZHEIMER, REGIONS, label_numbers

SHRINKING = [name for name in ALZHEIMER if not REGIONS[name].grows]


def recipe(number=0, *, patient=True, **changes):
    fields = {"seed": 7, "atrophy": 0.3, "regions": ALZHEIMER, "modality": "T1w", "spacing": 4.0}
    fields |= changes
    return Recipe(number=number, patient=patient, shape=mni_grid(fields["spacing"]).shape, **fields)


def pair(number=0, **changes):
    """The same subject as a control and as a patient."""
    return (synthetic_brain(recipe(number, patient=patient, **changes)) for patient in (False, True))


@pytest.fixture(scope="module")
def brains():
    return synthetic_brains(24, spacing=8, seed=3, progress=False)


def centre_of(image, label_map, numbers):
    inside = np.isin(label_map, numbers)
    return image[inside].mean()


@pytest.mark.parametrize("number", range(2))
def test_only_the_chosen_regions_differ_between_the_classes(number):
    (control, mask, labels), (patient, same_mask, same_labels) = pair(number)
    assert (mask == same_mask).all()
    assert (labels == same_labels).all()
    change = np.abs(patient - control)
    assert (change**2)[mask].sum() > 0.85 * (change**2).sum()
    chosen = [label_numbers()[f"{name} {side}"] for name in ALZHEIMER for side in ("left", "right")]
    others = (labels > 0) & ~np.isin(labels, chosen)
    assert change[others].mean() < 0.02 * change[mask].mean()
    far = np.ones(mask.shape, dtype=bool)
    far[
        tuple(
            slice(low - 3, high + 4)
            for low, high in zip(np.argwhere(mask).min(0), np.argwhere(mask).max(0), strict=True)
        )
    ] = False
    assert (change[far] == 0).all()
    for name in ALZHEIMER:
        for side in ("left", "right"):
            inside = labels == label_numbers()[f"{name} {side}"]
            assert patient[inside].mean() < control[inside].mean() - 0.01, (name, side)


@pytest.mark.parametrize("atrophy", [0.15, 0.3])
def test_the_lost_share_is_the_stated_one(atrophy):
    regions = (*SHRINKING, "precuneus")
    (control, _, labels), (patient, _, _) = pair(1, regions=regions, atrophy=atrophy, modality="grey-matter")
    volumes = synthetic_brains(2, spacing=8, seed=7, atrophy=atrophy, regions=regions, progress=False)
    for name in regions:
        inside = np.isin(labels, [label_numbers()[f"{name} {side}"] for side in ("left", "right")])
        lost = 1 - patient[inside].sum() / control[inside].sum()
        assert lost == pytest.approx(float(volumes.numbers["atrophy"][1]), rel=0.2), name


def test_controls_lose_nothing_and_patients_about_the_mean(brains):
    loss, labels = brains.numbers["atrophy"], brains.labels
    assert (loss[labels == 0] == 0).all()
    assert 0.5 * 0.3 <= loss[labels == 1].min() <= loss[labels == 1].max() <= 1.5 * 0.3 + 1e-6
    assert abs(float(loss[labels == 1].mean()) - 0.3) < 0.06
    ages = brains.numbers["age (years)"]
    assert 60 <= ages.min() <= ages.max() <= 85
    assert abs(float(ages[labels == 0].mean() - ages[labels == 1].mean())) < 8


def test_a_brain_looks_like_a_t1_weighted_one():
    image, _, labels = synthetic_brain(recipe(spacing=3.0))
    assert image.shape == (61, 73, 61)
    volume = (image > 0.1).sum() * 27e-3
    assert 1400 < volume < 2200  # ml, fluid included
    assert (image[[0, -1]] == 0).all()
    middle = [n // 2 for n in image.shape]
    histogram = np.histogram(image[image > 0.1], bins=40, range=(0, 1))[0]
    modes = [low for low in range(1, 39) if histogram[low] > max(histogram[low - 1], histogram[low + 1])]
    assert any(abs(mode / 40 - 0.6) < 0.08 for mode in modes)  # grey matter
    assert any(abs(mode / 40 - 0.8) < 0.08 for mode in modes)  # white matter
    assert centre_of(image, labels, [label_numbers()["thalamus left"]]) > 0.55
    assert image[tuple(middle)] > 0
    left, right = (np.isin(labels, [label_numbers()[f"hippocampus {side}"]]) for side in ("left", "right"))
    mm = [np.argwhere(side).mean(0) * 3 + mni_grid(3).affine[:3, 3] for side in (left, right)]
    np.testing.assert_allclose(mm, [[-26, -21, -13], [26, -21, -13]], atol=6)


def test_anatomies_differ_and_do_not_depend_on_the_spacing():
    images = [synthetic_brain(recipe(number, patient=False, atrophy=0.0))[0] for number in range(2)]
    assert np.abs(images[0] - images[1])[images[0] > 0.1].mean() > 0.04
    labels = [synthetic_brain(recipe(0, spacing=spacing))[2] for spacing in (3.0, 5.0)]
    for number in range(1, len(label_numbers()) + 1):
        mm = [
            np.argwhere(label == number).mean(0) * spacing + mni_grid(spacing).affine[:3, 3]
            for label, spacing in zip(labels, (3.0, 5.0), strict=True)
        ]
        np.testing.assert_allclose(mm[0], mm[1], atol=2.5)


def test_a_brain_depends_on_the_arguments_and_its_position_alone(brains, tmp_path):
    few = synthetic_brains(3, spacing=8, seed=3, cache_dir=tmp_path, progress=False)
    assert few[:].fingerprint() == brains[:3].fingerprint()
    assert few.names == ("sub-001", "sub-002", "sub-003")
    for changes in (
        {"seed": 4},
        {"atrophy": 0.2},
        {"regions": ["thalamus"]},
        {"modality": "grey-matter"},
        {"spacing": 9},
    ):
        others = synthetic_brains(3, **({"spacing": 8, "seed": 3, "progress": False} | changes))
        assert not torch.equal(others.images[1, :, :18, :20, :18], few.images[1, :, :18, :20, :18]), changes
    assert torch.equal(
        synthetic_brains(1, spacing=8, seed=3, atrophy=0.1, progress=False).images[0], few.images[0]
    )


def test_the_collection(brains):
    assert isinstance(brains, Samples)
    assert brains.shape == (23, 28, 23)
    assert brains.labels.tolist() == [0, 1] * 12
    assert brains.class_names == ("control", "patient")
    assert brains.images[[0, 5]].max() <= 1
    assert brains.has_mask.all()
    assert set(np.unique(brains.label_map(0))) <= set(range(len(label_numbers()) + 1))
    assert (brains.label_map(2) > 0)[brains.masks[2, 0].numpy()].all()
    info = json.loads(json.dumps(brains.info))
    assert info["label_names"]["1"] == "hippocampus left"
    assert [len(part) for part in split(brains, seed=0)] == [16, 4, 4]
    assert not synthetic_brains(2, spacing=8, seed=3, atrophy=0.0, progress=False).has_mask.any()
    cropped = synthetic_brains(2, spacing=8, seed=3, shape=(20, 24, 20), progress=False)
    assert cropped.images.shape == (2, 1, 20, 24, 20)
    np.testing.assert_allclose(cropped.affine[:3, 3] - brains.affine[:3, 3], [8, 16, 8])


def test_regions_tell_the_classes_apart_and_the_whole_brain_does_not(brains):
    mean_in_mask, mean = [], []
    for image, mask in zip(brains.images, brains.masks, strict=True):
        mean_in_mask.append(float(image[mask].mean()))
        mean.append(float(image.mean()))
    for values, low, high in ((mean_in_mask, 1.5, 8), (mean, -0.8, 0.8)):
        control, patient = np.array(values)[::2], np.array(values)[1::2]
        effect = (control.mean() - patient.mean()) / np.sqrt((control.var() + patient.var()) / 2)
        assert low < effect < high


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_subjects": 0}, "n_subjects=0"),
        ({"atrophy": 0.7}, "atrophy=0.7"),
        ({"atrophy": -0.1}, "atrophy=-0.1"),
        ({"regions": ["hippocampi"]}, "expected some of .*'hippocampus'"),
        ({"regions": []}, "expected some of"),
        ({"regions": "hippocampus"}, "expected some of"),
        ({"modality": "T2w"}, "T1w"),
        ({"spacing": 0}, "spacing=0"),
    ],
)
def test_impossible_parameters_are_refused(arguments, message):
    with pytest.raises(ParameterError, match=message):
        synthetic_brains(**({"n_subjects": 2, "seed": 0, "progress": False} | arguments))
