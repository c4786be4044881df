"""Docstrings are written to be read in Python; here their stars, ``(n, *spatial)``, and bars, ``|x|``, stay signs."""

import re

from sphinx.application import Sphinx

LITERAL = re.compile(r"(``.+?``|`.+?`)")
STAR_OR_BAR = re.compile(r"(?<![\w*\\])\*(?=\w+[),\]])|\|(?=\w+\|)")


def with_signs(line: str) -> str:
    """The line with each star of a shape and bar of an absolute value escaped, unless it stands in backticks."""
    parts = LITERAL.split(line)
    return "".join(part if k % 2 else STAR_OR_BAR.sub(r"\\\g<0>", part) for k, part in enumerate(parts))


def process(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    lines[:] = map(with_signs, lines)


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("autodoc-process-docstring", process, priority=400)
    return {"parallel_read_safe": True}
