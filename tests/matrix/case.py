"""What an entry of the zoo is, and how its weights are drawn."""

import copy
import warnings
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

GRADIENTS = "gradients"
OCCLUSION = "occlusion"
RECTIFIERS = "rectifiers"
RULES = "rules"
DIFFERENTIABLE = frozenset({GRADIENTS, OCCLUSION})
PIECEWISE_LINEAR = frozenset({GRADIENTS, OCCLUSION, RECTIFIERS, RULES})


@dataclass(frozen=True)
class Case:
    """A network and what is expected of it.

    Attributes
    ----------
    name, family
        Its row, and the section of the table.
    build
        Makes the user's model.
    works
        Kinds of methods that must be right; a refusal of these is a fault.
    forbidden
        Kinds of methods that must refuse, as they are not defined or would be wrong.
    shape
        Of an image (channel, *spatial).
    target
        Class of each of the two images, or None.
    plain
        The same function as an eager network without wrapper, from the user's model.
    pick
        The scores among what the network returns.
    call
        Further arguments of `attribute`.
    bound
        Largest norm of a map's error as a fraction of its own if the numbers are coarse; None where they are not.
    note
        What all but occlusion is true of, where that is not the network itself.
    settled
        Whether weights are drawn anew, see `settle`.
    images
        Turns the images in [0, 1] into the network's.
    """

    name: str
    family: str
    build: Callable[[], Any]
    works: frozenset[str] = DIFFERENTIABLE
    forbidden: frozenset[str] = frozenset()
    shape: tuple[int, ...] = (1, 16, 16)
    target: Any = (2, 0)
    plain: Callable[[Any], nn.Module] = lambda model: model
    pick: Callable[[Any], Tensor] = lambda outputs: outputs
    call: Mapping[str, Any] = field(default_factory=dict)
    bound: float | None = None
    note: str = ""
    settled: bool = True
    images: Callable[[Tensor], Tensor] = lambda images: images

    def make(self) -> tuple[Any, nn.Module, Tensor]:
        """The user's model, its plain twin in float64, and two images."""
        generator = torch.Generator().manual_seed(7)
        smooth = torch.rand(16, *self.shape, generator=generator)
        pool = F.avg_pool2d if len(self.shape) == 3 else F.avg_pool3d
        images = self.images(0.5 * smooth + 0.5 * pool(smooth, 3, stride=1, padding=1))
        with torch.random.fork_rng(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of old ways to write a network, which are their authors' affair
            torch.manual_seed(0)
            model = self.build()
            if hasattr(model, "eval"):
                model.eval()
            if self.settled:
                settle(model, images)
            plain = self.plain(model).eval()
        return model, copy.deepcopy(plain).double().eval().requires_grad_(False), images[:2]

    @property
    def targets(self) -> Tensor | None:
        return None if self.target is None else torch.tensor(self.target)


def settle(model: nn.Module, images: Tensor) -> None:
    """Draw weights that keep activations near 1, and statistics of batch normalisation that change something."""
    with torch.no_grad():
        for name, value in model.named_parameters():
            if name.endswith("bias"):
                value.normal_(0, 0.1)
            elif value.ndim == 1:
                value.uniform_(0.5, 1.5)
            elif name.endswith("weight"):
                nn.init.kaiming_normal_(value)
            else:
                value.normal_(0, 0.5)
        norms = [
            m
            for m in model.modules()
            if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats
        ]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None
            norm.train()
        if norms:
            model(images.to(next(model.parameters())).clone())
        for norm in norms:
            norm.momentum = 0.1
            norm.eval()
            norm.running_mean += 0.1 * torch.randn_like(norm.running_mean)
            norm.running_var *= 0.5 + torch.rand_like(norm.running_var)


ZOO: dict[str, Case] = {}


def add(name: str, family: str, build: Callable[[], Any], *works: str, **options: Any) -> None:
    """Put a network into the zoo; `works` are the kinds that must be right, all that is differentiable by default."""
    assert name not in ZOO, name
    ZOO[name] = Case(name, family, build, works=frozenset(works) or DIFFERENTIABLE, **options)


def no_rectifiers_unless(works: Collection[str]) -> dict[str, frozenset[str]]:
    """Deconvolution and its like must refuse what has other activations than ReLU."""
    return {} if RECTIFIERS in works else NOT_ALL_RELU


NOT_ALL_RELU = {"forbidden": frozenset({RECTIFIERS})}
