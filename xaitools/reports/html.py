"""Turn an executed notebook into one HTML file that needs nothing else."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from tokenize import TokenError
from typing import Any

import nbformat
from nbconvert.preprocessors import CoalesceStreamsPreprocessor
from nbformat import NotebookNode
from pygments.formatters import HtmlFormatter

from xaitools.files import write_text
from xaitools.reports.formulas import FormulaExporter
from xaitools.reports.front import facts, leave_out, make_room_in_front, take_answer
from xaitools.reports.hiding import hide, parameters_as_run
from xaitools.study.manifest import without_paths
from xaitools.study.notebooks import parse_parameters
from xaitools.study.privacy import Private

_PLOTLY = "application/vnd.plotly.v1+json"
_WIDGET = "application/vnd.jupyter.widget-view+json"


def to_html(notebook: str | Path, path: str | Path, *, manifest: Mapping[str, Any] | None = None) -> Path:
    """Write an executed notebook as a report: self-contained, code folded away, plots alive.

    The page makes no request, and forbids the browser to: scripts are inlined, plotly's only once and only if
    there is a plot. A widget shows as the HTML that stands beside it in the same output, and is left out if
    there is none. Cells tagged ``notebook-only`` are left out. No path that the notebook's parameters name is shown:
    see :mod:`xaitools.study.privacy`.

    Parameters
    ----------
    notebook : str or Path
        The executed notebook.
    path : str or Path
        The HTML file to write.
    manifest : mapping, optional
        What ``manifest.json`` tells of the run, for the box in front: date, version, data, device, duration.

    Returns
    -------
    Path
        `path`.
    """
    raw = nbformat.read(notebook, as_version=4)
    node = nbformat.from_dict(hide(raw, Private(parameters_as_run(raw))))
    parameters = parameters_table(node)
    leave_out(node)
    make_room_in_front(node)
    has_plots = prepare_outputs(node)
    exporter = FormulaExporter(
        template_name="report",
        extra_template_basedirs=[str(Path(__file__).parent / "template")],
        anchor_link_text=" ",
    )
    exporter.register_preprocessor(CoalesceStreamsPreprocessor, enabled=True)
    page, _ = exporter.from_notebook_node(
        node,
        resources={
            "report": {
                "title": title(node) or Path(path).stem,
                "contents": contents(node),
                "parameters": parameters,
                "answer": take_answer(node),
                "facts": facts(manifest or {}, node),
                "plotly_js": plotly_js() if has_plots else "",
                "highlight_css": HtmlFormatter().get_style_defs(".highlight"),
            }
        },
    )
    return write_text(path, page)


def title(node: NotebookNode) -> str:
    """The text of the notebook's first heading."""
    return next((text for level, text in _headings(node)), "")


def contents(node: NotebookNode) -> list[tuple[str, str]]:
    """Anchor and text of each second-level heading."""
    return [(text.replace(" ", "-"), text) for level, text in _headings(node) if level == 2]


def _headings(node: NotebookNode) -> list[tuple[int, str]]:
    source = "\n".join(cell.source for cell in node.cells if cell.cell_type == "markdown")
    source = re.sub(r"^```.*?^```", "", source, flags=re.MULTILINE | re.DOTALL)
    found = re.findall(r"^(#+) +(.+?) *$", source, flags=re.MULTILINE)
    return [(len(marks), re.sub(r"[*`_]{1,2}(\S.*?)[*`_]{1,2}", r"\1", text)) for marks, text in found]


def parameters_table(node: NotebookNode) -> list[dict[str, str]]:
    """Name, value and meaning of every parameter, as the notebook was run; none if its cell computes one of them."""
    cells = {tag: cell.source for cell in node.cells for tag in cell.metadata.get("tags", [])}
    try:
        declared = parse_parameters(cells.get("parameters", ""))
    except (ValueError, SyntaxError, TokenError):
        return []
    given = parse_parameters(cells.get("injected-parameters", ""))
    return [
        {"name": name, "value": _shown(given.get(name, parameter).default), "help": parameter.help}
        for name, parameter in declared.items()
    ]


def _shown(value: Any) -> str:
    value = without_paths(value)
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def prepare_outputs(node: NotebookNode) -> bool:
    """Make plotly's and widgets' outputs plain HTML, in place; tell whether there is a plot."""
    has_plots = False
    for cell in node.cells:
        if cell.cell_type != "code":
            continue
        for output in cell.outputs:
            data = output.get("data", {})
            if _PLOTLY in data:
                output["data"] = {"text/html": plot_html(data[_PLOTLY])}
                has_plots = True
            elif _WIDGET in data:
                output["data"] = {kind: data[kind] for kind in ("text/html",) if kind in data}
        cell.outputs = [output for output in cell.outputs if output.get("data") != {}]
    return has_plots


def plot_html(figure: Mapping[str, Any]) -> str:
    """Where ``figures.js`` draws a plotly figure, given as JSON: as wide as there is room."""
    text = json.dumps({key: figure.get(key, default) for key, default in (("data", []), ("layout", {}))})
    return f'<div class="plot"><script type="application/json">{_inside_script(text)}</script></div>'


def _inside_script(text: str) -> str:
    return text.replace("<", "\\u003c")


def plotly_js() -> str:
    """Plotly's script, to be inlined once."""
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs())
