"""Fixtures for every test, and the shape checks: jaxtyping's annotations are verified while the tests run."""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from jaxtyping import install_import_hook

# As for mypy, an int is welcome where a float is expected.
install_import_hook("xaitools", "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))")


@pytest.fixture(scope="session", autouse=True)
def _private_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test reads or fills the user's cache of weights."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XAITOOLS_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data that XAITOOLS_DATA names."""
    if not (folder := os.environ.get("XAITOOLS_DATA")):
        pytest.skip("needs real data: set XAITOOLS_DATA to its folder")
    path = Path(folder).resolve()
    assert path.is_dir(), f"XAITOOLS_DATA names no folder: {path}"
    return path


@dataclass
class Browser:
    """A page of headless Chromium without a network, and what happened in it."""

    page: object
    requests: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def open(self, path: Path) -> object:
        """Open a file, wait until it has loaded, return the playwright page."""
        self.page.goto(Path(path).resolve().as_uri(), wait_until="load")
        return self.page


@pytest.fixture
def browser() -> Iterator[Browser]:
    """Headless Chromium: `browser.open(path)`, then look at `browser.requests` and `browser.errors`."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install playwright")
    names = ("chromium", "chromium-browser", "google-chrome")
    executable = next(filter(None, map(shutil.which, names)), None)
    if executable is None:
        pytest.skip("needs Chromium: on Debian and Ubuntu, apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        context = chromium.new_context(offline=True, viewport={"width": 1280, "height": 900})
        result = Browser(context.new_page())
        result.page.on("request", lambda request: result.requests.append(request.url))
        result.page.on("pageerror", lambda error: result.errors.append(str(error)))
        result.page.on(
            "console", lambda message: message.type == "error" and result.errors.append(message.text)
        )
        yield result
        chromium.close()


def _fail_instead_of_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    expected_failure = hasattr(report, "wasxfail")
    if os.environ.get("XAITOOLS_NO_SKIP") and report.skipped and not expected_failure:
        report.outcome = "failed"
        report.longrepr = f"skipped, where XAITOOLS_NO_SKIP forbids it: {report.longrepr}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    report = yield
    _fail_instead_of_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report():
    report = yield
    _fail_instead_of_skip(report)
    return report
