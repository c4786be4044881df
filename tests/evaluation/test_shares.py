"""Parts of a head by geometry, and the share of an explanation in each: closed forms."""

import numpy as np
import pytest

from xaitools.data.grids import Grid
from xaitools.errors import DataError, ParameterError, ShapeError
from xaitools.evaluation import explanation_shares, tissue_masks

AFFINE = np.diag([2.0, 2, 2, 1])
AFFINE[:3, 3] = -30


def ball(radius=20.0, shape=(31, 31, 31)):
    place = np.moveaxis(np.indices(shape), 0, -1) * 2.0 - 30
    return (np.linalg.norm(place, axis=-1) < radius) * 7, place


def test_parts_of_a_ball():
    labels, place = ball()
    distance = np.linalg.norm(place, axis=-1)
    parts = tissue_masks(labels, AFFINE, rim=5.0)
    assert parts["inside"][distance < 13].all()
    assert not parts["inside"][distance > 17].any()
    assert parts["rim"][(distance > 17) & (distance < 23)].all()
    assert not parts["rim"][(distance > 27) | (distance < 13)].any()
    assert parts["outside"][distance > 27].all()
    front_below = (place[..., 1] > 0) & (place[..., 2] < 0)
    assert np.array_equal(parts["face"], parts["outside"] & front_below)
    covered = sum(parts[part].astype(int) for part in ("inside", "rim", "face", "other"))
    assert (covered == 1).all()
    assert np.array_equal(parts["outside"], parts["face"] | parts["other"])


def test_the_affine_says_where_the_front_is():
    labels, _ = ball()
    labels[20:] = 0  # not symmetric
    expected = tissue_masks(labels, AFFINE)
    grid = Grid(labels.shape, AFFINE).turned("PSL")
    turned = np.flip(labels.transpose(1, 2, 0), (0, 2))  # y downwards, z, x leftwards
    found = tissue_masks(turned, grid.affine)
    for part, mask in expected.items():
        assert np.array_equal(found[part], np.flip(mask.transpose(1, 2, 0), (0, 2))), part


def test_holes_are_brain_and_coarse_voxels_have_a_rim():
    labels, _ = ball()
    hollow = labels.copy()
    hollow[13:18, 13:18, 13:18] = 0
    assert np.array_equal(tissue_masks(hollow, AFFINE)["inside"], tissue_masks(labels, AFFINE)["inside"])
    rim = tissue_masks(labels, AFFINE, rim=0.1)["rim"]
    assert (rim & (labels > 0)).any()
    assert (rim & (labels == 0)).any()


def test_shares_of_known_maps():
    labels, _ = ball()
    parts = tissue_masks(labels, AFFINE)
    uniform = explanation_shares(np.ones(labels.shape), parts)
    np.testing.assert_allclose(uniform["share"], uniform["volume"])
    np.testing.assert_allclose(uniform["ratio"], 1)
    values = 3.0 * parts["face"] - 1.0 * parts["inside"]
    found = explanation_shares(values, parts).set_index("part").share
    assert found[["face", "outside"]].tolist() == [1, 1]
    assert found[["inside", "rim", "other"]].tolist() == [0, 0, 0]
    both = explanation_shares(values, parts, sign="absolute").set_index("part").share
    faces, insides = 3 * parts["face"].sum(), parts["inside"].sum()
    assert both["face"] == pytest.approx(faces / (faces + insides))
    assert both[["inside", "rim", "face", "other"]].sum() == pytest.approx(1)


def test_a_map_of_nothing_has_no_shares():
    labels, _ = ball()
    found = explanation_shares(-np.ones(labels.shape), tissue_masks(labels, AFFINE))
    assert found["share"].isna().all()
    assert found["volume"].notna().all()


def test_bad_input():
    labels, _ = ball()
    with pytest.raises(DataError, match="the label map is empty"):
        tissue_masks(np.zeros((5, 5, 5)), AFFINE)
    with pytest.raises(DataError, match="above 0 everywhere"):
        tissue_masks(np.ones((5, 5, 5)), AFFINE)
    with pytest.raises(ShapeError, match="expected three axes"):
        Grid((5, 5), AFFINE)
    with pytest.raises(ParameterError, match=r"rim=0"):
        tissue_masks(labels, AFFINE, rim=0)
    with pytest.raises(ShapeError, match="mask 'inside' of shape"):
        explanation_shares(np.ones((3, 3, 3)), {"inside": labels > 0})
    with pytest.raises(DataError, match="expected bool"):
        explanation_shares(np.ones(labels.shape), {"inside": labels})
    with pytest.raises(DataError, match="NaN or infinite"):
        explanation_shares(np.full(labels.shape, np.nan), {"inside": labels > 0})
    with pytest.raises(ParameterError, match="sign='negative' is unknown"):
        explanation_shares(np.ones(labels.shape), {}, sign="negative")
