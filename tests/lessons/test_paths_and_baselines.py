import pytest
import torch
from torch import nn

from xaitools.lessons import judge

from .conftest import hint, is_right


@pytest.fixture(scope="module")
def given():
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.Softplus(), nn.Linear(8, 2))
        image = torch.rand(1, 1, 4, 4)
    return {"model": model, "image": image, "baseline": torch.zeros(1, 1, 4, 4)}


@pytest.fixture
def outputs(given):
    with torch.no_grad():
        return given["model"](given["image"])[0], given["model"](given["baseline"])[0]


def test_the_change_of_the_output_is_right(given, outputs):
    here, there = outputs
    assert is_right("3.1", here[1] - there[1], **given)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda here, there: here[1], "take off"),
        (lambda here, there: there[1], "baseline alone"),
        (lambda here, there: here[1] + there[1], "added"),
        (lambda here, there: there[1] - here[1], "sign"),
        (lambda here, there: here[0] - there[0], "other class"),
        (lambda here, there: here.softmax(0)[1] - there.softmax(0)[1], "probability"),
        (lambda here, there: (here - there).sum(), "both outputs"),
        (lambda here, there: here - there, "one number"),
        (lambda here, there: 1e3, "model(image)[0, 1]"),
    ],
)
def test_each_wrong_change_has_its_hint(given, outputs, wrong, says):
    assert says in hint("3.1", wrong(*outputs), **given)


def integrated(gradient, image, baseline, steps, *, points=None, reduce=torch.mean, way=None):
    a = (torch.arange(steps) + 0.5) / steps if points is None else points
    gradients = torch.stack([gradient(baseline + x * (image - baseline)) for x in a])
    return reduce(gradients, dim=0) * (image - baseline if way is None else way)


def test_integrated_gradients_are_right_by_whichever_sum():
    assert is_right("3.2", integrated)
    for points in (torch.arange(200) / 200, torch.arange(1, 201) / 200, torch.linspace(0, 1, 200)):
        assert is_right("3.2", lambda *all_, points=points: integrated(*all_, points=points))


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda *all_: None, "None"),
        (lambda *all_: torch.zeros(2), "never called"),
        (lambda g, x, b, n: integrated(g, x, b, 5), "5 points"),
        (lambda g, x, b, n: integrated(g, x, b, n, way=1), "mean gradient"),
        (lambda g, x, b, n: integrated(g, x, b, n, way=x), "multiplied by the image"),
        (lambda g, x, b, n: integrated(g, x, b, n, way=b - x), "sign"),
        (lambda *all_: integrated(*all_, reduce=torch.sum), "divide it by their number"),
        (lambda g, x, b, n: integrated(g, x, b, n, way=1, reduce=torch.sum), "take their mean"),
        (lambda g, x, b, n: integrated(g, x, b * 0, n, way=x - b), "starts from black"),
        (lambda g, x, b, n: integrated(g, x, b, n, points=torch.ones(n)), "image itself"),
        (lambda g, x, b, n: integrated(g, x, b, n).abs(), "absolute"),
        (lambda g, x, b, n: integrated(g, x, b, n).sum(), "shape"),
    ],
)
def test_each_wrong_integral_has_its_hint(wrong, says):
    assert says in hint("3.2", wrong)


def test_dots_in_the_function_are_open():
    assert judge("3.2", lambda gradient, image, baseline, steps: ...).kind == "open"


def test_the_blind_baseline():
    assert is_right("3.3", "white")
    assert is_right("3.3", " White ")
    assert "longest way" in hint("3.3", "black")
    assert "on average" in hint("3.3", "other slices")
    assert "expected one of" in hint("3.3", "grey")


@pytest.mark.parametrize("key", ["3.1", "3.2", "3.3"])
def test_any_answer_gets_a_verdict(key, hostile, given):
    assert hint(key, hostile, **(given if key == "3.1" else {}))
