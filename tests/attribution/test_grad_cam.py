import pytest
import torch
import torch.nn.functional as F
from torch import nn

from xaitools.attribution import attribute, attribute_segmentation, grad_cam
from xaitools.attribution.registry import METHODS
from xaitools.errors import MethodError, TargetError, UnsupportedModelError
from xaitools.models import Network


def slow_grad_cam(net, module, image, target, relu=True):
    """Selvaraju et al. 2017, equations 1 and 2, one channel at a time by autograd on the model itself."""
    kept = []

    def keep(module, inputs, output):
        kept.append(output)
        return output.clone()

    with module.register_forward_hook(keep):
        output = net(image[None].clone())[0, target]
    (slopes,) = torch.autograd.grad(output, kept)
    total = sum(a * g.sum() / g.numel() for a, g in zip(kept[0][0], slopes[0], strict=True)).detach()
    total = total.clamp(min=0) if relu else total
    mode = {2: "bilinear", 3: "trilinear"}[total.ndim]
    return F.interpolate(total[None, None], image.shape[1:], mode=mode)[0].expand_as(image)


def small(conv, pool, channels=1, classes=3):
    """Convolutions with pools between them, a hidden linear layer after them, and ReLUs in place."""
    layers = [
        *(conv(channels, 4, 3), nn.ReLU(inplace=True), pool(2), conv(4, 6, 2), nn.ReLU(inplace=True)),
        *(nn.Flatten(), nn.LazyLinear(5), nn.ReLU(), nn.Linear(5, classes)),
    ]
    return nn.Sequential(*layers).double().eval()


