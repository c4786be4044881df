"""Schematic axial chest CT slices in which only the blood tells the classes apart."""

import numpy as np
import torch
from tqdm.auto import tqdm

from xaitools.checks import check_counts
from xaitools.data.intensity import MEDIASTINUM, apply_window
from xaitools.data.samples import Samples
from xaitools.errors import ParameterError
from xaitools.phantoms import chest_anatomy as anatomy

SMALLEST = 32


def chest_slices(
    n: int,
    *,
    size: int = 128,
    seed: int,
    window: tuple[float, float] = MEDIASTINUM,
    progress: bool = True,
) -> Samples:
    """Make synthetic axial chest CT slices, half of them with contrast agent, one a subject.

    Body outline, fat, muscle, ribs, spine, sternum, lungs with vessels, heart and great vessels at one of four
    levels, table and correlated noise, all varying between subjects. Nothing but the density of the blood in
    the heart and the great vessels depends on the class: about 40 HU without, 110 to 330 HU with contrast
    agent. Slice `i` depends on `seed`, `i` and `size` alone, not on `n`.

    Parameters
    ----------
    n : int
        Number of slices; even positions have no contrast agent, odd positions have.
    size : int
        Height and width in pixels, at least 32.
    seed : int
        Same seed, same slices.
    window : (center, width), Hounsfield units
    progress : bool
        Show a progress bar.

    Returns
    -------
    Samples
        Images (n, 1, size, size); masks of the heart's chambers and great vessels, which is where the
        classes differ.

    Raises
    ------
    ParameterError
        `n` below 1, `size` below 32, or an impossible window.
    """
    check_counts(n=n)
    if size < SMALLEST:
        raise ParameterError(f"size={size}; expected at least {SMALLEST} pixels.")
    images = np.empty((n, 1, size, size), dtype=np.float32)
    masks = np.empty((n, 1, size, size), dtype=bool)
    labels = np.arange(n) % 2
    for i in tqdm(range(n), desc="synthetic slices", disable=not progress):
        hu, masks[i, 0] = chest_hu(size, enhanced=bool(labels[i]), seed=(seed, i))
        images[i, 0] = apply_window(hu, window)
    names = tuple(f"sub-{i + 1:03d}" for i in range(n))
    return Samples(
        images=torch.from_numpy(images),
        labels=torch.from_numpy(labels),
        subjects=names,
        names=names,
        class_names=("no contrast", "contrast"),
        masks=torch.from_numpy(masks),
        info={
            "source": "synthetic chest CT",
            "window": [float(value) for value in window],
            "size": size,
            "seed": seed,
            "mask_rule": "heart chambers and great vessels, as drawn",
        },
    )


def chest_hu(size: int, *, enhanced: bool, seed: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Draw one slice in Hounsfield units.

    Returns
    -------
    hu : array of float32, (size, size)
    blood : array of bool, (size, size)
        Heart chambers and great vessels. `enhanced` changes `hu` only where blood has a part of a pixel.
    """
    rng = np.random.default_rng(seed)
    level = anatomy.LEVELS[rng.choice(list(anatomy.LEVELS))]
    canvas, chest = anatomy.patient(rng, size, level)
    anatomy.table(canvas, chest, rng)
    anatomy.chest_wall(canvas, chest, rng)
    inside = anatomy.lungs(canvas, chest, level, rng)
    vessels, tissue = anatomy.mediastinum(canvas, inside, level, rng)
    anatomy.spine(canvas, rng)
    anatomy.ribs(canvas, chest, rng)
    blood = anatomy.blood(canvas, inside, vessels, tissue, rng, enhanced=enhanced)
    hu = canvas.hu + anatomy.noise(canvas, chest, rng)
    return np.maximum(hu, -1024).astype(np.float32), blood > 0.5
