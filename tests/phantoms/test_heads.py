from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage
from sklearn.metrics import roc_auc_score

from xaitools.errors import ParameterError
from xaitools.phantoms import synthetic_heads
from xaitools.phantoms.brain_regions import label_numbers
from xaitools.phantoms.head_anatomy import Ellipsoid, head_grid
from xaitools.phantoms.heads import DEEP_GREY, HeadRecipe, draw_head, head_label_numbers, synthetic_head

RECIPE = HeadRecipe(
    3, 1, male=True, size_effect=0.0, face_effect=0.0, brain_effect=0.0, regions=DEEP_GREY, spacing=6.0,
    shape=head_grid(6.0).shape,
)  # fmt: skip


@pytest.fixture(scope="module")
def heads(tmp_path_factory):
    return synthetic_heads(40, spacing=12, seed=2, cache_dir=tmp_path_factory.mktemp("cache"), progress=False)


def both_sexes(**effects):
    """The same person as a female and as a male."""
    return (synthetic_head(replace(RECIPE, male=male, **effects)) for male in (False, True))


def test_without_effects_the_sexes_do_not_differ():
    female, male = both_sexes()
    for one, other in zip(female, male, strict=True):
        assert (one == other).all()
    assert not male[1].any()


def test_a_difference_of_the_brain_is_where_the_mask_is():
    (female, mask, labels), (male, same, _) = both_sexes(brain_effect=0.4)
    assert (mask == same).all()
    numbers = [label_numbers()[f"{name} {side}"] for name in DEEP_GREY for side in ("left", "right")]
    assert (mask == np.isin(labels, numbers)).mean() > 0.999
    change = np.abs(male - female)
    assert (change**2)[mask].sum() > 0.8 * (change**2).sum()
    assert male[mask].mean() < female[mask].mean() - 0.01
    assert (change[~ndimage.binary_dilation(mask, iterations=3)] == 0).all()


def test_a_difference_of_the_face_is_in_the_nose_and_the_jaw():
    (female, mask, labels), (male, same, _) = both_sexes(face_effect=0.3)
    assert (mask == same).all()
    assert not (mask & (labels > 0)).any()
    assert ndimage.label(mask)[1] == 2
    change = np.abs(male - female)
    assert (change**2)[ndimage.binary_dilation(mask)].sum() > 0.95 * (change**2).sum()
    assert (change[labels > 0] == 0).all()
    brain = np.argwhere(labels > 0)
    assert (
        np.argwhere(mask)[:, 2].min() < brain[:, 2].min() < brain[:, 1].max() < np.argwhere(mask)[:, 1].max()
    )


def test_a_male_head_is_larger_by_the_stated_share():
    heads = [labels for _, _, labels in both_sexes(size_effect=0.3)]
    volumes = [(labels > 0).sum() for labels in heads]
    assert volumes[1] / volumes[0] == pytest.approx(1.3, rel=0.02)
    middles = [np.argwhere(labels > 0).mean(axis=0) for labels in heads]
    np.testing.assert_allclose(*middles, atol=0.5)


def test_a_head_looks_like_one():
    image, _, labels = synthetic_head(replace(RECIPE, brain_effect=0.2, face_effect=0.2))
    assert image.dtype == np.float32
    assert 0 <= image.min() <= image.max() <= 1
    brain = labels > 0
    assert 1100 < brain.sum() * 0.216 < 1900  # ml
    assert ndimage.label(brain)[1] == 1
    assert np.abs(np.argwhere(brain).mean(axis=0) * 6 + head_grid(6).affine[:3, 3]).max() < 9
    distance = ndimage.distance_transform_edt(~brain) * 6
    skull, air = image[(distance > 3) & (distance < 9)], np.concatenate([image[0].ravel(), image[-1].ravel()])
    assert air.mean() < 0.06 < skull.mean() < image[brain].mean() - 0.15
    names = head_label_numbers()
    assert set(np.unique(labels)) == {0, *names.values()}
    for side, right in (("left", False), ("right", True)):
        own = [number for name, number in names.items() if name.endswith(side)]
        x = np.argwhere(np.isin(labels, own))[:, 0] * 6 + head_grid(6).affine[0, 3]
        assert ((x > 0) == right).mean() > 0.97
    values = [
        image[labels == names[f"{name} left"]].mean()
        for name in ("lateral ventricle", "other grey matter", "other white matter")
    ]
    assert values == sorted(values)


