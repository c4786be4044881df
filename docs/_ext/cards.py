"""A page for each explanation method, made from what the registry knows of it, the matrix and a phantom."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

import phantom
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from xaitools.attribution import METHODS, Method
from xaitools.attribution.registry import KINDS
from xaitools.evaluation import Check

CARD = """\
# {title}

*{idea}*

![{alt}]({name}.png)

{caption}

$$
{equation}
$$

{symbols}

**When.** {use}

**Known failures**

{failures}

**Measured**

{evidence}

**Needs** {needs}.{option} **In figures** it is called {label}.

**From** {reference}

**Signature:** {{py:func}}`xaitools.attribution.{name}`.
"""
CAPTION = (
    "A small network tells synthetic slices with contrast agent in the blood, the second and the fourth, from those"
    " without. Red speaks for contrast, blue against; a map without signs goes from dark to bright."
)
ROLLOUT = (
    "A transformer set by hand to attend to bright patches of synthetic slices: the map shows them, bone as well as"
    " blood."
)
WRITTEN = {
    "deep_taylor": "Deep Taylor",
    "grad_cam": "Grad-CAM",
    "grad_cam_plus_plus": "Grad-CAM++",
    "guided_grad_cam": "Guided Grad-CAM",
    "idgi": "IDGI",
    "input_x_gradient": "Input × gradient",
    "layer_cam": "LayerCAM",
    "lrp": "LRP",
}
MATRIX = """\
On how many [kinds of network](../networks.md) it is right, approximate, or says why it cannot be:

| Name | Right | Approximate | Refused |
|---|---|---|---|"""
CHECKED = """\
[On the network of the picture](../check_attribution.md), two slices. Where the gradient does not hold either, this says
more about the little network than about the method.

| Check | Value | Of the gradient | Up to | Verdict |
|---|---|---|---|---|"""
SYMBOLS = {
    "path": "*R* is the map, *x* the image, *f* the output explained, *i* a pixel.",
    "rule": "*R* is what is passed back, at last the map; *a* are activations, *w* weights, *i* a neuron of the layer"
    " below *j*, *l* a layer.",
    "layer": "*R* is the map, *f* the output explained, *A* the layer's activations, *c* a channel, *k* a cell.",
    "perturbation": "*R* is the map, *x* the image, *f* the output explained, *W* a window that covers pixel *i*.",
    "optimisation": "*m* is the mask, 1 where the image stays; the map is 1 - *m*. *x* is the image, x̃ what hides.",
}


class MethodList(SphinxDirective):
    """Links to all cards, kind by kind."""

    def run(self) -> list[nodes.Node]:
        lines = []
        for kind, said in KINDS.items():
            own = [method for method in METHODS.values() if method.kind == kind]
            lines += [f"**{kind.capitalize()}**: {said}.", ""]
            lines += [
                f"- [{title(method)}]({method.name}.md), `{method.name}`: {method.idea}" for method in own
            ]
            lines += [""]
        return self.parse_text_to_nodes("\n".join(lines))


def card(method: Method, evidence: str) -> str:
    """The page of a method."""
    option = method.option
    return CARD.format(
        name=method.name,
        title=title(method),
        alt=f"Four synthetic slices of a chest, and their maps by {method.name}",
        idea=f"{method.idea[:1].upper()}{method.idea[1:]}",
        equation=method.equation,
        caption=ROLLOUT if method.name == "attention_rollout" else CAPTION,
        symbols=SYMBOLS[method.kind],
        use=method.use,
        failures="\n".join(f"- {failure}" for failure in method.failures),
        needs=method.needs,
        option=f" **In brackets** {option.meaning}; `{option.default}` by default." if option else "",
        evidence=evidence,
        label=method.label(option.default if option else ""),
        reference=" ".join(method.reference.split()),
    )


def title(method: Method) -> str:
    """Its name as the field writes it."""
    return WRITTEN.get(method.name) or method.name.replace("_", " ").capitalize()


def matrix(page: str, method: str) -> str:
    """A table of how many kinds of network each column of a method is right on, by the page of the matrix."""
    columns = dict(re.findall(r"^- \*\*(.+?)\*\*: `(.+?)`$", page, re.MULTILINE))
    signs = Counter()
    for head, *rows in (table.splitlines() for table in re.findall(r"(?:^\|.*\n)+", page, re.MULTILINE)):
        for row in rows[1:]:
            signs.update(zip(_cells(head)[1:], _cells(row)[1:], strict=True))
    own = {column: name for column, name in columns.items() if re.split(r"[\[+@]", name)[0] == method}
    counts = [f"| `{own[c]}` | {signs[c, '✓']} | {signs[c, '≈']} | {signs[c, '–']} |" for c in own]
    return "\n".join([MATRIX, *counts])


def _cells(row: str) -> list[str]:
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", row.strip())[1:-1]]


def checked(rows: Iterable[Check], gradient: Mapping[str, float | None]) -> str:
    """A table of the checks on the network of the picture, beside the gradient's values."""
    lines = [
        f"| {row.check} | {_number(row.value)} | {_number(gradient.get(row.check))} | {_number(row.bound)}"
        f" | {row.verdict} |"
        for row in rows
        if row.value is not None
    ]
    return "\n".join([CHECKED, *lines])


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2g}"


def write(app: Sphinx) -> None:
    """Write all cards with their pictures into the sources, where git ignores them.

    Without epochs it is a draft: the network knows nothing, and only the gradient is checked.
    """
    folder = Path(app.srcdir, "methods")
    epochs = app.config.cards_epochs
    network, slices = phantom.chest_network(epochs=epochs), phantom.shown_slices()
    iterations = 10 * epochs or 2
    convolutional = [name for name in METHODS if name != "attention_rollout"] if epochs else ["gradient"]
    checks = phantom.checks(convolutional, network, slices, iterations=iterations).rows
    gradient = {row.check: row.value for row in checks if row.method == "gradient"}
    page = Path(app.srcdir, "networks.md").read_text(encoding="utf-8")
    for name, method in METHODS.items():
        maps = phantom.maps_of(name, network, slices, iterations=iterations)
        phantom.picture(slices.images, maps, folder / f"{name}.png")
        own = [row for row in checks if row.method == name]
        evidence = ([checked(own, gradient)] if own else []) + [matrix(page, name)]
        (folder / f"{name}.md").write_text(card(method, "\n\n".join(evidence)), encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_config_value("cards_epochs", 30, "env", int)
    app.add_directive("method-list", MethodList)
    app.connect("builder-inited", write)
    return {"parallel_read_safe": True}
