"""Find the studies' notebooks, read their parameters, and check values given for them."""

import ast
import difflib
import io
import tokenize
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from xaitools.errors import ParameterError

_PACKAGE = Path(__file__).parents[1]
_TYPES: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "float": (float, int),
    "bool": (bool,),
    "list": (list,),
    "dict": (dict,),
    "None": (type(None),),
}
_BOOLEANS = {"true": True, "yes": True, "false": False, "no": False}


@dataclass(frozen=True)
class Parameter:
    """One line of a notebook's parameters cell: ``seed: int = 0  # of every random draw``."""

    name: str
    types: tuple[str, ...]
    default: Any
    help: str


def notebooks_dir() -> Path:
    """The folder of the studies' notebooks: of the checkout if there is one, else inside the package."""
    checkout = _PACKAGE.parent / "notebooks"
    return checkout if (_PACKAGE.parent / "pyproject.toml").is_file() else _PACKAGE / "notebooks"


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
        raise ParameterError(_unknown("study", str(study), studies()))
    return notebooks_dir() / f"{study}.ipynb"


def presets(notebook: Path) -> list[str]:
    """The names of a notebook's presets, sorted."""
    files = (notebook.parent / "presets").glob(f"{notebook.stem}.*.yaml")
    return sorted(file.name.split(".")[-2] for file in files)


def read_preset(notebook: Path, preset: str) -> dict[str, Any]:
    """The parameters of ``presets/STUDY.PRESET.yaml`` beside the notebook.

    Raises
    ------
    ParameterError
        If there is no such preset, or if its file is not a mapping from names to values.
    """
    path = notebook.parent / "presets" / f"{notebook.stem}.{preset}.yaml"
    if preset not in presets(notebook):
        raise ParameterError(_unknown(f"preset of {notebook.stem}", preset, presets(notebook)))
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise ParameterError(f"{path.name} is not valid YAML: {error}") from error
    if not isinstance(values, dict):
        raise ParameterError(f"{path.name} holds a {type(values).__name__}: write lines such as 'seed: 0'")
    return values


def read_parameters(notebook: Path) -> dict[str, Parameter]:
    """The parameters of a notebook, from its cell tagged ``parameters``, in their order.

    The cell is read as Python's grammar has it, not line by line as Papermill's own inspection does, which
    misses a parameter whose comment contains an equals sign.

    Raises
    ------
    ParameterError
        If the notebook has no cell tagged ``parameters``, or if a default is not a literal.
    """
    import nbformat

    cells = nbformat.read(notebook, as_version=4).cells
    source = next((cell.source for cell in cells if "parameters" in cell.metadata.get("tags", [])), None)
    if source is None:
        raise ParameterError(f"{notebook.name} has no cell tagged 'parameters': tag the one that sets them")
    try:
        return parse_parameters(source)
    except (ValueError, SyntaxError) as error:
        raise ParameterError(f"the parameters cell of {notebook.name} is not plain: {error}") from error


def parse_parameters(source: str) -> dict[str, Parameter]:
    """The parameters that a cell's source sets to literal values."""
    comments = {
        token.start[0]: token.string.lstrip("# ")
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    found = {}
    for node in ast.parse(source).body:
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value and isinstance(target, ast.Name):
            lines = range(node.lineno, (node.end_lineno or node.lineno) + 1)
            found[target.id] = Parameter(
                name=target.id,
                types=_type_names(node),
                default=ast.literal_eval(node.value),
                help=" ".join(comments[line] for line in lines if line in comments),
            )
    return found


def check_parameters(notebook: Path, values: Mapping[str, Any]) -> dict[str, Any]:
    """`values` as the notebook's parameters take them: text is converted to the parameter's type.

    Raises
    ------
    ParameterError
        For a name that the notebook does not have (the message lists those it has), or a value that does not
        fit the type written in its parameters cell.
    """
    known = read_parameters(notebook)
    for name in values:
        if name not in known:
            raise ParameterError(_unknown(f"parameter of {notebook.stem}", name, list(known)))
    return {name: _convert(value, known[name]) for name, value in values.items()}


def _type_names(node: ast.Assign | ast.AnnAssign) -> tuple[str, ...]:
    """``("list", "None")`` for ``list[str] | None``; none at all where the cell gives no type."""
    if isinstance(node, ast.Assign):
        return ()
    return tuple(part.split("[")[0].strip() for part in ast.unparse(node.annotation).split("|"))


def _convert(value: Any, parameter: Parameter) -> Any:
    types = [name for name in parameter.types if name in _TYPES]
    if len(types) < len(parameter.types) or not types:
        return value
    if isinstance(value, str) and "str" not in types:
        value = _parse(value, types)
    accepted = tuple(kind for name in types for kind in _TYPES[name])
    if not isinstance(value, accepted) or (isinstance(value, bool) and "bool" not in types):
        expected = " or ".join(types)
        raise ParameterError(f"{parameter.name}={value!r} does not fit: {parameter.name} takes {expected}")
    return float(value) if isinstance(value, int) and "float" in types and "int" not in types else value


def _parse(text: str, types: list[str]) -> Any:
    """Text from a command line as the first of `types` that it spells; unchanged if it spells none."""
    for name in types:
        try:
            if name == "None" and text.lower() in ("none", "null", ""):
                return None
            if name == "bool" and text.lower() in _BOOLEANS:
                return _BOOLEANS[text.lower()]
            if name in ("int", "float"):
                return {"int": int, "float": float}[name](text)
            if name == "list" and not text.startswith("["):
                return [_literal(item.strip()) for item in text.split(",") if item.strip()]
            if name in ("list", "dict"):
                return ast.literal_eval(text)
        except (ValueError, SyntaxError):
            continue
    return text


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _unknown(what: str, name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean '{close[0]}'? " if close else ""
    return f"unknown {what} '{name}': {hint}known are {', '.join(known) or 'none'}"
