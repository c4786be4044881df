"""Ultrasound of the fetal head with its circumference: the HC18 folder as it is published."""

import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from scipy.spatial import KDTree
from skimage.measure import find_contours
from skimage.transform import resize
from torch import Tensor
from tqdm.auto import tqdm

from xaitools.checks import check_choice, check_counts
from xaitools.data.folders import by_name, check_folder, find_files, layout_error
from xaitools.data.missing import without_missing
from xaitools.data.naming import called, numbered
from xaitools.data.pictures import DEEPEST, brightness, drawn_pixels, is_deep, luma, read_picture
from xaitools.data.samples import Samples
from xaitools.data.subjects import check_n_subjects, check_spellings, evenly_spaced, study_names
from xaitools.data.tables import number, plain, read_table, shown_columns
from xaitools.errors import DataError, DataFileError, ParameterError, ShapeError

UNITS = ("px", "mm")
CONTOUR_WIDTH = 7.0
LONGEST = 4096  # smoothing takes a time that grows with the square of it
PIXEL_SIZE, CIRCUMFERENCE = "pixel size (mm)", "head circumference (mm)"

_TABLE, _TEST_TABLE = "training_set_pixel_size_and_HC.csv", "test_set_pixel_size.csv"
_ANNOTATION = "_Annotation"
LAYOUTS = (f"{_TABLE} and training_set/*_HC.png", "*_HC.png and that table beside or above them")
_FILE_NAME = re.compile(r"(\d+)_\d*HC\.png", re.IGNORECASE)
_COLUMNS = {  # name: its beginning in small letters
    "file name": ("file", "image"),
    "pixel size": ("pixelsize",),
    "head circumference": ("headcircumference", "hc"),
}


def load_fetal(
    data_dir: str | Path,
    *,
    size: int = 128,
    unit: str = "px",
    contour_width: float = CONTOUR_WIDTH,
    n_subjects: int | None = None,
    progress: bool = True,
) -> Samples:
    """Load the training set of HC18 (van den Heuvel et al. 2018, PLOS ONE 13(8)), a regression.

    The table ``training_set_pixel_size_and_HC.csv`` gives each image's pixel size and head circumference. The
    images ``010_HC.png``, ``010_2HC.png`` are two of one fetus, the number before ``_``. All are squashed to a
    square, as Zhang et al. (2020, section 3.1) do, and divided by the largest number that their type holds; 16-bit
    files together by that of the 8, 10, 12 or 16 bits which their values need, as ``info`` says.

    The mask is a band about the outline in ``010_HC_Annotation.png``, an ellipse drawn as a thin line or filled.
    Filled ones reach to the outer edge of the line, 1.4 pixels of the original beyond the ellipse that the table
    measures. Where a head reaches beyond the picture, its outline ends at the border.

    Parameters
    ----------
    data_dir : path
        The folder with the table and ``training_set/``, or the one with the images, the table in or above it.
    size : int
        Height and width of the images in pixels.
    unit : "px" or "mm"
        Unit of the labels: pixels of the image's original grid (circumference in mm / pixel size), or mm.
    contour_width : float
        Width of the masks' band in pixels of the small grid, half of it on either side of the outline, at least 1.
        The annotation runs along the outer edge of the skull, whose brightest line is about 2 pixels of 128 further
        inside, and the default takes it in.
    n_subjects : int, optional
        At most so many fetuses, evenly spaced in the order of their ids, which in HC18 is that of their size.
    progress : bool
        Show a progress bar.

    Returns
    -------
    Samples
        Images (n, 1, size, size), labels in `unit`, numbers ``"pixel size (mm)"`` and
        ``"head circumference (mm)"``. A sample without annotation has a mask that is all false;
        ``info["contour"]`` says how many these are. Subjects are numbered among all fetuses, so that an id
        does not depend on `n_subjects`.

    Raises
    ------
    DataFileError
        The folder, the table or an image that it lists is missing, or a file cannot be read.
    DataError
        A column is missing; a row is repeated or has no positive number; an image has no row, is constant, or has
        an annotation without an outline; the folder is the test set, of which no circumference was published.
    ShapeError
        An annotation on another grid than its image.
    ParameterError
        `size`, `unit`, `contour_width` or `n_subjects` out of range.
    """
    check_options(size, unit, contour_width)
    check_n_subjects(n_subjects)
    place, table = _find_files(Path(data_dir))
    rows = _read_rows(table, place)
    subjects, names = study_names(rows["fetus"].tolist())
    chosen = evenly_spaced(subjects, n_subjects)
    rows = rows.iloc[chosen]
    paths = [place / file for file in rows["file name"]]
    names = tuple(names[position] for position in chosen)
    images, masks, kinds, n_missing = _read_pictures(paths, names, size, contour_width, progress=progress)
    if n_color := kinds["n_color"]:
        warnings.warn(f"{n_color} of {len(paths)} images are in color: their luminance is used", stacklevel=2)
    pixel, circumference = (rows[what].to_numpy(copy=True) for what in ("pixel size", "head circumference"))
    return Samples(
        images=images,
        labels=torch.from_numpy(circumference / pixel if unit == "px" else circumference).float(),
        subjects=tuple(subjects[position] for position in chosen),
        names=names,
        masks=masks,
        sources=tuple(paths),
        unit=unit,
        numbers={
            PIXEL_SIZE: torch.from_numpy(pixel).float(),
            CIRCUMFERENCE: torch.from_numpy(circumference).float(),
        },
        info={
            "source": "HC18 ultrasound, head circumference from its table",
            "size": size,
            "unit": "pixels of the original grid" if unit == "px" else "mm",
            "contour_width": float(contour_width),
            "contour": _contour_words(n_missing, len(paths)),
            **kinds,
        },
    )


