"""The weights after each epoch of a training, kept for whoever asks how the network came about."""

import re
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from xaitools.errors import WeightsError
from xaitools.files import replacing
from xaitools.seals import BLANK, SEAL, check_seal, seal, tell_made_again

_NAME = re.compile(r"epoch-(\d{4,})\.safetensors")
_REMEDY = "train with keep_epochs=FOLDER, in fit or train, and give that folder"


def save_epoch(model: nn.Module, folder: str | Path, epoch: int, key: str = "") -> Path:
    """Write the model's weights after epoch number `epoch`, counted from 1; `key` tells its training from others."""
    path = Path(folder) / f"epoch-{epoch:04d}.safetensors"
    state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    with replacing(path) as temporary:
        save_file(state, temporary, metadata={"key": key, SEAL: BLANK})
        seal(temporary)
    return path


def clear_epochs(folder: str | Path, after: int = 0) -> None:
    """Delete the files of epochs later than `after`: they are of another training."""
    for epoch, path in _found(folder).items():
        if epoch > after:
            path.unlink()


def epoch_files(folder: str | Path) -> list[Path]:
    """The files that a training with ``keep_epochs=folder`` wrote, in the order of the epochs, from the first on.

    Raises
    ------
    WeightsError
        If there is none, or one is missing between them.
    """
    found = _found(folder)
    if not found:
        raise WeightsError(
            f"no weights of epochs in {folder}; expected epoch-0001.safetensors on: {_REMEDY}."
        )
    missing = sorted(set(range(1, max(found) + 1)) - set(found))
    if missing:
        raise WeightsError(
            f"{folder} has weights up to epoch {max(found)}, but none of epoch {missing[0]}; expected all: the "
            f"training was resumed without them. Delete its checkpoint and {_REMEDY}."
        )
    return [found[epoch] for epoch in sorted(found)]


def load_epoch(path: str | Path) -> Mapping[str, Tensor]:
    """The weights in a file of :func:`save_epoch`, by name.

    Raises
    ------
    WeightsError
        If the file is missing or damaged.
    """
    try:
        check_seal(Path(path))
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise WeightsError(
            f"{path} is missing or damaged ({type(error).__name__}); expected the weights of an epoch: {_REMEDY}."
        ) from error


def has_epochs(folder: str | Path, n_epochs: int, key: str) -> bool:
    """Whether the folder holds all `n_epochs` epochs of the training of that key, each as written, and no more."""
    found = _found(folder)
    return sorted(found) == list(range(1, n_epochs + 1)) and all(_key(path) == key for path in found.values())


def _found(folder: str | Path) -> dict[int, Path]:
    folder = Path(folder)
    paths = folder.iterdir() if folder.is_dir() else ()
    return {int(match[1]): path for path in paths if (match := _NAME.fullmatch(path.name))}


def _key(path: Path) -> str | None:
    try:
        check_seal(path)
        with safe_open(path, framework="pt") as file:
            return (file.metadata() or {}).get("key")
    except (OSError, SafetensorError) as error:
        tell_made_again(path, error)
        return None
