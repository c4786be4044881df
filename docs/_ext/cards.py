"""A page for each explanation method, made from what the registry knows of it, the matrix and a phantom."""

import re
from collections import Counter
from pathlib import Path

import phantom
from sphinx.application import Sphinx

from xaitools.attribution import METHODS, Method
from xaitools.attribution.registry import KINDS
from xaitools.evaluation.randomization import SAME_RANKS

INDEX = """\
# Methods

A card for each: what it computes, when to use it, and what is known to go wrong. All are called alike,
`attribute(model, images, target, methods=["NAME"])`, or by themselves.

{lists}

## What can be added to a name

| Name | What it does |
|---|---|
| `NAME+smoothgrad` | mean over noisy copies of the image (Smilkov et al. 2017, arXiv:1706.03825): less noise, same sign |
| `NAME+smoothgrad_squared` | mean of the squares (Hooker et al. 2019, arXiv:1806.10758): no sign left |
| `NAME+vargrad` | variance over noisy copies (Adebayo et al. 2018, arXiv:1810.03307): no sign, and unlike the map itself |
| `NAME+absolute` | absolute value: how much, not for or against |
| `NAME@xrai` | segments of the image ranked by the map (Kapishnikov et al. 2019, arXiv:1906.02825): a region of the image, no finer than its edges |
| `captum.Name` | captum's other methods, such as `captum.DeepLift` |

Noise of `noise_level` times the image's range is added, `draws` times. They go together:
`integrated_gradients[black+white]+smoothgrad_squared+absolute@xrai`.

```{{toctree}}
:hidden:

{names}
```
"""

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

**Needs** {needs}.{option}

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
SYMBOLS = {
    "path": "*R* is the map, *x* the image, *f* the output explained, *i* a pixel.",
    "rule": "*R* is what is passed back, at last the map; *a* are activations, *w* weights, *i* a neuron of the layer"
    " below *j*, *l* a layer.",
    "layer": "*R* is the map, *f* the output explained, *A* the layer's activations, *c* a channel, *k* a cell.",
    "perturbation": "*R* is the map, *x* the image, *f* the output explained, *W* a window that covers pixel *i*.",
    "optimisation": "*m* is the mask, 1 where the image stays; the map is 1 - *m*. *x* is the image, x̃ what replaces it.",
}


def index() -> str:
    """The page that lists all cards, kind by kind."""
    lists = []
    for kind, said in KINDS.items():
        own = [method for method in METHODS.values() if method.kind == kind]
        lines = [f"- [{label(method)}]({method.name}.md) `{method.name}`: {method.idea}" for method in own]
        lists.append("\n".join([f"**{kind.capitalize()}**: {said}.\n", *lines]))
    return INDEX.format(lists="\n\n".join(lists), names="\n".join(METHODS))


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
        reference=" ".join(method.reference.split()),
    )


def label(method: Method) -> str:
    """Short label, such as IGB."""
    return method.label(method.option.default if method.option else "")


def title(method: Method) -> str:
    """Its name in words."""
    words = method.name.replace("_", " ").replace(" plus plus", "++")
    for short in ("lrp", "idgi", "cam"):
        words = words.replace(short, short.upper())
    return words[:1].upper() + words[1:]


def right_on(page: str, method: str) -> list[str]:
    """A sentence for each column that the matrix has for a method: on how many networks it is right."""
    columns = dict(re.findall(r"^- \*\*(.+?)\*\*: `(.+?)`$", page, re.MULTILINE))
    signs = Counter()
    for head, *rows in (table.splitlines() for table in re.findall(r"(?:^\|.*\n)+", page, re.MULTILINE)):
        for row in rows[1:]:
            signs.update(zip(_cells(head)[1:], _cells(row)[1:], strict=True))
    return [
        f"`{name}` is right on {signs[column, '✓']} kinds of network, approximate on {signs[column, '≈']},"
        f" and says on {signs[column, '–']} why it cannot be: [](../networks.md)."
        for column, name in columns.items()
        if re.split(r"[\[+@]", name)[0] == method
    ]


def _cells(row: str) -> list[str]:
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", row.strip())[1:-1]]


def sanity(last: float, all_layers: float) -> str:
    """What the network of the picture says about the sanity check."""
    return (
        "With the last layer of the picture's network drawn anew, the map's rank correlation with the first one is"
        f" {last:.2f}, with all layers {all_layers:.2f}; up to {SAME_RANKS:.2f} the map counts as another"
        " ([sanity check](../glossary.md#sanity-check))."
    )


def write(app: Sphinx) -> None:
    """Write all cards with their pictures into the sources, where git ignores them."""
    folder = Path(app.srcdir, "methods")
    folder.mkdir(exist_ok=True)
    epochs = app.config.cards_epochs
    network, slices, iterations = phantom.chest_network(epochs=epochs), phantom.shown_slices(), 10 * epochs
    convolutional = [name for name in METHODS if name != "attention_rollout"]
    changes = phantom.changes(convolutional, network, slices, iterations=iterations)
    page = Path(app.srcdir, "networks.md").read_text(encoding="utf-8")
    (folder / "index.md").write_text(index(), encoding="utf-8")
    for name, method in METHODS.items():
        maps = phantom.maps_of(name, network, slices, iterations=iterations)
        phantom.picture(slices.images, maps, folder / f"{name}.png")
        evidence = ([sanity(*changes[name])] if name in changes else []) + right_on(page, name)
        (folder / f"{name}.md").write_text(card(method, "\n\n".join(evidence)), encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_config_value("cards_epochs", 30, "env", int)
    app.connect("builder-inited", write)
    return {"parallel_read_safe": True}
