"""Method names: one grammar, one parser, one printer.

    base[option]+modifier+modifier@regions

for example ``integrated_gradients[black+white]+smoothgrad_squared+absolute@xrai``. Labels, such as "IGBW SG² region",
are read too where only one method has them.
"""

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass

from xaitools.attribution._lrp_rules import RULES
from xaitools.attribution._smoothing import SMOOTHING_IDEAS, SMOOTHING_LABELS, SMOOTHINGS
from xaitools.attribution.registry import FAMILIES, METHODS, Method, find
from xaitools.errors import MethodError

REGIONS = ("xrai",)
REGION_IDEA = "Ranked by regions of the image (XRAI)."

_BASELINES = ("black", "white", "black+white")

_GRAMMAR = re.compile(
    r"(?P<base>[\w.]+)(\[(?P<option>[^\[\]]*)\])?(?P<modifiers>(\+\w+)*)(@(?P<regions>\w+))?"
)


@dataclass(frozen=True)
class MethodName:
    """A parsed method name; ``str()`` prints it so that it parses back to the same.

    Attributes
    ----------
    base
        Key of the method, such as "gradient" or "captum.InputXGradient".
    option
        Text between the brackets, such as the baselines of integrated gradients or the patch of occlusion.
    smoothing
        "", "smoothgrad", "smoothgrad_squared" or "vargrad".
    absolute
        Whether the absolute value of the (smoothed) map is taken.
    regions
        "" for a map of pixels, "xrai" for one of regions.
    """

    base: str
    option: str = ""
    smoothing: str = ""
    absolute: bool = False
    regions: str = ""

    def __str__(self) -> str:
        option = f"[{self.option}]" if self.option else ""
        smoothing = f"+{self.smoothing}" if self.smoothing else ""
        absolute = "+absolute" if self.absolute else ""
        regions = f"@{self.regions}" if self.regions else ""
        return f"{self.base}{option}{smoothing}{absolute}{regions}"

    @property
    def source(self) -> str:
        """The base with its option: what has to be computed before smoothing."""
        return str(MethodName(self.base, self.option))

    @property
    def method(self) -> Method:
        """What the registry knows of the base."""
        return find(self.base)

    @property
    def base_label(self) -> str:
        """The base, for those of the CT paper as it writes them, such as "IGBW"; of LRP, "LRP-" and its rule."""
        return self.method.label(self.option)

    @property
    def smoothing_label(self) -> str:
        """The smoothing as the CT paper writes it, such as "SG²"; "plain" for none."""
        return SMOOTHING_LABELS[self.smoothing]

    @property
    def unit_label(self) -> str:
        """ "region" or "pixel"."""
        return "region" if self.regions else "pixel"

    @property
    def label(self) -> str:
        """Short label, such as "IGBW SG² region"; the absolute value is not shown."""
        smoothing = f" {self.smoothing_label}" if self.smoothing else ""
        return self.base_label + smoothing + (" region" if self.regions else "")

    @property
    def about(self) -> str:
        """The full name and what the map tells, in a line or two, for those who see the label only."""
        idea = self.method.idea
        told = [
            idea[:1].upper() + idea[1:],
            SMOOTHING_IDEAS[self.smoothing],
            REGION_IDEA if self.regions else "",
        ]
        return f"{self}: {' '.join(part for part in told if part)}"


