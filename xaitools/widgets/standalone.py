"""A viewer as a piece of HTML that needs no kernel, no network and no other file."""

import base64
import json
import uuid
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from xaitools.errors import DataFileError

WITHOUT_SCRIPTS = "The viewer needs scripts: run this notebook, or trust it (command “Trust Notebook”)."


def standalone(state: Mapping[str, Any], *, script: str, style: str, saved: bool = False) -> str:
    """Write the HTML of one viewer; any number of them can stand in one page.

    Parameters
    ----------
    state : mapping
        What the kernel would send: numbers, text, lists, mappings and bytes.
    script : str
        The viewer's ES module, which defines `mountStandalone`.
    style : str
        The viewer's style sheet.
    saved : bool
        Whether it only shows itself where the widget of that `token` does not, as in a notebook that is opened again;
        `script` defines `mountUnlessLive` too.
    """
    name = f"xai-{uuid.uuid4().hex}"
    kind, mount = "", f'mountStandalone("{name}");'
    if saved:
        kind = ' class="xai-saved"'
        mount = f'mountUnlessLive("{name}", "{state["token"]}", () => mountStandalone("{name}"));'
    data = json.dumps(state, default=_as_base64).replace("<", "\\u003c")
    return (
        f'<div id="{name}"{kind}><p>{WITHOUT_SCRIPTS}</p><style>{style}</style>'
        f'<script type="application/json">{data}</script></div>\n'
        f'<script type="module">{script}\n{mount}</script>'
    )


def note_to_save(text: str, token: str, *, script: str) -> str:
    """What stands in a saved notebook, in words, where the widget of that `token` is not live."""
    name = f"xai-{uuid.uuid4().hex}"
    show = 'el.querySelector("p").hidden = false'
    return (
        f'<div id="{name}" class="xai-saved"><p>{text}</p></div>\n'
        f'<script type="module">{script}\nmountUnlessLive("{name}", "{token}", (el) => {{ {show}; }});</script>'
    )


def write_page(part: str, path: Path, title: str) -> str:
    """Write a page with `part` as its body, and return it."""
    page = (
        f'<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8"><title>{escape(title)}</title></head>\n'
        f"<body>\n{part}\n</body>\n</html>\n"
    )
    if not path.parent.is_dir():
        raise DataFileError(f"{path}: there is no such folder to write the page into; make it first.")
    path.write_text(page, encoding="utf-8")
    return page


def _as_base64(value: bytes) -> dict[str, str]:
    return {"base64": base64.b64encode(value).decode()}
