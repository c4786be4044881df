"""From a model, images and names of methods to a viewer whose maps are computed when they are asked for."""

import time
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any

import ipywidgets
import numpy as np
import torch
from IPython.display import HTML, DisplayHandle, display
from torch import Tensor, nn

from xaitools.attribution.attribute import attribute
from xaitools.attribution.names import parse
from xaitools.attribution.xrai import Segments, segment_all
from xaitools.checks import checked_images
from xaitools.errors import ParameterError, XaitoolsError
from xaitools.progress import Progress
from xaitools.widgets.viewer import SliceViewer, is_interactive

METHODS = (
    "gradient",
    "gradient+smoothgrad_squared",
    "integrated_gradients[black+white]",
    "integrated_gradients[black+white]+absolute@xrai",
)
NO_MAP = "(not computed yet)"
UPDATES_A_SECOND = 10
COMPARED = 4  # methods that are put side by side unasked

Compute = Callable[[str, Progress], Tensor]


class _Cancelled(Exception):
    """Raised in the thread that computes, between two batches."""


def explore(
    model: nn.Module,
    images: Tensor | np.ndarray,
    target: Tensor | int | None = None,
    methods: str | Sequence[str] = METHODS,
    *,
    references: Tensor | None = None,
    masks: Any = None,
    mask_name: str = "reference mask",
    names: Sequence[str] | None = None,
    affine: Any = None,
    **options: Any,
) -> "Explorer":
    """Show images at once, and the map of each method as soon as it is chosen and computed.

    The first method is started at once, in a thread of its own; the kernel stays free meanwhile.

    Parameters
    ----------
    model
        Network returning (batch, classes) or (batch,).
    images : tensor or array, (n, channel, row, column) or (n, channel, x, y, z)
        Images or volumes to explain, of one channel or of three: red, green and blue.
    target
        Class to explain: one for all images, or one for each. None for the single output of a regression.
    methods
        Names or labels to choose from; see `xaitools.attribution.names`.
    references, **options
        Further arguments of :func:`xaitools.attribution.attribute`, such as ``draws`` or ``batch_size``.
    masks, mask_name, names, affine
        As for :class:`xaitools.widgets.SliceViewer`.

    Returns
    -------
    Explorer
        Displays itself in a notebook. Call its `wait` before an export to HTML, which shows what is computed.

    Raises
    ------
    ParameterError
        If there is no method, or one is named twice.
    MethodError
        If there is no method of a name.
    ShapeError
        If images, masks, names and affine do not fit together, or the images have other channels.
    DataError
        If an image holds NaN or infinity.
    """
    images = checked_images(images)
    methods = [methods] if isinstance(methods, str) else list(methods)
    parsed = {method: parse(method) for method in methods}
    regions: list[Segments] = []

    def compute(method: str, tell: Progress) -> Tensor:
        given = {"references": references, **options, "progress": tell}
        if parsed[method].regions and "segments" not in options:
            for done in range(len(regions), len(images)):
                tell(done, len(images))
                regions.extend(segment_all(images[done : done + 1]))
            given["segments"] = regions
        return attribute(model, images, target, [method], **given)[method]

    about = {method: name.about for method, name in parsed.items()}
    return Explorer(
        compute, images, methods, about=about, masks=masks, mask_name=mask_name, names=names, affine=affine
    )


