"""Find the studies' notebooks, and read their parameters."""

import ast
import contextlib
import difflib
import io
import json
import os
import re
import tokenize
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

from xaitools.errors import ParameterError
from xaitools.study.typed import Parameter, typed

_PACKAGE = Path(__file__).parents[1]
_LINK_UP = re.compile(r"\[(?P<text>[^\]\[\"]+)\]\((?P<file>\.\./[\w./-]+)(?P<place>#[\w-]+)?\)")


def notebooks_dir() -> Path:
    """The folder of the studies' notebooks: of the checkout if there is one, else inside the package."""
    checkout = _PACKAGE.parent / "notebooks"
    return checkout if (_PACKAGE.parent / "pyproject.toml").is_file() else _PACKAGE / "notebooks"


def read_from(notebook: Path, folder: Path) -> str:
    """The text of a notebook's file as it has to be in another folder: links to files above it lead there from there.

    Where such a file is not there, as beside an installed package, its name stays without a link.
    """

    def moved(link: re.Match[str]) -> str:
        file = (notebook.parent / link["file"]).resolve()
        try:
            path = Path(os.path.relpath(file, folder.resolve())).as_posix()
        except ValueError:  # another drive
            path = file.as_posix()
        return f"[{link['text']}]({path}{link['place'] or ''})" if file.exists() else link["text"]

    return _LINK_UP.sub(moved, notebook.read_text(encoding="utf-8"))


def studies() -> list[str]:
    """The names of the studies, sorted."""
    return sorted(path.stem for path in notebooks_dir().glob("*.ipynb"))


def find_notebook(study: str | Path) -> Path:
    """The notebook of a study, given by its name or by the path of a notebook.

    Raises
    ------
    ParameterError
        If there is no such study or file.
    """
    if Path(study).suffix == ".ipynb":
        if not Path(study).is_file():
            raise ParameterError(f"there is no notebook '{study}': check the path")
        return Path(study)
    if str(study) not in studies():
        raise ParameterError(unknown("study", str(study), studies()))
    return notebooks_dir() / f"{study}.ipynb"


def read_parameters(notebook: Path) -> dict[str, Parameter]:
    """The parameters of a notebook, from its cell tagged ``parameters``, in their order.

    The cell is read as Python's grammar has it, not line by line as Papermill's own inspection does, which
    misses a parameter whose comment contains an equals sign.

    Raises
    ------
    ParameterError
        If the file is no notebook, has no cell tagged ``parameters``, or if a default is not a literal.
    """
    source = _parameters_source(notebook)
    if source is None:
        raise ParameterError(f"{notebook.name} has no cell tagged 'parameters': tag the one that sets them")
    try:
        return parse_parameters(source)
    except (ValueError, SyntaxError, tokenize.TokenError) as error:
        raise ParameterError(f"the parameters cell of {notebook.name} is not plain: {error}") from error


def _parameters_source(notebook: Path) -> str | None:
    """The source of its cell, as the file says: to load nbformat would take each kernel a second."""
    try:
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
        tagged = (cell["source"] for cell in cells if "parameters" in cell["metadata"].get("tags", []))
        found = next(tagged, None)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ParameterError(
            f"{notebook.name} is no notebook of Jupyter's format 4; open it in JupyterLab and save it"
        ) from error
    return "".join(found) if isinstance(found, list) else found


def parse_parameters(source: str) -> dict[str, Parameter]:
    """The parameters that a cell's source sets to literal values."""
    comments = {
        token.start[0]: token.string.lstrip("# ")
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    found = {}
    for name, node in _assignments(source).items():
        lines = range(node.lineno, (node.end_lineno or node.lineno) + 1)
        found[name] = Parameter(
            name=name,
            types=_type_names(node),
            default=ast.literal_eval(cast(ast.expr, node.value)),
            help=" ".join(comments[line] for line in lines if line in comments),
        )
    return found


def run_parameters(study: str, namespace: Mapping[str, Any]) -> dict[str, Any]:
    """Name and value of every parameter of the notebook that runs.

    The names are those of its parameters cell as it was last run: IPython keeps the source of what it ran in ``In``.
    Of the cells that set `output_dir`, it is the one that also says its type; Papermill's own, and one that changes
    a few values, do not. The values are those that the variables have by now, read as their types say. Where the cells
    are run by something else than IPython, the names are those of the study's notebook.

    Parameters
    ----------
    study : str
        Name of the study.
    namespace : mapping
        The notebook's variables: ``globals()``.

    Raises
    ------
    ParameterError
        If `output_dir` is not among them, if a value does not fit its type, or if neither the cells nor the study can
        be found.
    """
    known = _declared(namespace.get("In", ())) or read_parameters(find_notebook(study))
    values = {name: typed(namespace[name], known[name]) for name in known if name in namespace}
    if "output_dir" not in values:
        raise ParameterError(
            "output_dir is not set; expected a folder: set it in the cell tagged 'parameters'"
        )
    return values


def _declared(sources: Iterable[str]) -> dict[str, Parameter]:
    """What is set by the last parameters cell among cells that were run; nothing if there is none."""
    cells = []
    for source in sources:
        with contextlib.suppress(SyntaxError):
            cells.append(_assignments(source))
    cells = [cell for cell in cells if "output_dir" in cell]
    typed_cells = [cell for cell in cells if isinstance(cell["output_dir"], ast.AnnAssign)]
    chosen = (typed_cells[-1:] or cells[:1] or [{}])[0]
    return {name: Parameter(name, _type_names(node), None, "") for name, node in chosen.items()}


def _assignments(source: str) -> dict[str, ast.Assign | ast.AnnAssign]:
    """For each name that a cell sets, the statement that sets it."""
    found = {}
    for node in ast.parse(source).body:
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value and isinstance(target, ast.Name):
            found[target.id] = node
    return found


def _type_names(node: ast.Assign | ast.AnnAssign) -> tuple[str, ...]:
    """``("list", "None")`` for ``list[str] | None``; none at all where the cell gives no type."""
    if isinstance(node, ast.Assign):
        return ()
    return tuple(part.split("[")[0].strip() for part in ast.unparse(node.annotation).split("|"))


def unknown(what: str, name: str, known: list[str]) -> str:
    """The message for a name that is not among those known."""
    close = difflib.get_close_matches(name, known, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return f"{what} {name!r} is unknown; expected one of {', '.join(known) or 'none'}.{hint}"
