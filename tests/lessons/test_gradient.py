import pytest
import torch
from torch import nn

from xaitools.lessons import judge

from .conftest import hint, is_right


@pytest.fixture(scope="module")
def given():
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = [nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(64, 2)]
    return {"model": nn.Sequential(*layers), "image": torch.rand(1, 1, 12, 12, generator=generator)}


def gradient(given, output):
    image = given["image"].clone().requires_grad_()
    output(given["model"](image)).backward()
    return image.grad


@pytest.fixture
def right(given):
    return gradient(given, lambda out: out[0, 1])


def test_a_gradient_is_right_in_any_layout(given, right):
    for answer in (right, right[0, 0], right.numpy(), right.tolist(), right.double()):
        assert is_right("2.1", answer, **given)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda given, right: None, "None"),
        (lambda given, right: right.abs(), "absolute"),
        (lambda given, right: -right, "wrong sign"),
        (lambda given, right: right.mT, "transposed"),
        (lambda given, right: right.flip(-1), "Left and right"),
        (lambda given, right: 2 * right, "2 times too large: backward"),
        (lambda given, right: right / right.abs().max(), "check the scale"),
        (lambda given, right: right * float("nan"), "NaN"),
        (lambda given, right: right * 0, "zero"),
        (lambda given, right: right[..., :-1], "shape"),
        (lambda given, right: given["image"], "the values are not"),
        (lambda given, right: given["image"] * right, "image times gradient"),
        (lambda given, right: gradient(given, lambda out: out.sum()), "sum of both"),
        (lambda given, right: gradient(given, lambda out: out[0, 0]), "other class"),
        (lambda given, right: gradient(given, lambda out: out.softmax(1)[0, 1]), "softmax"),
    ],
)
def test_each_wrong_gradient_has_its_hint(given, right, wrong, says):
    assert says in hint("2.1", wrong(given, right), **given)


def noisy(gradient, image, sigma, copies, *, draw=torch.randn_like, reduce=torch.mean):
    return reduce(torch.stack([gradient(image + sigma * draw(image)) for _ in range(copies)]), dim=0)


def test_smoothgrad_is_right():
    assert is_right("2.2", noisy)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (noisy(torch.square, torch.ones(1, 1, 3, 4), 0.1, 2), "expected a function"),
        (lambda image: image, "TypeError"),
        (lambda gradient, image, sigma, copies: None, "None"),
        (lambda gradient, image, sigma, copies: image, "never called"),
        (lambda gradient, image, sigma, copies: gradient(image), "took 1 copies"),
        (lambda *all_: noisy(*all_, draw=torch.zeros_like), "add noise"),
        (lambda *all_: noisy(*all_, draw=torch.ones_like), "same noise"),
        (lambda *all_: noisy(*all_, draw=torch.rand_like), "torch.rand"),
        (lambda *all_: noisy(*all_, reduce=torch.sum), "sum of all"),
        (lambda g, x, sigma, n: noisy(g, x, sigma**2, n), "standard deviation"),
        (lambda g, *rest: noisy(lambda x: g(x).abs(), *rest), "absolute"),
    ],
)
def test_each_wrong_smoothgrad_has_its_hint(wrong, says):
    assert says in hint("2.2", wrong)


def test_a_function_that_still_returns_dots_is_told_to_replace_them():
    assert judge("2.2", lambda gradient, image, sigma, copies: ...).kind == "open"


def test_the_price_of_less_noise():
    assert is_right("2.3", 160)
    for wrong, says in [(40, "halve"), (16, "how many times"), (20, "1.4"), (1000, "large"), ("160", "text")]:
        assert says in hint("2.3", wrong)


@pytest.mark.parametrize("key", ["2.1", "2.2", "2.3"])
def test_any_answer_gets_a_verdict(key, hostile, given):
    assert hint(key, hostile, **(given if key == "2.1" else {}))
