"""The tutorials: the reports of the studies' quick runs, brought into the site where there are any."""

import json
import os
import shutil
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

ROOT = Path(os.environ.get("XAITOOLS_ROOT", Path(__file__).parents[2]))


def notebooks(folder: Path) -> list[tuple[Path, str, str]]:
    """Path, title and first paragraph of every notebook in a folder."""
    found = []
    for path in sorted(folder.glob("*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        text = next(("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"), "")
        title, _, rest = text.strip().partition("\n")
        found.append((path, title.lstrip("# "), rest.strip().split("\n\n")[0].replace("\n", " ")))
    return found


def report_of(study: str) -> Path:
    """Where `xaitools report STUDY` leaves its report."""
    return ROOT / "output" / study / "quick" / f"{study}.html"


class Studies(SphinxDirective):
    """A card for each study: what it asks, and its report, or how to make it."""

    def run(self) -> list[nodes.Node]:
        return self.parse_text_to_nodes("\n".join(map(_card, notebooks(ROOT / "notebooks"))))


class Lessons(SphinxDirective):
    """A line for each lesson."""

    def run(self) -> list[nodes.Node]:
        lines = [f"- **{title}** (`{path.name}`)" for path, title, _ in notebooks(ROOT / "notebooks/lessons")]
        return self.parse_text_to_nodes("\n".join(lines))


def _card(notebook: tuple[Path, str, str]) -> str:
    path, title, about = notebook
    study = path.stem
    shown = (
        f'<a href="tutorials/{study}.html">Open the report</a>'
        if report_of(study).exists()
        else f"Make the report: <code>xaitools report {study}</code>"
    )
    return f"## {title}\n\n{about}\n\n<p>{shown}</p>\n"


def copy_reports(app: Sphinx, failed: Exception | None) -> None:
    """Put the reports beside the pages."""
    for path, _, _ in notebooks(ROOT / "notebooks"):
        if failed is None and report_of(path.stem).exists():
            target = Path(app.outdir, "tutorials", f"{path.stem}.html")
            target.parent.mkdir(exist_ok=True)
            shutil.copyfile(report_of(path.stem), target)


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("studies", Studies)
    app.add_directive("lessons", Lessons)
    app.connect("build-finished", copy_reports)
    return {"parallel_read_safe": True}
