"""Expected gradients (Erion et al. 2021): integrated gradients averaged over reference images."""

import torch
from jaxtyping import Float
from torch import Tensor

from xaitools.attribution._stream import Path, Plan
from xaitools.attribution.registry import Setting, method
from xaitools.checks import check_counts
from xaitools.errors import MethodError, ShapeError


@method(
    "path",
    label="EG",
    idea="the same as integrated gradients, on ways from randomly chosen reference images",
    equation=r"R_i = \mathbb{E}_{x', a} \left[ (x_i - x'_i) \frac{\partial f(x' + a (x - x'))}{\partial x_i} \right]",
    use="Where no single image means that nothing is there: the training set stands for what is usual.",
    failures=(
        "It is drawn at random: with few `steps` the map is noisy, and another seed gives another.",
        "Other references are another question: with patients among them, what all patients share is "
        "not seen.",
    ),
    reference="Erion et al. 2021, Nature Machine Intelligence 3, 620-631, equation 2.",
    needs="a gradient with respect to the image; and reference images (references=)",
)
def expected_gradients(
    setting: Setting,
    *,
    references: Float[Tensor, "reference ref_channel *ref_spatial"] | None = None,
    steps: int = 50,
) -> Plan:
    """Integrated gradients with baselines drawn from `references` and positions drawn uniformly.

    Parameters
    ----------
    references
        Reference images (reference, channel, *spatial), usually the training set.
    steps
        Pairs of reference and position drawn for each image.

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
    TargetError
        If the network has no such output.
    UnsupportedModelError
        If the network is not differentiable.
    """
    check_counts(error=MethodError, steps=steps)
    path = _path(_checked(references, setting.images[0]), steps)
    return Plan(setting.gradients, {f"from references in {steps} steps": path})


def _path(references: Tensor, steps: int) -> Path:
    """Gradients at random positions on lines from random references to the image."""

    def points(row: Tensor, part: slice, key: int, owner: int) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(key)
        chosen = torch.randint(len(references), (steps,), generator=generator)[part]
        position = torch.rand(steps, generator=generator)[part].to(row.device).view(-1, *[1] * row.ndim)
        start = references[chosen.to(references.device)].to(row)
        difference = row - start
        return start + position * difference, difference / steps

    return Path(steps, points)


def _checked(references: Tensor | None, image: Tensor) -> Tensor:
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
