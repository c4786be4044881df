"""A widget to draw the region that an expert expects a map to highlight, and files of such masks."""

import gzip
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import anywidget
import nibabel as nib
import numpy as np
import numpy.typing as npt
import traitlets
from IPython.display import HTML, display
from nibabel.filebasedimages import ImageFileError
from PIL import Image

from xaitools.data.grids import Grid
from xaitools.data.pictures import drawn_pixels, read_picture
from xaitools.errors import DataError, DataFileError, ParameterError, ShapeError
from xaitools.evaluation.localization import localization
from xaitools.widgets.inputs import (
    Array,
    check_affines,
    check_images,
    check_maps,
    check_masks,
    opened,
    opened_maps,
)
from xaitools.widgets.layers import (
    encode_colormaps,
    encode_grid,
    encode_images,
    encode_map,
    encode_mask,
)
from xaitools.widgets.standalone import note_to_save
from xaitools.widgets.viewer import STATIC, is_interactive

MODULES = ("data.js", "paint.js", "controls.js", "wheel.js", "editor.js")
STYLES = ("viewer.css", "editor.css")
SUFFIXES = (".png", ".nii", ".nii.gz")


def _read(*files: str) -> str:
    return "\n".join((STATIC / file).read_text(encoding="utf-8") for file in files)


