"""What may be given as `methods`, in words."""

from textwrap import fill

from xaitools.attribution import METHODS, Method
from xaitools.attribution._smoothing import SMOOTHINGS
from xaitools.attribution.names import REGIONS
from xaitools.attribution.registry import KINDS

SPELLED = """\
A name is spelled base[option]+modifier@regions, for example
    integrated_gradients[black+white]+smoothgrad_squared+absolute@xrai
Modifiers: one of {smoothings} (moments over noisy copies of the image), then absolute.
Regions: {regions} (a map of segments of the image). Further bases: captum.ClassName, such as captum.DeepLift.
"""
WIDTH = 100


def method_list() -> str:
    """How names of methods are spelled; and for each its label, idea, needs, option and reference, kind by kind."""
    parts = [SPELLED.format(smoothings=", ".join(SMOOTHINGS), regions=", ".join(REGIONS))]
    for kind, said in KINDS.items():
        own = [method for method in METHODS.values() if method.kind == kind]
        if own:
            parts += [f"{kind}: {said}\n", *map(_described, own)]
    return "\n".join(parts)


def _described(method: Method) -> str:
    option, spelled = method.option, method.name
    label = method.label(option.default if option else "")
    lines = {"idea": method.idea, "needs": method.needs}
    if option:
        spelled += f"[{option.default or '...'}]"
        lines["option"] = option.meaning
    lines["from"] = " ".join(method.reference.split())
    shown = [f"  {spelled}  ({label})"]
    for name, text in lines.items():
        shown.append(fill(text, WIDTH, initial_indent=f"      {name + ':':8}", subsequent_indent=" " * 14))
    return "\n".join(shown) + "\n"
