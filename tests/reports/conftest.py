from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def notebooks() -> Path:
    """The tests' own notebooks: tiny, broken and slow."""
    return Path(__file__).parents[1] / "notebooks"
