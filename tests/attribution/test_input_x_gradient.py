import torch

from xaitools.attribution import gradient, input_x_gradient


def test_is_the_image_times_its_gradient(residual_net, images, targets) -> None:
    expected = images * gradient(residual_net, images, targets)
    torch.testing.assert_close(input_x_gradient(residual_net, images, targets), expected)


def test_sums_to_the_output_without_biases(volume_net) -> None:
    """Such a network is positively homogeneous: Euler's theorem."""
    net = volume_net.double()
    net.norm.bias.data = (
        net.norm.running_mean * net.norm.weight / (net.norm.running_var + net.norm.eps).sqrt()
    )
    net.conv.bias.data.zero_()
    net.head.bias.data.zero_()
    x = torch.rand(2, 1, 6, 5, 7, dtype=torch.float64)
    torch.testing.assert_close(input_x_gradient(net, x).flatten(1).sum(1), net(x)[:, 0].detach())
