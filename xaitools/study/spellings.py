"""Find a text however it is spelled: as it is, or escaped for Python, JSON, HTML, Markdown or a URL."""

import re
import unicodedata
from functools import lru_cache
from html.entities import codepoint2name

# Signs of which escapes are made, each of which may itself be escaped.
_BACKSLASH = r"(?:\\|%(?:25){0,4}5c)"
_AND = r"(?:&|%(?:25){0,4}26)(?:amp(?:;|%(?:25){0,4}3b)){0,4}"
_NUMBER, _END = r"(?:\\{0,8}\#|%(?:25){0,4}23)", r"(?:;|%(?:25){0,4}3b)"
_SEPARATOR = (
    r"(?:[\\/]|(?i:%(?:25){0,4}(?:2f|5c)|\\(?:x2f|x5c|u002f|u005c)|"
    rf"{_AND}(?:{_NUMBER}(?:47|92|x2f|x5c)|sol|bsol){_END})){{1,16}}"
)
_BLANK = rf"(?:\\{{0,8}}\s|\xa0|\+|(?i:%(?:25){{0,4}}(?:20|2b)|{_AND}(?:nbsp|{_NUMBER}(?:32|x20|160)){_END})){{1,16}}"


@lru_cache(maxsize=4096)
def spellings(text: str) -> str:
    r"""A pattern of every spelling of `text`: one way for each of its characters, so that any mixture is found.

    Runs of ``/`` and ``\`` count as one separator, blanks as one blank; accents may be part of their letter or follow
    it. Letters and digits of ASCII are never escaped, by none of the ways.

    Examples
    --------
    >>> bool(re.fullmatch(spellings('Jürgen "JM"'), r"J\xfcrgen&nbsp;\"JM&quot;"))
    True
    """
    tokens = re.findall(r"[\\/]+|\s+|.", unicodedata.normalize("NFC", text))
    return "".join(map(_token, tokens))


@lru_cache(maxsize=200_000)
def shared_parts(text: str) -> tuple[str, ...]:
    """The parts of `text` that all its spellings share: where one is missing, there is no need to search."""
    return tuple(re.findall(r"[A-Za-z0-9]+", unicodedata.normalize("NFC", text)))


def _token(token: str) -> str:
    if token[0] in "\\/":
        return _SEPARATOR
    if token.isspace():
        return _BLANK
    apart = unicodedata.normalize("NFD", token)
    return (
        _character(token) if apart == token else f"(?:{_character(token)}|{''.join(map(_character, apart))})"
    )


def _character(character: str) -> str:
    if character.isascii() and character.isalnum():
        return character
    code, octets = ord(character), character.encode(errors="surrogatepass")
    units = character.encode("utf-16-be", errors="surrogatepass")
    named = f"|{codepoint2name[code]}" if code in codepoint2name else ""
    ways = [
        "".join(f"%(?:25){{0,4}}{octet:02x}" for octet in octets),
        "".join(rf"{_BACKSLASH}{{1,8}}x{octet:02x}" for octet in octets),
        "".join(rf"{_BACKSLASH}{{1,8}}u{units[i : i + 2].hex()}" for i in range(0, len(units), 2)),
        rf"{_BACKSLASH}{{1,8}}U{code:08x}",
        rf"{_BACKSLASH}{{0,8}}{_AND}(?:{_NUMBER}0*{code}|{_NUMBER}x0*{code:x}{named}){_END}",
        *([rf"{_BACKSLASH}{{1,8}}x{code:02x}"] if code < 256 else []),
        rf"{_BACKSLASH}{{0,8}}%(?:25){{0,4}}{code:02x}" if code < 128 else "",
        rf"{_BACKSLASH}{{0,8}}{_AND}" if character == "&" else rf"{_BACKSLASH}{{0,8}}{re.escape(character)}",
    ]
    return f"(?i:{'|'.join(filter(None, ways))})"