def test_size_alone_tells_the_sexes_apart_as_in_ixi_and_not_without_its_effect(heads):
    labels = np.arange(1000) % 2
    for effect, low, high in ((0.12, 0.83, 0.89), (0.0, 0.46, 0.54)):
        recipes = [
            replace(RECIPE, number=i, male=bool(i % 2), size_effect=effect) for i in range(len(labels))
        ]
        sizes = [draw_head(recipe, recipe.male)[0] for recipe in recipes]
        assert low < roc_auc_score(labels, sizes) < high
    recipes = [replace(RECIPE, seed=2, number=i, size_effect=0.12) for i in range(len(heads))]
    sizes = [draw_head(recipe, bool(recipe.number % 2))[0] for recipe in recipes]
    assert np.corrcoef(np.power(sizes, 3), heads.numbers["brain volume (ml)"])[0, 1] > 0.9


def test_the_ventricles_of_a_person_differ():
    names = head_label_numbers()
    numbers = [names[f"lateral ventricle {side}"] for side in ("left", "right")]
    maps = [synthetic_head(replace(RECIPE, number=number))[2] for number in range(8)]
    left, right = np.array([[(labels == number).sum() for number in numbers] for labels in maps]).T
    asymmetry = (left - right) / (left + right)
    assert asymmetry.std() > 0.07
    assert asymmetry.min() < 0 < asymmetry.max()


def test_what_is_known_of_the_heads(heads):
    assert heads.class_names == ("female", "male")
    assert heads.labels.tolist() == [0, 1] * 20
    assert heads.shape == (15, 20, 19)
    np.testing.assert_allclose(heads.affine[:3, 3], [-84, -102, -132])
    voxels = torch.tensor([(heads.label_map(i) > 0).sum() for i in range(len(heads))])
    torch.testing.assert_close(heads.numbers["brain volume (ml)"], (voxels * 1.728).float())
    assert (heads.numbers["brain difference"][heads.labels == 0] == 0).all()
    assert 0.15 < heads.numbers["brain difference"][heads.labels == 1].mean() < 0.25
    assert bool(heads.has_mask.all())
    assert heads.info["label_names"][1] == "hippocampus left"


def test_a_head_depends_on_the_arguments_and_its_position_alone(heads, tmp_path):
    options = {"spacing": 12, "seed": 2, "cache_dir": tmp_path, "progress": False}
    few = synthetic_heads(3, **options)
    assert few.fingerprint() == heads[:3].fingerprint()
    assert torch.equal(few.label_maps[:], heads.label_maps[:3])
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")}
    synthetic_heads(3, **options)
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")}
    assert len(before) == 9
    for changes in ({"seed": 4}, {"size_effect": 0.0}, {"face_effect": 0.0}, {"brain_effect": 0.0}):
        assert synthetic_heads(2, **options | changes).fingerprint() != heads[:2].fingerprint()
    small = synthetic_heads(1, **options, shape=(13, 18, 17))
    assert small.shape == (13, 18, 17)
    assert torch.equal(small.label_maps[0], heads.label_maps[0][:, 1:-1, 1:-1, 1:-1])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_subjects": 0}, "n_subjects=0"),
        ({"spacing": 0.0}, "spacing"),
        ({"size_effect": 0.6}, r"size_effect=0.6; expected 0 \(none\) to 0.5"),
        ({"face_effect": -0.1}, "face_effect=-0.1"),
        ({"brain_effect": 0.7}, "brain_effect=0.7"),
        ({"brain_effect": float("nan")}, "brain_effect=nan"),
        ({"regions": ["insula"]}, "insula"),
        ({"regions": "thalamus"}, "regions='thalamus'"),
        ({"regions": []}, "regions="),
    ],
)
def test_parameters_out_of_range_are_refused(changes, message):
    options = {"n_subjects": 2, "spacing": 12.0, "seed": 0, "progress": False} | changes
    with pytest.raises(ParameterError, match=message):
        synthetic_heads(**options)


def test_the_distance_to_an_ellipsoid_is_that_to_a_sphere():
    mm = np.random.default_rng(0).normal(0, 20, size=(3, 4, 5, 6)).astype(np.float32)
    ball = Ellipsoid((3, -2, 1), (10, 10, 10), 30)
    expected = np.linalg.norm(mm - np.array([3, -2, 1])[:, None, None, None], axis=0)
    np.testing.assert_allclose(ball.distance(mm), expected - 10, atol=1e-3)
    np.testing.assert_allclose(ball.distance(mm, 1.5), expected - 15, atol=1e-3)
    np.testing.assert_allclose(
        ball.mirrored().distance(mm), ball.distance(mm * [[[[-1]]], [[[1]]], [[[1]]]]), atol=1e-3
    )
