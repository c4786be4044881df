"""Maps of segmentation networks, against plain float64 autograd through the user's own model."""

import copy

import pytest
import torch
from monai.inferers import sliding_window_inference
from monai.networks.nets import UNet
from torch import nn
from zennit.attribution import Gradient
from zennit.composites import LayerMapComposite, layer_map_base
from zennit.rules import AlphaBeta
from zennit.types import Linear

from xaitools.attribution import attribute_segmentation, xrai
from xaitools.attribution._stream import add_noise, seed_of
from xaitools.errors import (
    DataError,
    MethodError,
    ParameterError,
    ShapeError,
    TargetError,
    UnsupportedModelError,
)

QUIET = {"progress": False}


def unet(dims: int, classes: int = 3, **more) -> nn.Module:
    """MONAI's residual U-Net, small; instance normalisation and PReLU unless `more` says otherwise."""
    torch.manual_seed(0)
    settings = {"channels": (4, 8, 8), "strides": (2, 2), "num_res_units": 1, **more}
    return UNet(dims, 1, classes, **settings).eval()


DILATIONS = (1, 1, 2, 2, 1, 1, 1, 1)


def mesh_net(classes: int = 3) -> nn.Module:
    """As in brainchop: dilated convolutions, each with batch normalisation and ReLU, then one of 1x1x1."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    channels = 1
    for dilation in DILATIONS:
        layers += [
            nn.Conv3d(channels, 5, 3, padding=dilation, dilation=dilation),
            nn.BatchNorm3d(5),
            nn.ReLU(inplace=True),
            nn.Dropout3d(0.1),
        ]
        channels = 5
    return nn.Sequential(*layers, nn.Conv3d(5, classes, 1)).eval()


def image_of(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(3))


def score64(model: nn.Module, images: torch.Tensor, target: int, weights: torch.Tensor, **sliding):
    """The score in float64 through the user's own model, and its gradient."""
    model = copy.deepcopy(model).double()
    leaf = images.double().requires_grad_()
    dense = sliding_window_inference(leaf, predictor=model, **sliding) if sliding else model(leaf)
    scores = (dense[:, target] * weights).flatten(1).sum(1)
    return scores.detach(), torch.autograd.grad(scores.sum(), leaf)[0]


def close(actual, expected, rtol=2e-4):
    torch.testing.assert_close(
        actual.double(), expected.double(), rtol=rtol, atol=rtol * float(expected.abs().max())
    )


def predicted(model, images, target):
    with torch.no_grad():
        return (model(images).argmax(1) == target).double()


@pytest.mark.parametrize("dims", [2, 3])
def test_the_gradient_is_that_of_the_sum_over_the_predicted_region(dims) -> None:
    model, images = unet(dims), image_of(2, 1, *[16] * dims)
    maps = attribute_segmentation(model, images, 1, ["gradient", "input_x_gradient"], **QUIET)
    weights = predicted(model, images, 1)
    scores, gradient = score64(model, images, 1, weights)
    close(maps["gradient"], gradient)
    close(maps["input_x_gradient"], images * gradient)
    close(maps.scores, scores)
    assert torch.equal(maps.regions.double(), weights)
    assert 0 < weights.mean() < 1


SLIDING = {
    "gaussian": ({"window": 16, "overlap": 0.5, "mode": "gaussian"}, (27, 12)),
    "constant": ({"window": (16, 8), "overlap": (0.25, 0.6)}, (21, 15)),
    "padded": ({"window": (16, 24), "overlap": 0.25, "mode": "gaussian", "sigma_scale": 0.3}, (27, 13)),
    "one window": ({"window": 24}, (24, 17)),
}


@pytest.mark.parametrize("kind", SLIDING)
def test_windows_are_those_of_monai(kind) -> None:
    settings, shape = SLIDING[kind]
    model, images = unet(2, channels=(4, 8), strides=(2,)), image_of(2, 1, *shape)
    methods = ["gradient", "integrated_gradients[black]", "idgi", "gradient+smoothgrad_squared+absolute"]
    maps = attribute_segmentation(model, images, 2, methods, steps=3, draws=2, seed=1, **settings, **QUIET)
    sliding = {("roi_size" if key == "window" else key): value for key, value in settings.items()}
    sliding["sw_batch_size"] = 3
    with torch.no_grad():
        dense = sliding_window_inference(images, predictor=model, **sliding)
    weights = (dense.argmax(1) == 2).double()
    assert torch.equal(maps.regions.double(), weights)
    scores, gradient = score64(model, images, 2, weights, **sliding)
    close(maps["gradient"], gradient)
    close(maps.scores, scores)
    empty = score64(model, torch.zeros_like(images), 2, weights, **sliding)[0]
    close(maps["idgi"].flatten(1).sum(1), scores - empty, rtol=1e-3)
    gap = maps["integrated_gradients[black]"].double().flatten(1).sum(1) - (scores - empty)
    close(maps.completeness_gap["integrated_gradients[black]"] / scores, gap / scores, rtol=1e-3)


