import pytest
import torch
from torch import nn

from .conftest import hint, is_right


@pytest.fixture(scope="module")
def part():
    map_ = torch.linspace(-3, 7, 24).reshape(4, 6)
    mask = torch.zeros(4, 6, dtype=torch.bool)
    mask[1:3, 1:3] = True
    return {"map_": map_, "mask": mask}


def test_the_share_inside_is_right(part):
    magnitude, mask = part["map_"].abs(), part["mask"]
    share = (magnitude * mask).sum() / magnitude.sum()
    for answer in (share, float(share), share.numpy()):
        assert is_right("1.1", answer, **part)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda m, mask: m[~mask].sum() / m.sum(), "outside"),
        (lambda m, mask: mask.float().mean(), "share of the pixels"),
        (lambda m, mask: m[mask].mean(), "the mean inside"),
        (lambda m, mask: m[mask].mean() / m.mean(), "compares means"),
        (lambda m, mask: m[mask].sum() / m[~mask].sum(), "inside by outside"),
        (lambda m, mask: m[mask].sum(), "divide it by"),
        (lambda m, mask: 100 * m[mask].sum() / m.sum(), "percent"),
        (lambda m, mask: -m[mask].sum() / m.sum(), "sign"),
        (lambda m, mask: m[mask], "one number"),
        (lambda m, mask: 0.9, "too large"),
    ],
)
def test_each_wrong_share_has_its_hint(part, wrong, says):
    assert says in hint("1.1", wrong(part["map_"].abs(), part["mask"]), **part)


def test_a_share_of_signed_values_has_its_hint(part):
    map_, mask = part["map_"], part["mask"]
    assert "magnitudes" in hint("1.1", map_[mask].sum() / map_.sum(), **part)


@pytest.fixture(scope="module")
def guessing():
    """Seven of ten are right; six are called class 1, three are of it."""
    outputs = torch.zeros(10, 2)
    outputs[:6, 1], outputs[6:, 0] = 1, 1
    labels = torch.tensor([1, 1, 1, 0, 0, 0, 0, 0, 0, 0])
    return {"model": nn.Flatten(), "images": outputs[:, None, None], "labels": labels}


def test_the_accuracy_is_right(guessing):
    assert is_right("1.2", 0.7, **guessing)
    assert is_right("1.2", torch.tensor(0.7), **guessing)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (7, "number of slices"),
        (0.3, "contrast agent"),
        (0.6, "calls contrast"),
        (1.0, "random labels"),
        (70, "percent"),
    ],
)
def test_each_wrong_accuracy_has_its_hint(guessing, wrong, says):
    assert says in hint("1.2", wrong, **guessing)


def test_the_claims_that_a_map_supports():
    for answer in ({"B", "E"}, ["E", "B"], "BE", "B, E"):
        assert is_right("1.3", answer)
    for answer, says in [
        ({"A", "B", "E"}, "A says more"),
        ("C", "C gives"),
        ({"B", "D"}, "D is not"),
        ({"B"}, "1 more belongs"),
        (set(), "2 more belong"),
        ({"X"}, "none of the names"),
    ]:
        assert says in hint("1.3", answer)


@pytest.mark.parametrize("key", ["1.1", "1.2", "1.3"])
def test_any_answer_gets_a_verdict(key, hostile, part, guessing):
    assert hint(key, hostile, **{"1.1": part, "1.2": guessing}.get(key, {}))
