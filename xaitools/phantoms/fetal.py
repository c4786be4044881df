"""Synthetic ultrasound of the fetal head, with the circumference of the skull's ellipse as the truth.

The picture is simulated as a curved array makes it: scatterers in beam space (depth along a beam, beam), a pulse,
envelope detection, log compression, scan conversion.
"""

import numpy as np
import torch
from tqdm.auto import tqdm

from xaitools.checks import check_counts
from xaitools.data.fetal import CIRCUMFERENCE, CONTOUR_WIDTH, PIXEL_SIZE, check_options, contour_band
from xaitools.data.samples import Samples
from xaitools.errors import ParameterError
from xaitools.phantoms.fetal_head import Head, draw_head, scene
from xaitools.phantoms.ultrasound import DEPTHS, PICTURE, Fan, envelope, scan_convert, smooth_field

SMALLEST = 32


def fetal_heads(
    n_subjects: int,
    *,
    size: int = 128,
    unit: str = "px",
    contour_width: float = CONTOUR_WIDTH,
    images_per_subject: int = 1,
    seed: int,
    progress: bool = True,
) -> Samples:
    """Make synthetic ultrasound images of fetal heads labelled with the head circumference, in the terms of HC18.

    A fan of beams through tissue, amniotic fluid and a head: fully developed speckle, a skull that is bright where
    the beam meets it at a right angle and fades where it is tangential, with gaps and with shadows behind, falx,
    cavum, thalami, ventricle and choroid plexus inside, attenuation with imperfect gain compensation, noise. The
    label is the exact perimeter of the ellipse that is the skull's outer edge. Circumferences of 80 to 350 mm and
    pixels of 0.05 to 0.3 mm grow together as in the table of HC18, so that large heads fill more of the picture.

    Image `k` of subject `i` depends on `seed`, `i`, `k` and `size` alone.

    Parameters
    ----------
    n_subjects : int
    size : int
        Height and width in pixels, at least 32.
    unit : "px" or "mm"
        Unit of the labels: pixels of the simulated 800 x 540 picture, or mm.
    contour_width : float
        Width of the masks' band about the skull's outer edge, see :func:`xaitools.data.load_fetal`.
    images_per_subject : int
        Views of the same head: another position, angle, zoom and speckle, the circumference in mm within 3 %.
    seed : int
        Same seed, same images.
    progress : bool
        Show a progress bar.

    Returns
    -------
    Samples
        Images (n, 1, size, size), labels in `unit`, masks of the skull's band, numbers ``"pixel size (mm)"`` and
        ``"head circumference (mm)"``.

    Raises
    ------
    ParameterError
        An argument out of its range.
    """
    check_options(size, unit, contour_width)
    check_counts(n_subjects=n_subjects, images_per_subject=images_per_subject)
    if size < SMALLEST:
        raise ParameterError(f"size={size}; expected at least {SMALLEST} pixels.")
    views = [(i, k) for i in range(n_subjects) for k in range(images_per_subject)]
    images = np.empty((len(views), 1, size, size), dtype=np.float32)
    masks = np.empty(images.shape, dtype=bool)
    heads = []
    for n, (i, k) in enumerate(tqdm(views, desc="synthetic heads", disable=not progress)):
        rng = np.random.default_rng((seed, i, k))
        head = draw_head(np.random.default_rng((seed, i)), rng)
        images[n, 0] = render(head, size, rng)
        masks[n, 0] = contour_band(head.outline(), PICTURE, size, contour_width)
        heads.append(head)
    pixel = torch.tensor([head.pixel for head in heads], dtype=torch.float64)
    perimeter = torch.tensor([head.perimeter for head in heads], dtype=torch.float64)
    subjects = tuple(f"sub-{i + 1:03d}" for i, _ in views)
    names = tuple(f"sub-{i + 1:03d}_img-{k + 1}" for i, k in views)
    return Samples(
        images=torch.from_numpy(images),
        labels=(perimeter if unit == "px" else perimeter * pixel).float(),
        subjects=subjects,
        names=subjects if images_per_subject == 1 else names,
        masks=torch.from_numpy(masks),
        unit=unit,
        numbers={PIXEL_SIZE: pixel.float(), CIRCUMFERENCE: (perimeter * pixel).float()},
        info={
            "source": "synthetic fetal head ultrasound",
            "size": size,
            "unit": "pixels of the simulated 800 x 540 picture" if unit == "px" else "mm",
            "contour_width": float(contour_width),
            "contour": "outer edge of the skull, as drawn",
            "seed": seed,
        },
    )


def render(head: Head, size: int, rng: np.random.Generator) -> np.ndarray:
    """Simulate the picture of a head, (size, size) in [0, 1]."""
    fan = _draw_fan(head, rng)
    tissue, absorption = scene(head, fan, rng)
    step = (fan.far - fan.near) / (DEPTHS - 1)
    gain = -2 * step * np.cumsum(absorption, axis=0) + 7 * smooth_field(rng, 3, 2)
    amplitude = 10 ** ((tissue + gain) / 20)
    echo = envelope(amplitude * rng.standard_normal(amplitude.shape, dtype=np.float32))
    noise = 10 ** (rng.uniform(-75, -55) / 10) * rng.standard_exponential(echo.shape, dtype=np.float32)
    level = 10 * np.log10(echo**2 + noise)
    shades = np.clip(1 + (level + rng.uniform(-2, 3)) / rng.uniform(46, 60), 0, 1)
    return scan_convert(shades, fan, size, rng)


def _draw_fan(head: Head, rng: np.random.Generator) -> Fan:
    """A fan whose apex is above the picture and which shows nearly all of the head."""
    apex = np.array([400 + rng.normal(0, 25), -rng.uniform(130, 480)])
    rows, columns = head.outline(60).T
    needed = np.abs(np.arctan2(columns - apex[0], rows - apex[1])).max()
    half = max(needed * rng.uniform(0.97, 1.2), np.arctan2(rng.uniform(330, 560), 540 - apex[1]))
    near = (
        max(rows.min() - rng.uniform(15, 60), rng.uniform(-40, 15))
        if rng.random() < 0.2
        else rng.uniform(-60, 8)
    )
    far = max(540, rows.max()) + rng.uniform(0, 60)
    return Fan((float(apex[0]), float(apex[1])), float(half), float(near - apex[1]), float(far - apex[1]))
