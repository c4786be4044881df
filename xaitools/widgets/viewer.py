"""A viewer of images and their relevance maps, drawn in the browser from one upload."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import anywidget
import numpy.typing as npt
import traitlets

from xaitools.errors import ParameterError, ShapeError
from xaitools.widgets.layers import (
    check_images,
    check_maps,
    check_masks,
    encode_colormaps,
    encode_grid,
    encode_images,
    encode_map,
    encode_mask,
)
from xaitools.widgets.standalone import standalone

STATIC = Path(__file__).parent / "static"
MODULES = ("data.js", "paint.js", "controls.js", "viewer.js")


def _read(*files: str) -> str:
    return "\n".join((STATIC / file).read_text(encoding="utf-8") for file in files)


class SliceViewer(anywidget.AnyWidget):
    """Show maps over images or volumes, with controls; works without a kernel once it is displayed.

    Parameters
    ----------
    images : array or tensor, (n, 1, row, column) or (n, 1, x, y, z)
        What the maps explain. Grey values run from the smallest to the largest of all images.
    maps : mapping of method name to array or tensor, shaped like `images`
        Signed maps (any value below zero) get diverging colours about zero, others sequential ones. Each
        map is scaled by its own largest magnitude; values under the cursor are in the map's own unit.
    masks : bool array or tensor, shaped like `images`, optional
        What an expert expects to be highlighted, drawn as an outline.
    names : sequence of str, optional
        One name an image; study ids, since exported pages show them.
    affine : array, (4, 4), optional
        Of volumes: voxel to millimetres, right-anterior-superior. Gives true proportions and the letters of
        the body's directions; the patient's left is on the left.
    **state
        Initial values of the traits below.

    Attributes
    ----------
    image : int
        Index of the shown image.
    method : str
        Name of the shown map.
    opacity : float
        Of the map over the image, 0 to 1.
    threshold : float
        Percent of the map's largest magnitude below which the image alone is shown.
    outline : bool
        Whether the mask's outline is drawn.
    plane : {"axial", "coronal", "sagittal"}
        Shown plane of a volume.
    voxel : tuple of int
        Index, in the arrays given, of the voxel through which the planes go.

    Raises
    ------
    ShapeError
        If a map, the masks, the names or the affine do not fit the images.
    DataError
        If an image or map holds NaN or infinity.
    ParameterError
        If there is no map, or a trait is set to a method, image or voxel that does not exist.
    """

    _esm = _read(*MODULES) + "\nexport default { render };\n"
    _css = _read("viewer.css")

    image = traitlets.Int(0).tag(sync=True)
    method = traitlets.Unicode().tag(sync=True)
    opacity = traitlets.Float(0.6, min=0, max=1).tag(sync=True)
    threshold = traitlets.Float(10.0, min=0, max=100).tag(sync=True)
    outline = traitlets.Bool(True).tag(sync=True)
    plane = traitlets.Enum(["axial", "coronal", "sagittal"], "axial").tag(sync=True)
    voxel = traitlets.List(traitlets.Int()).tag(sync=True)

    names: traitlets.List = traitlets.List(traitlets.Unicode(), read_only=True).tag(sync=True)
    grid: traitlets.Dict = traitlets.Dict(read_only=True).tag(sync=True)
    layers: traitlets.List = traitlets.List(read_only=True).tag(sync=True)
    colormaps: traitlets.Dict = traitlets.Dict(read_only=True).tag(sync=True)

    def __init__(
        self,
        images: npt.ArrayLike,
        maps: Mapping[str, npt.ArrayLike],
        *,
        masks: npt.ArrayLike | None = None,
        names: Sequence[str] | None = None,
        affine: npt.ArrayLike | None = None,
        **state: Any,
    ) -> None:
        arrays = check_images(images)
        map_arrays = check_maps(maps, arrays.shape)
        names = [f"image {index + 1}" for index in range(len(arrays))] if names is None else list(names)
        if len(names) != len(arrays):
            raise ShapeError(f"Got {len(names)} names for {len(arrays)} images; expected one for each.")
        grid = encode_grid(arrays.shape[1:], affine)
        layers = [encode_images(arrays, grid)]
        layers += [encode_map(name, values, grid) for name, values in map_arrays.items()]
        if masks is not None:
            layers.append(encode_mask(check_masks(masks, arrays.shape), grid))
        sent = {"names": names, "grid": grid, "layers": layers, "colormaps": encode_colormaps()}
        for name, value in sent.items():
            self.set_trait(name, value)
        center = [size // 2 for size in (*arrays.shape[1:], 1)[:3]]
        super().__init__(**{"method": next(iter(maps)), "voxel": center, **state})

    def to_html(self) -> str:
        """Return the viewer as it is now, as HTML that works from a file without a network.

        Any number of viewers can stand in one page.
        """
        state = {name: getattr(self, name) for name in SliceViewer.class_own_traits(sync=True)}
        return standalone(state, script=_read(*MODULES, "standalone.js"), style=self._css)

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        # JupyterLab shows the widget; an export to HTML, which has no kernel, shows the page.
        data, metadata = super()._repr_mimebundle_(**kwargs) or ({}, {})
        return {**data, "text/html": self.to_html()}, metadata

    @traitlets.validate("method")
    def _check_method(self, proposal: dict[str, Any]) -> str:
        known = [layer["name"] for layer in self.layers if layer["kind"] == "map"]
        if proposal["value"] not in known:
            raise ParameterError(f"The viewer has no map '{proposal['value']}'; it has {known}.")
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
        shape = [self.grid["dims"][self.grid["axes"].index(axis)] for axis in range(3)]
        inside = [0 <= at < size for at, size in zip(proposal["value"], shape, strict=False)]
        if len(proposal["value"]) != 3 or not all(inside):
            raise ParameterError(f"The voxel {proposal['value']} does not lie in an image of shape {shape}.")
        return proposal["value"]
