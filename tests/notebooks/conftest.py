"""What every study's report must do."""

import gzip
import html
import io
import json
import re
import unicodedata
import urllib.parse
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file

from xaitools.cache import cache_dir
from xaitools.models.weights import fingerprint_of

PICTURE = "() => document.querySelector('.xai-panes canvas, .xai-picture canvas').toDataURL()"


@pytest.fixture
def opens_offline(browser) -> Callable[[Path, int, str], None]:
    """Check that a report shows its plots, that its viewer's picture changes with the method, without any request."""

    def check(report: Path, n_plots: int, method: str) -> None:
        page = browser.open(report)
        page.wait_for_selector(".main-svg")
        page.locator(".xai-readout:not(:empty)").wait_for()
        assert page.locator(".js-plotly-plot").count() == n_plots
        before = page.evaluate(PICTURE)
        page.locator("[data-control=method]").select_option(method)
        page.wait_for_function(f"before => ({PICTURE})() !== before", arg=before)
        assert [url for url in browser.requests if not re.match(r"(file|data|blob):", url)] == []
        assert browser.errors == []

    return check


PERSON = 'Jürgen Müller "JM" & Söhne'
NAMES = ("Jürgen", "Müller", "Söhne", "Mustermann")


def spelled(name: str) -> set[str]:
    """A name in all the ways in which a file may spell it; those of backslashes in small letters."""
    forms = {unicodedata.normalize(form, name) for form in ("NFC", "NFD")}
    ways = {
        way(form)
        for form in forms
        for way in (
            str, html.escape, urllib.parse.quote, lambda text: json.dumps(text)[1:-1],
            lambda text: text.encode("unicode_escape").decode(), lambda text: repr(text.encode())[2:-1],
            lambda text: text.encode("ascii", "xmlcharrefreplace").decode(),
        )
    }  # fmt: skip
    named = {"ü": "&uuml;", "ö": "&ouml;"}
    ways |= {"".join(named.get(letter, letter) for letter in name)}
    ways |= {way.replace("\\", "\\\\") for way in ways}
    return {way.lower() for way in ways}


def contents(path: Path) -> bytes:
    """What a file holds, unpacked."""
    content = path.read_bytes()
    if path.suffix == ".gz":
        return gzip.decompress(content)
    if zipfile.is_zipfile(io.BytesIO(content)):
        with zipfile.ZipFile(path) as packed:
            return b"".join(name.encode() + packed.read(name) for name in packed.namelist())
    return content


@pytest.fixture(scope="session")
def person() -> str:
    """Name of a folder that no output may show: an umlaut, blanks, quotes, an ampersand."""
    return PERSON


@pytest.fixture
def names_nobody() -> Callable[..., None]:
    """Check that no file below a folder, nor its name, holds a part of the person's name, however it is spelled."""

    def check(folder: Path, *more: str) -> None:
        files = [path for path in folder.rglob("*") if path.is_file()]
        assert files
        wanted = {way.encode() for name in (*NAMES, *more) for way in spelled(name)}
        for path in files:
            where = str(path.relative_to(folder))
            content = (where.encode() + b" " + contents(path)).lower()
            found = [way for way in wanted if way in content]
            assert not found, f"{found} in {where}"

    return check


@pytest.fixture(scope="session")
def weights_of() -> Callable[[Path], Path]:
    """The weights file, among those in the cache, of the network that a run used."""

    def found(run: Path) -> Path:
        used = json.loads((run / "manifest.json").read_text())["weights"]
        wanted = {used} if isinstance(used, str) else set(used.values())
        files = sorted((cache_dir() / "weights").glob("*.safetensors"))
        return next(path for path in files if fingerprint_of(load_file(path)) in wanted)

    return found