def check_options(size: int, unit: str, contour_width: float) -> None:
    """Check what real and synthetic heads have in common.

    Raises
    ------
    ParameterError
        Size below 1, a unit other than px and mm, or a contour thinner than 1 pixel.
    """
    check_counts(size=size)
    check_choice(unit=(unit, UNITS))
    if not 1 <= contour_width <= size:
        raise ParameterError(
            f"contour_width={contour_width}; expected 1 to {size} pixels of the small grid, for instance 7."
        )


def contour_band(points: np.ndarray, shape: tuple[int, ...], size: int, width: float) -> np.ndarray:
    """Pixels of a small square grid within half of `width` of an outline, or crossed by it.

    Parameters
    ----------
    points : array, (k, 2)
        The outline, close-set: row and column on the original grid, where a pixel's center is a whole number.
    shape : (rows, columns)
        Of the original grid, which the small one covers exactly.
    size : int
        Rows and columns of the small grid.
    width : float
        Pixels of the small grid.

    Returns
    -------
    array of bool, (size, size)
    """
    small = (points + 0.5) * size / np.asarray(shape) - 0.5
    grid = np.indices((size, size)).reshape(2, -1).T
    distance = KDTree(small).query(grid, distance_upper_bound=width / 2 + 1e-9)[0]
    band = np.isfinite(distance).reshape(size, size)
    crossed = np.rint(small).astype(int)
    rows, columns = crossed[((crossed >= 0) & (crossed < size)).all(axis=1)].T
    band[rows, columns] = True
    return band


def _find_files(folder: Path) -> tuple[Path, Path]:
    """The folder of the images and the table."""
    check_folder(folder, f"give the one that holds training_set and {_TABLE}")
    place = folder / "training_set" if (folder / "training_set").is_dir() else folder
    table, test_table = (
        next((path for home in (place, place.parent) if (path := home / name).is_file()), None)
        for name in (_TABLE, _TEST_TABLE)
    )
    if place.name == "test_set" or (test_table and not table):
        raise DataError(
            f"{folder}: the test set of HC18 was published without annotations and circumferences, so nothing can "
            "be learnt or tested with it; give the training set"
        )
    if table is None:
        raise layout_error(folder, f"no table {_TABLE}", LAYOUTS, "Put it beside the images")
    return place, table


def _read_rows(table: Path, place: Path) -> pd.DataFrame:
    """The rows of the table, which are exactly the images of the folder: those of _COLUMNS, and ``fetus``.

    Pixel size and head circumference are numbers in mm.
    """
    cells = read_table(table)
    rows = pd.DataFrame({what: cells[_column(cells, what, table)] for what in _COLUMNS})
    pictures = find_files(place, _is_picture, "*")
    if not pictures:
        raise layout_error(
            place, "no PNG image", LAYOUTS, "Unpack HC18 there, or give the folder with the images"
        )
    named = by_name(pictures)
    listed = [_listed_name(cell, named) for cell in rows["file name"]]
    rows["file name"] = listed
    _check_listed(listed, pictures, table, place)
    rows["fetus"] = [_fetus(file, table) for file in listed]
    check_spellings(
        rows["fetus"].tolist(), [f"row {row} below the header" for row in range(1, len(listed) + 1)], table
    )
    for what in ("pixel size", "head circumference"):
        known = without_missing(rows[what].tolist(), f"{table}, {what}")[0]
        given = zip(rows[what], known, strict=True)
        rows[what] = [
            _positive(*cells, f"{table}, row {row}", what) for row, cells in enumerate(given, start=1)
        ]
    return rows


def _check_listed(listed: Sequence[str], pictures: Sequence[Path], table: Path, place: Path) -> None:
    """Raise unless a table lists each picture of a folder once, and nothing else; rows count from below the header."""
    rows: dict[str, int] = {}
    for row, name in enumerate(listed, start=1):
        if (before := rows.setdefault(name, row)) != row:
            raise DataError(
                f"{table}: rows {before} and {row} below the header are of one image; leave the right one in the table"
            )
    files = {path.name: path for path in pictures}
    if missing := [row for name, row in rows.items() if name not in files]:
        raise DataFileError(
            f"{table}: {len(missing)} of {len(listed)} rows name an image that is not in {place}, the first is row "
            f"{missing[0]} below the header; unpack the whole training set, or remove these rows"
        )
    if unlisted := [path for name, path in files.items() if name not in rows]:
        raise DataError(
            f"{table}: no row for {len(unlisted)} of {len(files)} images in {place}, the first is "
            f"{numbered(pictures)[unlisted[0]]}; add the rows or remove the images"
        )


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() == ".png" and not path.stem.endswith(_ANNOTATION)


