"""Where a NIfTI header says that the voxels lie, or that it does not say."""

from pathlib import Path
from typing import Any

import numpy as np
from nibabel import orientations
from nibabel.affines import voxel_sizes

from xaitools.errors import DataError, ParameterError

MATRICES = ("sform", "qform")
MM = {"mm": 1.0, "unknown": 1.0, "meter": 1e3, "micron": 1e-3}
SHORTEST, LONGEST = 0.02, 100.0  # mm; in metres a scan's voxels are 0.0002 to 0.01 long
REMEDY = (
    "Correct the header, or state on purpose how the axes run with orientation: 'sform' or 'qform' for the matrix to "
    "take, or letters such as 'RAS' for axes towards right, front and head"
)


def check_orientation(orientation: str, *, in_mni: bool = False) -> None:
    """Raise ParameterError unless it is empty, "sform", "qform", or three letters that name three axes.

    Letters say which way the axes run and not where 0 mm is, so that they do not do for volumes in MNI space.
    """
    if orientation in ("", *MATRICES):
        return
    if len(orientation) != 3 or any(len(set(pair) & set(orientation)) != 1 for pair in ("RL", "AP", "SI")):
        raise ParameterError(
            f"orientation={orientation!r}; expected '', 'sform', 'qform' or three letters such as 'RAS' or 'LPS'."
        )
    if in_mni:
        raise ParameterError(
            f"orientation={orientation!r} in MNI space; letters do not say where 0 mm is: expected 'sform' or 'qform', "
            "or correct the headers."
        )


def nifti_affine(header: Any, shape: tuple[int, ...], path: Path | str, orientation: str = "") -> np.ndarray:
    """The affine of a NIfTI header, (4, 4), in mm; nothing is guessed.

    A header is taken at its word if at least one of sform and qform is set; if the two, where both are set, agree on
    the way the axes run (and under one code on the place of the first voxel); if the voxels of the sform are as
    long as pixdim has them; and if lengths are in mm. Any other is refused, unless `orientation` says what to take.

    Parameters
    ----------
    header : nibabel.Nifti1Header
    shape : three ints
    path : Path or str
        Names the file in messages.
    orientation : str
        For headers that do not say, ignored for those that do: ``"sform"`` or ``"qform"``, or the letters of the axes
        as they are stored, such as ``"LAS"``; then voxels are as long as pixdim has them and the middle is at 0 mm.

    Raises
    ------
    DataError
        The header does not say, or voxels are shorter than 0.02 mm or longer than 100 mm.
    """
    doubt = _doubt(header, shape)
    if doubt and not orientation:
        raise DataError(f"{path}: {doubt}. {REMEDY}")
    affine = _stated(header, shape, orientation) if doubt else header.get_best_affine()
    lengths = voxel_sizes(affine)[_several(shape)]
    if (((lengths > 0) & (lengths < SHORTEST)) | (lengths > LONGEST)).any():  # 0 is no affine, as a grid says
        raise DataError(
            f"{path}: voxels of {_words(lengths)} mm; expected {SHORTEST:g} to {LONGEST:g} mm. Correct the lengths, or "
            "their unit, in its header"
        )
    return affine


def centered_affine(lengths: np.ndarray, shape: tuple[int, ...], letters: str) -> np.ndarray:
    """The affine of voxels whose axes run as three letters say, with the middle at 0 mm."""
    affine = orientations.inv_ornt_aff(
        orientations.ornt_transform(orientations.axcodes2ornt("RAS"), orientations.axcodes2ornt(letters)),
        (1, 1, 1),
    )
    affine[:3, :3] = affine[:3, :3] * lengths
    affine[:3, 3] = -affine[:3, :3] @ (np.array(shape) - 1) / 2
    return affine


def is_stated(header: Any, shape: tuple[int, ...]) -> bool:
    """Whether a NIfTI header says without contradiction where its voxels lie."""
    return not _doubt(header, shape)


def _doubt(header: Any, shape: tuple[int, ...]) -> str:
    """What keeps a header from saying where its voxels lie; empty if nothing does."""
    codes = {name: int(header[f"{name}_code"]) for name in MATRICES}
    if not any(codes.values()):
        return "neither sform nor qform is set (codes 0), so that left and right are unknown; expected one of them"
    unit = header.get_xyzt_units()[0]
    if unit not in ("mm", "unknown"):
        return f"lengths in the unit {unit!r}; expected mm"
    sform = header.get_sform()
    if not codes["sform"] or not np.isfinite(sform).all() or np.linalg.det(sform) == 0:
        return ""  # a grid refuses what is no affine
    several = _several(shape)
    lengths, pixdim = voxel_sizes(sform), np.abs(header["pixdim"][1:4].astype(float))
    apart = 1 / np.linalg.norm(np.linalg.inv(sform[:3, :3]), axis=1)  # of tilted slices, across them
    fits = np.isclose(lengths, pixdim, rtol=0.02) | np.isclose(apart, pixdim, rtol=0.02)
    if not fits[several].all():
        return f"voxels of {_words(lengths)} mm in sform and {_words(pixdim)} mm in pixdim; expected the same"
    if not codes["qform"]:
        return ""
    qform = header.get_qform()
    same_code = codes["sform"] == codes["qform"]
    cosines = ((sform[:3, :3] / lengths) * (qform[:3, :3] / voxel_sizes(qform))).sum(axis=0)
    if (cosines[several] < (0.8 if same_code else 0.5)).any():
        axes = ["".join(orientations.aff2axcodes(matrix)) for matrix in (sform, qform)]
        return f"axes that run to {axes[0]} by sform and to {axes[1]} by qform, in other directions; expected the same"
    moved = float(np.linalg.norm(sform[:3, 3] - qform[:3, 3]))
    if same_code and moved > lengths[several].max():
        return f"the first voxel at two places, {moved:.3g} mm apart by sform and qform of one code; expected one place"
    return ""


def _stated(header: Any, shape: tuple[int, ...], orientation: str) -> np.ndarray:
    scale = MM[header.get_xyzt_units()[0]]
    if orientation in MATRICES:
        affine = np.array(header.get_sform() if orientation == "sform" else header.get_qform())
        affine[:3] *= scale
        return affine
    return centered_affine(np.abs(header["pixdim"][1:4].astype(float)) * scale, shape, orientation)


def _several(shape: tuple[int, ...]) -> np.ndarray:
    """Which axes have more than one voxel, (3,)."""
    return np.array(shape) > 1


def _words(lengths: np.ndarray) -> str:
    return " x ".join(f"{length:.4g}" for length in lengths)
