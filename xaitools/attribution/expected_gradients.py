"""Expected gradients (Erion et al. 2021): integrated gradients averaged over reference images."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from xaitools.attribution.names import MethodName
from xaitools.attribution.passes import Path, gradients, single
from xaitools.attribution.sharing import Request, Source
from xaitools.errors import MethodError, ShapeError


def path(references: Tensor, samples: int) -> Path:
    """Gradients at random positions on lines from random references to the image."""

    def points(row: Tensor, part: slice, key: int) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(key)
        chosen = torch.randint(len(references), (samples,), generator=generator)[part]
        position = torch.rand(samples, generator=generator)[part].to(row.device).view(-1, *[1] * row.ndim)
        start = references[chosen.to(references.device)].to(row)
        difference = row - start
        return start + position * difference, difference / samples

    return Path(samples, points)


def check_references(references: Tensor | None, image: Tensor) -> Tensor:
    """The references, checked to be images like `image` (channel, *spatial)."""
    if references is None or len(references) == 0:
        raise MethodError(
            "expected_gradients draws its baselines from reference images, and none were given; "
            "pass references=training images (n, channel, *spatial)."
        )
    if references.shape[1:] != image.shape:
        raise ShapeError(
            f"References of shape {tuple(references.shape[1:])} do not fit images of shape {tuple(image.shape)}; "
            "both are (channel, *spatial) and must agree."
        )
    return references


def source(name: MethodName, request: Request) -> Source:
    """What `attribute` computes for this method."""
    references = check_references(request.references, request.images[0])
    return Source(gradients, {name.source: path(references, request.steps)})


def expected_gradients(
    model: nn.Module,
    inputs: Float[Tensor, "batch channel *spatial"],
    target: Int[Tensor, " batch"] | None = None,
    *,
    references: Float[Tensor, "reference ref_channel *ref_spatial"],
    samples: int = 50,
    batch_size: int = 16,
    seed: int = 0,
) -> Float[Tensor, "batch channel *spatial"]:
    """Integrated gradients with baselines drawn from `references` and positions drawn uniformly.

    Parameters
    ----------
    model, inputs, target, batch_size
        As for :func:`~xaitools.attribution.gradient.gradient`.
    references
        Reference images, usually the training set.
    samples
        Pairs of reference and position drawn for each image.
    seed
        Same seed, same draws; the draws of an image do not depend on the other images.

    Returns
    -------
    Tensor
        In units of the output; its expected sum is output(image) - mean output(references).

    Raises
    ------
    MethodError
        If there are no references.
    ShapeError
        If the references do not fit the images.
    TargetError, UnsupportedModelError
        As for :func:`~xaitools.attribution.gradient.gradient`.

    References
    ----------
    Erion et al. 2021, Nature Machine Intelligence 3, 620-631, equation 2.
    """
    path_ = path(check_references(references, inputs[0]), samples)
    return single(model, inputs, target, path_, batch_size=batch_size, seed=seed)
