"""Values of a study's parameters that no run could use, told before there are data or a training."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from xaitools.atlas import load_atlas
from xaitools.attribution import DELETIONS, MethodName, parse_all
from xaitools.attribution._cam import LAYER
from xaitools.attribution.registry import Setting
from xaitools.checks import check_choice, check_counts, check_positive
from xaitools.data.orientation import check_orientation
from xaitools.errors import MethodError, ParameterError, UnsupportedModelError
from xaitools.evaluation import REPLACEMENTS
from xaitools.evaluation.region_perturbation import MODES, NOISE_UNITS
from xaitools.models import Network, build_network, resolve_device
from xaitools.models.settings import TrainingSettings
from xaitools.models.surgery import PRECISIONS
from xaitools.models.weights import check_source
from xaitools.study.notebooks import studies
from xaitools.study.runs import check_runs
from xaitools.study.volumes import check_methods

Values = Mapping[str, Any]

SMALL = 16
"""Voxels along each side of the image that methods are tried on."""

_COUNTS = ("size", "steps", "draws", "n_fractions", "n_folds", "n_runs")
_OR_NONE = ("n_subjects", "n_explained", "n_masked", "n_architectures", "n_permuted", "n_random", "n_single")
_POSITIVE = ("spacing", "noise_level", "noise_sd", "contour_width", "mask_rate")
_TRAINING = (
    "max_epochs",
    "patience",
    "batch_size",
    "learning_rate",
    "weight_decay",
    "augment",
    "copies",
    "seed",
)
_CHOICES: dict[str, Iterable[str]] = {
    "replacement": REPLACEMENTS, "deletion": DELETIONS, "precision": PRECISIONS,
    "noise_unit": NOISE_UNITS, "mode": MODES,
}  # fmt: skip


def check_values(study: str, values: Values) -> None:
    """Raise for a value that the run would fail with later, as it would then.

    Of the studies that are shipped, whose names are known; a study of one's own may mean something else by them.

    Parameters
    ----------
    study
        Name of the study.
    values
        Its parameters, of their types.

    Raises
    ------
    DeviceError
        For a device that this machine does not have.
    ParameterError, ShapeError
        For a network or a choice that is unknown, a network of other images, and a number out of its range.
    WeightsError, DataFileError, DataError
        If `model` or `atlas` names no file, or one that is no atlas.
    MethodError
        For a method that is unknown, or that has no such option or layer.
    UnsupportedModelError
        If no method suits the network.
    """
    if study not in studies():
        return
    if "device" in values:
        resolve_device(values["device"])
    _check_numbers(values)
    check_choice(**{name: (values[name], known) for name, known in _CHOICES.items() if name in values})
    check_orientation(values.get("orientation", ""))
    precision = {"precision": values["training_precision"]} if "training_precision" in values else {}
    TrainingSettings(**{name: values[name] for name in _TRAINING if name in values}, **precision)
    networks = list(_networks(values))
    for name in ("methods", "smooth_methods", "known_methods"):
        if values.get(name) or (name == "methods" and name in values):
            _check_methods(values[name], networks, values)
    _check_atlas(values)


def _check_numbers(values: Values) -> None:
    check_counts(**{name: values[name] for name in _COUNTS if name in values})
    check_positive(**{name: values[name] for name in _POSITIVE if name in values})
    for name in _OR_NONE:
        if values.get(name, 0) < 0:
            raise ParameterError(f"{name}={values[name]!r}; expected 0 or more.")
    shape = values.get("shape") or [2, 2, 2]
    if len(shape) != 3 or not all(type(n) is int and n > 1 for n in shape):
        raise ParameterError(f"shape={shape!r}; expected three numbers of voxels, 2 or more each, or none.")
    window = values.get("window", [0.0, 1.0])
    if len(window) != 2 or not window[1] > 0:
        raise ParameterError(f"window={window!r}; expected centre and width, the width above 0.")


def _networks(values: Values) -> Iterator[nn.Module]:
    """The networks that are named, without weights; checked to be there and to take such images."""
    if "n_runs" in values and "n_folds" not in values:
        check_runs(values.get("model", ""), values["n_runs"])
    model = values.get("model", "")
    for source in filter(None, map(str.strip, model.split(",") if "n_runs" in values else [model])):
        check_source(source)
    names = values.get("networks", [values["network"]] if "network" in values else [])
    if "networks" in values and not names:
        raise ParameterError("networks is empty; expected one name or more.")
    axes, size = 3 if "spacing" in values else 2, tuple(values.get("shape") or (256,) * 3)
    for name in names:
        with torch.device("meta"):
            network = build_network(name, input_size=size)
        found = {
            layer.weight.ndim - 2 for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.Conv3d)
        }
        if found != {axes}:
            kind, other = ("slices", "volumes") if axes == 3 else ("volumes", "slices")
            raise ParameterError(f"network={name!r} is for {kind}; expected one for {other}.")
        yield network


def _check_methods(methods: Sequence[str], networks: Sequence[nn.Module], values: Values) -> None:
    """Let every method plan its work on a small network of the same kind, where it reads its option."""
    size = tuple(values.get("shape") or ()) or (values.get("size", SMALL),) * 2
    check_methods(methods, size)
    names = parse_all(methods).values()
    example = torch.linspace(0, 1, SMALL ** len(size)).reshape(1, 1, *(SMALL,) * len(size))
    network = Network(_stand_in(len(size)), example)
    refused = []
    for name in names:
        try:
            _check_plan(name, network, () if values.get("model") else networks)
        except UnsupportedModelError as error:
            refused.append(error)
    if len(refused) == len(names) and not values.get("model"):
        raise refused[0]


def _check_plan(name: MethodName, network: Network, networks: Sequence[nn.Module]) -> None:
    option = name.option
    if option and name.method.option is LAYER:
        for own in networks:
            layers = [layer for layer, _ in own.named_modules() if layer]
            if option not in layers:
                raise MethodError(f"{name}: the network has no layer {option!r}; it has {', '.join(layers)}.")
        option = ""
    if name.base == "occlusion":
        option = re.sub(r"\d+", lambda number: str(min(int(number[0]), SMALL)), option)
    references = {"references": network.example} if "references" in name.method.keywords else {}
    target = torch.zeros(1, dtype=torch.int64)
    name.method.plan(Setting(network, network.example, target, name.source), option, **references)


def _stand_in(axes: int) -> nn.Module:
    """A network of the kind of all that are built here: convolution, normalisation, ReLU, pooling, a linear layer."""
    convolution, norm, pool = (
        (nn.Conv3d, nn.BatchNorm3d, nn.MaxPool3d) if axes == 3 else (nn.Conv2d, nn.BatchNorm2d, nn.MaxPool2d)
    )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        layers = [convolution(1, 2, 3, padding=1), norm(2), nn.ReLU(), pool(2), nn.Flatten()]
        return nn.Sequential(*layers, nn.Linear(2 * (SMALL // 2) ** axes, 2)).eval()


def _check_atlas(values: Values) -> None:
    atlas, space = values.get("atlas", ""), values.get("space", "mni")
    if atlas and values.get("data_dir") and space == "centered":
        raise ParameterError(
            "atlas with space='centered'; expected no atlas for heads as they were scanned: register them to MNI "
            "space, or give label_maps."
        )
    if atlas not in ("", "mni"):
        load_atlas(atlas, values.get("region_names") or None)
