"""The values of a notebook's parameters as their types say, whoever gives them: the command, Papermill, a person."""

import ast
import json
import os
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

from xaitools.errors import ParameterError

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
_SPELLED = {
    "str": 'a text, such as "5" (of Papermill: -r NAME VALUE)',
    "list": 'a list, such as ["a", "b"], or a,b on a command line',
    "dict": 'names and values, such as {"a": 1}',
    "bool": "true or false",
}


@dataclass(frozen=True)
class Parameter:
    """One line of a notebook's parameters cell: ``seed: int = 0  # of every random draw``."""

    name: str
    types: tuple[str, ...]
    default: Any
    help: str


def typed(value: Any, parameter: Parameter) -> Any:
    """`value` as the parameter takes it: text is read as the type that stands in the parameters cell.

    Papermill's own ``-p`` gives a list as text, ``'["gradient"]'``; a list is also written ``gradient,lrp[epsilon]``.

    Raises
    ------
    ParameterError
        If it does not fit the type; the message shows how it is spelled.
    """
    types = [name for name in parameter.types if name in _TYPES]
    if len(types) < len(parameter.types) or not types:
        return value
    if isinstance(value, str) and "str" not in types:
        value = _parse(value, types)
    value = _plain(value, types)
    accepted = tuple(kind for name in types for kind in _TYPES[name])
    if not isinstance(value, accepted) or (isinstance(value, bool) and "bool" not in types):
        expected = " or ".join(types)
        spelled = "".join(f"; write {_SPELLED[name]}" for name in types if name in _SPELLED)
        raise ParameterError(
            f"{parameter.name}={value!r} does not fit: {parameter.name} takes {expected}{spelled}"
        )
    return float(value) if isinstance(value, int) and "float" in types and "int" not in types else value


def _plain(value: Any, types: list[str]) -> Any:
    """A number of NumPy, a tuple or a path as the plain value that it stands for."""
    if isinstance(value, Integral) and not isinstance(value, bool):
        return int(value)
    if isinstance(value, Real) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, tuple) and "list" in types:
        return list(value)
    return os.fspath(value) if isinstance(value, os.PathLike) and "str" in types else value


def _parse(text: str, types: list[str]) -> Any:
    """Text as the first of `types` that it spells; unchanged if it spells none."""
    for name in types:
        try:
            if name == "None" and text.lower() in ("none", "null", ""):
                return None
            if name == "bool" and text.lower() in _BOOLEANS:
                return _BOOLEANS[text.lower()]
            if name in ("int", "float"):
                return {"int": int, "float": float}[name](text)
            if name == "list" and not text.strip().startswith(("[", "(")):
                return [_literal(item.strip()) for item in text.split(",") if item.strip()]
            if name in ("list", "dict"):
                return _structure(text)
        except (ValueError, SyntaxError):
            continue
    return text


def _structure(text: str) -> Any:
    """A list or mapping as JSON or Python writes it."""
    try:
        return json.loads(text)
    except ValueError:
        return ast.literal_eval(text.strip())


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
