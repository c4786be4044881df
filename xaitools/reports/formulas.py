"""Formulas of a page that no script typesets: MathML, which browsers draw themselves."""

import html
from typing import Any
from xml.etree.ElementTree import tostring

from jinja2 import pass_context
from latex2mathml.converter import convert_to_element
from nbconvert.exporters import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

# fmt: off
_ATTRIBUTES = {
    "xmlns", "display", "displaystyle", "scriptlevel", "mathvariant", "mathcolor", "mathbackground", "mathsize",
    "stretchy", "fence", "form", "separator", "largeop", "movablelimits", "symmetric", "accent", "accentunder",
    "minsize", "maxsize", "width", "height", "depth", "lspace", "rspace", "voffset", "linethickness", "notation",
    "columnalign", "rowalign", "columnlines", "rowlines", "columnspacing", "rowspacing", "frame",
}
# fmt: on


class FormulaExporter(HTMLExporter):
    """nbconvert's exporter, whose markdown has its formulas as MathML and not as TeX for MathJax."""

    @pass_context
    def markdown2html(self, context: Any, source: str) -> str:
        """Markdown to HTML, in the place of nbconvert's filter of this name."""
        renderer = _Formulas(
            escape=False,
            attachments=context.get("cell", {}).get("attachments", {}),
            anchor_link_text=self.anchor_link_text,
        )
        return str(MarkdownWithMath(renderer=renderer).render(source))


class _Formulas(IPythonRenderer):
    def block_math(self, body: str) -> str:
        return _mathml(body, "block") or super().block_math(body)

    def inline_math(self, body: str) -> str:
        return _mathml(body, "inline") or super().inline_math(body)


def _mathml(tex: str, display: str) -> str:
    """Nothing for what is no TeX: prices, say, which stand as they were written."""
    try:
        formula = convert_to_element(tex, display=display)
    except Exception:  # whatever its parser trips over
        return ""
    for element in formula.iter():
        element.text = html.unescape(element.text or "")  # it writes = as &#x0003D;
        for name in element.attrib.keys() - _ATTRIBUTES:  # a link, which may run a script
            del element.attrib[name]
    return tostring(formula, encoding="unicode")
