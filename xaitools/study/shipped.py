"""Where the notebooks of the studies lie, with their presets and published numbers."""

from pathlib import Path

_PACKAGE = Path(__file__).parents[1]


def notebooks_dir() -> Path:
    """The folder of the studies' notebooks: of the checkout if there is one, else inside the package."""
    checkout = _PACKAGE.parent / "notebooks"
    return checkout if (_PACKAGE.parent / "pyproject.toml").is_file() else _PACKAGE / "notebooks"
