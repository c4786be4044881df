"""The names of `xaitools` itself, with the first sentence of each."""

import inspect

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

import xaitools


class TopNames(SphinxDirective):
    """A table of them."""

    def run(self) -> list[nodes.Node]:
        return self.parse_text_to_nodes("\n".join(["| Name | |", "|---|---|", *map(_row, xaitools.__all__)]))


def _row(name: str) -> str:
    found = getattr(xaitools, name)
    home = found.__module__
    package = next(p for p in (home.rsplit(".", n)[0] for n in range(home.count("."))) if _has(p, name))
    sentence = " ".join((inspect.getdoc(found) or "").split("\n\n")[0].split()).replace("|", "\\|")
    return f"| {{py:obj}}`{name} <{package}.{name}>` | {sentence} |"


def _has(module: str, name: str) -> bool:
    return name in getattr(inspect.importlib.import_module(module), "__all__", [])


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("top-names", TopNames)
    return {"parallel_read_safe": True}