RULES = ["lrp[epsilon]", "lrp[alpha2_beta1]", "lrp[gamma]", "deep_taylor", "guided_backprop", "deconvolution"]


def relu_unet(dims: int, **more) -> nn.Module:
    return unet(
        dims,
        **{"channels": (4, 8), "strides": (2,), "norm": "batch", "act": "relu", "num_res_units": 0, **more},
    )


@pytest.mark.parametrize("dims", [2, 3])
def test_relevance_begins_at_the_voxels_of_the_region(dims) -> None:
    """Transposed convolutions and concatenations on the way; zennit is told where to begin."""
    model, images = relu_unet(dims, norm=None).double(), image_of(2, 1, *[8] * dims).double()
    mask = image_of(*[8] * dims)
    maps = attribute_segmentation(model, images, 1, ["lrp[alpha2_beta1]"], region=mask, **QUIET)
    everywhere = (Linear, AlphaBeta(2, 1, stabilizer=1e-6))
    composite = LayerMapComposite([*layer_map_base(), everywhere])
    start = torch.eye(3).double()[1].view(1, 3, *[1] * dims) * mask
    with Gradient(model, composite) as attributor:
        _, expected = attributor(images, lambda output: output.detach() * start)
    close(maps["lrp[alpha2_beta1]"], expected)


@pytest.mark.parametrize("name", RULES)
def test_rules_of_a_stitched_prediction_are_sums_over_windows(name) -> None:
    """Each window by itself, its weights worked out by hand."""
    model, images = relu_unet(2), image_of(1, 1, 16, 12)
    mask = image_of(16, 12)
    options = {"deep_taylor": {"high": 2.0}}
    whole = attribute_segmentation(
        model, images, 0, [name], region=mask, window=(8, 12), overlap=0.5, options=options, **QUIET
    )
    expected, count = torch.zeros(1, 1, 16, 12), torch.ones(16, 12)
    count[4:12] = 2
    for start in (0, 4, 8):
        part = slice(start, start + 8)
        crop, weights = images[:, :, part], (mask / count)[part]
        own = attribute_segmentation(model, crop, 0, [name], region=weights, options=options, **QUIET)
        expected[:, :, part] += own[name]
    close(whole[name], expected)
    if name in whole.relevance_gap:
        close(whole.relevance_gap[name] + whole[name].sum((1, 2, 3)), whole.scores)


def test_relevance_adds_up_to_the_score_without_biases() -> None:
    model = relu_unet(2, bias=False)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.zeros_(module.bias)
    maps = attribute_segmentation(
        model, image_of(1, 1, 16, 16), 0, ["lrp[epsilon]"], region="positive", **QUIET
    )
    close(maps["lrp[epsilon]"].sum((1, 2, 3)), maps.scores, rtol=1e-3)


@pytest.mark.parametrize("window", [None, (8, 10)])
def test_occlusion_is_brute_force_with_the_clean_region(window) -> None:
    model, images, mask = relu_unet(2), image_of(1, 1, 12, 12), image_of(12, 12) > 0.4
    maps = attribute_segmentation(model, images, 1, ["occlusion[4]"], region=mask, window=window, **QUIET)
    sliding = {} if window is None else {"roi_size": window, "sw_batch_size": 1}
    clean = score64(model, images, 1, maps.regions, **sliding)[0]
    for x in range(0, images.shape[2], 4):
        for y in range(0, images.shape[3], 4):
            hidden = images.clone()
            hidden[..., x : x + 4, y : y + 4] = 0
            fall = clean - score64(model, hidden, 1, maps.regions, **sliding)[0]
            close(maps["occlusion[4]"][0, 0, x : x + 4, y : y + 4], fall.expand(4, 4), rtol=1e-3)


def test_nothing_outside_the_receptive_field_matters() -> None:
    """A voxel sees as far to each side as the dilations add up to."""
    model, images = mesh_net(), image_of(1, 1, 24, 23, 22)
    voxel, reach = [(12, 13), (11, 12), slice(11, 12)], sum(DILATIONS)
    maps = attribute_segmentation(
        model, images, 2, ["gradient", "integrated_gradients[black]", "lrp[epsilon]"], region=voxel, **QUIET
    )
    for value in maps.values():
        inside = torch.zeros(24, 23, 22, dtype=torch.bool)
        inside[12 - reach : 13 + reach, 11 - reach : 12 + reach, 11 - reach : 12 + reach] = True
        assert (value[0, 0][~inside] == 0).all()
        assert (value[0, 0][inside] != 0).float().mean() > 0.5
    close(maps["gradient"], score64(model, images, 2, maps.regions)[1])


