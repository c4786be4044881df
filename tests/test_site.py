"""The documentation's site builds without a warning and stands on its own: links, search, phones, no network."""

import inspect
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest
from PIL import Image

import xaitools.evaluation
from xaitools.attribution import METHODS

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PHONE, DESK = {"width": 400, "height": 800}, {"width": 1280, "height": 900}
PAGES = [
    "index", "methods/lrp", "methods/index", "howto/own_brains", "networks", "numbers", "datasets", "loaders",
    "glossary", "gallery", "tutorials", "reference/attribution",
]  # fmt: skip


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built site, a draft: its pictures are made by a network that was not trained."""
    folder = tmp_path_factory.mktemp("site")
    shutil.copytree(DOCS, folder / "docs", ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "sphinx", "--fail-on-warning", "--keep-going", "-D", "cards_epochs=0"]
    built = subprocess.run(
        [*command, "-q", "-b", "html", "docs", "html"],
        cwd=folder,
        env={**os.environ, "XAITOOLS_ROOT": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    return folder / "html"


class Page(HTMLParser):
    """The ids and links of a page."""

    def __init__(self, path):
        super().__init__()
        self.ids, self.links = set(), []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.ids.add(given.get("id"))
        self.links += [given[key] for key in ("href", "src") if given.get(key)]


def test_each_link_leads_somewhere(site):
    pages = {path: Page(path) for path in site.rglob("*.html")}
    broken = []
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme:
                assert parts.scheme in ("https", "http", "data"), link
                assert parts.scheme == "data" or "." in parts.netloc, link
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            fragment = unquote(parts.fragment)
            if not target.exists() or (fragment and target in pages and fragment not in pages[target].ids):
                broken.append(f"{path.relative_to(site)}: {link}")
    assert not broken
    assert len(pages) > 40


def test_pages_ask_for_nothing_and_fit_a_phone(site, browser):
    for page in PAGES:
        for screen in (PHONE, DESK):
            browser.page.set_viewport_size(screen)
            browser.open(site / f"{page}.html")
            wide = browser.page.evaluate("document.documentElement.scrollWidth")
            assert wide <= screen["width"], f"{page} is {wide} pixels wide on {screen['width']}"
    assert not [url for url in browser.requests if not url.startswith(("file:", "data:"))]
    assert not browser.errors


def test_a_word_is_found(site, browser):
    browser.page.goto(f"{(site / 'search.html').as_uri()}?q=rollout")
    browser.page.wait_for_selector("#search-results li a", timeout=20_000)
    found = browser.page.locator("#search-results li").all_inner_texts()
    assert any("Attention rollout" in text for text in found)


@pytest.mark.parametrize("name", METHODS)
def test_each_method_has_a_card(name, site):
    method = METHODS[name]
    assert method.equation
    assert method.use.endswith((".", "?"))
    assert method.failures
    assert all(failure.endswith(".") for failure in method.failures)
    page = (site / "methods" / f"{name}.html").read_text(encoding="utf-8")
    assert "<math" in page
    assert "kinds of network" in page
    assert ("batch independence" in page) == (name == "gradient")
    picture = np.asarray(Image.open(site / "_images" / f"{name}.png").convert("RGB"))
    maps = picture[len(picture) // 2 :].reshape(-1, 3)
    flat_of_a_draft = method.kind in ("layer", "optimisation") or name == "guided_grad_cam"
    assert len(np.unique(maps, axis=0)) > 20 or flat_of_a_draft


def test_a_card_counts_the_matrix(monkeypatch):
    monkeypatch.syspath_prepend(str(DOCS / "_ext"))
    import cards

    page = "- **A**: `lrp[a]`\n- **B**: `lrp[b]`\n- **G**: `gradient`\n\n" + "".join(
        f"| Network | A | B | G |\n|---|:-:|:-:|:-:|\n| x | ✓ | {sign} | ✓ |\n| y | ✓ | – | – |\n\n"
        for sign in "✓≈"
    )
    rows = cards.matrix(page, "lrp").splitlines()
    assert rows[-2:] == ["| `lrp[a]` | 4 | 0 | 0 |", "| `lrp[b]` | 1 | 1 | 2 |"]


def test_the_page_of_numbers_names_every_function():
    page = (DOCS / "numbers.md").read_text(encoding="utf-8")
    functions = [
        n for n in xaitools.evaluation.__all__ if inspect.isfunction(getattr(xaitools.evaluation, n))
    ]
    assert not [name for name in functions if f"`{name}`" not in page]


def test_the_page_of_numbers_names_what_studies_record():
    page = (DOCS / "numbers.md").read_text(encoding="utf-8")
    sources = [*(ROOT / "xaitools/study").glob("*.py"), *(ROOT / "notebooks").glob("*.ipynb")]
    text = "\n".join(source.read_text(encoding="utf-8") for source in sources)
    heads = {re.split(r"[{:,(]", found)[0].strip() for found in re.findall(r'metric=f?\\?"([^"\\]+)', text)}
    assert len(heads) > 20
    assert not [head for head in heads if head and head not in page]


def test_terms_of_the_glossary_stand_once():
    headings = re.findall(r"^### (.+)$", (DOCS / "glossary.md").read_text(encoding="utf-8"), re.MULTILINE)
    terms = [term.strip().lower() for heading in headings for term in heading.split(",")]
    assert len(terms) == len(set(terms))
