"""Presets of a study's notebook, and the check of values given for its parameters."""

import ast
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from xaitools.errors import ParameterError
from xaitools.study.notebooks import Parameter, read_parameters, unknown

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
        raise ParameterError(unknown(f"preset of {notebook.stem}", preset, presets(notebook)))
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise ParameterError(f"{path.name} is not valid YAML: {error}") from error
    if not isinstance(values, dict):
        raise ParameterError(f"{path.name} holds a {type(values).__name__}: write lines such as 'seed: 0'")
    return values


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
            raise ParameterError(unknown(f"parameter of {notebook.stem}", name, list(known)))
    return {name: _convert(value, known[name]) for name, value in values.items()}


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
