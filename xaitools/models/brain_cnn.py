"""The network of Eitel and Ritter for T1-weighted brain volumes."""

from collections.abc import Sequence
from math import prod

from torch import nn

from xaitools.errors import ParameterError

FILTERS = (8, 16, 32, 64)
POOLS = (2, 3, 2, 3)
SMALL_POOLS = (2, 2, 2, 1)


def eitel_cnn(
    in_channels: int = 1,
    n_outputs: int = 2,
    input_size: Sequence[int] = (182, 218, 182),
    *,
    pools: Sequence[int] = POOLS,
    hidden: int = 128,
    dropout: float = 0.4,
) -> nn.Sequential:
    """Four blocks of convolution, batch norm, ReLU and max pooling, then two linear layers.

    It takes volumes ``(batch, in_channels, *input_size)`` and returns one logit a class, ``(batch, n_outputs)``.
    The paper prints 31 filters for the third block, where its own series asks for 32, and leaves out the padding
    of the convolutions and the width of the first linear layer: here convolutions keep the size, so that volumes
    of few voxels work too.

    Parameters
    ----------
    in_channels, n_outputs
        Channels of the volumes, logits of the output; ``n_outputs=1`` for a regression or one logit.
    input_size
        Voxels along each spatial axis, at least the product of `pools`.
    pools
        Factors by which the max poolings shrink the volume.
    hidden
        Outputs of the first linear layer.
    dropout
        Probability with which each input of a linear layer is left out in training.

    Raises
    ------
    ParameterError
        If a volume of `input_size` is smaller than the pooling needs, or has not three axes.

    References
    ----------
    Eitel and Ritter, Testing the robustness of attribution methods for convolutional neural networks in MRI-based
    Alzheimer's disease classification, 2019, section 2.2.
    """
    smallest = prod(pools)
    if len(input_size) != 3 or min(input_size) < smallest:
        raise ParameterError(
            f"input_size={tuple(input_size)}; expected three numbers of voxels, each {smallest} or more, since "
            "the poolings together shrink the volume by that factor. Resample the volumes or pad them."
        )
    features = FILTERS[-1]
    for size in input_size:
        features *= _pooled(size, pools)
    layers: list[nn.Module] = []
    for before, filters, pool in zip((in_channels, *FILTERS), FILTERS, pools, strict=False):
        layers += [
            nn.Conv3d(before, filters, kernel_size=3, padding=1),
            nn.BatchNorm3d(filters),
            nn.ReLU(),
            nn.MaxPool3d(pool),
        ]
    layers += [nn.Flatten(), nn.Dropout(dropout), nn.Linear(features, hidden), nn.ReLU()]
    layers += [nn.Dropout(dropout), nn.Linear(hidden, n_outputs)]
    return nn.Sequential(*layers)


def eitel_cnn_small(
    in_channels: int = 1, n_outputs: int = 2, input_size: Sequence[int] = (46, 55, 46)
) -> nn.Sequential:
    """:func:`eitel_cnn` with smaller poolings (2, 2, 2, 1), for voxels of about 4 mm.

    Its linear layers see 5 x 6 x 5 positions of a 4 mm brain, as those of the original do of a 1 mm brain; the
    original's poolings would leave them one.
    """
    return eitel_cnn(in_channels, n_outputs, input_size, pools=SMALL_POOLS)


def _pooled(size: int, pools: Sequence[int]) -> int:
    for pool in pools:
        size //= pool
    return size
