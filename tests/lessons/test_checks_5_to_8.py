"""The checks of lessons 5 to 8: every foreseen mistake is told what is wrong with it."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import kendalltau, pearsonr, rankdata, spearmanr
from torch import nn

from xaitools.data.samples import Samples
from xaitools.evaluation import Randomization
from xaitools.lessons import judge
from xaitools.lessons.questions import find_question

from .conftest import hint, is_right

generator = np.random.default_rng(0)


def normal(*shape):
    return torch.from_numpy(generator.standard_normal(shape)).float()


FEATURES, WEIGHTS = normal(6, 2, 3), normal(2, 6)
ACTIVATIONS, GRADIENTS = normal(6, 4, 5), normal(6, 4, 5)
VALUES, MASK = generator.random((6, 7)), generator.random((6, 7)) > 0.7
CURVE = np.array([0.9, 0.5, 0.2, 0.1])
FIRST, SECOND = normal(1, 5, 6).exp(), normal(1, 5, 6).exp()
AGREEMENT = {
    "trained again": {"deaf": 0.97, "noisy": 0.3, "telling": 0.8},
    "shuffled labels": {"deaf": 0.95, "noisy": 0.25, "telling": 0.1},
}


class ReadsTheCorner(nn.Module):
    """Says class 1 where the pixel in the corner is white."""

    def forward(self, images):
        return torch.stack([0.5 - images[:, 0, 0, 0], images[:, 0, 0, 0] - 0.5], dim=1)


def samples(corner):
    images = torch.zeros(8, 1, 4, 4)
    images[:, 0, 0, 0] = torch.tensor(corner, dtype=torch.float32)
    names = tuple(f"sub-{i}" for i in range(8))
    return Samples(images, torch.arange(8) % 2, names, names, ("a", "b"))


HANS = {"model": ReadsTheCorner(), "without": samples([0] * 6 + [1, 1]), "marked": samples([0, 1] * 4)}


@pytest.fixture(scope="module")
def redrawn():
    """Two methods that stay alike when the first layer is redrawn, one that does not, one unclear, and noise."""
    kept = {
        "deaf": [0.95] * 3,
        "edges": [0.8] * 3,
        "wavering": [0.95, 0.9, 0.3],
        "telling": [0.4] * 3,
        "random": [0.0] * 3,
    }
    about = {"order": "cascading", "direction": "top-down", "explained": "fixed", "similarity": "spearman"}
    about |= {"absolute": True, "draw": 0, "layer": ""}
    rows = [
        {"method": method, **about, "k": k, "image": image, "value": value}
        for method, values in kept.items()
        for k, of_images in enumerate([[1.0] * 3, values, [0.1] * 3])
        for image, value in enumerate(of_images)
    ]
    return {"result": Randomization(pd.DataFrame(rows), {})}


GIVEN = {
    "5.1": {"features": FEATURES, "weights": WEIGHTS},
    "5.2": {"activations": ACTIVATIONS, "gradients": GRADIENTS},
    "5.3": {},
    "6.1": {},
    "6.2": HANS,
    "6.3": {},
    "7.1": {},
    "7.2": {"values": VALUES, "mask": MASK},
    "7.3": {"curve": CURVE},
    "8.1": {"first": FIRST, "second": SECOND},
    "8.3": {"agreement": AGREEMENT},
}


@pytest.mark.parametrize("key", [*GIVEN, "8.2"])
def test_no_answer_stops_a_check(key, hostile, redrawn):
    given = redrawn if key == "8.2" else GIVEN[key]
    verdict = judge(key, hostile, **given)
    assert verdict.kind == "wrong", verdict
    assert verdict.text
    assert judge(key, ..., **given).kind == "open"


def test_a_cam_is_the_weighted_sum_of_the_features():
    cam = np.tensordot(WEIGHTS[1].double().numpy(), FEATURES.double().numpy(), 1)
    assert is_right("5.1", cam, **GIVEN["5.1"])
    assert is_right("5.1", torch.from_numpy(cam)[None], **GIVEN["5.1"])
    means = FEATURES.mean(dim=(1, 2)) @ WEIGHTS[1]
    assert cam.mean() == pytest.approx(float(means), abs=1e-6)  # what the lesson says of its sum


def weighed(weights, maps):
    return torch.einsum("k,krc->rc", weights, maps)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (weighed(WEIGHTS[0], FEATURES), "other class"),
        (FEATURES.mean(dim=0), "weight of its own"),
        (FEATURES.sum(dim=0), "weight of its own"),
        (weighed(WEIGHTS[1], FEATURES).relu(), "leave the ReLU out"),
        (weighed(WEIGHTS[1], FEATURES) / 6, "mean over the channels"),
        (weighed(WEIGHTS.sum(dim=0), FEATURES), "both classes"),
        (torch.einsum("nk,krc->nrc", WEIGHTS, FEATURES), "each class"),
        (WEIGHTS[1][:, None, None] * FEATURES, "Every channel"),
        (weighed(WEIGHTS[1], FEATURES).T, "another order"),
        (torch.zeros(2, 3), "zero"),
    ],
)
def test_wrong_cams(answer, says):
    assert says in hint("5.1", answer, **GIVEN["5.1"])


def test_grad_cam_is_that_of_the_formula():
    expected = np.zeros((4, 5))
    for activation, gradient in zip(ACTIVATIONS.double().numpy(), GRADIENTS.double().numpy(), strict=True):
        expected += gradient.mean() * activation
    assert is_right("5.2", np.maximum(expected, 0), **GIVEN["5.2"])


MEANS = GRADIENTS.mean(dim=(1, 2))


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (weighed(MEANS, ACTIVATIONS), "Keep the positive part"),
        (weighed(MEANS, ACTIVATIONS).abs(), "absolute value"),
        ((GRADIENTS * ACTIVATIONS).sum(dim=0), "HiResCAM"),
        ((GRADIENTS * ACTIVATIONS).sum(dim=0).relu(), "HiResCAM"),
        ((GRADIENTS.relu() * ACTIVATIONS).sum(dim=0), "LayerCAM"),
        (weighed(MEANS.relu(), ACTIVATIONS), "after the sum over channels"),
        (weighed(20 * MEANS, ACTIVATIONS).relu(), "take their mean"),
        (ACTIVATIONS.mean(dim=0), "without the gradients"),
        (MEANS, "weights of the channels"),
        (GRADIENTS * ACTIVATIONS, "Every channel"),
    ],
)
def test_wrong_grad_cams(answer, says):
    assert says in hint("5.2", answer, **GIVEN["5.2"])


def hidden(score, image, rows, columns):
    copy = image.clone()
    copy[..., rows, columns] = 0
    return score(copy)


def in_place(score, image, rows, columns):
    before = score(image)
    image[..., rows, columns] = 0
    return before - score(image)


def test_the_fall_of_an_occlusion():
    assert is_right("6.1", lambda score, image, *patch: score(image) - hidden(score, image, *patch))
    assert is_right("6.1", lambda score, image, *patch: float(score(image) - hidden(score, image, *patch)))


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (lambda score, image, *patch: hidden(score, image, *patch) - score(image), "sign"),
        (hidden, "score of the hidden image"),
        (lambda score, image, *patch: score(image), "All of the image"),
        (lambda score, image, *patch: score(image) - score(image.clone()), "Nothing was hidden"),
        (lambda score, image, *patch: abs(score(image) - hidden(score, image, *patch)), "absolute"),
        (in_place, "changes the image"),
        (lambda score, image, *patch: None, "return"),
        (lambda score, image: 0, "TypeError"),
        (3, "function"),
    ],
)
def test_wrong_falls(answer, says):
    assert says in hint("6.1", answer)


def test_dots_in_the_function_are_open():
    assert judge("6.1", lambda score, image, rows, columns: ...).kind == "open"


def test_the_share_without_the_marker():
    assert is_right("6.2", 0.5, **HANS)
    assert is_right("6.2", torch.tensor(0.5), **HANS)
    assert "with the letter" in hint("6.2", 1.0, **HANS)
    assert "how many" in hint("6.2", 4, **HANS)
    assert "percent" in hint("6.2", 50, **HANS)
    assert "too large" in hint("6.2", 0.6, **HANS)


@pytest.mark.parametrize(
    ("key", "right", "wrong"),
    [
        ("5.3", 16, {4: "number of cells", 256: "area", 8: "8 x 8", 64: "whole", 17: "Four cells"}),
        ("6.3", 256, {64: "side by side", 225: "stick out", 4096: "each pixel", 16: "one row", 257: "Count"}),
    ],
)
def test_numbers(key, right, wrong):
    assert is_right(key, right)
    for answer, says in wrong.items():
        assert says in hint(key, answer)


def test_the_maps_that_never_saw_the_network():
    assert is_right("7.1", {"B", "D", "F"})
    assert is_right("7.1", ["F", "B", "D"])
    assert "'A'" in hint("7.1", {"A", "B", "D"})
    assert "1 more" in hint("7.1", {"B", "D"})
    assert "none of the names" in hint("7.1", {"G"})


def test_the_auc_is_the_share_of_pairs():
    inside, outside = VALUES[MASK], VALUES[~MASK]
    pairs = [float(one > other) for one in inside for other in outside]
    assert is_right("7.2", np.mean(pairs), **GIVEN["7.2"])
    for answer, says in {
        1 - np.mean(pairs): "exchanged",
        np.sum(pairs): "number of pairs",
        np.mean(inside > outside.mean()): "mean outside",
        inside.mean() - outside.mean(): "difference of means",
        inside.mean() / outside.mean(): "ratio",
    }.items():
        assert says in hint("7.2", answer, **GIVEN["7.2"])


def test_ties_count_one_half():
    given = {"values": np.array([[1.0, 1.0, 0.0]]), "mask": np.array([[True, False, False]])}
    assert is_right("7.2", 0.75, **given)


def test_the_aopc_is_the_formulas():
    assert is_right("7.3", (0 + 0.4 + 0.7 + 0.8) / 4, **GIVEN["7.3"])
    for answer, says in {
        CURVE.mean(): "area under",
        1.9 / 3: "left out k = 0",
        1.9: "sum",
        1 - CURVE.mean(): "curve[0]",
        0.8: "last step",
    }.items():
        assert says in hint("7.3", answer, **GIVEN["7.3"])
    assert "take their mean" in hint("7.3", CURVE[0] - CURVE, **GIVEN["7.3"])


def test_spearmans_correlation():
    one, other = FIRST.flatten().numpy(), SECOND.flatten().numpy()
    assert is_right("8.1", np.corrcoef(rankdata(one), rankdata(other))[0, 1], **GIVEN["8.1"])
    assert "Pearson" in hint("8.1", pearsonr(one, other).statistic, **GIVEN["8.1"])
    assert "Kendall" in hint("8.1", kendalltau(one, other).statistic, **GIVEN["8.1"])
    assert "p-value" in hint("8.1", spearmanr(one, other).pvalue, **GIVEN["8.1"])
    assert ".statistic" in hint("8.1", spearmanr(one, other), **GIVEN["8.1"])


def test_who_does_not_notice(redrawn):
    assert is_right("8.2", {"deaf", "edges"}, **redrawn)
    assert "1 more" in hint("8.2", {"deaf"}, **redrawn)
    assert "'telling'" in hint("8.2", {"deaf", "edges", "telling"}, **redrawn)
    assert "'wavering' is not clear" in hint("8.2", {"deaf", "edges", "wavering"}, **redrawn)


def test_robust_or_deaf():
    assert is_right("8.3", "telling", **GIVEN["8.3"])
    assert "deaf, not robust" in hint("8.3", "deaf", **GIVEN["8.3"])
    assert "0.05" in hint("8.3", "noisy", **GIVEN["8.3"])
    assert "expected one of" in hint("8.3", "gradient", **GIVEN["8.3"])


@pytest.mark.parametrize("key", ["5.a", "6.a", "7.a", "8.a"])
def test_a_question_has_one_right_answer_and_a_word_for_each(key):
    asked = find_question(key)
    assert [option.right for option in asked.options].count(True) == 1
    assert len({option.feedback for option in asked.options}) == len(asked.options) == 4
