import pytest
import torch
import torch.nn.functional as F
from torch import nn

from xaitools.attribution import attribute, grad_cam, layer_cam
from xaitools.models import Network


def net_of(conv, pool):
    torch.manual_seed(5)
    layers = [
        conv(1, 4, 3),
        nn.ReLU(),
        pool(2),
        conv(4, 3, 2),
        nn.ReLU(inplace=True),
        nn.Flatten(),
        nn.LazyLinear(2),
    ]
    return nn.Sequential(*layers).double().eval()


CASES = {"slices": (nn.Conv2d, nn.MaxPool2d, (10, 12)), "volumes": (nn.Conv3d, nn.MaxPool3d, (8, 9, 10))}


def case(which):
    conv, pool, shape = CASES[which]
    net, images = net_of(conv, pool), torch.rand(2, 1, *shape, dtype=torch.float64)
    net(images)
    return net, images


def slow(net, image, target, layer):
    """Jiang et al. 2021, equations 5 to 7, cell by cell."""
    features = net[: layer + 1](image[None]).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(net[layer + 1 :](features.clone())[0, target], features)
    total = torch.zeros(features.shape[2:], dtype=torch.float64)
    for cell in torch.cartesian_prod(*map(torch.arange, total.shape)).tolist():
        for a, g in zip(features[0], gradient[0], strict=True):
            total[tuple(cell)] += max(float(g[tuple(cell)]), 0) * float(a[tuple(cell)].detach())
    mode = {2: "bilinear", 3: "trilinear"}[total.ndim]
    return F.interpolate(total.clamp(min=0)[None, None], image.shape[1:], mode=mode)[0]


@pytest.mark.parametrize("layer", [2, 4])
@pytest.mark.parametrize("which", CASES)
def test_equals_slow_reference(which, layer) -> None:
    net, images = case(which)
    maps = layer_cam(net, images, [1, 0], layer=str(layer))
    torch.testing.assert_close(
        maps, torch.stack([slow(net, images[0], 1, layer), slow(net, images[1], 0, layer)])
    )
    assert maps.any()


class Averaged(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 4, 3), nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.conv(x).mean((2, 3)))


def test_of_averaged_features_and_positive_weights_it_is_grad_cam() -> None:
    """There each cell of a channel has the same gradient, the weight over the number of cells."""
    torch.manual_seed(6)
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    ).double()
    net[-1].weight.data.abs_()
    x = torch.rand(2, 1, 6, 7, dtype=torch.float64)
    torch.testing.assert_close(layer_cam(net, x, 1), grad_cam(net, x, 1))


def test_without_relu_negative_activations_count() -> None:
    torch.manual_seed(6)
    net, x = Averaged().double(), torch.rand(2, 1, 6, 7, dtype=torch.float64)
    net.conv.bias.data -= 1
    assert (layer_cam(net, x, 1) >= 0).all()
    assert (layer_cam(net, x, 1, relu=False) < 0).any()


def test_one_pass_for_all_methods_and_layers() -> None:
    net, images = case("slices")
    network = Network(net, images)
    names = ["layer_cam", "grad_cam[0]", "grad_cam_plus_plus[2]", "layer_cam[1]", "layer_cam+smoothgrad"]
    alone = {name: attribute(network, images, 1, [name], draws=2)[name] for name in names}
    asked = []
    network.plain.register_forward_hook(lambda *given: asked.append(len(given[1][0])))
    maps = attribute(network, images, 1, names, draws=2)
    assert asked == [6]
    assert maps.passes == 6
    for name in names:
        torch.testing.assert_close(maps[name], alone[name])
