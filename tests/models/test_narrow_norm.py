"""Batch normalisation of few channels: PyTorch's own numbers, on one thread."""

import copy
from contextlib import nullcontext

import pytest
import torch
from torch import nn

from xaitools.models import build_network, train
from xaitools.models.narrow_norm import NarrowNorm
from xaitools.phantoms import synthetic_brains

LAYOUTS = {4: torch.channels_last, 5: torch.channels_last_3d}


@pytest.fixture
def two_threads():
    usual = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(usual)


@pytest.fixture
def threads_seen(monkeypatch):
    """How many threads there were whenever the mode had PyTorch normalise, forward and back."""
    seen = []

    class Spied:
        def __init__(self, own):
            self.own = own

        def __getattr__(self, name):
            return getattr(self.own, name)

        def __call__(self, *given):
            seen.append(torch.get_num_threads())
            return self.own(*given)

    for place, name in ((torch, "native_batch_norm"), (torch.ops.aten, "native_batch_norm_backward")):
        monkeypatch.setattr(place, name, Spied(getattr(place, name)))
    return seen


def images_of(shape, dtype=torch.float32, layout=None):
    images = torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(0)) * 3 + 1
    return images.to(memory_format=layout or LAYOUTS[len(shape)]).requires_grad_()


def norm_of(channels, dims, dtype=torch.float32, **options):
    norm = (nn.BatchNorm2d if dims == 2 else nn.BatchNorm3d)(channels, **options).to(dtype)
    for index, parameter in enumerate(norm.parameters()):
        torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(index))
    return norm.train()


@pytest.mark.parametrize("shape", [(4, 8, 9, 7), (4, 12, 9, 7), (3, 8, 6, 5, 4), (3, 20, 6, 5, 4)])
@pytest.mark.parametrize(
    "options", [{}, {"affine": False}, {"track_running_stats": False}, {"momentum": None, "eps": 0.1}]
)
def test_outputs_gradients_and_running_statistics_are_those_of_pytorch(
    two_threads, threads_seen, shape, options
):
    norm, images = (
        norm_of(shape[1], len(shape) - 2, torch.float64, **options),
        images_of(shape, torch.float64),
    )
    expected, theirs = copy.deepcopy(norm), images.detach().contiguous().requires_grad_()
    for module, given, mode in ((expected, theirs, nullcontext), (norm, images, NarrowNorm)):
        for _ in range(2):
            with mode():
                output = module(given)
            (output**3).sum().backward()
    assert threads_seen == [1] * 4
    assert torch.get_num_threads() == 2
    for own, other in zip(norm.buffers(), expected.buffers(), strict=True):
        torch.testing.assert_close(own, other)
    torch.testing.assert_close(output, expected(theirs))
    torch.testing.assert_close(images.grad, theirs.grad)
    for own, other in zip(norm.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(own.grad, other.grad)


def test_the_running_statistics_and_the_formula(two_threads):
    norm, images = norm_of(8, 2, torch.float64), images_of((4, 8, 9, 7), torch.float64)
    with NarrowNorm():
        output = norm(images)
    channels = images.detach().movedim(1, 0).flatten(1)
    mean, variance = channels.mean(1), channels.var(1, unbiased=False)
    torch.testing.assert_close(norm.running_mean, 0.1 * mean)
    torch.testing.assert_close(norm.running_var, 0.9 + 0.1 * channels.var(1))
    normed = (channels - mean[:, None]) / (variance + norm.eps).sqrt()[:, None]
    expected = normed * norm.weight[:, None] + norm.bias[:, None]
    torch.testing.assert_close(output.movedim(1, 0).flatten(1), expected)


@pytest.mark.parametrize(
    ("shape", "layout"),
    [
        ((4, 16, 9, 7), torch.channels_last),
        ((4, 48, 5, 5), torch.channels_last),
        ((4, 8, 9, 7), torch.contiguous_format),
    ],
)
def test_what_several_threads_are_quick_on_is_left_to_them(two_threads, threads_seen, shape, layout):
    with NarrowNorm():
        norm_of(shape[1], 2)(images_of(shape, layout=layout)).sum().backward()
    assert threads_seen == []


def test_evaluation_and_a_single_thread_are_left_alone(two_threads, threads_seen):
    norm, images = norm_of(8, 2), images_of((4, 8, 9, 7))
    with NarrowNorm():
        norm.eval()(images)
        torch.set_num_threads(1)
        norm.train()(images)
    assert threads_seen == []


def test_half_precision_trains(two_threads, threads_seen):
    net = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8)).to(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16), NarrowNorm():
        loss = net(torch.rand(2, 1, 8, 8)).square().mean()
    loss.backward()
    assert threads_seen == [1, 1]
    assert net[1].weight.grad.isfinite().all()


def test_errors_are_pytorchs_and_the_threads_come_back(two_threads, monkeypatch):
    with NarrowNorm(), pytest.raises(ValueError, match="more than 1 value per channel"):
        norm_of(8, 2)(torch.rand(1, 8, 1, 1))
    monkeypatch.setattr(torch, "native_batch_norm", lambda *_: 1 / 0)
    with NarrowNorm(), pytest.raises(ZeroDivisionError):
        norm_of(8, 2)(images_of((4, 8, 9, 7)))
    assert torch.get_num_threads() == 2


def test_a_training_uses_it(two_threads, threads_seen):
    brains = synthetic_brains(8, spacing=8, seed=0, progress=False)
    network = build_network("eitel_cnn_small", input_size=brains.shape)
    train(network, brains, brains, max_epochs=1, batch_size=4, device="cpu", progress=False)
    narrow = [m for m in network.modules() if isinstance(m, nn.BatchNorm3d) and m.num_features % 16]
    assert threads_seen == [1] * 4 * len(narrow) != []  # two batches, forward and back
    assert torch.get_num_threads() == 2
