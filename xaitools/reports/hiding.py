"""An executed notebook without the paths and names that its run knew."""

import contextlib
from pathlib import PurePosixPath, PureWindowsPath
from tokenize import TokenError
from typing import Any

from xaitools.study.notebooks import parse_parameters
from xaitools.study.privacy import Private

SETTING_CELLS = {"parameters", "injected-parameters"}


def parameters_as_run(notebook: dict[str, Any]) -> dict[str, Any]:
    """The values of an executed notebook's parameters, as far as its cells and Papermill tell them."""
    found: dict[str, Any] = {}
    for tag in ("parameters", "injected-parameters"):
        for cell in notebook["cells"]:
            if tag in cell["metadata"].get("tags", []):
                with contextlib.suppress(ValueError, SyntaxError, TokenError):
                    found |= {
                        own.name: own.default for own in parse_parameters(_joined(cell["source"])).values()
                    }
    return found | notebook["metadata"].get("papermill", {}).get("parameters", {})


def hide(notebook: dict[str, Any], private: Private) -> dict[str, Any]:
    """The notebook, as parsed JSON, with nothing in its cells, outputs and metadata that is private."""
    metadata = dict(notebook["metadata"])
    if "papermill" in metadata:
        own = metadata["papermill"]
        files = {key: _file_name(own[key]) for key in ("input_path", "output_path") if own.get(key)}
        metadata["papermill"] = {**own, **files}
    return {
        **private.value({key: value for key, value in notebook.items() if key not in ("cells", "metadata")}),
        "metadata": private.value(metadata),
        "cells": [_cell(cell, private) for cell in notebook["cells"]],
    }


def _cell(cell: dict[str, Any], private: Private) -> dict[str, Any]:
    sets = SETTING_CELLS & {*cell["metadata"].get("tags", [])}
    source = (private.source if sets else private.text)(_joined(cell["source"]))
    hidden = {**private.value({**cell, "source": "", "outputs": []}), "source": source}
    if "outputs" not in cell:
        return {key: value for key, value in hidden.items() if key != "outputs"}
    return {**hidden, "outputs": [_output(output, private) for output in cell["outputs"]]}


def _output(output: dict[str, Any], private: Private) -> dict[str, Any]:
    if output["output_type"] == "stream":
        return {**output, "text": private.message(_joined(output["text"]))}
    if output["output_type"] == "error":
        return {
            **output,
            "evalue": private.message(output["evalue"]),
            "traceback": [private.message(line) for line in output["traceback"]],
        }
    data = {
        kind: _joined(value) if _is_text(value) else value for kind, value in output.get("data", {}).items()
    }
    return {**private.value({**output, "data": {}}), "data": private.value(data)}


def _is_text(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(line, str) for line in value)


def _joined(text: str | list[str]) -> str:
    """A text of a notebook, which may be stored line by line."""
    return text if isinstance(text, str) else "".join(text)


def _file_name(path: str) -> str:
    """The last part of a path, of whatever system."""
    return PureWindowsPath(path).name if "\\" in path and "/" not in path else PurePosixPath(path).name