def parse(name: str) -> MethodName:
    """Parse a method name, or a label: "IGBW SG² region", also written with SG2; "abs" stands before the smoothing.

    Raises
    ------
    MethodError
        If the name does not follow the grammar or a part of it is unknown; the message lists what is known. If several
        methods have the label.
    """
    match = _GRAMMAR.fullmatch(name)
    if match is None or not (match["base"] in METHODS or match["base"].startswith(tuple(FAMILIES))):
        labelled = _labelled(name)
        if labelled is not None:
            return labelled
    if match is None:
        raise MethodError(
            f"Method name {name!r} cannot be read; expected base[option]+modifier@regions, for example "
            "'integrated_gradients[black+white]+smoothgrad_squared+absolute@xrai'."
        )
    base, option, regions = match["base"], match["option"] or "", match["regions"] or ""
    if not base.startswith(tuple(FAMILIES)):
        _known("method", base, METHODS, name, hint="; captum's classes are reachable as 'captum.ClassName'")
    takes = find(base).option
    if option and takes is None:
        taking = ", ".join(key for key, method in METHODS.items() if method.option)
        raise MethodError(f"{base} takes no option, but {name!r} gives [{option}]; these do: {taking}.")
    option = option or (takes.default if takes else "")
    if regions:
        _known("region method", regions, REGIONS, name)
    modifiers = [part for part in match["modifiers"].split("+") if part]
    for modifier in modifiers:
        _known("modifier", modifier, (*SMOOTHINGS, "absolute"), name)
    smoothings = [modifier for modifier in modifiers if modifier in SMOOTHINGS]
    if len(smoothings) > 1 or modifiers not in (smoothings, [*smoothings, "absolute"]):
        raise MethodError(
            f"Modifiers of {name!r} do not fit together; expected at most one of {', '.join(SMOOTHINGS)}, "
            "then at most one 'absolute'."
        )
    return MethodName(base, option, "".join(smoothings), "absolute" in modifiers, regions)


def parse_all(methods: str | Iterable[str]) -> dict[str, MethodName]:
    """The parsed names of one method or of several, by what they were given as.

    Raises
    ------
    MethodError
        If there is none, or one cannot be parsed.
    """
    texts = [methods] if isinstance(methods, str) else list(methods)
    if not texts:
        raise MethodError("methods is empty; expected one name or more: for example methods=['gradient'].")
    return {text: parse(text) for text in texts}


def combine(
    bases: Iterable[str],
    smoothings: Iterable[str] = ("",),
    regions: Iterable[str] = ("",),
    absolute: bool = True,
) -> list[str]:
    """All combinations of bases, smoothings and region methods, as names.

    Examples
    --------
    >>> combine(["gradient"], ["", "smoothgrad"], ["", "xrai"])  # doctest: +NORMALIZE_WHITESPACE
    ['gradient+absolute', 'gradient+smoothgrad+absolute',
     'gradient+absolute@xrai', 'gradient+smoothgrad+absolute@xrai']
    """
    return [
        str(MethodName(parsed.base, parsed.option, smoothing, absolute, region))
        for region in regions
        for smoothing in smoothings
        for parsed in map(parse, bases)
    ]


def _labelled(text: str) -> MethodName | None:
    """The one method of that label, or None."""
    words = text.replace("SG2", "SG²").split()
    smoothings = {label: smoothing for smoothing, label in SMOOTHING_LABELS.items() if smoothing}
    regions = REGIONS[0] if words[-1:] == ["region"] and words.pop() else ""
    smoothing = smoothings[words.pop()] if words and words[-1] in smoothings else ""
    absolute = bool(words[-1:] == ["abs"] and words.pop())
    found = [
        MethodName(name, option, smoothing, absolute, regions)
        for name, method in METHODS.items()
        for option in _labelled_options(method)
        if method.label(option).split() == words
    ]
    if len(found) > 1:
        raise MethodError(
            f"The label {text!r} is that of {', '.join(map(str, found))}; give one of these names."
        )
    return found[0] if found else None


def _labelled_options(method: Method) -> Iterable[str]:
    """The options that every network has; layers and baselines of the user's own have no label that is known here."""
    if method.option is None:
        return ("",)
    if method.name == "lrp":
        return RULES
    return _BASELINES if method.option.default in _BASELINES else (method.option.default,)


def _known(kind: str, value: str, known: Iterable[str], name: str, hint: str = "") -> None:
    known = list(known)
    if value not in known:
        close = difflib.get_close_matches(value, known, n=1)
        suggestion = f" Did you mean {close[0]!r}?" if close else ""
        raise MethodError(
            f"Unknown {kind} {value!r} in {name!r}; known: {', '.join(known)}{hint}.{suggestion}"
        )
