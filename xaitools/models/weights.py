"""Weights on disk: files that say what they are, a cache of them, and models that a user brings."""

import importlib
import json
import math
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from xaitools.cache import cache_dir
from xaitools.errors import DataFileError, ParameterError, WeightsError
from xaitools.files import digest, replacing
from xaitools.models.networks import build_network
from xaitools.seals import BLANK, SEAL, NoSealError, check_seal, seal

HEADER = "xaitools"
LONGEST, MOST_VOXELS = 2**16, 2**30


@dataclass(frozen=True)
class WeightsInfo:
    """What a weights file says of itself.

    Attributes
    ----------
    network
        Name of the network, a key of :data:`~xaitools.models.networks.NETWORKS`.
    in_channels
        Channels of the images it takes.
    class_names
        Names of the classes, the index is the label; empty for a regression.
    unit
        Unit of the output of a regression.
    input_size
        Lengths of the spatial axes that the network was built for; empty if it takes any.
    note
        Where the weights come from, in words.
    """

    network: str
    in_channels: int
    class_names: tuple[str, ...] = ()
    unit: str = ""
    input_size: tuple[int, ...] = ()
    note: str = ""

    @property
    def n_outputs(self) -> int:
        """One for each class; 1 for a regression."""
        return len(self.class_names) or 1


def save_weights(model: nn.Module, path: str | Path, info: WeightsInfo) -> Path:
    """Write the model's weights as safetensors, in one step: readers see the whole file or none.

    The file carries a checksum, so that :func:`load_weights` finds any bit that changes later.

    Parameters
    ----------
    model
        Any network, on any device.
    path
        File to write, ``.safetensors``; its folder is made.
    info
        What the file shall say of itself.

    Returns
    -------
    Path
        The file.
    """
    state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    with replacing(path) as temporary:
        save_file(state, temporary, metadata={HEADER: json.dumps(asdict(info)), SEAL: BLANK})
        seal(temporary)
    return Path(path)


def read_info(path: str | Path) -> WeightsInfo:
    """What a file written by :func:`save_weights` says of itself; all of it is read, to compare its checksum.

    Raises
    ------
    WeightsError
        If the file is missing, damaged, or was not written by :func:`save_weights`.
    """
    _check_whole(path)
    with _opened(path) as file:
        header = (file.metadata() or {}).get(HEADER)
    if header is None:
        raise WeightsError(
            f"{path} was not written by xaitools' save_weights: it does not say what network it is for"
        )
    try:
        fields = json.loads(header)
        tuples = {name: tuple(value) for name, value in fields.items() if isinstance(value, list)}
        info = WeightsInfo(**{**fields, **tuples})
        _check_info(info)
        return info
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise WeightsError(
            f"{path} describes itself as {header[:200]!r}, which this version can not read; make or fetch it anew"
        ) from error


def _check_info(info: WeightsInfo) -> None:
    """Raise ValueError if it says what no network is: a header is not believed before memory is spent on it."""
    words = all(isinstance(word, str) for word in (info.network, info.unit, info.note, *info.class_names))
    counts = (info.in_channels, *info.input_size)
    if not words or not all(type(count) is int and 1 <= count <= LONGEST for count in counts):
        raise ValueError("values of another kind")
    if math.prod(info.input_size) > MOST_VOXELS:
        raise ValueError("larger than an image")


def load_weights(model: nn.Module, path: str | Path) -> WeightsInfo:
    """Read weights written by :func:`save_weights` into a model of the same network.

    Parameters
    ----------
    model
        Network to fill, in place.
    path
        The file.

    Raises
    ------
    WeightsError
        If the file is missing, damaged, not written by :func:`save_weights`, or made for another network;
        then the model is unchanged.
    """
    info = read_info(path)
    fill_model(model, path)
    return info


def fill_model(model: nn.Module, path: str | Path) -> None:
    """As :func:`load_weights`, of a file that is known to be whole."""
    with _opened(path) as file:
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    _fill(model, state, path)


def cached_weights(network: str, settings: Mapping[str, Any], data: str) -> Path:
    """Where the cache keeps the weights that come of this network, these settings and this data.

    Parameters
    ----------
    network
        Name of the network.
    settings
        Whatever else the weights depend on (seed, learning rate, ...); values that JSON can hold.
    data
        Fingerprint of the training and validation data.

    Returns
    -------
    Path
        ``NETWORK-KEY.safetensors``, which may not exist yet. The key also changes with the package's major
        and minor version.

    Raises
    ------
    ParameterError
        If JSON can not hold a setting.
    """
    release = version("xaitools").split(".")[:2]
    try:
        content = json.dumps([network, dict(settings), data, release], sort_keys=True)
    except TypeError as error:
        raise ParameterError(f"settings {settings!r} are not plain values ({error})") from error
    return cache_dir() / "weights" / f"{network}-{digest([content])[:16]}.safetensors"


def fingerprint(model: nn.Module) -> str:
    """Hexadecimal digest of the model's weights: same weights, same digest."""
    return fingerprint_of(model.state_dict())


def fingerprint_of(state: Mapping[str, Tensor]) -> str:
    """:func:`fingerprint` of weights by name, as ``state_dict()`` returns them."""
    return digest(_contents(state))[:16]


