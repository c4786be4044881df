"""Max pools before the activations that they follow."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from xaitools.models import Network
from xaitools.models.pooling import pooled_first

RISING = [
    nn.LeakyReLU(),
    nn.ReLU(),
    nn.ReLU(inplace=True),
    nn.ELU(),
    nn.ReLU6(),
    nn.LeakyReLU(0.3, inplace=True),
]


class Functional(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.pool, self.head = nn.Conv2d(1, 4, 3), nn.MaxPool2d(2), nn.Linear(4 * 5 * 5, 3)

    def forward(self, x):
        return self.head(self.pool(F.relu(self.conv(x))).flatten(1))


def blocks(activation, pool=nn.MaxPool2d):
    return nn.Sequential(
        *(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), activation, pool(2)),
        *(nn.Conv2d(4, 4, 3, padding=1), activation, pool(2, stride=1, padding=1)),
        *(nn.Flatten(), nn.Linear(4 * 6 * 6, 3)),
    )


def prepared(model, images):
    torch.manual_seed(0)
    return Network(model.eval(), images[:1]).quick


def order(graph):
    return [
        type(graph.get_submodule(str(n.target))).__name__ for n in graph.graph.nodes if n.op == "call_module"
    ]


def results(network, images):
    leaf = images.clone().requires_grad_()
    outputs = network(leaf.clone())
    return outputs.detach(), torch.autograd.grad(outputs[:, 1].sum(), leaf)[0]


@pytest.mark.parametrize("activation", RISING)
def test_the_same_with_the_pool_first(activation) -> None:
    images = torch.rand(2, 1, 12, 12)
    plain = prepared(blocks(activation), images)
    found = pooled_first(plain)
    names = order(found)
    assert names.index("MaxPool2d") < names.index(type(activation).__name__)
    assert order(plain).index("MaxPool2d") > order(plain).index(type(activation).__name__)
    torch.testing.assert_close(results(found, images), results(plain, images), rtol=1e-5, atol=1e-7)


def test_a_relu_that_is_no_module_moves_too() -> None:
    images = torch.rand(2, 1, 12, 12)
    plain = prepared(Functional(), images)
    found = pooled_first(plain)
    kinds = [node.op for node in found.graph.nodes]
    assert kinds != [node.op for node in plain.graph.nodes]
    torch.testing.assert_close(results(found, images), results(plain, images), rtol=1e-5, atol=1e-7)


class Twice(nn.Module):
    """The activation is used again beside the pool."""

    def __init__(self):
        super().__init__()
        self.conv, self.relu, self.pool = nn.Conv2d(1, 3, 3), nn.ReLU(), nn.MaxPool2d(2)

    def forward(self, x):
        y = self.relu(self.conv(x))
        return self.pool(y).mean((2, 3)) + y.mean((2, 3))


@pytest.mark.parametrize(
    "model",
    [
        blocks(nn.GELU()),
        blocks(nn.LeakyReLU(-0.5)),
        blocks(nn.Sigmoid()),
        blocks(nn.ReLU(), nn.AvgPool2d),
        Twice(),
    ],
)
def test_what_could_differ_stays_where_it_is(model) -> None:
    images = torch.rand(2, 1, 12, 12)
    plain = prepared(model, images)
    found = pooled_first(plain)
    assert order(found) == order(plain)
    torch.testing.assert_close(found(images), plain(images), rtol=0, atol=0)


def test_what_is_no_graph_is_left_alone() -> None:
    model = blocks(nn.ReLU())
    assert pooled_first(model) is model
