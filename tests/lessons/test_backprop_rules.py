import pytest
import torch
from torch import nn

from xaitools.lessons import judge

from .conftest import hint, is_right


def test_the_guided_rule_is_right():
    assert is_right("4.1", lambda signal, before: signal * (signal > 0) * (before > 0))
    assert is_right("4.1", lambda signal, before: torch.where(before > 0, signal.relu(), 0.0))


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda s, z: s * (z > 0), "gradient's rule"),
        (lambda s, z: s.relu(), "deconvolution's rule"),
        (lambda s, z: s, "Everything passes"),
        (lambda s, z: s.abs() * (z > 0), "sign got lost"),
        (lambda s, z: (s > 0) & (z > 0), "gates"),
        (lambda s, z: (s * z).relu() * (z > 0), "do not multiply"),
        (lambda s, z: s.relu() * (z < 0), "wrong way round"),
        (lambda s, z: z.relu() * (s > 0), "comes back"),
        (lambda s, z: z * 7 - 1, "Both have to be positive"),
        (lambda s, z: None, "None"),
        (lambda s: s, "TypeError"),
        (torch.ones(3, 3), "expected a function"),
    ],
)
def test_each_wrong_gate_has_its_hint(wrong, says):
    assert says in hint("4.1", wrong)


def by_loops(weight, inputs, relevance):
    """LRP as it is written: one neuron after the other."""
    result = torch.zeros_like(inputs)
    for j in range(len(weight)):
        z = sum(float(weight[j, k] * inputs[k]) for k in range(len(inputs)))
        for i in range(len(inputs)):
            result[i] += weight[j, i] * inputs[i] / (z + 1e-6) * relevance[j]
    return result


def test_lrp_of_a_layer_is_right_and_keeps_the_sum():
    assert is_right("4.2", by_loops)
    weight, inputs, relevance = torch.rand(3, 5), torch.rand(5), torch.rand(3)
    torch.testing.assert_close(by_loops(weight, inputs, relevance).sum(), relevance.sum())


def test_lrp_by_autograd_is_right_too():
    """Inputs times the gradient of the outputs, each weighed by relevance over output."""

    def rule(weight, inputs, relevance):
        x = inputs.clone().requires_grad_()
        z = nn.functional.linear(x, weight)
        return x.detach() * torch.autograd.grad((z * (relevance / z.detach())).sum(), x)[0]

    assert is_right("4.2", rule)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda w, a, r: (w * a).T @ r, "shares add up"),
        (lambda w, a, r: w.T @ r, "gradient's rule"),
        (lambda w, a, r: w.T @ (r / (w @ a)), "Multiply by the inputs"),
        (lambda w, a, r: ((w * a) / (w @ a)[:, None]).sum(0), "relevance of its output"),
        (lambda w, a, r: ((w * a).abs() / (w * a).abs().sum(1, keepdim=True)).T @ r, "magnitudes"),
        (lambda w, a, r: ((w * a).relu() / (w * a).relu().sum(1, keepdim=True)).T @ r, "alpha-1-beta-0"),
        (lambda w, a, r: r, "an input"),
        (lambda w, a, r: w, "each pair"),
        (lambda w, a, r: a / 0, "divided by zero"),
        (lambda w, a, r: w @ r, "RuntimeError"),
        (lambda w, a, r: a, "sum over outputs"),
    ],
)
def test_each_wrong_share_has_its_hint(wrong, says):
    assert says in hint("4.2", wrong)


def test_what_is_blind_to_the_class():
    both = ["deconvolution", "guided_backprop"]
    for answer in (set(both), both[::-1], "deconvolution, guided_backprop"):
        assert is_right("4.3", answer)
    for answer, says in [
        ({"gradient"}, "turns its sign"),
        ("lrp[epsilon]", "turns its sign"),
        ("guided_backprop", "1 more"),
        ({"grad_cam"}, "none of the names"),
    ]:
        assert says in hint("4.3", answer)


def test_dots_are_open():
    for key in ("4.1", "4.2"):
        assert judge(key, lambda *arguments: ...).kind == "open"


@pytest.mark.parametrize("key", ["4.1", "4.2", "4.3"])
def test_any_answer_gets_a_verdict(key, hostile):
    assert hint(key, hostile)
