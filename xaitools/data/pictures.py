"""The one reader of PNG pictures, and of what is drawn in them."""

import warnings
from pathlib import Path

import numpy as np
from PIL import Image

from xaitools.data.sizes import MOST_PIXELS, check_size
from xaitools.errors import DataError, DataFileError, XaitoolsError


def open_picture(path: Path) -> Image.Image:
    """A PNG or JPEG picture, its pixels not yet read, that fits into memory; no other form is tried.

    Raises
    ------
    DataFileError
        Missing, no regular file, or of more pixels than memory should be spent on.
    OSError
        No such picture.
    """
    if not path.is_file():
        raise DataFileError(f"{path}: no such file; expected a picture. Check the folder")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            picture = Image.open(path, formats=("PNG", "JPEG"))
        except Image.DecompressionBombError:
            raise DataFileError(f"{path}: more than {MOST_PIXELS} pixels; give a smaller picture") from None
    try:
        check_size(path, picture.size[::-1], most=MOST_PIXELS)
    except DataFileError:
        picture.close()
        raise
    return picture


def read_picture(path: Path) -> Image.Image:
    """Read a picture whole.

    Raises
    ------
    DataFileError
        Missing, no picture, truncated, or of more pixels than memory should be spent on.
    """
    try:
        with open_picture(path) as file:
            file.load()
            return file.copy()
    except XaitoolsError:
        raise
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise DataFileError(
            f"{path}: cannot be read as a PNG image ({error}); export or download it again"
        ) from None


def drawn_pixels(picture: Image.Image, path: Path) -> np.ndarray:
    """How strongly each pixel is drawn, (row, column), 0 on the ground.

    Gray values and colors are drawn where they are not black. Where pixels are transparent, the others are drawn. A
    palette's index 0 is the ground, which must be the one that its colors show, if they show one.

    Raises
    ------
    DataError
        Colors, transparency and palette do not tell in one way what is drawn.
    """
    if (picture.mode in ("1", "L", "F") and "transparency" not in picture.info) or picture.mode.startswith(
        "I"
    ):
        return np.asarray(picture).astype(np.float64)
    looks = np.asarray(picture.convert("RGBA")).astype(np.float64)
    visible = _visible(looks[..., :3].max(axis=2), looks[..., 3], path)
    if picture.mode not in ("P", "PA"):
        return visible
    numbers = np.asarray(picture if picture.mode == "P" else picture.getchannel(0)).astype(np.float64)
    if (visible > 0).all():
        return numbers
    if not np.array_equal(numbers > 0, visible > 0):
        raise _ambiguous(path, "its palette has another color than black at index 0, and black at another")
    return visible


def _visible(color: np.ndarray, alpha: np.ndarray, path: Path) -> np.ndarray:
    if (alpha == alpha[0, 0]).all():
        return color * (alpha > 0)
    if alpha.min() > 0:
        raise _ambiguous(path, "its transparency varies, and no pixel is transparent")
    black = color[alpha > 0] == 0
    if black.any() and not black.all():
        raise _ambiguous(path, "besides transparent pixels, there are black ones and others")
    return alpha


def _ambiguous(path: Path, found: str) -> DataError:
    return DataError(
        f"{path}: what is drawn cannot be told, as {found}; expected gray values, 0 on the ground. Export it so"
    )
