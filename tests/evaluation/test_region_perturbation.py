from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from xaitools.errors import DataError, ParameterError, ShapeError, TargetError
from xaitools.evaluation import perturbed_images, region_perturbation

RANDOM = ("random", "random")
TRUTH = [0.3, -0.2, 1.0]


def regression(*shape: int) -> Callable[[Tensor], Tensor]:
    """A smooth function of all pixels and of products of neighbours, so that the order matters."""
    weight = torch.randn(*shape, generator=torch.Generator().manual_seed(9)).double()

    def predict(images: Tensor) -> Tensor:
        values = images.double()
        return ((values * weight).flatten(1).sum(1) + (values * values.roll(1, -1)).flatten(1).sum(1)).sin()

    return predict


def classifier(*shape: int) -> Callable[[Tensor], Tensor]:
    weight = torch.randn(3, *shape, generator=torch.Generator().manual_seed(9)).double()
    return lambda images: torch.einsum("kc...,nc...->nk", weight, images.double()).div(4).softmax(dim=1)


def example(*spatial: int, channels: int = 1) -> tuple[Callable, Tensor, dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(3, channels, *spatial, generator=generator)
    maps = {name: torch.randn(3, 1, *spatial, generator=generator) for name in ("gradient", "other")}
    return regression(channels, *spatial), images, maps


def curves(model: Callable, images: Tensor, maps: dict, **options: object):
    return region_perturbation(
        model,
        images,
        maps,
        **{"windows": (2, 3), "n_random": 3, "progress": False, **options},
    )


def edges(size: int, parts: int) -> list[tuple[int, int]]:
    """Start and stop of each part: the first ``size % parts`` are one longer."""
    lengths = [size // parts + (index < size % parts) for index in range(parts)]
    return [(sum(lengths[:index]), sum(lengths[: index + 1])) for index in range(parts)]


def boxes(spatial: tuple[int, ...], windows: tuple[int, ...]) -> list[tuple[slice, ...]]:
    parts = [edges(size, n) for size, n in zip(spatial, windows, strict=True)]
    return [
        tuple(slice(*parts[axis][position]) for axis, position in enumerate(place))
        for place in np.ndindex(*windows)
    ]


def whole_noise(image: Tensor, index: int, **options: object) -> Tensor:
    """The image with every window perturbed, from a grid of one window."""
    flat = torch.zeros(image.shape[1:])
    return perturbed_images(image, flat, windows=(1,) * flat.ndim, index=index, **options)[1].double()


def by_definition(
    predict: Callable, image: Tensor, noisy: Tensor, values: Tensor, windows: tuple[int, ...], sign: int
) -> list[float]:
    """Section 2.2 for one image and map: window after window, each step on its own, in double precision."""
    places = boxes(tuple(values.shape), windows)
    places.sort(key=lambda box: -sign * values[box].double().abs().mean().item())
    curve = []
    for k in range(len(places) + 1):
        perturbed = image.double().clone()
        for box in places[:k]:
            perturbed[(slice(None), *box)] = noisy[(slice(None), *box)]
        curve.append(predict(perturbed.unsqueeze(0))[0].item())
    return curve


@pytest.mark.parametrize(
    ("spatial", "windows", "channels"),
    [((8, 9), (2, 3), 1), ((7, 10), (3, 4), 3), ((5, 4, 6), (2, 2, 3), 1)],
)
def test_agrees_with_the_definition(spatial: tuple, windows: tuple, channels: int) -> None:
    predict, images, maps = example(*spatial, channels=channels)
    result = curves(predict, images, maps, windows=windows, batch_size=7)
    assert set(result.outputs) == {(name, order) for name in maps for order in ("most", "least")} | {RANDOM}
    for name in maps:
        for order, sign in (("most", 1), ("least", -1)):
            expected = np.array(
                [
                    by_definition(
                        predict, images[i], whole_noise(images[i], i), maps[name][i, 0], windows, sign
                    )
                    for i in range(3)
                ]
            )
            np.testing.assert_allclose(result.outputs[name, order], expected, rtol=0, atol=1e-6)
            error = np.abs(expected - np.array(TRUTH)[:, None])
            np.testing.assert_allclose(result.errors(TRUTH)[name, order], error, rtol=0, atol=1e-6)
            n_windows = int(np.prod(windows))
            area = [own[0] - sum(own) / (n_windows + 1) for own in error]
            np.testing.assert_allclose(result.aopc_regression(TRUTH)[name, order], area, rtol=0, atol=1e-6)
            area = [own[0] - sum(own) / (n_windows + 1) for own in expected]
            np.testing.assert_allclose(result.aopc()[name, order], area, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("mode", "unit"), [(m, u) for m in ("add", "replace") for u in ("value", "image_sd")]
)
def test_noise_has_its_mean_and_standard_deviation(mode: str, unit: str) -> None:
    image = 5 + 2 * torch.rand(2, 90, 80, generator=torch.Generator().manual_seed(1))
    image[1] *= 3
    noisy = whole_noise(image, 0, mode=mode, noise_unit=unit, noise_sd=0.3)
    mean, sd = (image.mean().item(), image.std().item()) if unit == "image_sd" else (0, 1)
    noise = noisy - image if mode == "add" else noisy - mean
    assert noise.mean().item() == pytest.approx(0, abs=0.02 * sd)
    assert noise.std().item() == pytest.approx(0.3 * sd, rel=0.03)
    assert abs(np.corrcoef(noise.flatten(), image.flatten())[0, 1]) < 0.03
    assert abs(np.corrcoef(noise[0].flatten(), noise[1].flatten())[0, 1]) < 0.04


def test_clip_bounds_what_is_perturbed() -> None:
    image = torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(1)) * 4 - 2
    free = perturbed_images(image, image, noise_sd=1.0)
    cut = perturbed_images(image, image, noise_sd=1.0, clip=(-1, 1))
    assert torch.equal(cut[0], image)
    assert torch.equal(cut[-1], free[-1].clip(-1, 1))


def test_every_pixel_is_perturbed_once_and_windows_are_contiguous() -> None:
    image = torch.rand(2, 10, 7, generator=torch.Generator().manual_seed(0))
    relevance = torch.randn(10, 7, generator=torch.Generator().manual_seed(1))
    sequence = perturbed_images(image, relevance, windows=(4, 3))
    assert sequence.shape == (13, 2, 10, 7)
    changed = (sequence[1:] != sequence[:-1]).all(dim=1).long()
    assert ((sequence[1:] != sequence[:-1]).any(dim=1) == changed).all()
    assert (changed.sum(dim=0) == 1).all()
    sizes = sorted(changed.flatten(1).sum(dim=1).tolist())
    assert sizes == sorted(h * w for h in (3, 3, 2, 2) for w in (3, 2, 2))
    means = [relevance[step.bool()].abs().mean().item() for step in changed]
    assert means == sorted(means, reverse=True)
    signed = perturbed_images(image, relevance, windows=(4, 3), ranking="mean")
    changed = (signed[1:] != signed[:-1]).all(dim=1)
    means = [relevance[step].mean().item() for step in changed]
    assert means == sorted(means, reverse=True)


def test_perturbed_images_are_those_that_the_model_sees() -> None:
    predict, images, maps = example(8, 9)
    options = {"noise_unit": "image_sd", "mode": "replace", "seed": 4, "n_perturbed": 5}
    result = curves(predict, images, maps, **options)
    for i in range(3):
        own = perturbed_images(images[i], maps["other"][i], windows=(2, 3), index=i, **options)
        np.testing.assert_allclose(result.outputs["other", "most"][i], predict(own), atol=1e-12)


def test_ends_are_common_and_reversed_orders_meet() -> None:
    predict, images, maps = example(8, 9)
    result = curves(predict, images, maps)
    for outputs in result.runs.values():
        np.testing.assert_array_equal(outputs[..., 0], np.broadcast_to(predict(images), outputs.shape[:-1]))
        np.testing.assert_array_equal(
            outputs[..., -1], np.broadcast_to(result.outputs["other", "most"][:, -1], outputs.shape[:-1])
        )
    inverted = {"inverse": 1 / maps["other"].abs().clamp(min=1e-3)}
    blocks = torch.arange(6.0).reshape(2, 3).kron(torch.ones(4, 3)).expand(3, 8, 9)
    pair = curves(predict, images, {"up": blocks, "down": 5 - blocks, **inverted}).outputs
    np.testing.assert_array_equal(pair["up", "least"], pair["down", "most"])
    np.testing.assert_array_equal(pair["up", "most"], pair["down", "least"])
    assert not np.allclose(pair["up", "most"], pair["up", "least"])


@pytest.mark.parametrize("spatial", [(8, 9), (7, 11)])
def test_constant_maps_share_one_random_order(spatial: tuple) -> None:
    predict, images, _ = example(*spatial)
    flat = torch.full((3, *spatial), 0.1)
    maps = {"flat": flat, "zero": 0 * flat, "large": 1e6 * flat, "double": flat.double() / 3e40}
    outputs = curves(predict, images, maps).outputs
    for name in maps:
        np.testing.assert_array_equal(outputs[name, "most"], outputs["flat", "most"])
    other = curves(predict, images, {"flat": flat}, seed=1, noise_sd=0.3).outputs
    assert not np.allclose(other["flat", "most"], outputs["flat", "most"])
    image = torch.zeros(1, *spatial).index_fill(-1, torch.tensor(0), 1)
    firsts = {
        (sequence[1] != sequence[0])[0].nonzero()[0].tolist()[-1]
        for sequence in (perturbed_images(image, flat[0], windows=(1, 4), index=i) for i in range(20))
    }
    assert len(firsts) == 4


def test_tiny_noise_changes_nothing() -> None:
    predict, images, maps = example(8, 9)
    result = curves(predict, images, maps, noise_sd=1e-9)
    for outputs in result.outputs.values():
        np.testing.assert_allclose(outputs, np.tile(outputs[:, :1], 7), atol=1e-6)
    for area in (result.aopc(), result.aopc_regression(TRUTH)):
        assert all(np.abs(values).max() < 1e-6 for values in area.values())


def test_sets_of_windows_are_evaluated_once() -> None:
    predict, images, maps = example(8, 9)
    sizes, seen = [], []

    def counted(batch: Tensor) -> Tensor:
        sizes.append(len(batch))
        seen.extend(image.numpy().tobytes() for image in batch)
        return predict(batch)

    maps["scaled"] = -3 * maps["gradient"]
    result = curves(counted, images, maps, batch_size=10)
    assert result.n_evaluations == sum(sizes) == len(seen) == len(set(seen))
    assert set(sizes[:-1]) == {10}
    assert result.n_evaluations <= 3 * (2 + (2 * 2 + 3) * 5)
    np.testing.assert_array_equal(result.outputs["scaled", "most"], result.outputs["gradient", "most"])

    small = curves(predict, images, {"gradient": maps["gradient"].double() * 1e-60})
    np.testing.assert_array_equal(small.outputs["gradient", "most"], result.outputs["gradient", "most"])

    # Two orders that differ in their first two windows alone share every step but the first.
    blocks = torch.arange(6.0, 0, -1).reshape(2, 3)
    swapped = blocks.clone().flatten()[[1, 0, 2, 3, 4, 5]].reshape(2, 3)
    two = {
        name: values.kron(torch.ones(4, 3)).expand(3, 8, 9)
        for name, values in {"a": blocks, "b": swapped}.items()
    }
    assert curves(predict, images, two, controls=False).n_evaluations == 3 * (7 + 1)
    short = curves(predict, images, two, controls=False, n_perturbed=2)
    assert short.n_evaluations == 3 * 4
    full = curves(predict, images, two, controls=False)
    np.testing.assert_array_equal(short.outputs["a", "most"], full.outputs["a", "most"][:, :3])
    assert set(short.outputs) == {("a", "most"), ("b", "most")}


def test_random_control_averages_errors_not_outputs() -> None:
    """An output that is 1 above the truth in one order and 1 below in another has error 1, not 0."""
    _, images, maps = example(8, 9)
    sign = iter(np.tile([1.0, -1.0], 500))
    result = curves(lambda batch: torch.tensor([next(sign) for _ in batch]), images, maps, n_random=4)
    assert result.runs[RANDOM].shape == (4, 3, 7)
    np.testing.assert_array_equal(result.errors([0, 0, 0])[RANDOM], 1)
    assert np.abs(result.outputs[RANDOM]).min() < 1
    np.testing.assert_allclose(
        result.aopc()[RANDOM], result.outputs[RANDOM][:, 0] - result.outputs[RANDOM].mean(axis=1)
    )
    np.testing.assert_array_equal(result.aopc_regression([0, 0, 0])[RANDOM], 0)


def test_random_orders_are_uniform() -> None:
    """With an output that counts perturbed pixels by column, each window comes first equally often."""
    image = torch.zeros(1, 1, 4, 4).index_fill(-1, torch.tensor(0), 1)

    def column(batch: Tensor) -> Tensor:
        return (batch != image).any(dim=1).any(dim=1).double() @ torch.tensor([1.0, 10, 100, 1000]).double()

    runs = curves(column, image, {"m": image}, windows=(1, 4), n_random=800).runs[RANDOM]
    first = np.unique(runs[:, 0, 1], return_counts=True)
    assert first[0].tolist() == [1, 10, 100, 1000]
    assert np.abs(first[1] - 200).max() < 60


def test_targets_choose_the_output() -> None:
    _, images, maps = example(8, 9)
    predict = classifier(1, 8, 9)
    chosen = curves(predict, images, maps, target=torch.tensor([2, 0, 1]))
    for i, target in enumerate([2, 0, 1]):
        own = perturbed_images(images[i], maps["other"][i], windows=(2, 3), index=i)
        expected = predict(own)[:, target]
        np.testing.assert_allclose(chosen.outputs["other", "most"][i], expected, atol=1e-12)


def test_noise_is_that_of_the_image_whatever_the_maps_and_batches() -> None:
    predict, images, maps = example(8, 9)
    both = curves(predict, images, maps)
    alone = curves(predict, images, {"other": maps["other"]}, batch_size=1, controls=False)
    np.testing.assert_array_equal(alone.outputs["other", "most"], both.outputs["other", "most"])
    same, other = (curves(predict, images, maps, seed=seed) for seed in (0, 1))
    np.testing.assert_array_equal(same.runs[RANDOM], both.runs[RANDOM])
    assert not np.allclose(other.outputs["other", "most"][:, -1], both.outputs["other", "most"][:, -1])
    fields = [whole_noise(images[0], i) - images[0] for i in (0, 1)]
    assert abs(np.corrcoef(fields[0].flatten(), fields[1].flatten())[0, 1]) < 0.4


def test_the_right_map_disturbs_the_prediction_most() -> None:
    weight = torch.zeros(1, 16, 16)
    weight[:, 4:8, 8:12] = 1
    images = torch.rand(6, 1, 16, 16, generator=torch.Generator().manual_seed(0))

    def total(batch: Tensor) -> Tensor:
        return (batch * weight).sum(dim=(1, 2, 3))[:, None]

    maps = {"right": weight.expand(6, 1, 16, 16), "wrong": 1 - weight.expand(6, 1, 16, 16)}
    area = curves(total, images, maps, windows=(4, 4)).aopc_regression(total(images)[:, 0])
    mean = {key: values.mean() for key, values in area.items()}
    assert mean["right", "most"] < mean[RANDOM] < mean["wrong", "most"] < 0
    assert mean["right", "least"] == pytest.approx(mean["right", "most"] / 16)


def test_bad_input_is_named() -> None:
    predict, images, maps = example(8, 9)
    spoiled, flat, nan_map = images.clone(), images.clone(), maps["other"].clone()
    spoiled[1, 0, 0, 0] = torch.nan
    flat[2] = 0.5
    nan_map[1, 0, 3, 3] = torch.nan
    classes = classifier(1, 8, 9)
    good = {"model": predict, "images": images, "maps": maps}
    for bad, error, message in [
        ({"images": spoiled}, DataError, "images: number 1 of the batch contains NaN"),
        ({"images": flat}, DataError, "number 2 of the batch is constant"),
        ({"images": images[:0]}, ShapeError, "at least one image"),
        ({"maps": {}}, DataError, "maps: got none"),
        ({"maps": {"x": nan_map}}, DataError, "map 'x' has NaN or infinite values for image 1"),
        ({"maps": {"x": maps["other"][..., :5]}}, ShapeError, r"map 'x' has shape \(3, 1, 8, 5\)"),
        ({"model": classes}, TargetError, "returned 3 outputs .* give target"),
        ({"model": classes, "target": [0, 1]}, ShapeError, r"target of shape \(2,\) for 3 images"),
        (
            {"model": classes, "target": [0, 1, 3]},
            TargetError,
            "target 3 with a network of 3 outputs; expected 0 to 2",
        ),
        (
            {"target": [0, 1, 0]},
            TargetError,
            "target 1 with a model of a single output; .*leave target out for a regression",
        ),
        ({"model": lambda batch: torch.ones(2)}, ShapeError, r"model returned shape \(2,\) for"),
        ({"model": lambda batch: batch}, ShapeError, "model returned shape"),
        ({"model": lambda batch: predict(batch) * torch.nan}, DataError, "model returned NaN"),
        ({"windows": (4,)}, ParameterError, r"windows=\(4,\), but the images have 2 spatial axes, \(8, 9\)"),
        ({"windows": (9, 9)}, ParameterError, r"no more than the images' \(8, 9\)"),
        ({"windows": (0, 2)}, ParameterError, "1 window or more"),
        ({"n_perturbed": 0}, ParameterError, "n_perturbed=0; expected 1 to 6"),
        ({"n_perturbed": 7}, ParameterError, "n_perturbed=7"),
        ({"noise_sd": 0}, ParameterError, "noise_sd=0"),
        ({"noise_sd": -0.3}, ParameterError, "noise_sd=-0.3"),
        ({"noise_unit": "sd"}, ParameterError, "noise_unit='sd' is unknown; expected one of value, image_sd"),
        ({"mode": "blur"}, ParameterError, "mode='blur' is unknown; expected one of add, replace"),
        ({"ranking": "sum"}, ParameterError, "ranking='sum' is unknown; expected one of mean_abs, mean"),
        ({"clip": (1, 0)}, ParameterError, r"clip=\(1, 0\)"),
        ({"batch_size": 0}, ParameterError, "batch_size=0"),
        ({"n_random": 0}, ParameterError, "n_random=0"),
    ]:
        with pytest.raises(error, match=message):
            curves(**{**good, **bad})
    result = curves(predict, images, maps)
    with pytest.raises(ShapeError, match="one value for each of the 3 images"):
        result.errors([1.0, 2.0])
    with pytest.raises(DataError, match="true value of image 1 is NaN"):
        result.aopc_regression([1.0, np.nan, 2.0])
