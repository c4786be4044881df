"""The kernels of a convolution."""

import pytest
import torch
from torch import nn

from xaitools.errors import MethodError, UnsupportedModelError
from xaitools.interpretation import layer_kernels
from xaitools.models import build_network


@pytest.mark.parametrize(("network", "shape"), [("vgg8", (3, 3)), ("gm_cnn_small", (3, 3, 3))])
def test_kernels_are_the_weights(network: str, shape: tuple[int, ...]) -> None:
    model = build_network(network, input_size=(32,) * len(shape))
    names = [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d | nn.Conv3d)]
    first = layer_kernels(model)
    assert first.shape[1:] == (1, *shape)
    assert torch.equal(first, model.get_submodule(names[0]).weight)
    assert torch.equal(layer_kernels(model, names[2]), model.get_submodule(names[2]).weight)
    first.zero_()
    assert model.get_submodule(names[0]).weight.any()


def test_a_kernel_says_what_raises_the_filter() -> None:
    model = nn.Sequential(nn.Conv2d(1, 1, 3, bias=False))
    kernel = layer_kernels(model)[0]
    with torch.no_grad():
        best = model(kernel[None] / kernel.norm())
    torch.testing.assert_close(best.squeeze(), kernel.norm())


def test_refusals() -> None:
    with pytest.raises(UnsupportedModelError, match="Sequential has no Conv2d or Conv3d"):
        layer_kernels(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)))
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 2, 3))
    with pytest.raises(MethodError, match="layer='1' is unknown; expected one of 0, 2"):
        layer_kernels(model, "1")