def volumes():
    return torch.rand(2, 2, 9, 8, 11, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def slices():
    return torch.rand(3, 2, 11, 14, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


CASES = {"slices": (nn.Conv2d, nn.MaxPool2d, slices), "volumes": (nn.Conv3d, nn.MaxPool3d, volumes)}


def case(which):
    conv, pool, make = CASES[which]
    torch.manual_seed(0)
    net, images = small(conv, pool, 2), make()
    net(images)
    return net, images, [i % 3 for i in range(len(images))]


@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("layer", ["0", "1", "2", "3", "4"])
@pytest.mark.parametrize("which", CASES)
def test_equals_slow_reference(which, layer, relu) -> None:
    net, images, targets = case(which)
    maps = grad_cam(net, images, targets, layer=layer, relu=relu, batch_size=2)
    module = net.get_submodule(layer)
    slow = [slow_grad_cam(net, module, x, c, relu) for x, c in zip(images, targets, strict=True)]
    torch.testing.assert_close(maps, torch.stack(slow))
    assert maps.any()


def test_the_default_is_the_last_layer_with_cells() -> None:
    net, images, targets = case("volumes")
    maps = attribute(net, images, targets, ["grad_cam", "grad_cam[4]", "grad_cam[3]"])
    assert torch.equal(maps["grad_cam"], maps["grad_cam[4]"])
    assert not torch.equal(maps["grad_cam"], maps["grad_cam[3]"])


class Averaged(nn.Module):
    """Convolutions, their mean over all cells, a linear layer: the network of class activation maps."""

    def __init__(self, conv, axes):
        super().__init__()
        self.conv, self.head, self.axes = conv(1, 5, 3, padding=1), nn.Linear(5, 3), axes

    def forward(self, x):
        return self.head(self.conv(x).mean(self.axes))


@pytest.mark.parametrize(("conv", "shape"), [(nn.Conv2d, (6, 7)), (nn.Conv3d, (4, 5, 6))])
def test_of_averaged_features_it_is_the_class_activation_map(conv, shape) -> None:
    """Zhou et al. 2016, equation 2, over the number of cells; its sum is the output without bias."""
    torch.manual_seed(2)
    net = Averaged(conv, tuple(range(2, 2 + len(shape)))).double()
    x = torch.rand(2, 1, *shape, dtype=torch.float64)
    maps = grad_cam(net, x, [1, 2], relu=False)
    features = net.conv(x).detach()
    for map_, feature, target in zip(maps, features, [1, 2], strict=True):
        cam = torch.einsum("k,k...->...", net.head.weight[target].detach(), feature)
        torch.testing.assert_close(map_[0], cam / cam.numel())
    outputs = (net(x) - net.head.bias)[[0, 1], [1, 2]].detach()
    torch.testing.assert_close(maps.flatten(1).sum(1), outputs)


class Plates(nn.Module):
    """The network of a slice, or the same along the third axis of a volume."""

    def __init__(self, weights=None):
        super().__init__()
        self.conv = (
            nn.Conv2d(1, 4, 3, padding=1)
            if weights is None
            else nn.Conv3d(1, 4, (3, 3, 1), padding=(1, 1, 0))
        )
        self.pool = nn.MaxPool2d(2) if weights is None else nn.MaxPool3d((2, 2, 1))
        self.head = nn.Linear(4, 3)
        if weights is not None:
            self.load_state_dict({k: v[..., None] if v.ndim == 4 else v for k, v in weights.items()})

    def forward(self, x):
        return self.head(self.pool(self.conv(x).relu()).flatten(2).square().mean(2))


@pytest.mark.parametrize("name", ["grad_cam", "grad_cam[conv]"])
def test_a_volume_of_equal_slices_is_explained_as_the_slice(name) -> None:
    """Its gradients are shared among the slices, and so is the map."""
    torch.manual_seed(3)
    flat = Plates().double()
    deep = Plates(flat.state_dict()).double()
    x = torch.rand(2, 1, 8, 6, dtype=torch.float64)
    (slice_,) = attribute(flat, x, [0, 2], [name]).values()
    (volume,) = attribute(deep, x[..., None].expand(-1, -1, -1, -1, 5), [0, 2], [name]).values()
    torch.testing.assert_close(volume, slice_[..., None].expand_as(volume) / 5)
    assert slice_.any()


def test_one_pass_for_all_layers_and_images(monkeypatch) -> None:
    net, images, targets = case("slices")
    network = Network(net, images)
    names = ["grad_cam", "grad_cam[0]", "grad_cam[2]"]
    alone = {name: attribute(network, images, targets, [name])[name] for name in names}
    asked = []
    network.plain.register_forward_hook(lambda *given: asked.append(len(given[1][0])))
    maps = attribute(network, images, targets, names)
    assert asked == [3]
    assert maps.passes == 3
    for name in names:
        torch.testing.assert_close(maps[name], alone[name])


def test_a_layer_that_is_not_there() -> None:
    net, images, targets = case("slices")
    with pytest.raises(
        MethodError, match=r"layer='conv9' of Sequential does not exist.*expected one of 0, 1, 2, 3, 4"
    ):
        grad_cam(net, images, targets, layer="conv9")
    with pytest.raises(MethodError, match=r"grad_cam\[6\].*returns \(1, 5\) for one image"):
        attribute(net, images, targets, ["grad_cam[6]"])
    with pytest.raises(TargetError, match="target 3"):
        grad_cam(net, images, 3)


class Side(nn.Module):
    """One layer is called twice, one leads nowhere, and one is cut off."""

    def __init__(self):
        super().__init__()
        self.conv, self.twice, self.nowhere = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        x = self.twice(self.twice(self.conv(x)).relu())
        self.nowhere(x)
        return self.head(x.mean((2, 3)))


def test_a_layer_that_does_not_do(images, targets) -> None:
    with pytest.raises(
        MethodError, match=r"layer='twice' of Side is called 2 times.*expected one of conv, nowhere"
    ):
        grad_cam(Side(), images, targets, layer="twice")
    with pytest.raises(UnsupportedModelError, match="does not depend on its layer 'nowhere'"):
        grad_cam(Side(), images, targets, layer="nowhere")
    assert METHODS["grad_cam"].supports(Network(Side(), images)) is None
    maps = attribute(Side(), images, targets, ["grad_cam[nowhere]", "grad_cam[conv]"], on_error="keep")
    assert list(maps) == ["grad_cam[conv]"]


def test_a_table_has_no_cells() -> None:
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.head = nn.Conv2d(1, 4, 3), nn.Linear(6, 3)

        def forward(self, x, table):
            return self.head(torch.cat([self.conv(x).relu().mean((2, 3)), table], 1))

    torch.manual_seed(0)
    net, x, table = Both(), torch.rand(2, 1, 8, 8), torch.rand(2, 2)
    own, held = attribute(net, (x, table), [0, 1], ["grad_cam[conv]"], held=(1,))["grad_cam[conv]"]
    alone = grad_cam(nn.Sequential(Half(net)), x, [0, 1], layer="0.net.conv")
    torch.testing.assert_close(own, alone)
    assert held is None
    with pytest.raises(UnsupportedModelError, match="hold the others"):
        attribute(net, (x, table), [0, 1], ["grad_cam"], held=(0,))


class Half(nn.Module):
    """The part of a network of images and tables that a held table does not change."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x, x.new_zeros(len(x), 2))


def test_windows_of_a_segmentation_one_by_one() -> None:
    """Windows side by side are images of their own, and layers have the names of the user's model."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(4, 3, 1)).double()
    x = torch.rand(1, 1, 8, 12, dtype=torch.float64)
    everything = torch.ones(1, 8, 12, dtype=torch.bool)
    names = ["grad_cam[1]", "grad_cam[0]"]
    maps = attribute_segmentation(net, x, 2, names, region=everything, window=(8, 6), overlap=0.0)
    for name in names:
        halves = [
            attribute_segmentation(net, half, 2, [name], region=everything[..., :6])[name]
            for half in x.split(6, 3)
        ]
        torch.testing.assert_close(maps[name], torch.cat(halves, 3))
