"""The network of the slides on brain MRI: the baseline that their authors published for sex."""

import itertools
from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from xaitools.errors import ShapeError

FILTERS = (32, 64, 128)
SMALL_FILTERS = (8, 16, 32)
SMALLEST = 22
LAST_RELU = "features.10"
"""The last ReLU before the last max pooling, which the slides' Grad-CAM looks at: ``grad_cam[features.10]``."""


def head_cnn(
    in_channels: int = 1,
    n_outputs: int = 2,
    input_size: Sequence[int] = (58, 70, 58),
    *,
    filters: Sequence[int] = FILTERS,
    dropout: float = 0.5,
) -> nn.Sequential:
    """Three blocks of convolution, batch norm and ReLU with max poolings, then one linear layer.

    It takes volumes ``(batch, in_channels, *input_size)`` and returns one logit a class, ``(batch, n_outputs)``. Its
    layers are named as in its authors' public code, so that their weights load as they are: ``features.0`` to
    ``features.10``, the last ReLU, which their Grad-CAM looks at (:data:`LAST_RELU`), then ``classifier.0``, the last
    max pooling, to ``classifier.3``, the linear layer. Convolutions have no padding, as there. The slides draw the
    network without its numbers.

    Parameters
    ----------
    in_channels, n_outputs
        Channels of the volumes, logits of the output; ``n_outputs=1`` for a regression or one logit.
    input_size
        Voxels along each spatial axis, 22 or more; theirs is 58 x 70 x 58, of about 3.1 mm.
    filters
        Of the three convolutions.
    dropout
        Probability with which each input of the linear layer is left out in training.

    Raises
    ------
    ShapeError
        If a volume of `input_size` is smaller than the poolings need, or has not three axes.

    References
    ----------
    Kan et al., Interpretation of 3D CNNs for brain MRI data classification, AIST 2020, arXiv 2006.15969.
    """
    if len(input_size) != 3 or min(input_size) < SMALLEST:
        raise ShapeError(
            f"input_size={tuple(input_size)}; expected three numbers of voxels, each {SMALLEST} or more, since three "
            "convolutions without padding and three poolings shrink the volume. Resample the volumes or pad them."
        )
    features: list[nn.Module] = []
    for before, after in itertools.pairwise((in_channels, *filters)):
        if features:
            features.append(nn.MaxPool3d(2))
        features += [nn.Conv3d(before, after, kernel_size=3), nn.BatchNorm3d(after), nn.ReLU()]
    n_features = filters[-1]
    for size in input_size:
        n_features *= _left(size)
    classifier = [nn.MaxPool3d(2), nn.Flatten(), nn.Dropout(dropout), nn.Linear(n_features, n_outputs)]
    return nn.Sequential(
        OrderedDict(features=nn.Sequential(*features), classifier=nn.Sequential(*classifier))
    )


def head_cnn_small(
    in_channels: int = 1, n_outputs: int = 2, input_size: Sequence[int] = (40, 48, 40)
) -> nn.Sequential:
    """:func:`head_cnn` with 8, 16 and 32 filters, for heads with voxels of 4 to 8 mm and a quick training."""
    return head_cnn(in_channels, n_outputs, input_size, filters=SMALL_FILTERS)


def _left(size: int) -> int:
    """Cells along an axis that reach the linear layer."""
    for _ in FILTERS:
        size = (size - 2) // 2
    return size
