import pytest
import torch
from torch import nn

from xaitools.attribution import attribute, input_x_gradient, lrp
from xaitools.attribution._lrp_rules import RULES
from xaitools.errors import MethodError, UnsupportedModelError
from xaitools.models import Network


def outputs(net, x, targets):
    with torch.no_grad():
        scores = net(x)
    return scores[:, 0] if targets is None else scores.gather(1, targets[:, None])[:, 0]


@pytest.mark.parametrize("rule", RULES)
def test_relevance_is_conserved_without_biases(homogeneous, rule) -> None:
    net, x, targets = homogeneous
    maps = lrp(net, x, targets, rule=rule)
    assert maps.shape == x.shape
    torch.testing.assert_close(maps.flatten(1).sum(1), outputs(net, x, targets), rtol=1e-3, atol=0)


def test_with_biases_the_gap_is_what_they_absorb(residual_net, images, targets) -> None:
    """z_j = sum_i x_i w_ij + b_j, and the epsilon rule gives b_j its share b_j / z_j R_j: the gradient times b."""
    net, x = residual_net.double(), images.double()
    found = attribute(net, x, targets, ["lrp"], options={"lrp": {"epsilon": 1e-12}}, batch_size=2)
    maps, gap = found["lrp"], found.relevance_gap["lrp[epsilon]"]
    torch.testing.assert_close(gap, outputs(net, x, targets) - maps.flatten(1).sum(1))
    biases = [module.bias for module in net.modules() if getattr(module, "bias", None) is not None]
    shifts = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    for i in range(len(x)):
        net.zero_grad()
        net(x[i : i + 1])[0, targets[i]].backward()
        absorbed = sum(float((bias.grad * bias.detach()).sum()) for bias in biases)
        for norm in shifts:  # the mean that a norm takes off is a bias too
            scale = norm.weight / (norm.running_var + norm.eps).sqrt()
            absorbed -= float((norm.bias.grad * norm.running_mean * scale.detach()).sum())
        assert float(gap[i]) == pytest.approx(absorbed, rel=1e-3)
    assert gap.abs().min() > 0.01


@pytest.mark.parametrize("rule", RULES)
def test_images_do_not_depend_on_one_another(residual_net, images, targets, rule) -> None:
    together = lrp(residual_net, images, targets, rule=rule, batch_size=2)
    alone = torch.cat([lrp(residual_net, images[i : i + 1], targets[i : i + 1], rule=rule) for i in range(3)])
    torch.testing.assert_close(together, alone, rtol=1e-3, atol=1e-5 * float(alone.abs().max()))


def test_a_larger_epsilon_leaves_out_more(residual_net, images, targets) -> None:
    sums = [
        float(lrp(residual_net, images, targets, epsilon=value).abs().sum()) for value in (1e-6, 0.1, 1.0)
    ]
    assert sums[0] > sums[1] > sums[2]


def test_gamma_moves_from_all_to_positive_contributions(residual_net, images, targets) -> None:
    none, most, much = (
        lrp(residual_net, images, targets, rule="gamma", gamma=value) for value in (0.0, 1e6, 0.25)
    )
    torch.testing.assert_close(
        none, lrp(residual_net, images, targets), rtol=1e-2, atol=1e-4 * float(none.abs().max())
    )
    assert not torch.allclose(none, much, rtol=0.1)
    assert torch.isfinite(most).all()


def test_black_images_and_the_model_as_it_was(residual_net, images) -> None:
    residual_net.train()
    maps = lrp(residual_net, torch.zeros_like(images), torch.tensor([0, 1, 2]))
    assert torch.equal(maps, torch.zeros_like(images))
    assert residual_net.training
    assert residual_net.relu.inplace
    assert all(parameter.requires_grad and parameter.grad is None for parameter in residual_net.parameters())
    assert not torch.equal(images, torch.zeros_like(images))


def test_epsilon_is_near_input_times_gradient(residual_net, images, targets) -> None:
    maps = torch.stack([lrp(residual_net, images, targets), input_x_gradient(residual_net, images, targets)])
    assert torch.corrcoef(maps.flatten(1))[0, 1] > 0.999


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"rule": "epsilno"},
            MethodError,
            "no rule 'epsilno'; it has epsilon, gamma, alpha1_beta0, .*epsilon_gamma_box",
        ),
        ({"epsilon": -1.0}, MethodError, "epsilon=-1.0; expected 0 or more"),
        ({"rule": "gamma", "gamma": -0.5}, MethodError, "gamma=-0.5"),
        (
            {"rule": "epsilon_gamma_box", "high": 0.5},
            MethodError,
            "leave the bounds of the first layer's rule, 0 to 0.5",
        ),
        ({"rule": "epsilon_gamma_box", "low": 2.0}, MethodError, "low is not below high"),
        (
            {"rule": "epsilon_gamma_box", "low": torch.zeros(5)},
            MethodError,
            r"do not fit images of shape \(1, 12, 10\)",
        ),
    ],
)
def test_bad_options(residual_net, images, targets, options, error, message) -> None:
    with pytest.raises(error, match=message):
        lrp(residual_net, images, targets, **options)


def test_a_value_read_from_an_activation_is_named(functional_net, images, targets) -> None:
    with pytest.raises(
        UnsupportedModelError, match="no rule for detach in the forward pass of FunctionalNet"
    ):
        lrp(functional_net, images, targets)


def test_the_gap_takes_no_pass_of_its_own() -> None:
    net = torch.nn.Sequential(
        torch.nn.Conv2d(1, 2, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(72, 2)
    )
    images, seen = torch.rand(3, 1, 8, 8), []
    network = Network(net, images)
    network.folded.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    maps = attribute(network, images, 1, ["lrp[epsilon]"], progress=False)
    assert seen == [1, 3]  # what has a rule, and the relevance
    left = net(images)[:, 1].detach() - maps["lrp[epsilon]"].flatten(1).sum(1)
    torch.testing.assert_close(maps.relevance_gap["lrp[epsilon]"], left, atol=1e-5, rtol=0)
