import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from xaitools.errors import DataError, ShapeError
from xaitools.evaluation import localization


def by_definition(values: np.ndarray, mask: np.ndarray) -> tuple[float, float, float]:
    inside, outside = values[mask].astype(float), values[~mask].astype(float)
    wins = [float(a > b) + 0.5 * (a == b) for a in inside for b in outside]
    dice = {}
    for threshold in np.unique(values):
        kept = values >= threshold
        dice[kept.mean()] = 2 * (kept & mask).sum() / (kept.sum() + mask.sum())
    fraction = min(q for q, d in dice.items() if d == max(dice.values()))
    return float(np.mean(wins)), dice[fraction], fraction


def example(levels: int | None, shape: tuple[int, ...], seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    masks = rng.random((4, *shape)) < 0.3
    maps = (rng.random((4, *shape)) + 0.4 * masks).astype(np.float32)
    return (maps if levels is None else np.round(maps * levels).astype(np.float32)), masks


@pytest.mark.parametrize("shape", [(9, 7), (4, 5, 3)])
@pytest.mark.parametrize("levels", [None, 12, 2], ids=["distinct", "few ties", "many ties"])
def test_agrees_with_the_definitions(levels: int | None, shape: tuple[int, ...]) -> None:
    maps, masks = example(levels, shape, seed=len(shape))
    scores = localization(maps, masks)
    expected = np.array([by_definition(values, mask) for values, mask in zip(maps, masks, strict=True)])
    for column, name in enumerate(("auc", "dice", "dice_fraction")):
        np.testing.assert_allclose(scores[name], expected[:, column], rtol=0, atol=1e-14)


@pytest.mark.parametrize("levels", [None, 6])
def test_auc_agrees_with_scikit_learn(levels: int | None) -> None:
    maps, masks = example(levels, (64, 64), seed=0)
    expected = [roc_auc_score(mask.ravel(), values.ravel()) for values, mask in zip(maps, masks, strict=True)]
    np.testing.assert_allclose(localization(maps, masks)["auc"], expected, rtol=0, atol=1e-12)


def test_regions_count_as_wholes() -> None:
    """Four quadrants: the mask is half of the best one, so that quadrant as a whole is the best choice."""
    maps = np.kron([[4.0, 3.0], [2.0, 1.0]], np.ones((8, 8)))[None]
    mask = np.zeros((1, 16, 16), dtype=bool)
    mask[0, :8, :4] = True
    scores = localization(maps, mask)
    assert scores["dice"][0] == 2 * 32 / (64 + 32)
    assert scores["dice_fraction"][0] == 0.25
    assert scores["auc"][0] == (192 + 32 / 2) / 224


def test_constant_map_is_chance() -> None:
    _, masks = example(None, (9, 7), seed=0)
    scores = localization(np.zeros((4, 9, 7)), masks)
    assert scores["auc"].tolist() == [0.5] * 4
    assert scores["dice_fraction"].tolist() == [1.0] * 4
    share = masks.mean(axis=(1, 2))
    np.testing.assert_allclose(scores["dice"], 2 * share / (1 + share))


def test_perfect_and_inverted_maps() -> None:
    _, masks = example(None, (9, 7), seed=0)
    perfect = localization(masks.astype(float), masks)
    assert perfect["auc"].tolist() == perfect["dice"].tolist() == [1.0] * 4
    np.testing.assert_allclose(perfect["dice_fraction"], masks.mean(axis=(1, 2)))
    assert localization(1.0 - masks, masks)["auc"].tolist() == [0.0] * 4


@pytest.mark.parametrize("levels", [None, 6])
def test_increasing_transforms_change_nothing(levels: int | None) -> None:
    maps, masks = example(levels, (16, 16), seed=1)
    expected = localization(maps.astype(float), masks)
    for transform in (np.exp, lambda values: 3 * values - 7):
        scores = localization(transform(maps.astype(float)), masks)
        assert all(np.array_equal(scores[name], expected[name]) for name in expected)
    np.testing.assert_allclose(localization(-maps, masks)["auc"], 1 - expected["auc"], atol=1e-14)


def test_tensors_arrays_channels_and_one_mask_for_all_agree() -> None:
    maps, masks = example(6, (5, 6, 7), seed=1)
    expected = localization(maps, masks[:1])
    same = localization(maps, np.repeat(masks[:1], 4, axis=0))
    tensors = localization(torch.tensor(maps).unsqueeze(1).requires_grad_(), torch.tensor(masks[:1]))
    mixed = localization(maps, torch.tensor(masks[:1]).unsqueeze(1))
    for scores in (same, tensors, mixed):
        assert all(np.array_equal(scores[name], expected[name]) for name in expected)


def test_half_precision_maps_are_taken() -> None:
    maps, masks = example(6, (9, 7), seed=1)
    scores = localization(torch.tensor(maps).bfloat16(), masks)
    assert all(np.array_equal(scores[name], values) for name, values in localization(maps, masks).items())


def test_large_image_needs_exact_counts() -> None:
    values = np.arange(300_000.0).reshape(1, 500, 600)
    scores = localization(values, values >= 150_000)
    assert (scores["auc"][0], scores["dice"][0], scores["dice_fraction"][0]) == (1.0, 1.0, 0.5)


def test_bad_input_is_named() -> None:
    maps, masks = example(None, (9, 7), seed=0)
    spoiled = maps.copy()
    spoiled[2, 0, 0] = np.nan
    black, white = masks.copy(), masks.copy()
    black[1], white[3] = False, True
    for bad_maps, bad_masks, error, message in [
        (spoiled, masks, DataError, "map 2 has NaN"),
        (maps, black, DataError, "mask 1 is all black"),
        (maps, white, DataError, "mask 3 is all white"),
        (maps, masks.astype(np.uint8) * 255, DataError, "of type uint8; expected bool"),
        (maps, masks[:, :, :6], ShapeError, r"\(4, 9, 7\) and masks of shape \(4, 9, 6\) do not fit"),
        (maps, masks[:3], ShapeError, "expected one mask for each map, or one for all"),
        (np.repeat(maps[:, None], 3, axis=1), masks, ShapeError, "reduce the channels"),
    ]:
        with pytest.raises(error, match=message):
            localization(bad_maps, bad_masks)
