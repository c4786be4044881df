"""How much of an explanation lies outside the brain, in the face, at the brain's rim and inside."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Shaped
from scipy import ndimage

from xaitools.checks import check_choice, check_positive
from xaitools.data.grids import Grid
from xaitools.errors import DataError, ShapeError

PARTS = ("inside", "rim", "face", "other")
SIGNS = ("positive", "absolute")


def tissue_masks(
    label_map: Shaped[np.ndarray, "x y z"], affine: Float[np.ndarray, "4 4"], *, rim: float = 5.0
) -> dict[str, Bool[np.ndarray, "x y z"]]:
    """Where the brain, its rim, the face and the rest of the head and the air are.

    The brain is where the label map is above 0, its holes filled. Its **rim** is what lies within `rim` mm of the
    brain's surface, on both sides: there stand the differences that a change of size makes. **Inside** is the brain
    without its rim. The **face** is what lies outside of brain and rim, further to the front than the brain's centre of
    mass and below it: eyes, nose, mouth, jaw and throat, and the air in front of them. **Other** is the rest: scalp,
    back of the head, neck and air. These four are each voxel once; **outside** is face and other together.

    Geometry alone decides, so that the same head has the same parts with and without its skull.

    Parameters
    ----------
    label_map
        Numbers of brain structures, 0 outside.
    affine
        From voxels to mm towards right, front and head: it says where front and below are, and how large a voxel is.
    rim
        In mm. With voxels larger than that, the rim is the voxels on both sides of the surface.

    Returns
    -------
    dict
        ``"outside"``, and the four of :data:`PARTS`.

    Raises
    ------
    DataError
        If the label map is empty.
    ShapeError
        If it has not three axes.
    """
    check_positive(rim=rim)
    grid = Grid(tuple(np.shape(label_map)), affine)
    brain = ndimage.binary_fill_holes(np.asarray(label_map) > 0)
    if not brain.any() or brain.all():
        raise DataError(
            f"the label map is {'empty' if not brain.any() else 'above 0 everywhere'}; expected a brain, and 0 around "
            "it: correct it, or leave the head out."
        )
    # the surface lies half a voxel before the nearest voxel of the other kind
    reach = max(rim + grid.spacing.min() / 2, grid.spacing.max() * 1.001)
    distance = np.where(
        brain,
        ndimage.distance_transform_edt(brain, sampling=grid.spacing),
        ndimage.distance_transform_edt(~brain, sampling=grid.spacing),
    )
    at_rim = distance <= reach
    _, front, up = _places(grid) - _centre(brain, grid)[:, None, None, None]
    outside = ~brain & ~at_rim
    face = outside & (front > 0) & (up < 0)
    return {
        "outside": outside,
        "inside": brain & ~at_rim,
        "rim": at_rim,
        "face": face,
        "other": outside & ~face,
    }


def explanation_shares(
    values: Shaped[np.ndarray, "*spatial"],
    masks: Mapping[str, Shaped[np.ndarray, "..."]],
    *,
    sign: str = "positive",
) -> pd.DataFrame:
    """Share of an explanation in each part of the image, beside the share of the volume that the part has.

    Parameters
    ----------
    values
        The map.
    masks
        The parts, as :func:`tissue_masks` returns them; any others do.
    sign
        ``"positive"``: only what speaks for the class; ``"absolute"``: what speaks against it too.

    Returns
    -------
    DataFrame
        One row a part: ``part``; ``share`` of the explanation, 0 to 1, NaN for a map without any; ``volume``, the share
        of the voxels, which a map that is the same everywhere would give; ``ratio`` of the two.

    Raises
    ------
    ShapeError
        If a mask has another shape than the map.
    DataError
        If the map has a value that is not finite, or a mask is not boolean.
    """
    check_choice(sign=(sign, SIGNS))
    values = np.asarray(values, dtype=np.float64)
    if not np.isfinite(values).all():
        raise DataError("the map has NaN or infinite values; expected finite ones: its method failed there.")
    amount = np.abs(values) if sign == "absolute" else np.maximum(values, 0)
    total = amount.sum()
    rows = []
    for part, mask in masks.items():
        if np.shape(mask) != values.shape:
            raise ShapeError(
                f"mask {part!r} of shape {np.shape(mask)} for a map of shape {values.shape}; expected the map's grid: "
                "resample one to the other."
            )
        if np.asarray(mask).dtype != bool:
            raise DataError(
                f"mask {part!r} is of type {np.asarray(mask).dtype}; expected bool: compare it, mask > 0."
            )
        share = float(amount[mask].sum() / total) if total else np.nan
        volume = float(np.mean(mask))
        rows.append(
            {"part": part, "share": share, "volume": volume, "ratio": share / volume if volume else np.nan}
        )
    return pd.DataFrame(rows, columns=["part", "share", "volume", "ratio"])


def _places(grid: Grid) -> np.ndarray:
    """Where each voxel lies in mm towards right, front and head, (3, x, y, z)."""
    index = np.indices(grid.shape, dtype=np.float64).reshape(3, -1)
    return (grid.affine[:3, :3] @ index + grid.affine[:3, 3:]).reshape(3, *grid.shape)


def _centre(brain: np.ndarray, grid: Grid) -> np.ndarray:
    place: np.ndarray = grid.affine[:3] @ [*ndimage.center_of_mass(brain), 1.0]
    return place
