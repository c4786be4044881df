"""SmoothGrad and its relatives: moments of one stream of noisy maps."""

from collections.abc import Callable

import torch
from torch import Tensor


class Moments:
    """Running mean and variance of maps (Welford), so that no noisy map is kept."""

    def __init__(self) -> None:
        self.count = 0
        self.mean = torch.zeros(())
        self.squares = torch.zeros(())

    def add(self, noisy: Tensor) -> None:
        """Take in one noisy map."""
        self.count += 1
        difference = noisy - self.mean
        self.mean = self.mean + difference / self.count
        self.squares = self.squares + difference * (noisy - self.mean)

    @property
    def variance(self) -> Tensor:
        """Population variance, the divisor being the number of maps."""
        return self.squares / self.count


def smoothgrad(moments: Moments) -> Tensor:
    """Mean of the noisy maps (Smilkov et al. 2017, arXiv:1706.03825, section 3)."""
    return moments.mean


def smoothgrad_squared(moments: Moments) -> Tensor:
    """Mean of the squared noisy maps (Hooker et al. 2019, arXiv:1806.10758)."""
    return moments.variance + moments.mean**2


def vargrad(moments: Moments) -> Tensor:
    """Variance of the noisy maps (Adebayo et al. 2018, arXiv:1810.03307)."""
    return moments.variance


SMOOTHINGS: dict[str, Callable[[Moments], Tensor]] = {
    "smoothgrad": smoothgrad,
    "smoothgrad_squared": smoothgrad_squared,
    "vargrad": vargrad,
}

SMOOTHING_LABELS = {"": "plain", "smoothgrad": "SG", "smoothgrad_squared": "SG²", "vargrad": "VG"}
"""As the CT paper writes them."""

SMOOTHING_IDEAS = {
    "": "",
    "smoothgrad": "Mean over noisy copies of the image.",
    "smoothgrad_squared": "Mean of the squares over noisy copies of the image.",
    "vargrad": "Variance over noisy copies of the image.",
}
