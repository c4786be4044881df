"""Networks, their training and their weights."""

from xaitools.cache import cache_dir
from xaitools.models.augmentation import (
    AUGMENTATIONS,
    flip_and_shift,
    rotation,
    rotation_and_scaling,
    sagittal_flip,
    sagittal_flip_and_coronal_shift,
)
from xaitools.models.autoencoder import Autoencoder, Pretrained, pretrain_autoencoder
from xaitools.models.devices import available_devices, resolve_device
from xaitools.models.epochs import epoch_files, load_epoch
from xaitools.models.fitting import fit
from xaitools.models.history import History
from xaitools.models.imagenet import imagenet_reachable
from xaitools.models.images import ImageStack, LabelledImages
from xaitools.models.linear import LinearBaseline, linear_baseline
from xaitools.models.network import Network
from xaitools.models.networks import NETWORKS, build_network
from xaitools.models.prediction import accuracy, predict, predict_values
from xaitools.models.settings import TrainingSettings
from xaitools.models.surgery import log_odds
from xaitools.models.tasks import LOSSES
from xaitools.models.training import train
from xaitools.models.weights import (
    WeightsInfo,
    cached_weights,
    fingerprint,
    load_model,
    load_weights,
    read_info,
    save_weights,
)

__all__ = [
    "AUGMENTATIONS",
    "LOSSES",
    "NETWORKS",
    "Autoencoder",
    "History",
    "ImageStack",
    "LabelledImages",
    "LinearBaseline",
    "Network",
    "Pretrained",
    "TrainingSettings",
    "WeightsInfo",
    "accuracy",
    "available_devices",
    "build_network",
    "cache_dir",
    "cached_weights",
    "epoch_files",
    "fingerprint",
    "fit",
    "flip_and_shift",
    "imagenet_reachable",
    "linear_baseline",
    "load_epoch",
    "load_model",
    "load_weights",
    "log_odds",
    "predict",
    "predict_values",
    "pretrain_autoencoder",
    "read_info",
    "resolve_device",
    "rotation",
    "rotation_and_scaling",
    "sagittal_flip",
    "sagittal_flip_and_coronal_shift",
    "save_weights",
    "train",
]