def _contents(state: Mapping[str, Tensor]) -> Iterator[str | memoryview]:
    for name, value in sorted(state.items()):
        yield f"{name} {tuple(value.shape)} {value.dtype}"
        yield value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data


def check_source(spec: str) -> None:
    """Raise WeightsError unless `spec` is a file, or spelled as ``package.module:factory``; nothing is loaded."""
    if not _is_factory(spec) and not Path(spec).is_file():
        raise WeightsError(
            f"no weights file at {spec}, and no package.module:factory of that name; check the spelling"
        )


def _is_factory(spec: str) -> bool:
    return bool(re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*", spec)) and not Path(spec).exists()


def load_model(
    spec: str, *, network: str, in_channels: int = 1, n_outputs: int = 2, input_size: Sequence[int] = ()
) -> nn.Module:
    """The model that a user names, in evaluation mode.

    Parameters
    ----------
    spec
        One of

        - a ``.safetensors`` file written by :func:`save_weights`, which knows its network;
        - any other file: a state dict written by ``torch.save(model.state_dict(), file)``, for `network`;
        - ``package.module:factory``: a function without arguments that returns a module; the current
          directory is searched too.
    network
        Name of the network that a plain state dict is for.
    in_channels, n_outputs
        Channels of the images and number of outputs (classes; 1 for a regression) that the model has to fit.
    input_size
        Lengths of the spatial axes, for networks of volumes.

    Raises
    ------
    WeightsError
        If the file is missing, damaged, or made for another network, number of channels or of outputs.
    ParameterError
        If the network is unknown, or the factory can not be found, fails, or returns no module.
    """
    if _is_factory(spec):
        return _made_by(spec).eval()
    if Path(spec).suffix != ".safetensors":
        model = build_network(network, in_channels=in_channels, n_outputs=n_outputs, input_size=input_size)
        _fill(model, _torch_state(Path(spec)), spec)
        return model.eval()
    info = read_info(spec)
    if (info.in_channels, info.n_outputs) != (in_channels, n_outputs):
        raise WeightsError(
            f"{spec} is for {info.in_channels} channels and has {info.n_outputs} outputs "
            f"({', '.join(info.class_names) or info.unit}), expected {in_channels} and {n_outputs}"
        )
    size = info.input_size or input_size
    model = build_network(info.network, in_channels=in_channels, n_outputs=n_outputs, input_size=size)
    fill_model(model, spec)
    return model.eval()


def _check_whole(path: str | Path) -> None:
    """Raise WeightsError if a file is not as it was written, as far as it carries a checksum."""
    try:
        if Path(path).is_file():
            check_seal(Path(path))
    except NoSealError:
        return  # of a version that wrote none
    except DataFileError as error:
        raise WeightsError(f"{path} is damaged: {error}; make or fetch it anew") from error


@contextmanager
def _opened(path: str | Path) -> Iterator[Any]:
    if not Path(path).is_file():
        raise WeightsError(f"no weights file at {path}; check the path")
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except SafetensorError as error:
        raise WeightsError(
            f"{path} is damaged or not a safetensors file ({error}); make or fetch it anew"
        ) from error


def _torch_state(path: Path) -> dict[str, Tensor]:
    check_source(str(path))
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch's reader raises whatever a damaged file leads it to
        raise WeightsError(
            f"{path} is damaged or holds more than tensors ({type(error).__name__}), "
            "which is not read; expected a file written by torch.save(model.state_dict(), file)"
        ) from error
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items()
    ):
        found = (
            f"a dict with {', '.join(map(repr, list(state)[:4]))}" if isinstance(state, dict) else type(state)
        )
        raise WeightsError(
            f"{path} holds {found}, expected names and tensors, "
            "as written by torch.save(model.state_dict(), file)"
        )
    return state


def _fill(model: nn.Module, state: Mapping[str, Tensor], path: str | Path) -> None:
    own = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    theirs = {name: tuple(value.shape) for name, value in state.items()}
    differences = [
        f"{name}: {theirs.get(name, 'absent')} in the file, {own.get(name, 'absent')} in the model"
        for name in {**own, **theirs}
        if own.get(name) != theirs.get(name)
    ]
    if differences:
        more = f" and {len(differences) - 3} more" if len(differences) > 3 else ""
        raise WeightsError(
            f"{path} is for another network than {type(model).__name__} as built here; "
            f"{'; '.join(differences[:3])}{more}"
        )
    model.load_state_dict(state)


def _made_by(spec: str) -> nn.Module:
    module_name, _, function_name = spec.partition(":")
    with _current_directory_importable():
        try:
            module = importlib.import_module(module_name)
        except Exception as error:
            raise ParameterError(
                f"model {spec!r}: importing {module_name} failed with {type(error).__name__}: {error}; "
                "install it, or put its file beside the notebook"
            ) from error
        factory = getattr(module, function_name, None)
        if not callable(factory):
            raise ParameterError(f"model {spec!r}: {module_name} has no function {function_name}")
        try:
            model = factory()
        except Exception as error:
            raise ParameterError(
                f"model {spec!r}: the call {function_name}() failed with {type(error).__name__}: {error}; "
                "it must work without arguments"
            ) from error
    if not isinstance(model, nn.Module):
        raise ParameterError(f"model {spec!r}: returned {type(model).__name__}, expected a torch.nn.Module")
    return model


@contextmanager
def _current_directory_importable() -> Iterator[None]:
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(folder)
