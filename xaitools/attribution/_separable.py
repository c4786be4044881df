"""Linear maps of images that go axis by axis: blurs, and coarse grids made fine."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

TRUNCATE = 4.0
"""Standard deviations at which a Gaussian ends."""


def along_axes(values: Tensor, matrices: Sequence[Tensor]) -> Tensor:
    """Values (..., *spatial) multiplied by a matrix (new, old) along each spatial axis."""
    for axis, matrix in enumerate(matrices, values.ndim - len(matrices)):
        values = (values.movedim(axis, -1) @ matrix.to(values).T).movedim(-1, axis)
    return values


def blurring(n: int, sigma: float) -> Tensor:
    """Matrix (n, n) of a Gaussian blur, float64; beyond its ends a line goes on as it ends."""
    radius = int(TRUNCATE * sigma + 0.5)
    offsets = torch.arange(-radius, radius + 1)
    weights = torch.exp(-(offsets.double() ** 2) / (2 * sigma**2)) if radius else torch.ones(1).double()
    seen = (torch.arange(n)[:, None] + offsets).clamp(0, n - 1)
    return torch.zeros(n, n, dtype=torch.float64).scatter_add_(
        1, seen, (weights / weights.sum()).expand(n, -1).contiguous()
    )


def cells_of(n: int, coarse: int) -> int:
    """Cells of `coarse` voxels that cover a line of n voxels."""
    return math.ceil(n / coarse)


def enlarging(n: int, coarse: int) -> Tensor:
    """Matrix (n, cells) that draws lines between the middles of cells of `coarse` voxels, float64."""
    cells = cells_of(n, coarse)
    position = ((torch.arange(n, dtype=torch.float64) + 0.5) / coarse - 0.5).clamp(0, cells - 1)
    before = position.long().clamp(max=max(cells - 2, 0))
    after = (before + 1).clamp(max=cells - 1)
    share = (position - before)[:, None]
    matrix = torch.zeros(n, cells, dtype=torch.float64)
    return matrix.scatter_add_(1, before[:, None], 1 - share).scatter_add_(1, after[:, None], share)


def averaging(n: int, coarse: int) -> Tensor:
    """Matrix (cells, n) of the mean over the voxels of each cell, float64."""
    owner = torch.arange(n) // coarse
    members = (owner == torch.arange(cells_of(n, coarse))[:, None]).double()
    return members / members.sum(1, keepdim=True)
