"""The box in front of a report: its answer, and what was run, on what, when and for how long."""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell

NOTEBOOK_ONLY = "notebook-only"
"""Tag of cells that speak to who runs the notebook, and are left out of its report."""
ANSWER = "**In short.**"
"""How the cell begins whose text is the answer."""

_HEADING = re.compile(r"^# .+$", re.MULTILINE)


def leave_out(node: NotebookNode) -> None:
    """Drop the cells that are for the notebook only, in place."""
    node.cells = [cell for cell in node.cells if NOTEBOOK_ONLY not in cell.metadata.get("tags", [])]


def make_room_in_front(node: NotebookNode) -> None:
    """Mark the cell after which the box stands, in place: the title, which gets a cell of its own, or none."""
    for index, cell in enumerate(node.cells):
        if cell.cell_type == "markdown" and (heading := _HEADING.search(cell.source)):
            before, rest = cell.source[: heading.end()], cell.source[heading.end() :].strip()
            node.cells[index : index + 1] = [
                new_markdown_cell(before, metadata={"front": True}),
                *([new_markdown_cell(rest, metadata=cell.metadata)] if rest else []),
            ]
            return
    node.cells.insert(0, new_markdown_cell("", metadata={"front": True}))


def take_answer(node: NotebookNode) -> str:
    """The text, in Markdown, of the last output that begins with ``In short.``; empty if there is none.

    The output is taken out, in place: the box in front says it.
    """
    for cell in reversed(node.cells):
        for output in reversed(cell.get("outputs", [])):
            text = output.get("data", {}).get("text/markdown", "")
            if text.startswith(ANSWER):
                cell.outputs.remove(output)
                return str(text).removeprefix(ANSWER).strip()
    return ""


def facts(manifest: Mapping[str, Any], node: NotebookNode) -> list[tuple[str, str]]:
    """Name and value of what a reader asks first about a run, as far as its manifest tells."""
    if not manifest:
        return []
    version = manifest.get("versions", {}).get("xaitools", "")
    warnings = warnings_of(node)
    found = {
        "Date": str(manifest.get("started", ""))[:16].replace("T", " ") + " UTC"
        if "started" in manifest
        else "",
        "Version": f"xaitools {version}" if version else "",
        "Preset": manifest.get("parameters", {}).get("preset", ""),
        "Data": _data(manifest),
        "Network": manifest.get("network", ""),
        "Device": manifest.get("device", ""),
        "Duration": _duration(manifest),
        "Warnings": f"{len(warnings)}: {'; '.join(warnings)}" if warnings else "none",
    }
    return [(name, str(value)) for name, value in found.items() if value]


def warnings_of(node: NotebookNode) -> list[str]:
    """What the cells of a notebook warned of, each once."""
    lines = [
        line
        for output in _outputs(node)
        if output.output_type == "stream" and output.name == "stderr"
        for line in output.text.splitlines()
    ]
    found = [match.group(1).strip() for line in lines if (match := re.search(r"\b\w*Warning: (.+)", line))]
    return list(dict.fromkeys(found))


def _outputs(node: NotebookNode) -> list[NotebookNode]:
    return [output for cell in node.cells if cell.cell_type == "code" for output in cell.outputs]


def _data(manifest: Mapping[str, Any]) -> str:
    source = manifest.get("data_info", {}).get("source", "")
    fingerprint = manifest.get("data", "")
    if isinstance(fingerprint, str) and fingerprint:
        return f"{source} (fingerprint {fingerprint[:8]})".strip()
    return str(source)


def _duration(manifest: Mapping[str, Any]) -> str:
    try:
        start, end = (datetime.fromisoformat(manifest[name]) for name in ("started", "updated"))
    except (KeyError, ValueError):
        return ""
    minutes, seconds = divmod(round((end - start).total_seconds()), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
