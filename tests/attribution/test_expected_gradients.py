import pytest
import torch

from xaitools.attribution import expected_gradients
from xaitools.errors import MethodError, ShapeError


def test_a_linear_network_is_explained_exactly_by_the_references() -> None:
    """For f(x) = w x every position gives w (x - r), so the mean over all pairs is w (x - mean r)."""
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(6, 1, bias=False)).double()
    x, references = torch.rand(2, 1, 2, 3).double(), torch.rand(4, 1, 2, 3).double()
    maps = expected_gradients(net, x, references=references, steps=20000, batch_size=1024)
    expected = net[1].weight.detach().view(1, 1, 2, 3) * (x - references.mean(0))
    torch.testing.assert_close(maps, expected, rtol=0, atol=0.01)


def test_expected_completeness(residual_net, images, targets) -> None:
    references = torch.rand(5, 1, 12, 10, generator=torch.Generator().manual_seed(9))
    maps = expected_gradients(
        residual_net, images, targets, references=references, steps=4000, batch_size=256
    )
    with torch.no_grad():
        change = residual_net(images) - residual_net(references).mean(0)
    expected = change.gather(1, targets[:, None])[:, 0]
    torch.testing.assert_close(maps.flatten(1).sum(1), expected, rtol=0.05, atol=0.02)


def test_seed_decides(residual_net, images, targets) -> None:
    def run(seed):
        return expected_gradients(residual_net, images, targets, references=images, steps=5, seed=seed)

    assert torch.equal(run(1), run(1))
    assert not torch.equal(run(1), run(2))


def test_references_are_needed_and_must_fit(residual_net, images, targets) -> None:
    with pytest.raises(MethodError, match="none were given"):
        expected_gradients(residual_net, images, targets, references=images[:0])
    with pytest.raises(ShapeError, match=r"\(1, 4, 4\) do not fit images of shape \(1, 12, 10\)"):
        expected_gradients(residual_net, images, targets, references=torch.rand(2, 1, 4, 4))
