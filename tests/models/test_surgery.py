import threading

import pytest
import torch
from torch import nn
from torch.fx import Proxy

from xaitools.models.surgery import trace


class Watched(nn.Module):
    """A network that calls `meanwhile` in the middle of being traced."""

    def __init__(self, meanwhile) -> None:
        super().__init__()
        self.first, self.last, self.meanwhile = nn.Linear(4, 3), nn.Linear(3, 2), meanwhile

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        if isinstance(x, Proxy):
            self.meanwhile()
        return self.last(x)


@pytest.fixture
def other() -> nn.Module:
    """With parameters of its own, reached through a list, as modules are that torch.fx asks for attributes."""
    torch.manual_seed(0)

    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers, self.scale = nn.ModuleList([nn.Linear(5, 2)]), nn.Parameter(torch.tensor(3.0))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.scale * self.layers[0](x).relu()

    return Own()


def in_a_thread(action):
    """What `action` gives in a thread, which is waited for."""
    found = []
    thread = threading.Thread(target=lambda: found.append(action()))
    thread.start()
    thread.join(10)
    return found


def test_other_threads_run_their_networks_while_one_is_traced(other) -> None:
    points, answers = torch.rand(3, 5), []
    model = Watched(lambda: answers.extend(in_a_thread(lambda: other(points))))
    expected = other(points)
    graph = trace(model)
    (answer,) = answers
    torch.testing.assert_close(answer, expected, rtol=0, atol=0)
    assert answer.requires_grad
    images = torch.rand(2, 4)
    torch.testing.assert_close(graph(images), model(images), rtol=0, atol=0)
    assert [node.op for node in graph.graph.nodes] == ["placeholder", "call_module", "call_module", "output"]


def test_two_traces_wait_for_each_other_and_leave_torch_as_it_was(other) -> None:
    patched = (nn.Module.__call__, nn.Module.__getattr__)
    graphs, threads = [], []

    def start():
        threads.append(threading.Thread(target=lambda: graphs.append(trace(other))))
        threads[0].start()
        threads[0].join(0.1)
        assert not graphs

    trace(Watched(start))
    threads[0].join(10)
    points = torch.rand(3, 5)
    torch.testing.assert_close(graphs[0](points), other(points), rtol=0, atol=0)
    assert (nn.Module.__call__, nn.Module.__getattr__) == patched
