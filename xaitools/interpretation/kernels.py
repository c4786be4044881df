"""The kernels of a convolution: what a layer, above all the first one, looks for."""

from jaxtyping import Float
from torch import Tensor, nn

from xaitools.checks import check_choice
from xaitools.errors import MethodError, UnsupportedModelError


def layer_kernels(
    model: nn.Module, layer: str | None = None
) -> Float[Tensor, "filter channel height width"] | Float[Tensor, "filter channel x y z"]:
    """The kernels of a convolution as they are, with nothing folded in.

    Those of the first convolution are patterns of the image. Those of a later one weigh channels of the layer before,
    so they say little by themselves. Batch normalisation after the layer scales each filter and may turn its sign: it
    is left out, so compare patterns, not sizes, between filters.

    Parameters
    ----------
    model
        A network with convolutions; it stays as it is.
    layer
        Name of the convolution in the model; None for the first one in the order in which the model lists them.

    Returns
    -------
    Tensor
        A copy on the CPU, float32: weights, positive where a brighter voxel raises the filter's output. A convolution
        in groups has only the channels of a group.

    Raises
    ------
    UnsupportedModelError
        If the network has no convolution, as a transformer or a linear model may have none.
    MethodError
        If there is no convolution of that name; the message lists those that there are.
    """
    convolutions = {
        name: module for name, module in model.named_modules() if isinstance(module, nn.Conv2d | nn.Conv3d)
    }
    if not convolutions:
        raise UnsupportedModelError(
            f"{type(model).__name__} has no Conv2d or Conv3d, so it has no kernels to show; expected a convolutional "
            "network: look at its features or at images that maximise its outputs instead."
        )
    if layer is None:
        layer = next(iter(convolutions))
    check_choice(MethodError, layer=(layer, convolutions))
    return convolutions[layer].weight.detach().float().cpu().clone()
