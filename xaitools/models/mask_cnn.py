"""The family of networks that Thibeau-Sutre et al. searched for grey-matter maps."""

import itertools
import re
from collections.abc import Sequence
from math import prod

from torch import nn

from xaitools.checks import check_counts
from xaitools.errors import ParameterError, ShapeError

SPELLED = re.compile(r"gm_cnn_b(\d+)_f(\d+)_l(\d+)_d(\d+)")


def gm_cnn(
    in_channels: int = 1,
    n_outputs: int = 2,
    input_size: Sequence[int] = (121, 145, 121),
    *,
    n_blocks: int = 5,
    filters: int = 8,
    n_linear: int = 2,
    dropout: float = 0.79,
) -> nn.Sequential:
    """Blocks of convolution, batch norm, leaky ReLU and max pooling, then dropout and linear layers.

    It takes volumes ``(batch, in_channels, *input_size)`` and returns one logit a class, ``(batch, n_outputs)``. The
    poster draws its network and names the layers and the dropout only; kernels (3), paddings (1), pools (2), the
    doubling of the filters from block to block and the widths of the linear layers (a geometric series from the
    features down to the outputs) are ours.

    Parameters
    ----------
    in_channels, n_outputs
        Channels of the volumes, logits of the output; ``n_outputs=1`` for a regression or one logit.
    input_size
        Voxels along each spatial axis, ``2 ** n_blocks`` or more.
    n_blocks
        Blocks; each halves the volume.
    filters
        Of the first block; each further block has twice as many.
    n_linear
        Linear layers, the last one that of the logits.
    dropout
        Probability with which each input of the first linear layer is left out in training.

    Raises
    ------
    ShapeError
        If a volume of `input_size` is smaller than the pooling needs, or has not three axes.
    ParameterError
        If a number is out of its range.

    References
    ----------
    Thibeau-Sutre et al., Visualization approach to assess the robustness of neural networks for medical image
    classification, 2020, "CNN architecture and training".
    """
    check_counts(n_blocks=n_blocks, filters=filters, n_linear=n_linear)
    if not 0 <= dropout < 1:
        raise ParameterError(f"dropout={dropout}; expected a probability of 0 or more and below 1.")
    smallest = 2**n_blocks
    if len(input_size) != 3 or min(input_size) < smallest:
        raise ShapeError(
            f"input_size={tuple(input_size)}; expected three numbers of voxels, each {smallest} or more, since "
            f"{n_blocks} poolings halve the volume each. Resample the volumes, pad them, or take fewer blocks."
        )
    layers: list[nn.Module] = []
    widths = [in_channels, *(filters * 2**block for block in range(n_blocks))]
    for before, after in itertools.pairwise(widths):
        layers += [
            nn.Conv3d(before, after, kernel_size=3, padding=1),
            nn.BatchNorm3d(after),
            nn.LeakyReLU(),
            nn.MaxPool3d(2),
        ]
    features = widths[-1] * prod(size // smallest for size in input_size)
    ratio = (n_outputs / features) ** (1 / n_linear)
    sizes = [features, *(max(n_outputs, round(features * ratio**i)) for i in range(1, n_linear)), n_outputs]
    layers += [nn.Flatten(), nn.Dropout(dropout)]
    for before, after in itertools.pairwise(sizes):
        layers += [nn.Linear(before, after), nn.LeakyReLU()]
    return nn.Sequential(*layers[:-1])


def gm_cnn_small(
    in_channels: int = 1, n_outputs: int = 2, input_size: Sequence[int] = (26, 32, 26)
) -> nn.Sequential:
    """:func:`gm_cnn` of three blocks, one linear layer and a dropout of 0.5, for voxels of 4 to 6 mm."""
    return gm_cnn(in_channels, n_outputs, input_size, n_blocks=3, filters=8, n_linear=1, dropout=0.5)


def spelled_options(name: str) -> dict[str, float] | None:
    """Options of the member of the family that a name spells, None if it spells none.

    Examples
    --------
    >>> spelled_options("gm_cnn_b4_f8_l2_d79")
    {'n_blocks': 4, 'filters': 8, 'n_linear': 2, 'dropout': 0.79}
    """
    if not (found := SPELLED.fullmatch(name)):
        return None
    n_blocks, filters, n_linear, percent = map(int, found.groups())
    return {"n_blocks": n_blocks, "filters": filters, "n_linear": n_linear, "dropout": percent / 100}