class Explorer(ipywidgets.VBox):
    """What `explore` returns: a viewer below a choice of methods, progress, a cancel button and messages.

    Parameters
    ----------
    compute : callable
        ``compute(method, tell)`` gives the maps of a method, shaped like `images`, and calls
        ``tell(done, total)`` now and then; what that raises must pass through, it cancels.
    images : array or tensor, (n, channel, row, column) or (n, channel, x, y, z)
    methods : sequence of str
        Methods to choose from; the first is started at once.
    about : mapping of method to str, optional
        What each tells, shown below the choice.
    **shown
        `masks`, `mask_name`, `names` and `affine` of the viewer.

    Attributes
    ----------
    maps : dict
        The maps computed so far, by method, as float32 arrays shaped like `images`.
    viewer : SliceViewer
        Shows them; another one, in the same state, takes its place when a map is added.
    choice, idea, progress, cancel_button, compute_button, message
        The widgets around it.
    """

    def __init__(
        self,
        compute: "Compute",
        images: Any,
        methods: Sequence[str],
        *,
        about: Mapping[str, str] | None = None,
        **shown: Any,
    ) -> None:
        _check_methods(methods)
        self.maps: dict[str, np.ndarray] = {}
        self._compute, self._images, self._shown = compute, images, shown
        self._stops: dict[str, Event] = {}
        self._threads: list[Thread] = []
        self._turn, self._guard = Lock(), Lock()
        self.viewer = SliceViewer(images, {NO_MAP: np.zeros(tuple(images.shape))}, **shown)
        self.choice = ipywidgets.Dropdown(
            options=list(methods),
            description="Compute",
            layout=ipywidgets.Layout(width="480px", max_width="100%"),
        )
        self.compute_button = ipywidgets.Button(
            description="Compute", tooltip="Compute the chosen map", disabled=True, icon="play"
        )
        self.cancel_button = ipywidgets.Button(
            description="Cancel", tooltip="Stop after the present batch", disabled=True, icon="stop"
        )
        self.progress = ipywidgets.IntProgress(
            description="Progress",
            layout=ipywidgets.Layout(visibility="hidden", width="480px", max_width="100%"),
        )
        self.message = ipywidgets.HTML()
        self._about = about or {}
        self.idea = ipywidgets.HTML(layout=ipywidgets.Layout(margin="0 0 0 90px"))
        self._explain()
        self.choice.observe(lambda change: self._explain(), "value")
        self.choice.observe(lambda change: self.compute(change["new"]), "value")
        self.compute_button.on_click(lambda _: self.compute(self.choice.value))
        self.cancel_button.on_click(lambda _: self.cancel())
        wrap = ipywidgets.Layout(flex_flow="row wrap")
        choose = ipywidgets.HBox([self.choice, self.compute_button, self.cancel_button], layout=wrap)
        self._saved: DisplayHandle | None = None
        self._head = (choose, self.idea, ipywidgets.HBox([self.progress, self.message], layout=wrap))
        super().__init__(children=(*self._head, self.viewer))
        self.compute(self.choice.value)

    def compute(self, method: str) -> None:
        """Show a method's map, after computing it in a thread if need be; others that run are finished first."""
        if method not in self.choice.options:
            raise ParameterError(
                f"There is no method '{method}' here; there are {list(self.choice.options)}."
            )
        self.choice.value = method
        with self._guard:
            stop = self._stops.get(method)
            if method not in self.maps and (stop is None or stop.is_set()):
                stop = self._stops[method] = Event()
                thread = Thread(target=self._work, args=(method, stop), daemon=True)
                self._threads = [*(other for other in self._threads if other.is_alive()), thread]
                thread.start()
        if method in self.maps:
            self.viewer.method = method
        self._update_buttons()

    def cancel(self) -> None:
        """Stop what is computed, within one batch, and what waits to be."""
        with self._guard:
            for stop in self._stops.values():
                stop.set()
        self._update_buttons()

    def wait(self, timeout: float | None = None) -> None:
        """Return when nothing is being computed, or after `timeout` seconds for each method that is."""
        for thread in self._threads:
            thread.join(timeout)

    def to_html(self, path: str | Path | None = None, *, title: str | None = None) -> str:
        """Return, or write, the viewer with the maps computed so far; see :meth:`SliceViewer.to_html`."""
        return self.viewer.to_html(path, title=title)

    def _ipython_display_(self) -> None:
        if not is_interactive():
            raise NotImplementedError  # IPython then asks for `_repr_mimebundle_`
        display(super()._repr_mimebundle_(), raw=True)
        if self.viewer.max_saved > 0:
            shown = self.viewer
            self._saved = display(HTML(shown.saved_html()), display_id=True)
            if self.viewer is not shown:  # a map was added meanwhile
                self._saved.update(HTML(self.viewer.saved_html()))

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        page = self.viewer._repr_mimebundle_(**kwargs)[0].get("text/html")
        return {**(super()._repr_mimebundle_(**kwargs) or {}), **({"text/html": page} if page else {})}

    def _work(self, method: str, stop: Event) -> None:
        message = ""
        with self._turn:
            try:
                _raise_if(stop)
                self._say(method, "computing")
                maps = self._compute(method, self._teller(method, stop))
                _raise_if(stop)
                self._add(method, maps)
            except _Cancelled:
                message = "cancelled"
            except Exception as error:
                kind = "" if isinstance(error, XaitoolsError) else f"{type(error).__name__}: "
                message = f"failed. {kind}{error}"
            with self._guard:
                if self._stops.get(method) is stop:
                    del self._stops[method]
            self._say(method, message, warning=True)
        self._update_buttons()

    def _teller(self, method: str, stop: Event) -> Progress:
        last = -np.inf

        def tell(done: int, total: int) -> None:
            nonlocal last
            _raise_if(stop)
            if (now := time.monotonic()) - last > 1 / UPDATES_A_SECOND:
                last = now
                self.progress.max, self.progress.value = total, done
                self.progress.layout.visibility = "visible"
                self._say(method, f"{done} of {total}")

        return tell

    def _add(self, method: str, maps: Any) -> None:
        """Put a viewer that has the new maps too in the place of the present one."""
        array = np.asarray(torch.as_tensor(maps).detach().cpu(), dtype=np.float32)
        state = self.viewer._user_state()
        if method == self.choice.value or not self.maps:
            state["method"] = method
        compared = [name for name in state["compare"] if name != NO_MAP]
        state["compare"] = compared if len(compared) >= COMPARED else [*compared, method]
        viewer = SliceViewer(self._images, {**self.maps, method: array}, **self._shown)
        viewer.set_trait("token", self.viewer.token)
        for name, value in state.items():
            setattr(viewer, name, value)
        self.maps[method] = array
        previous, self.viewer = self.viewer, viewer
        self.children = (*self._head, viewer)
        previous.close()
        if self._saved is not None:
            self._saved.update(HTML(viewer.saved_html()))

    def _explain(self) -> None:
        """Say what the chosen method tells."""
        text = self._about.get(self.choice.value, "")
        self.idea.value = escape(text)
        self.idea.layout.display = "" if text else "none"

    def _say(self, method: str, text: str, *, warning: bool = False) -> None:
        color = "#b35900" if warning else "inherit"
        words = f"{escape(method)}: {escape(text)}" if text else ""
        self.message.value = f'<span role="status" style="color: {color}">{words}</span>' if words else ""

    def _update_buttons(self) -> None:
        with self._guard:
            running = [stop for stop in self._stops.values() if not stop.is_set()]
            chosen = self._stops.get(self.choice.value)
            idle = chosen is None or chosen.is_set()
            self.cancel_button.disabled = not running
            self.compute_button.disabled = self.choice.value in self.maps or not idle
            if not self._stops:
                self.progress.layout.visibility = "hidden"


def _check_methods(methods: Sequence[str]) -> None:
    if not methods:
        raise ParameterError(
            "There is no method to choose from; name at least one, for example ['gradient']."
        )
    if len(set(methods)) < len(methods):
        raise ParameterError(f"A method is named twice in {list(methods)}; name each once.")


def _raise_if(stop: Event) -> None:
    if stop.is_set():
        raise _Cancelled
