"""Small networks that contain what goes wrong in practice."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet
from torchvision.models.vgg import VGG, make_layers


class ResidualNet(nn.Module):
    """torchvision's own blocks: one in-place ReLU used several times, sums in place."""

    def __init__(self, block: type = Bottleneck, classes: int = 3):
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.relu = nn.ReLU(inplace=True)
        width = 8 // block.expansion
        self.blocks = nn.Sequential(block(8, width), block(8, width))
        self.head = nn.Linear(8, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(self.relu(self.norm(self.stem(x))))
        return self.head(x.mean((2, 3)))


class FunctionalNet(nn.Module):
    """ReLUs that are no modules, in three spellings, and a branch that tracing cannot follow."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.first(x))
        if float(x.detach().sum()) > -1:
            x = torch.relu_(self.second(x))
        return self.head((x - 0.1).relu().mean((2, 3)))


class VolumeNet(nn.Module):
    """Three spatial axes and one output."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv3d(1, 4, 3), nn.BatchNorm3d(4), nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.norm(self.conv(x))).mean((2, 3, 4)))


def trained(network: nn.Module, seed: int = 0) -> nn.Module:
    """Random weights and batch statistics that are not those of a fresh network, in evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
            for tensor in (module.running_mean, module.bias.data):
                tensor.copy_(0.3 * torch.randn(tensor.shape, generator=generator))
            for tensor in (module.running_var, module.weight.data):
                tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
    return network.eval()


@pytest.fixture(params=[BasicBlock, Bottleneck])
def residual_net(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(0)
    return trained(ResidualNet(request.param))


@pytest.fixture
def make_residual_net() -> Callable[[], nn.Module]:
    """One kind of residual network, where the kind does not matter."""

    def make() -> nn.Module:
        torch.manual_seed(0)
        return trained(ResidualNet(BasicBlock))

    return make


@pytest.fixture
def functional_net() -> nn.Module:
    torch.manual_seed(1)
    return trained(FunctionalNet())


@pytest.fixture
def volume_net() -> nn.Module:
    torch.manual_seed(2)
    return trained(VolumeNet())


@pytest.fixture
def images() -> Tensor:
    return torch.rand(3, 1, 12, 10, generator=torch.Generator().manual_seed(3))


@pytest.fixture
def targets() -> Tensor:
    return torch.tensor([2, 0, 1])


@pytest.fixture
def make_trained() -> Callable[[nn.Module], nn.Module]:
    """`trained`, for networks that a test defines itself."""
    return trained


def without_biases(net: nn.Module) -> nn.Module:
    """Every bias zero once batch normalisation is merged."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
            scale = module.weight / (module.running_var + module.eps).sqrt()
            module.bias.data = (module.running_mean * scale).detach()
        elif getattr(module, "bias", None) is not None:
            module.bias.data.zero_()
    return net


class SmallResNet(ResNet):
    """torchvision's forward pass and layers, narrow enough for tests."""

    def __init__(self) -> None:
        nn.Module.__init__(self)
        self._norm_layer, self.inplanes, self.dilation, self.groups, self.base_width = (
            nn.BatchNorm2d,
            32,
            1,
            1,
            64,
        )
        self.conv1, self.bn1 = nn.Conv2d(3, 32, 7, stride=2, padding=3, bias=False), nn.BatchNorm2d(32)
        self.relu, self.maxpool = nn.ReLU(inplace=True), nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = self._make_layer(BasicBlock, 32, 1)
        self.layer2 = self._make_layer(BasicBlock, 64, 1, stride=2)
        self.layer3 = self._make_layer(BasicBlock, 96, 1, stride=2)
        self.layer4 = self._make_layer(BasicBlock, 128, 1, stride=2)
        self.avgpool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(128, 3)


class SmallVGG(VGG):
    """torchvision's forward pass, with a classifier that tests can afford."""

    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.features = make_layers([8, "M", 16, 16, "M"])
        self.avgpool = nn.AdaptiveAvgPool2d(2)
        self.classifier = nn.Sequential(nn.Linear(64, 32), nn.ReLU(True), nn.Dropout(), nn.Linear(32, 3))


@pytest.fixture(params=["resnet", "vgg", "volume"])
def homogeneous(
    request: pytest.FixtureRequest, volume_net: nn.Module
) -> tuple[nn.Module, Tensor, Tensor | None]:
    """A network whose biases are all zero, images, and targets."""
    torch.manual_seed(1)
    if request.param == "volume":
        volume_net.head.weight.data = torch.tensor([[2.0, -1.0, 3.0, -1.0]])
        return without_biases(volume_net), torch.rand(2, 1, 6, 7, 5), None
    net = without_biases(trained({"resnet": SmallResNet, "vgg": SmallVGG}[request.param]()))
    (net.fc if request.param == "resnet" else net.classifier[3]).weight.data *= 30
    images = torch.rand(2, 3, 32, 32)
    return net, images, net(images).detach().abs().argmax(1)  # small outputs are sums that cancel