def _listed_name(cell: str, named: Mapping[str, Sequence[Path]]) -> str:
    """The name of the picture that a cell lists, by its name or a path; the cell's own if there is none."""
    name = cell.replace("\\", "/").rsplit("/", 1)[-1]
    return named[name][0].name if name in named else name


def _column(cells: pd.DataFrame, what: str, table: Path) -> str:
    """The one column whose name begins as _COLUMNS say, blanks, signs and case aside."""
    fitting = [column for column in cells if plain(column).startswith(_COLUMNS[what])]
    if len(fitting) != 1:
        raise DataError(
            f"{table}: {len(fitting)} columns for the {what} among {shown_columns(cells)}; expected the columns "
            "'filename', 'pixel size(mm)' and 'head circumference (mm)', once each"
        )
    return fitting[0]


def _fetus(file: str, table: Path) -> str:
    if not (match := _FILE_NAME.fullmatch(file)):
        raise DataError(
            f"{table}: a file named {file[:80]!r}; expected names like 010_HC.png and 010_2HC.png, where the number "
            "tells the fetus"
        )
    return match[1]


def _positive(cell: str, known: str, where: str, what: str) -> float:
    if not (value := number(known)) > 0:
        raise DataError(
            f"{where} below the header: the {what} {cell[:80]!r}; expected a positive number of mm. Correct it"
        )
    return value


def _read_pictures(
    paths: Sequence[Path], names: Sequence[str], size: int, width: float, *, progress: bool
) -> tuple[Tensor, Tensor, dict[str, int], int]:
    """Images and masks, each (n, 1, size, size), the kinds of files for `info`, and how many have no annotation."""
    images = np.empty((len(paths), 1, size, size), dtype=np.float32)
    masks = np.zeros(images.shape, dtype=bool)
    n_color = n_missing = 0
    deep, highest = [], 0.0
    for position, path in enumerate(tqdm(paths, desc="ultrasound images", disable=not progress)):
        annotation = path.with_name(path.stem + _ANNOTATION + path.suffix)
        name = names[position]
        with called({path: name, annotation: f"{name}'s annotation"}):
            picture = read_picture(path)
            gray, colored = _gray(picture, path)
            images[position, 0] = _squash(gray, size, path)
            if annotation.is_file():
                outline = _outline(annotation, gray.shape)
                masks[position, 0] = contour_band(outline, gray.shape, size, width)
            else:
                n_missing += 1
        n_color += colored
        if is_deep(picture):
            deep.append(position)
            highest = max(highest, gray.max())
    kinds = {"n_color": n_color}
    if deep:
        bits = next(bits for bits in (8, 10, 12, 16) if round(highest * DEEPEST) < 2**bits)
        images[deep] = np.minimum(images[deep] * (DEEPEST / (2**bits - 1)), 1)
        kinds |= {"n_16_bit": len(deep), "bits_used_of_16": bits}
    return torch.from_numpy(images), torch.from_numpy(masks), kinds, n_missing


def _gray(picture: Image.Image, path: Path) -> tuple[np.ndarray, bool]:
    """Gray values as parts of the largest number that their type holds, (row, column), and whether there are colors."""
    values = brightness(picture, path, ground="black")
    colored = bool((values != values[..., :1]).any())
    return (luma(values) if colored else values)[..., 0], colored


def _squash(gray: np.ndarray, size: int, path: Path) -> np.ndarray:
    if max(gray.shape) > LONGEST:
        raise DataError(
            f"{path}: {gray.shape[0]} x {gray.shape[1]} pixels; expected an ultrasound image, {LONGEST} each way at "
            "most. Make it smaller, and its pixel size in the table larger"
        )
    if gray.min() == gray.max():
        raise DataError(f"{path}: all pixels have the value {gray.max():.3g}; expected an ultrasound image")
    return np.clip(resize(gray, (size, size), order=1, anti_aliasing=True), 0, 1)


def _outline(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """Points (row, column) on the edges between white and black: both edges of a line, the edge of a filled ellipse."""
    strength = drawn_pixels(read_picture(path), path)
    drawn = (strength >= strength.max() / 2) & (strength > 0)
    if drawn.shape != shape:
        raise ShapeError(
            f"{path}: an annotation of {drawn.shape} pixels for an image of {shape}; it must be on the image's grid"
        )
    edges = find_contours(drawn.astype(float), 0.5)
    if not edges:
        raise DataError(f"{path}: no outline is drawn; expected white on black. Draw it or remove the file")
    return np.concatenate(edges)


def _contour_words(n_missing: int, n: int) -> str:
    if n_missing == n:
        return f"none: no annotation file (*{_ANNOTATION}.png) for any of the {n} images, so their masks are empty"
    words = "drawn by a sonographer, from the annotation files"
    return f"{words}; {n_missing} of {n} images have none, so their masks are empty" if n_missing else words
