import html
import json
import re
import unicodedata
import urllib.parse

import pytest

from xaitools.study.spellings import shared_parts, spellings

PATH = '/data/Jürgen Müller "JM" & Söhne/it\'s <b>_*1*/c\\d/𝔐 Ж'
WAYS = {
    "as it is": str,
    "composed": lambda text: unicodedata.normalize("NFC", text),
    "decomposed": lambda text: unicodedata.normalize("NFD", text),
    "repr": lambda text: repr(text)[1:-1],
    "ascii": lambda text: ascii(text)[1:-1],
    "unicode_escape, as Papermill": lambda text: text.encode("unicode_escape").decode().replace('"', r"\""),
    "bytes": lambda text: repr(text.encode())[2:-1],
    "json": lambda text: json.dumps(text)[1:-1],
    "json, not ascii": lambda text: json.dumps(text, ensure_ascii=False)[1:-1],
    "html": html.escape,
    "html, numbers": lambda text: text.encode("ascii", "xmlcharrefreplace").decode(),
    "url": urllib.parse.quote,
    "url, all of it": lambda text: urllib.parse.quote(text, safe=""),
    "url, form": urllib.parse.quote_plus,
    "windows": lambda text: text.replace("/", "\\"),
    "markdown": lambda text: re.sub(r"([\\`*_\[\]<>|#~])", r"\\\1", text),
}


@pytest.mark.parametrize("second", WAYS)
@pytest.mark.parametrize("first", WAYS)
def test_every_spelling_and_spelling_of_a_spelling_is_found(first, second):
    text = WAYS[second](WAYS[first](PATH))
    assert re.sub(spellings(PATH), "", f"from {text}: no") == "from : no"
    assert all(part in text for part in shared_parts(PATH))


@pytest.mark.parametrize(
    "other", ["/data/Jurgen", "/data/Jürgens", "data/Jürgen", "/Data/Jürgen", "/data/Jü rgen"]
)
def test_other_paths_are_not(other):
    assert not re.fullmatch(spellings("/data/Jürgen"), other)


def test_a_decomposed_name_finds_the_composed_one():
    assert re.fullmatch(spellings(unicodedata.normalize("NFD", "Söhne")), "Söhne")


def test_long_runs_of_signs_take_no_time():
    assert not re.search(spellings("/a b/ü"), "/" + "\\" * 20_000 + " " * 20_000 + "&amp;" * 5_000)