def test_smoothing_and_regions_are_taken_of_the_stitched_map() -> None:
    """One field of noise for the image, in proportion to its whole range; windows of pure background harm nobody."""
    model, images = relu_unet(2), image_of(1, 1, 24, 16)
    images[:, :, 12:] = 0
    settings = {"window": 12, "overlap": 0.0, "region": (slice(0, 24), slice(2, 9))}
    names = ["gradient+smoothgrad", "gradient+vargrad+absolute", "gradient", "gradient+absolute@xrai"]
    maps = attribute_segmentation(model, images, 0, names, draws=3, **settings, **QUIET)
    sliding = {"roi_size": (12, 12), "sw_batch_size": 1, "overlap": 0.0}
    seed = seed_of(images[0], 0)
    copies = torch.stack([add_noise(images[0], draw, 0.15, seed + (draw << 12)) for draw in (1, 2, 3)])
    noisy = score64(model, copies, 0, maps.regions, **sliding)[1]
    close(maps["gradient+smoothgrad"], noisy.mean(0, keepdim=True))
    close(maps["gradient+vargrad+absolute"], noisy.var(0, correction=0, keepdim=True), rtol=1e-3)
    close(maps["gradient"], score64(model, images, 0, maps.regions, **sliding)[1])
    close(maps["gradient+absolute@xrai"], xrai(maps["gradient"].abs(), images))


METHODS_OF_ALL_KINDS = ["gradient+smoothgrad", "lrp[epsilon]", "occlusion[5]", "captum.Saliency"]


@pytest.mark.parametrize("window", [None, 8])
def test_an_image_does_not_depend_on_its_batch(window) -> None:
    model, images = relu_unet(2), image_of(3, 1, 8, 12)
    settings = {"draws": 2, "window": window, "region": "positive", **QUIET}
    together = attribute_segmentation(
        model, images, [0, 1, 2], METHODS_OF_ALL_KINDS, batch_size=2, **settings
    )
    alone = attribute_segmentation(model, images[1:2], 1, METHODS_OF_ALL_KINDS, **settings)
    for name in METHODS_OF_ALL_KINDS:
        close(together[name][1:2], alone[name])


def test_masks_boxes_and_own_predictions() -> None:
    model, images = unet(2), image_of(2, 1, 8, 8)
    box = torch.zeros(8, 8)
    box[2:5, :3] = 1
    each = torch.stack([box, 1 - box])
    expected = {
        "box": score64(model, images, 1, box)[1],
        "each": score64(model, images, 1, each)[1],
        "positive": score64(model, images, 1, (model(images)[:, 1] > 0).double())[1],
    }
    regions = {"box": [(2, 5), slice(None, 3)], "each": each[:, None].bool().numpy(), "positive": "positive"}
    for key, region in regions.items():
        maps = attribute_segmentation(model, images, 1, region=region, **QUIET)
        close(maps["gradient"], expected[key])


class Answers(nn.Module):
    """A segmentation network whose answers come in some other form."""

    def __init__(self, net: nn.Module, form) -> None:
        super().__init__()
        self.net, self.form = net, form

    def forward(self, x):
        return self.form(self.net(x))


def test_other_outputs_than_one_tensor() -> None:
    net, images = relu_unet(2), image_of(1, 1, 8, 8)
    expected = attribute_segmentation(
        net, images, 1, ["gradient", "occlusion[4]"], region="positive", **QUIET
    )
    deep = Answers(net, lambda y: [y, nn.functional.avg_pool2d(y, 2)])
    forms = {
        "list": (deep, 0),
        "tuple of one": (Answers(net, lambda y: (y,)), None),
        "dict": (Answers(net, lambda y: {"out": y, "aux": y * 2}), "out"),
        "function": (Answers(net, lambda y: [{"out": y}]), lambda returned: returned[0]["out"]),
    }
    for model, output in forms.values():
        maps = attribute_segmentation(
            model, images, 1, ["gradient", "occlusion[4]"], region="positive", output=output, **QUIET
        )
        for name, value in expected.items():
            close(maps[name], value)
    coarse = attribute_segmentation(deep, images, 1, output=1, region=[(0, 1), (0, 4)], **QUIET)
    fine = torch.zeros(8, 8)
    fine[:2] = 0.25
    close(coarse["gradient"], score64(net, images, 1, fine)[1])
    assert coarse.regions.shape == (1, 4, 4)


def test_the_single_channel_of_a_binary_segmentation() -> None:
    model, images = unet(2, classes=1), image_of(1, 1, 8, 8)
    weights = (model(images)[:, 0] > 0).double()
    assert 0 < weights.mean() < 1
    close(attribute_segmentation(model, images, **QUIET)["gradient"], score64(model, images, 0, weights)[1])


