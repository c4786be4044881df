"""Reference masks of CT slices: from files, or by a stated rule."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from scipy import ndimage
from skimage.morphology import convex_hull_image

from xaitools.data.folders import composed, find_files, stem
from xaitools.data.pictures import drawn_pixels, read_picture
from xaitools.data.slices import CtSlice, slice_at, slice_of_volume
from xaitools.data.volumes import NIFTI, Volume, read_volume
from xaitools.errors import DataError, ShapeError

BODY_HU = -300


def find_masks(folder: Path, sources: Sequence[Path], root: Path) -> list[Path | None]:
    """The mask named like each source: at the same place below `folder` as the source below `root`, or directly in it.

    Names that differ only in their form of Unicode are alike, see :func:`xaitools.data.folders.composed`.

    Raises
    ------
    DataError
        An image has several.
    """
    files = defaultdict(list)
    for path in find_files(folder, lambda path: path.name.lower().endswith((".png", *NIFTI))):
        files[composed(path.relative_to(folder).as_posix())].append(path)
    return [_find_mask(files, source, root) for source in sources]


def _find_mask(files: Mapping[str, Sequence[Path]], source: Path, root: Path) -> Path | None:
    below = source.relative_to(root).parent if source.is_relative_to(root) else Path()
    names = {name + suffix for name in (source.name, stem(source)) for suffix in (".png", *NIFTI)}
    for place in (below, Path()):
        keys = sorted({composed((place / name).as_posix()) for name in names})
        found = [path for key in keys for path in files.get(key, ())]
        if len(found) > 1:
            raise DataError(f"{found[0]} and {found[1]}: two masks of one image; keep one of them")
        if found:
            return found[0]
    return None


def read_mask(
    path: Path, ct_slice: CtSlice, volume: Volume | None, fraction: float, orientation: str = ""
) -> np.ndarray:
    """Read the mask of a slice, non-zero inside.

    A PNG file is on the grid stored in a DICOM file, or on the displayed slice of a volume, see
    :func:`xaitools.data.pictures.drawn_pixels`. A NIfTI file is placed by its own affine: its grid must be the
    volume's, or hold the DICOM slice as one of its slices, which is found by its position.

    Returns
    -------
    array of bool, shaped like ``ct_slice.hu``

    Raises
    ------
    ShapeError
        Another grid than the slice.
    DataError
        No pixel is inside, or each is, or it is unknown which.
    DataFileError
        The file cannot be read.
    """
    if path.suffix.lower() == ".png":
        mask = ct_slice.display(drawn_pixels(read_picture(path), path) > 0)
    else:
        mask = _read_slice(path, ct_slice, volume, fraction, orientation) != 0
    if mask.shape != ct_slice.hu.shape:
        raise ShapeError(
            f"{path}: a mask of {mask.shape} pixels for a slice of {ct_slice.hu.shape}; draw it at full resolution"
        )
    if not mask.any():
        raise DataError(
            f"{path}: the mask is all black; expected some pixels above zero. Draw it or remove the file"
        )
    if mask.all():
        raise DataError(
            f"{path}: all pixels of the mask are drawn; expected zero on the ground. Draw it or remove the file"
        )
    return mask


def _read_slice(
    path: Path, ct_slice: CtSlice, volume: Volume | None, fraction: float, orientation: str
) -> np.ndarray:
    """The slice of a NIfTI mask, (row, column), that lies where the CT slice does."""
    drawn = read_volume(path, orientation)
    if volume is not None:
        if not drawn.grid.turned().same_as(volume.grid.turned()):
            raise ShapeError(
                f"{path}: a mask of {drawn.grid.turned()} for a volume of {volume.grid.turned()}; expected one grid. "
                "Resample the mask to the volume's"
            )
        return slice_of_volume(drawn, fraction, path).hu
    if ct_slice.place is None:
        raise DataError(
            f"{path}: a NIfTI mask for a DICOM file without ImagePositionPatient, so that its place in the mask is "
            "unknown; draw the mask as PNG"
        )
    found = slice_at(drawn, ct_slice.place)
    if found is None:
        raise ShapeError(
            f"{path}: a mask of {drawn.grid.turned('LPS')} in which the DICOM slice, {ct_slice.place}, is none of the "
            "slices; expected the grid of its series. Resample the mask to it"
        )
    return found


def mask_doubt(mask: np.ndarray, ct_slice: CtSlice) -> str:
    """What makes it unlikely that a mask outlines an organ of the slice; empty where nothing does."""
    body = ct_slice.hu > BODY_HU
    outside = ~body
    if outside.any() and (mask & outside).sum() > outside.sum() / 2:
        return "covers most of the air around the body, as if ground and organ were exchanged"
    if (mask & body).sum() > body.sum() / 2:
        return f"covers {(mask & body).sum() / body.sum():.0%} of the body"
    return ""


def heart_and_vessels(ct_slice: CtSlice) -> np.ndarray:
    """Outline the heart and great vessels on a real slice, by a rule on Hounsfield units.

    After smoothing by 1.2 mm, on a grid of at most 1.5 mm, lung is what lies between -960 and -400 HU inside
    the convex hull of the body, opened by 2.5 mm, in pieces of at least 10 cm2. The mask is the tissue above
    0 HU inside the convex hull of the lungs, 1.5 mm away from them and opened by 3 mm, less the spine: of its
    pieces of at least 1.5 cm2 centred within 5 cm of the spine, the largest and those that come within 15 mm
    of it. The spine is found by its canal, the darkest spot with bone before and behind it, at most 42 mm
    before the lungs' back; an ellipse of 44 x 40 mm before it and all that lies further back than 12 mm
    before it are left out.

    The rule gives no mask (all false) where the lungs fill less than 19 % of the body's hull, where fewer than
    20 % of their pixels are on either side of the spine, or where no tissue is left: above and below the
    chest, with one lung missing or cut off by the edge of the picture. It also takes in what it cannot tell
    from blood: heart muscle, oesophagus, lymph nodes, a consolidation that touches the heart, and at the
    height of the diaphragm the dome of the liver.

    Returns
    -------
    array of bool, shaped like ``ct_slice.hu``
    """
    spacing = float(np.mean(ct_slice.spacing))
    hu = ndimage.gaussian_filter(ct_slice.hu, 1.2 / spacing)
    step = max(int(1.5 / spacing), 1)
    mask = _between_the_lungs(hu[::step, ::step], 1 / (step * spacing))
    height, width = hu.shape
    return mask.repeat(step, axis=0).repeat(step, axis=1)[:height, :width]


def _between_the_lungs(hu: np.ndarray, mm: float) -> np.ndarray:
    """The rule on smoothed values, `mm` being the number of pixels in one."""
    nothing = np.zeros(hu.shape, dtype=bool)
    body = _pieces(_opened(hu > BODY_HU, 4 * mm), 1)
    if not body:
        return nothing
    outline = convex_hull_image(body[0])
    lungs = np.logical_or.reduce(
        [nothing, *_pieces(_opened((hu > -960) & (hu < -400) & outline, 2.5 * mm), 1000 * mm**2)]
    )
    if lungs.sum() < 0.19 * outline.sum():
        return nothing
    chest = convex_hull_image(lungs)
    row, column = _spinal_canal(hu, chest, mm)
    rows, columns = np.meshgrid(*map(np.arange, hu.shape), indexing="ij")
    if not 0.2 < (columns[lungs] < column).mean() < 0.8:
        return nothing
    spine = ((columns - column) / (22 * mm)) ** 2 + ((rows - row + 20 * mm) / (20 * mm)) ** 2 < 1
    spine |= rows > row - 12 * mm
    tissue = _opened((hu > 0) & chest & ~_within(lungs, 1.5 * mm) & ~spine, 3 * mm)
    pieces = [
        piece for piece in _pieces(tissue, 150 * mm**2) if abs(columns[piece].mean() - column) < 50 * mm
    ]
    if not pieces:
        return nothing
    vicinity = _within(pieces[0], 15 * mm)
    return np.logical_or.reduce([piece for piece in pieces if (piece & vicinity).any()])


def _spinal_canal(hu: np.ndarray, chest: np.ndarray, mm: float) -> tuple[int, int]:
    """Row and column of the dark spot with a vertebral body before it and an arch behind it."""

    def mean(height: float, width: float) -> np.ndarray:
        return ndimage.uniform_filter(density, (max(round(height * mm), 1), max(round(width * mm), 1)))

    density = np.clip(hu, 0, 200)
    vertebra = ndimage.shift(mean(20, 24), (21 * mm, 0), order=0)
    arch = ndimage.shift(mean(8, 26), (-13 * mm, 0), order=0)
    score = vertebra + arch - 1.5 * mean(9, 9)
    back = np.flatnonzero(chest.any(axis=1))[-1]
    middle = np.flatnonzero(chest.any(axis=0))[[0, -1]].mean()
    rows, columns = np.meshgrid(*map(np.arange, hu.shape), indexing="ij")
    possible = (rows >= back - 42 * mm) & (rows <= back + 25 * mm) & (np.abs(columns - middle) <= 50 * mm)
    row, column = np.unravel_index(np.where(possible, score, -np.inf).argmax(), hu.shape)
    return int(row), int(column)


def _pieces(mask: np.ndarray, smallest: float) -> list[np.ndarray]:
    """Connected pieces of at least `smallest` pixels, the largest first."""
    labels, _ = ndimage.label(mask)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return [labels == label for label in np.argsort(-sizes, kind="stable") if sizes[label] >= smallest]


def _within(mask: np.ndarray, pixels: float) -> np.ndarray:
    return ndimage.distance_transform_edt(~mask) <= pixels


def _opened(mask: np.ndarray, pixels: float) -> np.ndarray:
    core = ndimage.distance_transform_edt(mask) > pixels
    return mask & _within(core, pixels) if core.any() else core
