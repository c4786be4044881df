"""What is asked of images, targets, counts and choices, checked once, where a call comes in.

Every message says what came, what was expected and what to do, in this order.
"""

import difflib
import math
from collections.abc import Iterable, Sequence
from numbers import Integral
from typing import Any

import numpy as np
import torch
from torch import Tensor

from xaitools.errors import DataError, MethodError, ParameterError, ShapeError, TargetError, XaitoolsError

Images = Tensor | np.ndarray
Target = Tensor | np.ndarray | np.integer | Sequence[int] | int | None


def checked_images(images: Any, *, name: str = "images") -> Tensor:
    """Images (batch, channel, *spatial) of two or three spatial axes as a tensor, one or more of them, all finite.

    Raises
    ------
    ShapeError
        If they are not that.
    DataError
        If they hold no real numbers, or NaN or infinity.
    """
    images = as_tensor(images, name)
    if images.ndim not in (4, 5) or 0 in images.shape:
        raise ShapeError(
            f"{name} of shape {tuple(images.shape)}; expected (batch, channel, height, width) or "
            "(batch, channel, x, y, z) with at least one image: add a missing axis with images[None]."
        )
    if not images.is_floating_point():
        raise DataError(
            f"{name} are {images.dtype}; expected real numbers in the range that the network was trained on: "
            "convert them with .float() and scale them as its training images were."
        )
    bad = (~torch.isfinite(images)).flatten(1).any(1).nonzero()
    if len(bad):
        raise DataError(
            f"{name}: number {int(bad[0])} of the batch contains NaN or infinity; expected finite values: "
            "repair it or leave it out."
        )
    return images


def as_tensor(images: Any, name: str) -> Tensor:
    """A tensor of arrays, nested lists of numbers, or a list of images; without a history."""
    if isinstance(images, list) and any(isinstance(image, Tensor) for image in images):
        shapes = {tuple(image.shape) if isinstance(image, Tensor) else None for image in images}
        if len(shapes) != 1:
            raise ShapeError(
                f"{name} is a list of images of different shapes or kinds; expected one shape: stack them into a "
                "tensor (batch, channel, *spatial)."
            )
        images = torch.stack(images)
    if not isinstance(images, Tensor):
        try:
            array = np.asarray(images)
            native = array.astype(array.dtype.newbyteorder("="), copy=False)
            images = torch.from_numpy(np.ascontiguousarray(native))
        except (TypeError, ValueError) as error:
            raise DataError(
                f"{name} are of type {type(images).__name__}; expected a tensor or an array of numbers "
                "(batch, channel, *spatial): convert them with torch.as_tensor."
            ) from error
    return images.detach()


def checked_contrast(images: Tensor, what_for: str, *, name: str = "images") -> None:
    """Raise DataError if an image is constant, which leaves nothing for `what_for`."""
    flat = images.flatten(1)
    constant = (flat.amax(1) == flat.amin(1)).nonzero()
    if len(constant):
        raise DataError(
            f"{name}: number {int(constant[0])} of the batch is constant; expected contrast, since {what_for}: "
            "leave it out."
        )


def checked_target(target: Any, n_images: int, device: torch.device | str = "cpu") -> Tensor | None:
    """One class for each of n images, int64, from a single class for all, or one each; None stays None.

    Raises
    ------
    TargetError
        If they are no whole numbers.
    ShapeError
        If there is neither one for all nor one for each image.
    """
    if target is None:
        return None
    try:
        classes = torch.as_tensor(np.asarray(target) if not isinstance(target, Tensor) else target.detach())
    except (TypeError, ValueError, RuntimeError) as error:
        raise TargetError(
            f"target={target!r}; expected a class, or one for each image: give numbers."
        ) from error
    if classes.is_floating_point() or classes.is_complex() or classes.dtype == torch.bool:
        raise TargetError(
            f"target is of type {classes.dtype}; expected whole numbers, the class of each image: "
            "convert it with .long(), or give None for the single output of a regression."
        )
    if classes.ndim == 0:
        classes = classes.expand(n_images)
    if tuple(classes.shape) != (n_images,):
        raise ShapeError(
            f"target of shape {tuple(classes.shape)} for {n_images} images; expected one class for all, or one for "
            "each image."
        )
    return classes.to(device, torch.int64)


def check_within(target: Tensor, n_outputs: int) -> None:
    """Raise TargetError if a class is not among the network's outputs."""
    outside = target[(target < 0) | (target >= n_outputs)]
    if len(outside):
        raise TargetError(
            f"target {int(outside[0])} with a network of {n_outputs} outputs; expected 0 to {n_outputs - 1}: "
            "choose one of its classes."
        )


def check_counts(*, error: type[XaitoolsError] = ParameterError, **counts: Any) -> None:
    """Raise unless every count is a whole number of 1 or more; the message names it as its keyword does."""
    for name, value in counts.items():
        if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
            raise error(f"{name}={value!r}; expected a whole number of 1 or more.")


def check_positive(*, error: type[XaitoolsError] = ParameterError, **numbers: Any) -> None:
    """Raise unless every number is finite and above 0; the message names it as its keyword does."""
    for name, value in numbers.items():
        if not (isinstance(value, int | float | np.number) and 0 < value < math.inf):
            raise error(f"{name}={value!r}; expected a number above 0.")


def check_choice(
    error: type[XaitoolsError] = ParameterError, /, **choices: tuple[Any, Iterable[str]]
) -> None:
    """Raise unless every value is among those known: ``check_choice(mode=(mode, MODES))``.

    Examples
    --------
    >>> check_choice(mode=("ad", ["add", "replace"]))
    Traceback (most recent call last):
    xaitools.errors.ParameterError: mode='ad' is unknown; expected one of add, replace. Did you mean 'add'?
    """
    for name, (value, known) in choices.items():
        known = list(known)
        if value not in known:
            close = difflib.get_close_matches(str(value), known, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise error(f"{name}={value!r} is unknown; expected one of {', '.join(known)}.{hint}")


def checked_options(given: Iterable[str], known: Iterable[str], of: str) -> None:
    """Raise MethodError if an option is given that `of` does not take."""
    known = list(known)
    for option in given:
        if option not in known:
            takes = f"it takes {', '.join(known)}" if known else "it takes none"
            raise MethodError(f"{of} takes no option {option!r}; {takes}.")