class MaskEditor(anywidget.AnyWidget):
    """Draw reference masks on images, or on the slices of volumes, by polygon and brush.

    A polygon takes or erases the pixels whose centre lies inside it (even-odd rule); the brush those whose
    centre lies within half its size of the pointer's path, and the pixel under the pointer.

    Parameters
    ----------
    images : array or tensor, (n, channel, row, column) or (n, channel, x, y, z), or NIfTI volumes
        What to draw on; as for :class:`xaitools.widgets.SliceViewer`.
    maps : mapping of method name to array or tensor, shaped like `images`, or NIfTI volumes, optional
        Maps to judge by what is drawn, and to lay over the image on request; three channels are added up.
    masks : bool array or tensor, (n, 1, *spatial), or NIfTI volumes, optional
        What is drawn at the start.
    names : sequence of str, optional
        One name an image; the files of `save` are named by it. Use study ids.
    affine : array, (4, 4), optional
        Of volumes: voxel to millimetres, right-anterior-superior. NIfTI volumes bring their own.
    **state
        Initial values of the traits below.

    Attributes
    ----------
    masks : array of bool, (n, 1, *spatial)
        What is drawn, at any time; can be set.
    scores : dict
        For the shown image, ROC AUC and maximum Dice coefficient of each map against what is drawn, as in
        :func:`xaitools.evaluation.localization.localization`: ``{method: {"auc": ..., "dice": ...}}``; larger
        values count as more relevant, so give the absolute value of maps whose sign does not matter. Empty
        while nothing is drawn on the image. A volume is judged as a whole.
    image : int
        Index of the shown image.
    method : str
        Name of the map laid over the image; "" for none.
    opacity, threshold : float
        Of that map, as in the viewer.
    plane : {"axial", "coronal", "sagittal"}
        Shown plane of a volume.
    voxel : list of int
        Index of the voxel through which the plane goes.
    tool : {"polygon", "brush"}
    erase : bool
        Whether the tools take away instead of add.
    brush : int
        Size (diameter) of the brush, in pixels; in the smallest spacing where voxels are not cubes.

    Raises
    ------
    ShapeError
        If a map, the masks, the names or the affine do not fit the images.
    DataError
        If an image or map holds NaN or infinity.
    ParameterError
        If a trait is set to a method, image or voxel that does not exist.
    """

    _esm = _read(*MODULES) + "\nexport default { render };\n"
    _css = _read(*STYLES)

    image = traitlets.Int(0).tag(sync=True)
    method = traitlets.Unicode().tag(sync=True)
    opacity = traitlets.Float(0.4, min=0, max=1).tag(sync=True)
    threshold = traitlets.Float(10.0, min=0, max=100).tag(sync=True)
    plane = traitlets.Enum(["axial", "coronal", "sagittal"], "axial").tag(sync=True)
    voxel = traitlets.List(traitlets.Int()).tag(sync=True)
    tool = traitlets.Enum(["polygon", "brush"], "polygon").tag(sync=True)
    erase = traitlets.Bool(False).tag(sync=True)
    brush = traitlets.Int(5, min=1, max=50).tag(sync=True)

    names: traitlets.List = traitlets.List(traitlets.Unicode(), read_only=True).tag(sync=True)
    grid: traitlets.Dict = traitlets.Dict(read_only=True).tag(sync=True)
    layers: traitlets.List = traitlets.List(read_only=True).tag(sync=True)
    colormaps: traitlets.Dict = traitlets.Dict(read_only=True).tag(sync=True)
    scores: traitlets.Dict = traitlets.Dict(read_only=True).tag(sync=True)
    token = traitlets.Unicode(read_only=True).tag(sync=True)
    # Gzipped levels 0 and 1 in the order of the layers; a few hundred bytes for a hundred slices.
    drawing = traitlets.Bytes().tag(sync=True, from_json=lambda sent, _: bytes(sent))

    def __init__(
        self,
        images: "Array",
        maps: "Mapping[str, Array] | None" = None,
        *,
        masks: "Array | None" = None,
        names: Sequence[str] | None = None,
        affine: "npt.ArrayLike | None" = None,
        **state: Any,
    ) -> None:
        image, own = opened(images, "The images"), opened_maps(maps or None)
        mask = None if masks is None else opened(masks, "The mask")
        arrays = check_images(image)
        self._shape = (len(arrays), *arrays.shape[2:])
        self._maps = check_maps(own, arrays)
        volumes = {"The image": image, "The mask": mask}
        affine = check_affines(
            affine, volumes | {f"The map '{name}'": values for name, values in own.items()}
        )
        self._affine = None if affine is None else np.asarray(affine, dtype=float)
        self._had_mask = np.zeros(len(arrays), dtype=bool)
        names = [f"image {index + 1}" for index in range(len(arrays))] if names is None else list(names)
        if len(names) != len(arrays):
            raise ShapeError(f"Got {len(names)} names for {len(arrays)} images; expected one for each.")
        grid = encode_grid(self._shape[1:], affine)
        layers = [encode_images(arrays, grid)]
        layers += [encode_map(name, values, grid) for name, values in self._maps.items()]
        sent = {
            "token": uuid.uuid4().hex,
            "names": names,
            "grid": grid,
            "layers": layers,
            "colormaps": encode_colormaps(),
        }
        for name, value in sent.items():
            self.set_trait(name, value)
        self._draw(np.zeros(self._shape, dtype=bool) if mask is None else mask)
        center = [size // 2 for size in grid["shape"]]
        super().__init__(**{"voxel": center, **state})

    def _ipython_display_(self) -> None:
        if not is_interactive():
            raise NotImplementedError  # IPython then asks for `_repr_mimebundle_`
        display((self._repr_mimebundle_() or ({},))[0], raw=True)
        text = (
            "The mask editor needs a running kernel: run this cell again. What `save` wrote is in its folder."
        )
        display(HTML(note_to_save(text, self.token, script=_read("saved.js"))))

    @property
    def masks(self) -> np.ndarray:
        """What is drawn: bool (n, 1, *spatial)."""
        return self._masks[:, None].copy()

    @masks.setter
    def masks(self, masks: "Array") -> None:
        self._draw(masks)

    def _draw(self, masks: Any) -> None:
        drawn = check_masks(masks, (self._shape[0], 1, *self._shape[1:]))
        self.drawing = encode_mask(drawn, self.grid)["data"]

    def save(self, folder: str | Path) -> list[Path]:
        """Write the masks into a folder: ``NAME.png`` of an image, ``NAME.nii.gz`` of a volume.

        A PNG file is 8-bit grey, 0 and 255, of the image's own size; a NIfTI file holds 0 and 1 and the affine
        (the identity if none was given). An image on which nothing is drawn gets no file, and what an earlier
        `save` wrote is removed if its mask has been cleared in this editor.

        :func:`xaitools.data.load_ct` finds the files as ``masks=folder`` if they are named and sized like the
        files of the slices: load them with ``size`` equal to their stored size and give
        ``names=[path.stem for path in samples.sources]``; afterwards any other ``size`` may be asked for.

        Returns
        -------
        list of Path
            The files written.

        Raises
        ------
        ParameterError
            If a name cannot be that of a file, or occurs twice.
        """
        self._check_file_names()
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        suffix = ".png" if self._masks.ndim == 3 else ".nii.gz"
        written = []
        for name, mask, had_mask in zip(self.names, self._masks, self._had_mask, strict=True):
            path = folder / f"{name}{suffix}"
            if mask.any():
                _write_mask(path, mask, self._affine)
                written.append(path)
            elif had_mask:
                path.unlink(missing_ok=True)
        return written

    def load(self, folder: str | Path) -> None:
        """Read what `save` wrote; an image for which there is no file keeps its mask.

        Raises
        ------
        DataFileError
            If the folder has no mask named like an image, or one cannot be read.
        ShapeError
            If a mask has another size or affine than the image.
        """
        masks = self._masks.copy()
        found = {path: name for path, name in _find_masks(Path(folder)).items() if name in self.names}
        if not found:
            raise DataFileError(
                f"{folder}: no mask is named like an image; expected for instance {self.names[0]}"
                f"{'.png' if masks.ndim == 3 else '.nii.gz'}. Give the folder that `save` wrote."
            )
        for path, name in found.items():
            mask, affine = _read_mask(path)
            if mask.shape != masks.shape[1:]:
                raise ShapeError(
                    f"{path}: a mask of {mask.shape} for images of {masks.shape[1:]}; draw it on these images, "
                    "or load them in the size in which it was drawn."
                )
            expected = np.eye(4) if self._affine is None else self._affine
            if affine is not None and not Grid(mask.shape, affine).same_as(Grid(mask.shape, expected)):
                raise ShapeError(
                    f"{path}: the mask lies elsewhere in space than the image; resample it first."
                )
            masks[self.names.index(name)] = mask
        self.masks = masks[:, None]

    def _check_file_names(self) -> None:
        for name in self.names:
            if not name or name != Path(name).name or "\\" in name:
                raise ParameterError(
                    f"The image's name '{name}' cannot name a file; give others as names=[...]."
                )
            if self.names.count(name) > 1:
                raise ParameterError(
                    f"Several images are named '{name}'; give each its own name to save them."
                )

    @traitlets.observe("drawing")
    def _decode_drawing(self, change: dict[str, Any]) -> None:
        self._masks = _decode(change["new"], self.grid, self._shape)
        self._had_mask |= self._masks.any(axis=tuple(range(1, self._masks.ndim)))
        self._update_scores()

    @traitlets.observe("image")
    def _update_scores(self, change: Any = None) -> None:
        mask = self._masks[self.image]
        scores = {}
        if mask.any() and not mask.all():
            for name, maps in self._maps.items():
                result = localization(maps[[self.image]], mask[None])
                scores[name] = {key: float(result[key][0]) for key in ("auc", "dice")}
        self.set_trait("scores", scores)

    @traitlets.validate("method")
    def _check_method(self, proposal: dict[str, Any]) -> str:
        if proposal["value"] and proposal["value"] not in self._maps:
            raise ParameterError(
                f"The editor has no map '{proposal['value']}'; it has {list(self._maps)}, and '' shows none."
            )
        return proposal["value"]

    @traitlets.validate("image")
    def _check_image(self, proposal: dict[str, Any]) -> int:
        if not 0 <= proposal["value"] < len(self.names):
            raise ParameterError(
                f"The editor has no image {proposal['value']}; it has {len(self.names)}, counted from 0."
            )
        return proposal["value"]

    @traitlets.validate("voxel")
    def _check_voxel(self, proposal: dict[str, Any]) -> list[int]:
        shape = (*self._shape[1:], 1)[:3]
        inside = [0 <= at < size for at, size in zip(proposal["value"], shape, strict=False)]
        if len(proposal["value"]) != 3 or not all(inside):
            raise ParameterError(f"The voxel {proposal['value']} does not lie in an image of shape {shape}.")
        return proposal["value"]


def load_masks(folder: str | Path) -> dict[str, np.ndarray]:
    """Read every mask that :meth:`MaskEditor.save` wrote into a folder.

    Parameters
    ----------
    folder : path
        With PNG or NIfTI files, non-zero inside.

    Returns
    -------
    dict
        From the image's name to its mask, bool (row, column) or (x, y, z), sorted by name.

    Raises
    ------
    DataFileError
        If the folder does not exist or has no mask, or a file cannot be read.
    """
    return {name: _read_mask(path)[0] for path, name in _find_masks(Path(folder)).items()}


def _find_masks(folder: Path) -> dict[Path, str]:
    if not folder.is_dir():
        raise DataFileError(f"{folder}: no such folder of masks; give the one that `save` wrote.")
    files = sorted(path for path in folder.iterdir() if path.name.lower().endswith(SUFFIXES))
    if not files:
        raise DataFileError(f"{folder}: holds no mask; expected PNG or NIfTI files.")
    return {path: path.name.removesuffix(".gz").rsplit(".", 1)[0] for path in files}


def _write_mask(path: Path, mask: np.ndarray, affine: np.ndarray | None) -> None:
    if mask.ndim == 2:
        Image.fromarray(mask.astype(np.uint8) * 255).save(path)
    else:
        nib.save(nib.Nifti1Image(mask.astype(np.uint8), np.eye(4) if affine is None else affine), path)


def _read_mask(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """The mask, and the affine of a NIfTI file."""
    try:
        if path.suffix.lower() == ".png":
            return drawn_pixels(read_picture(path), path) > 0, None
        volume = nib.Nifti1Image.from_filename(path)
        return np.asarray(volume.dataobj) != 0, volume.affine
    except DataError:
        raise
    except (OSError, EOFError, ValueError, ImageFileError):
        raise DataFileError(f"{path}: not a readable mask; save it again as PNG or NIfTI.") from None


def _decode(data: bytes, grid: dict[str, Any], shape: tuple[int, ...]) -> np.ndarray:
    """Undo the order in which layers are sent: bool (n, *spatial)."""
    levels = np.frombuffer(gzip.decompress(data), dtype=np.uint8)
    shown = levels.reshape(shape[0], *reversed(grid["dims"])).transpose(0, 3, 2, 1)
    shown = np.flip(shown, tuple(axis + 1 for axis, flip in enumerate(grid["flips"]) if flip))
    return shown.transpose(0, *[int(axis) + 1 for axis in np.argsort(grid["axes"])]).reshape(shape) > 0
