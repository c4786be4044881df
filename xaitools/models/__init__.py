"""Networks, their training and their weights."""

from xaitools.models.augmentation import flip_and_shift
from xaitools.models.devices import available_devices, resolve_device
from xaitools.models.fitting import fit
from xaitools.models.resnet import NETWORKS, resnet
from xaitools.models.training import History, accuracy, predict, train
from xaitools.models.weights import (
    WeightsInfo,
    cache_dir,
    cached_weights,
    fingerprint,
    load_model,
    load_weights,
    read_info,
    save_weights,
)

__all__ = [
    "NETWORKS",
    "History",
    "WeightsInfo",
    "accuracy",
    "available_devices",
    "cache_dir",
    "cached_weights",
    "fingerprint",
    "fit",
    "flip_and_shift",
    "load_model",
    "load_weights",
    "predict",
    "read_info",
    "resnet",
    "resolve_device",
    "save_weights",
    "train",
]
