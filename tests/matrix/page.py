"""The matrix as a page of the documentation."""

import re
from collections.abc import Mapping

from tests.matrix.cells import APPROXIMATE, REFUSED, RIGHT, TOLERANCE, Cell, columns
from tests.matrix.zoo import ZOO
from xaitools.attribution import METHODS

SIGNS = {RIGHT: "✓", APPROXIMATE: "≈", REFUSED: "–"}
Rows = Mapping[str, Mapping[str, Cell]]


def heading(method: str) -> str:
    """Short label of a column."""
    if method.startswith("captum."):
        return method.removeprefix("captum.")
    base, _, rest = method.partition("[")
    name = re.split(r"[+@]", base)[0]
    option = METHODS[name].option
    label = METHODS[name].label(rest.rstrip("]") or (option.default if option else ""))
    return label + {"smoothgrad": " SG", "xrai": " XRAI"}.get(re.split(r"[+@]", method)[-1], "")


def render(rows: Rows) -> str:
    """The page."""
    counts = {
        sign: sum(cell.status == status for cells in rows.values() for cell in cells.values())
        for status, sign in SIGNS.items()
    }
    names = columns()
    parts = [
        INTRODUCTION.format(
            networks=len(rows),
            methods=len(names),
            right=counts["✓"],
            approximate=counts["≈"],
            refused=counts["–"],
            tolerance=TOLERANCE,
        ),
        "\n".join(f"- **{heading(name)}**: `{name}`" for name in names),
    ]
    for family in dict.fromkeys(ZOO[name].family for name in rows):
        own = {name: cells for name, cells in rows.items() if ZOO[name].family == family}
        parts.append(f"## {family[0].upper()}{family[1:]}")
        parts.append(_table(own))
        parts.append(_reasons(own))
    return "\n\n".join(part for part in parts if part) + "\n"


def _table(rows: Rows) -> str:
    names = columns()
    head = ["| Network | " + " | ".join(map(heading, names)) + " |", "|---|" + ":-:|" * len(names)]
    return "\n".join([*head, *(_line(name, cells) for name, cells in rows.items())])


def _line(name: str, cells: Mapping[str, Cell]) -> str:
    signs = (SIGNS.get(cells[method].status, "✗") for method in columns())
    return f"| {_plain(name)} | " + " | ".join(signs) + " |"


def _reasons(rows: Rows) -> str:
    """Bounds of what is approximate, and the words of what is refused."""
    lines = []
    for name, cells in rows.items():
        if any(cell.status == APPROXIMATE for cell in cells.values()):
            why = ZOO[name].note or f"within {ZOO[name].bound:g} of a map's norm"
            lines.append(f"- **{_plain(name)}**, ≈: {why}")
        reasons: dict[str, list[str]] = {}
        for method, cell in cells.items():
            if cell.status == REFUSED:
                reasons.setdefault(_sentence(cell.words, method), []).append(heading(method))
        for words, methods in reasons.items():
            which = "all methods" if len(methods) == len(cells) else ", ".join(methods)
            lines.append(f"- **{_plain(name)}**, {which}: {_plain(words)}")
    return "" if not lines else "\n".join(["What the signs stand for:", "", *lines])


def _sentence(words: str, method: str) -> str:
    """The first sentence, without the method's name."""
    words = re.sub(r"^[a-z_.A-Z]+(\[\w+\])?: ", "", words)
    return re.split(r"(?<=[.;]) (?=[A-Zu])", words)[0].rstrip(";")


def _plain(text: str) -> str:
    return text.replace("|", "\\|").replace("*", "\\*").replace("<", "&lt;").replace("_", "\\_")


def statuses(page: str) -> list[str]:
    """The lines of a page that a test holds it to: those of its tables."""
    return [line for line in page.splitlines() if line.startswith("|")]


INTRODUCTION = """\
# Which method is right on which network

{networks} kinds of network, each with {methods} methods, on two images with targets of their own. Written by
`make matrix` from what the tests found; a test fails where this page and the results differ.

- ✓ right ({right} cells): the map equals an independent reference within {tolerance:g} of its largest value
  (falls of an occlusion also within the rounding of the outputs).
- ≈ approximate ({approximate} cells): the map is within the bound that stands below the table, as the network's own
  numbers are coarse; or true of what stands there.
- – refused ({refused} cells): an error says why, with the words below the table.

The references run the user's own network in float64: gradients by autograd, which central differences along random
directions confirm; paths and smoothing by sums of such gradients; occlusion one window after the other; deconvolution
and guided backprop by another way back through every ReLU that PyTorch is asked for; LRP and Deep Taylor by a second
implementation, itself held to zennit; DeepLift by its rules at every activation that PyTorch is asked for, held to
captum on modules, where its map sums to the change of the output; attention rollout by the matrices of all layers;
Grad-CAM and its relatives by their equations at the layer that ours takes for the last. XRAI is held to its own regions
with the reference's gradient.

The columns:"""
