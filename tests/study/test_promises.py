import numpy as np
import pytest
import torch
from torch import nn

from xaitools.attribution import attribute
from xaitools.study import completeness, conservation, correlation_of_maps, method_table

IMAGES = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def network(n_outputs):
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(72, n_outputs)).eval()


def test_integrated_gradients_add_up_but_for_the_finite_steps(run, recorded):
    names = ["gradient", "integrated_gradients[black]+absolute", "integrated_gradients[black]+smoothgrad"]
    net = network(2)
    table, shares = completeness(run, net, IMAGES, 1, names, method_table(names), steps=64)
    assert list(table["method"]) == ["IGB"]
    with torch.no_grad():
        change = float((net(IMAGES) - net(torch.zeros_like(IMAGES)))[:, 1].abs().mean())
    found = recorded()
    gap = found["integrated_gradients[black]", "completeness gap"]
    assert gap < 0.02 * change
    share = found["integrated_gradients[black]", "completeness gap, share"]
    assert share == shares["IGB"] == pytest.approx(gap / change, rel=1e-3)


def test_without_integrated_gradients_there_is_no_promise_to_check(run, recorded):
    table, shares = completeness(
        run, network(2), IMAGES, 1, ["gradient"], method_table(["gradient"]), steps=2
    )
    assert table.empty
    assert shares == {}
    assert recorded() == {}


def test_every_path_is_checked_and_each_network_named(run):
    names = ["blur_integrated_gradients+smoothgrad", "idgi", "gradient"]
    table, shares = completeness(
        run, network(1), IMAGES, None, names, method_table(names), steps=4, network="mine"
    )
    assert list(table["network"]) == ["mine", "mine"]
    assert list(table["method"]) == list(shares)
    assert len(shares) == 2


def test_relevance_is_conserved_where_there_are_no_biases(run, recorded):
    names = [
        "lrp[epsilon]",
        "lrp[epsilon]+absolute",
        "lrp[epsilon]+smoothgrad",
        "lrp[epsilon]@xrai",
        "gradient",
    ]
    table = conservation(run, network(1), IMAGES, names, method_table(names), network="net")
    assert list(zip(table["method"], table["biases"], strict=True)) == [
        ("LRP-ε", "kept"),
        ("LRP-ε", "set to zero"),
    ]
    found = recorded()
    assert found["lrp[epsilon]", "relevance not at the pixels, biases set to zero"] < 1e-4
    assert found["lrp[epsilon]", "relevance not at the pixels, biases kept"] > 0.01


def test_maps_of_one_method_under_two_names_correlate():
    methods = ["lrp[epsilon]", "input_x_gradient", "gradient"]
    found = attribute(network(1), IMAGES, None, methods, progress=False)
    maps = {name: value.numpy() for name, value in found.items()}
    assert correlation_of_maps(maps, "lrp[epsilon]", "input_x_gradient") == pytest.approx(1, abs=1e-3)
    expected = np.mean(
        [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(*list(maps.values())[1:], strict=True)]
    )
    assert correlation_of_maps(maps, "input_x_gradient", "gradient") == pytest.approx(expected)
    assert correlation_of_maps(maps, "gradient", "occlusion[5]") is None
