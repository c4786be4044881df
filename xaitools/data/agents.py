"""What the text of ContrastBolusAgent says: agent in the blood, none, or nothing that is known for sure."""

import re


def _set_of(words: str) -> frozenset[str]:
    return frozenset(words.split())


# Every word of a text must stand in one of these sets, or the text says nothing that a label may rest on.
_NEGATIONS = _set_of(
    "no non not none nil never n false without wo noncontrast nocontrast unenhanced nonenhanced plain native nativ "
    "ohne kein keine nein sans sin senza"
)
# Iodinated agents for the vessels, generic and trade names: WHO ATC V08A; ACR Manual on Contrast Media, appendix A.
_IODINATED = _set_of(
    "iohexol johexol iopamidol jopamidol iodixanol jodixanol iopromide iopromid jopromid ioversol "
    "joversol iomeprol jomeprol iobitridol ioxilan ioxaglate ioxaglic iothalamate iotalamic iopentol iotrolan "
    "ioxitalamate ioxitalamic diatrizoate diatrizoic amidotrizoate amidotrizoic omnipaque omni accupaque isovue "
    "iopamiro iopamiron niopam solutrast scanlux visipaque visi ultravist clarograf optiray optiject iomeron imeron "
    "xenetix "
    "oxilan hexabrix conray imagopaque iopaque unipaque omnitrast iversol telebrix renografin urografin hypaque"
)
# Drinks as well: they count only with a word for the vein.
_DRUNK_TOO = _set_of("telebrix diatrizoate diatrizoic amidotrizoate amidotrizoic hypaque urografin")
_VEIN = _set_of("iv intravenous intravenously intravenoes endovenous vein venous")
_GIVEN = _set_of(
    "yes y true contrast enhanced with applied given administered injected ce km kontrast kontrastmittel contraste mdc "
    "iodine iodinated jod iode"
)
_ORAL = _set_of(
    "oral orally rectal rectally enteral enteric po pr os gastric gastrografin gastroview gastrolux gastromiro gastro "
    "barium readicat ezcat volumen breeza micropaque mannitol water wasser milk"
)
_FILLERS = _set_of(
    "agent agents medium media material bolus injection inj used enhancement mit and und plus of at the x in per route "
    "ionic lowosmolar low osmolar high ml cc mg mgi mgml g gi kg i l s sec secs second seconds min usp"
)
_SPELLINGS = (
    (r"\bw/o\b", "without"),
    (r"\bw/", "with "),
    (r"\bi\.?\s?v\b", "iv"),
    (r"\bp\.?\s?o\b", "po"),
    (r"\bnon[\s-]*ionic\b", "ionic"),
    (r"\be-?z[\s-]*cat\b", "ezcat"),
    (r"\breadi[\s-]*cat\b", "readicat"),
)


def agent_kind(agent: str | None, route: str = "", volume: float = 0.0) -> str:
    """What a DICOM header says of contrast agent.

    Parameters
    ----------
    agent : str, optional
        ``ContrastBolusAgent``, None where the header has none. It may be empty where nobody filled it in (type 2).
    route : str
        ``ContrastBolusRoute``, empty where the header has none.
    volume : float
        ``ContrastBolusVolume`` in ml, 0 where the header has none.

    Returns
    -------
    str
        ``"vessels"``; ``"oral"``, for stomach or bowel alone, which the heart does not show; ``"none"``, said in words;
        ``"absent"`` or ``"empty"``, with nothing else that speaks of an agent; or ``"unknown"``, where a word is
        unknown or they contradict each other.
    """
    if agent is None or not agent.strip():
        return "unknown" if route.strip() or volume > 0 else "absent" if agent is None else "empty"
    words, routed = _words(agent), _words(route)
    if not routed <= _VEIN | _ORAL | _FILLERS:
        return "unknown"
    if negations := words & _NEGATIONS:
        sure = words - negations <= _VEIN | _GIVEN | _FILLERS and not routed and volume <= 0
        return "none" if sure else "unknown"
    if not words <= _IODINATED | _VEIN | _GIVEN | _ORAL | _FILLERS:
        return "unknown"
    return _kind_by_route(words, routed)


def _kind_by_route(words: set[str], routed: set[str]) -> str:
    """The kind where all words are known and none denies."""
    named, iodinated = {*words, *routed}, words & _IODINATED
    if routed & _VEIN and words & _ORAL and not words & _VEIN:
        return "unknown"
    if routed & _ORAL and words & _VEIN and not routed & _VEIN:
        return "unknown"
    if named & _VEIN:
        return "vessels"
    if named & _ORAL:
        return "unknown" if iodinated and not routed & _ORAL else "oral"
    return "vessels" if iodinated - _DRUNK_TOO or (words & _GIVEN and not iodinated) else "unknown"


def _words(text: str) -> set[str]:
    """The words of a text, numbers aside unless it is 0 or 1."""
    plain = text.lower().strip()
    plain = {"0": "no", "1": "yes"}.get(plain, plain)
    for written, meant in _SPELLINGS:
        plain = re.sub(written, meant, plain)
    return set(re.findall(r"[^\W\d_]+", plain))
