from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from xaitools.errors import DataError, ParameterError, ShapeError, TargetError
from xaitools.evaluation import REPLACEMENTS, fidelity_curves

FRACTIONS = (0.0, 0.1, 0.33, 0.5, 0.8, 1.0)
RANDOM = ("random", "random")


def classifier(*shape: int) -> Callable[[Tensor], Tensor]:
    weight = torch.randn(3, *shape, generator=torch.Generator().manual_seed(9)).double()
    return lambda images: torch.einsum("kc...,nc...->nk", weight, images.double()).div(4).softmax(dim=1)


def example(*spatial: int, channels: int = 1) -> tuple[Callable, Tensor, dict[str, Tensor], Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(3, channels, *spatial, generator=generator)
    maps = {name: torch.randn(3, 1, *spatial, generator=generator) for name in ("gradient", "other")}
    return classifier(channels, *spatial), images, maps, torch.tensor([2, 0, 1])


def curves(model: Callable, images: Tensor, maps: dict, target: Tensor, **options: object):
    return fidelity_curves(
        model,
        images,
        maps,
        target,
        **{"fractions": FRACTIONS, "progress": False, "n_random": 3, **options},
    )


def by_definition(
    predict: Callable, image: Tensor, filler: Tensor, values: Tensor, target: int, sign: int
) -> list:
    """One image, one map: a step at a time, a pixel at a time, in double precision."""
    positions = sorted(np.ndindex(*values.shape), key=lambda position: -sign * values[position].item())
    curve = []
    for q in FRACTIONS:
        perturbed = image.double().clone()
        for position in positions[: round(q * len(positions))]:
            perturbed[(slice(None), *position)] = filler.double()[(slice(None), *position)]
        curve.append(predict(perturbed.unsqueeze(0))[0, target].item())
    return curve


@pytest.mark.parametrize(("spatial", "channels"), [((7, 9), 1), ((6, 5), 3), ((4, 5, 3), 1)])
def test_agrees_with_the_definition(spatial: tuple[int, ...], channels: int) -> None:
    predict, images, maps, targets = example(*spatial, channels=channels)
    filler = torch.rand(images.shape, generator=torch.Generator().manual_seed(5))
    result = curves(predict, images, maps, targets, replacement=filler, batch_size=7)
    for (name, order), found in result.curves.items():
        if name == "random":
            continue
        sign = 1 if order == "most" else -1
        expected = [
            by_definition(predict, images[i], filler[i], maps[name][i, 0], int(targets[i]), sign)
            for i in range(3)
        ]
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    assert set(result.curves) == {(name, order) for name in maps for order in ("most", "least")} | {RANDOM}


def test_random_control_is_the_mean_over_draws() -> None:
    """With a probability linear in the number of replaced pixels, any order gives the same straight line."""
    _, images, maps, targets = example(10, 10)
    seen = []

    def share_left(batch: Tensor) -> Tensor:
        left = (batch > 0).double().mean(dim=(1, 2, 3))
        seen.append(batch)
        return torch.stack([1 - left, left, left], dim=1)

    result = curves(share_left, images, maps, [1, 1, 1])
    np.testing.assert_allclose(result.curves[RANDOM], np.tile(1 - np.array(FRACTIONS), (3, 1)), atol=1e-7)
    half = [batch for batch in torch.cat(seen) if (batch == 0).sum() == 50]
    assert len({(batch == 0).numpy().tobytes() for batch in half}) == 3 * (2 + 2 + 3)

    predict = classifier(1, 10, 10)
    one, many = (curves(predict, images, maps, targets, n_random=n).curves[RANDOM] for n in (1, 400))
    drawn = [
        curves(predict, images, maps, targets, n_random=1, seed=seed).curves[RANDOM] for seed in range(1, 201)
    ]
    np.testing.assert_allclose(many, np.mean(drawn, axis=0), atol=0.02)
    assert np.abs(one - many).max() > 0.02


def test_evaluations_are_shared() -> None:
    predict, images, maps, targets = example(7, 9)
    sizes = []

    def counted(batch: Tensor) -> Tensor:
        sizes.append(len(batch))
        return predict(batch)

    maps["transformed"] = maps["gradient"] ** 3 + 1
    result = curves(counted, images, maps, targets, batch_size=10)
    interior, orders = len(FRACTIONS) - 2, 2 * 2 + 3
    assert result.n_evaluations == sum(sizes) == 3 * (2 + orders * interior)
    assert set(sizes[:-1]) == {10}
    np.testing.assert_array_equal(result.curves["transformed", "most"], result.curves["gradient", "most"])
    for curve in result.curves.values():
        np.testing.assert_allclose(curve[:, [0, -1]], result.curves[RANDOM][:, [0, -1]], atol=1e-12)

    sizes.clear()
    alone = curves(counted, images, maps, targets, controls=False)
    assert sum(sizes) == 3 * (2 + 2 * interior)
    assert set(alone.curves) == {(name, "most") for name in maps}


def test_steps_that_round_to_the_same_pixels_are_shared() -> None:
    predict, images, maps, targets = example(3, 3)
    fine = curves(predict, images, maps, targets, fractions=np.linspace(0, 1, 101), controls=False)
    assert fine.n_evaluations == 3 * (2 + 2 * 8)


def test_ties_go_region_by_region_in_one_scattered_order() -> None:
    predict, images, _, targets = example(8, 8)
    regions = torch.tensor([[3.0, 1.0], [2.0, 0.0]]).kron(torch.ones(4, 4)).expand(3, 8, 8)
    replaced = []

    def watch(batch: Tensor) -> Tensor:
        replaced.extend((batch == -1)[:, 0])
        return predict(batch)

    fractions = (0.0, 0.125, 0.25, 0.375, 0.5)
    options = {"fractions": fractions, "replacement": torch.tensor(-1.0), "controls": False}
    curves(watch, images, {"regions": regions, "scaled": 2 * regions}, targets, **options)
    assert len(replaced) == 3 * 5
    for steps in torch.stack(replaced).unflatten(0, (3, 5)):
        assert torch.equal(steps[2], regions[0] == 3)
        assert torch.equal(steps[4], regions[0] >= 2)
        assert steps[1].sum() == 8
        assert (steps[1] <= steps[2]).all()
        assert (steps[1].any(dim=1).sum(), steps[1].any(dim=0).sum()) != (2, 4)


def test_maps_share_the_order_of_ties() -> None:
    """Where two maps agree on a tie, they replace the same pixels of it."""
    predict, images, _, targets = example(8, 8)
    halves = torch.zeros(3, 8, 8)
    halves[:, :4] = 1
    with_detail = halves.clone()
    with_detail[:, 4:] = torch.rand(3, 4, 8)
    fractions = (0.0, 0.125, 0.25, 0.375, 0.5)
    both = curves(
        predict,
        images,
        {"halves": halves, "detail": with_detail},
        targets,
        fractions=fractions,
        controls=False,
    )
    assert np.array_equal(both.curves["halves", "most"], both.curves["detail", "most"])


def test_replacements() -> None:
    image = np.random.default_rng(0).random((2, 32, 48)).astype(np.float32)
    image[1] *= 3
    filled = {name: function(image, np.random.default_rng(1)) for name, function in REPLACEMENTS.items()}
    assert all(values.shape == image.shape and values.dtype == np.float32 for values in filled.values())
    assert not filled["black"].any()
    np.testing.assert_allclose(filled["mean"][:, 3, 4], image.mean(axis=(1, 2)), rtol=1e-6)
    assert filled["mean"].std(axis=(1, 2)).max() < 1e-6
    expected = ndimage.gaussian_filter1d(
        ndimage.gaussian_filter1d(image, 2, 1, mode="nearest"), 3, 2, mode="nearest"
    )
    np.testing.assert_allclose(filled["blur"], expected, rtol=1e-5)
    np.testing.assert_allclose(filled["noise"].mean(axis=(1, 2)), image.mean(axis=(1, 2)), rtol=0.1)
    np.testing.assert_allclose(filled["noise"].std(axis=(1, 2)), image.std(axis=(1, 2)), rtol=0.1)
    assert abs(np.corrcoef(filled["noise"][0].ravel(), image[0].ravel())[0, 1]) < 0.1


def test_one_noise_field_for_all_maps_and_steps() -> None:
    predict, images, maps, targets = example(7, 9)
    seen: list[Tensor] = []

    def watch(batch: Tensor) -> Tensor:
        seen.extend(batch)
        return predict(batch)

    both = curves(
        watch,
        images[:1],
        {name: values[:1] for name, values in maps.items()},
        targets[:1],
        replacement="noise",
    )
    values = torch.stack(seen)[:, 0].flatten(1)
    assert all(len(column.unique()) == 2 for column in values.T)
    alone = curves(predict, images, {"other": maps["other"]}, targets, replacement="noise", controls=False)
    assert np.array_equal(alone.curves["other", "most"][:1], both.curves["other", "most"])
    other = curves(predict, images, maps, targets, replacement="noise", seed=1)
    assert not np.allclose(other.curves["other", "most"][:1, -1], both.curves["other", "most"][:, -1])


def test_area_is_the_trapezoid_over_the_range_of_q() -> None:
    _, images, maps, targets = example(10, 10)
    constant = curves(
        lambda batch: torch.full((len(batch), 3), 0.25), images, maps, targets, fractions=(0.1, 0.2, 0.6)
    )
    assert all(np.allclose(area, 0.25) for area in constant.area.values())

    def left_squared(batch: Tensor) -> Tensor:
        return (batch > 0).double().mean(dim=(1, 2, 3)).pow(2)[:, None].expand(-1, 3)

    squared = curves(left_squared, images, maps, targets)
    expected = np.interp(np.linspace(0, 1, 10_001), FRACTIONS, (1 - np.array(FRACTIONS)) ** 2).mean()
    assert squared.area["other", "most"] == pytest.approx([expected] * 3, abs=1e-3)


def test_the_right_map_falls_fastest() -> None:
    weight = torch.randn(1, 12, 12, generator=torch.Generator().manual_seed(0))

    def predict(batch: Tensor) -> Tensor:
        probability = (batch * weight).sum(dim=(1, 2, 3)).sigmoid()
        return torch.stack([1 - probability, probability], dim=1)

    images = torch.rand(4, 1, 12, 12, generator=torch.Generator().manual_seed(1))
    maps = {"exact": images * weight, "wrong": torch.rand(4, 12, 12), "inverted": -images * weight}
    area = {key: values.mean() for key, values in curves(predict, images, maps, [1] * 4).area.items()}
    assert area["exact", "most"] < min(area[RANDOM], area["wrong", "most"]) - 0.1
    assert area["exact", "least"] > max(area[RANDOM], area["wrong", "least"]) + 0.05
    assert area["inverted", "most"] == pytest.approx(area["exact", "least"], abs=1e-6)


def test_seed_and_subset_of_maps() -> None:
    predict, images, maps, targets = example(7, 9)
    one, same, other = (
        curves(predict, images, maps, targets, seed=seed).curves[RANDOM] for seed in (1, 1, 2)
    )
    assert np.array_equal(one, same)
    assert not np.allclose(one, other)


def test_bad_input_is_named() -> None:
    predict, images, maps, targets = example(7, 9)
    spoiled, flat, nan_map = images.clone(), images.clone(), maps["other"].clone()
    spoiled[1, 0, 0, 0] = torch.nan
    flat[2] = 0.5
    nan_map[1, 0, 3, 3] = torch.nan
    good = {"model": predict, "images": images, "maps": maps, "target": targets}
    for bad, error, message in [
        ({"images": spoiled}, DataError, "images: number 1 of the batch contains NaN"),
        ({"images": flat}, DataError, "number 2 of the batch is constant; expected contrast"),
        ({"images": images[:0]}, ShapeError, "at least one image"),
        ({"maps": {}}, DataError, "maps: got none"),
        ({"maps": {"x": nan_map}}, DataError, "map 'x' has NaN or infinite values for image 1"),
        (
            {"maps": {"x": maps["other"][:, :, :5]}},
            ShapeError,
            r"map 'x' has shape \(3, 1, 5, 9\); expected \(3, 7, 9\)",
        ),
        ({"maps": maps["other"][:2]}, ShapeError, r"map 'map' has shape \(2, 1, 7, 9\)"),
        ({"target": [0, 1]}, ShapeError, r"target of shape \(2,\) for 3 images"),
        ({"target": [0, 1, 3]}, TargetError, "target 3 with a network of 3 outputs; expected 0 to 2"),
        ({"target": [0, -1, 0]}, TargetError, "target -1"),
        ({"target": 3}, TargetError, "target 3"),
        ({"target": None}, TargetError, "target=None; expected the class"),
        ({"model": lambda batch: batch.flatten()}, ShapeError, "model returned shape"),
        ({"model": lambda batch: {"logits": predict(batch)}}, ShapeError, "model returned a dict"),
        ({"model": lambda batch: predict(batch) * torch.nan}, DataError, "model returned NaN"),
        ({"replacement": "grey"}, ParameterError, "replacement='grey' .* one of black, mean, blur, noise"),
        ({"replacement": torch.zeros(5)}, ShapeError, r"replacement has shape \(5,\)"),
        ({"replacement": torch.tensor(torch.nan)}, DataError, "replacement has NaN"),
        ({"fractions": (0.0, 0.5, 0.5)}, ParameterError, "increasing values from 0 to 1"),
        ({"fractions": (0.0, 50.0, 100.0)}, ParameterError, "increasing values from 0 to 1"),
        ({"fractions": (0.5,)}, ParameterError, "two or more"),
        ({"batch_size": 0}, ParameterError, "batch_size=0"),
        ({"n_random": 0}, ParameterError, "n_random=0"),
    ]:
        with pytest.raises(error, match=message):
            curves(**{**good, **bad})