def test_one_count_of_passes_for_all_images() -> None:
    told = []
    model, images = relu_unet(2), image_of(3, 1, 8, 12)
    maps = attribute_segmentation(
        model,
        images,
        1,
        ["integrated_gradients[black]", "occlusion[4]"],
        window=8,
        region=[(0, 8), (0, 12)],
        steps=5,
        batch_size=2,
        progress=lambda done, total: told.append((done, total)),
    )
    assert told[-1] == (maps.passes, maps.passes) == (3 * (5 + 6),) * 2
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert {total for _, total in told} == {maps.passes}

    def stop(done: int, total: int) -> None:
        if done > 12:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        attribute_segmentation(
            model, images, 1, ["idgi"], steps=50, on_error="keep", progress=stop, region=BOX
        )


def test_a_method_that_does_not_suit_is_refused_or_kept() -> None:
    model, images = unet(2), image_of(2, 1, 8, 8)
    with pytest.raises(UnsupportedModelError, match="guided_backprop: No ReLU was found in UNet"):
        attribute_segmentation(model, images, 1, ["guided_backprop"], **QUIET)
    for window in (None, 8):
        maps = attribute_segmentation(
            model, images, 1, ["guided_backprop", "gradient"], window=window, on_error="keep", **QUIET
        )
        assert list(maps) == ["gradient"]
        assert list(maps.errors) == ["guided_backprop"]


def test_the_model_and_the_images_stay_as_they_are() -> None:
    model, images = mesh_net().train(), image_of(1, 1, 8, 7, 6)
    before, kept = copy.deepcopy(model.state_dict()), images.clone()
    attribute_segmentation(
        model, images, 1, ["gradient", "lrp[epsilon]"], region=[(0, 4)] * 3, window=6, **QUIET
    )
    assert model.training
    assert torch.equal(images, kept)
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key])


BOX = [(0, 4), (0, 4)]
REFUSED = {
    "an empty prediction": (DataError, "empty for images 0, 1", {"region": torch.zeros(8, 8)}),
    "a mask of another grid": (ShapeError, r"\(4, 8\).*resample", {"region": torch.ones(4, 8)}),
    "a label map": (DataError, "labels == number", {"region": 2 * torch.ones(8, 8, dtype=torch.int64)}),
    "NaN": (DataError, "finite", {"region": torch.full((8, 8), torch.nan)}),
    "a box beyond the border": (ParameterError, "within the grid", {"region": [(0, 9), (0, 4)]}),
    "a box of one axis": (ParameterError, "each of its", {"region": [(0, 4)]}),
    "an unknown region": (ParameterError, "Did you mean 'prediction'", {"region": "predicton"}),
    "no window": (ParameterError, "window=0", {"region": BOX, "window": 0}),
    "two windows too many": (ParameterError, "each of 2", {"region": BOX, "window": (4, 4, 4, 4)}),
    "an overlap of all": (ParameterError, "below 1", {"region": BOX, "window": 4, "overlap": 1.0}),
    "an unknown mode": (ParameterError, "constant, gaussian", {"region": BOX, "window": 4, "mode": "mean"}),
    "an unknown class": (TargetError, "3 outputs", {"target": 3}),
    "an unknown method": (MethodError, "gradient", {"region": BOX, "methods": ["gradeint"]}),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_refused_in_words(kind) -> None:
    error, words, settings = REFUSED[kind]
    with pytest.raises(error, match=words):
        attribute_segmentation(unet(2), image_of(2, 1, 8, 8), **{"target": 1, **settings, **QUIET})


def test_other_networks_are_refused_in_words() -> None:
    images = image_of(1, 1, 8, 8)
    classifier = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    with pytest.raises(UnsupportedModelError, match="use attribute for a classifier"):
        attribute_segmentation(classifier, images, 1, **QUIET)
    with pytest.raises(UnsupportedModelError, match=r"returns list.*output="):
        attribute_segmentation(Answers(unet(2), lambda y: [y, y]), images, 1, **QUIET)
    coarse = Answers(unet(2), lambda y: nn.functional.avg_pool2d(y, 2))
    with pytest.raises(UnsupportedModelError, match="voxel by voxel"):
        attribute_segmentation(coarse, images, 1, window=8, **QUIET)


def test_captums_rules_know_the_region_of_each_image() -> None:
    model, images = relu_unet(2), image_of(2, 1, 8, 8)
    names = ["captum.GuidedBackprop", "guided_backprop"]
    maps = attribute_segmentation(model, images, [0, 1], names, region=image_of(2, 8, 8), **QUIET)
    close(maps[names[0]], maps[names[1]])
    with pytest.raises(UnsupportedModelError, match="copies the network"):
        attribute_segmentation(model, images, 1, names, region=BOX, window=4, **QUIET)
