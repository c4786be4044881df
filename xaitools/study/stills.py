"""Still pictures of figures, to put into a paper, and their captions."""

import html
import logging
import re
import textwrap
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

WIDTH, HEIGHT = 1100, 450  # pixels, of figures that do not say
PATIENCE = 60.0  # seconds for the browser to start, and again for each ten figures


def write_stills(figures: Mapping[Path, Any]) -> list[Path]:
    """Draw plotly figures as files of the kind that their suffix names, SVG or PNG; one browser draws all of them.

    kaleido draws them with plotly's own script in Chrome or Chromium, so that they are the interactive figures to
    the pixel; drawn by matplotlib, each would be written twice and the two would drift apart. Where there is no such
    browser, or it fails, nothing is drawn, and a warning says so, once: the interactive figures are complete anyway.

    Parameters
    ----------
    figures : mapping
        For each file to write, its plotly figure.

    Returns
    -------
    list of Path
        The files that were written.
    """
    if not figures:
        return []
    failures: list[BaseException] = []
    drawing = threading.Thread(target=_draw, args=(figures, failures), daemon=True)
    drawing.start()
    drawing.join(PATIENCE * (1 + len(figures) / 10))
    if drawing.is_alive():
        failures.append(TimeoutError("the browser does not answer"))
    drawn = [path for path in figures if path.exists()]
    if failures:
        logger.warning(
            "%d of %d still pictures were not drawn, which needs Chrome or Chromium (%s). "
            "The interactive figures are complete.",
            len(figures) - len(drawn),
            len(figures),
            textwrap.shorten(f"{type(failures[0]).__name__}: {failures[0]}", 160),
        )
    return drawn


def caption(figure: Any) -> str:
    """The title of a figure, and what stands below it, as sentences."""
    title = figure.layout.title
    parts = (title.text, title.subtitle.text)
    texts = [html.unescape(re.sub("<[^>]*>", " ", part or "")).strip(" .") for part in parts]
    return " ".join(f"{text}." for text in texts if text)


def _draw(figures: Mapping[Path, Any], failures: list[BaseException]) -> None:
    try:
        import kaleido

        pictures = [
            {"fig": figure, "path": path, "opts": {"format": path.suffix[1:], **_size(figure)}}
            for path, figure in figures.items()
        ]
        page = kaleido.PageGenerator(mathjax=False)  # which it would load from the network
        failed = kaleido.write_fig_from_object_sync(pictures, kopts={"page_generator": page})
        failures.extend(failed or ())
    except Exception as error:  # whatever is wrong with a browser, it must not cost the run its numbers
        failures.append(error)


def _size(figure: Any) -> dict[str, int]:
    layout = figure.layout
    meant = layout.meta.get("width") if isinstance(layout.meta, dict) else None
    width = layout.width or meant or WIDTH
    return {"width": width, "height": layout.height or HEIGHT}
