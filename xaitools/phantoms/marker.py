"""A marker in the corner of the images of one class, as on radiographs: a shortcut of known place."""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

import numpy as np
import torch
from jaxtyping import Bool

from xaitools.checks import check_choice
from xaitools.data.samples import Samples
from xaitools.errors import DataError, ParameterError

CORNERS: Mapping[str, tuple[bool, bool]] = MappingProxyType(
    {
        "upper left": (False, False),
        "upper right": (False, True),
        "lower left": (True, False),
        "lower right": (True, True),
    }
)
"""Whether each lies at the bottom, and at the right."""

LETTER = ("####.", "#...#", "#...#", "####.", "#.#..", "#..#.", "#...#")
"""An R, as radiographers lay it beside a patient's right side."""


def mark_corner(
    samples: Samples,
    class_name: str,
    *,
    share: float = 1.0,
    others: float = 0.0,
    corner: str = "upper right",
    brightness: float = 1.0,
    seed: int = 0,
) -> Samples:
    """Put a letter into the corner of the images of one class, which a network can use in place of what is in them.

    A network that answers right for such a reason is called a Clever Hans, after the horse that read its master's
    face. Nothing outside the letter's pixels changes; whether image `i` is marked depends on its class, the seed and
    `i` alone.

    Parameters
    ----------
    samples : Samples
        Slices of a classification, 32 x 32 pixels or more.
    class_name : str
        The class whose images get the marker.
    share, others : float
        Probability of a marker for an image of that class, and for one of any other, 0 to 1. Equal, the marker tells
        nothing.
    corner : str
        Key of :data:`CORNERS`.
    brightness : float
        Value of the marker's pixels, 0 to 1.
    seed : int
        Decides which images are marked where a probability is neither 0 nor 1.

    Returns
    -------
    Samples
        As given, but for the images. `masks` are the pixels of the letter, and nowhere in images without one.
        ``numbers["marker"]`` is 1 where there is one, else 0.

    Raises
    ------
    ParameterError
        An unknown class or corner, or a number outside 0 to 1.
    DataError
        Volumes, images smaller than 32 pixels, or samples without classes.

    References
    ----------
    Lapuschkin et al. 2019, Unmasking Clever Hans predictors and assessing what machines really learn,
    doi:10.1038/s41467-019-08987-4. Zech et al. 2018, Variable generalization performance of a deep learning model to
    detect pneumonia in chest radiographs, doi:10.1371/journal.pmed.1002683: networks that read such tokens.

    Examples
    --------
    >>> from xaitools.phantoms import chest_slices
    >>> marked = mark_corner(chest_slices(4, size=64, seed=0, progress=False), "contrast")
    >>> marked.masks.flatten(1).sum(1).tolist()
    [0, 18, 0, 18]
    """
    shares = {"share": share, "others": others, "brightness": brightness}
    _check(samples, class_name, corner, shares)
    assert samples.labels is not None
    of_class = (samples.labels == samples.class_names.index(class_name)).numpy()
    drawn = np.array([np.random.default_rng((seed, i)).random() for i in range(len(samples))])
    marked = torch.from_numpy(drawn < np.where(of_class, share, others))
    letter = torch.from_numpy(_letter(tuple(samples.images.shape[2:]), corner))
    masks = marked[:, None, None, None] & letter
    return replace(
        samples,
        images=torch.where(masks, brightness, samples.images),
        masks=masks,
        numbers={**samples.numbers, "marker": marked.float()},
        info={
            **samples.info,
            "mask_rule": "the marker, as drawn",
            "marker": {"class": class_name, "corner": corner, "seed": seed, **shares},
        },
    )


def _letter(shape: tuple[int, ...], corner: str) -> Bool[np.ndarray, "row column"]:
    """Where the letter is in an image: about a ninth of its shorter side high, and a pixel or more from its border."""
    pattern = np.array([[cell == "#" for cell in row] for row in LETTER])
    enlarged = pattern.repeat(max(1, round(min(shape) / 64)), 0).repeat(max(1, round(min(shape) / 64)), 1)
    margin = max(1, min(shape) // 32)
    bottom, right = CORNERS[corner]
    image = np.zeros(shape, dtype=bool)
    (height, width), (n_rows, n_columns) = enlarged.shape, shape
    row = n_rows - margin - height if bottom else margin
    column = n_columns - margin - width if right else margin
    image[row : row + height, column : column + width] = enlarged
    return image


def _check(samples: Samples, class_name: str, corner: str, shares: Mapping[str, float]) -> None:
    if samples.labels is None or samples.is_regression:
        raise DataError(
            f"{samples!r} has no classes; expected a classification: give labels and class names."
        )
    shape = tuple(samples.images.shape[2:])
    if len(shape) != 2 or min(shape) < 32:
        raise DataError(f"images of {shape}; expected slices of 32 x 32 pixels or more.")
    check_choice(class_name=(class_name, samples.class_names), corner=(corner, CORNERS))
    for name, value in shares.items():
        if not 0 <= value <= 1:
            raise ParameterError(f"{name}={value!r}; expected 0 to 1.")
