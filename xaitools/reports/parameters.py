"""Presets of a study's notebook, and the check of values given for its parameters."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from xaitools.errors import ParameterError
from xaitools.study.notebooks import read_parameters, unknown
from xaitools.study.typed import typed


def presets(notebook: Path) -> list[str]:
    """The names of a notebook's presets, sorted."""
    files = (notebook.parent / "presets").glob(f"{notebook.stem}.*.yaml")
    return sorted(file.name.split(".")[-2] for file in files)


def usual_preset(notebook: Path) -> str:
    """The preset of a run that names none: ``quick``, or "" for a notebook without presets."""
    return "quick" if presets(notebook) else ""


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
    return {name: typed(value, known[name]) for name, value in values.items()}
