"""What every study's report must do."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

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
