"""Masks of images and groups, against a plain loop in float64 and what can be written down."""

import json
import logging

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import nn

from xaitools.attribution import MaskSettings, delete, optimise_masks
from xaitools.attribution._masking import EPSILON, shifted
from xaitools.errors import (
    DataError,
    MethodError,
    ParameterError,
    ShapeError,
    TargetError,
    UnsupportedModelError,
)

QUIET = {"progress": False, "patience": None}


def classifier(axes=2, classes=3, scale=8.0):
    """A small network with everything that is folded, frozen or switched off, sure of itself."""
    torch.manual_seed(axes)
    conv, norm, pool = ((nn.Conv2d, nn.BatchNorm2d, nn.MaxPool2d), (nn.Conv3d, nn.BatchNorm3d, nn.MaxPool3d))[
        axes - 2
    ]
    net = nn.Sequential(
        conv(1, 4, 3, padding=1), norm(4), nn.LeakyReLU(), pool(2), nn.Flatten(), nn.Dropout(0.7)
    )
    net.append(nn.Linear(4 * 4**axes, classes))
    net[-1].weight.data *= scale
    return net.double().eval()


def images_of(axes=2, n=4, size=8):
    return torch.rand(n, 1, *[size] * axes, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


def plain_loop(net, images, target, one, below, score):
    """The poster's equation, word by word: objectives (steps + 1,) and the masks that had them."""
    mask = torch.ones(images.shape[2:], dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([mask], lr=one.learning_rate, eps=EPSILON)
    n = mask.numel() if one.reduction == "mean" else 1
    objectives, masks = [], []
    for _ in range(one.steps + 1):
        masks.append(mask.detach().clone())
        outputs = net(mask * images + (1 - mask) * below)
        p = outputs.softmax(1)[:, target]
        found = {"probability": p, "logit": outputs[:, target], "log_odds": p.log() - (1 - p).log()}[
            score
        ].mean()
        found = found + one.l1 * ((1 - mask).abs() ** one.beta1).sum() / n
        for axis in range(mask.ndim):
            found = found + one.l2 * (mask.diff(dim=axis).abs() ** one.beta2).sum() / n
        (mask.grad,) = torch.autograd.grad(found, mask)
        mask.grad -= (mask == 1) * (one.beta1 == 1) * one.l1 / n  # from below; autograd has 0 there
        adam.step()
        mask.data.clamp_(0, 1)
        objectives.append(float(found.detach()))
    return objectives, masks


@pytest.mark.parametrize("score", ["probability", "logit", "log_odds"])
@pytest.mark.parametrize(
    ("axes", "deletion", "exponents", "reduction"),
    [
        (2, "white", (1, 2), "mean"),
        (2, "blur", (2, 3), "sum"),
        (3, "blur", (1, 1.5), "mean"),
        (3, "white", (1.5, 1), "sum"),
    ],
)
def test_as_a_plain_loop_in_float64(axes, deletion, exponents, reduction, score) -> None:
    net, images = classifier(axes), images_of(axes)
    weight = 1.0 if reduction == "mean" else 1 / images[0].numel()
    options = {
        "beta1": exponents[0],
        "beta2": exponents[1],
        "reduction": reduction,
        "steps": 6,
        "learning_rate": 0.07,
    }
    settings = [
        MaskSettings(weight * 0.3, weight * 0.1, **options),
        MaskSettings(0.0, weight * 0.5, **options),
    ]
    below = torch.ones_like(images)
    if deletion == "blur":
        below = torch.from_numpy(gaussian_filter(images, (0, 0, *[1.2] * axes), mode="nearest"))
    groups = [[0, 2], [1, 3, 2]]
    found = optimise_masks(
        *(net, images, 1),
        **{"groups": groups, "settings": settings, "deletion": deletion, "sigma": 1.2, "score": score},
        **{"batch_size": 3, **QUIET},
    )
    for s, one in enumerate(settings):
        for g, group in enumerate(groups):
            objectives, masks = plain_loop(net, images[group], 1, one, below[group], score)
            history = found.history.query("setting == @s and group == @g")
            np.testing.assert_allclose(history.objective, objectives, rtol=1e-7)
            best = int(np.argmin(objectives))
            torch.testing.assert_close(found.masks[s, g], masks[best], rtol=0, atol=1e-5)
            assert objectives[best] < objectives[0]


class Weighted(nn.Module):
    """A linear network: a sum of the voxels with weights."""

    def __init__(self, shape):
        super().__init__()
        self.flat, self.head = nn.Flatten(), nn.Linear(int(np.prod(shape)), 1, bias=False)
        nn.init.normal_(self.head.weight, generator=torch.Generator().manual_seed(3))

    def forward(self, x):
        return self.head(self.flat(x))


@pytest.mark.parametrize("shape", [(9, 8), (5, 4, 6)])
@pytest.mark.parametrize("deletion", ["white", "blur"])
def test_a_linear_network_hides_what_gains_more_than_it_costs(shape, deletion) -> None:
    net, images = Weighted(shape), torch.rand(3, 1, *shape)
    l1 = 0.2 if deletion == "white" else 0.05
    below = delete(images, torch.zeros(shape), deletion, sigma=2.0)
    gain = (net.head.weight.detach().view(shape) * (images - below)[:, 0]).mean(0)
    found = optimise_masks(
        *(net, images),
        **{"groups": "all", "score": "logit", "deletion": deletion, "sigma": 2.0, **QUIET},
        settings=[
            MaskSettings(l1, 0, reduction="sum", steps=60),
            MaskSettings(l1 * gain.numel(), 0, steps=60),
        ],
    )
    for mask in found.masks[:, 0]:
        torch.testing.assert_close(mask, (gain <= l1).float(), rtol=0, atol=1e-3)
    assert 0.05 < found.report.hidden[0] < 0.95


def test_squared_hiding_has_its_optimum_inside() -> None:
    net, images = Weighted((6, 5)), torch.rand(1, 1, 6, 5)
    gain = net.head.weight.detach().view(6, 5) * (images[0, 0] - 1)
    one = MaskSettings(0.7, 0, beta1=2, reduction="sum", steps=150, learning_rate=0.05)
    found = optimise_masks(net, images, settings=one, score="logit", **QUIET)
    expected = 1 - (gain / 1.4).clamp(0, 1)
    torch.testing.assert_close(found.masks[0, 0], expected, rtol=0, atol=2e-3)
    assert ((expected > 0) & (expected < 1)).sum() > 5


class Flat(nn.Module):
    """A network of slices that takes stacks of them too."""

    def __init__(self, net, deep):
        super().__init__()
        self.net, self.deep = net, deep

    def forward(self, x):
        return sum(self.net(x[..., k]) for k in range(self.deep)) / self.deep


@pytest.mark.parametrize("coarse", [1, 2])
def test_a_volume_that_is_constant_along_an_axis_gets_the_slices_mask(coarse) -> None:
    net, images = classifier(), images_of()
    one = MaskSettings(0.1, 0.3, steps=8, coarse=coarse)
    deep = images[..., None].expand(-1, -1, -1, -1, 4).clone()
    for deletion in ("white", "blur"):
        flat = optimise_masks(
            net, images, 1, groups="all", settings=one, deletion=deletion, sigma=1.0, **QUIET
        )
        full = optimise_masks(
            Flat(net, 4), deep, 1, groups="all", settings=one, deletion=deletion, sigma=1.0, **QUIET
        )
        torch.testing.assert_close(full.masks[..., 2], flat.masks, rtol=0, atol=1e-4)
        np.testing.assert_allclose(full.report.objective, flat.report.objective, rtol=1e-4)
        assert flat.report.hidden[0] > 0.05


@pytest.mark.parametrize("deletion", ["white", "black", "noise", "blur", "pyramid"])
@pytest.mark.parametrize("coarse", [1, 3])
def test_ones_stay_ones_where_hiding_is_dear(deletion, coarse) -> None:
    found = optimise_masks(
        classifier().float(),
        images_of().float(),
        1,
        settings=MaskSettings(1e4, coarse=coarse),
        deletion=deletion,
    )
    assert torch.equal(found.masks, torch.ones(1, 4, 8, 8))
    assert found.report.remark.str.contains("stayed 1: lower l1").all()
    assert (found.report.score_before == found.report.score_after).all()


@pytest.mark.parametrize("coarse", [1, 2])
def test_all_at_once_as_one_after_the_other(coarse) -> None:
    net, images = classifier(), images_of(n=6)
    settings = [
        MaskSettings(0.1, 0.1, steps=7, coarse=coarse),
        MaskSettings(0.01, 0.1, steps=7, coarse=coarse),
        MaskSettings(0.1, steps=5),
        MaskSettings(0.3, steps=7, coarse=coarse, beta2=3, start="circle"),
        MaskSettings(l2=0.2, steps=7, coarse=coarse, area=0.2),
    ]
    targets = torch.tensor([0, 1, 0, 1, 0, 1])
    together = optimise_masks(net, images, targets, groups=targets, settings=settings, **QUIET)
    assert together.masks.shape == (5, 2, 8, 8)
    for s, one in enumerate(settings):
        for g in (0, 1):
            alone = optimise_masks(
                net, images[targets == g], g, groups="all", settings=one, batch_size=1, **QUIET
            )
            torch.testing.assert_close(alone.masks[0, 0], together.masks[s, g], rtol=0, atol=1e-6)
            own = together.history.query("setting == @s and group == @g")
            np.testing.assert_allclose(own.objective, alone.history.objective, rtol=1e-9)


@pytest.mark.parametrize("axes", [2, 3])
@pytest.mark.parametrize(
    "one",
    [
        MaskSettings(0.1, 0.2, coarse=3, steps=9),
        MaskSettings(0.1, 0.2, jitter=2, steps=9, reduction="sum"),
        MaskSettings(l2=0.1, area=0.1, steps=9, start="circle"),
    ],
)
def test_the_mask_that_is_returned_is_the_one_judged(axes, one) -> None:
    net, images = classifier(axes), images_of(axes)
    found = optimise_masks(net, images, 2, groups="all", settings=one, deletion="blur", **QUIET)
    (mask,), row = found.masks[0], found.report.iloc[0]
    score = net(delete(images, mask, "blur")).softmax(1)[:, 2].mean().item()
    assert row.score_after == pytest.approx(score, rel=1e-9)
    assert row.score_before == pytest.approx(net(images).softmax(1)[:, 2].mean().item(), rel=1e-9)
    assert row.hidden == pytest.approx(float((1 - mask).mean()), rel=1e-9)
    assert row.share_at_0 == float((mask <= 1e-3).double().mean())
    assert row.objective == pytest.approx(row.score_after + row.area_penalty + row.smoothness_penalty)
    if one.coarse == 1:
        n = 1 if one.reduction == "sum" else mask.numel()
        rough = sum(float(mask.diff(dim=axis).square().sum()) for axis in range(axes))
        assert row.smoothness_penalty == pytest.approx(one.l2 * rough / n)
        if one.area is None:
            assert row.area_penalty == pytest.approx(one.l1 * float((1 - mask).sum()) / n)
    if not one.jitter and one.area is None:
        assert row.objective == pytest.approx(found.history.objective.min(), rel=1e-9)


def test_images_are_shifted_as_if_their_border_went_on() -> None:
    image = torch.rand(1, 1, 6, 5)
    for shift in ([2, -1], [0, 0], [-3, 4]):
        padded = np.pad(image[0, 0].numpy(), 5, mode="edge")
        expected = padded[5 - shift[0] : 11 - shift[0], 5 - shift[1] : 10 - shift[1]]
        assert (shifted(image, shift)[0, 0].numpy() == expected).all()
    assert torch.equal(shifted(image, []), image)


def test_jitter_is_of_the_seed() -> None:
    net, images = classifier(), images_of()
    one = MaskSettings(0.1, jitter=3, steps=5)
    first, same, other = (
        optimise_masks(net, images, 1, settings=one, seed=seed, **QUIET) for seed in (1, 1, 2)
    )
    assert torch.equal(first.masks, same.masks)
    assert not torch.equal(first.masks, other.masks)


@pytest.mark.parametrize("area", [0.05, 0.25])
@pytest.mark.parametrize("axes", [2, 3])
def test_the_area_is_what_was_asked_for_and_hides_what_matters(axes, area) -> None:
    shape = (10,) * axes
    net, images = Weighted(shape), torch.rand(1, 1, *shape)
    one = MaskSettings(l2=0, area=area, learning_rate=0.05, steps=150)
    found = optimise_masks(net, images, score="share", settings=one, deletion="black", **QUIET)
    row, mask = found.report.iloc[0], found.masks[0, 0]
    assert row.hidden == pytest.approx(area, rel=0.02)
    assert row.remark == ""
    gain = (net.head.weight.detach().view(shape) * images[0, 0]).flatten()
    best = gain.topk(round(area * gain.numel())).values.sum()
    assert float(((1 - mask).flatten() * gain).sum()) > 0.9 * float(best)


def test_a_starting_mask_a_circle_and_coarse_cells() -> None:
    net, images = classifier(), images_of()
    own = torch.zeros(8, 8)
    own[:4] = 1
    settings = [
        MaskSettings(start=own, steps=1),
        MaskSettings(start="circle", steps=1),
        MaskSettings(coarse=4, steps=1),
    ]
    found = optimise_masks(net, images, 1, groups="all", settings=settings, **QUIET)
    first = found.history.query("iteration == 0")
    assert first.share_at_0.tolist() == [0.5, 12 / 64, 0.0]
    assert settings[0] == MaskSettings(start=own.clone(), steps=1) != settings[1]
    assert json.loads(json.dumps(settings[0].plain()))["start"].startswith("mask ")
    assert len(set(settings)) == 3


def test_masks_that_converged_are_passed_no_more() -> None:
    net, images = Weighted((6, 5)), torch.rand(2, 1, 6, 5)
    settings = [MaskSettings(1e4, steps=200), MaskSettings(0.02, 0.1, steps=200, learning_rate=0.01)]
    told: list[tuple[int, int]] = []
    found = optimise_masks(
        *(net, images),
        **{"groups": "all", "settings": settings, "score": "logit", "patience": 10},
        progress=lambda *pair: told.append(pair),
    )
    first, second = found.report.iterations
    assert first == 10 < second
    assert found.report.stopped[0] == "converged"
    assert len(found.history.query("setting == 0")) == 11
    assert told[-1] == (402, 402)


def test_a_mask_that_still_moves_says_so() -> None:
    found = optimise_masks(classifier(), images_of(), 1, settings=MaskSettings(0.01, steps=4), progress=False)
    assert found.report.stopped.str.startswith("not yet: still moving by ").all()
    assert found.report.remark.str.contains("raise steps").all()
    assert "not yet" in repr(found)


class Breaks(nn.Module):
    """Has no answer for images that are too dark."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x):
        return (x.mean((1, 2, 3)) * self.scale - 0.3).sqrt()


def test_nan_keeps_the_last_good_mask_and_the_others_go_on() -> None:
    images = 0.5 + 0.1 * torch.rand(2, 1, 6, 5)
    settings = [MaskSettings(0, 0, steps=20), MaskSettings(1e4, steps=20)]
    found = optimise_masks(
        Breaks(), images, settings=settings, groups="all", score="logit", deletion="black", **QUIET
    )
    row = found.report.iloc[0]
    assert row.stopped == f"NaN at iteration {row.iterations}, last good mask kept"
    assert 3 <= row.iterations <= 6
    assert np.isnan(found.history.query("setting == 0").objective.iloc[-1])
    assert np.isfinite(row.objective)
    assert row.score_after < row.score_before
    assert "not finite" in row.remark
    assert found.report.iterations[1] == 20


def test_what_is_to_be_minded_is_said_with_its_remedy(caplog) -> None:
    images = images_of()
    net = classifier()
    sure = int(net(images[:1]).argmax())
    with caplog.at_level(logging.WARNING):
        found = optimise_masks(
            *(net, images[:1]),
            *([sure],),
            settings=[
                MaskSettings(0, 0, steps=40),
                MaskSettings(1e4),
                MaskSettings(1.0, start=torch.zeros(8, 8), steps=1, learning_rate=1e-5),
            ],
            progress=False,
        )
    first, second, third = found.report.remark
    assert "l1 = 0, so nothing keeps the mask small" in first
    assert "stayed 1: lower l1" in second
    assert "collapsed to 0: raise l1" in third
    assert "3 of 3 masks have remarks" in caplog.text
    other = optimise_masks(
        net, images[:1], int(net(images[:1]).argmin()), settings=MaskSettings(steps=1), **QUIET
    )
    assert "does not see the target to begin with (probability 0." in other.report.remark[0]


def test_a_network_in_training_is_explained_as_in_evaluation_and_stays_in_training() -> None:
    net, images = classifier(), images_of()
    one = MaskSettings(0.1, steps=5)
    expected = optimise_masks(net, images, 1, settings=one, **QUIET)
    net.train()
    state = {key: value.clone() for key, value in net.state_dict().items()}
    random = torch.random.get_rng_state()
    found = optimise_masks(net, images, 1, settings=one, **QUIET)
    assert torch.equal(found.masks, expected.masks)
    assert net.training
    assert all(p.requires_grad and p.grad is None for p in net.parameters())
    assert all(torch.equal(value, state[key]) for key, value in net.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), random)


def test_share_is_of_the_fall_to_the_deleted_image() -> None:
    net, images = classifier(), images_of()
    found = optimise_masks(net, images, 1, score="share", settings=MaskSettings(0.1, steps=5), **QUIET)
    gone = net(delete(images, torch.zeros(8, 8)))[:, 1]
    for row, image, low, mask in zip(found.report.itertuples(), images, gone, found.masks[0], strict=True):
        fall = (net(image[None])[0, 1] - low).abs()
        after = net(delete(image[None], mask))[0, 1]
        assert row.score_after == pytest.approx(((after - low) / fall).item(), rel=1e-9)


def test_bad_input() -> None:
    net, images = classifier(), images_of()

    def call(target=1, given=images, **options):
        return optimise_masks(net, given, target, **{**QUIET, "settings": MaskSettings(steps=1), **options})

    with pytest.raises(TargetError, match="group 1 holds images of the targets 0, 1"):
        call([0, 0, 0, 1], groups=[[0, 1], [2, 3]])
    with pytest.raises(TargetError, match="target 3 with a network of 3"):
        call(3)
    with pytest.raises(ParameterError, match="numbers 0 and 2 are the same"):
        call(settings=[MaskSettings(0.1), MaskSettings(0.2), MaskSettings(0.10)])
    with pytest.raises(ParameterError, match="settings="):
        call(settings=[])
    for groups in ("each", [[]], [[0, 4]], [[0, 0]], [[0.5]]):
        with pytest.raises(ParameterError, match="groups"):
            call(groups=groups)
    with pytest.raises(ShapeError, match="a whole number for each image"):
        call(groups=[0, 1])
    with pytest.raises(MethodError, match=r"deletion='blurr'.*Did you mean 'blur'"):
        call(deletion="blurr")
    with pytest.raises(MethodError, match=r"score='logits'.*Did you mean 'logit'"):
        call(score="logits")
    with pytest.raises(MethodError, match="one output; expected two classes"):
        optimise_masks(Weighted((8, 8)).double(), images)
    with pytest.raises(ShapeError, match="start of shape"):
        call(settings=MaskSettings(start=torch.ones(7, 8)))
    with pytest.raises(ParameterError, match="start hold values"):
        call(settings=MaskSettings(start=2 * torch.ones(8, 8)))
    with pytest.raises(ParameterError, match="shortest axis"):
        call(settings=MaskSettings(jitter=8))
    with pytest.raises(DataError, match="number 1 of the batch"):
        call(given=torch.where(torch.arange(4).view(4, 1, 1, 1) == 1, torch.nan, images))
    with pytest.raises(ParameterError, match="tolerance"):
        call(tolerance=1)
    with pytest.raises(ParameterError, match="patience"):
        call(patience=0)
    with pytest.raises(UnsupportedModelError, match=r"gradient|differentiable"):
        optimise_masks(nn.Sequential(nn.Flatten(), Rounds()).double(), images, 1)
    for name, value in {
        **{
            "l1": -1,
            "l2": float("nan"),
            "beta1": 0.5,
            "beta2": float("inf"),
            "reduction": "max",
            "coarse": 0,
        },
        **{"steps": 0, "learning_rate": 0, "jitter": -1, "start": "square", "area": 1.0},
    }.items():
        with pytest.raises(ParameterError, match=name):
            MaskSettings(**{name: value})


class Rounds(nn.Module):
    def forward(self, x):
        return x[:, :3].detach()
