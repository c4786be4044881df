"""The shipped notebooks, and copies of them to play with."""

import base64
import hashlib
import importlib.metadata
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from xaitools.errors import ParameterError
from xaitools.files import write_text
from xaitools.reports.front import NOTEBOOK_ONLY
from xaitools.reports.kernel import environment
from xaitools.study.notebooks import notebooks_dir, read_from

_DASHBOARD = [
    f"--TagRemovePreprocessor.remove_cell_tags={tag}" for tag in (NOTEBOOK_ONLY, "exercise", "solution")
]
"""What asks for code has no place where there is none."""


def copy_notebooks(folder: str | Path) -> list[Path]:
    """Copy the studies' notebooks into `folder`, but for those that it has: what somebody wrote there stays.

    Returns
    -------
    list of Path
        The copies made.

    Raises
    ------
    ParameterError
        If the folder is that of the shipped notebooks.
    """
    return copied(notebooks_dir(), folder, lambda text: text)


def copied(source: Path, folder: str | Path, changed: Callable[[str], str]) -> list[Path]:
    """Copy the notebooks of `source`, each as `changed` makes its text; see `copy_notebooks` for the rest."""
    source, target = source.resolve(), Path(folder).resolve()
    if target == source:
        raise ParameterError(
            f"{folder} holds the notebooks that copies are made from; expected another folder, for copies to play with"
        )
    made = []
    for notebook in sorted(source.glob("*.ipynb")):
        copy = target / notebook.name
        if not copy.exists():
            made.append(write_text(copy, changed(read_from(notebook, target))))
    return made


def open_lab(folder: str | Path, options: Sequence[str] = (), *, dashboards: bool = False) -> int:
    """JupyterLab on a folder with options of its own, until it is closed; what it returned.

    As `dashboards`, Voila instead: a list of the notebooks, each of which runs when it is chosen, and shows text,
    pictures and widgets without the code.
    """
    application = ["voila", *_DASHBOARD] if dashboards else ["jupyterlab"]
    command = [sys.executable, "-m", *application, str(folder), *options]
    env = os.environ | environment()
    if os.name == "posix":
        os.execve(sys.executable, command, env)  # in our place, so that Ctrl-C is its own
    return subprocess.run(command, env=env, check=False).returncode


def is_changed(notebook: Path) -> bool:
    """Whether a shipped notebook is not as it was shipped: by git in a checkout, else by what pip knows of it.

    Results and what JupyterLab notes beside them do not count. Of one that is not shipped, and where nothing is known
    of how it was, it is not.
    """
    if notebook.resolve().parent != notebooks_dir().resolve():
        return False
    shipped = _in_git(notebook.resolve())
    if shipped is not None:
        return _cells(shipped) != _cells(notebook.read_bytes())
    recorded = _recorded(notebook)
    return recorded is not None and recorded != _digest(notebook.read_bytes())


def _in_git(notebook: Path) -> bytes | None:
    """The notebook as it was last committed."""
    command = ["git", "show", f"HEAD:./{notebook.name}"]
    try:
        found = subprocess.run(command, cwd=notebook.parent, capture_output=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout if found.returncode == 0 else None


def _recorded(notebook: Path) -> str | None:
    """The digest that came with the installed package."""
    try:
        files = importlib.metadata.files("xaitools") or []
    except importlib.metadata.PackageNotFoundError:
        return None
    own = [file for file in files if file.parts[-3:] == ("xaitools", "notebooks", notebook.name)]
    return own[0].hash.value if own and own[0].hash else None


def _digest(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()


def _cells(content: bytes) -> Any:
    try:
        cells = json.loads(content)["cells"]
        return [(cell["cell_type"], "".join(cell["source"])) for cell in cells]
    except (ValueError, KeyError, TypeError):
        return content
