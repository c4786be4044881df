"""Method names: one grammar, one parser, one printer.

    base[option]+modifier+modifier@regions

for example ``integrated_gradients[black+white]+smoothgrad_squared+absolute@xrai``.
"""

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass

from xaitools.errors import MethodError

BASES = (
    "gradient",
    "integrated_gradients",
    "expected_gradients",
    "input_x_gradient",
    "deconvolution",
    "guided_backprop",
    "lrp",
    "deep_taylor",
    "occlusion",
)
DEFAULT_OPTIONS = {"integrated_gradients": "black", "lrp": "epsilon", "occlusion": "5"}
"""The bases that take an option in brackets, and what stands there if none is given."""

SMOOTHINGS = ("smoothgrad", "smoothgrad_squared", "vargrad")
REGIONS = ("xrai",)
CAPTUM = "captum."

CT_BASES = (
    "gradient",
    "integrated_gradients[black]",
    "integrated_gradients[black+white]",
    "expected_gradients",
    "deconvolution",
)
"""The five methods of Marchadour et al.'s CT study, before smoothing and regions."""

FETAL_METHODS = {
    "gradient": "G",
    "gradient+smoothgrad": "SG",
    "deconvolution": "DCN",
    "deep_taylor": "DT",
    "guided_backprop": "GB",
    "input_x_gradient": "I*G",
    "integrated_gradients[black]": "IG",
    "lrp[epsilon]": "LRP",
}
"""The eight methods of Zhang et al. 2020 in the order of their table 1, with their labels there."""

AD_METHODS = {
    "input_x_gradient": "Gradient * input",
    "guided_backprop": "Guided backpropagation",
    "lrp[alpha1_beta0]": "LRP",
    "occlusion[5]": "Occlusion",
}
"""The four methods of Eitel and Ritter 2019 in the order of their table 1, with their names there.

They do not name the rule of LRP. It is not epsilon, which on their network equals gradient * input; the group's study
of LRP (Böhle et al. 2019, Frontiers in Aging Neuroscience 11:194) uses the beta rule, of which this is beta = 0.
"""

_GRAMMAR = re.compile(
    r"(?P<base>[\w.]+)(\[(?P<option>[^\[\]]*)\])?(?P<modifiers>(\+\w+)*)(@(?P<regions>\w+))?"
)
_LRP_SIGNS = {"epsilon": "ε", "gamma": "γ", "alpha1": "α1", "alpha2": "α2", "beta0": "β0", "beta1": "β1"}
_SHORT = {
    "gradient": "BP",
    "expected_gradients": "EG",
    "input_x_gradient": "I*G",
    "deconvolution": "D",
    "guided_backprop": "GB",
    "deep_taylor": "DT",
    "occlusion": "OCC",
    "smoothgrad": "SG",
    "smoothgrad_squared": "SG²",
    "vargrad": "VG",
}


@dataclass(frozen=True)
class MethodName:
    """A parsed method name; ``str()`` prints it so that it parses back to the same.

    Attributes
    ----------
    base
        Key of the method, such as "gradient" or "captum.InputXGradient".
    option
        Text between the brackets: the baselines of integrated gradients, joined by "+", the rule of LRP, or the
        patch of occlusion and its stride, "8" or "8:4".
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
    def base_label(self) -> str:
        """The base, for those of the CT paper as it writes them, such as "IGBW"; of LRP, "LRP-" and its rule."""
        if self.base == "integrated_gradients":
            return "IG" + "".join(part[0].upper() for part in self.option.split("+") if part)
        if self.base == "lrp":
            return (
                "LRP-" + "".join(_LRP_SIGNS.get(part, f" {part} ") for part in self.option.split("_")).strip()
            )
        return _SHORT.get(self.base, self.base)

    @property
    def smoothing_label(self) -> str:
        """The smoothing as the CT paper writes it, such as "SG²"; "plain" for none."""
        return _SHORT.get(self.smoothing, "plain")

    @property
    def unit_label(self) -> str:
        """ "region" or "pixel"."""
        return "region" if self.regions else "pixel"

    @property
    def label(self) -> str:
        """Short label, such as "IGBW SG² region"; the absolute value is not shown."""
        smoothing = f" {self.smoothing_label}" if self.smoothing else ""
        return self.base_label + smoothing + (" region" if self.regions else "")


def parse(name: str) -> MethodName:
    """Parse a method name.

    Raises
    ------
    MethodError
        If the name does not follow the grammar or a part of it is unknown; the message lists what is known.
    """
    match = _GRAMMAR.fullmatch(name)
    if match is None:
        raise MethodError(
            f"Method name {name!r} cannot be read; expected base[option]+modifier@regions, for example "
            "'integrated_gradients[black+white]+smoothgrad_squared+absolute@xrai'."
        )
    base, option, regions = match["base"], match["option"] or "", match["regions"] or ""
    if not base.startswith(CAPTUM):
        _known("method", base, BASES, name, hint=f"; captum's classes are reachable as '{CAPTUM}ClassName'")
    if option and base not in DEFAULT_OPTIONS:
        raise MethodError(
            f"{base} takes no option, but {name!r} gives [{option}]; these do: {', '.join(DEFAULT_OPTIONS)}."
        )
    option = option or DEFAULT_OPTIONS.get(base, "")
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


def _known(kind: str, value: str, known: Iterable[str], name: str, hint: str = "") -> None:
    known = list(known)
    if value not in known:
        close = difflib.get_close_matches(value, known, n=1)
        suggestion = f" Did you mean {close[0]!r}?" if close else ""
        raise MethodError(
            f"Unknown {kind} {value!r} in {name!r}; known: {', '.join(known)}{hint}.{suggestion}"
        )
