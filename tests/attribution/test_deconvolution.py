import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models.resnet import BasicBlock

from xaitools.attribution import deconvolution
from xaitools.errors import UnsupportedModelError


def back(module: nn.Module, signal: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Transpose of a convolution and the batch normalisation after it."""
    convolution, norm = module
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    return torch.nn.grad.conv2d_input(
        like.shape, convolution.weight, signal * scale[:, None, None], convolution.stride, convolution.padding
    )


def slow_deconvolution(net, x, target):
    """Layer by layer by hand: each ReLU passes back the positive part, each sum passes the signal to both sides."""
    signal = net.head.weight[target][None, :, None, None] / (x.shape[2] * x.shape[3])
    signal = signal.expand(1, -1, *x.shape[2:])
    features = x.expand(1, 8, -1, -1)
    for block in reversed(net.blocks):
        signal = F.relu(signal)
        pairs = [(block.conv1, block.bn1), (block.conv2, block.bn2)]
        if not isinstance(block, BasicBlock):
            pairs.append((block.conv3, block.bn3))
        inner = signal
        for i, pair in reversed(list(enumerate(pairs))):
            like = features[:, :1].expand(1, pair[0].in_channels, -1, -1)
            inner = back(pair, inner, like)
            if i:
                inner = F.relu(inner)
        signal = signal + inner
    return back((net.stem, net.norm), F.relu(signal), x)


def test_equals_reference_by_hand_on_residual_blocks(residual_net, images, targets) -> None:
    net = residual_net.double()
    maps = deconvolution(net, images.double(), targets)
    with torch.no_grad():
        slow = [
            slow_deconvolution(net, x[None].double(), int(t))[0] for x, t in zip(images, targets, strict=True)
        ]
    torch.testing.assert_close(maps, torch.stack(slow))


def test_functional_relus_are_seen(functional_net, images, targets) -> None:
    """Libraries that replace modules return the plain gradient here."""
    first, second, head = functional_net.first, functional_net.second, functional_net.head
    signal = (head.weight[targets] / 120)[:, :, None, None].expand(-1, -1, 12, 10)
    signal = F.relu(F.relu(signal))
    signal = F.relu(torch.nn.grad.conv2d_input((3, 4, 12, 10), second.weight, signal, padding=1))
    slow = torch.nn.grad.conv2d_input((3, 1, 12, 10), first.weight, signal, padding=1)
    torch.testing.assert_close(deconvolution(functional_net, images, targets), slow)


def test_a_network_without_relu(images) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(120, 3), nn.Tanh())
    with pytest.raises(UnsupportedModelError, match="No ReLU was found in Sequential"):
        deconvolution(net, images, torch.zeros(3, dtype=torch.long))


@pytest.mark.parametrize(
    "activation", [nn.LeakyReLU(), nn.GELU(), nn.ReLU6(), nn.SiLU(), nn.ELU(), nn.PReLU()]
)
def test_other_activations_are_refused(images, activation) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(120, 4), nn.ReLU(), nn.Linear(4, 3), activation)
    with pytest.raises(UnsupportedModelError, match="has a rule for ReLU only"):
        deconvolution(net, images, torch.zeros(3, dtype=torch.long))


def test_hidden_operations_are_refused(images) -> None:
    class Custom(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clamp(min=0)

        @staticmethod
        def backward(ctx, grad):
            return grad

    class Net(nn.Module):
        def forward(self, x):
            return Custom.apply(torch.relu(x)).mean((1, 2, 3))

    with pytest.raises(UnsupportedModelError, match="custom or compiled operation CustomBackward"):
        deconvolution(Net(), images)
