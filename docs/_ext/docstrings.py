"""Docstrings are written to be read in Python; here the stars of their shapes, ``(n, *spatial)``, are kept as signs."""

import re

from sphinx.application import Sphinx

LITERAL = re.compile(r"(``.+?``|`.+?`)")
STAR = re.compile(r"(?<![\w*\\])\*(?=\w+[),\]])")


def with_stars(line: str) -> str:
    """The line with each star of a shape escaped, unless it stands in backticks."""
    parts = LITERAL.split(line)
    return "".join(part if k % 2 else STAR.sub(r"\\*", part) for k, part in enumerate(parts))


def process(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    lines[:] = map(with_stars, lines)


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("autodoc-process-docstring", process, priority=400)
    return {"parallel_read_safe": True}
