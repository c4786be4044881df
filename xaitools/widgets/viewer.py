"""A viewer of images and their relevance maps, drawn in the browser from one upload."""

import math
import sys
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import anywidget
import numpy.typing as npt
import traitlets
from IPython import get_ipython
from IPython.display import HTML, display

from xaitools.errors import ParameterError, ShapeError, XaitoolsError
from xaitools.widgets.inputs import (
    Array,
    check_affines,
    check_images,
    check_labels,
    check_maps,
    check_masks,
    opened,
    opened_maps,
)
from xaitools.widgets.layers import (
    DIVERGING_MAPS,
    MAX_BYTES,
    SEQUENTIAL_MAPS,
    downsampling,
    encode_colormap,
    encode_grid,
    encode_images,
    encode_labels,
    encode_map,
    encode_mask,
)
from xaitools.widgets.standalone import note_to_save, standalone, write_page

STATIC = Path(__file__).parent / "static"
MODULES = ("data.js", "paint.js", "controls.js", "wheel.js", "panes.js", "viewer.js")


def _read(*files: str) -> str:
    return "\n".join((STATIC / file).read_text(encoding="utf-8") for file in files)


class SliceViewer(anywidget.AnyWidget):
    """Show maps over images or volumes, with controls; works without a kernel once it is displayed.

    Keys on a focused picture: arrows, PageUp and PageDown, Home and End change the slice (of single slices,
    the image), as the mouse wheel does after a click into the picture, or with Ctrl or ⌘; with Shift, arrows move
    the voxel whose values are read. "Reset" goes back to the state at first.

    Parameters
    ----------
    images : array or tensor, (n, channel, row, column) or (n, channel, x, y, z), or NIfTI volumes
        What the maps explain: one channel is grey, three are red, green and blue, from the smallest to the largest
        value of all images. Volumes can be a path, a nibabel image, or a list of them on one grid.
    maps : mapping of method name to array or tensor, shaped like `images`, or NIfTI volumes, optional
        Signed maps (any value below zero) get diverging colours about zero, others sequential ones. Each
        map is scaled by its own largest magnitude; values under the cursor are in the map's own unit, to
        within one of 255 levels. Names and labels of methods are explained in tooltips. Three channels are added up;
        the axis of one channel may be left out, of one image its axis too.
    masks : bool array or tensor, (n, 1, *spatial), or NIfTI volumes, optional
        What an expert expects to be highlighted, drawn as an outline.
    mask_name : str
        What the outline is called.
    labels : int array, (n, 1, *spatial) or (*spatial) for all images, or NIfTI volume, optional
        Regions, such as an atlas on the images' grid; the one under the cursor is named.
    label_names : mapping of int to str, optional
        Names of the labels; others show as their number, and 0 not at all.
    names : sequence of str, optional
        One name an image; study ids, since exported pages show them.
    affine : array, (4, 4), optional
        Of volumes: voxel to millimetres, right-anterior-superior. Gives true proportions and the letters of
        the body's directions, and the place under the cursor in mm. NIfTI volumes bring their own.
    **state
        Initial values of the traits below.

    Attributes
    ----------
    image : int
        Index of the shown image.
    method : str
        Name of the shown map.
    view : {"slice", "planes", "compare"}
        One slice; the three planes through `voxel` of a volume; or one slice under several methods.
    compare : list of str
        Methods side by side in the view "compare".
    opacity : float
        Of the map over the image, 0 to 1.
    threshold : float
        In percent, what `threshold_by` says; elsewhere the image alone is shown.
    threshold_by : {"maximum", "top"}
        Show what reaches `threshold` percent of the map's largest magnitude, or its top `threshold` percent
        of voxels by magnitude. Voxels of one level count together, and zeros are never shown.
    sequential : {"inferno", "viridis", "cividis"}
        Colours of absolute maps; like the following, after the square root of the magnitude.
    diverging : {"red-blue", "orange-purple", "teal-brown"}
        Colours of signed maps, symmetric about zero; the first colour is that of positive values.
    outline : bool
        Whether the mask's outline is drawn.
    crosshair : bool
        Whether lines cross at `voxel`; in the view "planes" they always do.
    plane : {"axial", "coronal", "sagittal"}
        Shown plane of a volume.
    side : {"neurological", "radiological"}
        Whether the patient's left is on the left or on the right; of volumes with an affine.
    voxel : list of int
        Index, in the arrays given, of the voxel through which the planes go; click or drag to move it.

    Raises
    ------
    ShapeError
        If a map, the masks, labels, names or the affine do not fit the images, or volumes lie on several grids.
    DataError
        If an image or map holds NaN or infinity, or labels are not whole numbers.
    DataFileError
        If a file is missing, damaged or no volume.
    ParameterError
        If something else was given, or a trait is set to a method, image, view or voxel that does not exist.

    Notes
    -----
    A notebook that is saved keeps the viewer, images included, as long as that takes at most `max_saved` bytes, 8 MiB;
    ``SliceViewer.max_saved = 0`` keeps none.

    A browser gets at most 512 MiB of voxels, one byte each (two of labels above 256). Larger ones are shown at
    every second (third, ...) voxel along each axis, and the viewer says so.
    """

    max_saved = 8 * 2**20

    _esm = _read(*MODULES) + "\nexport default { render };\n"
    _css = _read("viewer.css")

    image = traitlets.Int(0).tag(sync=True)
    method = traitlets.Unicode().tag(sync=True)
    view = traitlets.Enum(["slice", "planes", "compare"], "slice").tag(sync=True)
    compare: traitlets.List = traitlets.List(traitlets.Unicode()).tag(sync=True)
    opacity = traitlets.Float(0.6, min=0, max=1).tag(sync=True)
    threshold = traitlets.Float(10.0, min=0, max=100).tag(sync=True)
    threshold_by = traitlets.Enum(["maximum", "top"], "maximum").tag(sync=True)
    sequential = traitlets.Enum(list(SEQUENTIAL_MAPS), "inferno").tag(sync=True)
    diverging = traitlets.Enum(list(DIVERGING_MAPS), "red-blue").tag(sync=True)
    outline = traitlets.Bool(True).tag(sync=True)
    crosshair = traitlets.Bool(False).tag(sync=True)
    plane = traitlets.Enum(["axial", "coronal", "sagittal"], "axial").tag(sync=True)
    side = traitlets.Enum(["neurological", "radiological"], "neurological").tag(sync=True)
    voxel = traitlets.List(traitlets.Int()).tag(sync=True)

    names: traitlets.List = traitlets.List(traitlets.Unicode(), read_only=True).tag(sync=True)
    grid: traitlets.Dict = traitlets.Dict(read_only=True).tag(sync=True)
    layers: traitlets.List = traitlets.List(read_only=True).tag(sync=True)
    colormaps: traitlets.Dict = traitlets.Dict(read_only=True).tag(sync=True)
    token = traitlets.Unicode(read_only=True).tag(sync=True)
    notice = traitlets.Unicode(read_only=True).tag(sync=True)
    initial: traitlets.Dict = traitlets.Dict(read_only=True).tag(sync=True)

    def __init__(
        self,
        images: "Array",  # quoted, or Shift+Tab would spell out all that numpy takes
        maps: "Mapping[str, Array] | None" = None,
        *,
        masks: "Array | None" = None,
        mask_name: str = "reference mask",
        labels: "Array | None" = None,
        label_names: Mapping[int, str] | None = None,
        names: Sequence[str] | None = None,
        affine: "npt.ArrayLike | None" = None,
        **state: Any,
    ) -> None:
        image, own = opened(images, "The images"), opened_maps(maps)
        mask = None if masks is None else opened(masks, "The mask")
        regions = None if labels is None else opened(labels, "The label image")
        arrays = check_images(image)
        map_arrays = check_maps(own, arrays)
        volumes = {"The image": image, "The mask": mask, "The label image": regions}
        affine = check_affines(
            affine, volumes | {f"The map '{name}'": values for name, values in own.items()}
        )
        names = [f"image {index + 1}" for index in range(len(arrays))] if names is None else list(names)
        if len(names) != len(arrays):
            raise ShapeError(f"Got {len(names)} names for {len(arrays)} images; expected one for each.")
        spatial = arrays.shape[2:]
        step = downsampling(arrays.size + len(arrays) * math.prod(spatial) * len(own), len(spatial))
        grid = encode_grid(spatial, affine, step)
        layers = [encode_images(arrays, grid)]
        layers += [encode_map(name, values, grid, _about(name)) for name, values in map_arrays.items()]
        if mask is not None:
            layers.append(encode_mask(check_masks(mask, arrays.shape), grid, mask_name))
        if regions is not None:
            layers.append(encode_labels(check_labels(regions, arrays), label_names or {}, grid))
        choices = {"sequential": SEQUENTIAL_MAPS, "diverging": DIVERGING_MAPS}
        colormaps = {kind: {name: encode_colormap(name) for name in known} for kind, known in choices.items()}
        sent = {"names": names, "grid": grid, "layers": layers, "colormaps": colormaps}
        for name, value in {**sent, "notice": _downsampled(step)}.items():
            self.set_trait(name, value)
        center = [size // 2 for size in grid["shape"]]
        shown = {"compare": list(own)[:4], "voxel": center, **({"method": next(iter(own))} if own else {})}
        self.set_trait("token", uuid.uuid4().hex)
        super().__init__(**{**shown, **state})
        self.set_trait("initial", self._user_state())

    def _user_state(self) -> dict[str, Any]:
        """Values of the traits that a user sets."""
        traits = SliceViewer.class_own_traits(sync=True)
        return {name: getattr(self, name) for name, trait in traits.items() if not trait.read_only}

    def to_html(self, path: str | Path | None = None, *, title: str | None = None) -> str:
        """Return the viewer as it is now, as HTML that works from a file without a network.

        Parameters
        ----------
        path
            File to write, as a whole page. Without it, what is returned is a part of a page, in which any number of
            viewers can stand.
        title
            Of the page; by default it tells the methods.

        Raises
        ------
        DataFileError
            If the folder of `path` does not exist.
        """
        part = standalone(self._state(), script=_read(*MODULES, "standalone.js"), style=self._css)
        if path is None:
            return part
        return write_page(part, Path(path), title or f"Relevance: {', '.join(self._map_names()) or 'no map'}")

    def saved_html(self) -> str:
        """What a notebook keeps of the viewer: itself, as it is now, or why not.

        It shows itself where the widget does not, as in a notebook that is opened again without its kernel.
        """
        script = _read(*MODULES, "standalone.js", "saved.js")
        page = standalone(self._state(), script=script, style=self._css, saved=True)
        if len(page) <= self.max_saved:
            return page
        text = (
            f"This viewer is not saved with the notebook, as it takes {len(page) / 2**20:.1f} MiB (limit: "
            f"{self.max_saved / 2**20:.0f} MiB). Run the cell again, or keep it as a page: "
            "viewer.to_html('viewer.html')."
        )
        return note_to_save(text, self.token, script=_read("saved.js"))

    def _state(self) -> dict[str, Any]:
        """All that a browser needs."""
        state = {name: getattr(self, name) for name in SliceViewer.class_own_traits(sync=True)}
        return {**state, "initial": self._user_state()}

    def _ipython_display_(self) -> None:
        if not is_interactive():
            raise NotImplementedError  # IPython then asks for `_repr_mimebundle_`
        display(self._repr_mimebundle_()[0], raw=True)
        if self.max_saved > 0:
            display(HTML(self.saved_html()))

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        # A person's front end shows the widget; an export to HTML, which has no kernel, shows the page.
        data, metadata = super()._repr_mimebundle_(**kwargs) or ({}, {})
        return (data if is_interactive() else {**data, "text/html": self.to_html()}), metadata

    def _map_names(self) -> list[str]:
        return [layer["name"] for layer in self.layers if layer["kind"] == "map"]

    def _check_map(self, name: str) -> None:
        known = self._map_names()
        if name not in known:
            raise ParameterError(f"The viewer has no map '{name}'; it has {known}.")

    @traitlets.validate("method")
    def _check_method(self, proposal: dict[str, Any]) -> str:
        self._check_map(proposal["value"])
        return proposal["value"]

    @traitlets.validate("compare")
    def _check_compare(self, proposal: dict[str, Any]) -> list[str]:
        for name in proposal["value"]:
            self._check_map(name)
        return proposal["value"]

    @traitlets.validate("view")
    def _check_view(self, proposal: dict[str, Any]) -> str:
        if proposal["value"] == "planes" and self.grid["rank"] == 2:
            raise ParameterError("The view 'planes' needs volumes; single slices have 'slice' and 'compare'.")
        return proposal["value"]

    @traitlets.validate("image")
    def _check_image(self, proposal: dict[str, Any]) -> int:
        if not 0 <= proposal["value"] < len(self.names):
            raise ParameterError(
                f"The viewer has no image {proposal['value']}; it has {len(self.names)}, counted from 0."
            )
        return proposal["value"]

    @traitlets.validate("voxel")
    def _check_voxel(self, proposal: dict[str, Any]) -> list[int]:
        shape = self.grid["shape"]
        inside = [0 <= at < size for at, size in zip(proposal["value"], shape, strict=False)]
        if len(proposal["value"]) != 3 or not all(inside):
            raise ParameterError(f"The voxel {proposal['value']} does not lie in an image of shape {shape}.")
        return proposal["value"]


def _about(name: str) -> str:
    """What the map of a method tells, "" if the name is not that of one."""
    # Whoever has computed maps has loaded the methods, and torch with them; a viewer of stored maps need not wait.
    names = sys.modules.get("xaitools.attribution.names")
    try:
        return names.parse(name).about if names else ""
    except XaitoolsError:
        return ""


def _downsampled(step: int) -> str:
    if step == 1:
        return ""
    limit = f"{MAX_BYTES / 2**20:.0f} MiB"
    return f"Too large for a browser (limit: {limit}): one voxel in {step} along each axis is shown."


def is_interactive() -> bool:
    """Whether somebody sits before the front end."""
    # A front end before which somebody sits can be asked for input; nbclient, so Papermill and Voila, cannot.
    kernel = getattr(get_ipython(), "kernel", None)
    return bool(getattr(kernel, "_allow_stdin", False))
