"""A finished training in the cache: the weights, and beside them its course."""

from collections.abc import Callable
from dataclasses import asdict, fields
from pathlib import Path

from torch import nn

from xaitools.cache import current_study
from xaitools.models.history import History
from xaitools.models.weights import WeightsInfo, fill_model, save_weights
from xaitools.seals import check_seal, read_json, tell_made_again, write_json


def keep_training(path: Path, model: nn.Module, info: WeightsInfo, history: History) -> None:
    """Write a training's weights, and its course beside them as ``.json``."""
    write_json(_record(path), {"study": current_study(), **asdict(history)})
    save_weights(model, path, info)


def kept_history(path: Path) -> History | None:
    """The course of the training whose weights are at `path`; None if one of both is missing or damaged."""
    record = _record(path)
    if not (path.exists() and record.exists()):
        return None
    try:
        known = read_json(record)
        return History(**{field.name: tuple(known[field.name]) for field in fields(History)})
    except (OSError, KeyError, TypeError) as error:
        tell_made_again(record, error)
        return None


def kept_model(path: Path, build: Callable[[], nn.Module]) -> nn.Module | None:
    """The network that `build` makes, with the weights at `path`; None if they are damaged, which the log says."""
    try:
        check_seal(path)
        model = build()
        fill_model(model, path)
    except OSError as error:
        tell_made_again(path, error)
        return None
    return model


def _record(path: Path) -> Path:
    return path.with_suffix(".json")
