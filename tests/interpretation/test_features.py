"""What a layer says of each image."""

import pytest
import torch
from torch import nn

from xaitools.errors import MethodError, ShapeError
from xaitools.interpretation import features
from xaitools.models import Network

IMAGES = {n: torch.rand(5, 1, *[8] * n, generator=torch.Generator().manual_seed(n)) for n in (2, 3)}


def net(n_axes: int) -> nn.Sequential:
    torch.manual_seed(0)
    conv = (nn.Conv2d, nn.Conv3d)[n_axes - 2]
    norm = (nn.BatchNorm2d, nn.BatchNorm3d)[n_axes - 2]
    return nn.Sequential(
        conv(1, 4, 3), norm(4), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(4 * 6**n_axes, 7), nn.ReLU(),
        nn.Linear(7, 2),
    )  # fmt: skip


@pytest.mark.parametrize("n_axes", [2, 3])
@pytest.mark.parametrize("layer", ["0", "1", "5", None])
def test_features_are_those_of_the_models_own_forward_pass(n_axes: int, layer: str | None) -> None:
    model, images = net(n_axes), IMAGES[n_axes]
    with torch.no_grad():
        upto = model.eval()[: 6 if layer is None else int(layer) + 1]
        expected = upto(images)
    expected = expected.flatten(2).mean(2) if expected.ndim > 2 else expected
    model.train()
    torch.testing.assert_close(features(model, images, layer=layer, batch_size=2), expected)
    assert model.training


def test_arrays_stacks_and_prepared_networks_give_the_same() -> None:
    model, images = net(2), IMAGES[2]

    class Stack:
        shape = images.shape

        def __len__(self) -> int:
            return len(images)

        def __getitem__(self, index):
            return images[index]

    expected = features(model, images)
    for given in (images.numpy(), Stack()):
        torch.testing.assert_close(features(model, given), expected)
    torch.testing.assert_close(features(Network(model, images[:1]), images), expected)


def test_a_network_without_linear_layers_gives_its_last_map() -> None:
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with torch.no_grad():
        expected = model(IMAGES[2])
    torch.testing.assert_close(features(model, IMAGES[2]), expected)


def test_layers_that_are_not_there() -> None:
    with pytest.raises(MethodError, match=r"layer='conv' is unknown; expected one of 0, 1, 2, 3, 4, 5, 6"):
        features(net(2), IMAGES[2], layer="conv")

    class Unused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = nn.Linear(64, 2), nn.Linear(2, 2)

        def forward(self, images):
            return self.used(images.flatten(1))

    with pytest.raises(MethodError, match="layer='unused' of Unused does not run"):
        features(Unused(), IMAGES[2], layer="unused")
    with pytest.raises(ShapeError, match="at least one image"):
        features(net(2), IMAGES[2][:0])
