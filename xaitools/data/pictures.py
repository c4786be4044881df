"""The one reader of PNG and JPEG pictures, and of what is bright or drawn in them."""

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from xaitools.data.sizes import MOST_PIXELS, check_size
from xaitools.errors import DataError, DataFileError, XaitoolsError

DEEPEST = 65535
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601-2


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
    """Read a picture whole, turned as its camera says.

    Raises
    ------
    DataFileError
        Missing, no picture, truncated, or of more pixels than memory should be spent on.
    DataError
        Several frames.
    """
    try:
        with open_picture(path) as file:
            if (frames := getattr(file, "n_frames", 1)) != 1:
                raise DataError(f"{path}: {frames} frames; expected one picture a file. Take them apart")
            return ImageOps.exif_transpose(file)
    except XaitoolsError:
        raise
    except Exception as error:
        raise unreadable(path, error) from None


def unreadable(path: Path, error: Exception) -> DataFileError:
    """The error for a file that cannot be read as a picture, as `error` says, whose words may quote its header."""
    return DataFileError(
        f"{path}: cannot be read as a picture ({type(error).__name__}); it is truncated, damaged, too large or of "
        "another form: fetch it again or remove it"
    )


def is_deep(picture: Image.Image) -> bool:
    """Whether a picture has 16 bits a pixel, of which fewer may be used: :func:`brightness` knows no white then."""
    return picture.mode.startswith("I")


def brightness(picture: Image.Image, path: Path, *, ground: str = "") -> np.ndarray:
    """Values as parts of the largest number that their type holds: float64, (row, column, 1), or 3 for colors.

    Parameters
    ----------
    picture : Image
        Read from `path`.
    path : Path
    ground : str
        The color behind transparent pixels; without one they are refused.

    Raises
    ------
    DataError
        Transparent pixels, or floating-point values, whose white is unknown.
    """
    if is_deep(picture):
        return np.asarray(picture).astype(np.float64)[..., None] / DEEPEST
    if picture.mode == "F":
        raise DataError(f"{path}: floating-point values; expected 8 or 16 bits a pixel. Save it so")
    if "A" in picture.getbands() or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        if not ground and picture.getchannel("A").getextrema() != (255, 255):
            raise DataError(
                f"{path}: transparent pixels, which have no brightness; expected none. Save it without"
            )
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, ground or "black"), picture)
    gray = picture.mode in ("1", "L")
    values = np.asarray(picture.convert("L" if gray else "RGB")) / 255
    return values[..., None] if gray else values


def luma(values: np.ndarray) -> np.ndarray:
    """Gray of colors (row, column, 3): (row, column, 1); values (row, column, 1) are gray already."""
    return values if values.shape[2] == 1 else values @ np.array(LUMA, dtype=values.dtype)[:, None]


def drawn_pixels(picture: Image.Image, path: Path) -> np.ndarray:
    """How strongly each pixel is drawn, (row, column), 0 on the ground.

    Gray values and colors are drawn where they are not black. Where pixels are transparent, the others are drawn. A
    palette's index 0 is the ground, which must be the one that its colors show, if they show one.

    Raises
    ------
    DataError
        Colors, transparency and palette do not tell in one way what is drawn.
    """
    if is_deep(picture) or (picture.mode in ("1", "L", "F") and "transparency" not in picture.info):
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
